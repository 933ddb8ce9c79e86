"""A text of one's own against the claims of a dataset: which hold for it, and what makes them hold.

Belongs here: reading the claims of the last evaluation, judging a text by them. Does not belong here: showing it
(`cli.try_text`), the meaning of a claim (`core.concepts.claims`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hsae_dagster.assets.closeness import UnitCloseness
from hsae_dagster.assets.concepts_to_test import concepts_to_test
from hsae_dagster.core.comparison import Standing
from hsae_dagster.core.concepts.claims import because, meaning_of
from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import StorageError
from hsae_dagster.resources import Project
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import StoredObject


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
    corpus, vectors, interpretations = (
        _origin(log, record, name) for name in ("corpus", "embeddings", "interpretations")
    )
    closeness = UnitCloseness.of_results(project, declared, vectors, corpus)
    definitions: dict[str, Mapping[str, Any] | None] = {
        found["concept"]["concept_id"]: found["concept"]["definition"]
        for found in concepts_to_test(declared, interpretations)
    }
    tried = []
    for row in record.hypotheses:
        definition = definitions.get(row["concept_id"])
        reason = because(meaning_of(definition), text, closeness) if definition else None
        tried.append(Tried(Standing.of(row), reason))
    return record, tried


def _origin(log: LineageLog, record: EvaluationRecord, asset: str) -> StoredObject:
    origin = record.origin(asset)
    if origin is None:
        raise StorageError(
            f"Evaluation {record.number} of dataset `{record.dataset}` names no {asset}. "
            f"`hsae run {record.dataset}` makes one that does."
        )
    return log.store.verified(record.dataset, log.store.at(origin.place))
