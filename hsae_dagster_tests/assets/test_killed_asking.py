"""Runs killed at random moments while they ask a server: nothing received is paid twice, and the end is the same.

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

from hsae_dagster.providers.asking import FLUSH_SECONDS
from hsae_dagster.providers.ledger import Ledger
from hsae_dagster.providers.plan import canonical
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback, Raw, completion

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]

STAGES = ("interpretations", "annotation_matrix")
KILLS = 10
AT_ONCE = 8
SECONDS = 0.3
MOST_SECONDS_LOST = 2.0
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


def slowly(body: dict[str, Any], call: int) -> Raw:
    said = scripted.chat(body, call)
    raw = said if isinstance(said, Raw) else completion(canonical(said).decode())
    return Raw(raw.body, delay=SECONDS)


def kill_at_random(workspace: Workspace, server: Loopback, stage: str, rng: np.random.Generator) -> int | None:
    """Kill a run some time after its first request; how many requests it lost, or None if it had ended by then."""
    before, kept = len(server.calls), answers_kept(workspace)
    process = child(workspace, stage)
    deadline = time.monotonic() + 60
    while len(server.calls) == before:
        assert process.poll() is None, "the run ended before it asked anything"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(rng.uniform(0.0, 2.0 * FLUSH_SECONDS))
    if process.poll() is not None:
        return None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    return len(server.calls) - before - (answers_kept(workspace) - kept)


def answers_kept(workspace: Workspace) -> int:
    return Ledger(workspace.project.results).spent("asked").calls


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
    with Loopback(scripted.chat, scripted.embed) as calm, Loopback(slowly) as server:
        scripted.use(calm)
        assert workspace.run("asked", upto="selected_neurons").success
        undisturbed = workspace.copy_to(tmp_path / "calm")
        # The address is part of a request's key and of a concept's making, so both runs ask the same one.
        scripted.use(server)
        lost: dict[str, list[int]] = {stage: [] for stage in STAGES}
        for stage in STAGES:
            server.chat = slowly
            while len(lost[stage]) < KILLS:
                found = kill_at_random(workspace, server, stage, rng)
                assert found is not None, "the stage has too little to ask to be killed so often"
                lost[stage].append(found)
            server.chat = scripted.chat
            assert child(workspace, stage).wait() == 0
        disturbed = asked(server)
        for stage in STAGES:
            assert child(undisturbed, stage).wait() == 0
        needed = asked(server) - disturbed
    assert set(disturbed) == set(needed)
    assert set(needed.values()) == {1}
    # A kill costs what was under way and what was answered since the last flush began, and nothing else is paid twice.
    flush = MOST_SECONDS_LOST * AT_ONCE / SECONDS
    assert all(0 <= each <= AT_ONCE + flush for found in lost.values() for each in found), lost
    assert disturbed.total() - needed.total() == sum(map(sum, lost.values()))
    for stage in STAGES:
        assert result_files(workspace, stage) == result_files(undisturbed, stage), stage
        versions = {each.current("asked", stage).data_version for each in (workspace, undisturbed)}
        assert len(versions) == 1, stage
