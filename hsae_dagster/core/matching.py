"""Which hypothesis of one evaluation is a hypothesis of another one: one to one, or none.

Belongs here: how alike two hypotheses are, and the assignment. Does not belong here: their ids or where evaluations are
kept (assets, storage).

A refresh changes the words of a claim or the weights of its neuron a little. What stays is who has the
concept and where the neuron points; a hypothesis is known again by these two.
"""

from dataclasses import dataclass

import numpy as np

SAME_CLAIM = 0.7  # correlation from which on two concepts are had by the same texts
SAME_NEURON = 0.9  # cosine from which on two decoder directions are one neuron ...
AKIN = 0.5  # ... unless the concepts written for it agree on fewer texts than this
LEAST_SHARED = 50  # texts that both have judged, below which a correlation says nothing


@dataclass(frozen=True)
class Match:
    """Two hypotheses that are one.

    Attributes:
        old: position among the old ones.
        new: position among the new ones.
        correlation: phi of their annotations on shared texts, or NaN.
        cosine: of their neurons' decoder directions, or NaN.
    """

    old: int
    new: int
    correlation: float
    cosine: float


def annotation_correlation(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Phi coefficients of annotations on the same texts.

    Args:
        old: (n, h) int8, 1 yes, 0 no, -1 missing; rows are shared texts.
        new: (n, k) int8, the same rows.

    Returns:
        (h, k) float64; NaN where fewer than `LEAST_SHARED` texts have both answers, or one of the two never varies.
    """
    judged_old, judged_new = (old >= 0).astype(np.float64), (new >= 0).astype(np.float64)
    yes_old, yes_new = (old == 1).astype(np.float64), (new == 1).astype(np.float64)
    n = judged_old.T @ judged_new
    both = yes_old.T @ yes_new
    first, second = yes_old.T @ judged_new, judged_old.T @ yes_new
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(first * (n - first) * second * (n - second))
        phi = (n * both - first * second) / spread
    return np.where((n >= LEAST_SHARED) & (spread > 0), phi, np.nan)


def direction_cosine(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Cosines (h, k) of decoder directions (h, d) and (k, d); NaN for a direction of length zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (old, new)]
    cosine: np.ndarray = units[0].astype(np.float64) @ units[1].astype(np.float64).T
    return cosine


def match_hypotheses(correlation: np.ndarray, cosine: np.ndarray) -> list[Match]:
    """The one-to-one assignment of largest total similarity among pairs that may be one hypothesis.

    Two may be one when the same texts have both concepts (`SAME_CLAIM`), or when their neuron is the same
    (`SAME_NEURON`) and their concepts, where that can be told, are at least akin (`AKIN`).

    Args:
        correlation: (h, k) of annotations, NaN where unknown.
        cosine: (h, k) of decoder directions, NaN where unknown (another embedding model).

    Returns:
        Matches in the order of the new ones.
    """
    from scipy.optimize import linear_sum_assignment

    known = np.stack([correlation, cosine])
    told = np.isfinite(known)
    with np.errstate(invalid="ignore"):
        able = (correlation >= SAME_CLAIM) | ((cosine >= SAME_NEURON) & ~(correlation < AKIN))
    mean = np.where(told, known, 0.0).sum(axis=0) / np.maximum(told.sum(axis=0), 1)
    gain = np.where(able, mean, 0.0)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    found = [
        Match(int(i), int(j), float(correlation[i, j]), float(cosine[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if able[i, j]
    ]
    return sorted(found, key=lambda match: match.new)
