"""Runs killed at random moments while they ask a server: only what was under way is asked again.

Each run is a process of its own, as a user's is, and gets no chance to tidy up; the server in this process counts.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hsae_dagster.providers.openai.requests import canonical
from hsae_dagster.providers.spending import Ledger
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback, Raw, completion

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]

STAGES = ("interpretations", "annotation_matrix")
KILLS = 10
AT_ONCE = 8
SECONDS = 0.3
# An answer that left the server so shortly before the kill may not have reached the run.
ON_ITS_WAY = 0.2
SCRIPT = """
import sys
from pathlib import Path
from hsae_dagster_tests.assets.workspace import Workspace
run = Workspace(Path(sys.argv[1])).run("asked", sys.argv[2])
sys.exit(3 if "torch" in sys.modules else 0 if run.success else 1)
"""
# These name the run or count what it paid.
OWN = {"manifest.json", "_spending.json"}


def child(workspace: Workspace, stage: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(workspace.root), stage], **quiet)


class Watch:
    """Answers as a slow model does, and knows which requests were answered, and when."""

    def __init__(self) -> None:
        self.asked: set[bytes] = set()
        self.answered: dict[bytes, float] = {}

    def __call__(self, body: dict[str, Any], call: int) -> Raw:
        key = canonical(body)
        self.asked.add(key)
        self.answered.pop(key, None)
        said = scripted.chat(body, call)
        raw = said if isinstance(said, Raw) else completion(canonical(said).decode())
        time.sleep(SECONDS)
        self.answered[key] = time.monotonic()
        return raw


def kill_at_random(
    workspace: Workspace, server: Loopback, watch: Watch, stage: str, rng: np.random.Generator
) -> dict[bytes, float]:
    """Kill a run some time after its first request; seconds before that at which each request had been answered."""
    before = len(server.calls)
    process = child(workspace, stage)
    deadline = time.monotonic() + 60
    while len(server.calls) == before:
        assert process.poll() is None, "the run ended before it asked anything"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 2.0))
    assert process.poll() is None, "the stage has too little to ask to be killed so often"
    os.kill(process.pid, signal.SIGKILL)
    killed, answered = time.monotonic(), dict(watch.answered)
    assert process.wait() == -signal.SIGKILL
    # What it had sent is answered to nobody.
    time.sleep(2 * SECONDS)
    watch.answered = dict(answered)
    return {key: killed - at for key, at in answered.items()}


def asked(server: Loopback) -> Counter[bytes]:
    return Counter(canonical(body) for body in server.bodies() if "messages" in body)


def result_files(workspace: Workspace, stage: str) -> dict[str, bytes]:
    folder = workspace.current("asked", stage).folder
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name not in OWN}


def test_twenty_kills_cost_what_was_under_way_and_change_nothing(workspace: Workspace, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    annotation = {**scripted.MODELS["annotation"], "concepts_per_call": 1}
    workspace.declare("asked", tiny_texts(), **{**scripted.MODELS, "annotation": annotation})
    os.environ["HSAE_CONCURRENCY"] = str(AT_ONCE)
    watch = Watch()
    with Loopback(scripted.chat, scripted.embed) as calm, Loopback(watch, scripted.embed) as server:
        scripted.use(calm)
        assert workspace.run("asked", upto="selected_neurons").success
        undisturbed = workspace.copy_to(tmp_path / "calm")
        # The address is part of a request's key and of a concept's making, so both runs ask the same one.
        scripted.use(server)
        again: list[int] = []
        older: list[float] = []
        for stage in STAGES:
            before: dict[bytes, float] = {}
            for number in range(KILLS + 1):
                begin, ever = len(server.calls), set(watch.asked)
                answered = before
                if number < KILLS:
                    before = kill_at_random(workspace, server, watch, stage, rng)
                else:
                    assert child(workspace, stage).wait() == 0
                repeated = [key for key in map(canonical, server.bodies()[begin:]) if key in ever]
                again.append(len(repeated))
                older += [answered[key] for key in repeated if key in answered]
        disturbed = asked(server)
        spent = Ledger(workspace.project.results).spent("asked")
        for stage in STAGES:
            assert child(undisturbed, stage).wait() == 0
        needed = asked(server) - disturbed
    kills = len(STAGES) * KILLS
    sys.stderr.write(f"{kills} kills, asked again {again}: {sum(again)} of {disturbed.total()} requests\n")
    assert set(disturbed) == set(needed)
    assert set(needed.values()) == {1}
    # A kill costs at most what was under way, and nothing that had been answered before.
    assert max(again) <= AT_ONCE, again
    assert max(older, default=0.0) <= ON_ITS_WAY, sorted(older)[-5:]
    # Whatever reached the server is in the count against a budget, and little that did not.
    total = disturbed.total() + sum("input" in body for body in server.bodies())
    assert total <= spent.calls <= total + kills
    for stage in STAGES:
        assert result_files(workspace, stage) == result_files(undisturbed, stage), stage
        versions = {each.current("asked", stage).data_version for each in (workspace, undisturbed)}
        assert len(versions) == 1, stage
