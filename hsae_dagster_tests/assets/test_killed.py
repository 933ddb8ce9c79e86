"""A run killed with no chance to tidy up: the next one repeats little and ends where it would have ended.

The runs are processes of their own, as a user's are; the server in this process counts what they ask.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback, Raw, embeddings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]

BATCH = 30
AT_ONCE = 3
SCRIPT = """
import sys
from pathlib import Path
from hsae_dagster_tests.assets.workspace import Workspace
run = Workspace(Path(sys.argv[1])).run("asked", upto=sys.argv[2])
sys.exit(0 if run.success else 1)
"""


def child(workspace: Workspace, upto: str) -> subprocess.Popen[bytes]:
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, "-c", SCRIPT, str(workspace.root), upto], **quiet)


def kill_when(process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, "the run ended before it was to be killed"
        assert time.monotonic() < deadline, "the run never came so far"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def finish(workspace: Workspace, upto: str) -> None:
    assert child(workspace, upto).wait() == 0


def same_tables(workspace: Workspace, other: Workspace) -> None:
    """Every result of `workspace` has the content that the other has."""
    known = other.manifests()
    for key, manifest in workspace.manifests().items():
        assert manifest["data_version"] == known[key]["data_version"], key


@pytest.fixture
def declared(workspace: Workspace) -> Workspace:
    embedding = {**scripted.MODELS["embedding"], "batch_size": BATCH}
    workspace.declare("asked", tiny_texts(), **{**scripted.MODELS, "embedding": embedding})
    return workspace


def test_killed_while_embedding(declared: Workspace, tmp_path: Path) -> None:
    calm = declared.copy_to(tmp_path / "calm")
    pause = threading.Event()

    def embed(body: dict[str, Any], call: int) -> Raw:
        if not pause.is_set():
            time.sleep(1.0)
        return embeddings(scripted.embed(body, call))

    os.environ["HSAE_CONCURRENCY"] = str(AT_ONCE)
    with Loopback(scripted.chat, embed) as server:
        scripted.use(server)
        killed = child(declared, "activations")
        # While the fifth batch is on its way, so that there is something to lose.
        kill_when(killed, lambda: len(server.calls) >= 5)
        pause.set()
        before = len(scripted.embedded_texts(server))
        finish(declared, "activations")
        sent = scripted.embedded_texts(server)
        finish(calm, "activations")
    assert before < 300
    assert set(sent) == set(tiny_texts()["text"])
    # What was under way, and what had come and waited to be written.
    assert len(sent) - 300 <= (2 * AT_ONCE - 1) * BATCH
    same_tables(declared, calm)
    told = declared.current("asked", "embeddings").json("embeddings.json")
    assert told == calm.current("asked", "embeddings").json("embeddings.json")


def test_killed_at_any_moment_leaves_nothing_that_the_next_run_trips_over(declared: Workspace, tmp_path: Path) -> None:
    calm = declared.copy_to(tmp_path / "calm")
    with Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        for stage in ("embeddings", "sae_checkpoints", "interpretations", "evaluation_report"):
            killed = child(declared, "evaluation_report")
            # Dies as soon as the stage begins to write its result, or at once where an earlier one got so far.
            objects = declared.project.results / "objects"
            kill_when(killed, lambda place=objects / stage: place.is_dir())
        finish(declared, "evaluation_report")
        finish(calm, "evaluation_report")
    same_tables(declared, calm)
