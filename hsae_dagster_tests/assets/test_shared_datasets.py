"""Real datasets that lie beside the checkout on the developers' machines; skipped where they are absent.

Their texts never enter the repository. Whole clusters are sampled, so that each run stays within a minute or two.
"""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import hsae_dagster
from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets.workspace import Workspace

BESIDE = Path(hsae_dagster.__file__).resolve().parents[2] / "shared" / "datasets"
FOLDER = Path(os.environ.get("HSAE_SHARED_DATASETS", BESIDE))

DATASETS = {
    "upworthy_headlines": (
        "pairs_train.parquet",
        "pairwise",
        {"text_a": "headline_A", "text_b": "headline_B", "label": "label_pairwise", "cluster_by": "test_id"},
    ),
    "clothing_reviews": (
        "train.parquet",
        "regression",
        {"text": "review_text", "label": "rating", "cluster_by": "clothing_id"},
    ),
    "senate_press_releases": (
        "train.parquet",
        "classification",
        {"text": "text", "label": "republican", "cluster_by": "senator"},
    ),
}


def some_clusters(frame: pl.DataFrame, column: str, rows: int) -> pl.DataFrame:
    """Whole clusters in a fixed random order until there are enough rows; at most 12 rows of each."""
    frame = frame.filter(pl.int_range(pl.len()).over(column) < 12)
    names = frame[column].unique().sort()
    order = pl.DataFrame({column: names, "place": np.random.default_rng(0).permutation(len(names))})
    return (
        frame.join(order, on=column, maintain_order="left").sort("place", maintain_order=True).head(rows).drop("place")
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_from_files_to_report(name: str, tmp_path: Path) -> None:
    file, task, columns = DATASETS[name]
    path = FOLDER / name / file
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    everything = pl.read_parquet(path)
    if task == "pairwise":
        # Most pairs are too close to call; those whose clicks differ significantly can be learned from few.
        everything = everything.filter(pl.col("z").abs() > 1.96)
    frame = some_clusters(everything, columns["cluster_by"], 2500 if task == "pairwise" else 1200)
    workspace = Workspace(tmp_path)
    workspace.declare(
        name,
        frame,
        task=task,
        columns=columns,
        splits=None,
        saes=[{"m": 16, "k": 4}],
        selection={"n": 8},
        embedding={"max_tokens": 96},
        interpretation=None,
        inference={"bootstrap": 100},
    )
    run = workspace.run(name)
    assert run.success, run.failures
    blocking = [check for check in run.checks.values() if check.severity.value == "ERROR"]
    assert blocking
    assert all(check.passed for check in blocking)
    fits = workspace.current(name, "evaluation_report").json("evaluation.json")["fits"]
    chance = 0.0 if task == "regression" else 0.5
    assert fits["embeddings (ceiling)"] > chance + 0.02, "the labels of real data can be predicted to some degree"
    assert fits["embeddings (ceiling)"] > fits["length and controls alone"]
    hypotheses = read_frame(workspace.current(name, "evaluation_report").file("hypotheses.parquet"))
    assert hypotheses.height > 0
    assert hypotheses["n_clusters"].min() > 10  # type: ignore[operator]
