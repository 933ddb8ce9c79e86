"""Covariates in a whole run: a topic whose effect turns round between two kinds of authors is found and shown so."""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import DatasetError
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
    assert "Where side = south" in page


def test_a_covariate_that_is_no_control_is_a_sentence(workspace: Workspace) -> None:
    workspace.declare("sides", None, selection={"n": 2, "within": ["side"]})
    with pytest.raises(DatasetError, match="add it to columns"):
        load_dataset(workspace.project.data, "sides")
