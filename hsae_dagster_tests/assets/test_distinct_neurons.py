"""Distinct neurons and several seeds through the assets, on the tiny texts."""

import polars as pl
import pytest

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace

SAE = {"m": 12, "k": 6, "max_epochs": 20, "batch_size": 32, "label_weight": 2.0}


def test_near_copies_of_a_selected_neuron_are_its_family(copied: Workspace) -> None:
    limits = {"correlation": 0.5, "cosine": 0.7}
    copied.declare("ratings", None, saes=[SAE], selection={"n": 4, "distinct": limits})
    run = copied.run("ratings", upto="selected_neurons")
    assert run.success, run.failures
    stored = copied.current("ratings", "selected_neurons")
    neurons, families = (read_frame(stored.file(f"{name}.parquet")) for name in ("neurons", "families"))
    assert families.height > 0, "so strong a guidance makes copies"
    assert neurons["near_copies"].sum() == families.height
    assert set(families["kept"]) <= set(neurons["column"])
    assert not set(families["left_out"]) & set(neurons["column"])
    beyond = (families["correlation"].abs() > 0.5) | (families["cosine"] > 0.7)
    assert beyond.all()
    told = run.metadata("selected_neurons")
    assert told["near-copies left out"] == families.height
    copied.declare("ratings", None, saes=[SAE])
    before = copied.run("ratings", upto="selected_neurons").metadata("selected_neurons")
    assert told["mean |correlation|"] < before["mean |correlation|"]


def test_a_card_names_the_near_copies_that_its_neuron_stands_for(copied: Workspace) -> None:
    # Cards name five at most, so no more may be left out than is needed to have four neurons.
    selection = {"n": 4, "distinct": {"correlation": 0.5, "cosine": 0.7}, "across_clusters": False}
    copied.declare("ratings", None, saes=[SAE], selection=selection)
    run = copied.run("ratings")
    assert run.success, run.failures
    families = read_frame(copied.current("ratings", "selected_neurons").file("families.parquet"))
    columns = read_frame(copied.current("ratings", "activations").file("columns.parquet")).sort("column")
    report = copied.current("ratings", "evaluation_report")
    hypotheses = read_frame(report.file("hypotheses.parquet"))
    cards, page = report.json("_cards.json"), report.file("_report.html").read_text(encoding="utf-8")
    told = 0
    for row in hypotheses.iter_rows(named=True):
        own = columns.filter(sae_id=row["sae_id"], sae_column=row["sae_column"])["column"].item()
        names = {
            f"{columns['sae_id'][j]}/{columns['sae_column'][j]}"
            for j in families.filter(pl.col("kept") == own)["left_out"]
        }
        assert set(row["near_copies"]) == names
        card = cards[row["hypothesis_id"]]["card"]
        assert ("Stands for near-copies" in card) == bool(names)
        for name in names:
            sae_id, column = name.split("/")
            assert f"{sae_id[:8]}/{column} " in card
            assert f"{sae_id[:8]}/{column} " in page
        told += len(names)
    assert told > 0, "so strong a guidance makes copies, and some of what they copy can be read"


def test_other_seeds_are_trained_and_compared_with(copied: Workspace) -> None:
    sae = {"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}
    copied.declare("ratings", None, saes=[sae], sae_seeds=3)
    run = copied.run("ratings", upto="selected_neurons")
    assert run.success, run.failures
    checkpoints = copied.current("ratings", "sae_checkpoints")
    (record,) = checkpoints.json("saes.json")
    twins = checkpoints.json("seeds.json")[record["sae_id"]]
    assert [twin["config"]["seed"] for twin in twins] == [1, 2]
    neurons = read_frame(copied.current("ratings", "selected_neurons").file("neurons.parquet"))
    assert neurons["seed_phi"].is_between(0, 1 + 1e-6).all()
    assert neurons["seed_phi"].max() > 0.3, "alike, from every start"  # type: ignore[operator]
    assert neurons["other_seeds"].to_list() == [2] * 4
    assert neurons["found_in"].is_between(0, 2).all()
    assert ((neurons["found_in"] == 2) == (neurons["seed_phi"] >= 0.5)).all()
    assert neurons["column"].max() < 8, "the other seeds' neurons are for comparison only"  # type: ignore[operator]
    ranked = neurons.sort("seed_phi")["seed_phi"]
    copied.declare("ratings", None, saes=[sae], sae_seeds=3, selection={"n": 1, "min_match": float(ranked[-1]) - 1e-6})
    assert copied.run("ratings", "selected_neurons").success
    (alone,) = read_frame(copied.current("ratings", "selected_neurons").file("neurons.parquet"))["seed_phi"]
    assert alone >= ranked[-1] - 1e-6
    copied.declare("ratings", None, saes=[sae], sae_seeds=3, selection={"n": 8, "min_match": 1.0})
    assert "Lower selection.min_match" in copied.run("ratings", "selected_neurons").sentence("selected_neurons")


@pytest.mark.parametrize("selection", [{"n": 4, "min_match": 0.5}])
def test_a_match_needs_seeds(copied: Workspace, selection: dict) -> None:
    copied.declare("ratings", None, selection=selection)
    assert "set sae_seeds to 2 or more" in copied.run("ratings", "selected_neurons").sentence("selected_neurons")
