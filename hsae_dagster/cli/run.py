"""`hsae run`: every asset of one dataset, in this process, on the records that the UI shows.

Belongs here: starting the job, progress, an interrupt and a failure's sentence. Does not belong here: any stage's work
(`assets`).
"""

import io
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import click

from hsae_dagster.cli.findings import print_findings
from hsae_dagster.cli.registered import register
from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    import dagster as dg
    from rich.progress import Progress

KEPT = "Finished stages are kept; the same command goes on from there."
INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C has ended


@click.command()
@click.argument("dataset")
@click.option("--until", metavar="STAGE", help="Stop after this stage, such as `interpretations`.")
def run(dataset: str, until: str | None) -> None:
    """Materialize every asset of DATASET and print its hypotheses."""
    materialize(dataset, until)


def materialize(dataset: str, until: str | None = None) -> None:
    """Materialize every asset of a dataset in this process, showing progress, and print its hypotheses.

    Args:
        dataset: its name.
        until: the last stage; None for all of them.
    """
    prepare_home(project_root())
    started = time.monotonic()
    from hsae_dagster.assets.gold import gold_offer
    from hsae_dagster.dataset.discovery import load_dataset

    declared = load_dataset(Project.here().data, dataset)
    declared.file_paths()
    click.echo(f"Materializing {f'`{dataset}` until {until}' if until else f'every asset of `{dataset}`'}\n")
    if until is None and (offer := gold_offer(declared)):
        click.echo(f"{offer}\n")
    # Whoever runs this one has no question about the others; `hsae ui` and the catalog tell.
    register(others=False)
    events = _execute(dataset, until, started)
    if any(event.event_type_value == "PIPELINE_CANCELED" for event in events):
        click.echo(f"\nStopped. {KEPT}")
        sys.exit(INTERRUPTED)
    if problem := _problem(dataset, events):
        raise click.ClickException(f"{problem}\n{KEPT}")
    if until is None:
        print_findings(dataset, time.monotonic() - started)


def _execute(dataset: str, until: str | None, started: float) -> "list[dg.DagsterEvent]":
    """Run the job in this process as a run that the UI knows like its own; returns what happened."""
    import dagster as dg
    from dagster._core.definitions.job_base import InMemoryJob
    from dagster._core.execution.api import execute_run_iterator
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin

    from hsae_dagster.definitions import LOCATION, defs
    from hsae_dagster.executors import terminal_executor

    job = defs.resolve_job_def("analyse_dataset").with_executor_def(terminal_executor())
    chosen = _stages(job, until)
    # By its origin the UI finds the job: on the timeline, from the run's page, and to run it again.
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(LOCATION), "__repository__")
    with dg.DagsterInstance.get() as instance, _shown(len(chosen), started) as screen:
        record = instance.create_run_for_job(
            job,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            # Whoever runs it here sees it stop, and decides themselves whether to try it again.
            tags={"dagster/partition": dataset, "dagster/max_retries": "0"},
            # Says that a stage's readers run along, so that the refresh sensor does not start them a second time.
            asset_selection=set(chosen),
            remote_job_origin=RemoteJobOrigin(repository, job.name),
        )
        events = []
        for event in execute_run_iterator(InMemoryJob(job), record, instance):
            events.append(event)
            screen.hear(event, instance)
    return events


def _problem(dataset: str, events: "list[dg.DagsterEvent]") -> str | None:
    """The failing step's sentence, or None."""
    if any(event.event_type_value == "PIPELINE_SUCCESS" for event in events):
        return None
    if refused := _refused(dataset, events):
        return refused
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


def _stages(job: "dg.JobDefinition", until: str | None) -> "list[dg.AssetKey]":
    """All stages of the job, or those up to one."""
    every = sorted(job.asset_layer.selected_asset_keys)
    if until is None:
        return every
    last = next((key for key in every if key.path[-1] == until), None)
    if last is None:
        names = ", ".join(key.path[-1] for key in every)
        raise click.ClickException(f"There is no stage `{until}`. The stages are: {names}.")
    graph = job.asset_layer.asset_graph
    return sorted({last, *(key for key in graph.get_ancestor_asset_keys(last) if key in every)})


def _refused(dataset: str, events: "list[dg.DagsterEvent]") -> str | None:
    """The sentence of a structural check that failed: as `hsae check` says it, else what it demands."""
    from hsae_dagster.checks import CHECKS
    from hsae_dagster.cli.new import describe
    from hsae_dagster.dataset.discovery import load_dataset

    checked = (e.asset_check_evaluation_data for e in events if e.event_type_value == "ASSET_CHECK_EVALUATION")
    failed = next((each for each in checked if each.blocking and not each.passed), None)
    if failed is None:
        return None
    stage = failed.asset_key.path[-1]
    try:
        describe(load_dataset(Project.here().data, dataset), results=Project.here().results)
    except HsaeError as error:
        return f"`{stage}` stopped: {error}"
    demanded = CHECKS.get(failed.asset_key.path[-1], {}).get(failed.check_name, (True, failed.check_name))[1]
    found = ", ".join(f"{name}: {value.value}" for name, value in failed.metadata.items())
    return f"`{stage}` stopped, because a check failed that says: {demanded} Found {found or 'the opposite'}."


class _Screen(logging.Handler):
    """Shows how far a run is: lines with the seconds before them, and on a terminal a bar below them.

    Writes past the capture of a step's output, which belongs to the run's page.
    """

    def __init__(self, stream: TextIO, started: float, bar: "Progress | None") -> None:
        super().__init__()
        self._stream, self._started, self._bar = stream, started, bar

    def emit(self, record: logging.LogRecord) -> None:
        """A line that a stage tells."""
        self.say(record.getMessage())

    def say(self, message: str, style: str = "") -> None:
        """A line."""
        seconds = f"{time.monotonic() - self._started:6.1f} s  "
        if self._bar is None:
            self._stream.write(f"{seconds}{message}\n")
            self._stream.flush()
            return
        from rich.text import Text

        self._bar.console.print(Text.assemble((seconds, "dim"), (message, style)))

    def hear(self, event: "dg.DagsterEvent", instance: "dg.DagsterInstance") -> None:
        """What the run does next."""
        from hsae_dagster.executors import is_blocked

        if is_blocked(event):
            self.say(waiting_words(str(event.step_key), instance), "yellow")
        elif self._bar is not None:
            (task,) = self._bar.task_ids
            if event.is_step_start:
                self._bar.update(task, description=str(event.step_key).split(".")[0])
            elif event.is_step_materialization and event.asset_key and event.asset_key.path[-1] in str(event.step_key):
                self._bar.advance(task)


def waiting_words(step: str, instance: "dg.DagsterInstance") -> str:
    """What a step waits for that has no slot of its pool: which other run holds it."""
    from hsae_dagster.op_tags import GPU_POOL, LLM_POOL

    what = {GPU_POOL: "training step", LLM_POOL: "step that asks a model"}
    pool = GPU_POOL if step.startswith("sae_checkpoints") else LLM_POOL
    held = sorted(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)
    runs = [instance.get_run_by_id(run_id) for run_id in held]
    named = [f"run {r.run_id[:8]} of `{r.tags.get('dagster/partition', '')}`" for r in runs if r]
    return f"{step.split('.')[0]:<18} waiting for another {what[pool]}, {', '.join(named) or 'which has just ended'}"


@contextmanager
def _shown(stages: int, started: float) -> Iterator[_Screen]:
    """Progress of a run for the time of the block."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    stream = _own_stdout()
    console = Console(file=stream, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), console=console, transient=True) if console.is_terminal else None
    screen = _Screen(stream, started, bar)
    progress = logging.getLogger("hsae_dagster.progress")
    progress.addHandler(screen)
    progress.setLevel(logging.INFO)
    progress.propagate = False
    try:
        if bar is None:
            yield screen
        else:
            with bar:
                bar.add_task("starting", total=stages)
                yield screen
    finally:
        progress.removeHandler(screen)
        if stream is not sys.stdout:
            stream.close()


def _own_stdout() -> TextIO:
    try:
        sys.stdout.flush()
        copy = os.dup(sys.stdout.fileno())
    except (OSError, io.UnsupportedOperation):
        return sys.stdout
    return os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
