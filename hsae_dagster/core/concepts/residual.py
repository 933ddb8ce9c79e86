"""What is left of an outcome beside the claims chosen so far, and how much a further column would explain of it.

Belongs here: least squares by an orthonormal basis that grows a column at a time, gains of sparse columns, cluster-
robust strength. Does not belong here: which columns there are or which is taken (`choice`, `word_groups`).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

_TINY = 1e-9


@dataclass(frozen=True)
class Gains:
    """What each of p columns would add.

    Attributes:
        sums: (p,) product with the residual.
        left: (p,) squared length of the column beside the basis.
        explained: (p,) share of the outcome's squares that it would explain.
        strength: (p,) signed cluster-robust t statistic of its coefficient (CR0).
    """

    sums: np.ndarray
    left: np.ndarray
    explained: np.ndarray
    strength: np.ndarray


class Residual:
    """An outcome, and what a basis of columns leaves of it.

    Attributes:
        values: (n,) float64, the residual.
        basis: (n, q) float64 with orthonormal columns.
        coefficients_of: the outcome is `basis @ basis.T @ y + values`.
    """

    def __init__(self, outcome: np.ndarray, held: np.ndarray, clusters: np.ndarray) -> None:
        """Start from columns that are held constant.

        Args:
            outcome: (n,) float64.
            held: (n, c) float64: an intercept (none for pairs) and controls.
            clusters: (n,) int64 from 0.
        """
        self.outcome, self.clusters = outcome, clusters
        self.n_clusters = int(clusters.max(initial=-1)) + 1
        self.basis = _orthonormal(held) if held.shape[1] else np.zeros((len(outcome), 0))
        self.values = outcome - self.basis @ (self.basis.T @ outcome)
        self.total = float(self.values @ self.values)

    @property
    def noise(self) -> float:
        """Variance of what is left."""
        return max(float(self.values @ self.values) / max(len(self.values) - self.basis.shape[1], 1), _TINY)

    def gains(self, columns: sp.csc_matrix) -> Gains:
        """What each column of a sparse (n, p) matrix would add beside the basis."""
        sums = np.asarray(columns.T @ self.values).ravel()
        seen = np.asarray(columns.T @ self.basis)
        squares = np.asarray(columns.multiply(columns).sum(axis=0)).ravel()
        left = squares - (seen**2).sum(axis=1)
        able = left > _TINY * np.maximum(squares, 1.0)
        safe = np.where(able, left, 1.0)
        explained = np.where(able, sums**2 / safe / max(self.total, _TINY), 0.0)
        # The products r_i (x_i - Q Q'x_i), summed within clusters; the second part is dense in i, so it is taken
        # cluster by cluster: sum over i in g of r_i Q_i.
        scores = self._cluster_scores(columns, seen)
        spread = np.sqrt(np.maximum(scores, _TINY))
        return Gains(sums, left, explained, np.where(able, sums / spread, 0.0))

    def _cluster_scores(self, columns: sp.csc_matrix, seen: np.ndarray) -> np.ndarray:
        """(p,) sum over clusters of the squared cluster sums of residual times column beside the basis."""
        n = columns.shape[0]
        groups = sp.csr_matrix((self.values, (self.clusters, np.arange(n))), shape=(self.n_clusters, n))
        own = (groups @ columns).tocsc()
        basis = np.zeros((self.n_clusters, self.basis.shape[1]))
        np.add.at(basis, self.clusters, self.basis * self.values[:, None])
        # |own - basis seen'|² = |own|² - 2 own·(basis seen') + seen (basis'basis) seen'
        squares = np.asarray(own.multiply(own).sum(axis=0)).ravel()
        if not basis.shape[1]:
            return squares
        cross = ((own.T @ basis) * seen).sum(axis=1)
        return squares - 2 * np.asarray(cross).ravel() + np.einsum("pi,ij,pj->p", seen, basis.T @ basis, seen)

    def take(self, column: np.ndarray) -> None:
        """Add a column (n,) to the basis."""
        fresh = column - self.basis @ (self.basis.T @ column)
        fresh -= self.basis @ (self.basis.T @ fresh)
        length = float(np.linalg.norm(fresh))
        if length <= _TINY * max(float(np.linalg.norm(column)), 1.0):
            return
        fresh /= length
        self.basis = np.column_stack([self.basis, fresh])
        self.values = self.values - fresh * (fresh @ self.values)


def _orthonormal(held: np.ndarray) -> np.ndarray:
    left, spread, _ = np.linalg.svd(held, full_matrices=False)
    return left[:, spread > 1e-10 * max(float(spread.max(initial=0.0)), _TINY)]
