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
    redeclare(copied, dataset, {"auto": FAST})
    run = copied.run(dataset)
    assert run.success, run.failures
    stored = copied.current(dataset, "sae_checkpoints")
    (record,) = stored.json("saes.json")
    rows = read_frame(stored.file("grid.parquet"))
    (chosen,) = rows.filter(rows["chosen"]).rows(named=True)
    assert chosen["sae_id"] == record["sae_id"]
    for name in ("m", "k", "label_weight"):
        assert record["config"][name] == chosen[name]
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


def test_unguided_sizes_are_chosen_without_guidance(copied: Workspace) -> None:
    redeclare(copied, "ratings", {"auto": {**FAST, "guided": False}})
    assert copied.run("ratings", upto="sae_checkpoints").success
    stored = copied.current("ratings", "sae_checkpoints")
    assert set(read_frame(stored.file("grid.parquet"))["label_weight"]) == {0.0}
    assert stored.json("saes.json")[0]["head"] is None


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
