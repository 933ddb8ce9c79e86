"""Neuron selection beside the reference's: lasso, L1-logistic, correlation, separation; memory of encode and select.

Belongs here: both sides' work in processes of their own, and what of it must agree. Does not belong here: data.

The reference runs as shipped: dense float32 activations, its own search for alpha, its own stopping tolerance (1e-4),
which leaves its coefficients off by up to 2e-4. Ours are held to that against it, and to 1e-5 against its estimator at
the alpha found, stopped at 1e-10 on the columns that matter, after which no other column's gradient may exceed alpha.
"""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.speed.children import in_child, measured
from benchmarks.speed.machine import best
from benchmarks.speed.made import classes, load_codes
from benchmarks.speed.outcome import Row

N_SELECT = 20
# Within the reference's own tolerance; and with its estimators run to the end.
SHIPPED, TIGHT = 2e-4, 1e-5
_NEAR = 150


def row(name: str, codes: Path, method: str, *, task: str = "regression", goal: float | None, rounds: int = 3) -> Row:
    """One method on stored codes: ours (all rounds but one), the reference once, ours once more."""
    asked = {"path": str(codes), "method": method, "task": task}
    first = in_child("selection:ours", **asked, rounds=max(rounds - 1, 1))
    theirs = in_child("selection:reference", **asked)
    last = in_child("selection:ours", **asked, rounds=1)
    agreed = agree(first, theirs, method)
    seconds = first["seconds"] + last["seconds"]
    roofline = ""
    if method == "correlation":
        least = in_child("selection:passes", path=str(codes))
        shown = f"{theirs['seconds'][0] / least:,.0f}x"
        roofline = f"sum, squares and product of each column, a pass each: {least * 1e3:.2g} ms, {shown}"
    return Row(
        name,
        float(np.median(seconds)),
        theirs["seconds"][0],
        "s",
        goal,
        agreed=agreed,
        roofline=roofline,
        peak_ours=first["measured"]["peak"] / 1e6,
        peak_theirs=theirs["measured"]["peak"] / 1e6,
        extra={"ours": seconds, "columns": first["columns"], "alpha": first["alpha"]},
    )


def passes(path: str) -> float:
    """In a child: seconds of three bare products with the codes in float64, the least that a correlation needs."""
    codes, outcome = load_codes(path)
    transpose = codes.astype(np.float64).T
    return 3 * best(lambda: transpose @ outcome, 15)


def ours(path: str, method: str, task: str, rounds: int) -> dict[str, Any]:
    """In a child: `select_neurons` on the sparse codes."""
    codes, outcome = load_codes(path)
    return _ours(codes, outcome, method, task, rounds)


def _ours(codes: sparse.csr_matrix, outcome: np.ndarray, method: str, task: str, rounds: int) -> dict[str, Any]:
    from hsae_dagster.core.selection.methods import select_neurons

    target = classes(outcome) if task == "classification" else outcome
    runs = []
    for _ in range(rounds):
        with measured() as run:
            chosen = select_neurons(codes, target, N_SELECT, method=method, task=task)
        runs.append(run)
    return {
        "seconds": [run.seconds for run in runs],
        "measured": runs[0],
        "columns": chosen.columns,
        "scores": chosen.scores,
        "alpha": chosen.alpha,
        "alphas": [point.alpha for point in chosen.path],
    }


def reference(path: str, method: str, task: str) -> dict[str, Any]:
    """In a child: the reference's `select_neurons` on the dense activations that its encoder returns."""
    codes, outcome = load_codes(path)
    return _reference(codes.toarray(), codes, outcome, method, task)


def _reference(
    dense: np.ndarray, codes: sparse.csr_matrix, outcome: np.ndarray, method: str, task: str
) -> dict[str, Any]:
    from hsae_dagster_tests.core.reference import load_reference_module
    from hsae_dagster_tests.core.reference_selection import reference_lasso

    classification = task == "classification"
    target = classes(outcome) if classification else outcome
    found: dict[str, Any] = {"alpha": None}
    with measured() as run, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if method == "lasso":
            chosen = reference_lasso(dense, target, N_SELECT, classification=classification)
            columns, scores = chosen.columns, chosen.scores
        else:
            module = load_reference_module("select_neurons")
            named = {"separation": "separation_score"}.get(method, method)
            columns, scores = module.select_neurons(dense, target, N_SELECT, method=named)
    if method == "lasso":
        found = {"alphas": chosen.alphas, "alpha": chosen.alphas[-1], "hit": chosen.hit}
        found["tight"] = tight(codes, target, chosen.alphas[-1], columns, classification)
    return {"seconds": [run.seconds], "measured": run, "columns": columns, "scores": scores, **found}


def tight(
    codes: sparse.csr_matrix, target: np.ndarray, alpha: float, columns: list[int], classification: bool
) -> dict[str, Any]:
    """The reference's estimator at alpha, run to the end on the selected columns and those nearest to the target.

    The gradient of all columns shows that no other one belongs to the solution.
    """
    from sklearn.linear_model import Lasso, LogisticRegression

    n, exact = codes.shape[0], codes.astype(np.float64)
    mean = np.asarray(exact.mean(axis=0)).ravel()
    variance = np.asarray(exact.multiply(exact).mean(axis=0)).ravel() - mean**2
    varies = variance > 1e-12
    scale = np.where(varies, np.sqrt(np.where(varies, variance, 1.0)), 1.0)

    def gradient(residual: np.ndarray) -> np.ndarray:
        return (exact.T @ residual - mean * residual.sum()) / scale * varies

    size = np.abs(gradient(target - target.mean()))
    few = np.union1d(columns, np.argsort(-size)[:_NEAR])
    design = (exact[:, few].toarray() - mean[few]) / scale[few]
    if classification:
        model = LogisticRegression(penalty="l1", solver="liblinear", C=1 / alpha, tol=1e-10, max_iter=10_000)
        residual_of = lambda fitted: target - fitted.predict_proba(design)[:, 1]  # noqa: E731
        bound = alpha
    else:
        model = Lasso(alpha=alpha, tol=1e-10, max_iter=100_000)
        residual_of = lambda fitted: target - fitted.predict(design)  # noqa: E731
        bound = alpha * n
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(design, target)
    coefficients = model.coef_.ravel()
    excess = float(np.abs(gradient(residual_of(model))).max() / bound - 1)
    order = np.argsort(-np.abs(coefficients))[: len(columns)]
    order = order[coefficients[order] != 0]
    return {"columns": few[order].tolist(), "scores": coefficients[order].tolist(), "excess": excess}


def agree(mine: dict[str, Any], theirs: dict[str, Any], method: str) -> str:
    """Assert that both sides selected the same, and say how exactly.

    Raises:
        AssertionError: they did not.
    """
    assert len(mine["columns"]) == N_SELECT
    if method != "lasso":
        assert mine["columns"] == theirs["columns"], "the selected neurons differ"
        apart = _apart(mine, theirs)
        assert apart <= TIGHT, f"scores differ by {apart:.1e}"
        return f"same {N_SELECT}, same order, scores to {apart:.0e}"
    assert theirs["hit"], "the reference's search did not end at a solution with so many neurons"
    np.testing.assert_allclose(mine["alphas"], theirs["alphas"], rtol=1e-9)
    assert sorted(mine["columns"]) == sorted(theirs["columns"]), "the selected neurons differ"
    exact = theirs["tight"]
    assert exact["excess"] < 1e-6, "a column that was left out belongs to the solution"
    assert mine["columns"] == exact["columns"], "the order differs"
    shipped, apart = _apart(mine, theirs), _apart(mine, exact)
    assert shipped <= SHIPPED, f"coefficients differ by {shipped:.1e}"
    assert apart <= TIGHT, f"coefficients differ by {apart:.1e}"
    same = "same order" if mine["columns"] == theirs["columns"] else "order of its exact solution"
    return f"same {N_SELECT}, {same}, same alphas, coefficients to {shipped:.0e} (exact: {apart:.0e})"


def _apart(mine: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference of the scores of the same columns."""
    other = dict(zip(theirs["columns"], theirs["scores"], strict=True))
    return max(abs(score - other[c]) for c, score in zip(mine["columns"], mine["scores"], strict=True))
