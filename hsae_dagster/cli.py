"""`hsae`: the few things that are easier in a terminal than in the Dagster UI.

Belongs here: arguments, progress and tables for people. Does not belong here: any stage's work; every command runs the
same assets that the UI runs, on the same records.
"""

import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import click

from hsae_dagster.errors import HsaeError
from hsae_dagster.home import prepare_home
from hsae_dagster.resources import Project, project_root

DEMO, FALLBACK = "movie_reviews", "planted"


class _Sentences(click.Group):
    """Shows our errors as sentences, not tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HsaeError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Sentences)
@click.version_option(package_name="hsae_dagster")
def main() -> None:
    """What in these texts predicts this outcome, and can I trust the answer?"""


@main.command()
def init() -> None:
    """Write .env and the Dagster home, so that terminal and UI share their records."""
    home = prepare_home(project_root())
    click.echo(f"Records are kept in {home}")


@main.command()
@click.argument("names", nargs=-1)
def sample(names: tuple[str, ...]) -> None:
    """Fetch sample datasets by name (all of them without a name)."""
    prepare_home(project_root())
    for name in names or tuple(_samples()):
        problem = _fetch(name)
        if problem and names:
            raise click.ClickException(problem)


@main.command()
@click.argument("dataset")
def run(dataset: str) -> None:
    """Materialize every asset of DATASET and print its hypotheses."""
    _run(dataset)


@main.command()
def demo() -> None:
    """The main job on real texts, offline and without a key, from download to report."""
    # First, because .env may say that the data lie elsewhere.
    prepare_home(project_root())
    problem = _fetch(DEMO)
    if problem:
        click.echo(f"\n{problem}\nGoing on with `{FALLBACK}`, texts made by this project, which need no network.\n")
        _fetch(FALLBACK)
    dataset = FALLBACK if problem else DEMO
    _run(dataset)
    click.echo("\nLook at it in Dagster:  make ui")


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port on this machine.")
def ui(port: int) -> None:
    """Open Dagster on this machine with every sample dataset ready to materialize."""
    prepare_home(project_root())
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise click.ClickException(
                f"Port {port} on this machine is taken, perhaps by another Dagster. "
                f"Stop it, or choose another: make ui PORT={port + 1}"
            ) from None
    for name in _samples():
        _fetch(name)
    names = _register()
    click.echo(f"Datasets ready: {', '.join(names)}")
    click.echo(f"Dagster opens at http://127.0.0.1:{port}  (Ctrl-C stops it)")
    click.echo("Assets → corpus … evaluation_report → Materialize → choose a dataset")
    binary = Path(sys.executable).with_name("dg")
    # dg warns unless the environment it runs in is also the activated one.
    os.environ |= {"VIRTUAL_ENV": sys.prefix, "PATH": f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    os.chdir(project_root())
    os.execv(binary, [str(binary), "dev", "--host", "127.0.0.1", "--port", str(port)])


def _samples() -> list[str]:
    from hsae_dagster.sample_data.registry import SAMPLES

    return list(SAMPLES)


def _fetch(name: str) -> str | None:
    """Fetch one sample; returns what went wrong in a sentence, or None."""
    from hsae_dagster.sample_data.registry import prepare_sample

    root = project_root()
    try:
        prepare_sample(name, Project.here().data, root / "downloads", lambda message: click.echo(f"  {message}"))
    except HsaeError as error:
        click.echo(f"  {name}: {error}")
        return f"`{name}` could not be fetched: {error}"
    return None


def _register() -> list[str]:
    """Make every usable dataset a partition; returns their names."""
    import dagster as dg

    from hsae_dagster.assets.dataset_catalog import scan
    from hsae_dagster.partitions import DATASETS

    found, problems = scan(Project.here())
    names = [dataset.name for dataset, _ in found]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(DATASETS, names)
    for problem in problems:
        click.echo(f"  not usable: {problem}")
    return names


def _run(dataset: str) -> None:
    prepare_home(project_root())
    started = time.monotonic()
    from hsae_dagster.dataset.discovery import load_dataset

    load_dataset(Project.here().data, dataset).file_paths()
    click.echo(f"Materializing every asset of `{dataset}`\n")
    _show_progress(started)
    _register()
    problem = _execute(dataset)
    if problem:
        raise click.ClickException(f"{problem}\nFinished stages are kept; the same command goes on from there.")
    _print_findings(dataset, time.monotonic() - started)


def _execute(dataset: str) -> str | None:
    """Run the job in this process on the shared records; returns the failing step's sentence, or None."""
    import dagster as dg

    from hsae_dagster.definitions import defs

    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        result = defs.resolve_job_def("analyse_dataset").execute_in_process(
            instance=instance, partition_key=dataset, raise_on_error=False, run_config=quiet
        )
    if result.success:
        return None
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


def _print_findings(dataset: str, seconds: float) -> None:
    project = Project.here()
    stored = project.store.current(dataset, "evaluation_report")
    summary, rows = stored.json("evaluation.json"), stored.json("_table.json")
    click.echo(f"\nWhat goes with {summary['outcome']} in `{dataset}`, tested on texts never used before:\n")
    for line in _columns(rows):
        click.echo(line)
    metric = "R²" if summary["metric"] == "R2" else "AUC"
    click.echo(
        f"\n{summary['confirmed']} of {summary['tested']} hypotheses confirmed (Holm, family-wise error "
        f"{summary['alpha']:g}); {summary['unreadable']} neurons have no readable concept."
    )
    click.echo(f"\nJoint fit on the holdout ({metric}):")
    for name, value in summary["fits"].items():
        click.echo(f"  {name:<32} {value:6.3f}")
    click.echo(f"  {'floor (permuted outcomes)':<32} {summary['floor'][0]:6.3f}")
    click.echo(f"\nReport: {project.results / 'reports' / f'{dataset}.html'}")
    click.echo(f"Done in {seconds:.0f} s.")


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    """Rows as aligned text; the first column takes what width is left."""
    if not rows:
        return ["(no hypothesis could be tested)"]
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in [dict(zip(names, names, strict=True)), *rows]]
    widths = [max(len(row[j]) for row in cells) for j in range(len(names))]
    widths[0] = min(widths[0], 78)
    return ["  ".join(_fit(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"
