"""Runs in processes of their own that can be killed, and what became of them.

Belongs here: starting a child with everything imported, waiting, killing, what it said. Does not belong here: what is
done to it meanwhile.
"""

import json
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

CEILING = 240.0
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["hsae_dagster_tests.torture.warm"])


@dataclass(frozen=True)
class Said:
    """How a run ended: its exit code, and the sentences of its failed steps (or a traceback, which is a defect)."""

    code: int | None
    success: bool
    sentences: Mapping[str, str]
    crash: str = ""

    @property
    def words(self) -> str:
        return " ".join(self.sentences.values()) + self.crash


class Child:
    """One process that does `work`, in an environment of its own, quiet but for what `work` returns."""

    def __init__(self, work: Callable[[], Any], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.answer = log.with_suffix(".json")
        self.answer.unlink(missing_ok=True)
        self.begun = log.with_suffix(".begun")
        self.begun.unlink(missing_ok=True)
        log.parent.mkdir(parents=True, exist_ok=True)
        # What a caller has set since the server of forks was started.
        ours = {name: value for name, value in os.environ.items() if name.startswith(("HSAE_", "OPENAI_", "DAGSTER_"))}
        target = partial(_do, work, str(log), ours | dict(environment or {}))
        self.process = _CONTEXT.Process(target=target, daemon=False)
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def wait_until_begun(self) -> None:
        end = time.monotonic() + CEILING
        while not self.begun.exists() and self.process.is_alive() and time.monotonic() < end:
            time.sleep(0.005)

    def kill(self, number: int = signal.SIGKILL) -> bool:
        """Send a signal; whether the process was there to get it and died of it."""
        if self.process.is_alive():
            os.kill(self.pid, number)
        self.process.join(CEILING)
        return self.process.exitcode == -number

    def end(self, ceiling: float = CEILING) -> Any:
        """What `work` returned.

        Raises:
            AssertionError: it never ended, or died, or raised.
        """
        self.process.join(ceiling)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"a child did not end within {ceiling:.0f} s")
        if not self.answer.exists():
            raise AssertionError(f"a child died (exit code {self.process.exitcode}) without a word")
        told = json.loads(self.answer.read_text(encoding="utf-8"))
        if "crash" in told:
            raise AssertionError(told["crash"])
        return told["value"]


def _do(work: Callable[[], Any], log: str, environment: Mapping[str, str]) -> None:
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(sink, 1)
    os.dup2(sink, 2)
    # Raised where a user's Ctrl-C raises it, whoever started the harness.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    Path(log).with_suffix(".begun").touch()
    try:
        told: dict[str, Any] = {"value": work()}
    except BaseException:  # noqa: BLE001 - told to the parent, whatever it is
        told = {"crash": traceback.format_exc()}
    aside = Path(log).with_suffix(".aside")
    aside.write_text(json.dumps(told), encoding="utf-8")
    aside.rename(Path(log).with_suffix(".json"))


def run_stages(root: str, dataset: str, stages: list[str]) -> dict[str, Any]:
    """In a child: materialize stages of a dataset (all of them if none is named); JSON-like account of it."""
    from hsae_dagster_tests.assets.workspace import Workspace

    run = Workspace(Path(root)).run(dataset, *stages)
    sentences, crash = {}, ""
    for step, event in run.failures.items():
        data = event.step_failure_data
        said = data.user_failure_data.description if data.user_failure_data else None
        if said:
            sentences[step] = said
        else:
            crash += f"{step}: {data.error.to_string() if data.error else 'no word'}"
    return {"success": run.success, "sentences": sentences, "crash": crash}


def start_run(root: Path, log: Path, dataset: str, *stages: str, **environment: str) -> Child:
    """Begin a run of some stages (default: all) in a child."""
    return Child(partial(run_stages, str(root), dataset, list(stages)), log, environment)


def finished_run(child: Child) -> Said:
    """Wait for a run and hear what it said; a crash of the process itself is part of that."""
    try:
        told = child.end()
    except AssertionError as error:
        return Said(child.process.exitcode, False, {}, str(error))
    return Said(child.process.exitcode, **told)
