"""How much of the outcome all hypotheses predict together, between a floor and a ceiling.

Belongs here: out-of-sample fit by cluster, with intervals. Does not belong here: tests of single hypotheses
(`core.inference`).

Two honest ways to score on the holdout, named on every row: `trained` fits on the other splits and scores the holdout;
`cross-fitted` fits on folds of holdout clusters and scores the fold left out (for concepts, which only the holdout has
annotated). The measure is R² (1 - squared error / variance) for regression, AUC otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

Matrix = np.ndarray | sp.csr_matrix


@dataclass(frozen=True)
class Fit:
    """Out-of-sample fit of one set of predictors.

    Attributes:
        name: the predictors, in words.
        metric: `R2` or `AUC`.
        value: on the holdout.
        low: lower end of the 95 % cluster-bootstrap interval (NaN without bootstrap).
        high: upper end.
        how: `trained` or `cross-fitted`.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    how: str


@dataclass(frozen=True)
class Score:
    """How to score predictions of a task, and how surely.

    Attributes:
        task: regression, classification or pairwise.
        clusters: (n,) cluster keys of the holdout.
        bootstrap: cluster-bootstrap draws.
        seed: of folds and bootstrap.
    """

    task: str
    clusters: np.ndarray
    bootstrap: int
    seed: int

    @property
    def metric(self) -> str:
        """`R2` or `AUC`."""
        return "R2" if self.task == "regression" else "AUC"

    def fit(self, name: str, how: str, outcome: np.ndarray, predicted: np.ndarray) -> Fit:
        """Score predictions (n,) against outcomes (n,)."""
        low, high = self._interval(outcome, predicted)
        return Fit(name, self.metric, score(self.task, outcome, predicted), low, high, how)

    def _interval(self, outcome: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
        groups = np.unique(self.clusters, return_inverse=True)[1]
        members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
        rng = np.random.default_rng(self.seed)
        draws = []
        for _ in range(self.bootstrap):
            rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
            draws.append(score(self.task, outcome[rows], predicted[rows]))
        finite = np.array(draws)[np.isfinite(draws)] if draws else np.array([])
        if finite.size < 20:
            return (np.nan, np.nan)
        low, high = np.percentile(finite, [2.5, 97.5])
        return float(low), float(high)


def score(task: str, outcome: np.ndarray, predicted: np.ndarray) -> float:
    """R² for regression (may be negative), AUC otherwise; NaN when the outcome is constant."""
    if task == "regression":
        spread = ((outcome - outcome.mean()) ** 2).sum()
        return float(1 - ((outcome - predicted) ** 2).sum() / spread) if spread > 0 else np.nan
    ones = outcome == 1
    n_ones, n_zeros = int(ones.sum()), int((~ones).sum())
    if not n_ones or not n_zeros:
        return np.nan
    from scipy.stats import rankdata

    ranks = rankdata(predicted)
    return float((ranks[ones].sum() - n_ones * (n_ones + 1) / 2) / (n_ones * n_zeros))


def trained(x: Matrix, y: np.ndarray, clusters: np.ndarray, x_holdout: Matrix, task: str) -> np.ndarray:
    """Predict the holdout from a ridge or L2-logistic model fitted elsewhere; its penalty by 5 folds of clusters."""
    model = _with_chosen_penalty(x, y, clusters, task)
    return _predict(model, x_holdout, task)


def cross_fitted(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, task: str, *, folds: int, seed: int) -> np.ndarray:
    """Predictions (n,) of each row by a lightly penalised linear or logistic model that never saw its cluster."""
    predicted = np.zeros(len(y))
    for train, test in cluster_folds(clusters, folds, seed):
        if task != "regression" and len(np.unique(y[train])) < 2:
            predicted[test] = 0.0
            continue
        predicted[test] = _predict(_model(task, 1.0).fit(x[train], y[train]), x[test], task)
    return predicted


def floor(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, task: str, *, folds: int, seed: int, permutations: int = 20
) -> np.ndarray:
    """Fit of the same predictors to permuted outcomes: (permutations,) scores of what chance alone gives."""
    rng = np.random.default_rng(seed)
    scores = []
    for _ in range(permutations):
        shuffled = rng.permutation(y)
        predicted = cross_fitted(x, shuffled, clusters, task, folds=folds, seed=seed)
        scores.append(score(task, shuffled, predicted))
    return np.array(scores)


def cluster_folds(clusters: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shuffled folds that keep clusters whole; fewer folds when there are fewer clusters."""
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    folds = max(2, min(folds, n_groups))
    fold_of_group = np.random.default_rng(seed).permutation(n_groups) % folds
    fold = fold_of_group[groups]
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(folds) if (fold == f).any()]


def _with_chosen_penalty(x: Matrix, y: np.ndarray, clusters: np.ndarray, task: str) -> Any:
    grid = np.logspace(-2, 3, 6) if task == "regression" else np.logspace(-2, 2, 5)
    folds = cluster_folds(clusters, 5, 0)
    losses = []
    for penalty in grid:
        values = []
        for train, test in folds:
            if task != "regression" and len(np.unique(y[train])) < 2:
                continue
            predicted = _predict(_model(task, penalty).fit(x[train], y[train]), x[test], task)
            values.append(score(task, y[test], predicted))
        losses.append(np.nanmean(values) if np.isfinite(values).any() else -np.inf)
    return _model(task, float(grid[int(np.argmax(losses))])).fit(x, y)


def _model(task: str, penalty: float) -> Any:
    from sklearn.linear_model import LogisticRegression, Ridge

    if task == "regression":
        return Ridge(alpha=penalty)
    # A pair turned round must give the opposite answer, so a pairwise model has no intercept.
    return LogisticRegression(C=1.0 / penalty, fit_intercept=task == "classification", max_iter=2000)


def _predict(model: Any, x: Matrix, task: str) -> np.ndarray:
    predict: Callable[[Matrix], np.ndarray] = model.predict if task == "regression" else model.decision_function
    return np.asarray(predict(x), dtype=np.float64)
