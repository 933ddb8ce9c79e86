"""The same inputs, seeds and answers, run twice and by each executor: the same bytes, run ids and times aside."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hsae_dagster_tests.assets.workspace import NAMES, Workspace
from hsae_dagster_tests.live.processes import CHECKOUT, free_port, make_home
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, declare, differences, finished

CEILING = 600


def determinism(yard: Yard) -> list[Tally]:
    """Again in process, in several processes, and on Ray where it is installed."""
    tallies = []
    with asked_server(0.0):
        first = finished(yard, "first")
        again = Tally("a second run in process")
        again.tries, again.wrong = 1, differences(finished(yard, "second"), first)
        tallies.append(again)
        for executor in () if yard.short else ("multiprocess", "ray"):
            tally = Tally(f"a second run by {executor}")
            tallies.append(tally)
            tally.tries = 1
            workspace = yard.project(executor)
            declare(workspace)
            problem = _on_ray(yard, workspace) if executor == "ray" else _launch(yard, workspace, executor)
            tally.wrong += [problem] if problem else differences(workspace, first)
    return tallies


def _launch(yard: Yard, workspace: Workspace, executor: str, **environment: str) -> str | None:
    """Run every stage by an executor, in a process of its own; what it said if it failed."""
    home = make_home(yard.folder / f"home-{executor}")
    shutil.copy(CHECKOUT / ".env.example", workspace.root)
    project = {
        "DAGSTER_HOME": str(home),
        "HSAE_EXECUTOR": executor,
        "HSAE_HOME": str(workspace.root),
        "HSAE_DATA_DIR": workspace.project.data_dir,
        "HSAE_RESULTS_DIR": workspace.project.results_dir,
        "PYTHONPATH": str(CHECKOUT),
        "VIRTUAL_ENV": sys.prefix,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "hsae_dagster_tests.live.launch", NAME, *NAMES],
        env={**os.environ, **project, **environment},
        capture_output=True,
        text=True,
        timeout=CEILING,
        check=False,
    )
    return None if done.returncode == 0 else f"it failed: {done.stderr[-2000:]}"


def _on_ray(yard: Yard, workspace: Workspace) -> str | None:
    from hsae_dagster_tests.live.processes import processes, wait_for
    from hsae_dagster_tests.live.test_elsewhere import get

    port, dashboard = free_port(), free_port()
    # Ray's sockets need a short path.
    short = Path(tempfile.mkdtemp(prefix="ray"))
    try:
        with processes(yard.folder / "ray", RAY_USAGE_STATS_ENABLED="0") as running:
            head = ["--head", "--num-gpus=1", "--num-cpus=2", f"--port={port}", f"--temp-dir={short}"]
            board = [f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
            running.python("head", "-m", "ray.scripts.scripts", "start", "--block", *head, *board)
            address = f"http://127.0.0.1:{dashboard}"
            wait_for("Ray's head answers", lambda: get(f"{address}/api/version"))
            return _launch(yard, workspace, "ray", RAY_ADDRESS=address, RAY_USAGE_STATS_ENABLED="0")
    finally:
        shutil.rmtree(short, ignore_errors=True)
