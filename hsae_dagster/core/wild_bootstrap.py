"""The test that decides where clusters are few or unequal: the restricted wild cluster bootstrap.

Belongs here: p-value and critical value of one coefficient by resampling the signs of clusters' residuals under the
null. Does not belong here: standard errors (`core.cluster_robust`) or which tests need it (`core.inference`).

With few clusters, or a few large ones, no formula for degrees of freedom is right everywhere. The bootstrap fits the
outcome without the concept, gives each cluster's residuals a random sign or size, and asks how often the t of such
outcomes is as large as the one seen (Cameron, Gelbach and Miller 2008; MacKinnon and Webb 2017 on unequal clusters).
Weights are Webb's six points up to 30 clusters, where two points would repeat too few draws, and signs beyond.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_WEBB = np.sqrt([1.5, 1.0, 0.5])
_WEBB_CLUSTERS = 30
_SEED = 20_261_129
DRAWS = 1_999


@dataclass(frozen=True)
class WildTest:
    """What resampling says of one coefficient.

    Attributes:
        p_value: two-sided; at least 1 / (draws + 1).
        reach: half-width of the 95 % interval, from the 95th percentile of |t| under the null.
    """

    p_value: float
    reach: float


def wild_cluster_test(x: np.ndarray, y: np.ndarray, groups: np.ndarray, *, draws: int = DRAWS) -> WildTest | None:
    """Test the first column's coefficient.

    Args:
        x: (n, p) float64 of full column rank, p > 1.
        y: (n,) float64.
        groups: (n,) int64, numbered from 0, at least two.
        draws: of the weights.

    Returns:
        None where the fit leaves no residual, so that there is nothing to resample.
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
