"""Batches: submitted once, collected by the sensor, partial answers kept, and the run goes on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from hsae_dagster.batch_answers import batch_answers
from hsae_dagster.providers.batches import BatchRegister
from hsae_dagster.providers.ledger import Ledger
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_texts
from hsae_dagster_tests.providers.batch_server import BatchServer
from hsae_dagster_tests.providers.loopback import KEY, failure

pytestmark = pytest.mark.usefixtures("environment")


@dataclass(frozen=True)
class Batched:
    workspace: Workspace
    server: BatchServer

    def run(self, *stages: str) -> Run:
        return self.workspace.run("asked", *(stages or ("annotation_matrix",)))

    def tick(self) -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(resources={"project": self.workspace.project})
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
    names = {key.to_user_string() for key in request.asset_selection or []}
    assert names >= {"annotation_matrix", "evaluation_report"}
    assert isinstance(batched.tick(), dg.SkipReason)
    run = batched.run("annotation_matrix", "evaluation_report")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    assert (batched.spent, len(server.batches), server.calls) == (texts, 1, [])
    assert run.metadata("annotation_matrix")["answers from the ledger"] == texts
    assert BatchRegister(batched.workspace.project.results).all() == []


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
