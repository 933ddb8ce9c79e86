"""Several seeds through the assets, on the tiny texts."""

import pytest

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace


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
