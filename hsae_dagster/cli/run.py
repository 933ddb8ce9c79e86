"""`hsae run`, `demo`, `sample`, `fetch`, `init`, `ui`: from nothing to a finished run."""

import io
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from hsae_dagster.errors import HsaeError
from hsae_dagster.orchestration.project import Project, prepare_home, project_root
from hsae_dagster.report.page import REPORTS_PORT

if TYPE_CHECKING:
    import dagster as dg
    from rich.progress import Progress
    from starlette.applications import Starlette


def opened() -> Project:
    """This project, with its home made ready."""
    prepare_home(project_root())
    return Project.here()


def register(*, others: bool = True) -> list[str]:
    """Make every usable dataset a partition and return their names; `others`: say which cannot be used, and why."""
    import dagster as dg

    from hsae_dagster.assets.catalog import scan, waiting

    project = Project.here()
    found, problems = scan(project)
    names = [dataset.name for dataset, _ in found]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(project.partitions_name, names)
    if not others:
        return names
    for problem in problems:
        click.echo(f"  not usable: {problem}")
    if pending := waiting(project):
        click.echo(f"Without texts yet: {', '.join(pending)} (`hsae sample NAME` or `hsae fetch NAME` gets them)")
    return names


_WIDEST, _NARROWEST = 78, 16  # characters of a column, and of one that gives way


def print_findings(dataset: str, seconds: float) -> None:
    """Print the claims, the joint fit and where the report lies."""
    from hsae_dagster.core.inference.joint_fit import Fit
    from hsae_dagster.report.cards import FOUND_IN
    from hsae_dagster.report.wording import grouped, metric_name, plural, rung_name
    from hsae_dagster.storage.outputs import StoredEvaluation

    project = Project.here()
    evaluation = StoredEvaluation.current(project.store, dataset)
    summary, rows = evaluation.summary, evaluation.rows
    first = summary["look"] == 1
    used = "on texts never tested on before" if first else "on held-out texts that an earlier look has used"
    if rows and FOUND_IN in rows[0]:
        used = "each on the half of the texts that it was not found in"
        used += "" if first else ", which an earlier look has used"
    click.echo(f"\nWhat goes with {summary['outcome']} in `{dataset}`, tested {used}:\n")
    click.echo("\n".join(columns(rows, terminal_width())))
    found, tested = summary["confirmed"], summary["tested"]
    click.echo(f"\n{found} of {tested} claims confirmed (corrected for all tests; alpha {summary['alpha']:g}).")
    if summary["unreadable"]:
        click.echo(f"No claim covers {plural(summary['unreadable'], 'selected neuron')}.")
    click.echo(f"\nHow well they predict together, on held-out texts ({metric_name(summary['metric'])}):")
    for title, own in grouped([Fit(name, "", value, nan, nan, "") for name, value in summary["fits"].items()]):
        for fit in own:
            click.echo(f"  {title:<22} {rung_name(fit.name):<24} {fit.value:6.3f}")
    click.echo(f"  {'Chance':<22} {'shuffled outcomes':<24} {summary['floor'][0]:6.3f}")
    click.echo(f"\nReport: {project.results / 'reports' / f'{dataset}.html'}")
    click.echo(f"Done in {seconds:.0f} s.")


def terminal_width() -> int | None:
    """Characters that fit a line, or None where nobody reads it on a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(rows: list[dict[str, Any]], width: int | None = None) -> list[str]:
    """Rows as aligned text, no line longer than `width`; the widest columns give way."""
    if not rows:
        return ["(nothing found: no claim was tested)"]
    names = list(rows[0])
    cells = [[str(row[name]) for name in names] for row in [dict(zip(names, names, strict=True)), *rows]]
    widths = [min(max(len(row[j]) for row in cells), _WIDEST) for j in range(len(names))]
    if width is not None:
        for j in sorted(range(len(widths)), key=lambda j: -widths[j]):
            spare = width - sum(widths) - 2 * (len(widths) - 1)
            widths[j] = min(widths[j], max(_NARROWEST, widths[j] + spare))
    lines = ["  ".join(_fit(cell, size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [_fit(line, width).rstrip() for line in lines] if width else lines


def _fit(cell: str, width: int) -> str:
    return cell.ljust(width) if len(cell) <= width else cell[: width - 1] + "…"


KEPT = "Finished stages are kept; the same command goes on from there."
INTERRUPTED = 130  # what a shell expects of a command that Ctrl-C has ended


@click.command()
@click.argument("dataset")
@click.option("--until", metavar="STAGE", help="Stop after this stage, such as `interpretations`.")
def run(dataset: str, until: str | None) -> None:
    """Materialize every asset of DATASET and print its hypotheses."""
    materialize(dataset, until)


def materialize(dataset: str, until: str | None = None) -> None:
    """Materialize every asset of a dataset in this process, showing progress, and print its hypotheses."""
    project, started = opened(), time.monotonic()
    from hsae_dagster.dataset.discovery import load_dataset
    from hsae_dagster.stages.gold import gold_offer

    declared = load_dataset(project.data, dataset)
    declared.file_paths()
    click.echo(f"Materializing {f'`{dataset}` until {until}' if until else f'every asset of `{dataset}`'}\n")
    if until is None and (offer := gold_offer(declared)):
        click.echo(f"{offer}\n")
    events = _Run(dataset, until, started).events()
    if problem := _problem(dataset, events):
        raise click.ClickException(f"{problem}\n{KEPT}")
    if until is None:
        print_findings(dataset, time.monotonic() - started)


@dataclass
class _Run:
    """The job of a dataset in this process, as a run that the UI knows like its own, in a thread beside the main one.

    Python raises Ctrl-C in the main thread, wherever that is. A library's clean-up would lose it, and code in Rust
    panics. So the main thread only waits.
    """

    dataset: str
    until: str | None
    started: float
    run_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    instance: "dg.DagsterInstance | None" = None
    screen: "_Screen | None" = None

    def events(self) -> "list[dg.DagsterEvent]":
        """What happened; does not return when somebody stops it."""
        ended_by = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stream = _own_stdout()
        try:
            running = ThreadPoolExecutor(1).submit(self._execute)
            while not running.done():  # asked again and again: a signal may reach another thread than one that waits
                wait([running], timeout=0.2)
            return running.result()
        except KeyboardInterrupt:
            self._stop(stream)
        finally:
            signal.signal(signal.SIGTERM, ended_by)
            if stream is not sys.stdout:
                stream.close()

    def _execute(self) -> "list[dg.DagsterEvent]":
        import dagster as dg

        from hsae_dagster.api import Execution

        # Whoever runs this one has no question about the others; `hsae ui` and the catalog tell.
        register(others=False)
        execution = Execution(self.dataset, self.until)
        with dg.DagsterInstance.get() as self.instance, _shown(len(execution.stages), self.started) as self.screen:
            run, events = execution.begin(self.instance, self.run_id), []
            for event in execution.events(run, self.instance):
                events.append(event)
                self.screen.hear(event, self.instance)
        return events

    def _stop(self, stream: TextIO) -> NoReturn:
        """Record that it was cancelled, and end this process: a stage's result is published whole or not at all."""
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
            # What fails here leaves a run whose process is gone, which the sensor `lost_runs` ends.
            with suppress(Exception):
                self._record()
            # If any model is asked: its answers are paid for.
            if client := sys.modules.get("hsae_dagster.providers.openai.client"):
                client.leave()
            with suppress(OSError, ValueError):  # whoever reads may be gone, as in a pipe that Ctrl-C ended, too
                if self.screen:
                    self.screen.leave()
                stream.write(f"\nStopped. {KEPT}\n")
                stream.flush()
        finally:
            os._exit(INTERRUPTED)

    def _record(self) -> None:
        from hsae_dagster.orchestration.executors import free_slots

        if self.instance:
            run = self.instance.get_run_by_id(self.run_id)
            if run and not run.is_finished:
                self.instance.report_run_canceled(run)
            free_slots(self.instance)


def _problem(dataset: str, events: "list[dg.DagsterEvent]") -> str | None:
    """Why a run did not come to its end; of a structural check, as `hsae check` says it."""
    from hsae_dagster.api import failed_check, stopped
    from hsae_dagster.cli.new import describe
    from hsae_dagster.dataset.discovery import load_dataset

    problem = stopped(events)
    if problem and (failed := failed_check(events)):
        try:
            describe(load_dataset(Project.here().data, dataset), results=Project.here().results)
        except HsaeError as error:
            return f"`{failed.asset_key.path[-1]}` stopped: {error}"
    return problem


class _Screen(logging.Handler):
    """Shows how far a run is: lines with the seconds before them, and on a terminal a bar below them.

    Writes past the capture of a step's output, which belongs to the run's page.
    """

    def __init__(self, bar: "Progress", started: float) -> None:
        super().__init__()
        self._bar, self._started = bar, started

    def emit(self, record: logging.LogRecord) -> None:
        """A line that a stage tells."""
        self.say(record.getMessage())

    def say(self, message: str, style: str = "") -> None:
        """A line."""
        from rich.text import Text

        console, seconds = self._bar.console, f"{time.monotonic() - self._started:6.1f} s  "
        console.print(Text.assemble((seconds, "dim"), (message, style)), soft_wrap=not console.is_terminal)

    def leave(self) -> None:
        """Make the terminal as it was."""
        self._bar.stop()

    def hear(self, event: "dg.DagsterEvent", instance: "dg.DagsterInstance") -> None:
        """What the run does next."""
        from hsae_dagster.orchestration.executors import is_blocked

        if is_blocked(event):
            self.say(waiting_words(str(event.step_key), instance), "yellow")
        elif event.is_step_start:
            self._bar.update(self._bar.task_ids[0], description=str(event.step_key).split(".")[0])
        elif event.is_step_materialization and event.asset_key and event.asset_key.path[-1] in str(event.step_key):
            self._bar.advance(self._bar.task_ids[0])


def waiting_words(step: str, instance: "dg.DagsterInstance") -> str:
    """What a step waits for that has no slot of its pool: which other run holds it."""
    from hsae_dagster.orchestration.executors import GPU_POOL, LLM_POOL

    what = {GPU_POOL: "training step", LLM_POOL: "step that asks a model"}
    pool = GPU_POOL if step.startswith("sae_checkpoints") else LLM_POOL
    held = sorted(instance.event_log_storage.get_concurrency_info(pool).active_run_ids)
    runs = [instance.get_run_by_id(run_id) for run_id in held]
    named = [f"run {r.run_id[:8]} of `{r.tags.get('dagster/partition', '')}`" for r in runs if r]
    return f"{step.split('.')[0]:<18} waiting for another {what[pool]}, {', '.join(named) or 'which has just ended'}"


@contextmanager
def _shown(stages: int, started: float) -> Iterator[_Screen]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from hsae_dagster.orchestration.stage import heard_by

    stream = _own_stdout()
    console = Console(file=stream, highlight=False)
    shown = (SpinnerColumn(), TextColumn("{task.description:<18}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*shown, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal)
    screen = _Screen(bar, started)
    try:
        with heard_by(screen), bar:
            bar.add_task("starting", total=stages)
            yield screen
    finally:
        if stream is not sys.stdout:
            stream.close()


def _own_stdout() -> TextIO:
    try:
        sys.stdout.flush()
        copy = os.dup(sys.stdout.fileno())
    except (OSError, io.UnsupportedOperation):
        return sys.stdout
    return os.fdopen(copy, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)


DEMO, FALLBACK = "movie_reviews", "planted"


@click.command()
@click.argument("names", nargs=-1)
def sample(names: tuple[str, ...]) -> None:
    """Fetch sample datasets by name (all of them without a name)."""
    from hsae_dagster.sample_data.registry import SAMPLES

    prepare_home(project_root())
    for name in names or SAMPLES:
        problem = obtain(name)
        if problem and names:
            raise click.ClickException(problem)


@click.command()
def demo() -> None:
    """Run the pipeline on real sample texts, offline and without a key, from download to report."""
    # First, because .env may say that the data lie elsewhere.
    prepare_home(project_root())
    problem = obtain(DEMO)
    if problem:
        click.echo(
            f"\n{problem}\nContinuing with `{FALLBACK}`, texts generated by this project, which need no network.\n"
        )
        obtain(FALLBACK)
    dataset = FALLBACK if problem else DEMO
    materialize(dataset)
    click.echo("\nLook at it in Dagster:  make ui")


def obtain(name: str) -> str | None:
    """Fetch one sample; returns what went wrong in a sentence, or None."""
    from hsae_dagster.sample_data.registry import prepare_sample

    downloads = project_root() / "downloads"
    try:
        prepare_sample(name, Project.here().data, downloads, lambda message: click.echo(f"  {message}"))
    except HsaeError as error:
        click.echo(f"  {name}: {error}")
        return f"`{name}` could not be fetched: {error}"
    return None


@click.command()
@click.argument("experiments", nargs=-1)
def fetch(experiments: tuple[str, ...]) -> None:
    """Fetch the published files of EXPERIMENTS (headlines, yelp, congress; all without a name) from Hugging Face."""
    from hsae_dagster.sample_data.fetch import EXPERIMENTS, fetch_published

    project = opened()
    for name in experiments or EXPERIMENTS:
        for path in fetch_published(name, project.data, click.echo):
            click.echo(f"  {path}")


HOST = "127.0.0.1"


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=REPORTS_PORT, show_default=True, help="On this machine.")
@click.option("--with-parent", is_flag=True, hidden=True, help="End when the process that started this one does.")
def serve(port: int, with_parent: bool) -> None:
    """Serve the reports to browsers on this machine, read-only, until Ctrl-C."""
    import uvicorn

    from hsae_dagster.assets.catalog import keep_overview

    project = opened()
    folder = project.results / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    if with_parent:
        threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    else:
        click.echo(f"Reports: http://{HOST}:{port}/  (Ctrl-C stops it)")
    uvicorn.run(reports_app(folder, lambda: keep_overview(project)), host=HOST, port=port, log_level="warning")


def serve_beside(port: int) -> None:
    """Serve the reports as long as this process lives, whatever it becomes."""
    subprocess.Popen([sys.executable, "-m", "hsae_dagster", "serve", "--port", str(port), "--with-parent"])


def reports_app(folder: Path, front: Callable[[], Path]) -> "Starlette":
    """The files of a folder and nothing else, for whoever asks by this machine's own name.

    Its first page is the one that `front` gives: there may be reports before anyone has made a list of them.

    Another name would be that of a site in the same browser which had its address changed to this machine's.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.responses import FileResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    here = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    first = [Route(path, lambda _: FileResponse(front())) for path in ("/", "/index.html")]
    return Starlette(routes=[*first, Mount("/", StaticFiles(directory=folder, html=True))], middleware=[here])


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)


@click.command()
def init() -> None:
    """Write .env and the Dagster home, so that terminal and UI share their records."""
    home = prepare_home(project_root())
    click.echo(f"Records are kept in {home}")


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port on this machine.")
@click.option("--sample", "samples", multiple=True, help="Fetch this sample first; may be given several times.")
def ui(port: int, samples: tuple[str, ...]) -> None:
    """Open Dagster on this machine with every dataset under data/ ready to materialize."""
    prepare_home(project_root())
    if not _is_free(port):
        raise click.ClickException(
            f"Port {port} on this machine is taken, perhaps by another Dagster. "
            f"Stop it, or choose another: make ui PORT={port + 10}"
        )
    register(others=False)  # before anything that takes time and may be interrupted
    for name in samples:
        if problem := obtain(name):
            raise click.ClickException(problem)
    names = register()
    click.echo(f"Datasets ready: {', '.join(names) or 'none'}")
    click.echo(f"Dagster opens at http://127.0.0.1:{port}  (Ctrl-C stops it)")
    os.environ.setdefault("HSAE_DAGSTER_URL", f"http://127.0.0.1:{port}")
    reports = port % 65535 + 1
    if _is_free(reports):
        os.environ.setdefault("HSAE_REPORTS_URL", f"http://127.0.0.1:{reports}")
        serve_beside(reports)
        click.echo(f"Reports are at http://127.0.0.1:{reports}")
    else:
        click.echo(f"Reports are not served: port {reports} on this machine is taken.")
    click.echo("Assets → corpus … evaluation_report → Materialize → choose a dataset")
    binary = Path(sys.executable).with_name("dg")
    # dg warns unless the environment it runs in is also the activated one.
    os.environ |= {"VIRTUAL_ENV": sys.prefix, "PATH": f"{binary.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    os.chdir(project_root())
    os.execv(binary, [str(binary), "dev", "--host", "127.0.0.1", "--port", str(port)])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
