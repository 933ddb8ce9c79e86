"""`overview`: every dataset on one page: what was found, whether it is still current, what it cost."""

from pathlib import Path
from typing import Any

import dagster as dg

from hsae_dagster.assets.card_status import CURRENT, status_words
from hsae_dagster.assets.dataset_catalog import scan
from hsae_dagster.assets.stage import explained
from hsae_dagster.core.comparison import Standing
from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.errors import StorageError
from hsae_dagster.report.changes import standing_effect
from hsae_dagster.report.overview import (
    DatasetLine,
    HypothesisLine,
    best_markdown,
    overview_markdown,
    render_overview,
)
from hsae_dagster.resources import Project
from hsae_dagster.storage.lineage import LineageLog, staleness
from hsae_dagster.whole_files import write_atomically

NAME = "overview"
_MOST_BEST = 3


@dg.asset(name=NAME, deps=["evaluation_report"], group_name="catalog", kinds={"html"})
def overview(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Datasets, their best hypotheses, freshness and spend: read from the last evaluations, nothing is computed."""
    with explained():
        lines = gather(project)
        page = write_overview(project, lines)
        context.log.info(f"{len(lines)} datasets; page: {page}")
        stale = [line.dataset for line in lines if line.published and line.status != CURRENT]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(lines),
                "datasets": dg.MetadataValue.md(
                    overview_markdown(lines, project.key("evaluation_report").to_user_string())
                ),
                "best hypotheses": dg.MetadataValue.md(
                    best_markdown(lines, project.key("hypothesis_card").to_user_string())
                ),
                "stale": ", ".join(stale) or "none",
                "paid calls": sum(line.calls for line in lines),
                "page": dg.MetadataValue.path(str(page)),
            }
        )


def gather(project: Project) -> list[DatasetLine]:
    """One line per dataset that is declared or was ever evaluated, by name."""
    log = LineageLog(project.store)
    declared = {dataset.name: version for dataset, version in scan(project)[0]}
    return [_line(log, name, declared.get(name)) for name in sorted({*declared, *log.datasets()})]


def write_overview(project: Project, lines: list[DatasetLine]) -> Path:
    """Write results/reports/index.html; returns its path."""
    page = project.results / "reports" / "index.html"
    write_atomically(page, render_overview(lines).encode())
    return page


def _line(log: LineageLog, dataset: str, files: str | None) -> DatasetLine:
    records = log.records(dataset)
    if not records:
        return DatasetLine(dataset, "", 0, 0, (), (), None, 0, "not evaluated yet", 0, None)
    record = records[-1]
    reasons = staleness(log.store, record, files)
    calls, usd = spending(log, record)
    return DatasetLine(
        dataset=dataset,
        outcome=str(record.summary["outcome"]),
        tested=int(record.summary["tested"]),
        confirmed=int(record.summary["confirmed"]),
        hypotheses=_said(record, [Standing.of(row) for row in record.hypotheses]),
        best=_said(record, _best(record)),
        published=record.published,
        evaluations=len(records),
        status=status_words(reasons) if files else "its files are gone",
        calls=calls,
        usd=usd,
    )


def _best(record: EvaluationRecord) -> list[Standing]:
    """The confirmed hypotheses of largest effect."""
    standings = [Standing.of(row) for row in record.hypotheses if row["badge"] == "confirmed"]
    return sorted(standings, key=lambda standing: -abs(standing.estimate))[:_MOST_BEST]


def _said(record: EvaluationRecord, standings: list[Standing]) -> tuple[HypothesisLine, ...]:
    task = str(record.summary["task"])
    numbers = {row["hypothesis_id"]: number for number, row in enumerate(record.hypotheses, 1)}
    return tuple(
        HypothesisLine(s.hypothesis_id, s.claim, standing_effect(s, task), numbers[s.hypothesis_id], s.badge)
        for s in standings
    )


def spending(log: LineageLog, record: EvaluationRecord) -> tuple[int, float | None]:
    """Paid calls behind an evaluation's results, and their price; None where any of it is not known."""
    calls, usd = 0, 0.0
    priced = True
    for asset in ("interpretations", "annotation_matrix"):
        told = _told(log, record, asset)
        calls += int(told.get("paid calls") or 0)
        price = told.get("cost USD whenever paid")
        priced &= price is not None or not told.get("paid calls")
        usd += float(price or 0.0)
    return calls, usd if priced else None


def _told(log: LineageLog, record: EvaluationRecord, asset: str) -> dict[str, Any]:
    origin = record.origin(asset)
    if origin is None:
        return {}
    try:
        stored = log.store.at(origin.place)
    except StorageError:
        return {}
    return stored.json("_spending.json") if stored.file("_spending.json").is_file() else {}
