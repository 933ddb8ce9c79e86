"""A run stores the table of HypotheSAEs: the same figures that the package itself gives for the run's annotations."""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.storage.frames import read_frame
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.core.reference_evaluation import reference_scores


def holdout(workspace: Workspace, dataset: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Concept ids, annotations per observation, outcomes."""
    matrix = workspace.current(dataset, "annotation_matrix")
    frame, rows = (read_frame(matrix.file(f"{part}.parquet")) for part in ("annotations", "observations"))
    keys = frame.columns[1:]
    answers = frame.select(pl.col(keys).cast(pl.Float64)).to_numpy()
    return keys, np.asarray(observation_matrix(answers, frame["text_id"], rows)), rows["label"].to_numpy()


@pytest.mark.parametrize(
    ("dataset", "task"), [("ratings", "regression"), ("parties", "classification"), ("duels", "pairwise")]
)
def test_the_stored_table_is_the_references(finished: Finished, dataset: str, task: str) -> None:
    workspace = finished.workspace
    keys, concepts, outcome = holdout(workspace, dataset)
    metrics, theirs = reference_scores(concepts, outcome, task)
    report = workspace.current(dataset, "evaluation_report")
    concept_of = dict(read_frame(report.file("hypotheses.parquet")).select("hypothesis_id", "concept_id").iter_rows())
    ours = read_frame(report.file("reference_table.parquet"))
    assert ours.height == len(keys)
    summary = report.json("evaluation.json")["reference"]
    columns = ["separation_score", "feature_prevalence"]
    # Tiny texts are easily told apart; where they are, the reference's coefficients mean nothing.
    if summary["estimator"] != "Firth logit" and not "".join(ours["flags"]).count("so it has no"):
        columns += ["regression_coef", "regression_pval"]
        assert summary["r2"] == pytest.approx(metrics["r2"], abs=1e-8)
        assert summary["significant"] == metrics["Significant"][0]
    compared = 0
    for row in ours.iter_rows(named=True):
        expected = theirs.loc[keys.index(concept_of[row["hypothesis_id"]])]
        for name in columns:
            if np.isfinite(expected[name]) and np.isfinite(row[name]):
                assert row[name] == pytest.approx(expected[name], abs=1e-8)
                compared += 1
    assert compared >= len(columns)
    page = (workspace.project.results / "reports" / f"{dataset}.html").read_text(encoding="utf-8")
    assert "As HypotheSAEs would print it" in page
