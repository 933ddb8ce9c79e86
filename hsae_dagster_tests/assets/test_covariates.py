"""Covariates in a whole run: a topic whose effect turns round between two kinds of authors is found and shown so."""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.cli.new import describe
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import DatasetError, MethodError
from hsae_dagster.report.content import SUBGROUP_SCHEMA
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts, topic_of


def test_a_reversal_is_shown_by_subgroup(workspace: Workspace) -> None:
    texts = tiny_texts(400, seed=3)
    rng = np.random.default_rng(4)
    side = np.where(rng.random(400) < 0.5, "north", "south")
    topic = np.array([topic_of(text) for text in texts["text"]])
    score = 2.0 * (topic == "cooking") * np.where(side == "north", 1, -1) + rng.normal(0, 0.4, 400)
    frame = texts.with_columns(pl.Series("score", score), pl.Series("side", side))
    columns = {"text": "text", "label": "score", "cluster_by": "author", "controls": ["side"]}
    workspace.declare("sides", frame, columns=columns, selection={"n": 2, "interactions": ["side"]})
    run = workspace.run("sides")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    page = (workspace.project.results / "reports" / "sides.html").read_text(encoding="utf-8")
    assert "Where side = north" in page
    assert "By subgroup" in page
    table = read_frame(workspace.current("sides", "evaluation_report").file("subgroups.parquet"))
    assert dict(table.schema) == SUBGROUP_SCHEMA
    claim = table.filter(pl.col("difference_p_holm") < 0.001)["hypothesis_id"][0]
    north, south = (table.filter(hypothesis_id=claim, level=level).row(0, named=True) for level in ("north", "south"))
    # The topic's effect is 2; a claim that lists some of its words has less of it.
    assert north["effect_low"] > 0.7
    assert south["effect_high"] < -0.7
    assert max(north["effect_p_holm"], south["effect_p_holm"]) < 0.01
    assert north["difference_estimate"] == pytest.approx(north["effect_estimate"] - south["effect_estimate"])
    assert north["n"] + south["n"] == table_of(workspace)[claim]["n"]
    assert table_of(workspace)[claim]["flag_names"].count("reversed between subgroups") == 1
    assert table_of(workspace)[claim]["badge"] != "confirmed", "over all texts the two halves cancel"


def table_of(workspace: Workspace) -> dict[str, dict[str, object]]:
    frame = read_frame(workspace.current("sides", "evaluation_report").file("hypotheses.parquet"))
    return {row["hypothesis_id"]: row for row in frame.iter_rows(named=True)}


def test_a_covariate_that_is_no_control_is_a_sentence(workspace: Workspace) -> None:
    workspace.declare("sides", None, selection={"n": 2, "within": ["side"]})
    with pytest.raises(DatasetError, match="add it to columns"):
        load_dataset(workspace.project.data, "sides")


def test_too_many_levels_are_refused_before_anything_is_computed(workspace: Workspace) -> None:
    frame = tiny_texts(400).with_columns(week=201501 + pl.int_range(400) % 40)
    columns = {"text": "text", "label": "score", "cluster_by": "author", "controls": ["week"]}
    workspace.declare("weeks", frame, columns=columns, selection={"n": 2, "interactions": ["week"]})
    with pytest.raises(MethodError, match=r"`week` has \d+ levels"):
        describe(load_dataset(workspace.project.data, "weeks"))
    run = workspace.run("weeks", upto="corpus")
    assert list(run.failures) == ["corpus"]
    assert "strata and subgroups need a category with at most 30" in run.sentence("corpus")
