"""A sample judged and a probe for the rest, in whole runs: fewer calls, corrected effects, plain words."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.observations import text_rows
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.stages.paid import estimate_costs
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import EFFECTS, Run, Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback, Raw, shown_concepts

SAMPLE = 150
OWN = [{"claim": "is about gardens"}]


class Distilled:
    """One dataset, run to the end with a sample judged."""

    def __init__(self, workspace: Workspace, server: Loopback) -> None:
        self.workspace = workspace
        self.declare(distil={"sample": SAMPLE})
        assert workspace.run("asked", upto="interpretations").success
        dataset = load_dataset(workspace.project.data, "asked")
        (self.told,) = [
            each for each in estimate_costs(workspace.project, dataset) if each.stage == "annotation_matrix"
        ]
        before = len(server.calls)
        self.run: Run = workspace.run("asked", "annotation_matrix", "evaluation_report")
        assert self.run.success, {step: self.run.sentence(step) for step in self.run.failures}
        self.calls = len(server.calls) - before
        matrix = workspace.current("asked", "annotation_matrix")
        self.table = read_frame(matrix.file("distilled.parquet"))
        self.cells = read_frame(matrix.file("annotations.parquet"))
        self.tests = read_frame(workspace.current("asked", "evaluation_report").file("hypotheses.parquet"))

    def declare(self, **annotation: Any) -> None:
        texts = None if (self.workspace.root / "data").exists() else tiny_texts(1500)
        fields = {**scripted.MODELS, "hypotheses": OWN}
        self.workspace.declare(
            "asked", texts, **{**fields, "annotation": {**scripted.MODELS["annotation"], **annotation}}
        )


@pytest.fixture(scope="module")
def distilled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distilled]:
    with mock.patch.dict("os.environ"), Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        yield Distilled(Workspace(tmp_path_factory.mktemp("distilled")), server)


def test_only_the_sample_is_asked_about_and_that_was_told(distilled: Distilled) -> None:
    texts = distilled.cells.height
    assert texts > 3 * SAMPLE
    assert distilled.calls == distilled.told.estimate.calls == SAMPLE
    assert f"the model judges {SAMPLE} of {texts} texts" in distilled.told.basis
    assert f"{SAMPLE / texts:.1%} of the calls" in distilled.told.basis
    said = distilled.run.metadata("annotation_matrix")
    assert said["texts judged by the model"] == f"{SAMPLE} of {texts}"
    assert said["estimated calls"] == said["paid calls"] == SAMPLE


def test_every_cell_is_filled_and_the_table_says_by_whom(distilled: Distilled) -> None:
    assert sum(distilled.cells.null_count().row(0)) == 0
    asked = distilled.table["probability"].is_not_null()
    assert asked.sum() == SAMPLE
    assert (1 / distilled.table["probability"].drop_nulls()).sum() == pytest.approx(distilled.cells.height)
    for key in distilled.cells.columns[1:]:
        by_probe = distilled.cells.filter(~asked)[key]
        assert by_probe.to_list() == distilled.table.filter(~asked)[key].to_list()


def test_effects_are_those_that_the_judge_would_find(distilled: Distilled) -> None:
    mean = float(np.mean(list(EFFECTS.values())))
    found = {row["claim"]: row for row in distilled.tests.iter_rows(named=True)}
    for topic in ("cooking", "sailing"):
        row = found[f"is about {topic}"]
        others = [effect for name, effect in EFFECTS.items() if name != topic]
        true = EFFECTS[topic] - float(np.mean(others))
        assert row["effect_low"] < true < row["effect_high"]
        assert row["decided_by"] == "distilled"
        assert row["probe_judged"] == SAMPLE
        assert row["badge"] == "confirmed, judge unchecked"
    assert mean == 0


def test_a_claim_that_the_sample_hardly_holds_is_not_tested(distilled: Distilled) -> None:
    (row,) = distilled.tests.filter(pl.col("claim") == OWN[0]["claim"]).iter_rows(named=True)
    assert row["badge"] == "invalid"


def test_the_page_says_plainly_who_judged(distilled: Distilled) -> None:
    page = (distilled.workspace.project.results / "reports" / "asked.html").read_text(encoding="utf-8")
    held_out = distilled.cells.height
    assert f"The language model judged {SAMPLE} of {held_out} held-out observations" in page
    assert "were judged by a probe on their vectors" in page
    assert "Judged by a probe" in page


def test_the_exported_table_tells_the_models_answers_from_the_probes(distilled: Distilled) -> None:
    report = distilled.workspace.current("asked", "evaluation_report")
    exported = read_frame(report.file("annotations.parquet"))
    assert exported["judged_by"].value_counts().sort("judged_by").rows() == [
        ("model", SAMPLE),
        ("probe", exported.height - SAMPLE),
    ]
    asked = set(distilled.table.filter(pl.col("probability").is_not_null())["text_id"])
    assert set(exported.filter(pl.col("judged_by") == "model")["text_id"]) == asked


def test_evidence_is_of_texts_that_the_model_judged(distilled: Distilled) -> None:
    evidence = distilled.workspace.current("asked", "evaluation_report").json("evidence.json")
    asked = set(distilled.table.filter(pl.col("probability").is_not_null())["text_id"])
    shown = {
        item["text_id"]
        for found in evidence.values()
        for items in found.values()
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict) and "text_id" in item
    }
    assert shown
    assert shown <= asked


def test_a_missing_answer_stays_missing(distilled: Distilled, tmp_path) -> None:
    """Neither guessed by the probe nor counted as no."""
    copied = distilled.workspace.copy_to(tmp_path)
    annotation = {**scripted.MODELS["annotation"], "distil": {"sample": SAMPLE}, "seed": 1, "max_missing": 0.2}
    copied.declare("asked", None, **{**scripted.MODELS, "hypotheses": OWN, "annotation": annotation})
    refused = Raw({"choices": [{"message": {"content": None, "refusal": "no"}, "finish_reason": "stop"}]})

    def chat(body: dict[str, Any], call: int) -> Any:
        # Of requests of this annotation every twentieth.
        return refused if shown_concepts(body) and call % 20 == 3 else scripted.chat(body, call)

    with mock.patch.dict("os.environ"), Loopback(chat, scripted.embed) as server:
        scripted.use(server)
        run = copied.run("asked", "annotation_matrix")
    assert run.success
    matrix = copied.current("asked", "annotation_matrix")
    cells, table = (read_frame(matrix.file(name)) for name in ("annotations.parquet", "distilled.parquet"))
    missing = cells.filter(pl.col(cells.columns[1]).is_null())["text_id"]
    assert len(missing) == SAMPLE // 20 or len(missing) == SAMPLE // 20 + 1
    places = text_rows(table["text_id"], missing)
    assert table["probability"].to_numpy()[places].min() > 0
    share = run.checks["annotation_matrix.few_missing"].metadata["missing share"].value
    assert share == pytest.approx(len(missing) / SAMPLE)
