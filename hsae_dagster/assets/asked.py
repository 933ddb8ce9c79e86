"""What exactly a paid model was asked about a hypothesis or a judged text, and what it answered.

Belongs here: making a stage's requests once more from its inputs and finding their answers in the ledger. Does not
belong here: the requests themselves (providers) or showing them (`cli.asked`).

The ledger keeps no texts, so a prompt is made again from the texts and settings of the stored result. It is the one
that was asked exactly if the ledger has its hash; where it has not, something has changed since, and that is said.
"""

from dataclasses import dataclass
from typing import Any

import polars as pl

from hsae_dagster.assets import interpretations
from hsae_dagster.assets.annotation_matrix import distinct_concepts
from hsae_dagster.assets.concepts_to_test import concepts_to_test
from hsae_dagster.assets.embeddings import vector_table
from hsae_dagster.assets.spending import open_account
from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Annotation, Interpretation
from hsae_dagster.errors import HsaeError
from hsae_dagster.providers.base import Mistakes
from hsae_dagster.providers.ledger import Entry
from hsae_dagster.providers.openai_client import OpenAIClient, request_hash
from hsae_dagster.providers.plan import Body, recall
from hsae_dagster.providers.registry import make_annotator, make_interpreter
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        what: what it was about, in words.
        messages: the prompt, (role, text).
        entry: its answer in the ledger, or None where that does not know the request.
    """

    what: str
    messages: tuple[tuple[str, str], ...]
    entry: Entry | None


def asked_for_words(project: Project, dataset: Dataset, hypothesis: dict[str, Any]) -> list[Asked]:
    """The requests that asked for candidates of a hypothesis' words.

    Args:
        project: where results are.
        dataset: of the hypothesis.
        hypothesis: its row in an evaluation's record.

    Raises:
        HsaeError: its words come from no paid model.
        StorageError: a result it rests on is not there.
    """
    from hsae_dagster.providers.openai_interpreter import OpenAIInterpreter

    store = project.store
    written = store.current(dataset.name, interpretations.NAME)
    settings = Interpretation.model_validate(written.inputs.config["interpretation"])
    account = open_account(project, dataset, interpretations.NAME, "asked")
    interpreter = make_interpreter(settings, account, asks=False)
    if not isinstance(interpreter, OpenAIInterpreter):
        raise HsaeError(
            f"The words of `{hypothesis['hypothesis_id']}` come from `{settings.model}`, which is not asked."
        )
    upstream = [store.current(dataset.name, name) for name in ("corpus", "activations", "selected_neurons")]
    vectors = vector_table(project, dataset, store.current(dataset.name, "embeddings"))
    neurons, splits, bounds = interpretations.prepare(dataset, upstream, vectors)
    request = interpretations.interpretation_request(splits["train"], bounds, settings)
    places = [
        j
        for j, row in enumerate(neurons.iter_rows(named=True))
        if (row["sae_id"], row["sae_column"]) == (hypothesis["sae_id"], hypothesis["sae_column"])
    ]
    if not places:
        raise HsaeError(
            f"`{hypothesis['hypothesis_id']}` has no neuron here: its words are yours, and nobody was asked."
        )
    bodies = {f"candidate {number}": body for number, body in enumerate(interpreter.bodies_of(places[0], request))}
    record = written.json("concepts.json")[places[0]]
    revised = [each["details"]["revises"] for each in record["candidates"] if "revises" in each["details"]]
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
    from hsae_dagster.providers.openai_annotator import OpenAIAnnotator

    store = project.store
    matrix = store.current(dataset.name, "annotation_matrix")
    config = {key: value for key, value in matrix.inputs.config.items() if key in Annotation.model_fields}
    settings = Annotation.model_validate(config)
    annotator = make_annotator(settings, open_account(project, dataset, "annotation_matrix", "asked"), asks=False)
    if not isinstance(annotator, OpenAIAnnotator):
        raise HsaeError(f"Texts of `{dataset.name}` are judged by `{settings.model}`, which is not asked.")
    records = concepts_to_test(dataset, store.current(dataset.name, interpretations.NAME))
    concepts = distinct_concepts(records)
    place = next((j for j, each in enumerate(concepts) if each.concept_id == hypothesis["concept_id"]), None)
    texts = read_frame(store.current(dataset.name, "corpus").file("texts.parquet"))
    judged = read_frame(matrix.file("annotations.parquet"))["text_id"]
    found = texts.filter(pl.col("text_id").str.starts_with(text_id) & pl.col("text_id").is_in(judged.to_list()))
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
    key = request_hash(body, client.server.endpoint)
    held = client.account.ledger.find([key], client.server.endpoint, client.asker.model) if client.account else {}
    return Asked(what, tuple((each["role"], each["content"]) for each in body["messages"]), held.get(key))
