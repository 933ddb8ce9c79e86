"""Rows appended to a dataset wait, and are then tested on their own; what they cost is what is new."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hsae_dagster.cli.new import describe
from hsae_dagster.core.corpus import Corpus
from hsae_dagster.core.inference.plan import AnalysisPlan, Look, PlannedTest, holdout_fingerprint, holdout_keys
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.stages.holdout import Admitted, admit, kept, level_of, record_of
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.holdouts import HoldoutRegister
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


class Growing:
    """A dataset whose corpora are made and recorded without a run, and looks at their holdouts."""

    def __init__(self, root: Path) -> None:
        self.workspace = Workspace(root)
        self.results = self.workspace.project.results

    def grow(self, rows: pl.DataFrame, **changes: Any) -> tuple[Admitted, Corpus]:
        self.workspace.declare("growing", rows, **changes)
        self.dataset = load_dataset(self.workspace.project.data, "growing")
        found = admit(self.results, self.dataset, read_rows(self.dataset))
        self.corpus = found.corpus(self.dataset)
        holdout = kept(self.corpus.round, self.corpus.observations, self.corpus.texts)
        record_of(self.results, self.dataset).keep(self.corpus.cuts, found.rounds, holdout, {})
        return found, self.corpus

    def look(self) -> Look:
        round_ = self.corpus.round
        held = self.corpus.observations.filter(pl.col("split") == "holdout")
        keys = holdout_keys(held, self.corpus.texts.select("text_id", "text"))
        gates = {"alpha": 0.05, "round": round_, "level": level_of(self.results, self.dataset, round_)}
        plan = AnalysisPlan(holdout_fingerprint(keys), (PlannedTest("a", "a", "found", 1),), {}, {}, gates)
        HoldoutRegister(self.results).freeze(plan, keys)
        return HoldoutRegister(self.results).look(plan, dataset="growing", judged_under=None)


def test_rows_join_until_a_report_has_looked_and_wait_from_then_on(tmp_path: Path) -> None:
    growing, rows = Growing(tmp_path), tiny_texts(ROWS + FEW + MANY)
    growing.grow(rows.head(ROWS))
    found, corpus = growing.grow(rows.head(ROWS + 10))
    assert (found.waiting, corpus.round, corpus.observations.height) == (0, 1, ROWS + 10)
    assert growing.look().number == 1
    found, corpus = growing.grow(rows.head(ROWS + FEW))
    assert (found.waiting, corpus.round, corpus.observations.height) == (FEW - 10, 1, ROWS + 10)
    assert "When 106 of them, of 23 clusters, share nothing with earlier rows" in found.said
    # Enough by one's own number; of those that wait, the ones of known authors are learned from.
    newcomers = rows.tail(40).with_columns(author="newcomer " + pl.col("author"))
    grown = pl.concat([rows.head(ROWS + FEW), newcomers])
    splits = {"holdout": 0.35, "validation": 0.2, "fidelity": 0.15}
    assert growing.grow(grown, splits=splits)[0].waiting == FEW - 10 + 40
    found, corpus = growing.grow(grown, splits=splits | {"reserve": 40})
    assert (found.waiting, corpus.round) == (0, 2)
    held = corpus.observations.filter(pl.col("split") == "holdout")
    assert set(corpus.texts.filter(pl.col("text_id").is_in(held["text_id"].to_list()))["text"]) == set(
        newcomers["text"]
    )
    look = growing.look()
    assert (look.number, look.earlier) == (1, {})
    # Corrected labels of the second round's files make no third one, but a further look at the same texts.
    growing.grow(grown.with_columns(pl.col("score") + 0.5), splits=splits | {"reserve": 40})
    assert (growing.corpus.round, growing.look().number) == (2, 2)


def test_texts_that_were_edited_are_no_new_rows_but_a_further_look(tmp_path: Path) -> None:
    growing, rows = Growing(tmp_path), tiny_texts(ROWS)
    growing.grow(rows)
    assert growing.look().number == 1
    found, corpus = growing.grow(rows.with_columns(pl.col("text").str.replace("the", "that")))
    assert (found.waiting, corpus.round) == (0, 1)
    assert growing.look().number == 2


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
    assert said in describe(load_dataset(workspace.project.data, "growing"), results=workspace.project.results)
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
    page = page.replace("\N{NO-BREAK SPACE}", " ")
    assert "This is the first refresh" in page
    assert "family-wise error is 0.6 %, that of all reports on this dataset together 5 %" in page

    # The files as they were are the first corpus again, and the same rows again are the second.
    workspace.declare("growing", rows.head(ROWS), **scripted.MODELS)
    assert workspace.run("growing", "corpus").success
    assert workspace.project.store.versions("growing")["corpus"] == versions["corpus"]
    workspace.declare("growing", grown, **scripted.MODELS)
    back = workspace.run("growing", "corpus")
    assert back.success
    assert back.metadata("corpus")["reused"]
    assert held_out(workspace) == set(newcomers["text"])
