"""A stranger's machine: a path with spaces and letters that are not ASCII, a read-only package, Ctrl-C."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.live.processes import CHECKOUT
from hsae_dagster_tests.torture.machine import give_up_powers
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import Yard, differences

WHERE = "Größe & 数 a space"
# A command ended by Ctrl-C says so in a word; a traceback is not that.
CEILING = 300


def newcomer(yard: Yard) -> list[Tally]:
    """The command `hsae run` of a package that lies in such a folder, interrupted and not."""
    package = yard.folder / WHERE / "hsae"
    shutil.copytree(CHECKOUT / "hsae_dagster", package / "hsae_dagster", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".env.example"):
        shutil.copy(CHECKOUT / name, package)
    calm, hurt = (Workspace(yard.folder / WHERE / name) for name in ("calm", "hurt"))
    for workspace in (calm, hurt):
        workspace.declare("asked", tiny_texts(160))
        shutil.copy(CHECKOUT / ".env.example", workspace.root)
    for path in [*(package / "hsae_dagster").rglob("*"), package / "hsae_dagster"]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = list(package.rglob("*"))
    odd = Tally("hsae run in a folder with spaces and other letters")
    done = _hsae(package, calm).communicate(timeout=CEILING)[0].decode()
    odd.expect("hypotheses" in done and "Traceback" not in done, done[-1500:])
    written = sorted({*package.rglob("*")} - {*before})
    odd.expect(not written, f"written into the package: {written[:3]}")
    return [odd, _interrupted(yard, package, hurt, calm)]


def _interrupted(yard: Yard, package: Path, hurt: Workspace, calm: Workspace) -> Tally:
    tally = Tally("Ctrl-C at any time, then the same command")
    for _ in range(yard.some(12, 1)):
        process = _hsae(package, hurt)
        time.sleep(float(yard.rng.uniform(0.5, 14.0)))
        runs, pressed = process.poll() is None, time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=CEILING)[0].decode()
        tally.tries += 1
        if runs and process.returncode == 0 and time.monotonic() - pressed > 3:
            tally.wrong.append("it went on as if nobody had pressed Ctrl-C")
        told = re.search("Traceback|panicked", said)
        if told:
            tally.wrong.append(f"a traceback: {said[max(0, told.start() - 200) :][:1500]}")
    done = _hsae(package, hurt)
    said = done.communicate(timeout=CEILING)[0].decode()
    if done.returncode:
        tally.lost.append(f"the command after them failed: {said[-1500:]}")
    tally.wrong += differences(hurt, calm)
    return tally


def _hsae(package: Path, workspace: Workspace) -> "subprocess.Popen[bytes]":
    environment = {
        "PYTHONPATH": str(package),
        "HSAE_HOME": str(workspace.root),
        "DAGSTER_HOME": str(workspace.root / "home"),
        "HSAE_DATA_DIR": workspace.project.data_dir,
        "HSAE_RESULTS_DIR": workspace.project.results_dir,
    }
    return subprocess.Popen(
        [sys.executable, "-m", "hsae_dagster", "run", "asked"],
        cwd=workspace.root,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_as_a_user,
    )


def _as_a_user() -> None:
    """Ctrl-C works, and what may not be written cannot be, bytecode beside the package included."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    give_up_powers()
