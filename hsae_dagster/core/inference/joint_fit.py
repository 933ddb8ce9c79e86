"""How much of the outcome all hypotheses predict together, and the ladder: what each step keeps of it.

Also what concepts share: how far two yes/no answers go together, and families of which one is tested.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp


def phis(common: np.ndarray, first: np.ndarray | int, second: np.ndarray | int, n: np.ndarray | int) -> np.ndarray:
    """φ of yes/no answers to n texts, float64: `first` and `second` say yes to so many, and both to `common`.

    Counts of any shapes that go together. 0 where either answer does not vary.
    """
    both, a, b, all_ = (np.asarray(count, dtype=np.float64) for count in (common, first, second, n))
    spread = np.sqrt(a * (all_ - a) * b * (all_ - b))
    return np.where(spread > 0, (all_ * both - a * b) / np.where(spread > 0, spread, 1.0), 0.0)


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """φ of two answers (n,) bool; 0 where one does not vary."""
    return float(phis((first & second).sum(), first.sum(), second.sum(), len(first)))


def phi_matrix(first: sp.spmatrix, second: sp.spmatrix) -> np.ndarray:
    """φ of each of m answers (n, m) with each of q (n, q), sparse, whatever is not 0 being a yes: (m, q) float64."""
    one, other = (sp.csr_matrix(matrix != 0, dtype=np.float64) for matrix in (first, second))
    a, b = (np.asarray(answers.sum(axis=0)).ravel() for answers in (one, other))
    return phis((one.T @ other).toarray(), a[:, None], b, first.shape[0])


# Annotations that agree less may still be one concept when the words are nearly the same.
_PHI_WITH_WORDS, _WORDS = 0.5, 0.6
_WORD = re.compile(r"\w+")
_FRAME = {"uses", "words", "such", "as", "the", "a", "an", "of", "or", "and", "that", "is", "about"}


@dataclass(frozen=True)
class Member:
    """A concept, by position, that another one stands for; phi is negative for the opposite concept."""

    position: int
    phi: float


def families(answers: np.ndarray, claims: Sequence[str], threshold: float) -> dict[int, tuple[Member, ...]]:
    """Representatives, by position, with the members they stand for, in order.

    In order, each concept joins the first representative that it nearly repeats, or becomes one: |phi| of at least
    `threshold`, or of at least 0.5 where at least 0.6 of their words (Jaccard) are shared. Members are near their
    representative, not just near one another, so families do not grow by chains. With a threshold above 1 every concept
    is its own family. Answers are (texts, concepts) int8: 1 yes, 0 no, -1 missing; claims in order of preference.
    """
    found: dict[int, list[Member]] = {}
    for j in range(answers.shape[1]):
        for leader, members in found.items():
            alike = likeness((answers[:, leader], answers[:, j]), (claims[leader], claims[j]), threshold)
            if alike is not None:
                members.append(Member(j, alike))
                break
        else:
            found[j] = []
    return {leader: tuple(members) for leader, members in found.items()}


def likeness(answers: tuple[np.ndarray, np.ndarray], claims: tuple[str, str], threshold: float) -> float | None:
    """φ of two concepts that say nearly the same, by the rule of `families`; None where they do not.

    Answers are (texts,) int8: 1 yes, 0 no, -1 missing.
    """
    found = phi_where_given(*answers)
    same_words = words_shared(*claims) >= _WORDS and threshold <= 1
    return found if abs(found) >= threshold or (same_words and found >= _PHI_WITH_WORDS) else None


def phi_where_given(first: np.ndarray, second: np.ndarray) -> float:
    """φ of two annotations, int8, over texts where both are given; 0 where either does not vary there."""
    both = (first >= 0) & (second >= 0)
    return phi(first[both] == 1, second[both] == 1)


def words_shared(first: str, second: str) -> float:
    """Jaccard index of the content words of two claims."""
    a, b = (set(_WORD.findall(claim.lower())) - _FRAME for claim in (first, second))
    return len(a & b) / len(a | b) if a | b else 0.0


Matrix: TypeAlias = np.ndarray | sp.csr_matrix

# Fewest clusters in a fold of a 0/1 outcome: comparisons within folds need both classes there.
_CLUSTERS_PER_FOLD = 5


@dataclass(frozen=True)
class Fit:
    """Out-of-sample fit of one set of predictors, by name: its `R2` or `AUC`, `trained` or `cross-fitted`.

    `low` and `high` are the 95 % cluster-bootstrap interval (NaN without bootstrap).
    """

    name: str
    metric: str
    value: float
    low: float
    high: float
    how: str


@dataclass(frozen=True)
class Predictions:
    """Out-of-sample predictions, and which of them came from one model.

    Attributes:
        values: (n,) float64; linear predictors for 0/1 outcomes.
        folds: (n,) int, the fold each row was left out in; one number throughout where one model predicted all.
    """

    values: np.ndarray
    folds: np.ndarray


@dataclass(frozen=True)
class Score:
    """How to score predictions of a task, and how surely: by so many bootstrap draws of holdout clusters, (n,) keys."""

    task: str
    clusters: np.ndarray
    bootstrap: int
    seed: int

    def fit(self, name: str, how: str, outcome: np.ndarray, predicted: Predictions) -> Fit:
        """Score predictions (n,) against outcomes (n,)."""
        measure = _measure(self.task, outcome, predicted.values, predicted.folds)
        metric = "R2" if self.task == "regression" else "AUC"
        return Fit(name, metric, measure(np.ones(len(outcome))), *self._interval(measure), how)

    def _interval(self, measure: Callable[[np.ndarray], float]) -> tuple[float, float]:
        """Percentiles over draws of whole clusters, a drawn row weighing as often as it was drawn."""
        groups = np.unique(self.clusters, return_inverse=True)[1]
        n_groups = int(groups.max()) + 1
        rng = np.random.default_rng(self.seed)
        drawn = (rng.integers(n_groups, size=n_groups) for _ in range(self.bootstrap))
        draws = np.array([measure(np.bincount(draw, minlength=n_groups)[groups].astype(float)) for draw in drawn])
        finite = draws[np.isfinite(draws)]
        if finite.size < 20:
            return (np.nan, np.nan)
        low, high = np.percentile(finite, [2.5, 97.5])
        return float(low), float(high)


def averaged(ladders: Sequence[Sequence[Fit]]) -> tuple[Fit, ...]:
    """The same rungs measured on several disjoint sets of rows, as means; only those that all have.

    Each end of an interval is as far from the mean as independent errors of the parts put it.
    """
    first, *others = ladders
    if not others:
        return tuple(first)
    named = [{fit.name: fit for fit in fits} for fits in others]
    found = []
    for fit in first:
        if all(fit.name in fits for fits in named):
            parts = [fit, *(fits[fit.name] for fits in named)]
            value = float(np.mean([part.value for part in parts]))
            below, above = (
                float(np.sqrt(sum((getattr(part, end) - part.value) ** 2 for part in parts))) / len(parts)
                for end in ("low", "high")
            )
            how = f"{fit.how}, mean of halves"
            found.append(replace(fit, value=value, low=value - below, high=value + above, how=how))
    return tuple(found)


def averaged_floor(floors: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(mean, 95th percentile) of a mean of fits to chance, from those of its independent parts."""
    if len(floors) == 1:
        return floors[0]
    mean = float(np.mean([low for low, _ in floors]))
    spread = float(np.sqrt(sum((high - low) ** 2 for low, high in floors))) / len(floors)
    return mean, mean + spread


def score(task: str, outcome: np.ndarray, predicted: np.ndarray, folds: np.ndarray | None = None) -> float:
    """R² for regression (may be negative), AUC otherwise; NaN when the outcome (n,) is constant.

    With folds (n,) int, AUC compares rows of the same fold only, and R² holds each fold against the others' mean.
    """
    return _measure(task, outcome, predicted, folds)(np.ones(len(outcome)))


def _measure(
    task: str, outcome: np.ndarray, predicted: np.ndarray, folds: np.ndarray | None
) -> Callable[[np.ndarray], float]:
    """The score as a function of row weights (n,), with everything that weights do not change done once."""
    strata = np.zeros(len(outcome), dtype=np.int64) if folds is None else folds
    if task == "regression":
        return _r_squared(outcome, predicted, strata)
    if task == "classification":
        return _area(outcome, predicted, strata)
    both_ways = _area(
        np.concatenate([outcome, 1 - outcome]), np.concatenate([predicted, -predicted]), np.tile(strata, 2)
    )
    return lambda weights: both_ways(np.tile(weights, 2))


def _r_squared(outcome: np.ndarray, predicted: np.ndarray, folds: np.ndarray) -> Callable[[np.ndarray], float]:
    """1 - squared error / squared error of the mean; with several folds, of the mean of the other folds.

    A model that did not see a fold must not be held against a mean that did (Hawinkel, Waegeman and Maere 2023,
    "Out-of-sample R²: estimation and inference").
    """
    squared_error = (outcome - predicted) ** 2
    fold = np.unique(folds, return_inverse=True)[1]
    n_folds = int(fold.max(initial=0)) + 1

    def r_squared(weights: np.ndarray) -> float:
        weight, total = (np.bincount(fold, values, n_folds) for values in (weights, weights * outcome))
        if n_folds > 1:
            weight, total = weight.sum() - weight, total.sum() - total
        if not (weight > 0).all():
            return np.nan
        spread = float(weights @ (outcome - (total / weight)[fold]) ** 2)
        return 1 - float(weights @ squared_error) / spread if spread > 0 else np.nan

    return r_squared


def _area(outcome: np.ndarray, predicted: np.ndarray, strata: np.ndarray) -> Callable[[np.ndarray], float]:
    """AUC over comparisons of a one and a zero of the same stratum; ties count half."""
    # Places of distinct predictions, stratum by stratum: what lies before a place in its stratum is predicted lower.
    order = np.lexsort((predicted, strata))
    ahead = (np.diff(strata[order]) != 0) | (np.diff(predicted[order]) != 0)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.concatenate([[0], np.cumsum(ahead)])
    n_places = int(place.max(initial=-1)) + 1
    stratum_of_place = np.empty(n_places, dtype=np.int64)
    stratum_of_place[place] = np.unique(strata, return_inverse=True)[1]
    first = np.searchsorted(stratum_of_place, stratum_of_place)
    ones = outcome == 1

    def area(weights: np.ndarray) -> float:
        at_one = np.bincount(place, weights * ones, n_places)
        at_zero = np.bincount(place, weights * ~ones, n_places)
        lower = np.cumsum(at_zero) - at_zero
        won = at_one @ (lower - lower[first] + at_zero / 2)
        compared = np.bincount(stratum_of_place, at_one) @ np.bincount(stratum_of_place, at_zero)
        return float(won / compared) if compared > 0 else np.nan

    return area


def trained(x: Matrix, y: np.ndarray, clusters: np.ndarray, x_holdout: Matrix, task: str) -> Predictions:
    """Predict the holdout from a ridge or L2-logistic model fitted elsewhere.

    Its penalty is that of the best mean score over 5 folds of clusters, the strongest of equals.
    """
    grid = np.logspace(3, -2, 6) if task == "regression" else np.logspace(2, -2, 5)
    folds = cluster_folds(clusters, 5, 0)
    means = []
    for penalty in grid:
        scores = []
        for train, test in folds:
            if task == "classification" and len(np.unique(y[train])) < 2:
                continue
            predicted = _fitted(task, float(penalty), x[train], y[train])(x[test])
            scores.append(score(task, y[test], predicted))
        means.append(float(np.nanmean(scores)) if np.isfinite(scores).any() else -np.inf)
    values = _fitted(task, float(grid[int(np.argmax(means))]), x, y)(x_holdout)
    return Predictions(values, np.zeros(len(values), dtype=np.int64))


def cross_fitted(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, task: str, *, folds: int, seed: int
) -> Predictions:
    """Predictions of each row by a lightly penalised linear or logistic model that never saw its cluster.

    Columns are brought to the scale of the training folds, so that the penalty weighs them alike. For 0/1 outcomes
    there are no more folds than leave five clusters in each. Without columns every row gets the mean of the others.
    """
    x = x if x.shape[1] else np.zeros((len(y), 1))
    n_groups = len(np.unique(clusters))
    if task != "regression":
        folds = min(folds, max(2, n_groups // _CLUSTERS_PER_FOLD))
    values, fold_of = np.zeros(len(y)), np.zeros(len(y), dtype=np.int64)
    for fold, (train, test) in enumerate(cluster_folds(clusters, folds, seed)):
        fold_of[test] = fold
        if task == "classification" and len(np.unique(y[train])) < 2:
            continue
        # Pairs have no centre: their differences are scaled about zero, so that turning one round changes nothing.
        scale = np.sqrt((x[train] ** 2).mean(axis=0)) if task == "pairwise" else x[train].std(axis=0)
        scaled = x / np.where(scale > 0, scale, 1.0)
        values[test] = _fitted(task, 1.0, scaled[train], y[train])(scaled[test])
    return Predictions(values, fold_of)


def floor(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, task: str, *, folds: int, seed: int, permutations: int = 20
) -> np.ndarray:
    """Fit of the same predictors to outcomes without any relation to them: (permutations,) scores of chance alone.

    Clusters keep their outcomes: they are dealt to other clusters as blocks. For pairs, all pairs of a cluster are
    turned round or none is, since an outcome means nothing without its pair.
    """
    rng = np.random.default_rng(seed)
    groups = np.unique(clusters, return_inverse=True)[1]
    scores = []
    for _ in range(permutations):
        shuffled = without_relation(y, groups, task, rng)
        predicted = cross_fitted(x, shuffled, clusters, task, folds=folds, seed=int(rng.integers(2**31)))
        scores.append(score(task, shuffled, predicted.values, predicted.folds))
    return np.array(scores)


def without_relation(y: np.ndarray, groups: np.ndarray, task: str, rng: np.random.Generator) -> np.ndarray:
    """Outcomes (n,) dealt anew to whole clusters (see `floor`); `groups` (n,) int numbers them from 0."""
    n_groups = int(groups.max()) + 1
    if task == "pairwise":
        turned = rng.random(n_groups)[groups] < 0.5
        return np.where(turned, 1 - y, y)
    values = np.full(n_groups, np.nan)
    values[groups] = y
    if n_groups < len(y) and np.array_equal(values[groups], y):
        # The outcome belongs to clusters, and so does the permuted one.
        return np.asarray(rng.permutation(values)[groups])
    shuffled = np.empty_like(y)
    # Blocks differ in size, so they are laid end to end in a new order over the rows in the old one.
    shuffled[np.argsort(groups, kind="stable")] = y[np.lexsort((rng.random(len(y)), rng.permutation(n_groups)[groups]))]
    return shuffled


def cluster_folds(clusters: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Shuffled folds that keep clusters whole; fewer folds when there are fewer clusters."""
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    folds = max(2, min(folds, n_groups))
    fold = (np.random.default_rng(seed).permutation(n_groups) % folds)[groups]
    return [(np.flatnonzero(fold != f), np.flatnonzero(fold == f)) for f in range(folds) if (fold == f).any()]


def _fitted(task: str, penalty: float, x: Matrix, y: np.ndarray) -> Callable[[Matrix], np.ndarray]:
    """The linear predictor of a ridge or L2-logistic fit."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if task == "regression":
        ridge = Ridge(alpha=penalty).fit(x, y)
        return lambda rows: np.asarray(ridge.predict(rows), dtype=np.float64)
    if task == "pairwise":
        # A pair turned round must give the opposite answer, so there is no intercept. And which text is called A must
        # not matter to the solver either (all pairs may have been won by A): every second winner is put first.
        first = np.arange(len(y)) % 2 == 0
        turn = np.where((y == 1) == first, 1.0, -1.0)
        x, y = (sp.diags_array(turn) @ x).tocsr() if sp.issparse(x) else turn[:, None] * x, first.astype(np.float64)
    intercept = task == "classification"
    if sp.issparse(x):
        # liblinear penalises the intercept; scaled by 10, a hundredth as much.
        model = LogisticRegression(C=1 / penalty, solver="liblinear", fit_intercept=intercept, intercept_scaling=10)
    else:
        model = LogisticRegression(C=1 / penalty, fit_intercept=intercept, max_iter=2000)
    model.fit(x, y)
    return lambda rows: np.asarray(model.decision_function(rows), dtype=np.float64)


EMBEDDINGS = "embeddings (ceiling)"
WORDS = "words (TF-IDF)"
ALL_NEURONS = "all neurons"
SELECTED = "selected neurons"
FIRED = "selected neurons, fired or not"
CONCEPTS = "concepts"
CONTROLS = "length and controls alone"
# From the ceiling down; words and controls stand beside the ladder.
RUNGS = (EMBEDDINGS, ALL_NEURONS, SELECTED, FIRED, CONCEPTS)
# Least share of the ceiling that a loss must have to be worth a remedy.
_WORTH_NAMING = 0.05

State = Literal["read", "no signal", "not measured"]


@dataclass(frozen=True)
class Step:
    """One step down the ladder, and the share of the ceiling's distance from chance that is lost on it.

    Negative where the lower rung does better.
    """

    above: str
    below: str
    lost: float


@dataclass(frozen=True)
class Reading:
    """What the ladder of one dataset says.

    Attributes:
        state: `read`; `no signal` when the embeddings predict no better than chance might; `not measured` when a
            value of the ceiling or of every rung below it is missing.
        kept: (rung, share of the ceiling kept), from the ceiling down.
        steps: between neighbouring rungs that were measured.
        weakest: the step that loses most, or None when none loses 5 % of the ceiling.
    """

    state: State
    kept: tuple[tuple[str, float], ...]
    steps: tuple[Step, ...]
    weakest: Step | None


def read_ladder(fits: Sequence[Fit], chance: tuple[float, float]) -> Reading:
    """Find where the signal is lost.

    Of fits, in any order, those that are no rungs are ignored; `chance` is mean and 95th percentile of the fit to
    permuted outcomes.
    """
    values = {fit.name: fit.value for fit in fits}
    measured = [(name, values[name]) for name in RUNGS if math.isfinite(values.get(name, math.nan))]
    if len(measured) < 2 or measured[0][0] != EMBEDDINGS or not math.isfinite(chance[0]):
        return Reading("not measured", (), (), None)
    ceiling = measured[0][1]
    if not ceiling > max(chance):
        return Reading("no signal", (), (), None)
    kept = tuple((name, (value - chance[0]) / (ceiling - chance[0])) for name, value in measured)
    steps = tuple(Step(above, below, high - low) for (above, high), (below, low) in pairwise(kept))
    worst = max(steps, key=lambda step: step.lost)
    return Reading("read", kept, steps, worst if worst.lost >= _WORTH_NAMING else None)


@dataclass(frozen=True)
class Rows:
    """Observations that models are fitted to or scored on: (n, columns) dense or CSR by rung, (n,) outcomes, keys."""

    features: Mapping[str, Matrix]
    outcome: np.ndarray
    clusters: np.ndarray


def measure_rungs(learn: Rows, held_out: Rows, scorer: Score, tell: Callable[[str], None]) -> tuple[Fit, ...]:
    """Fit every rung of `learn` with a penalty chosen within it, and score it on rows of other clusters.

    The clusters of `held_out` are those of `scorer`, whose draws rungs share, so that their intervals move together.
    `tell` is called with each rung's name before it is measured.
    """
    fits = []
    for name, features in learn.features.items():
        tell(name)
        predicted = trained(features, learn.outcome, learn.clusters, held_out.features[name], scorer.task)
        fits.append(scorer.fit(name, "trained", held_out.outcome, predicted))
    return tuple(fits)


def chance_level(predictors: np.ndarray, rows: Rows, task: str, *, folds: int, seed: int) -> tuple[float, float]:
    """Mean and 95th percentile of the cross-fitted fit of (n, columns) predictors to permuted outcomes of `rows`."""
    found = floor(predictors, rows.outcome, rows.clusters, task, folds=folds, seed=seed)
    return float(np.mean(found)), float(np.percentile(found, 95))
