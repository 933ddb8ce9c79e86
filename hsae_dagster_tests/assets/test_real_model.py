"""The whole path of a language model with a real one: prompts, schema, HTTP, answers, ledger, stages, report."""

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.providers.ledger import Ledger
from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback
from hsae_dagster_tests.providers.real_model import real_server, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]

MODEL = "openai:smollm2"
CANDIDATES = 4
INTERPRETATION = {"candidates": CANDIDATES, "examples": 4, "bin": [50, 100], "scoring_texts": 20, "max_words": 30}
ANNOTATION = {
    "model": MODEL,
    "holdout_sample": 20,
    "max_words": 30,
    "calibration": 3,
    "min_agreement": 0,
    "max_missing": 0.99,
}
# It thinks nothing, so an answer that runs away ends soon.
TABLE = "models: {smollm2: {thinking_tokens: 0}}"


def use(address: str, folder: Path) -> None:
    (folder / "models.yaml").write_text(TABLE, encoding="utf-8")
    os.environ |= {"OPENAI_BASE_URL": address, "HSAE_CONCURRENCY": "2", "HSAE_MODELS": str(folder / "models.yaml")}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_server(tmp_path_factory.mktemp("model") / "server.log") as url:
        yield url


def test_a_real_model_writes_and_judges_concepts(workspace: Workspace, address: str) -> None:
    ledger = Ledger(workspace.project.results)
    sections = {
        "selection": {"n": 1},
        "interpretation": INTERPRETATION | {"model": MODEL},
        "annotation": ANNOTATION,
        "judge": {"texts": 0},
    }
    workspace.declare("asked", tiny_texts(), **sections)
    use(address, workspace.root)
    run = workspace.run("asked", upto="interpretations")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    said = run.metadata("interpretations")
    records = workspace.current("asked", "interpretations").json("concepts.json")
    written = [candidate for record in records for candidate in record["candidates"]]
    # So small a model now and then writes an essay, which is no concept; of several samples some give one.
    assert 1 <= len(written) <= CANDIDATES
    assert {candidate["author"] for candidate in written} == {MODEL}
    assert all(0 < len(candidate["predicate"]) <= 300 for candidate in written)
    # Each sample of texts once to write, and each text once for all candidates of its neuron to score.
    assert said["failed calls"] == 0
    assert said["paid calls"] >= CANDIDATES + 10
    assert said["tokens in"] > 100 * said["paid calls"]
    assert said["tokens out"] >= 5 * said["paid calls"]
    assert said["cost USD"] is None
    assert ledger.spent("asked").unpriced == said["paid calls"]


def test_a_real_model_judges_the_holdout_and_is_asked_once(workspace: Workspace, address: str) -> None:
    # Concepts worth judging, from the scripted model; the small one would find none that tells texts apart.
    interpretation = scripted.MODELS["interpretation"]
    workspace.declare(
        "asked",
        tiny_texts(),
        interpretation=interpretation,
        annotation=scripted.MODELS["annotation"],
        judge={"texts": 0},
    )
    with Loopback(scripted.chat) as server:
        scripted.use(server)
        assert workspace.run("asked", upto="interpretations").success
    workspace.declare("asked", None, interpretation=interpretation, annotation=ANNOTATION, judge={"texts": 0})
    use(address, workspace.root)
    run = workspace.run("asked", "annotation_matrix", "evaluation_report")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    said, stored = run.metadata("annotation_matrix"), workspace.current("asked", "annotation_matrix")
    matrix, missing = (read_frame(stored.file(f"{name}.parquet")) for name in ("annotations", "missing"))
    concepts = matrix.columns[1:]
    assert matrix.height >= 20
    assert all(matrix[key].dtype == pl.Boolean for key in concepts)
    answered = sum(matrix[key].count() for key in concepts)
    # A schema that the server enforces leaves nothing unreadable.
    assert answered + missing.height == matrix.height * len(concepts)
    assert answered >= 0.9 * matrix.height * len(concepts)
    assert said["paid calls"] == matrix.height + 3
    assert run.checks["annotation_matrix.stacked_agrees_with_single"].metadata["compared"].value == 3
    assert Path(workspace.project.results / "reports" / "asked.html").is_file()
    first, bytes_of = stored.data_version, (stored.folder / "annotations.parquet").read_bytes()
    for path in sorted(stored.folder.iterdir()):
        path.unlink()
    again = workspace.run("asked", "annotation_matrix")
    assert again.success
    assert again.metadata("annotation_matrix")["paid calls"] == 0
    assert again.metadata("annotation_matrix")["answers from the ledger"] == matrix.height + 3
    remade = workspace.current("asked", "annotation_matrix")
    assert (remade.data_version, (remade.folder / "annotations.parquet").read_bytes()) == (first, bytes_of)


def test_a_model_file_runs_in_this_process(workspace: Workspace) -> None:
    """The same model without a server of its own: 300 texts from files to the holdout's judgements."""
    interpretation = {**INTERPRETATION, "model": f"local:{weights()}"}
    annotation = {**ANNOTATION, "model": f"local:{weights()}"}
    workspace.declare(
        "asked",
        tiny_texts(),
        selection={"n": 1},
        interpretation=interpretation,
        annotation=annotation,
        judge={"texts": 4, "min_accuracy": 0},
    )
    run = workspace.run("asked", upto="interpretations")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    record = workspace.current("asked", "interpretations").json("concepts.json")[0]
    assert all(candidate["author"] == f"local:{weights().name}" for candidate in record["candidates"])
    said = run.metadata("interpretations")
    assert said["paid calls"] >= CANDIDATES + 4
    assert said["failed calls"] == 0
    # The examination was held, and its figures are in the log.
    records = run.instance.get_records_for_run(run.result.run_id).records
    assert any("the judge is examined" in each.event_log_entry.user_message for each in records)
    # Wherever it runs, the same file is the same server.
    assert Ledger(workspace.project.results).spent("asked").calls == said["paid calls"]
