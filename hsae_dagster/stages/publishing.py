"""What people see of an evaluation: which hypothesis is which, its record, page and tables, what came of one text."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core import evaluations
from hsae_dagster.core.concepts.claims import Closeness, because, meaning_of, reasons
from hsae_dagster.core.hypothesis import FoundConcept, Hypothesis
from hsae_dagster.dataset.discovery import Dataset, file_versions, files_fingerprint, load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.errors import HsaeError, StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.keys import text_id as key_of
from hsae_dagster.orchestration.project import Project
from hsae_dagster.report import page
from hsae_dagster.report.content import annotation_table, csv_bytes
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.holdout import concepts_to_test
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.files import write_atomically
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.outputs import (
    OutputT,
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredEvaluation,
    StoredInterpretations,
    StoredMatrix,
)


@dataclass(frozen=True)
class Identity:
    """The id of one concept's hypothesis, 12 hexadecimal characters.

    `was` is the concept that it had in the last evaluation, or None when it is new or has the same one; known again by
    `phi` of the two concepts' annotations.
    """

    hypothesis_id: str
    was: str | None = None
    phi: float = math.nan


def hypothesis_id(dataset: str, concept_id: str, nth: int = 0) -> str:
    """Key of a new hypothesis: this concept about this dataset's outcome; `nth` when that key is another's by now."""
    fields: dict[str, Any] = {"dataset": dataset, "concept": concept_id}
    return hash_json(fields | ({"nth": nth} if nth else {}))[:12]


def identify(
    log: LineageLog, dataset: str, concepts: Sequence[FoundConcept], matrix: StoredMatrix
) -> dict[str, Identity]:
    """The hypothesis of every concept: known by its concept, else by the texts that have it, else new.

    The same concepts get the same ids whenever they are asked for again.
    """
    records = log.records(dataset)
    identities: dict[str, Identity] = {}
    taken: set[str] = set()
    before = {row["concept_id"]: row["hypothesis_id"] for record in records for row in record.hypotheses}
    for concept in concepts:
        known = before.get(concept.concept_id)
        if known and known not in taken:
            identities[concept.concept_id] = Identity(known)
            taken.add(known)
    unknown = [concept for concept in concepts if concept.concept_id not in identities]
    left = [row for row in records[-1].hypotheses if row["hypothesis_id"] not in taken] if records else []
    if unknown and left:
        phi = _phi(log, records[-1], [row["concept_id"] for row in left], unknown, matrix)
        for i, j in evaluations.match_hypotheses(phi):
            found = Identity(left[i]["hypothesis_id"], left[i]["concept_id"], float(phi[i, j]))
            identities[unknown[j].concept_id] = found
    used = {row["hypothesis_id"] for record in records for row in record.hypotheses}
    for concept in unknown:
        if concept.concept_id not in identities:
            able = (hypothesis_id(dataset, concept.concept_id, nth) for nth in count())
            key = next(key for key in able if key not in used)
            identities[concept.concept_id] = Identity(key)
            used.add(key)
    return identities


def _phi(
    log: LineageLog,
    record: evaluations.EvaluationRecord,
    old: Sequence[str],
    new: Sequence[FoundConcept],
    matrix: StoredMatrix,
) -> np.ndarray:
    """(old, new) phi of concepts' annotations; NaN where what the last evaluation read is gone or damaged."""
    try:
        before = _origin(log, record, StoredMatrix).annotations.sort("text_id")
    except StorageError:
        return np.full((len(old), len(new)), np.nan)
    now, answers = matrix.annotations.sort("text_id"), []
    for frame, other, keys in ((before, now, old), (now, before, [concept.concept_id for concept in new])):
        shared = frame.join(other, on="text_id", how="semi", maintain_order="left")
        said = (pl.col(key) if key in frame.columns else pl.lit(None) for key in keys)
        answers.append(shared.select(each.cast(pl.Int8).fill_null(-1).alias(str(j)) for j, each in enumerate(said)))
    return evaluations.annotation_phi(*(each.to_numpy() for each in answers))


def exported_annotations(
    dataset: Dataset,
    corpus: StoredCorpus,
    interpretations: StoredInterpretations,
    matrix: StoredMatrix,
    hypotheses: Sequence[Hypothesis],
    closeness: Closeness | None,
) -> pl.DataFrame:
    """One row per held-out observation, two columns per tested hypothesis, in the order of the report.

    Where a probe judged texts that the model was not asked about, `judged_by` says which those are.
    """
    judged = matrix.annotations
    texts = judged.select("text_id").join(corpus.texts, on="text_id", how="left", maintain_order="left")
    definitions = {c.concept_id: c.said.definition for c in concepts_to_test(dataset, interpretations)}
    keys = [h.concept_id for h in hypotheses]
    holds = np.empty((judged.height, len(keys)), dtype=np.int8)
    for j, key in enumerate(keys):
        holds[:, j] = judged[key].cast(pl.Int8).fill_null(-1).to_numpy()
    meanings = [meaning_of(definitions[key]) if definitions.get(key) else None for key in keys]
    because = reasons(meanings, texts["text"].to_list(), holds == 1, closeness)
    claims = [(h.claim, h.title or h.claim) for h in hypotheses]
    table = annotation_table(matrix.observations, texts["text_id"].to_list(), holds, because, claims)
    distilled = matrix.distilled
    if distilled is None:
        return table
    who = pl.when(pl.col("probability").is_null()).then(pl.lit("probe")).otherwise(pl.lit("model"))
    judged_by = distilled.select("text_id", judged_by=who)
    return table.join(judged_by, on="text_id", how="left", maintain_order="left")


# What a record keeps of each row of the table of hypotheses.
_KEPT = (
    "hypothesis_id",
    "rank",
    "claim",
    "badge",
    "reason",
    "concept_id",
    "sae_id",
    "sae_column",
    "selection_score",
    "effect_estimate",
    "effect_low",
    "effect_high",
    "p_holm",
    "fidelity_f1",
    "prevalence",
    "half",
)


def publish(
    log: LineageLog, declared: Dataset, evaluation: StoredEvaluation, identities: Mapping[str, Identity], asset: str
) -> tuple[evaluations.EvaluationRecord, Path]:
    """Record an evaluation as the current one and write its pages; returns the record and the page's path.

    Publishing the current evaluation again changes no byte. `asset` is the key of the evaluation's asset in Dagster.
    """
    rows = [_row(row, identities) for row in evaluation.hypotheses.iter_rows(named=True)]
    dataset, files = declared.name, (files_fingerprint(declared), file_versions(declared))
    record = log.append(dataset, evaluation.stored, evaluation.summary, rows, *files)
    folder = log.store.root / "reports"
    own = folder / dataset
    dagster = page.asset_address(asset, dataset, outside=True)
    write_atomically(own / f"{record.key}.html", page.with_places(evaluation.page, record.key, dagster))
    tables = []
    for table in evaluation.tables:
        frame = read_frame(table)
        tables.append((table.stem, frame.height))
        csv = csv_bytes(frame)
        for place in (own / record.key, *([own] if table.name == StoredEvaluation.annotations.name else [])):
            write_atomically(place / table.name, table.read_bytes())
            write_atomically(place / f"{table.stem}.csv", csv)
    listed = page.render_tables(dataset, record.key, record.number, tables)
    write_atomically(own / record.key / "index.html", listed.encode())
    previous = log.previous(record)
    if previous is not None:
        write_atomically(own / f"{record.key}-changes.html", page.render_comparison(previous, record).encode())
    write_atomically(own / "index.html", page.render_index(dataset, log.records(dataset)).encode())
    current = folder / f"{dataset}.html"
    write_atomically(current, page.with_places(evaluation.page, record.key, dagster, f"{dataset}/"))
    return record, current


def _row(row: Mapping[str, Any], identities: Mapping[str, Identity]) -> dict[str, Any]:
    identity = identities.get(row["concept_id"])
    known: dict[str, Any] = {}
    if identity is not None and identity.was is not None:
        known = {"was": identity.was, "phi": identity.phi}
    return {**{name: row[name] for name in _KEPT}, "known_by": known}


MOST_NEURONS = 8


@dataclass(frozen=True)
class Firing:
    """A neuron that a text fires, and the hypothesis written for it, with its number in the report, if there is one."""

    sae_id: str
    sae_column: int
    activation: float
    hypothesis_id: str | None
    number: int | None


@dataclass(frozen=True)
class Support:
    """A hypothesis, by its number in the report, and whether it holds for a holdout text; None without an answer."""

    number: int
    hypothesis_id: str
    claim: str
    badge: str
    has: bool | None


@dataclass(frozen=True)
class TextTrail:
    """Where a text stands and what came of it.

    Attributes:
        rows: (file, row from 1) of every observation with the text; empty when the files have changed or are gone.
        firing: strongest first, at most `MOST_NEURONS` of the `n_firing` neurons that it fires.
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
    numbered = list(enumerate(record.hypotheses if record else (), 1))
    tested = {(row["sae_id"], row["sae_column"]): (row["hypothesis_id"], number) for number, row in numbered[::-1]}
    found = []
    for at in np.argsort(-codes.data, kind="stable")[:MOST_NEURONS]:
        sae_id, column = activations.columns.select("sae_id", "sae_column").row(int(codes.indices[at]))
        found.append(Firing(sae_id, column, float(codes.data[at]), *tested.get((sae_id, column), (None, None))))
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
        Support(number, row["hypothesis_id"], row["claim"], row["badge"], answers[row["concept_id"]])
        for number, row in enumerate(record.hypotheses, 1)
        if row["concept_id"] in answers and (half is None or row.get("half", "") != half)
    )


@dataclass(frozen=True)
class Tried:
    """How a claim stands in the evaluation, and the words or the sentence that make it hold for a text.

    There are none where it does not hold; None where only a reader can say.
    """

    standing: evaluations.Standing
    because: tuple[str, ...] | None


def try_claims(project: Project, dataset: str, text: str) -> tuple[evaluations.EvaluationRecord, list[Tried]]:
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
        tried.append(Tried(evaluations.Standing.of(row), reason))
    return record, tried


def _origin(log: LineageLog, record: evaluations.EvaluationRecord, kind: type[OutputT]) -> OutputT:
    origin = record.origin(kind.asset)
    if origin is None:
        raise StorageError(
            f"Evaluation {record.number} of dataset `{record.dataset}` names no {kind.asset}. "
            f"`hsae run {record.dataset}` makes one that does."
        )
    return kind(log.store.verified(record.dataset, log.store.at(origin.place)))
