"""Guided autoencoders through the assets: what their key depends on, and what is stored of them."""

import numpy as np
import polars as pl
import yaml

from hsae_dagster.storage.artifacts import read_arrays
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts

PLAIN = {"m": 8, "k": 2, "max_epochs": 6, "batch_size": 32}
GUIDED = {**PLAIN, "label_weight": 0.5}


def record_of(workspace: Workspace, dataset: str) -> dict:
    (record,) = workspace.current(dataset, "sae_checkpoints").json("saes.json")
    return record


def trained(workspace: Workspace) -> int:
    return len(list((workspace.project.results / "objects" / "sae").iterdir()))


def test_labels_are_part_of_the_key_of_a_guided_autoencoder_and_of_no_other(copied: Workspace) -> None:
    ids, counts = {}, [trained(copied)]
    for dataset in ("ratings", "parties"):
        for name, sae in (("plain", PLAIN), ("guided", GUIDED)):
            copied.declare(dataset, None, **declared(copied, dataset), saes=[sae])
            assert copied.run(dataset, upto="sae_checkpoints").success
            ids[dataset, name] = record_of(copied, dataset)["sae_id"]
            counts.append(trained(copied))
    # The first plain one and each guided one are new; the other plain ones are found.
    assert np.diff(counts).tolist() == [1, 1, 0, 1]
    assert ids["ratings", "plain"] == ids["parties", "plain"]
    assert len(set(ids.values())) == 3


def test_pairs_guide_an_autoencoder_of_their_texts(copied: Workspace) -> None:
    copied.declare("duels", None, **declared(copied, "duels"), saes=[GUIDED])
    assert copied.run("duels").success
    assert record_of(copied, "duels")["config"]["label_weight"] == 0.5


def declared(workspace: Workspace, dataset: str) -> dict:
    fields = yaml.safe_load((workspace.root / "data" / dataset / "dataset.yaml").read_text(encoding="utf-8"))
    return {name: fields[name] for name in ("task", "columns")}


def test_a_guided_autoencoder_is_recorded_with_its_head_and_another_label_trains_another(copied: Workspace) -> None:
    copied.declare("ratings", None, saes=[GUIDED])
    run = copied.run("ratings", upto="activations")
    assert run.success
    record, stored = record_of(copied, "ratings"), copied.current("ratings", "sae_checkpoints")
    assert record["config"]["label_weight"] == 0.5
    head = read_arrays(stored.file(record["head"]))
    assert head["weight"].shape == (8,)
    assert abs(head["weight"]).max() > 0
    (row,) = run.metadata("sae_checkpoints")["autoencoders"].records
    assert row.data["label weight"] == 0.5
    copied.declare("ratings", tiny_texts().with_columns(pl.col("score").exp()), saes=[GUIDED])
    assert copied.run("ratings", upto="sae_checkpoints").success
    assert record_of(copied, "ratings")["sae_id"] != record["sae_id"]
    copied.declare("ratings", None, saes=[PLAIN])
    assert copied.run("ratings", upto="sae_checkpoints").success
    assert record_of(copied, "ratings")["head"] is None


def test_controls_are_part_of_the_key_of_a_guided_autoencoder(copied: Workspace) -> None:
    texts = tiny_texts().with_columns(pl.col("text").str.len_chars().alias("size"))
    columns = {"text": "text", "label": "score", "cluster_by": "author"}
    ids = []
    for controls in ([], ["size"]):
        copied.declare("ratings", texts, saes=[GUIDED], columns={**columns, "controls": controls})
        assert copied.run("ratings", upto="sae_checkpoints").success
        ids.append(record_of(copied, "ratings")["sae_id"])
    assert ids[0] != ids[1]
