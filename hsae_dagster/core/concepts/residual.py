"""What is left of an outcome beside the claims chosen so far, and how much a further column would explain of it.

Belongs here: least squares by an orthonormal basis that grows a column at a time, gains of sparse columns, cluster-
robust strength. Does not belong here: which columns there are or which is taken (`choice`, `word_groups`).
"""

import math
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


class Watched:
    """Sparse columns (n, p) about whose gains a growing basis is asked again and again: what does not change is kept.

    Attributes:
        across: (p, n) CSR, the columns transposed.
        squares: (p,) squared length of each column.
        owners: for each pair of a cluster and a column that meet, by column: the column.
    """

    def __init__(self, columns: sp.csc_matrix, clusters: np.ndarray) -> None:
        """Prepare; `clusters` are (n,) int64 from 0."""
        self.across = columns.T.tocsr() if columns.dtype == np.float64 else columns.T.tocsr().astype(np.float64)
        self._clusters = int(clusters.max(initial=-1)) + 1
        data, rows, p = self.across.data, self.across.indices, columns.shape[1]
        column = np.repeat(np.arange(p), np.diff(self.across.indptr))
        self.squares = np.bincount(column, weights=data**2, minlength=p)
        meets, self._slots = np.unique(column * max(self._clusters, 1) + clusters[rows], return_inverse=True)
        self.owners, inside = np.divmod(meets, max(self._clusters, 1))
        starts = np.searchsorted(self.owners, np.arange(p + 1))
        self._sums = sp.csc_matrix((np.zeros(len(meets)), inside, starts), shape=(self._clusters, p))
        self._seen = np.zeros((p, 0))

    def products(self, basis: np.ndarray) -> np.ndarray:
        """(p, q) products with an orthonormal basis (n, q) that begins with the one that was asked about before."""
        known = self._seen.shape[1]
        if known < basis.shape[1]:
            self._seen = np.column_stack([self._seen, self.across @ basis[:, known:]])
        return self._seen[:, : basis.shape[1]]

    def cluster_sums(self, values: np.ndarray) -> sp.csc_matrix:
        """(clusters, p) CSC: sum over each cluster of a column times values (n,)."""
        weights = self.across.data * values[self.across.indices]
        self._sums.data = np.bincount(self._slots, weights=weights, minlength=len(self.owners))
        return self._sums


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

    def gains(self, columns: "sp.csc_matrix | Watched") -> Gains:
        """What each column of a sparse (n, p) matrix would add beside the basis.

        Args:
            columns: the matrix, or one that is asked about again and again (`Watched`).
        """
        watched = columns if isinstance(columns, Watched) else Watched(columns, self.clusters)
        sums = np.asarray(watched.across @ self.values).ravel()
        seen = watched.products(self.basis)
        squares = watched.squares
        left = squares - (seen**2).sum(axis=1)
        able = left > _TINY * np.maximum(squares, 1.0)
        safe = np.where(able, left, 1.0)
        explained = np.where(able, sums**2 / safe / max(self.total, _TINY), 0.0)
        # The products r_i (x_i - Q Q'x_i), summed within clusters; the second part is dense in i, so it is taken
        # cluster by cluster: sum over i in g of r_i Q_i.
        scores = self._cluster_scores(watched, seen)
        spread = np.sqrt(np.maximum(scores, _TINY))
        return Gains(sums, left, explained, np.where(able, sums / spread, 0.0))

    def gain(self, column: np.ndarray) -> tuple[float, float]:
        """Share explained and strength (see `Gains`) of one column (n,)."""
        product, seen = float(column @ self.values), column @ self.basis
        square = float(column @ column)
        left = square - float(seen @ seen)
        if left <= _TINY * max(square, 1.0):
            return 0.0, 0.0
        sums = np.bincount(self.clusters, weights=self.values * (column - self.basis @ seen))
        strength = product / math.sqrt(max(float(sums @ sums), _TINY))
        return product**2 / left / max(self.total, _TINY), strength

    def _cluster_scores(self, watched: "Watched", seen: np.ndarray) -> np.ndarray:
        """(p,) sum over clusters of the squared cluster sums of residual times column beside the basis."""
        own = watched.cluster_sums(self.values)
        # |own - basis seen'|² = |own|² - 2 own·(basis seen') + seen (basis'basis) seen'
        squares = np.bincount(watched.owners, weights=own.data**2, minlength=own.shape[1])
        if not self.basis.shape[1]:
            return squares
        n = len(self.values)
        groups = sp.csr_matrix((self.values, (self.clusters, np.arange(n))), shape=(self.n_clusters, n))
        basis = np.asarray(groups @ self.basis)
        cross = ((own.T @ basis) * seen).sum(axis=1)
        return squares - 2 * np.asarray(cross).ravel() + ((seen @ (basis.T @ basis)) * seen).sum(axis=1)

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
