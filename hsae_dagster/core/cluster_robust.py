"""Regression estimates with uncertainty that survives dependence within clusters.

Belongs here: least squares and the logit's average marginal effects, each with standard error, interval and p-value by
cluster. Does not belong here: which columns enter, what they mean, corrections for many tests (`core.inference`).

One rule for least squares, whatever the data: the standard error is the larger of two, and Student's t has the degrees
of freedom of Bell and McCaffrey.

- CR2, the bias-reduced cluster-robust variance (Bell and McCaffrey 2002; Pustejovsky and Tipton 2018, eq. 9). With
  every row its own cluster it is HC2, and for a difference in means Welch's.
- The model-based variance under equal correlation within clusters (Moulton 1986); without clusters the classical one.

CR2 alone sees only the outcomes that happen to go with a rare concept. Twenty texts that all lack a 10 % outcome, or
five authors of one party, have no spread, a standard error near zero, and are "significant"; the model-based variance
borrows the spread of all other texts. Taking the larger is the advice of Angrist and Pischke (2009, section 8.1). The
degrees of freedom fall with the number of clusters that tell with from without, where clusters - 1 would not.
"""

from dataclasses import dataclass

import numpy as np

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
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, name: str, *, exchangeable: bool = True
) -> list[Effect]:
    """Least squares with the larger of CR2 and the model-based standard error (see the module's docstring).

    Args:
        x: (n, p) float64 of full column rank, with its constant column if there is one.
        y: (n,) float64.
        clusters: (n,) keys.
        name: estimator's name for the record.
        exchangeable: whether the model-based variance estimates one correlation within clusters; False takes it as
            zero, for designs whose rows have no orientation (pairs), where it is not defined.

    Returns:
        One effect per column of x; `NO_EFFECT_ESTIMATED` for all where there are fewer than two clusters or no
        residual degree of freedom.
    """
    n, p = x.shape
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(groups.max(initial=-1)) + 1
    if n_groups < 2 or n <= p:
        return [NO_EFFECT_ESTIMATED] * p
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ y)
    residual = y - x @ beta
    directions = np.linalg.inv(r)  # row j: the coefficient j is directions[j] @ q.T @ y
    variances, freedom = _cr2(q, residual, directions, groups, n_groups)
    model = _moulton(q, residual, directions, groups, n_groups, exchangeable=exchangeable)
    errors = np.sqrt(np.maximum(variances, model))
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


def _cr2(
    q: np.ndarray, residual: np.ndarray, directions: np.ndarray, groups: np.ndarray, n_groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """CR2 variances (k,) and Bell-McCaffrey degrees of freedom (k,) of directions (k, p), errors independent and equal.

    With Q the orthonormal columns, K_g = Q_g' Q_g and B_g = (I - K_g)^(-1/2), the adjusted residuals of cluster g
    enter as Q_g B_g, since (I - Q_g Q_g')^(-1/2) Q_g = Q_g B_g: nothing larger than p × p per cluster is needed, and
    every figure is a sum over clusters, so a block of clusters at a time is enough.

    The degrees of freedom are trace(P)² / trace(P²), P[g, h] = delta × size_g - carried_g · carried_h.
    """
    p, k = q.shape[1], len(directions)
    variances, trace, square = np.zeros(k), np.zeros(k), np.zeros(k)
    cross = np.zeros((k, p, p))
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(n_groups + 1))
    step = max(1, _BLOCK_ELEMENTS // (p * p))
    for start in range(0, n_groups, step):
        stop = min(start + step, n_groups)
        rows = order[first[start] : first[stop]]
        gram, scores = _cluster_sums(q[rows], residual[rows], groups[rows] - start, stop - start)
        leverage, vectors = np.linalg.eigh(gram)
        open_ = 1.0 - np.clip(leverage, 0.0, 1.0)
        shrink = np.where(open_ > _SATURATED, 1.0 / np.sqrt(np.maximum(open_, _SATURATED)), 0.0)
        for j, direction in enumerate(directions):
            along = np.einsum("gij,gj,gkj,k->gi", vectors, shrink, vectors, direction, optimize=True)
            variances[j] += (np.einsum("gi,gi->g", along, scores) ** 2).sum()
            carried = np.einsum("gij,gj->gi", gram, along)
            size = np.einsum("gi,gi->g", along, carried)
            overlap = (carried**2).sum(axis=1)
            trace[j] += size.sum() - overlap.sum()
            square[j] += (size**2).sum() - 2 * (size * overlap).sum()
            cross[j] += carried.T @ carried
    square += (cross**2).sum(axis=(1, 2))
    return variances, np.where(square > 0, trace**2 / np.where(square > 0, square, 1.0), 0.0)


def _cluster_sums(q: np.ndarray, residual: np.ndarray, groups: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Gram matrices (n, p, p) and scores (n, p) of n clusters."""
    p = q.shape[1]
    gram = np.empty((n, p, p))
    for i in range(p):
        for j in range(i + 1):
            gram[:, i, j] = gram[:, j, i] = np.bincount(groups, q[:, i] * q[:, j], n)
    scores = np.column_stack([np.bincount(groups, q[:, i] * residual, n) for i in range(p)])
    return gram, scores


def _moulton(
    q: np.ndarray,
    residual: np.ndarray,
    directions: np.ndarray,
    groups: np.ndarray,
    n_groups: int,
    *,
    exchangeable: bool,
    error: float | None = None,
) -> np.ndarray:
    """Variances (k,) of directions (k, p) under one error variance and one non-negative correlation within clusters.

    `error` is the error variance where the model knows it (1 for the standardised residuals of a logit).
    """
    n, p = q.shape
    weights = q @ directions.T  # (n, k): the estimate j is weights[:, j] @ y
    squares = (weights**2).sum(axis=0)
    total = float(residual @ residual)
    error = total / (n - p) if error is None else error
    sizes = np.bincount(groups, minlength=n_groups)
    pairs = float((sizes * (sizes - 1.0)).sum())
    if not exchangeable or pairs == 0 or total == 0:
        return error * squares
    within = np.bincount(groups, residual, n_groups)
    covariance = (float((within**2).sum()) - total) / pairs
    correlation = min(max(covariance / (total / n), 0.0), 1.0)
    sums = np.column_stack([np.bincount(groups, weights[:, j], n_groups) for j in range(weights.shape[1])])
    return error * ((1 - correlation) * squares + correlation * (sums**2).sum(axis=0))


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
    n_groups = int(groups.max()) + 1
    variances, freedom = _cr2(q, residual, directions, groups, n_groups)
    model = _moulton(q, residual, directions, groups, n_groups, exchangeable=exchangeable, error=1.0)
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
