"""Regression estimates whose uncertainty survives dependence within clusters, one way or several ways.

Where clusters are few or unequal the restricted wild cluster bootstrap decides.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np


def sharing_variance(scores: np.ndarray, units: np.ndarray) -> np.ndarray:
    """(k,) sums over pairs of rows that share a unit of the products of their scores (n, k).

    Units (n, u) int64 are a few per row, numbered so that no number names two; a row may name one twice. At least the
    sum of squared scores, below which few units may push the estimate.
    """
    total = np.zeros(scores.shape[1])
    ordered = np.sort(units, axis=1)
    for size in range(1, units.shape[1] + 1):
        rows, parts = [], []
        for chosen in combinations(range(units.shape[1]), size):
            part = ordered[:, chosen]
            distinct = (np.diff(part, axis=1) != 0).all(axis=1)
            rows.append(np.flatnonzero(distinct))
            parts.append(part[distinct])
        row, groups = _without_repeats(np.concatenate(rows), np.concatenate(parts))
        sums = np.column_stack([np.bincount(groups, scores[row, k]) for k in range(scores.shape[1])])
        squares = (sums**2).sum(axis=0)
        total += squares if size % 2 else -squares
    return np.maximum(total, (scores**2).sum(axis=0))


def _without_repeats(rows: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and the number of each set of units; a row that names one unit twice has each set once."""
    sets = found[:, 0]
    for column in found.T[1:]:
        sets = np.unique(sets * (int(found.max(initial=0)) + 1) + column, return_inverse=True)[1]
    n_sets = int(sets.max(initial=-1)) + 1
    once = np.unique(rows * n_sets + sets)
    return once // max(n_sets, 1), once % max(n_sets, 1)


# Directions in which one cluster alone decides (leverage 1) carry no information about its own error.
_SATURATED = 1e-9
_EXACT = 1e-12
_LARGEST_LOGIT = 20.0
# Doubles of the p × p matrices of one block of clusters: 32 MB.
_BLOCK_ELEMENTS = 2**22


@dataclass(frozen=True)
class Effect:
    """An estimate in units of the outcome with its cluster-robust uncertainty; NaN where it cannot be estimated.

    `low` and `high` are the 95 % interval, the p-value is two-sided, of no effect; both by a t distribution.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float
    estimator: str
    degrees_of_freedom: float = np.nan


NO_EFFECT_ESTIMATED = Effect(np.nan, np.nan, np.nan, np.nan, np.nan, "none")


def cluster_ols(
    x: np.ndarray,
    y: np.ndarray,
    clusters: np.ndarray,
    name: str,
    *,
    exchangeable: bool = True,
    units: np.ndarray | None = None,
) -> list[Effect]:
    """Least squares of y (n,) on x (n, p) with the larger of CR2 and the model-based standard error.

    x is of full column rank, with its constant column if there is one. The model-based variance estimates one
    correlation within clusters (n,); where rows are not `exchangeable` (pairs have no orientation) it is not defined,
    and zero. `units` (n, u) int64 are one or two further units that rows of several clusters share.

    Returns:
        One effect per column of x; `NO_EFFECT_ESTIMATED` for all where there are fewer than two clusters or no
        residual degree of freedom.
    """
    n, p = x.shape
    groups = np.unique(clusters, return_inverse=True)[1]
    if groups.max(initial=0) < 1 or n <= p:
        return [NO_EFFECT_ESTIMATED] * p
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ y)
    residual = y - x @ beta
    directions = np.linalg.inv(r)  # row j: the coefficient j is directions[j] @ q.T @ y
    correlation = within_correlation(residual, groups) if exchangeable else 0.0
    weights = q @ directions.T  # (n, p): the coefficient j is weights[:, j] @ y
    whole = whole_clusters(weights, groups)
    variances, freedom = _cr2(q, residual, directions, groups, correlation * whole)
    model = _moulton(weights, groups, correlation, float(residual @ residual) / (n - p))
    variances = np.maximum(variances, model * np.maximum(whole, _lumpiness(y)))
    if units is not None:
        shared, most = _shared(q, residual, directions, groups, units)
        variances, freedom = np.maximum(variances, shared), np.minimum(freedom, most)
    errors = np.sqrt(variances)
    errors[errors < _EXACT * max(float(np.abs(y).max()), 1.0)] = 0.0
    return [effect(float(beta[j]), float(errors[j]), float(freedom[j]), name) for j in range(p)]


def effect(estimate: float, standard_error: float, degrees_of_freedom: float, name: str) -> Effect:
    """Student's t interval and test; an exact fit (standard error 0) has p = 0 unless the estimate is 0 too."""
    from scipy import stats

    if not (np.isfinite(estimate) and np.isfinite(standard_error) and degrees_of_freedom > 0):
        return NO_EFFECT_ESTIMATED
    if standard_error == 0:
        p_value = 0.0 if abs(estimate) > _EXACT else 1.0
    else:
        p_value = float(2 * stats.t.sf(abs(estimate) / standard_error, degrees_of_freedom))
    reach = float(stats.t.ppf(0.975, degrees_of_freedom)) * standard_error
    return Effect(estimate, standard_error, estimate - reach, estimate + reach, p_value, name, degrees_of_freedom)


def _shared(
    q: np.ndarray, residual: np.ndarray, directions: np.ndarray, groups: np.ndarray, units: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Variances (k,) over all pairs of rows that share a cluster or unit, and the degrees of freedom units leave (k,).

    What single units contribute is by leaving each out (a jackknife), since a unit on which an estimate leans has small
    residuals; the degrees of freedom are the effective number of units, by the square of their weight, less one.
    """
    weights = q @ directions.T
    numbers = np.unique(units, return_inverse=True)[1].reshape(units.shape)
    n_units = int(numbers.max()) + 1
    scores = weights * residual[:, None]
    variances = sharing_variance(scores, np.column_stack([numbers, groups + n_units]))
    rows = np.repeat(np.arange(len(q)), units.shape[1])
    pairs = np.unique(rows * n_units + numbers.ravel())
    row, unit = pairs // n_units, pairs % n_units
    plain = np.column_stack([np.bincount(unit, scores[row, k], n_units) for k in range(len(directions))])
    left_out = _left_out(q[row], residual[row], directions, unit)
    variances = variances + np.maximum((left_out**2).sum(axis=0) - (plain**2).sum(axis=0), 0.0)
    load = np.column_stack([np.bincount(unit, np.abs(weights[row, k]), n_units) for k in range(len(directions))]) ** 2
    effective = load.sum(axis=0) ** 2 / np.maximum((load**2).sum(axis=0), np.finfo(np.float64).tiny)
    return variances, np.maximum(effective - 1, 0.0)


def _left_out(q: np.ndarray, residual: np.ndarray, directions: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(groups, k) change of each estimate when a group's rows are left out."""
    made = []
    for _, _, scores, open_, vectors in _blocks(q, residual, groups):
        grown = np.where(open_ > _SATURATED, 1.0 / np.maximum(open_, _SATURATED), 0.0)
        made.append(np.einsum("gij,gj,glj,gl,ki->gk", vectors, grown, vectors, scores, directions, optimize=True))
    return np.concatenate(made)


def _blocks(
    q: np.ndarray, residual: np.ndarray, groups: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Clusters, as many at a time as memory allows.

    Which they are, their Gram matrices K_g = Q_g' Q_g, their scores Q_g' e_g, and of I - K_g the eigenvalues, between 0
    and 1, and the eigenvectors.
    """
    p, n_groups = q.shape[1], int(groups.max()) + 1
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(n_groups + 1))
    step = max(1, _BLOCK_ELEMENTS // p**2)
    for start in range(0, n_groups, step):
        stop = min(start + step, n_groups)
        rows = order[first[start] : first[stop]]
        columns, of = q[rows].T, groups[rows] - start
        gram = np.empty((stop - start, p, p))
        for i in range(p):
            for j in range(i + 1):
                gram[:, i, j] = gram[:, j, i] = np.bincount(of, columns[i] * columns[j])
        scores = np.column_stack([np.bincount(of, column * residual[rows]) for column in columns])
        leverage, vectors = np.linalg.eigh(gram)
        yield slice(start, stop), gram, scores, 1.0 - np.clip(leverage, 0.0, 1.0), vectors


def whole_clusters(weights: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """How far each column of weights (n, k) belongs to whole clusters: the share of its squares between them, (k,)."""
    sizes = np.maximum(np.bincount(groups), 1)
    between = [float((np.bincount(groups, column) ** 2 / sizes).sum()) for column in weights.T]
    return np.array(between) / np.maximum((weights**2).sum(axis=0), np.finfo(np.float64).tiny)


def _lumpiness(y: np.ndarray) -> float:
    """Twice the share of the most common outcome, at most 1: how soon a few rows all have one outcome by chance."""
    return min(1.0, 2.0 * float(np.unique(y, return_counts=True)[1].max()) / len(y))


def within_correlation(residual: np.ndarray, groups: np.ndarray) -> float:
    """Correlation of residuals within clusters (numbered from 0), between 0 and 1; 0 where no cluster has two rows.

    A cluster counts by its rows less one, not by its pairs of rows: the residuals of one that holds most of them are
    near 0 by the fit, and would say that there is no correlation.
    """
    sizes = np.bincount(groups)
    total = float(residual @ residual)
    if (sizes == 1).all() or total == 0:
        return 0.0
    within = np.bincount(groups, residual) ** 2 - np.bincount(groups, residual**2)
    mean = float((within / sizes).sum() / (sizes - 1).sum())
    return min(max(mean / (total / len(residual)), 0.0), 1.0)


def _cr2(
    q: np.ndarray,
    residual: np.ndarray,
    directions: np.ndarray,
    groups: np.ndarray,
    correlation: float | np.ndarray = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """CR2 variances (k,) and degrees of freedom (k,) of directions (k, p), errors equally correlated within clusters.

    `correlation` is one for all directions or (k,).

    With Q the orthonormal columns, K_g = Q_g' Q_g and B_g = (I - K_g)^(-1/2), the adjusted residuals of cluster g
    enter as Q_g B_g, since (I - Q_g Q_g')^(-1/2) Q_g = Q_g B_g: nothing larger than p × p per cluster is needed, and
    every figure is a sum over clusters, so a block of clusters at a time is enough.

    The degrees of freedom are trace(W)² / trace(W²) (Imbens and Kolesár 2016). With carried_g = Q_g' a_g and size_g =
    a_g' a_g of cluster g's weights a_g, s_g their sum, t_g the column sums of Q_g, T the sum of t_g t_g' and r the
    correlation,

        W[g, h] = delta ((1 - r) size_g + r s_g²) + carried_g' (r T - (1 - r) I) carried_h - b_g' carried_h - carried_g'
        b_h,  b_g = r s_g t_g,

    a diagonal and a form of rank 2 p, so W is never made.
    """
    p, k = q.shape[1], len(directions)
    variances, trace, square = np.zeros(k), np.zeros(k), np.zeros(k)
    cross = np.zeros((k, 2 * p, 2 * p))
    sums = np.column_stack([np.bincount(groups, column) for column in q.T])
    rho, turn = np.broadcast_to(correlation, (k,)), np.eye(p)
    forms = [np.block([[r * sums.T @ sums - (1 - r) * turn, -turn], [-turn, np.zeros((p, p))]]) for r in rho]
    for block, gram, scores, open_, vectors in _blocks(q, residual, groups):
        shrink = np.where(open_ > _SATURATED, 1.0 / np.sqrt(np.maximum(open_, _SATURATED)), 0.0)
        for j, direction in enumerate(directions):
            along = np.einsum("gij,gj,gkj,k->gi", vectors, shrink, vectors, direction, optimize=True)
            variances[j] += (np.einsum("gi,gi->g", along, scores) ** 2).sum()
            carried = np.einsum("gij,gj->gi", gram, along)
            totals = np.einsum("gi,gi->g", along, sums[block])
            size = (1 - rho[j]) * np.einsum("gi,gi->g", along, carried) + rho[j] * totals**2
            both = np.column_stack([carried, rho[j] * totals[:, None] * sums[block]])
            overlap = np.einsum("gi,ij,gj->g", both, forms[j], both, optimize=True)
            trace[j] += size.sum() + overlap.sum()
            square[j] += (size**2).sum() + 2 * (size * overlap).sum()
            cross[j] += both.T @ both
    for j in range(k):
        turned = forms[j] @ cross[j]
        square[j] += np.trace(turned @ turned)
    return variances, np.where(square > 0, trace**2 / np.where(square > 0, square, 1.0), 0.0)


def _moulton(weights: np.ndarray, groups: np.ndarray, correlation: float, error_variance: float) -> np.ndarray:
    """Variances (k,) of estimates weights.T @ y, weights (n, k), under one error variance and one correlation."""
    sums = np.column_stack([np.bincount(groups, column) for column in weights.T])
    within = (1 - correlation) * (weights**2).sum(axis=0) + correlation * (sums**2).sum(axis=0)
    return np.asarray(error_variance * within)


def logit_margins(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, wanted: int, *, exchangeable: bool = True, share: float = 1.0
) -> list[Effect] | None:
    """Average marginal effects of a logit: the mean over rows of the derivative of P(y = 1) to each column.

    With w = p(1 - p), the effect of column j is beta_j mean(w); its variance is by the delta method, as for least
    squares on the last step of the fit (columns sqrt(w) x, residuals (y - p) / sqrt(w)): the larger of CR2 and the
    model-based variance, with Bell and McCaffrey's degrees of freedom. In a pair design x changes from 0 to 1 when
    only text A has the concept, so the effect is in units of A's probability to win, and since w is the same for p
    and 1 - p it does not matter which text is called A.

    Arguments are those of `cluster_ols`, y 0 or 1. These rows are a `share` of all where the others were predicted
    perfectly and have w = 0.

    Returns:
        Effects of the `wanted` first columns, or None when the fit does not converge or columns separate the classes.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    if groups.max(initial=0) < 1 or len(np.unique(y)) < 2:
        return None
    if wanted == 0:
        return []
    fitted = _fit_logit(x, y)
    if fitted is None:
        return None
    beta, probability = fitted
    weight = probability * (1 - probability)
    slope = (weight * (1 - 2 * probability)) @ x / len(y)
    gradients = beta[:wanted, None] * slope + weight.mean() * np.eye(wanted, len(beta))
    root = np.sqrt(weight)
    try:
        q, r = np.linalg.qr(root[:, None] * x)
        directions = np.linalg.solve(r.T, gradients.T).T
    except np.linalg.LinAlgError:
        return None
    residual = (y - probability) / np.maximum(root, np.finfo(np.float64).tiny)
    correlation = within_correlation(residual, groups) if exchangeable else 0.0
    variances, freedom = _cr2(q, residual, directions, groups, correlation)
    # Standardised residuals have variance 1.
    model = _moulton(q @ directions.T, groups, correlation, 1.0)
    errors = share * np.sqrt(np.maximum(variances, model))
    margins = share * beta[:wanted] * weight.mean()
    name = "logit average marginal effect"
    return [effect(float(margins[j]), float(errors[j]), float(freedom[j]), name) for j in range(wanted)]


def _fit_logit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients and probabilities of a logit, or None where it does not converge or the classes are separated."""
    import warnings

    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PerfectSeparationWarning)
        try:
            fit = sm.Logit(y, x).fit(disp=0, maxiter=100)
        except (PerfectSeparationError, PerfectSeparationWarning, np.linalg.LinAlgError):
            return None
    beta, covariance = np.asarray(fit.params), np.asarray(fit.cov_params())
    usable = fit.mle_retvals["converged"] and np.isfinite(covariance).all()
    if not usable or np.abs(beta).max() > _LARGEST_LOGIT:
        return None
    return beta, np.asarray(fit.predict(x))


_WEBB = np.sqrt([1.5, 1.0, 0.5])
_WEBB_CLUSTERS = 30
_SEED = 20_261_129
DRAWS = 1_999


@dataclass(frozen=True)
class WildTest:
    """What resampling says of one coefficient: a two-sided p, at least 1 / (draws + 1), and half a 95 % interval.

    The `reach` is from the 95th percentile of |t| under the null.
    """

    p_value: float
    reach: float


def wild_cluster_test(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, draws: int = DRAWS) -> WildTest | None:
    """Test the coefficient of the first column of x (n, p), of full rank, p > 1, on y (n,).

    Groups (n,) int64 are numbered from 0, at least two. None where the fit leaves no residual to resample.
    """
    n_groups = int(groups.max()) + 1
    others = np.linalg.qr(x[:, 1:])[0]
    column = x[:, 0] - others @ (others.T @ x[:, 0])
    restricted = y - others @ (others.T @ y)
    square = float(column @ column)
    q = np.column_stack([column / np.sqrt(square), others])
    left = restricted - column * float(column @ restricted) / square
    seen_scores = np.bincount(groups, column * left, n_groups)
    error = float(np.sqrt(seen_scores @ seen_scores))
    if not error > 1e-9 * float(np.abs(column * restricted).sum()):
        return None
    scores = np.bincount(groups, column * restricted, n_groups)
    along = np.column_stack([np.bincount(groups, column * q[:, k], n_groups) for k in range(q.shape[1])])
    fitted = np.column_stack([np.bincount(groups, q[:, k] * restricted, n_groups) for k in range(q.shape[1])])
    weights = _weights(n_groups, draws)
    spread = ((scores[:, None] * weights - along @ (fitted.T @ weights)) ** 2).sum(axis=0)
    t = np.abs(scores @ weights) / np.sqrt(np.maximum(spread, np.finfo(np.float64).tiny))
    seen = abs(float(scores.sum())) / error
    p_value = (1 + int((t >= seen * (1 - 1e-9)).sum())) / (draws + 1)
    return WildTest(p_value, float(np.quantile(t, 0.95)) * error / square)


@lru_cache(maxsize=8)
def _weights(n_groups: int, draws: int) -> np.ndarray:
    """(clusters, draws) of mean 0 and variance 1, the same for the same number of clusters."""
    rng = np.random.default_rng([_SEED, n_groups])
    signs = rng.integers(0, 2, size=(n_groups, draws)) * 2.0 - 1.0
    if n_groups > _WEBB_CLUSTERS:
        return signs
    return signs * rng.choice(_WEBB, size=(n_groups, draws))
