"""Would the same neurons have been selected from other texts of the same kind, and found by another autoencoder?

Belongs here: selection frequencies over half-samples of clusters, and matches among autoencoders. Does not belong here:
selection itself (`core.selection`, `core.lasso`).

Stability selection (Meinshausen and Bühlmann 2010) in the form of complementary pairs (Shah and Samworth 2013): the
clusters are halved at random, both halves are selected from, many times over. What selection by lasso or correlation
needs of a sample is its count, sums, Gram matrix and products with the outcome, all of which add up over rows: one
sparse product gives a half, and subtraction from the whole gives the other half. The path on a Gram matrix costs next
to nothing. The lasso here has the squared loss whatever the task (selection itself has a logistic loss for 0/1
outcomes): frequencies then describe a close relative of the selection, at a small part of its cost.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.selection import Selection, select_for_each
from hsae_dagster.core.standardised import StandardisedCodes

PAIRS = 25
# Columns of a Gram matrix: beyond it the ones most correlated with the outcome are kept, and all the selected ones.
MOST_COLUMNS = 1500
_CONSTANT = 1e-12


@dataclass(frozen=True)
class _Moments:
    """Sums over some rows, of columns x and outcome y: all additive."""

    n: float
    x: np.ndarray
    xx: np.ndarray
    y: float
    xy: np.ndarray

    @classmethod
    def of(cls, codes: sp.csr_matrix, outcome: np.ndarray) -> "_Moments":
        transposed = codes.T.tocsr()
        return cls(
            n=float(len(outcome)),
            x=np.asarray(codes.sum(axis=0)).ravel(),
            xx=(transposed @ codes).toarray(),
            y=float(outcome.sum()),
            xy=transposed @ outcome,
        )

    def without(self, other: "_Moments") -> "_Moments":
        return _Moments(self.n - other.n, self.x - other.x, self.xx - other.xx, self.y - other.y, self.xy - other.xy)

    def correlations(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gram (m, m) and covariance with the outcome (m,) of standardised columns, and which columns vary."""
        mean = self.x / self.n
        covariance = self.xx / self.n - np.outer(mean, mean)
        variance = covariance.diagonal()
        varies = variance > _CONSTANT * np.maximum(mean**2, 1e-300)
        scale = np.where(varies, np.sqrt(np.where(varies, variance, 1.0)), 1.0)
        with_outcome = (self.xy / self.n - mean * self.y / self.n) / scale
        return covariance / np.outer(scale, scale), np.where(varies, with_outcome, 0.0), varies


def selection_frequency(
    codes: sp.csr_matrix,
    outcome: np.ndarray,
    clusters: np.ndarray,
    selection: Selection,
    rng: np.random.Generator,
    *,
    pairs: int = PAIRS,
) -> np.ndarray:
    """Share of 2 × `pairs` half-samples of clusters from which each selected neuron is selected again.

    Args:
        codes: (n, m) activations of the training observations.
        outcome: (n,) as given to the selection.
        clusters: (n,) keys; a cluster is in one half as a whole.
        selection: what was selected from all of them.
        rng: of the halves.
        pairs: of complementary halves.

    Returns:
        (selected,) float64 from 0 to 1 in rank order; NaN for a metric of the user's own, which is not run again, and
        where there are fewer than four clusters.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups, columns = int(groups.max(initial=-1)) + 1, selection.columns
    if n_groups < 4 or ":" in selection.method:
        return np.full(len(columns), np.nan)
    counts = np.zeros(codes.shape[1])
    halves = [np.isin(groups, rng.permutation(n_groups)[: n_groups // 2]) for _ in range(pairs)]
    if selection.method == "separation":
        for half in (side for first in halves for side in (first, ~first)):
            if np.ptp(outcome[half]) > 0:
                again = select_for_each(
                    codes[half], [outcome[half]], len(columns), method=selection.method, task=selection.task
                )
                counts[again[0].columns] += 1
    else:
        kept = _screened(codes, outcome, selection)
        narrow = sp.csr_matrix(codes[:, kept], dtype=np.float64)
        whole = _Moments.of(narrow, outcome)
        for half in halves:
            moments = _Moments.of(narrow[half], outcome[half])
            for side in (moments, whole.without(moments)):
                counts[kept[_select(side, len(columns), selection.method)]] += 1
    return counts[columns] / (2 * pairs)


def _screened(codes: sp.csr_matrix, outcome: np.ndarray, selection: Selection) -> np.ndarray:
    """Columns that may be selected (neither dead nor a copy), at most `MOST_COLUMNS`, ascending."""
    out = np.array([*selection.dead, *(copy for _, copy in selection.duplicates)], dtype=np.int64)
    usable = np.setdiff1d(np.arange(codes.shape[1]), out)
    if len(usable) <= MOST_COLUMNS:
        return usable
    size = np.abs(StandardisedCodes(codes).transposed_product(outcome - outcome.mean()))
    best = usable[np.argsort(-size[usable], kind="stable")[:MOST_COLUMNS]]
    return np.union1d(best, selection.columns)


def _select(moments: _Moments, n_select: int, method: str) -> np.ndarray:
    """Positions of the columns selected from one half: by |r|, or the first lasso solution with n_select of them."""
    gram, with_outcome, varies = moments.correlations()
    able = np.flatnonzero(varies)
    if method == "correlation":
        return able[np.argsort(-np.abs(with_outcome[able]), kind="stable")[:n_select]]
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram

    with warnings.catch_warnings():
        # The path ends early where columns are nearly dependent; what it has by then is used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, _, path = lars_path_gram(
            with_outcome[able], gram[np.ix_(able, able)], n_samples=1, max_iter=3 * n_select + 10, method="lasso"
        )
    sizes = (path != 0).sum(axis=0)
    reached = np.flatnonzero(sizes >= n_select)
    step = int(reached[0]) if reached.size else int(np.argmax(sizes))
    order = np.argsort(-np.abs(path[:, step]), kind="stable")[: min(n_select, int(sizes[step]))]
    return able[order]


def matches_elsewhere(codes: sp.csr_matrix, columns: Sequence[int], sae_ids: Sequence[str]) -> np.ndarray:
    """Largest |r| of each neuron with any neuron of another autoencoder of the dataset.

    Args:
        codes: (n, m) activations, all autoencoders side by side.
        columns: the neurons.
        sae_ids: (m,) autoencoder of each column.

    Returns:
        (len(columns),) float64; NaN where there is no other autoencoder.
    """
    owner = np.asarray(sae_ids)
    if len(np.unique(owner)) < 2:
        return np.full(len(columns), np.nan)
    matrix = StandardisedCodes(codes)
    return np.array([np.abs(matrix.gram_column(j)[owner != owner[j]]).max(initial=0.0) for j in columns])
