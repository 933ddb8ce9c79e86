"""What a dataset's paid stages would take now, without asking anybody.

Belongs here: one line per paid stage, from whatever is already there. Does not belong here: counting (`assets.spending`
and the providers) or printing (`cli.cost`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets import annotation_matrix, interpretations
from hsae_dagster.assets.candidate_scores import Split
from hsae_dagster.assets.concepts_to_test import concepts_to_test
from hsae_dagster.assets.embeddings import unit_texts, vector_table
from hsae_dagster.assets.spending import estimate_annotation, estimate_interpretation, open_account, ordinary
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.errors import StorageError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Annotator, Interpreter
from hsae_dagster.providers.estimate import Estimate
from hsae_dagster.providers.registry import make_annotator, make_embedder, make_interpreter
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StageInputs, StoredObject
from hsae_dagster.storage.vectors import VectorTable

# A rough estimate needs no more to know how long texts are.
MOST_TEXTS = 5_000
FINISHED = "finished, nothing to ask"
COUNTED = "counted from the requests themselves"


@dataclass(frozen=True)
class StageCost:
    """One stage.

    Attributes:
        stage: its name.
        model: who is asked.
        estimate: what is left to ask.
        basis: what the estimate rests on.
    """

    stage: str
    model: str
    estimate: Estimate
    basis: str


def estimate_costs(project: Project, dataset: Dataset) -> list[StageCost]:
    """What is left to pay for each stage that asks a paid model. Nothing is sent, and no key is needed.

    Raises:
        StorageError: the dataset has no corpus yet.
        ProviderError: a model's name or table cannot be used.
    """
    corpus = project.store.current(dataset.name, "corpus")
    spec = dataset.spec
    found = []
    if _paid(spec.embedding.model):
        found.append(_embedding(project, dataset, corpus, _account(project, dataset, "embeddings")))
    # Claims found offline ask nobody, whoever judges them afterwards.
    if _paid(spec.interpretation.model):
        found.append(_interpretation(project, dataset, corpus, _account(project, dataset, "interpretations")))
    if _paid(spec.annotation.model):
        found.append(_annotation(project, dataset, corpus, _account(project, dataset, "annotation_matrix")))
    return found


def _paid(model: str) -> bool:
    return model.startswith("openai:")


def _account(project: Project, dataset: Dataset, stage: str) -> Account:
    return open_account(project, dataset, stage, "estimate")


def _embedding(project: Project, dataset: Dataset, corpus: StoredObject, account: Account) -> StageCost:
    settings = dataset.spec.embedding
    embedder = make_embedder(settings, account)
    texts = unit_texts(corpus)
    family = embedder.known_set()
    if family is not None:
        known = VectorTable(project.results, dataset.origin, family).keys()
        texts = texts.filter(~pl.col("text_id").is_in(list(known)))
    estimate = embedder.estimate(texts["text"].to_list(), settings.batch_size)
    return StageCost("embeddings", settings.model, estimate, COUNTED if texts.height else FINISHED)


def _interpretation(project: Project, dataset: Dataset, corpus: StoredObject, account: Account) -> StageCost:
    spec = dataset.spec
    asked = [spec.interpretation.model, spec.annotation.model]
    model = ", ".join(dict.fromkeys(name for name in asked if _paid(name)))
    interpreter = make_interpreter(spec.interpretation, account, asks=False)
    annotator = make_annotator(spec.annotation, account, asks=False)
    upstream = _current(project, dataset, ("corpus", "activations", "selected_neurons"))
    if upstream is None:
        return StageCost(
            "interpretations", model, _roughly(dataset, corpus, interpreter, annotator), _before("selected_neurons")
        )
    inputs = _inputs("interpretations", interpretations.CODE_VERSION, interpretations.config_of(spec), upstream)
    if project.store.finished(inputs):
        return StageCost("interpretations", model, Estimate(), FINISHED)
    vectors = vector_table(project, dataset, project.store.current(dataset.name, "embeddings"))
    _, splits, bounds = interpretations.prepare(dataset, upstream, vectors)
    request = interpretations.interpretation_request(splits["train"], bounds, spec.interpretation)
    estimate = estimate_interpretation(interpreter, annotator, request, splits, spec.interpretation)
    return StageCost("interpretations", model, estimate, "counted, with every candidate scored")


def _roughly(dataset: Dataset, corpus: StoredObject, interpreter: Interpreter, annotator: Annotator) -> Estimate:
    """As many neurons as declared, each taken to fire on every second text."""
    settings, n = dataset.spec.interpretation, dataset.spec.selection.n
    texts = read_frame(corpus.file("texts.parquet"))
    splits = {name: _every_second(texts, name, n) for name in ("train", "validation", "fidelity")}
    request = interpretations.interpretation_request(splits["train"], [(1.0, 1.0)] * n, settings)
    return estimate_interpretation(interpreter, annotator, request, splits, settings)


def _every_second(texts: pl.DataFrame, split: str, neurons: int) -> Split:
    found = texts.filter(pl.col("split") == split).head(MOST_TEXTS)
    fires = (np.arange(found.height)[:, None] + np.arange(neurons)) % 2
    codes = sp.csc_matrix(fires.astype(np.float32))
    return Split(found["text_id"].to_list(), found["text"].to_list(), found["cluster_id"].to_numpy(), codes)


def _annotation(project: Project, dataset: Dataset, corpus: StoredObject, account: Account) -> StageCost:
    settings = dataset.spec.annotation
    annotator = make_annotator(settings, account, asks=False)
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account, asks=False)
    upstream = _current(project, dataset, ("corpus", "interpretations"))
    concepts, basis = ordinary(dataset.spec.selection.n), _before("interpretations")
    if upstream is not None:
        config = annotation_matrix.config_of(dataset.spec)
        if project.store.finished(_inputs("annotation_matrix", annotation_matrix.CODE_VERSION, config, upstream)):
            return StageCost("annotation_matrix", settings.model, Estimate(), FINISHED)
        records = concepts_to_test(dataset, upstream[1])
        concepts, basis = annotation_matrix.distinct_concepts(records), COUNTED
    _, texts = annotation_matrix.holdout_texts(corpus, settings)
    estimate = estimate_annotation(annotator, single, concepts, texts["text"].to_list(), settings)
    return StageCost("annotation_matrix", settings.model, estimate, basis)


def _current(project: Project, dataset: Dataset, assets: Sequence[str]) -> list[StoredObject] | None:
    try:
        return [project.store.current(dataset.name, asset) for asset in assets]
    except StorageError:
        return None


def _inputs(asset: str, version: str, config: dict[str, object], upstream: Sequence[StoredObject]) -> StageInputs:
    return StageInputs(asset, version, config, {stored.asset: stored.data_version for stored in upstream})


def _before(asset: str) -> str:
    return f"rough, `{asset}` is not there yet"
