"""What a dataset's paid stages would take now, without asking anybody.

Belongs here: one line per paid stage, from whatever is already there. Does not belong here: counting (`assets.spending`
and the providers) or printing (`cli.cost`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets import annotation_matrix, distilling, interpretations
from hsae_dagster.assets.candidate_scores import Split
from hsae_dagster.assets.concepts_to_test import AUTHOR, concepts_to_test, holdout_texts
from hsae_dagster.assets.embeddings import unit_texts, vector_table
from hsae_dagster.assets.spending import (
    asks_a_server,
    estimate_annotation,
    estimate_interpretation,
    open_account,
    ordinary,
)
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import column, firing_bounds
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.errors import StorageError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Annotator, Interpreter, Report
from hsae_dagster.providers.estimate import Estimate
from hsae_dagster.providers.registry import make_annotator, make_embedder, make_interpreter
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StageInputs, StoredObject
from hsae_dagster.storage.vectors import VectorTable

# A rough estimate needs no more to know how long texts are.
MOST_TEXTS = 5_000
# Of neurons whose autoencoder is yet to be chosen.
USUAL_RATE = 1 / 16
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


def estimate_costs(project: Project, dataset: Dataset, trial: Report | None = None) -> list[StageCost]:
    """What is left to pay for each stage that asks a paid model. Without a trial nothing is sent, and no key is needed.

    Args:
        project: where results are.
        dataset: whose stages.
        trial: told what happens while servers without any answer yet are tried out with a few of the requests.

    Raises:
        StorageError: the dataset has no corpus yet.
        ProviderError: a model's name or table cannot be used.
    """
    corpus = project.store.current(dataset.name, "corpus")
    spec = dataset.spec

    def account(stage: str) -> Account:
        return replace(open_account(project, dataset, stage, "estimate"), trial=trial)

    found = []
    if asks_a_server(spec.embedding.model):
        found.append(_embedding(project, dataset, corpus, account("embeddings")))
    # Claims found offline ask nobody, whoever judges them afterwards.
    if asks_a_server(spec.interpretation.model):
        found.append(_interpretation(project, dataset, corpus, account("interpretations")))
    if asks_a_server(spec.annotation.model):
        found.append(_annotation(project, dataset, corpus, account("annotation_matrix")))
    return found


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
    model = ", ".join(dict.fromkeys(name for name in asked if asks_a_server(name)))
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
    estimate = estimate_interpretation(interpreter, annotator, request, splits, spec)
    return StageCost("interpretations", model, estimate, "counted, with every candidate scored")


def _roughly(dataset: Dataset, corpus: StoredObject, interpreter: Interpreter, annotator: Annotator) -> Estimate:
    """As many neurons as declared, which fire as often as declared autoencoders let one fire on average."""
    settings, n = dataset.spec.interpretation, dataset.spec.selection.n
    texts = read_frame(corpus.file("texts.parquet"))
    rate = _firing_rate(dataset, corpus)
    splits = {
        name: _imagined(texts, name, n, rate, np.random.default_rng([0, number]))
        for number, name in enumerate(("train", "validation", "fidelity"))
    }
    bounds = [firing_bounds(column(splits["train"].codes, j), settings.bin) for j in range(n)]
    request = interpretations.interpretation_request(splits["train"], bounds, settings)
    return estimate_interpretation(interpreter, annotator, request, splits, dataset.spec)


def _firing_rate(dataset: Dataset, corpus: StoredObject) -> float:
    """Share of texts on which a neuron fires: by unit k of m, by text at least once among its units."""
    sizes = [sae.k / sae.m for sae in dataset.spec.listed_saes] or [USUAL_RATE]
    texts, units = (read_frame(corpus.file(f"{name}.parquet")).height for name in ("texts", "text_units"))
    return float(1 - (1 - np.mean(sizes)) ** max(units / max(texts, 1), 1.0))


def _imagined(texts: pl.DataFrame, split: str, neurons: int, rate: float, rng: np.random.Generator) -> Split:
    found = texts.filter(pl.col("split") == split).head(MOST_TEXTS)
    fires = rng.random((found.height, neurons)) < rate
    codes = sp.csc_matrix(np.where(fires, rng.random(fires.shape), 0.0).astype(np.float32))
    # Vectors of no meaning, by which some silent text is the nearest to each firing one.
    vectors = rng.normal(size=(found.height, 8)).astype(np.float32)
    return Split(found["text_id"].to_list(), found["text"].to_list(), found["cluster_id"].to_numpy(), codes, vectors)


def _annotation(project: Project, dataset: Dataset, corpus: StoredObject, account: Account) -> StageCost:
    settings = dataset.spec.annotation
    annotator = make_annotator(settings, account, asks=False)
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account, asks=False)
    upstream = _current(project, dataset, annotation_matrix.upstream_of(dataset.spec))
    _, texts = holdout_texts(corpus, settings)
    # A hypothesis of one's own is judged like those that are found.
    concepts = ordinary(dataset.spec.selection.n) + [Concept(own.claim, AUTHOR) for own in dataset.spec.hypotheses]
    basis, firing = _before("interpretations"), None
    if upstream is not None:
        config = annotation_matrix.config_of(dataset.spec)
        if project.store.finished(_inputs("annotation_matrix", annotation_matrix.CODE_VERSION, config, upstream)):
            return StageCost("annotation_matrix", settings.model, Estimate(), FINISHED)
        records = concepts_to_test(dataset, upstream[1])
        concepts, basis = annotation_matrix.distinct_concepts(records), COUNTED
        firing = distilling.firing_of(upstream[3], records, texts) if settings.distil else None
    asked = texts[distilling.texts_to_ask(dataset, texts, firing).rows]
    estimate = estimate_annotation(annotator, single, concepts, asked["text"].to_list(), dataset.spec)
    if asked.height < texts.height:
        basis = f"{basis}; {distilling.in_words(asked.height, texts.height)}"
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
