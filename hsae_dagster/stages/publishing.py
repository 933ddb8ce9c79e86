"""Making an evaluation the one that people see: which hypothesis is which, its record, page and tables."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Closeness, meaning_of, reasons
from hsae_dagster.core.evaluations import (
    EvaluationRecord,
    Match,
    Standing,
    annotation_correlation,
    compare,
    direction_cosine,
    match_hypotheses,
)
from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.dataset.discovery import Dataset, file_versions, files_fingerprint
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.report.archive import (
    EvaluationLine,
    asset_address,
    dagster_root,
    render_comparison,
    render_index,
    render_tables,
    ui_root,
    with_places,
)
from hsae_dagster.report.content import Answers, annotation_table, csv_bytes
from hsae_dagster.stages.gold import read_distilled
from hsae_dagster.stages.holdout import concepts_to_test
from hsae_dagster.storage.artifacts import read_arrays, read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import ObjectStore, StoredObject, write_atomically

_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Identity:
    """The id of one concept's hypothesis.

    Attributes:
        hypothesis_id: 12 hexadecimal characters.
        was: concept that the hypothesis had in the last evaluation, or None when it is new or has the same one.
        correlation: phi of the two concepts' annotations, or NaN.
        cosine: of the two neurons' decoder directions, or NaN.
    """

    hypothesis_id: str
    was: str | None = None
    correlation: float = math.nan
    cosine: float = math.nan


def hypothesis_id(dataset: str, concept_id: str, nth: int = 0) -> str:
    """Key of a new hypothesis: this concept about this dataset's outcome; `nth` when that key is another's by now."""
    fields: dict[str, Any] = {"dataset": dataset, "concept": concept_id}
    return hash_json(fields | ({"nth": nth} if nth else {}))[:12]


def identify(
    log: LineageLog, dataset: str, concepts: Sequence[_Row], upstream: Mapping[str, StoredObject]
) -> dict[str, Identity]:
    """The hypothesis of every concept: known by its concept, else matched with the last evaluation's, else new.

    The same concepts get the same ids whenever they are asked for again.

    Args:
        log: records of earlier evaluations.
        dataset: partition key.
        concepts: the chosen concepts in rank order: concept_id, sae_id, sae_column.
        upstream: `annotation_matrix` and `activations` of this evaluation.
    """
    records = log.records(dataset)
    identities: dict[str, Identity] = {}
    taken: set[str] = set()
    before = _by_concept(records)
    for row in concepts:
        known = before.get(row["concept_id"])
        if known and known not in taken:
            identities[row["concept_id"]] = Identity(known)
            taken.add(known)
    unknown = [row for row in concepts if row["concept_id"] not in identities]
    if unknown and records:
        left = [row for row in records[-1].hypotheses if row["hypothesis_id"] not in taken]
        for match in _matches(log.store, dataset, records[-1], left, unknown, upstream):
            row = left[match.old]
            found = Identity(row["hypothesis_id"], row["concept_id"], match.correlation, match.cosine)
            identities[unknown[match.new]["concept_id"]] = found
    used = {row["hypothesis_id"] for record in records for row in record.hypotheses}
    for row in unknown:
        if row["concept_id"] not in identities:
            key = _new_id(dataset, row["concept_id"], used)
            identities[row["concept_id"]] = Identity(key)
            used.add(key)
    return identities


def _by_concept(records: Sequence[EvaluationRecord]) -> dict[str, str]:
    """The hypothesis that each concept had the last time."""
    return {row["concept_id"]: row["hypothesis_id"] for record in records for row in record.hypotheses}


def _new_id(dataset: str, concept: str, used: set[str]) -> str:
    nth = 0
    while (key := hypothesis_id(dataset, concept, nth)) in used:
        nth += 1
    return key


def _matches(
    store: ObjectStore,
    dataset: str,
    record: EvaluationRecord,
    old: Sequence[_Row],
    new: Sequence[_Row],
    upstream: Mapping[str, StoredObject],
) -> list[Match]:
    """Compare with what the last evaluation read, as far as that is still there and whole."""
    correlation, cosine = np.full((2, len(old), len(new)), np.nan)
    matrix, activations = record.origin("annotation_matrix"), record.origin("activations")
    if matrix is None or activations is None or not old:
        return []
    with suppress(StorageError):  # without the old annotations, directions alone can tell
        before = store.verified(dataset, store.at(matrix.place))
        correlation = _correlation(before, upstream["annotation_matrix"], old, new)
    with suppress(StorageError):  # and the other way round
        sides = (
            (_Directions.of(store, dataset, store.at(activations.place)), old),
            (
                _Directions.of(store, dataset, upstream["activations"]),
                new,
            ),
        )
        if len({directions.family for directions, _ in sides}) == 1:
            cosine = direction_cosine(*(directions.rows(rows) for directions, rows in sides))
    return match_hypotheses(correlation, cosine)


def _correlation(before: StoredObject, now: StoredObject, old: Sequence[_Row], new: Sequence[_Row]) -> np.ndarray:
    frames = [read_frame(stored.file("annotations.parquet")).sort("text_id") for stored in (before, now)]
    shared = (
        frames[0].select("text_id").join(frames[1].select("text_id"), on="text_id", how="semi")["text_id"].to_list()
    )
    answers = [
        frame.filter(pl.col("text_id").is_in(shared))
        .select(
            (pl.col(key) if key in frame.columns else pl.lit(None)).cast(pl.Int8).fill_null(-1).alias(str(j))
            for j, key in enumerate(row["concept_id"] for row in rows)
        )
        .to_numpy()
        for frame, rows in zip(frames, (old, new), strict=True)
    ]
    return annotation_correlation(*answers)


@dataclass(frozen=True)
class _Directions:
    """Decoders (m, d) by autoencoder, and the embedding set they live in; those of two sets cannot be compared."""

    family: str
    decoders: Mapping[str, np.ndarray]

    @staticmethod
    def of(store: ObjectStore, dataset: str, activations: StoredObject) -> "_Directions":
        """Those that activations were computed with.

        Raises:
            StorageError: they are gone or damaged.
        """
        vectors, checkpoints = (
            _read(store, dataset, name, activations.inputs.upstream[name]) for name in ("embeddings", "sae_checkpoints")
        )
        decoders = {
            record["sae_id"]: read_arrays(checkpoints.file(record["file"]))["decoder"]
            for record in checkpoints.json("saes.json")
        }
        return _Directions(vectors.json("embeddings.json")["set_id"], decoders)

    def rows(self, rows: Sequence[_Row]) -> np.ndarray:
        """(rows, d) directions of the hypotheses' neurons; NaN for one whose autoencoder is not there."""
        width = next(iter(self.decoders.values())).shape[1]
        blank = np.full(width, np.nan, dtype=np.float32)
        found = [(self.decoders.get(row["sae_id"]), row["sae_column"]) for row in rows]
        return np.stack([blank if decoder is None else decoder[column] for decoder, column in found])


def _read(store: ObjectStore, dataset: str, asset: str, version: str) -> StoredObject:
    found = store.find(asset, version)
    if found is None:
        raise StorageError(f"The `{asset}` of data version {version[:12]} is gone.")
    return store.verified(dataset, found)


FILE = "annotations.parquet"


def exported_annotations(
    dataset: Dataset,
    upstream: Mapping[str, StoredObject],
    hypotheses: Sequence[Hypothesis],
    closeness: Closeness | None,
) -> pl.DataFrame:
    """One row per held-out observation, two columns per tested hypothesis, in the order of the report.

    Where a probe judged texts that the model was not asked about, `judged_by` says which those are.

    Args:
        dataset: whose evaluation it is.
        upstream: corpus, interpretations and annotation_matrix of the evaluation.
        hypotheses: as reported.
        closeness: of units with quoted sentences.
    """
    matrix = upstream["annotation_matrix"]
    judged = read_frame(matrix.file("annotations.parquet"))
    texts = read_frame(upstream["corpus"].file("texts.parquet")).select("text_id", "text")
    texts = judged.select("text_id").join(texts, on="text_id", how="left", maintain_order="left")
    definitions = {
        record["concept"]["concept_id"]: record["concept"]["definition"]
        for record in concepts_to_test(dataset, upstream["interpretations"])
    }
    keys = [h.concept_id for h in hypotheses]
    holds = np.empty((judged.height, len(keys)), dtype=np.int8)
    for j, key in enumerate(keys):
        holds[:, j] = judged[key].cast(pl.Int8).fill_null(-1).to_numpy()
    meanings = [meaning_of(definitions[key]) if definitions.get(key) else None for key in keys]
    because = reasons(meanings, texts["text"].to_list(), holds == 1, closeness)
    observations = read_frame(matrix.file("observations.parquet"))
    claims = [(h.claim, h.title or h.claim) for h in hypotheses]
    table = annotation_table(observations, Answers(texts["text_id"].to_list(), holds, because), claims)
    distilled = read_distilled(matrix)
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
    log: LineageLog, declared: Dataset, stored: StoredObject, identities: Mapping[str, Identity], asset: str
) -> tuple[EvaluationRecord, Path]:
    """Record an evaluation as the current one and write its pages; returns the record and the page's path.

    Publishing the current evaluation again changes no byte. `asset` is the key of the evaluation's asset in Dagster.
    """
    rows = [_row(row, identities) for row in read_frame(stored.file("hypotheses.parquet")).iter_rows(named=True)]
    dataset, summary = declared.name, stored.json("evaluation.json")
    record = log.append(dataset, stored, summary, rows, files_fingerprint(declared), file_versions(declared))
    folder = log.store.root / "reports"
    own = folder / dataset
    page = stored.file("_report.html").read_bytes()
    dagster = f"{dagster_root()}{asset_address(asset, dataset).removeprefix(ui_root())}"
    write_atomically(own / f"{record.key}.html", with_places(page, record.key, dagster))
    tables = []
    for table in sorted(stored.folder.glob("*.parquet")):
        frame = read_frame(table)
        tables.append((table.stem, frame.height))
        content = {".parquet": table.read_bytes(), ".csv": csv_bytes(frame)}
        for folder_of in (own / record.key, *([own] if table.name == FILE else [])):
            for ending, written in content.items():
                write_atomically(folder_of / f"{table.stem}{ending}", written)
    listed = render_tables(dataset, record.key, record.number, tables)
    write_atomically(own / record.key / "index.html", listed.encode())
    previous = log.previous(record)
    if previous is not None:
        write_atomically(own / f"{record.key}-changes.html", comparison_page(previous, record).encode())
    write_atomically(own / "index.html", render_index(dataset, _lines(log.records(dataset))).encode())
    current = folder / f"{dataset}.html"
    write_atomically(current, with_places(page, record.key, dagster, f"{dataset}/"))
    return record, current


def comparison_page(before: EvaluationRecord, after: EvaluationRecord) -> str:
    """Two evaluations of a dataset side by side, as one HTML document."""
    changes = compare(*([Standing.of(row) for row in record.hypotheses] for record in (before, after)))
    lines = _lines([before, after])
    return render_comparison(after.dataset, lines[0], lines[1], changes, str(after.summary["task"]))


def _lines(records: list[EvaluationRecord]) -> list[EvaluationLine]:
    return [
        EvaluationLine(
            number=record.number,
            key=record.key,
            published=record.published,
            tested=int(record.summary["tested"]),
            confirmed=int(record.summary["confirmed"]),
            versions={origin.asset: origin.data_version for origin in record.origins},
            run_id=record.evaluation.run_id,
        )
        for record in records
    ]


def _row(row: Mapping[str, Any], identities: Mapping[str, Identity]) -> dict[str, Any]:
    identity = identities.get(row["concept_id"])
    known: dict[str, Any] = {}
    if identity is not None and identity.was is not None:
        known = {"was": identity.was, "correlation": identity.correlation, "cosine": identity.cosine}
    return {**{name: row[name] for name in _KEPT}, "known_by": known}
