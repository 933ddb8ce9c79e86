"""Sizes chosen by measurement, through the assets, on the tiny texts."""

import polars as pl
import pytest
import yaml

from hsae_dagster.core.sae.sizes import Size
from hsae_dagster.stages import sizes as sae_sizes
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace

FAST = {"race_epochs": 3, "max_epochs": 8}


def redeclare(workspace: Workspace, dataset: str, saes: object, **changes: object) -> None:
    fields = yaml.safe_load((workspace.root / "data" / dataset / "dataset.yaml").read_text(encoding="utf-8"))
    workspace.declare(dataset, None, **{**fields, "saes": saes, **changes})


@pytest.fixture
def two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny texts carry one size; here are two for them."""
    monkeypatch.setattr(sae_sizes, "grid", lambda n_units, n_select: [Size(12, 3), Size(24, 4)])


@pytest.mark.parametrize("dataset", ["ratings", "parties", "duels"])
def test_sizes_are_raced_and_what_is_taken_is_trained_to_the_end(
    copied: Workspace, dataset: str, two_sizes: None
) -> None:
    redeclare(copied, dataset, {"auto": {**FAST, "learning_rate": 0.003}})
    run = copied.run(dataset)
    assert run.success, run.failures
    stored = copied.current(dataset, "sae_checkpoints")
    (record,) = stored.json("saes.json")
    rows = read_frame(stored.file("grid.parquet"))
    assert rows.select("m", "k").rows() == [(12, 3), (24, 4)]
    (chosen,) = rows.filter(rows["chosen"]).rows(named=True)
    config = {name: record["config"][name] for name in ("m", "k", "label_weight", "learning_rate", "max_epochs")}
    assert config == {"m": chosen["m"], "k": chosen["k"], "label_weight": 0.0, "learning_rate": 0.003, "max_epochs": 8}
    assert rows["said"].is_finite().all()
    near = rows.filter(rows["said"].max() - rows["said"] <= rows["standard_error"])
    measured = near.height > 1
    assert rows["agreement"].is_not_null().sum() == (near.height if measured else 0)
    told = run.metadata("sae_checkpoints")
    assert len(told["grid"].records) == 2
    assert "claims fit" in told["choice"]
    assert "data:image/png" in told["grid, drawn"]
    page = copied.current(dataset, "evaluation_report").file("_report.html").read_text(encoding="utf-8")
    assert "guid" not in told["choice"]
    assert page
    again = copied.run(dataset, "sae_checkpoints")
    assert again.metadata("sae_checkpoints")["reused"]


def test_outcomes_of_validation_texts_do_not_choose_the_claims(copied: Workspace, two_sizes: None) -> None:
    """Reversing the sign of validation outcomes leaves the claims of training clusters, which then say the reverse."""
    redeclare(copied, "ratings", {"auto": FAST})
    assert copied.run("ratings", upto="sae_checkpoints").success
    before = read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet"))
    corpus = copied.current("ratings", "corpus")
    observations = read_frame(corpus.file("observations.parquet"))
    flipped = set(observations.filter(pl.col("split") == "validation")["text_id"])
    texts = read_frame(corpus.file("texts.parquet"))
    wanted = set(texts.filter(pl.col("text_id").is_in(flipped))["text"])
    fields = yaml.safe_load((copied.root / "data" / "ratings" / "dataset.yaml").read_text(encoding="utf-8"))
    (path,) = (copied.root / "data" / "ratings").glob(fields["files"])
    frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
    text, label = fields["columns"]["text"], fields["columns"]["label"]
    turned = frame.with_columns(
        pl.when(pl.col(text).str.strip_chars().is_in(wanted)).then(-pl.col(label)).otherwise(pl.col(label))
    )
    copied.declare("ratings", turned, **{**fields, "saes": {"auto": FAST}})
    assert copied.run("ratings", upto="sae_checkpoints").success
    after = read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet"))
    assert after["claims"].to_list() == before["claims"].to_list()
    assert after["said"].to_list() != before["said"].to_list()


def test_few_units_have_one_size_and_it_says_so(copied: Workspace) -> None:
    redeclare(copied, "ratings", {"auto": FAST})
    run = copied.run("ratings", upto="sae_checkpoints")
    assert run.success, run.failures
    rows = read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet"))
    assert rows.height == 1
    assert rows["chosen"].all()
    assert rows["said"].is_null().all()
    assert "the only size that" in run.metadata("sae_checkpoints")["choice"]


def test_too_few_validation_observations_take_the_smallest_and_say_so(
    copied: Workspace, two_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_sizes, "ENOUGH_OBSERVATIONS", 10_000)
    redeclare(copied, "ratings", {"auto": FAST})
    run = copied.run("ratings", upto="sae_checkpoints")
    assert run.success, run.failures
    rows = read_frame(copied.current("ratings", "sae_checkpoints").file("grid.parquet"))
    assert rows["chosen"].to_list() == [True, False]
    assert "are too few to choose by" in run.metadata("sae_checkpoints")["choice"]


def test_another_number_of_claims_wanted_is_another_choice(copied: Workspace) -> None:
    redeclare(copied, "ratings", {"auto": FAST})
    first = copied.run("ratings", upto="sae_checkpoints").event("sae_checkpoints")
    redeclare(copied, "ratings", {"auto": FAST}, selection={"n": 6})
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
