"""Starting real processes for a test and being sure that none is left.

Belongs here: processes with their children, waiting for a condition, free ports, a Dagster home. Does not belong here:
what any of them is for.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import psutil

from hsae_dagster.orchestration.project import TEMPLATE

CHECKOUT = Path(__file__).parents[2]
# A busy machine is slow, not wrong; what is waited for is there in seconds on a quiet one.
CEILING = 240.0
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T], ceiling: float = CEILING, every: float = 0.25) -> T:
    """The first true value that `look` returns; fails with `what` after `ceiling` seconds."""
    end = time.monotonic() + ceiling
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {ceiling:.0f} s in vain for: {what}")
        time.sleep(every)


def listens(port: int) -> bool:
    """Whether somebody on this machine answers at a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port on this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Processes:
    """Processes of one test, in one folder of logs, with an environment of their own."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)
    # Children are remembered while they live: a killed parent tells nobody whose they were.
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    def start(self, name: str, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to `<name>.log`."""

        def heed_signals() -> None:
            # Started from a shell's background, it would inherit an ignored SIGINT, and Dagster then ignores SIGTERM.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._environment(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=heed_signals,
            )
        self.started.append(process)
        return process

    def python(self, name: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start this Python."""
        return self.start(name, sys.executable, *arguments, **environment)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def look(self) -> None:
        """Remember the children that there are now."""
        for process in self.started:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    self.seen[child.pid] = child

    def stop(self) -> None:
        """Ask every process to end, then make it; children included."""
        self.look()
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
        self.look()
        for child in self.seen.values():
            with suppress(psutil.Error):
                if child.is_running():
                    child.kill()
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=30)

    def _environment(self, more: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        ours = {"PATH": path, "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1", "VIRTUAL_ENV": sys.prefix}
        return {**os.environ, **ours, **self.environment, **more}


@contextmanager
def processes(folder: Path, **environment: str) -> Iterator[Processes]:
    """Processes that are all gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Processes(folder, environment)
    try:
        yield running
    finally:
        running.stop()


def make_home(folder: Path) -> Path:
    """A Dagster home with the settings that users get."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(TEMPLATE, folder / "dagster.yaml")
    return folder


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs (a zombie does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
