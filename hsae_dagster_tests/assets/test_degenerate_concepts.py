"""Concepts that nothing can be tested with: each keeps its place, says why, and spoils no other."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import polars as pl
import pytest

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import TOPICS, Run, Workspace, tiny_texts, topic_of
from hsae_dagster_tests.providers.loopback import Loopback, judge_by, shown_concepts, shown_texts

# What becomes of a concept on the holdout; everywhere else it follows its neuron's topic.
FATES = ("plain", "never", "always", "perfect", "first twin", "second twin")


@dataclass(frozen=True)
class Judged:
    """A dataset whose concepts met their fates, as a frame with the column `fate`."""

    run: Run
    hypotheses: pl.DataFrame
    page: str


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judged]:
    workspace = Workspace(tmp_path_factory.mktemp("degenerate"))
    texts = tiny_texts()
    scores = dict(texts.select("text", "score").iter_rows())
    frame = texts.with_columns((pl.col("score") > 0).cast(pl.Int8).alias("good"))
    workspace.declare(
        "fates",
        frame,
        **{
            **scripted.MODELS,
            "task": "classification",
            "columns": {"text": "text", "label": "good", "cluster_by": "author"},
            "saes": [{"m": 12, "k": 3, "max_epochs": 30, "batch_size": 32}],
            "selection": {"n": len(FATES), "method": "correlation"},
            "interpretation": {**scripted.MODELS["interpretation"], "candidates": 1},
        },
    )
    fates = itertools.cycle(FATES)
    holdout: set[str] = set()

    def meets(predicate: str, text: str) -> bool:
        topic, fate = predicate.removeprefix("is about ").split(", fate ")
        if text not in holdout or fate == "plain":
            return topic_of(text) == topic
        return {"never": False, "always": True, "perfect": scores[text] > 0}.get(fate, len(text) % 3 == 0)

    def chat(body: dict[str, Any], call: int) -> Any:
        if shown_concepts(body):
            return judge_by(meets)(body, call)
        shown = shown_texts(body)
        firing = Counter(topic_of(text) for text in shown[: len(shown) // 2])
        silent = Counter(topic_of(text) for text in shown[len(shown) // 2 :])
        topic = max(TOPICS, key=lambda name: firing[name] - silent[name])
        return {"concept": f"is about {topic}, fate {next(fates)}"}

    with mock.patch.dict("os.environ"), Loopback(chat, scripted.embed) as server:
        scripted.use(server)
        assert workspace.run("fates", upto="activations").success
        corpus = read_frame(workspace.current("fates", "corpus").file("texts.parquet"))
        holdout |= set(corpus.filter(pl.col("split") == "holdout")["text"])
        run = workspace.run("fates", "selected_neurons", "interpretations", "annotation_matrix", "evaluation_report")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    found = read_frame(workspace.current("fates", "evaluation_report").file("hypotheses.parquet"))
    page = workspace.project.results / "reports" / "fates.html"
    fate = pl.col("claim").str.split(", fate ").list.last().alias("fate")
    yield Judged(run, found.with_columns(fate), page.read_text(encoding="utf-8"))


def row(judged: Judged, fate: str) -> dict[str, Any]:
    (found,) = judged.hypotheses.filter(pl.col("fate") == fate).rows(named=True)
    return found


def test_every_concept_keeps_its_row(judged: Judged) -> None:
    assert sorted(judged.hypotheses["fate"]) == sorted(FATES)


@pytest.mark.parametrize("fate", ["never", "always"])
def test_a_concept_without_contrast_is_invalid_with_its_reason(judged: Judged, fate: str) -> None:
    found = row(judged, fate)
    assert found["badge"] == "invalid"
    assert found["effect_p_value"] != found["effect_p_value"]
    assert found["flags"]
    assert not judged.run.checks["evaluation_report.effects_estimable"].passed


def test_a_concept_that_predicts_perfectly_has_a_finite_effect(judged: Judged) -> None:
    found = row(judged, "perfect")
    assert found["effect_estimate"] == pytest.approx(1.0)
    assert found["effect_low"] <= found["effect_estimate"] <= found["effect_high"]
    assert found["effect_p_value"] < 1e-6


def test_twins_have_one_effect_and_are_named(judged: Judged) -> None:
    first, second = (row(judged, fate) for fate in ("first twin", "second twin"))
    assert first["effect_estimate"] == second["effect_estimate"]
    assert any("same" in flag for flag in first["flags"] + second["flags"])


def test_the_plain_concept_is_tested_as_if_it_were_alone(judged: Judged) -> None:
    found = row(judged, "plain")
    assert found["effect_p_value"] < 1
    assert found["badge"] != "invalid" or "direction" in found["reason"]


def test_no_nan_reaches_a_reader(judged: Judged) -> None:
    assert "nan" not in judged.page.lower().split("<main")[1].replace("finance", "")
