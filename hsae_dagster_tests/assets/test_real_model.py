"""The whole path of a language model with a real one: prompts, schema, HTTP, answers, ledger, stages, report."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hsae_dagster.providers.spending import Ledger
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback
from hsae_dagster_tests.providers.real_model import real_server, weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("environment")]

MODEL = "openai:smollm2"
CANDIDATES = 8
INTERPRETATION = {"candidates": CANDIDATES, "examples": 4, "bin": [50, 100], "scoring_texts": 20, "max_words": 30}
ANNOTATION = {
    "model": MODEL,
    "holdout_sample": 20,
    "max_words": 30,
    "calibration": 3,
    "min_agreement": 0,
    "max_missing": 0.99,
}
# So small a model loses itself in instructions and repeats whatever it is shown of an answer; it can summarise.
SHORT = """{% block system %}You are a helpful assistant.{% endblock %}
{% block user %}
Summarise these {{ positives | length }} of {{ positives | length + negatives | length }} texts
in one short sentence of your own.

{% for text in positives %}
<text>
{{ text }}
</text>
{% endfor %}
{% endblock %}"""
# It thinks nothing, so an answer that runs away ends soon.
TABLE = "models: {smollm2: {thinking_tokens: 0}, SmolLM2-135M-Instruct.Q4_1.gguf: {thinking_tokens: 0}}"


def use(address: str, folder: Path) -> None:
    (folder / "models.yaml").write_text(TABLE, encoding="utf-8")
    os.environ |= {"OPENAI_BASE_URL": address, "HSAE_CONCURRENCY": "2", "HSAE_MODELS": str(folder / "models.yaml")}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_server(tmp_path_factory.mktemp("model") / "server.log") as url:
        yield url


@pytest.mark.parametrize("place", ["over HTTP", "in this process"])
def test_three_hundred_texts_reach_the_report_with_a_real_model(
    workspace: Workspace, request: pytest.FixtureRequest, place: str
) -> None:
    """From files to the page. So small a model finds hardly a concept that tells texts apart: two are given."""
    model = f"local:{weights()}" if place == "in this process" else MODEL
    workspace.declare(
        "asked",
        tiny_texts(),
        selection={"n": 1},
        interpretation={**INTERPRETATION, "model": model, "prompt": "short.md", "temperature": 0.7},
        annotation={**ANNOTATION, "model": model},
        judge={"texts": 4, "min_accuracy": 0},
        hypotheses=[{"claim": "is about boats and the sea"}, {"claim": "is about cooking"}],
    )
    (workspace.root / "data" / "asked" / "short.md").write_text(SHORT, encoding="utf-8")
    use("" if place == "in this process" else request.getfixturevalue("address"), workspace.root)
    run = workspace.run("asked")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    (record,) = workspace.current("asked", "interpretations").json("concepts.json")
    # About half of its answers are no phrase, asked for twice; of several samples some give one.
    assert 1 <= len(record["candidates"]) <= CANDIDATES
    for candidate in record["candidates"]:
        assert candidate["author"] == (model if place == "over HTTP" else f"local:{weights().name}")
        assert len(candidate["predicate"].split()) >= 3
    said = {stage: run.metadata(stage) for stage in ("interpretations", "annotation_matrix")}
    for told in said.values():
        assert told["failed calls"] == 0
        assert told["tokens in"] > 100 * told["paid calls"]
        assert told["cost USD"] is None
    # Each sample of texts to write, each text once for all candidates of its neuron, and the examination.
    assert said["interpretations"]["paid calls"] >= CANDIDATES + 4 + 10
    matrix = read_frame(workspace.current("asked", "annotation_matrix").file("annotations.parquet"))
    assert matrix.height >= 20
    assert sum(matrix[key].count() for key in matrix.columns[1:]) >= 0.9 * matrix.height * (matrix.width - 1)
    assert (workspace.project.results / "reports" / "asked.html").is_file()
    assert {row["source"] for row in hypotheses(workspace)} >= {"yours"}
    records = run.instance.get_records_for_run(run.result.run_id).records
    assert any("the judge is examined" in each.event_log_entry.user_message for each in records)
    # Wherever it runs, the same file is the same server.
    spent = Ledger(workspace.project.results).spent("asked")
    assert spent.calls == spent.unpriced == sum(told["paid calls"] for told in said.values())


def hypotheses(workspace: Workspace) -> list[dict[str, Any]]:
    return read_frame(workspace.current("asked", "evaluation_report").file("hypotheses.parquet")).to_dicts()


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
