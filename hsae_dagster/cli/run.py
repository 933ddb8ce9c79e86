"""`hsae run`: every asset of one dataset, in this process, on the records that the UI shows.

Belongs here: starting the job, progress and a failure's sentence. Does not belong here: any stage's work (`assets`).
"""

import logging
import sys
import time
from typing import TYPE_CHECKING

import click

from hsae_dagster.cli.findings import print_findings
from hsae_dagster.cli.registered import register
from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

if TYPE_CHECKING:
    import dagster as dg


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
    _show_progress(started)
    # Whoever runs this one has no question about the others; `hsae ui` and the catalog tell.
    register(others=False)
    problem = _execute(dataset, until)
    if problem:
        raise click.ClickException(f"{problem}\nFinished stages are kept; the same command goes on from there.")
    if until is None:
        print_findings(dataset, time.monotonic() - started)


def _execute(dataset: str, until: str | None) -> str | None:
    """Run the job in this process on the shared records; returns the failing step's sentence, or None."""
    import dagster as dg

    from hsae_dagster.definitions import defs
    from hsae_dagster.workers import Worker

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        job = defs.resolve_job_def("analyse_dataset")
        chosen = _stages(job, until)
        result = job.execute_in_process(
            instance=instance,
            partition_key=dataset,
            raise_on_error=False,
            run_config=quiet,
            tags=Worker.here().tags,
            # Says that a stage's readers run along, so that the refresh sensor does not start them a second time.
            asset_selection=chosen,
        )
    if result.success:
        return None
    if refused := _refused(dataset, result):
        return refused
    for event in result.all_events:
        if event.is_step_failure:
            failure = event.step_failure_data
            described = failure.user_failure_data.description if failure.user_failure_data else None
            error = failure.error
            while error and error.cause:
                error = error.cause
            cause = described or (error.message if error else "unknown error")
            return f"`{event.step_key}` stopped: {cause.strip()}"
    return f"The run {result.run_id} failed; open it in the UI."


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


def _refused(dataset: str, result: "dg.ExecuteInProcessResult") -> str | None:
    """The sentence of a structural check that failed: as `hsae check` says it, else what it demands."""
    from hsae_dagster.checks import CHECKS
    from hsae_dagster.cli.new import describe
    from hsae_dagster.dataset.discovery import load_dataset

    failed = next((each for each in result.get_asset_check_evaluations() if each.blocking and not each.passed), None)
    if failed is None:
        return None
    stage = failed.asset_key.to_user_string()
    try:
        describe(load_dataset(Project.here().data, dataset), results=Project.here().results)
    except HsaeError as error:
        return f"`{stage}` stopped: {error}"
    demanded = CHECKS.get(failed.asset_key.path[-1], {}).get(failed.check_name, (True, failed.check_name))[1]
    found = ", ".join(f"{name}: {value.value}" for name, value in failed.metadata.items())
    return f"`{stage}` stopped, because a check failed that says: {demanded} Found {found or 'the opposite'}."


def _show_progress(started: float) -> None:
    class Timed(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{time.monotonic() - started:6.1f} s  {record.getMessage()}"

    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Timed())
    progress = logging.getLogger("hsae_dagster.progress")
    progress.handlers = [handler]
    progress.setLevel(logging.INFO)
    progress.propagate = False
