"""Checks that warn: sparsity, convergence and balance of the labels, with the figures that they rest on."""

from typing import Any

import dagster as dg
import polars as pl
import pytest

from hsae_dagster.assets import corpus, sae_checkpoints
from hsae_dagster_tests.assets.workspace import Run, Workspace
from hsae_dagster_tests.conftest import Finished


def record(l0: float = 4.0, losses: tuple[float, ...] = (0.5, 0.4, 0.39), **changes: Any) -> dict[str, Any]:
    made = {
        "sae_id": f"{l0}{len(losses)}",
        "config": {"m": 8, "k": 4, "patience": 2},
        "l0": l0,
        "device": "cpu",
        "stop_reason": "no improvement for 2 epochs",
        "history": [{"epoch": place, "validation_loss": loss} for place, loss in enumerate(losses, 1)],
    }
    return made | changes


def rows(check: dg.AssetCheckResult, name: str) -> list[dict[str, Any]]:
    shown = check.metadata[name]
    assert isinstance(shown, dg.TableMetadataValue)
    return [dict(row.data) for row in shown.records]


@pytest.mark.parametrize(("l0", "passed"), [(4.0, True), (2.0, True), (1.9, False), (6.1, False), (0.0, False)])
def test_firing_far_from_k_warns(l0: float, passed: bool) -> None:
    check = sae_checkpoints._check_sparsity([record(), record(l0)])
    assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert [row["L0"] for row in rows(check, "autoencoders")] == [4.0, l0]
    assert check.metadata["least L0 / k"].value == min(1.0, l0 / 4)


def test_training_that_was_cut_off_warns_and_says_how_much_it_still_learnt() -> None:
    cut = record(losses=(0.5, 0.4, 0.3, 0.2), stop_reason="all 4 epochs were used")
    check = sae_checkpoints._check_convergence([record(), cut])
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (check.metadata["at the epoch limit"].value, check.metadata["trained"].value) == (1, 2)
    told = rows(check, "autoencoders")[1]
    assert told["loss fell in the last epochs by"] == "50.00 %"  # from 0.4 to 0.2
    assert told["epochs"] == 4
    assert check.metadata["of them still learning"].value == 1
    assert sae_checkpoints._check_convergence([record()]).passed


def test_a_limit_that_cost_nothing_does_not_warn() -> None:
    cut = record(losses=(0.5, 0.4, 0.3999, 0.3998), stop_reason="all 4 epochs were used")
    check = sae_checkpoints._check_convergence([cut])
    assert check.passed
    assert (check.metadata["at the epoch limit"].value, check.metadata["of them still learning"].value) == (1, 0)


def test_what_was_imported_did_not_fail_to_converge() -> None:
    imported = record(device="none: imported", stop_reason="imported from a.pt, not trained here")
    check = sae_checkpoints._check_convergence([imported])
    assert check.passed
    assert check.metadata["trained"].value == 0


@pytest.mark.parametrize(("ones", "passed"), [(5, True), (4, False), (50, True), (97, False)])
def test_one_value_for_nearly_all_labels_warns(ones: int, passed: bool) -> None:
    even = pl.DataFrame({"split": ["holdout"] * 2, "label": [0.0, 1.0]})
    skewed = pl.DataFrame({"split": ["train"] * 100, "label": [1.0] * ones + [0.0] * (100 - ones)})
    check = corpus._check_balance(pl.concat([even, skewed]))
    assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert check.metadata["largest share"].value == max(ones, 100 - ones) / 100
    shares = {row["split"]: row["share"] for row in rows(check, "splits")}
    assert shares == {"train": max(ones, 100 - ones) / 100, "holdout": 0.5}


def test_a_real_run_gives_the_figures(finished: Finished) -> None:
    run: Run = finished.runs["ratings"]
    workspace: Workspace = finished.workspace
    (made,) = workspace.current("ratings", "sae_checkpoints").json("saes.json")
    sparsity, convergence, balance = (
        run.checks[name]
        for name in (
            "sae_checkpoints.fires_as_declared",
            "sae_checkpoints.training_converged",
            "corpus.labels_balanced",
        )
    )
    assert sparsity.metadata["largest L0 / k"].value == pytest.approx(made["l0"] / made["config"]["k"])
    if made["stop_reason"].startswith("no improvement"):
        assert convergence.passed
        assert convergence.metadata["at the epoch limit"].value == 0
    assert balance.passed
    assert 0 < balance.metadata["largest share"].value < 0.1  # scores of the tiny texts hardly ever repeat
