"""What paid models would take, were asked and answered, and having unusable answers asked again."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import column, firing_bounds
from hsae_dagster.core.evaluations import EvaluationRecord
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Annotation, Interpretation
from hsae_dagster.errors import HsaeError, StorageError
from hsae_dagster.orchestration.project import Project
from hsae_dagster.providers.base import Annotator, Interpreter, Mistakes, Report
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.readers import OpenAIAnnotator, OpenAIInterpreter
from hsae_dagster.providers.openai.requests import Body, Question, forget_all, recall
from hsae_dagster.providers.registry import make_annotator, make_embedder, make_interpreter
from hsae_dagster.providers.spending import Account, Entry, Estimate, Ledger
from hsae_dagster.stages import annotation, interpretation, judging
from hsae_dagster.stages.gold import draw_shown, in_words, labelled, texts_to_ask
from hsae_dagster.stages.holdout import AUTHOR, concepts_to_test, holdout_texts
from hsae_dagster.storage.outputs import (
    Output,
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredMatrix,
    StoredSelection,
    inputs_of,
    lacking,
)
from hsae_dagster.storage.vectors import VectorTable

# A rough estimate needs no more to know how long texts are.
MOST_TEXTS = 5_000
# Of neurons whose autoencoder is yet to be chosen.
USUAL_RATE = 1 / 16
FINISHED = "finished, nothing to ask"
COUNTED = "counted from the requests themselves"


@dataclass(frozen=True)
class StageCost:
    """What is left to ask in one stage, of whom, and what the estimate rests on."""

    stage: str
    model: str
    estimate: Estimate
    basis: str


def estimate_costs(project: Project, dataset: Dataset, trial: Report | None = None) -> list[StageCost]:
    """What is left to pay for each stage that asks a paid model. Without a trial nothing is sent, and no key is needed.

    With one, which is told what happens, servers without any answer yet are tried out.

    Raises:
        StorageError: the dataset has no corpus yet.
        ProviderError: a model's name or table cannot be used.
    """
    corpus = StoredCorpus.current(project.store, dataset.name)
    spec = dataset.spec

    def account(stage: str) -> Account:
        return replace(judging.open_account(project, dataset, stage, "estimate"), trial=trial)

    found = []
    if judging.asks_a_server(spec.embedding.model):
        found.append(_embedding(project, dataset, corpus, account("embeddings")))
    # Claims found offline ask nobody, whoever judges them afterwards.
    if judging.asks_a_server(spec.interpretation.model):
        found.append(_interpretation(project, dataset, corpus, account("interpretations")))
    if judging.asks_a_server(spec.annotation.model) or judging.asks_a_server(spec.judge.second or ""):
        found.append(_annotation(project, dataset, corpus, account("annotation_matrix")))
    return found


def _embedding(project: Project, dataset: Dataset, corpus: StoredCorpus, account: Account) -> StageCost:
    settings = dataset.spec.embedding
    embedder = make_embedder(settings, account)
    texts = corpus.unit_texts
    family = embedder.known_set()
    if family is not None:
        known = VectorTable(project.results, dataset.origin, family).keys()
        texts = texts.filter(~pl.col("text_id").is_in(list(known)))
    estimate = embedder.estimate(texts["text"].to_list(), settings.batch_size)
    return StageCost("embeddings", settings.model, estimate, COUNTED if texts.height else FINISHED)


def _interpretation(project: Project, dataset: Dataset, corpus: StoredCorpus, account: Account) -> StageCost:
    spec = dataset.spec
    asked = [spec.interpretation.model, spec.annotation.model]
    model = ", ".join(dict.fromkeys(name for name in asked if judging.asks_a_server(name)))
    interpreter = make_interpreter(spec.interpretation, account, asks=False)
    annotator = make_annotator(spec.annotation, account, asks=False)
    try:
        upstream = _read_by_interpretations(project, dataset)
    except StorageError:
        rough = _roughly(dataset, corpus, interpreter, annotator)
        return StageCost("interpretations", model, rough, _before("selected_neurons"))
    config = interpretation.config_of(spec)
    if project.store.finished(inputs_of("interpretations", interpretation.CODE_VERSION, config, upstream)):
        return StageCost("interpretations", model, Estimate(), FINISHED)
    embeddings = StoredEmbeddings.current(project.store, dataset.name)
    _, splits, bounds = interpretation.prepare(dataset, upstream, embeddings)
    request = interpretation.interpretation_request(splits["train"], bounds, spec.interpretation)
    estimate = judging.estimate_interpretation(interpreter, annotator, request, splits, spec)
    return StageCost("interpretations", model, estimate, "counted, with every candidate scored")


def _roughly(dataset: Dataset, corpus: StoredCorpus, interpreter: Interpreter, annotator: Annotator) -> Estimate:
    """As many neurons as declared, which fire as often as declared autoencoders let one fire on average."""
    settings, n = dataset.spec.interpretation, dataset.spec.selection.n
    # Share of texts on which a neuron fires: by unit k of m, by text at least once among its units.
    by_unit = np.mean([sae.k / sae.m for sae in dataset.spec.listed_saes] or [USUAL_RATE])
    rate = float(1 - (1 - by_unit) ** max(corpus.text_units.height / max(corpus.texts.height, 1), 1.0))
    splits = {
        name: _imagined(corpus.texts, name, n, rate, np.random.default_rng([0, number]))
        for number, name in enumerate(("train", "validation", "fidelity"))
    }
    bounds = [firing_bounds(column(splits["train"].codes, j), settings.bin) for j in range(n)]
    request = interpretation.interpretation_request(splits["train"], bounds, settings)
    return judging.estimate_interpretation(interpreter, annotator, request, splits, dataset.spec)


def _imagined(texts: pl.DataFrame, split: str, neurons: int, rate: float, rng: np.random.Generator) -> judging.Split:
    found = texts.filter(pl.col("split") == split).head(MOST_TEXTS)
    fires = rng.random((found.height, neurons)) < rate
    codes = sp.csc_matrix(np.where(fires, rng.random(fires.shape), 0.0).astype(np.float32))
    # Vectors of no meaning, by which some silent text is the nearest to each firing one.
    vectors = rng.normal(size=(found.height, 8)).astype(np.float32)
    return judging.Split(
        found["text_id"].to_list(), found["text"].to_list(), found["cluster_id"].to_numpy(), codes, vectors
    )


def _annotation(project: Project, dataset: Dataset, corpus: StoredCorpus, account: Account) -> StageCost:
    settings = dataset.spec.annotation
    model = ", ".join(dict.fromkeys(name for name in (settings.model, dataset.spec.judge.second) if name))
    try:
        upstream = annotation.Upstream.current(project.store, dataset)
    except StorageError:
        upstream = None
    _, texts = holdout_texts(corpus, settings)
    # A hypothesis of one's own is judged like those that are found.
    concepts = judging.ordinary(dataset.spec.selection.n) + [
        Concept(own.claim, AUTHOR) for own in dataset.spec.hypotheses
    ]
    basis, firing = _before("interpretations"), None
    if upstream is not None:
        config = annotation.config_of(dataset)
        if project.store.finished(inputs_of("annotation_matrix", annotation.CODE_VERSION, config, upstream.outputs)):
            return StageCost("annotation_matrix", model, Estimate(), FINISHED)
        testing = concepts_to_test(dataset, upstream.interpretations)
        concepts, basis = annotation.distinct_concepts(testing), COUNTED
        firing = upstream.firing(testing, texts)
    asked = texts[texts_to_ask(dataset, texts, firing).rows]
    # Of claims yet to be written nobody has labelled a text.
    examples = labelled(draw_shown(dataset, concepts, texts), concepts, texts) if upstream is not None else {}
    annotator = make_annotator(settings, account, asks=False, examples=examples)
    estimate = judging.estimate_annotation(
        annotator, concepts, asked["text"].to_list(), dataset.spec, account, examples
    )
    if asked.height < texts.height:
        basis = f"{basis}; {in_words(asked.height, texts.height)}"
    return StageCost("annotation_matrix", model, estimate, basis)


def _read_by_interpretations(project: Project, dataset: Dataset) -> interpretation.Upstream:
    store, name = project.store, dataset.name
    activations = StoredActivations.current(store, name)
    return StoredCorpus.current(store, name), activations, StoredSelection.current(store, name)


def _before(asset: str) -> str:
    return f"rough, `{asset}` is not there yet"


@dataclass(frozen=True)
class Asked:
    """One request: what it was about, its messages (role, text), and its answer where the ledger knows it."""

    what: str
    messages: tuple[tuple[str, str], ...]
    entry: Entry | None


def asked_for_words(project: Project, dataset: Dataset, hypothesis: dict[str, Any]) -> list[Asked]:
    """The requests that asked for candidates of a hypothesis' words.

    Raises:
        HsaeError: its words come from no paid model.
        StorageError: a result it rests on is not there.
    """
    store = project.store
    written = StoredInterpretations.current(store, dataset.name)
    settings = Interpretation.model_validate(written.stored.inputs.config["interpretation"])
    account = judging.open_account(project, dataset, interpretation.NAME, "asked")
    interpreter = make_interpreter(settings, account, asks=False)
    if not isinstance(interpreter, OpenAIInterpreter):
        raise HsaeError(
            f"The words of `{hypothesis['hypothesis_id']}` come from `{settings.model}`, which is not asked."
        )
    upstream = _read_by_interpretations(project, dataset)
    embeddings = StoredEmbeddings.current(store, dataset.name)
    neurons, splits, bounds = interpretation.prepare(dataset, upstream, embeddings)
    request = interpretation.interpretation_request(splits["train"], bounds, settings)
    places = [
        j
        for j, row in enumerate(neurons.iter_rows(named=True))
        if (row["sae_id"], row["sae_column"]) == (hypothesis["sae_id"], hypothesis["sae_column"])
    ]
    if not places:
        raise HsaeError(
            f"`{hypothesis['hypothesis_id']}` has no neuron here: the words are yours, and no model was asked."
        )
    bodies = {f"candidate {number}": body for number, body in enumerate(interpreter.bodies_of(places[0], request))}
    phrases = [phrase.details for phrase, _ in written.concepts[places[0]].candidates]
    revised = [details["revises"] for details in phrases if "revises" in details]
    bodies |= {
        f"better words than “{each['phrase']}”": interpreter.revision_body(_mistakes(each), request) for each in revised
    }
    found = []
    for what, body in bodies.items():
        found.append(_found(interpreter.client, body, what))
        entry = found[-1].entry
        again = interpreter.follow_up(body, recall(entry), request) if entry else None
        if again is not None:
            found.append(_found(interpreter.client, again, f"{what}, once more"))
    return found


def _mistakes(record: dict[str, Any]) -> Mistakes:
    shown = {name: tuple(record[name]) for name in ("right", "missed", "mistaken")}
    return Mistakes(**{**record, **shown})


def asked_about_text(project: Project, dataset: Dataset, hypothesis: dict[str, Any], text_id: str) -> Asked:
    """The request in which a hypothesis' concept was judged on a holdout text.

    Raises:
        HsaeError: no paid model judged it, or the text was not judged.
        StorageError: a result it rests on is not there.
    """
    store = project.store
    matrix = StoredMatrix.current(store, dataset.name)
    config = {key: value for key, value in matrix.stored.inputs.config.items() if key in Annotation.model_fields}
    settings = Annotation.model_validate(config)
    concepts = annotation.distinct_concepts(
        concepts_to_test(dataset, StoredInterpretations.current(store, dataset.name))
    )
    texts, judged = StoredCorpus.current(store, dataset.name).texts, matrix.annotations["text_id"].to_list()
    examples = labelled(matrix.summary["examples"], concepts, texts)
    account = judging.open_account(project, dataset, "annotation_matrix", "asked")
    annotator = make_annotator(settings, account, asks=False, examples=examples)
    if not isinstance(annotator, OpenAIAnnotator):
        raise HsaeError(f"Texts of `{dataset.name}` are judged by `{settings.model}`, which is not asked.")
    place = next((j for j, each in enumerate(concepts) if each.concept_id == hypothesis["concept_id"]), None)
    found = texts.filter(pl.col("text_id").str.starts_with(text_id) & pl.col("text_id").is_in(judged))
    if place is None or found.height != 1:
        raise HsaeError(
            f"`{text_id}` is the beginning of {found.height} judged texts of `{dataset.name}`. Give the whole key of a "
            "holdout text; `hsae text` finds it by its words."
        )
    body = annotator.body_with(concepts, place, found["text"][0])
    return _found(annotator.client, body, f"c{place % annotator.concepts_per_call + 1} on text {found['text_id'][0]}")


def hypothesis_of(record: EvaluationRecord, beginning: str) -> dict[str, Any]:
    """The row of a hypothesis by (the beginning of) its id."""
    return next(dict(row) for row in record.hypotheses if row["hypothesis_id"].startswith(beginning))


def _found(client: OpenAIClient, body: Body, what: str) -> Asked:
    key = Question.of(body, client.server.endpoint).hash
    held = client.account.ledger.find([key], client.server.endpoint, client.asker.model) if client.account else {}
    return Asked(what, tuple((each["role"], each["content"]) for each in body["messages"]), held.get(key))


STAGES = ("interpretations", "annotation_matrix")


@dataclass(frozen=True)
class TakenBack:
    """Why answers were unusable, how many, commonest first; and the stages that are made again with new ones.

    So many `batches`, of which it was unknown whether they exist, are forgotten.
    """

    reasons: dict[str, int]
    stages: tuple[str, ...]
    batches: int = 0


def ask_again(project: Project, dataset: Dataset, *, refusals: bool = False, batches: bool = False) -> TakenBack:
    """Take back what no one could use of a dataset's answers, and forget what its servers refused to take.

    Those that it shares with the dataset it extends are among them. With `refusals` also what a model refused or a
    content filter withheld, which seldom changes; with `batches` what batches were to ask that may not exist.

    Raises:
        StorageError: the records cannot be read or written.
    """
    from hsae_dagster.providers.openai.batch import BatchRegister

    ledger = Ledger(project.results)
    names = dict.fromkeys((dataset.name, dataset.origin))
    entries = [entry for name in names for entry in ledger.unusable(name) if refusals or not entry.refused]
    ledger.take_back(entries)
    forget_all(project.results)
    reasons = Counter(str(entry.reason) for entry in entries)
    stages = tuple(stage for stage in STAGES if _unfinish(project, dataset, stage, entries))
    register = BatchRegister(project.results)
    unknown = [each for each in register.all(dataset.name) if each.batch_id is None] if batches else []
    for record in unknown:
        register.remove(record)
    return TakenBack(dict(reasons.most_common()), stages, len(unknown))


def _unfinish(project: Project, dataset: Dataset, stage: str, entries: list[Entry]) -> bool:
    answers = lacking(sum(entry.stage == stage for entry in entries))
    if not answers:
        return False
    try:
        stored = project.store.pointed(dataset.name, stage)
    except StorageError:
        return False
    Output.incomplete.write(stored.file(Output.incomplete.name), answers)
    return True
