"""Which hypothesis is which: ids that stay while claims are reworded.

Belongs here: giving every concept of an evaluation its hypothesis id, from all earlier evaluations of the dataset. Does
not belong here: how alike two hypotheses are (`core.matching`) or keeping the records (`storage.lineage`).
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.core.matching import Match, annotation_correlation, direction_cosine, match_hypotheses
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.storage.frames import read_arrays, read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import ObjectStore, StoredObject

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
