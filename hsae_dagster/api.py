"""`analyse`: from a data frame to tested claims in one call; and the run behind it, which `hsae run` shares."""

import html
import logging
import signal
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hsae_dagster.dataset.discovery import check_name, load_dataset, parse_declaration
from hsae_dagster.errors import DatasetError, HsaeError, refusal
from hsae_dagster.orchestration.project import Project, prepare_home, project_root
from hsae_dagster.orchestration.stage import CHECKS, heard_by
from hsae_dagster.storage.files import write_atomically
from hsae_dagster.storage.outputs import StoredEvaluation

if TYPE_CHECKING:
    import dagster as dg

# First line of what `analyse` may write again.
_MARK = "# Written by hsae_dagster.analyse, which writes it anew at its next call.\n"
_TEXTS = "texts.parquet"


@dataclass(frozen=True)
class Analysis:
    """What the current evaluation of a dataset found; a notebook shows its claims as a table.

    Attributes:
        dataset: its name, by which `hsae compare`, `hsae text` and the others know it.
        rows: one dictionary per tested claim, the table that `hsae run` prints.
        claims: one row per tested claim with all figures, the table `hypotheses` of the report.
        annotations: one row per held-out text with a column per claim; see docs/reading-a-report.md.
        fits: what predicts how well on held-out texts, the report's ladder.
        report: the page.
    """

    dataset: str
    rows: Sequence[dict[str, Any]]
    claims: pl.DataFrame
    annotations: pl.DataFrame
    fits: pl.DataFrame
    report: Path

    @staticmethod
    def current(dataset: str) -> "Analysis":
        """The last evaluation of a dataset.

        Raises:
            StorageError: there is none, or it is damaged.
        """
        project = Project.here()
        found = StoredEvaluation.current(project.store, dataset)
        report = project.results.resolve() / "reports" / f"{dataset}.html"
        return Analysis(dataset, found.rows, found.hypotheses, found.annotations, found.fits, report)

    def __str__(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=80, tbl_hide_dataframe_shape=True):
            return f"{self._table}\nReport: {self.report}"

    def _repr_html_(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_cols=-1, fmt_str_lengths=1000, tbl_hide_dataframe_shape=True):
            return f"{self._table._repr_html_()}<p>Report: {html.escape(str(self.report))}</p>"

    @property
    def _table(self) -> pl.DataFrame:
        return pl.DataFrame([{name: str(value) for name, value in row.items()} for row in self.rows])


def analyse(frame: Any, name: str, **declaration: Any) -> Analysis:
    """Find what in a frame's texts predicts an outcome, and test each claim on texts that were held out.

    It is `hsae new` and `hsae run` in one call. The frame and its declaration become data/<name> of the project at
    HSAE_HOME (else this checkout, or the current folder). So the Dagster UI shows the run, finished stages are kept,
    and each further setting that is tested on the same held-out texts counts as a further look.

    Args:
        frame: a polars, pandas or Arrow table with a row per text (of pairs, per pair).
        name: of the dataset: lower-case letters, digits, `_` and `-`.
        declaration: fields of dataset.yaml except `files` and `extends`. `task` and `columns` are required, such as
            `task="regression", columns={"text": "review", "label": "stars", "cluster_by": "product"}`.

    Raises:
        DatasetError: the frame or a field cannot be used, or data/<name> is not from an earlier call.
        HsaeError: a stage stopped; the sentence says why. Or this process has worked for another project before.
    """
    import dagster as dg

    prepare_home(project_root())
    project = _only_project()
    write_dataset(frame, project.data / check_name(name), declaration)
    execution = Execution(name)
    with dg.DagsterInstance.get() as instance, heard_by(logging.StreamHandler(sys.stdout)), _own_sigterm():
        instance.add_dynamic_partitions(project.partitions_name, [name])
        events = list(execution.events(execution.begin(instance, str(uuid.uuid4())), instance))
    if any(event.event_type_value == "PIPELINE_CANCELED" for event in events):
        raise KeyboardInterrupt
    if problem := stopped(events):
        raise HsaeError(problem)
    return Analysis.current(name)


def _only_project() -> Project:
    """The project here, which must be the one that the assets of this process were made for."""
    from hsae_dagster.definitions import defs

    here, made = Project.here(), (defs.resources or {})["project"]
    if (here.data_dir, here.results_dir) != (made.data_dir, made.results_dir):
        raise HsaeError(
            f"This process works for the project with the data in {made.data_dir}, not {here.data_dir}. Restart it "
            "(in a notebook, the kernel) to work for another."
        )
    return here


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What the host program does at SIGTERM, which Dagster replaces, is as it was afterwards."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, own)


def write_dataset(frame: Any, folder: Path, declaration: dict[str, Any]) -> None:
    """Make a dataset's folder of a frame and the fields of its declaration.

    Raises:
        DatasetError: see `analyse`.
    """
    import yaml

    declared = folder / "dataset.yaml"
    held = [path for path in folder.glob("*") if not path.name.startswith(".")]
    if held and not (declared.is_file() and declared.read_text(encoding="utf-8").startswith(_MARK)):
        raise DatasetError(f"{folder} exists and was not made by `analyse`. It is left as it is; choose another name.")
    for field in ("files", "extends"):
        if field in declaration:
            raise DatasetError(f"Dataset `{folder.name}`: the texts are those of the frame. Leave `{field}` out.")
    spec = parse_declaration({**declaration, "files": _TEXTS}, declared)
    fields = spec.model_dump(mode="json", exclude_unset=True)
    aside = folder / f".{_TEXTS}"
    try:
        table = pl.DataFrame(frame)
        folder.mkdir(parents=True, exist_ok=True)
        table.write_parquet(aside)
    except OSError as error:
        raise DatasetError(f"Dataset `{folder.name}`: {refusal(error)}") from None
    except (
        TypeError,
        ValueError,
        NotImplementedError,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        aside.unlink(missing_ok=True)
        why = " ".join(str(error).split())[:300]
        raise DatasetError(
            f"Dataset `{folder.name}`: the frame cannot be written as Parquet: {why}. Keep the columns that "
            "are used, as text, numbers or dates."
        ) from None
    write_atomically(folder / ".gitignore", b"*\n")
    # Before the texts: a folder without it would be somebody else's.
    write_atomically(declared, (_MARK + yaml.safe_dump(fields, allow_unicode=True, sort_keys=False)).encode())
    aside.replace(folder / _TEXTS)
    load_dataset(folder.parent, folder.name)


@dataclass(frozen=True)
class Execution:
    """The stages of a dataset in this process, as a run that the UI knows like its own.

    Attributes:
        until: the last stage; all of them without.
    """

    dataset: str
    until: str | None = None

    @cached_property
    def job(self) -> "dg.JobDefinition":
        """The job, its steps in this process."""
        from hsae_dagster.definitions import JOB, defs
        from hsae_dagster.orchestration.executors import terminal_executor

        return defs.resolve_job_def(JOB).with_executor_def(terminal_executor())

    @cached_property
    def stages(self) -> "list[dg.AssetKey]":
        """Those that are materialized.

        Raises:
            HsaeError: there is no stage `until`.
        """
        every = sorted(self.job.asset_layer.selected_asset_keys)
        if self.until is None:
            return every
        last = next((key for key in every if key.path[-1] == self.until), None)
        if last is None:
            names = ", ".join(key.path[-1] for key in every)
            raise HsaeError(f"There is no stage `{self.until}`. The stages are: {names}.")
        graph = self.job.asset_layer.asset_graph
        return sorted({last, *(key for key in graph.get_ancestor_asset_keys(last) if key in every)})

    def begin(self, instance: "dg.DagsterInstance", run_id: str) -> "dg.DagsterRun":
        """The run's record, before anything is done; `run_id` is a new one (a UUID)."""
        from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

        from hsae_dagster.definitions import LOCATION

        # By its origin the UI finds the job: on the timeline, from the run's page, and to run it again.
        repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
        return instance.create_run_for_job(
            self.job,
            run_id=run_id,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            # Whoever runs it here sees it stop, and decides themselves whether to try it again.
            tags={"dagster/partition": self.dataset, "dagster/max_retries": "0"},
            # Says that a stage's readers run along, so that the refresh sensor does not start them a second time.
            asset_selection=set(self.stages),
            remote_job_origin=RemoteJobOrigin(repository, self.job.name),
        )

    def events(self, run: "dg.DagsterRun", instance: "dg.DagsterInstance") -> "Iterator[dg.DagsterEvent]":
        """Do the work; what happens, as it happens."""
        from dagster._core.definitions.job_base import InMemoryJob
        from dagster._core.execution.api import execute_run_iterator

        return iter(execute_run_iterator(InMemoryJob(self.job), run, instance))


def stopped(events: "Sequence[dg.DagsterEvent]") -> str | None:
    """Why a run did not come to its end, in a sentence; None if it did."""
    if any(event.event_type_value == "PIPELINE_SUCCESS" for event in events):
        return None
    if failed := failed_check(events):
        stage = failed.asset_key.path[-1]
        demanded = CHECKS.get(stage, {}).get(failed.check_name, (True, failed.check_name))[1]
        found = ", ".join(f"{name}: {value.value}" for name, value in failed.metadata.items())
        return f"`{stage}` stopped because a check failed. Required: {demanded} Found: {found or 'the opposite'}."
    for event in events:
        if event.is_step_failure:
            failure = event.step_failure_data
            described = failure.user_failure_data.description if failure.user_failure_data else None
            error = failure.error
            while error and error.cause:
                error = error.cause
            cause = described or (error.message if error else "unknown error")
            return f"`{event.step_key}` stopped: {cause.strip()}"
    return "The run failed; open it in the UI."


def failed_check(events: "Sequence[dg.DagsterEvent]") -> "dg.AssetCheckEvaluation | None":
    """The structural check that stopped a run."""
    checked = (e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION")
    return next((each for each in checked if each.blocking and not each.passed), None)
