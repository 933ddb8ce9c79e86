"""One text: what came of it, and which claims hold for a text of one's own."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import because, meaning_of
from hsae_dagster.core.evaluations import EvaluationRecord, Standing
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.errors import HsaeError, StorageError
from hsae_dagster.keys import text_id as key_of
from hsae_dagster.orchestration.project import Project
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.holdout import concepts_to_test
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.outputs import (
    OutputT,
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredMatrix,
)

MOST_NEURONS = 8


@dataclass(frozen=True)
class Firing:
    """A neuron that a text fires, and the hypothesis written for it, if it was selected and put into words."""

    sae_id: str
    sae_column: int
    activation: float
    rank: int | None
    hypothesis_id: str | None


@dataclass(frozen=True)
class Support:
    """A hypothesis that a holdout text was judged for: `has` is None where the answer is missing."""

    hypothesis_id: str
    claim: str
    badge: str
    has: bool | None


@dataclass(frozen=True)
class TextTrail:
    """Where a text stands and what came of it.

    Attributes:
        rows: (file, row from 1) of every observation with the text; empty when the files have changed or are gone.
        firing: strongest first, at most `MOST_NEURONS`.
        n_firing: neurons that it fires in all.
        supports: every hypothesis that a holdout text tests; empty for the other splits, which test none.
    """

    dataset: str
    text_id: str
    text: str
    split: str
    cluster_id: str
    rows: tuple[tuple[str, int], ...]
    firing: tuple[Firing, ...]
    n_firing: int
    supports: tuple[Support, ...]


def find_texts(project: Project, dataset: str, wanted: str, most: int) -> list[str]:
    """Keys of the corpus' texts whose key begins with `wanted`, or which contain all of its words; at most `most`."""
    texts = StoredCorpus.current(project.store, dataset).texts
    by_key = texts.filter(pl.col("text_id").str.starts_with(wanted.lower()))["text_id"].to_list()
    if by_key:
        return by_key[:most]
    has = pl.all_horizontal(
        pl.col("text").str.to_lowercase().str.contains(word, literal=True) for word in wanted.lower().split()
    )
    return texts.filter(has)["text_id"].to_list()[:most] if wanted.split() else []


def text_trail(project: Project, dataset: str, text_id: str) -> TextTrail:
    """Everything that came of one text.

    Raises:
        StorageError: the dataset has no corpus.
    """
    store = project.store
    row = StoredCorpus.current(store, dataset).texts.row(by_predicate=pl.col("text_id") == text_id, named=True)
    now = store.versions(dataset)
    firing, n_firing = _firing(project, dataset, text_id) if "activations" in now else ((), 0)
    return TextTrail(
        dataset=dataset,
        text_id=text_id,
        text=row["text"],
        split=f"half {row['half'].upper()}" if "half" in row else row["split"],
        cluster_id=row["cluster_id"],
        rows=_rows(project, dataset, text_id),
        firing=firing,
        n_firing=n_firing,
        supports=_supports(project, dataset, text_id, row.get("half")),
    )


def _rows(project: Project, dataset: str, text_id: str) -> tuple[tuple[str, int], ...]:
    try:
        frame = read_rows(load_dataset(project.data, dataset)).frame
    except HsaeError:
        return ()
    sides = ["text_a", "text_b"] if "text_a" in frame.columns else ["text"]
    return tuple(
        (row["file"], row["row"])
        for row in frame.iter_rows(named=True)
        if any(key_of(row[side]) == text_id for side in sides)
    )


def _firing(project: Project, dataset: str, text_id: str) -> tuple[tuple[Firing, ...], int]:
    activations = StoredActivations.current(project.store, dataset)
    if text_id not in activations.text_ids:
        return (), 0
    codes = activations.on(pl.Series([text_id]))
    record = LineageLog(project.store).latest(dataset)
    tested = {(row["sae_id"], row["sae_column"]): row for row in reversed(record.hypotheses if record else ())}
    found = []
    for at in np.argsort(-codes.data, kind="stable")[:MOST_NEURONS]:
        source = activations.columns.row(int(codes.indices[at]), named=True)
        row = tested.get((source["sae_id"], source["sae_column"]))
        found.append(
            Firing(
                source["sae_id"],
                source["sae_column"],
                float(codes.data[at]),
                row["rank"] if row else None,
                row["hypothesis_id"] if row else None,
            )
        )
    return tuple(found), int(codes.nnz)


def _supports(project: Project, dataset: str, text_id: str, half: str | None) -> tuple[Support, ...]:
    """What the text was asked as a test: with halves, nothing that its own half found."""
    record = LineageLog(project.store).latest(dataset)
    matrix = record.origin("annotation_matrix") if record else None
    if record is None or matrix is None:
        return ()
    judged = StoredMatrix(project.store.at(matrix.place)).annotations.filter(pl.col("text_id") == text_id)
    answers = {} if judged.is_empty() else judged.drop("text_id").row(0, named=True)
    return tuple(
        Support(row["hypothesis_id"], row["claim"], row["badge"], answers[row["concept_id"]])
        for row in record.hypotheses
        if row["concept_id"] in answers and (half is None or row.get("half", "") != half)
    )


@dataclass(frozen=True)
class Tried:
    """One claim and a text.

    Attributes:
        standing: the claim, its verdict and effect in the evaluation.
        because: the words or the sentence that make it hold; empty where it does not, None where only a reader can say.
    """

    standing: Standing
    because: tuple[str, ...] | None


def try_claims(project: Project, dataset: str, text: str) -> tuple[EvaluationRecord, list[Tried]]:
    """Every claim of a dataset's last evaluation against a text, in the report's order.

    Raises:
        StorageError: the dataset has no evaluation, or what it rests on is gone or damaged.
        DatasetError: its declaration cannot be used.
    """
    log = LineageLog(project.store)
    record = log.latest(dataset)
    if record is None:
        known = ", ".join(log.datasets()) or "none yet"
        raise StorageError(
            f"Dataset `{dataset}` has no evaluation, so there is no claim to try. Evaluated are: {known}. "
            f"`hsae run {dataset}` makes one."
        )
    declared = load_dataset(project.data, dataset)
    corpus, embeddings = _origin(log, record, StoredCorpus), _origin(log, record, StoredEmbeddings)
    closeness = UnitCloseness.of_results(project, declared, embeddings, corpus)
    testing = concepts_to_test(declared, _origin(log, record, StoredInterpretations))
    definitions = {concept.concept_id: concept.said.definition for concept in testing}
    tried = []
    for row in record.hypotheses:
        definition = definitions.get(row["concept_id"])
        reason = because(meaning_of(definition), text, closeness) if definition else None
        tried.append(Tried(Standing.of(row), reason))
    return record, tried


def _origin(log: LineageLog, record: EvaluationRecord, kind: type[OutputT]) -> OutputT:
    origin = record.origin(kind.asset)
    if origin is None:
        raise StorageError(
            f"Evaluation {record.number} of dataset `{record.dataset}` names no {kind.asset}. "
            f"`hsae run {record.dataset}` makes one that does."
        )
    return kind(log.store.verified(record.dataset, log.store.at(origin.place)))
