"""Work in a process of its own, so that its peak memory is its own: `in_child("module:function", ...)`.

Belongs here: starting such a process, what it needed at most, its answer. Does not belong here: any work.

Peak memory is what the kernel counted (VmHWM of /proc/self/status), from the moment the work starts; data and libraries
that were loaded before are its `base`. A function that runs in a child takes JSON and returns JSON.
"""

import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Measured:
    """One stretch of work.

    Attributes:
        seconds: wall time.
        base: bytes resident when it began.
        peak: most bytes resident since then.
    """

    seconds: float = 0.0
    base: int = 0
    peak: int = 0

    @property
    def grown(self) -> int:
        """Most bytes beyond those that were there before."""
        return self.peak - self.base


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure the block; what it holds is filled in when the block ends."""
    found = Measured()
    _forget_peak()
    found.base = resident("VmRSS")
    started = time.perf_counter()
    yield found
    found.seconds = time.perf_counter() - started
    found.peak = resident("VmHWM")


def resident(field: str) -> int:
    """Bytes of a field of /proc/self/status: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: peak memory can be measured on Linux only.")


def _forget_peak() -> None:
    """Let VmHWM start anew from what is resident now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def in_child(target: str, **arguments: Any) -> Any:
    """Call `module:function` of this package with keyword arguments in a new process and return its answer.

    Raises:
        RuntimeError: the process failed, with the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder) / "question.json", Path(folder) / "answer.json"
        question.write_text(json.dumps({"target": target, "arguments": arguments}, default=str), encoding="utf-8")
        command = [sys.executable, "-m", "benchmarks.speed.children", str(question), str(answer)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode or not answer.is_file():
            raise RuntimeError(f"{target} failed ({done.returncode}): {done.stderr.strip()[-3000:]}")
        return json.loads(answer.read_text(encoding="utf-8"))


def _plain(value: Any) -> Any:
    """What json cannot write: measured stretches, numpy's numbers and arrays, paths."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _main() -> None:
    question, answer = Path(sys.argv[1]), Path(sys.argv[2])
    asked = json.loads(question.read_text(encoding="utf-8"))
    module, name = asked["target"].split(":")
    found = getattr(importlib.import_module(f"benchmarks.speed.{module}"), name)(**asked["arguments"])
    answer.write_text(json.dumps(found, default=_plain), encoding="utf-8")


if __name__ == "__main__":
    _main()
