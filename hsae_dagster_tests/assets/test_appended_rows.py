"""Rows appended to a dataset wait, and are then tested on their own; what they cost is what is new."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hsae_dagster.cli.new import describe
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.providers.loopback import Loopback

pytestmark = pytest.mark.usefixtures("environment")

ROWS, FEW, MANY = 300, 15, 150


def held_out(workspace: Workspace) -> set[str]:
    texts = read_frame(workspace.current("growing", "corpus").file("texts.parquet"))
    return set(texts.filter(texts["split"] == "holdout")["text"])


def told(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = workspace.current("growing", "evaluation_report").json("evaluation.json")
    return found


def test_with_all_of_alpha_in_the_first_report_a_refresh_is_told_that_none_is_left(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = tiny_texts(ROWS + MANY)
    newcomers = rows.tail(MANY).with_columns(author="newcomer " + pl.col("author"))
    inference = {"min_positives": 5, "bootstrap": 20, "folds": 3, "negative_controls": 0, "first_report": 1.0}
    workspace.declare("growing", rows.head(ROWS), inference=inference)
    first = workspace.run("growing")
    assert first.success, {step: first.sentence(step) for step in first.failures}
    assert told(workspace)["alpha"] == 0.05
    workspace.declare("growing", pl.concat([rows.head(ROWS), newcomers]), inference=inference)
    again = workspace.run("growing", "corpus", instance=first.instance)
    said = again.metadata("corpus")["new rows"]
    assert f"{MANY} new rows wait" in said
    assert "earlier reports have spent all of alpha (0.05)" in said
    assert "Make a dataset of its own" in said
    assert said in describe(load_dataset(workspace.project.data, "growing"), workspace.project.results)
    # What was spent stays spent, whatever is declared afterwards.
    workspace.declare("growing", None, inference=inference | {"first_report": 0.8})
    later = workspace.run("growing", "corpus", instance=first.instance)
    assert "have spent all of alpha" in later.metadata("corpus")["new rows"]


def test_appended_rows_wait_and_are_tested_once_on_a_fresh_reserve_that_costs_what_is_new(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    rows = tiny_texts(ROWS + FEW + MANY)
    newcomers = rows.tail(MANY).with_columns(author="newcomer " + pl.col("author"))
    grown = pl.concat([rows.head(ROWS + FEW), newcomers])
    with Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        workspace.declare("growing", rows.head(ROWS), **scripted.MODELS)
        first = workspace.run("growing")
        assert first.success, {step: first.sentence(step) for step in first.failures}
        assert (told(workspace)["round"], told(workspace)["alpha"]) == (1, 0.04)
        before, versions = held_out(workspace), workspace.project.store.versions("growing")
        asked, embedded = len(server.calls), len(scripted.embedded_texts(server))

        # A few rows of known authors: nothing is asked, nothing is tested, nothing changes but what is said.
        workspace.declare("growing", rows.head(ROWS + FEW), **scripted.MODELS)
        again = workspace.run("growing", instance=first.instance)
        assert again.success
        assert f"{FEW} new rows wait" in again.metadata("corpus")["new rows"]
        assert workspace.project.store.versions("growing") == versions
        assert len(server.calls) == asked
        assert (told(workspace)["look"], told(workspace)["family"]) == (1, told(workspace)["tested"])

        # As many of new authors as the first holdout had, and its clusters fewer than theirs.
        workspace.declare("growing", grown, **scripted.MODELS)
        later = workspace.run("growing", instance=first.instance)
        assert later.success, {step: later.sentence(step) for step in later.failures}
        assert later.metadata("corpus")["new rows"] == "none wait"
        assert held_out(workspace) == set(newcomers["text"])
        assert later.metadata("embeddings")["new"] == FEW + MANY
        assert sorted(scripted.embedded_texts(server)[embedded:]) == sorted(grown["text"].tail(FEW + MANY))
        assert later.metadata("annotation_matrix")["paid calls"] == MANY
    corpus = read_frame(workspace.current("growing", "corpus").file("texts.parquet"))
    assert before <= set(corpus.filter(pl.col("split") == "train")["text"])
    # A look at texts never used before, with a level of its own and no test of an earlier report in its family.
    assert (told(workspace)["round"], told(workspace)["look"], told(workspace)["alpha"]) == (2, 1, 0.006)
    assert told(workspace)["family"] == told(workspace)["tested"]
    page = (workspace.project.results / "reports" / "growing.html").read_text(encoding="utf-8")
    assert "This is the first refresh" in page
    assert "may err in 0.6 % of cases, and all reports on this dataset together in 5 %" in page

    # The files as they were are the first corpus again, and the same rows again are the second.
    workspace.declare("growing", rows.head(ROWS), **scripted.MODELS)
    assert workspace.run("growing", "corpus").success
    assert workspace.project.store.versions("growing")["corpus"] == versions["corpus"]
    workspace.declare("growing", grown, **scripted.MODELS)
    back = workspace.run("growing", "corpus")
    assert back.success
    assert back.metadata("corpus")["reused"]
    assert held_out(workspace) == set(newcomers["text"])
