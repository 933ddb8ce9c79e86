"""Many tests at once: one-sided p-values and corrections with weights.

Belongs here: Holm with weights, the weights that training data suggest. Does not belong here: the tests
(`core.inference`), the family of several looks (`core.analysis_plan`).

A hypothesis is tested for the direction that training texts showed, so its p-value is one-sided. And training data
tell which hypotheses have a chance: weights that are frozen before the holdout is opened and average to one keep the
family-wise error whatever they are (Holm 1979; Genovese, Roeder and Wasserman 2006). The weights that find most are
those of an expected z: w = (m / alpha) (1 - Phi(z / 2 + c / z)), with c such that they average to one. Half of every
weight is 1, so that no hypothesis loses more than half of its share.
"""

import numpy as np

# Of the z of training rows, what the holdout may be expected to show: the best of many look better than they are.
_SHRUNK = 0.6
_EVEN = 0.5


def one_sided(p_value: float, estimate: float, direction: float) -> float:
    """The p-value for the frozen direction; two-sided where there is none (0).

    Args:
        p_value: two-sided.
        estimate: whose sign says which side was seen.
        direction: sign expected.
    """
    if direction == 0 or not np.isfinite(p_value):
        return p_value
    return p_value / 2 if estimate * direction > 0 else 1 - p_value / 2


def weighted_holm(p_values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values with weights; NaN stays NaN and does not count into the family.

    Args:
        p_values: (h,).
        weights: (h,) positive; only their ratios among tested hypotheses count.
    """
    tested = np.flatnonzero(np.isfinite(p_values))
    order = tested[np.argsort(p_values[tested] / weights[tested], kind="stable")]
    remaining = np.cumsum(weights[order][::-1])[::-1]
    out = np.full(len(p_values), np.nan)
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] / weights[order] * remaining), 1.0)
    return out


def training_weights(z: np.ndarray, ratio: float, alpha: float) -> np.ndarray:
    """Weights by what training rows showed.

    Args:
        z: (h,) sizes of the training z, NaN where there is none (a hypothesis of the user's own): its weight is 1.
        ratio: square root of holdout over training rows.
        alpha: family-wise error.

    Returns:
        (h,) float64 of mean 1, at least one half.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    known = np.isfinite(z)
    out = np.ones(len(z))
    m = int(known.sum())
    if m < 2:
        return out
    expected = np.clip(np.abs(z[known]) * ratio * _SHRUNK, 0.5, 8.0)

    def made(c: float) -> np.ndarray:
        found: np.ndarray = norm.sf(expected / 2 + c / expected) * m / alpha
        return found

    c = brentq(lambda c: float(made(c).mean()) - 1, -64.0, 64.0)
    out[known] = _EVEN + (1 - _EVEN) * made(float(c))
    return out
