"""Batches: submitted once, collected by the sensor, partial answers kept, and the run goes on."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.assets.automation import _collect, batch_answers
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.sections import ServerFields
from hsae_dagster.providers.openai import batch as openai_batch_creation
from hsae_dagster.providers.openai.batch import BatchRegister
from hsae_dagster.providers.openai.requests import server_of
from hsae_dagster.providers.spending import Ledger
from hsae_dagster.stages.paid import ask_again
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_texts
from hsae_dagster_tests.providers.batch_server import BatchServer
from hsae_dagster_tests.providers.loopback import KEY, Raw, failure

pytestmark = pytest.mark.usefixtures("environment")
SCRIPT = """
import sys
from pathlib import Path
from hsae_dagster_tests.assets.workspace import Workspace
Workspace(Path(sys.argv[1])).run("asked", "annotation_matrix")
"""


@dataclass(frozen=True)
class Batched:
    workspace: Workspace
    server: BatchServer

    def run(self, *stages: str) -> Run:
        return self.workspace.run("asked", *(stages or ("annotation_matrix",)))

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        with dg.build_sensor_context(resources={"folders": self.workspace.project}) as context:
            found = batch_answers(context)
        assert isinstance(found, dg.SensorResult | dg.SkipReason)
        return found

    @property
    def spent(self) -> int:
        return Ledger(self.workspace.project.results).spent("asked").calls


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("interpreted"))
    workspace.declare("asked", tiny_texts(), interpretation={"candidates": 1, "bin": [50, 100]})
    assert workspace.run("asked", upto="interpretations").success
    return workspace


@pytest.fixture
def batched(interpreted: Workspace, tmp_path: Path) -> Iterator[Batched]:
    """Lexical concepts, to be judged by batch."""
    workspace = interpreted.copy_to(tmp_path)
    declare(workspace)
    with BatchServer(lambda body, call: dict.fromkeys(scripted.shown_concepts(body), bool(call % 2))) as server:
        scripted.use(server)
        yield Batched(workspace, server)


def declare(workspace: Workspace, **spending: object) -> None:
    workspace.declare(
        "asked",
        None,
        interpretation={"candidates": 1, "bin": [50, 100]},
        annotation={"model": "openai:judge", "calibration": 0},
        judge={"texts": 0},
        spending={"tier": "batch", **spending},
    )


def test_submit_wait_collect_and_go_on(batched: Batched) -> None:
    server = batched.server
    said = batched.run("annotation_matrix", "evaluation_report").sentence("annotation_matrix")
    assert said.startswith("Waiting, not failed: dataset `asked`, annotation_matrix: ")
    assert "batch0" in said
    assert KEY not in str(server.files)
    texts = len(server.requests("batch0"))
    assert len({line["custom_id"] for line in server.requests("batch0")}) == texts
    # Nobody is asked twice, however often one looks.
    assert "batch0" in batched.run().sentence("annotation_matrix")
    assert isinstance(batched.tick(), dg.SkipReason)
    assert len(server.batches) == 1
    server.end("batch0")
    found = batched.tick()
    assert isinstance(found, dg.SensorResult)
    (request,) = found.run_requests or []
    assert (request.partition_key, request.run_key) == ("asked", "batch0")
    names = {key.path[-1] for key in request.asset_selection or []}
    assert names >= {"annotation_matrix", "evaluation_report"}
    assert isinstance(batched.tick(), dg.SkipReason)
    run = batched.run("annotation_matrix", "evaluation_report")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert (batched.spent, len(server.batches), server.calls) == (texts, 1, [])
    assert run.metadata("annotation_matrix")["answers from the ledger"] == texts
    assert BatchRegister(batched.workspace.project.results).all() == []


def test_what_two_processes_collect_at_once_counts_once(batched: Batched) -> None:
    batched.run()
    project = batched.workspace.project
    register = BatchRegister(project.results)
    server = server_of(ServerFields(), "server", project.model_server.environment)
    (record,) = register.all()
    batched.server.end("batch0")
    assert [_collect(project, register, record, server) for _ in range(2)] == [True, True]
    assert batched.spent == len(batched.server.requests("batch0"))


def test_running_again_collects_without_the_sensor(batched: Batched) -> None:
    batched.run()
    batched.server.end("batch0")
    assert batched.run().success
    assert len(batched.server.batches) == 1


def test_an_expired_batch_keeps_its_answers_and_the_rest_is_submitted(batched: Batched) -> None:
    batched.run()
    server = batched.server
    texts = len(server.requests("batch0"))
    server.end("batch0", "expired", answered=30)
    assert "batch1" in batched.run().sentence("annotation_matrix")
    assert batched.spent == 30
    assert len(server.requests("batch1")) == texts - 30
    server.end("batch1")
    assert batched.run().success
    assert batched.spent == texts


def test_what_a_batch_could_not_answer_is_missing_once_and_asked_by_the_next_run(batched: Batched) -> None:
    declare(batched.workspace)
    batched.run()
    server = batched.server
    texts = len(server.requests("batch0"))
    server.end("batch0", broken=3)
    run = batched.run()
    assert run.success
    assert run.metadata("annotation_matrix")["failed calls"] == 3
    assert "batch1" in batched.run().sentence("annotation_matrix")
    assert len(server.requests("batch1")) == 3
    server.end("batch1")
    assert batched.run().success
    assert batched.spent == texts


def test_a_batch_is_not_submitted_past_the_budget(batched: Batched) -> None:
    declare(batched.workspace, budget_calls=5)
    said = batched.run().sentence("annotation_matrix")
    assert "spending.budget_calls of 5" in said
    assert batched.server.batches == {}


def test_a_server_without_batches_is_a_sentence(batched: Batched) -> None:
    batched.server.refuse_batches = True
    said = batched.run().sentence("annotation_matrix")
    assert "no batches here" in said
    assert "spending.tier" in said
    batched.server.receive = lambda method, path, data: failure(401, f"bad {KEY}")  # type: ignore[method-assign]
    said = batched.run().sentence("annotation_matrix")
    assert "OPENAI_API_KEY" in said
    assert KEY not in said


def test_no_batch_is_a_reason_to_skip(batched: Batched) -> None:
    found = batched.tick()
    assert isinstance(found, dg.SkipReason)
    assert "no batch is under way" in (found.skip_message or "")


def unheard(batched: Batched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same end of a run without a process: nothing comes back once the batch exists."""
    monkeypatch.setattr(openai_batch_creation, "PAUSES", ())
    batched.server.created = lambda batch: Raw(hang_up=True)
    assert "run again" in batched.run().sentence("annotation_matrix")
    batched.server.created = lambda batch: None


def killed_while_it_submits(batched: Batched) -> None:
    """A run in a process of its own, killed when its batch exists and before it can hear of it."""
    pids: list[int] = []

    def kill(batch: str) -> Raw:
        os.kill(pids[0], signal.SIGKILL)
        return Raw(hang_up=True)

    batched.server.created = kill
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(batched.workspace.root)])
    pids.append(process.pid)
    assert process.wait(120) == -signal.SIGKILL
    batched.server.created = lambda batch: None


def test_a_batch_whose_creator_was_killed_is_found_and_not_paid_twice(batched: Batched) -> None:
    killed_while_it_submits(batched)
    server, register = batched.server, BatchRegister(batched.workspace.project.results)
    (record,) = register.all()
    assert (record.batch_id, len(server.batches)) == (None, 1)
    # Others' batches, newer, on several pages.
    server.batches |= {
        f"other{n}": {**server.batches["batch0"], "id": f"other{n}", "input_file_id": "x"} for n in "abc"
    }
    server.page = 2
    said = batched.run().sentence("annotation_matrix")
    assert said.startswith("Waiting, not failed") and "batch0" in said
    assert [each.batch_id for each in register.all()] == ["batch0"]
    server.end("batch0")
    assert batched.run().success
    assert {name for name in server.batches if "other" not in name} == {"batch0"}
    assert batched.spent == len(server.requests("batch0"))


def test_the_sensor_finds_it_too_and_leaves_alone_what_it_cannot_find(
    batched: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard(batched, monkeypatch)
    server, register = batched.server, BatchRegister(batched.workspace.project.results)
    (record,) = register.all()
    # Another run may be about to create this one; only a run may conclude that it came to nothing.
    intended = replace(record, name="intended", input_file_id="file9")
    register.write(intended)
    server.end("batch0")
    assert isinstance(batched.tick(), dg.SkipReason)
    assert register.all() == [intended]
    assert batched.spent == len(server.requests("batch0"))


def test_a_run_that_ended_before_the_batch_existed_submits_it(
    batched: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard(batched, monkeypatch)
    server = batched.server
    del server.batches["batch0"]
    assert "batch0" in batched.run().sentence("annotation_matrix")
    assert len(BatchRegister(batched.workspace.project.results).all()) == 1


def test_a_server_that_lists_no_batches_is_not_asked_to_make_another(
    batched: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard(batched, monkeypatch)
    server, register = batched.server, BatchRegister(batched.workspace.project.results)
    server.lists_batches = False
    said = batched.run().sentence("annotation_matrix")
    assert len(register.all()) == 1
    assert "cannot be seen" in said and "file0" in said and "hsae ask-again asked --batches" in said
    assert len(server.batches) == 1
    project = batched.workspace.project
    assert ask_again(project, load_dataset(project.data, "asked")).batches == 0
    assert ask_again(project, load_dataset(project.data, "asked"), batches=True).batches == 1
    assert "batch1" in batched.run().sentence("annotation_matrix")


def test_a_lost_answer_to_the_creation_makes_no_second_batch(batched: Batched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_batch_creation, "PAUSES", (0.0,))
    batched.server.created = lambda batch: Raw(hang_up=True)
    assert "batch0" in batched.run().sentence("annotation_matrix")
    assert len(batched.server.batches) == 1


def test_a_creation_refused_for_the_moment_is_tried_again(batched: Batched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_batch_creation, "PAUSES", (0.0,))
    server = batched.server

    def first(batch: str) -> Raw | None:
        server.created = lambda batch: None
        del server.batches[batch]
        return failure(503, "a moment please")

    server.created = first
    assert "batch0" in batched.run().sentence("annotation_matrix")
    assert len(server.batches) == 1
