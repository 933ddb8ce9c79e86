"""Whether a card is current, stale or retired, and saying so on cards that are already written.

Belongs here: the words of a status, and rewriting a card's last event with another one. Does not belong here: what a
card shows (`assets.hypothesis_card`) or what has changed (`storage.lineage`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.report.links import card_partition
from hsae_dagster.resources import Project
from hsae_dagster.storage.lineage import LineageLog, staleness

CARD = "hypothesis_card"
STATUS, CURRENT, RETIRED = "status", "current", "retired"


def status_words(reasons: Sequence[str]) -> str:
    """`current`, or `stale` with what has changed."""
    return f"stale: {' '.join(reasons)} Materialize the dataset again." if reasons else CURRENT


def card_metadata(instance: dg.DagsterInstance, project: Project, partition: str) -> dict[str, Any]:
    """What the last event of a card says, plain values by name; empty when there is none."""
    event = _last(instance, project, partition)
    return {name: value.value for name, value in event.metadata.items()} if event else {}


def restated_cards(
    instance: dg.DagsterInstance, project: Project, record: EvaluationRecord, reasons: Sequence[str]
) -> Iterator[dg.AssetMaterialization]:
    """The cards of an evaluation as they were last written, under a new status.

    Nothing when they are stale (or current) already: during a run several results change one after the other, and one
    warning is enough.
    """
    for number in range(1, len(record.hypotheses) + 1):
        partition = card_partition(record.dataset, number)
        event = _last(instance, project, partition)
        if event is None or event.metadata.get("evaluation data version") != _text(record.evaluation.data_version):
            continue
        told = event.metadata.get(STATUS)
        was_current = told is not None and told.value == CURRENT
        if was_current == (not reasons):
            continue
        yield dg.AssetMaterialization(
            project.key(CARD),
            partition=partition,
            metadata={**event.metadata, STATUS: status_words(reasons)},
            tags={key: value for key, value in (event.tags or {}).items() if key == "dagster/data_version"},
        )


def outdated_cards(
    instance: dg.DagsterInstance, project: Project, versions: Mapping[str, str]
) -> Iterator[dg.AssetMaterialization]:
    """Cards to mark stale or current, given the data version that each dataset's files have now."""
    store = project.store
    log = LineageLog(store)
    for dataset, version in versions.items():
        record = log.latest(dataset)
        if record is not None:
            yield from restated_cards(instance, project, record, staleness(store, record, version))


def _last(instance: dg.DagsterInstance, project: Project, partition: str) -> dg.AssetMaterialization | None:
    wanted = dg.AssetRecordsFilter(asset_key=project.key(CARD), asset_partitions=[partition])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def _text(value: str) -> dg.TextMetadataValue:
    return dg.MetadataValue.text(value)
