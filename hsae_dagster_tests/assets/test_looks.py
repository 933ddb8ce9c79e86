"""The sealed holdout in whole runs: the plan precedes the judging, every look counts and is shown."""

import polars as pl
import pytest

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import NAMES, Workspace
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.providers.loopback import Loopback


def summary(workspace: Workspace, dataset: str) -> dict:
    return workspace.current(dataset, "evaluation_report").json("evaluation.json")


def page(workspace: Workspace, dataset: str) -> str:
    return (workspace.project.results / "reports" / f"{dataset}.html").read_text(encoding="utf-8")


def test_the_plan_is_written_before_the_judging_and_recorded_by_both_stages(finished: Finished) -> None:
    for dataset in ("ratings", "parties", "duels"):
        matrix = finished.workspace.current(dataset, "annotation_matrix")
        frozen, told = matrix.json("_plan.json"), summary(finished.workspace, dataset)
        assert told["plan"] == frozen["fingerprint"]
        assert finished.runs[dataset].metadata("annotation_matrix")["analysis plan"] == frozen["fingerprint"]
        with finished.workspace.store.records.reading() as records:
            plan = records.need("plan", frozen["holdout"], frozen["fingerprint"]).body
        assert plan["frozen"][:19] <= matrix.created[:19]
        frame = read_frame(finished.workspace.current(dataset, "evaluation_report").file("hypotheses.parquet"))
        standing_for = set(frame["concept_id"]) | {key for row in frame["duplicates"] for key in row}
        assert {test["concept_id"] for test in plan["tests"]} == standing_for
        # The parties are the ratings cut in two: another coding of one outcome of the same texts.
        own = int(frame["effect_p_value"].is_not_nan().sum())
        ratings = summary(finished.workspace, "ratings")["tested"]
        assert (told["look"], told["family"]) == ((2, own + ratings) if dataset == "parties" else (1, own))
        look = "second" if dataset == "parties" else "first"
        assert f"{look} look at these held-out texts" in page(finished.workspace, dataset)
        assert "written down before any held-out text was judged" in page(finished.workspace, dataset)


def test_other_hypotheses_on_the_same_holdout_are_a_second_look_and_the_first_stays_the_first(
    copied: Workspace,
) -> None:
    first = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    # Another autoencoder may well find the same claims, which are the same tests.
    own = {"claim": "is about the sky", "terms": ["planet", "telescope", "galaxy"]}
    copied.declare("ratings", None, selection={"n": 1}, hypotheses=[own])
    run = copied.run("ratings")
    assert run.success
    told = summary(copied, "ratings")
    second = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    tested = {row["test_key"] for frame in (first, second) for row in frame.iter_rows(named=True)}
    # The parties, the same texts with the outcome cut in two, were the second.
    assert told["look"] == 3
    assert told["family"] == len(tested) + summary(copied, "parties")["tested"] > second.height
    assert "third look at these held-out texts" in page(copied, "ratings")
    assert all(
        "the third; the correction counts" in card["card"].replace("\\", "")
        for card in run.cards.values()
        if "card" in card
    )
    copied.declare("ratings", None)
    assert copied.run("ratings").success
    assert summary(copied, "ratings")["look"] == 1


def test_gates_changed_after_judging_are_a_look_whose_plan_was_not_frozen_before(copied: Workspace) -> None:
    inference = {"min_positives": 5, "bootstrap": 20, "folds": 3, "same_concept": 1.1, "alpha": 0.2}
    copied.declare("ratings", None, inference=inference)
    run = copied.run("ratings", *NAMES[NAMES.index("annotation_matrix") :])
    assert run.success
    assert run.metadata("annotation_matrix")["reused"]
    told = summary(copied, "ratings")
    # The same tests under another alpha: a further look, but no more tests than before.
    assert (told["look"], told["family"]) == (3, told["tested"] + summary(copied, "parties")["tested"])
    assert "was changed after held-out texts had been judged" in page(copied, "ratings")


def test_declared_controls_decide_and_make_tests_of_their_own(copied: Workspace) -> None:
    first = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    texts = copied.project.data / "ratings" / "texts.parquet"
    with_year = pl.read_parquet(texts).with_columns(year=pl.int_range(pl.len()) % 7)
    columns = {"text": "text", "label": "score", "cluster_by": "author", "controls": ["year"]}
    copied.declare("ratings", with_year, columns=columns)
    run = copied.run("ratings")
    assert run.success
    told = summary(copied, "ratings")
    second = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    assert not set(first["test_key"]) & set(second["test_key"])
    assert told["look"] == 3
    assert told["family"] == told["tested"] + first.height + summary(copied, "parties")["tested"]
    assert second["effect_estimate"].to_list() == second["adjusted_estimate"].to_list()
    assert second["plain_estimate"].to_list() != second["effect_estimate"].to_list()
    assert set(second["decided_by"]) == {"controls"}
    rows = copied.current("ratings", "evaluation_report").json("_table.json")
    assert all("[" in row["without controls"] for row in rows)


def test_every_report_shows_negative_controls_and_how_stable_its_neurons_are(finished: Finished) -> None:
    for dataset in ("ratings", "parties", "duels"):
        told = {control["name"]: control for control in summary(finished.workspace, dataset)["negative_controls"]}
        assert set(told) == {"permuted labels", "permuted labels, own concepts", "random neurons"}
        assert told["permuted labels"]["runs"] == 5
        assert told["permuted labels"]["runs_with_any"] <= 2
        neurons = read_frame(finished.workspace.current(dataset, "selected_neurons").file("neurons.parquet"))
        assert neurons["selection_frequency"].is_between(0, 1).all()
        assert neurons["selection_frequency"].max() > 0.9
        shown = page(finished.workspace, dataset)
        for words in ("Negative controls", "random halves of the training clusters", "Power of the test"):
            assert words in shown


@pytest.mark.usefixtures("environment")
def test_near_duplicates_are_one_hypothesis_that_lists_them(copied: Workspace) -> None:
    """Offline no two claims are alike; a language model has its own words for each neuron, even of one topic."""
    models = {name: scripted.MODELS[name] for name in ("interpretation", "annotation", "judge")}
    inference = {"min_positives": 5, "bootstrap": 20, "folds": 3}
    with Loopback(scripted.candidly) as server:
        scripted.use(server)
        copied.declare("ratings", None, inference={**inference, "same_concept": 1.1}, **models)
        assert copied.run("ratings").success
        every = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
        copied.declare("ratings", None, inference=inference, **models)
        assert copied.run("ratings").success
    kept = read_frame(copied.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    assert kept.height < every.height
    listed = [key for row in kept["duplicates"] for key in row]
    assert sorted([*kept["concept_id"], *listed]) == sorted(every["concept_id"])
    assert "Stands for near-duplicates" in page(copied, "ratings")
    # The first in rank stands for the others.
    ranks = dict(every.select("concept_id", "rank").iter_rows())
    for row in kept.iter_rows(named=True):
        assert all(row["rank"] < ranks[key] for key in row["duplicates"])
