"""`labelled_texts`, `dataset_catalog` and `overview`: what lies under data/, and every dataset on one page."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from hsae_dagster.core.evaluations import EvaluationRecord
from hsae_dagster.dataset.discovery import Dataset, badly_named_folders, dataset_names, files_fingerprint, load_dataset
from hsae_dagster.errors import DatasetError, FilesMissingError, StorageError
from hsae_dagster.orchestration.project import Project, datasets
from hsae_dagster.orchestration.stage import CURRENT, explained, status_words, table
from hsae_dagster.report.page import DatasetLine, best_markdown, overview_markdown, render_overview, report_address
from hsae_dagster.storage.files import write_atomically
from hsae_dagster.storage.lineage import LineageLog, staleness
from hsae_dagster.storage.outputs import Output

labelled_texts = dg.AssetSpec(
    "labelled_texts",
    partitions_def=datasets,
    kinds={"file"},
    description="The files under data/<dataset>/. Not made here: the discovery sensor reports a new data version when "
    "a file or dataset.yaml changes.",
)


@dg.asset(group_name="catalog", kinds={"yaml"})
def dataset_catalog(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Registers every dataset under data/ as a partition; what the discovery sensor does, for a terminal."""
    with explained():
        found, problems = scan(project)
        names = [dataset.name for dataset, _ in found]
        context.instance.add_dynamic_partitions(project.partitions_name, names)
        for problem in problems:
            context.log.warning(problem)
        pending = waiting(project)
        rows = [
            {"dataset": d.name, "task": d.spec.task, "description": d.spec.description, "data version": version[:12]}
            for d, version in found
        ]
        problem_rows = [{"problem": problem} for problem in problems]
        gone = retired(context.instance, project)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(rows),
                "datasets": table(rows),
                "not usable": table(problem_rows) if problem_rows else "none",
                "retired": ", ".join(gone) or "none",
                "not usable yet": table([{"waiting": w} for w in pending.values()]) if pending else "none",
            }
        )


def retired(instance: dg.DagsterInstance, project: Project) -> list[str]:
    """Datasets that were analysed once and have no declaration under data/ any more, sorted.

    Their partitions are taken away, so that nothing runs them; their records, results and reports stay, and belong to
    them again when the folder returns.
    """
    recorded = {
        name
        for asset in ("labelled_texts", "corpus")
        for name in instance.get_materialized_partitions(project.key(asset))
    }
    return sorted(recorded - set(dataset_names(project.data)))


def scan(
    project: Project, fingerprint: Callable[[Dataset], str] = files_fingerprint
) -> tuple[list[tuple[Dataset, str]], list[str]]:
    """Usable datasets with the fingerprint of their files, and a sentence for each that cannot be used."""
    found, problems = [], []
    for name in dataset_names(project.data):
        try:
            dataset = load_dataset(project.data, name)
            found.append((dataset, fingerprint(dataset)))
        except FilesMissingError:
            continue  # nothing is wrong: see `waiting`
        except DatasetError as error:
            problems.append(str(error))
        except OSError as error:  # one folder that cannot be read must not hide the others
            problems.append(f"{project.data / name} cannot be read: {error}. Make its files readable, or remove it.")
    for name in badly_named_folders(project.data):
        problems.append(f"{project.data / name} is not a dataset: use 1 to 64 of a-z, 0-9, `_` and `-` as its name.")
    return found, problems


def waiting(project: Project) -> dict[str, str]:
    """By dataset whose files have yet to be obtained, a sentence with how that is done."""
    found = {}
    for name in dataset_names(project.data):
        try:
            load_dataset(project.data, name).file_paths()
        except FilesMissingError as error:
            found[name] = str(error)
        except DatasetError:
            continue  # `scan` tells
    return found


NAME = "overview"


@dg.asset(name=NAME, deps=["evaluation_report"], group_name="catalog", kinds={"html"})
def overview(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Datasets, their best hypotheses, freshness and spend: read from the last evaluations, nothing is computed."""
    with explained():
        lines = gather(project)
        page = write_overview(project, lines)
        context.log.info(f"{len(lines)} datasets; page: {page}")
        stale = [line.dataset for line in lines if line.record and line.status != CURRENT]
        return dg.MaterializeResult(
            metadata={
                "open the list": dg.MetadataValue.url(report_address("index")),
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


def keep_overview(project: Project) -> Path:
    """The page that lists all reports, written anew where one of them is newer; returns its path."""
    page = project.results / "reports" / "index.html"
    reports = [path.stat().st_mtime for path in page.parent.glob("*.html") if path != page]
    if page.is_file() and page.stat().st_mtime >= max(reports, default=0.0):
        return page
    return write_overview(project, gather(project))


def _line(log: LineageLog, dataset: str, files: str | None) -> DatasetLine:
    records = log.records(dataset)
    if not records:
        return DatasetLine(dataset, None, 0, "not evaluated yet", 0, None)
    record = records[-1]
    status = status_words(staleness(log.store, record, files)) if files else "its files are gone"
    return DatasetLine(dataset, record, len(records), status, *spending(log, record))


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
    return Output(stored).spending or {}
