"""Variances where a row belongs to several units at once: an author and a text, or the two texts of a pair.

Belongs here: the sum of products of scores over all rows that share a unit. Does not belong here: regression
(`core.cluster_robust`), what a unit is.

Rows that share any unit may be correlated (Cameron, Gelbach and Miller 2011 for several ways; Aronow, Samii and
Assenova 2015 for dyads). With S_u the sum of scores in unit u, and S_uv in both of two units, the sum over all pairs
of rows that share at least one unit is sum S_u² - sum S_uv² + sum S_uvw² … (a pair of rows that shares k units is
counted k - C(k, 2) + C(k, 3) … = 1 times), which costs no more than the rows.
"""

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
