"""Making an evaluation the one that people see: its record, its page, its tables, the lists of pages.

Belongs here: writing under results/reports and results/lineage. Does not belong here: what a page says (`report`), the
cards (`assets.hypothesis_card`).

Layout under results/reports:
    <dataset>.html                       the page of the current evaluation
    <dataset>/<evaluation>.html          the page of every evaluation, for ever
    <dataset>/<evaluation>/<table>.…     its tables as Parquet and CSV, listed in index.html
    <dataset>/<evaluation>-changes.html  what changed since the evaluation before
    <dataset>/annotations.…              held-out texts and their claims in the current evaluation, as Parquet and CSV
    <dataset>/index.html                 the evaluations of a dataset
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsae_dagster.assets.annotation_export import FILE as ANNOTATIONS
from hsae_dagster.assets.identity import Identity
from hsae_dagster.core.comparison import Standing, compare
from hsae_dagster.core.lineage import EvaluationRecord
from hsae_dagster.dataset.discovery import Dataset, file_versions, files_fingerprint
from hsae_dagster.report.archive import EvaluationLine, render_comparison, render_index, render_tables, with_places
from hsae_dagster.report.links import asset_address, dagster_root, ui_root
from hsae_dagster.report.tables import csv_bytes
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster.storage.objects import StoredObject
from hsae_dagster.whole_files import write_atomically

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
        for folder_of in (own / record.key, *([own] if table.name == ANNOTATIONS else [])):
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
