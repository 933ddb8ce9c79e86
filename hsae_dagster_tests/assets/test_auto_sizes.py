"""Sizes chosen by measurement, through the assets, on the tiny texts."""

import pytest
import yaml

from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets.workspace import Workspace

FAST = {"max_epochs": 8, "label_weights": [0.3]}


def redeclare(workspace: Workspace, dataset: str, saes: object) -> None:
    fields = yaml.safe_load((workspace.root / "data" / dataset / "dataset.yaml").read_text(encoding="utf-8"))
    workspace.declare(dataset, None, **{**fields, "saes": saes})


@pytest.mark.parametrize("dataset", ["ratings", "parties", "duels"])
def test_a_size_is_measured_and_the_whole_grid_is_kept(copied: Workspace, dataset: str) -> None:
    redeclare(copied, dataset, {"auto": {**FAST, "learning_rate": 0.003}})
    run = copied.run(dataset)
    assert run.success, run.failures
    stored = copied.current(dataset, "sae_checkpoints")
    (record,) = stored.json("saes.json")
    rows = read_frame(stored.file("grid.parquet"))
    (chosen,) = rows.filter(rows["chosen"]).rows(named=True)
    assert chosen["sae_id"] == record["sae_id"]
    for name in ("m", "k", "label_weight", "distinct_weight"):
        assert record["config"][name] == chosen[name]
    assert record["config"]["learning_rate"] == 0.003
    assert record["config"]["input_noise"] == (1.0 if chosen["label_weight"] > 0 else 0.0)
    assert chosen["parts"] == rows["parts"].max()
    n_train = read_frame(copied.current(dataset, "corpus").file("texts.parquet"))["split"].to_list().count("train")
    assert rows["m"].max() <= n_train // 4  # type: ignore[operator]
    assert set(rows["label_weight"]) == {0.0, 0.3}
    assert rows["score"].is_finite().all()
    told = run.metadata("sae_checkpoints")
    assert len(told["grid"].records) == rows.height
    assert "standard error" in told["choice"] or "best score" in told["choice"]
    assert "data:image/png" in told["grid, drawn"]
    again = copied.run(dataset, "sae_checkpoints")
    assert again.metadata("sae_checkpoints")["reused"]


def test_close_candidates_are_compared_on_other_clusters_and_what_is_kept_learned_from_training_ones(
    copied: Workspace,
) -> None:
    redeclare(copied, "ratings", {"auto": {**FAST, "parts": 1}})
    assert copied.run("ratings", upto="sae_checkpoints").success
    alone = copied.current("ratings", "sae_checkpoints")
    assert set(read_frame(alone.file("grid.parquet"))["parts"]) == {1}
    redeclare(copied, "ratings", {"auto": FAST})
    run = copied.run("ratings", upto="sae_checkpoints")
    assert run.success, run.failures
    stored = copied.current("ratings", "sae_checkpoints")
    rows, before = (read_frame(one.file("grid.parquet")) for one in (stored, alone))
    assert rows["parts"].max() > 1, "candidates on so few clusters are close"
    # The candidates themselves are the ones from before: other clusters compare, and teach nothing that is kept.
    for name in ("sae_id", "signal", "fired", "redundancy"):
        assert rows[name].to_list() == before[name].to_list()
    assert "parts of the training and validation clusters" in run.metadata("sae_checkpoints")["choice"]


def test_a_share_of_the_neurons_can_be_guided(copied: Workspace) -> None:
    grids = []
    for share in (1.0, 0.33):
        redeclare(copied, "ratings", {"auto": {**FAST, "parts": 1, "head_share": share}})
        assert copied.run("ratings", upto="sae_checkpoints").success
        grids.append(read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet")))
    both = grids[0].join(grids[1], on=("m", "k", "label_weight", "distinct_weight"), suffix="_few")
    same = both["sae_id"] == both["sae_id_few"]
    assert same.to_list() == (both["label_weight"] == 0).to_list(), "guided ones are others"
    redeclare(copied, "ratings", [{"m": 16, "k": 4, "label_weight": 1.0, "head_neurons": 5, "max_epochs": 8}])
    run = copied.run("ratings")
    assert run.success, run.failures
    page = copied.current("ratings", "evaluation_report").file("_report.html").read_text(encoding="utf-8")
    assert "from 5 of 16 neurons, while the others only rebuild" in page


def test_unguided_sizes_are_chosen_without_guidance(copied: Workspace) -> None:
    redeclare(copied, "ratings", {"auto": {**FAST, "guided": False}})
    assert copied.run("ratings", upto="sae_checkpoints").success
    stored = copied.current("ratings", "sae_checkpoints")
    assert set(read_frame(stored.file("grid.parquet"))["label_weight"]) == {0.0}
    assert stored.json("saes.json")[0]["head"] is None


def test_guided_neurons_that_are_too_alike_are_trained_again_and_kept_apart(copied: Workspace) -> None:
    guided = {"max_epochs": 25, "label_weights": [3.0], "redundancy": 0.05, "reconstruction": 3.0, "head_share": 1.0}
    redeclare(copied, "ratings", {"auto": guided})
    run = copied.run("ratings", upto="sae_checkpoints")
    assert run.success, run.failures
    rows = read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet"))
    apart = rows.filter(rows["distinct_weight"] > 0)
    assert apart.height > 0, "so strong a guidance makes neurons alike"
    assert set(apart["label_weight"]) == {3.0}
    before = rows.filter(rows["distinct_weight"] == 0).join(apart, on=("m", "k", "label_weight"))
    assert before.height == apart.height
    assert (before["redundancy_right"] < before["redundancy"]).all()
    assert not before["within_caps"].any()


def test_another_number_of_neurons_to_select_is_another_choice(copied: Workspace) -> None:
    redeclare(copied, "ratings", {"auto": FAST})
    first = copied.run("ratings", upto="sae_checkpoints").event("sae_checkpoints")
    fields = yaml.safe_load((copied.root / "data" / "ratings" / "dataset.yaml").read_text(encoding="utf-8"))
    copied.declare("ratings", None, **{**fields, "selection": {"n": 6}})
    second = copied.run("ratings", upto="sae_checkpoints").event("sae_checkpoints")
    assert first.metadata["folder"] != second.metadata["folder"]
    assert second.metadata["reused"].value is False


def test_the_rule_of_thumb_of_the_reference(copied: Workspace) -> None:
    redeclare(copied, "ratings", "reference")
    assert copied.run("ratings", upto="sae_checkpoints").success
    (record,) = copied.current("ratings", "sae_checkpoints").json("saes.json")
    config = record["config"]
    assert (config["m"], config["k"], config["label_weight"]) == (64, 4, 0.0)
    assert (config["learning_rate"], config["max_epochs"], config["patience"]) == (5e-4, 100, 3)
