"""Regression estimates whose uncertainty survives dependence within clusters, one way or several ways.

One column beside a few others is tested by the law that its t has (`law_of_t`), many at once by Student's t.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np


def sharing_variance(scores: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sum over pairs of rows that share a unit of the products of their scores.

    Args:
        scores: (n, k) float64.
        units: (n, u) int64 of a few units per row, numbered so that no number names two units; a row may name
            a unit twice.

    Returns:
        (k,) float64; at least the sum of squared scores, below which few units may push the estimate.
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

    Attributes:
        estimate: the effect.
        standard_error: of the estimate.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: two-sided, of no effect.
        estimator: its name.
        degrees_of_freedom: of the t distribution behind interval and p.
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
    """Least squares with the larger of CR2 and the model-based standard error.

    Args:
        x: (n, p) float64 of full column rank, with its constant column if there is one.
        y: (n,) float64.
        clusters: (n,) keys.
        name: estimator's name for the record.
        exchangeable: whether the model-based variance estimates one correlation within clusters; False takes it as
            zero, for designs whose rows have no orientation (pairs), where it is not defined.
        units: (n, u) int64 of one or two further units that rows of several clusters share, or None.

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


def _along(direction: np.ndarray, open_: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(clusters, p): B_g times the direction, by which a cluster's residuals enter CR2 (see `_cr2`)."""
    shrink = np.where(open_ > _SATURATED, 1.0 / np.sqrt(np.maximum(open_, _SATURATED)), 0.0)
    return np.einsum("gij,gj,gkj,k->gi", vectors, shrink, vectors, direction, optimize=True)


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
    every figure is a sum over clusters, so a block of clusters at a time is enough. The degrees of freedom are
    trace(W)² / trace(W²) (Imbens and Kolesár 2016), W the covariance of the clusters' terms (`_covariance`).
    """
    p, k = q.shape[1], len(directions)
    variances, trace, square = np.zeros(k), np.zeros(k), np.zeros(k)
    cross = np.zeros((k, 2 * p, 2 * p))
    sums = np.column_stack([np.bincount(groups, column) for column in q.T])
    rho = np.broadcast_to(correlation, (k,))
    forms = [_form((1 - r) * np.eye(p) + r * sums.T @ sums) for r in rho]
    for block, gram, scores, open_, vectors in _blocks(q, residual, groups):
        for j, direction in enumerate(directions):
            along = _along(direction, open_, vectors)
            variances[j] += (np.einsum("gi,gi->g", along, scores) ** 2).sum()
            own, factors = _covariance(along, gram, sums[block], float(rho[j]))
            overlap = np.einsum("gi,ij,gj->g", factors, forms[j], factors, optimize=True)
            trace[j] += own.sum() + overlap.sum()
            square[j] += (own**2).sum() + 2 * (own * overlap).sum()
            cross[j] += factors.T @ factors
    for j in range(k):
        turned = forms[j] @ cross[j]
        square[j] += np.trace(turned @ turned)
    return variances, np.where(square > 0, trace**2 / np.where(square > 0, square, 1.0), 0.0)


def _covariance(along: np.ndarray, gram: np.ndarray, sums: np.ndarray, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Diagonal (clusters,) and factors F (clusters, 2 p) of the covariance W = diagonal + F J F' of CR2's terms.

    With carried_g = Q_g' a_g and size_g = a_g' a_g of cluster g's weights a_g, s_g their sum, t_g the column sums of
    Q_g, r the correlation of errors of variance 1 and T the covariance of Q' errors,

        W[g, h] = delta ((1 - r) size_g + r s_g²) + carried_g' T carried_h - b_g' carried_h - carried_g' b_h,
        b_g = (1 - r) carried_g + r s_g t_g,

    a diagonal and a form J (`_form`) of rank 2 p, so W is never made.
    """
    carried, totals = np.einsum("gij,gj->gi", gram, along), np.einsum("gi,gi->g", along, sums)
    own = (1 - rho) * np.einsum("gi,gi->g", along, carried) + rho * totals**2
    return own, np.column_stack([carried, (1 - rho) * carried + rho * totals[:, None] * sums])


def _form(spread: np.ndarray) -> np.ndarray:
    """(2 p, 2 p) J of `_covariance`, from T (p, p)."""
    turn = np.eye(len(spread))
    return np.block([[spread, -turn], [-turn, np.zeros_like(turn)]])


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

    Args:
        x: (n, p) float64 of full column rank, with its constant column if there is one.
        y: (n,) 0 or 1.
        clusters: (n,) keys.
        wanted: effects of the first so many columns are returned.
        exchangeable: as in `cluster_ols`; False for pairs.
        share: share of all rows that these are, where the others were predicted perfectly and have w = 0.

    Returns:
        The effects, or None when the fit does not converge or the columns separate the classes.
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


_NODES, _SHARES = np.polynomial.legendre.leggauss(64)
# From here on too little is left of double precision.
_LARGEST_ROOT = 1e12
# So far apart the variances of clusters with and without a concept may be, beside what residuals say.
_UNLIKE = 4.0


def law_of_t(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, name: str, *, exchangeable: bool = True) -> Effect:
    """Least squares for the first column: CR2, and the law that its t has if errors are normal.

    Degrees of freedom only stand for that law, and badly where few clusters weigh most: those that make an estimate
    large make its error large, too. Errors of a cluster are equally correlated, as much as residuals say, and more
    variable on that side of the column that is less favourable: fourfold, or as much as residuals say. As Hansen (2021,
    "The exact distribution of the White t-ratio"), with clusters. Few clusters on one side with skewed effects have
    another law, and rows need not show their skewness, so the variance is at least the model's. The law is of many rows
    in few clusters: of rows on their own it says too little (docs/inference.md).

    Arguments as in `cluster_ols`. Degrees of freedom are of the t distribution with the same 95 % interval; no p-value
    is 0. `NO_EFFECT_ESTIMATED` as from `cluster_ols`, and where no residual is left.
    """
    from scipy.special import stdtridf
    from scipy.stats import norm

    n, p = x.shape
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2 or n <= p:
        return NO_EFFECT_ESTIMATED
    q, r = np.linalg.qr(x)
    estimate = float(np.linalg.solve(r, q.T @ y)[0])
    residual, direction = y - q @ (q.T @ y), np.linalg.inv(r)[0]
    total = float(residual @ residual)
    if not total > 0:
        return NO_EFFECT_ESTIMATED
    sums = np.column_stack([np.bincount(groups, column) for column in q.T])
    rho = _unbiased_correlation(residual, groups, sums) if exchangeable else 0.0
    weights = q @ direction
    whole = np.bincount(groups, weights)
    shares = (1 - rho) * np.bincount(groups, weights**2) + rho * whole**2
    terms, own, factors = np.empty(n_groups), np.empty(n_groups), np.empty((n_groups, 2 * p))
    spread, sides = np.zeros((2, p, p)), (whole > 0).astype(np.int64)
    for block, gram, scores, open_, vectors in _blocks(q, residual, groups):
        along = _along(direction, open_, vectors)
        terms[block] = np.einsum("gi,gi->g", along, scores) ** 2
        own[block], factors[block] = _covariance(along, gram, sums[block], rho)
        for side in (0, 1):
            there = sides[block] == side
            totals = sums[block][there]
            spread[side] += (1 - rho) * gram[there].sum(axis=0) + rho * totals.T @ totals
    expected = own + np.einsum("gi,ij,gj->g", factors, _form(spread.sum(axis=0)), factors, optimize=True)
    if not expected.sum() > _SATURATED * shares.sum():
        return NO_EFFECT_ESTIMATED
    error = total / ((1 - rho) * (n - p) + rho * (n - float((sums**2).sum())))
    deviation = float(np.sqrt(max(terms.sum(), error * shares.sum())))
    seen = np.bincount(sides, terms, 2) / np.maximum(np.bincount(sides, expected, 2), np.finfo(np.float64).tiny)
    ratio = float(np.clip(seen[1] / seen[0], 1e-4, 1e4)) if seen.all() else 1.0
    # Never less than by the normal distribution, however much the law trusts its own model.
    t = abs(estimate) / deviation
    reach, p_value = 1.96, float(2 * norm.sf(t))
    for by in (min(ratio, 1 / _UNLIKE), max(ratio, _UNLIKE)):
        grown = np.where(sides == 1, by, 1.0)
        scaled = np.column_stack([factors[:, :p], factors[:, p:] * grown[:, None]])
        law = _Law(direction, own * grown, scaled, _form(spread[0] + by * spread[1]))
        reach, p_value = max(reach, law.beyond_in(0.05)), max(p_value, law.tail(t))
    # The degrees of freedom, at most a million, with which Student's t has this 97.5th percentile.
    freedom = float(stdtridf(0.975, reach))
    found = effect(estimate, deviation, min(freedom, 1e6) if freedom > 0 else 1e6, name)
    return replace(found, p_value=p_value, low=estimate - reach * deviation, high=estimate + reach * deviation)


def _unbiased_correlation(residual: np.ndarray, groups: np.ndarray, sums: np.ndarray) -> float:
    """Correlation of errors within clusters, between 0 and 0.99, from expected squares between and within clusters.

    sums: (clusters, p) of the orthonormal columns that were fitted.
    """
    n, (n_groups, p) = len(residual), sums.shape
    if n_groups == n:
        return 0.0
    sizes = np.bincount(groups)
    between = float((np.bincount(groups, residual) ** 2 / sizes).sum())
    inside, across = sums.T @ (sums / sizes[:, None]), sums.T @ sums
    overlap, both = float(np.trace(inside)), float(np.trace(inside @ across))
    expected = np.array(
        [
            [n_groups - overlap, n - 2 * float(np.trace(across)) + both],
            [n - n_groups - p + overlap, float(np.trace(across)) - both],
        ]
    )
    own, shared = np.linalg.lstsq(expected, [between, float(residual @ residual) - between])[0]
    return float(np.clip(shared / (own + shared), 0.0, 0.99)) if own + shared > 0 else 0.0


class _Law:
    """The law of an estimate b by the root of its CR2 variance, a sum of squares of z_g, one per cluster.

    b and z are normal with the covariance diag(0, own) + [a; F] J [a; F]', of rank 2 p beside the diagonal, so
    P(b² > c² sum z_g²) is that of a form in normals which has one positive eigenvalue. With phi(s) the determinant of
    I - 2 s times that form, it is the integral of 1 / (pi s sqrt(-phi(s))) from the only positive root of phi on
    (Imhof's integral turned about the branch cut: every term is real and positive). Clusters whose own part is the same
    to a hundredth are one term, so that however many there are, hundreds of terms are enough.

    Attributes:
        own: (m,) diagonal of z's covariance.
        counts: (m,) how many clusters have it.
        products: (m, 4 p²) the sum of each row of F times itself.
        estimate: (2 p,) a.
        form: (2 p, 2 p) J.
    """

    def __init__(self, direction: np.ndarray, own: np.ndarray, factors: np.ndarray, form: np.ndarray) -> None:
        """From `_covariance`'s parts; residuals are left."""
        a = np.append(-direction, np.zeros_like(direction))
        variance = float(a @ form @ a)
        step = np.rint(np.log(own / own.max() + 1e-8) / 0.01)
        number, self.counts = np.unique(step, return_inverse=True, return_counts=True)[1:]
        order, ends = np.argsort(number, kind="stable"), np.cumsum(self.counts)
        terms = (factors[order[end - count : end]] for count, end in zip(self.counts, ends, strict=True))
        products = np.array([(f.T @ f).ravel() for f in terms])
        self.own = np.bincount(number, own) / self.counts / variance
        self.products, self.estimate, self.form = products / variance, a / np.sqrt(variance), form

    def _parts(self, s: np.ndarray, c: float) -> tuple[np.ndarray, np.ndarray]:
        """Logarithm of phi without b's part (m,), and the factor that b adds (m,), negative from the root on."""
        grown = 1.0 + 2.0 * c**2 * s[:, None] * self.own
        of_errors = c**2 * ((1.0 / grown) @ self.products).reshape(-1, *self.form.shape)
        matrix = np.eye(len(self.form)) + 2.0 * s[:, None, None] * (self.form @ of_errors)
        along = np.linalg.solve(matrix, np.broadcast_to((self.form @ self.estimate)[:, None], (*matrix.shape[:2], 1)))
        logs = np.log(grown) @ self.counts + np.linalg.slogdet(matrix)[1]
        return logs, 1.0 - 2.0 * s * (along[..., 0] @ self.estimate)

    def tail(self, c: float) -> float:
        """P(|b| > c times its CR2 error), or a bound above it where it is too small to be computed."""
        from scipy.optimize import brentq

        def factor(s: float) -> float:
            return float(self._parts(np.array([s]), c)[1][0])

        if not c > 0:
            return 1.0
        low, high = 0.0, 1.0
        while factor(high) > 0:
            low, high = high, 2.0 * high
            if high > _LARGEST_ROOT:
                return self.tail(c / 2)
        root = float(brentq(factor, low, high, xtol=1e-14, rtol=1e-13))
        angle = (_NODES + 1) * np.pi / 4
        logs, factors = self._parts(root / np.cos(angle) ** 2, c)
        with np.errstate(invalid="ignore"):
            terms = np.where(factors < 0, np.tan(angle) * np.exp(-logs / 2) / np.sqrt(-factors), 0.0)
        return min(1.0, max(float(_SHARES @ terms) / 2, float(np.finfo(np.float64).tiny)))

    def beyond_in(self, level: float) -> float:
        """The c that |b| exceeds with this probability."""
        from scipy.optimize import brentq

        high = 2.0
        while self.tail(high) > level:
            high *= 2.0
        return float(brentq(lambda c: self.tail(c) - level, high / 2 if high > 2 else 0.0, high, xtol=1e-6))
