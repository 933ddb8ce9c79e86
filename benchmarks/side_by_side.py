"""Ours and the reference's, side by side, on a materialized dataset: activations, selected neurons, evaluation table.

    python benchmarks/side_by_side.py <project results folder> <dataset> [--tolerance 1e-4]

Both get the same embeddings, the same checkpoint and the same annotation matrix. Everything is asserted:
    activations           equal to 1e-5 (a text whose k-th and next neuron tie to 1e-5 may keep either)
    selection             the same neurons in the same order, the same penalties on the way; coefficients to 1e-5, with
                          the reference's stopping tolerance tightened to 1e-8 (--tolerance 1e-4 leaves it as shipped;
                          its coefficients are then off by up to 2e-4 and may swap neighbours)
    evaluation            every column and metric to 1e-8, but for the p-values of pairs' separation, where the
                          reference is wrong (docs/defects.md, row 1); concepts without an effect to estimate, or with
                          fewer than five texts on a side, are left out on both sides and named; a table that Firth's
                          logit was needed for is only shown
Needs hypothesaes==2.0.1, installed without its dependencies (requirements-reference.txt), and the dev tools.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reference_table import reference_table
from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.core.selection.methods import Selection, select_neurons
from hsae_dagster.storage.artifacts import load_sae, read_codes, read_frame
from hsae_dagster.storage.objects import ObjectStore
from hsae_dagster.storage.outputs import StoredEmbeddings
from hsae_dagster_tests.core.reference import load_reference_module
from hsae_dagster_tests.core.reference_evaluation import reference_scores
from hsae_dagster_tests.core.reference_sae import twin
from hsae_dagster_tests.core.reference_selection import reference_lasso

# Concepts with fewer observations on a side separate the classes as often as not.
FEWEST = 5
COLUMNS = ("separation_score", "separation_pval", "regression_coef", "regression_pval", "feature_prevalence")


class Dataset:
    """The current results of one dataset."""

    def __init__(self, results: Path, name: str) -> None:
        self.results, self.name, self.store = results, name, ObjectStore(results)
        config = self.at("selected_neurons").inputs.config
        self.task, self.method, self.n = config["task"], config["method"], config["n"]
        self.codes = read_codes(self.at("activations").file("codes.safetensors"))
        self.ids = read_frame(self.at("activations").file("texts.parquet"))["text_id"]

    def at(self, asset: str):
        """Current, verified result of an asset."""
        return self.store.current(self.name, asset)

    def embeddings(self) -> np.ndarray:
        """Vectors of all texts, in the order of the codes."""
        return StoredEmbeddings(self.at("embeddings")).read(self.ids)

    def training(self):
        """Codes and labels of the training observations."""
        rows = read_frame(self.at("corpus").file("observations.parquet")).filter(pl.col("split") == "train")
        return observation_matrix(self.codes, self.ids, rows), rows["label"].to_numpy()

    def annotations(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Claims, annotations per holdout observation with all answers, and their outcomes."""
        matrix = self.at("annotation_matrix")
        frame, rows = (read_frame(matrix.file(f"{part}.parquet")) for part in ("annotations", "observations"))
        claims = matrix.json("summary.json")["claims"]
        answers = frame.select(pl.col(list(claims)).cast(pl.Float64)).to_numpy()
        design = np.asarray(observation_matrix(answers, frame["text_id"], rows))
        complete = np.isfinite(design).all(axis=1)
        return list(claims.values()), design[complete], rows["label"].to_numpy()[complete].astype(float)


def compare_activations(data: Dataset) -> None:
    embeddings, start = data.embeddings(), 0
    checkpoints = data.at("sae_checkpoints")
    for record in checkpoints.json("saes.json"):
        sae = load_sae(checkpoints.folder, record)
        model = twin(sae, sae.config).float()
        model.threshold.copy_(sae.threshold)
        stop, worst, tied = start + sae.config.m, 0.0, 0
        for first in range(0, len(embeddings), 4096):
            block = embeddings[first : first + 4096]
            theirs = model.get_activations(block, show_progress=False)
            ours = data.codes[first : first + 4096, start:stop].toarray()
            differs = np.abs(ours - theirs).max(axis=1)
            for row in np.flatnonzero(differs > 1e-5):
                # Which of two equal neurons is kept is a matter of rounding; anything else is an error.
                a, b = (
                    np.sort(values[row][values[row] != other[row]])
                    for values, other in ((ours, theirs), (theirs, ours))
                )
                assert abs(a[a > 0].min() - b[b > 0].min()) < 1e-5, f"text {data.ids[first + row]} differs"
                tied += 1
            worst = max(worst, float(differs[differs <= 1e-5].max(initial=0.0)))
        print(
            f"activations {sae.config.m}/{sae.config.k}: {len(embeddings):,} texts, largest difference {worst:.1e}, "
            f"{tied} ties"
        )
        start = stop


def compare_selection(data: Dataset, tolerance: float) -> None:
    codes, target = data.training()
    classification = data.task != "regression"
    task = "classification" if classification else "regression"
    started = time.perf_counter()
    ours = select_neurons(codes, target, data.n, method=data.method, task=task)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    if data.method == "lasso":
        options = {"tol": tolerance, "max_iter": 20_000} if tolerance < 1e-4 else {}
        found = reference_lasso(codes.toarray().astype(float), target, data.n, classification=classification, **options)
        columns, scores = found.columns, found.scores
        if found.hit:
            np.testing.assert_allclose([point.alpha for point in ours.path], found.alphas, rtol=1e-12)
    else:
        columns, scores = reference_scored(data, codes.toarray(), target, ours)
    print(
        f"selection by {data.method}: {codes.shape[0]:,} × {codes.shape[1]:,}, {seconds:.2f} s ours, "
        f"{time.perf_counter() - started:.2f} s the reference"
    )
    if ours.alpha is not None:
        print(f"  alpha {ours.alpha:.6g} after {len(ours.path)} probes; {'; '.join(ours.notes) or 'no note'}")
    print("  rank  ours               the reference")
    for rank, row in enumerate(zip(ours.columns, ours.scores, columns, scores, strict=True)):
        print("  {:>4}  {:>6} {:>+10.6f}  {:>6} {:>+10.6f}".format(rank, *row))
    assert ours.columns == list(columns), "the selected neurons differ"
    allowed = 1e-5 if tolerance < 1e-4 or data.method != "lasso" else 2e-4
    largest = float(np.abs(np.array(ours.scores) - scores).max())
    print(f"  the same {len(columns)} neurons in the same order; largest difference of a score {largest:.1e}")
    assert largest <= allowed


def reference_scored(data: Dataset, dense: np.ndarray, target: np.ndarray, ours: Selection):
    """The reference's correlation or separation, on the neurons that can have one."""
    live = np.setdiff1d(np.arange(dense.shape[1]), ours.dead)
    method = {"correlation": "correlation", "separation": "separation_score"}[data.method]
    columns, scores = load_reference_module("select_neurons").select_neurons(
        dense[:, live], target, data.n, method=method
    )
    return live[columns].tolist(), scores


def compare_evaluation(data: Dataset) -> None:
    claims, concepts, outcome = data.annotations()
    whole = reference_table(concepts, outcome, data.task)
    rare = np.minimum((concepts != 0).sum(axis=0), np.inf if data.task == "pairwise" else (concepts == 0).sum(axis=0))
    estimable = []
    for j, row in enumerate(whole.rows):
        if rare[j] < FEWEST or not np.isfinite([row.regression_coef, row.separation_score]).all():
            print(f"  left out: {claims[j][:40]!r}: {'; '.join(row.flags) or f'only {rare[j]:.0f} texts on one side'}")
        else:
            estimable.append(j)
    ours = reference_table(concepts[:, estimable], outcome, data.task)
    metrics, frame = reference_scores(concepts[:, estimable], outcome, data.task)
    print(f"evaluation of {len(estimable)} concepts on {ours.n:,} holdout observations by {ours.estimator}")
    print("  ours above, the reference below:  separation           p  coefficient           p  prevalence")
    for j in ours.ranking:
        theirs = [frame.loc[j, column] for column in COLUMNS]
        for label, values in ((claims[estimable[j]], [getattr(ours.rows[j], c) for c in COLUMNS]), ("", theirs)):
            print(
                f"  {label[:32]:<32} {values[0]:>+12.6f} {values[1]:>11.3e} {values[2]:>+12.6f} {values[3]:>11.3e} "
                f"{values[4]:>11.4f}"
            )
    for name in ("r2", "auroc", "auprc"):
        if name in metrics:
            print(f"  {name}: {getattr(ours, name):.10f}   {metrics[name]:.10f}")
    print(
        f"  significant: {ours.significant} of {len(ours.rows)} below {ours.threshold:.2e}   {metrics['Significant']}"
    )
    if ours.estimator == "Firth logit":
        print(f"  not compared: {'; '.join(ours.notes)}")
        return
    largest = 0.0
    for column in COLUMNS:
        if data.task == "pairwise" and column == "separation_pval":
            continue
        values = np.array([getattr(row, column) for row in ours.rows])
        largest = max(largest, float(np.abs(values - frame[column].loc[range(len(values))].to_numpy()).max()))
    largest = max(
        [largest, *(abs(getattr(ours, name) - metrics[name]) for name in ("r2", "auroc", "auprc") if name in metrics)]
    )
    print(f"  largest difference {largest:.1e}")
    assert largest <= 1e-8
    assert (ours.significant, len(ours.rows), ours.threshold) == metrics["Significant"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the project's results folder")
    parser.add_argument("dataset")
    parser.add_argument(
        "--tolerance", type=float, default=1e-8, help="where the reference's lasso stops (shipped: 1e-4)"
    )
    arguments = parser.parse_args()
    data = Dataset(arguments.results, arguments.dataset)
    print(f"{data.name} ({data.task})")
    compare_activations(data)
    compare_selection(data, arguments.tolerance)
    compare_evaluation(data)
    print("equal")


if __name__ == "__main__":
    main()
