"""The φ coefficient: how far two yes/no answers over the same texts go together.

Belongs here: φ of two answers, of many with one, of many with many. Does not belong here: answers some of which are
missing (`core.redundancy`).
"""

import numpy as np
import scipy.sparse as sp


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two yes/no answers (n,) bool; 0 where one does not vary."""
    a, b = first.mean(), second.mean()
    spread = np.sqrt(a * (1 - a) * b * (1 - b))
    return float(((first & second).mean() - a * b) / spread) if spread > 0 else 0.0


def phis(common: np.ndarray, size: np.ndarray, size_of_one: int, n: int) -> np.ndarray:
    """φ of several answers with one.

    Args:
        common: (q,) of n texts, how many say yes to each and to the one.
        size: (q,) how many say yes to each.
        size_of_one: how many say yes to the one.
        n: texts.

    Returns:
        (q,) float64; 0 where either does not vary.
    """
    both, a, b = common / n, size / n, size_of_one / n
    spread = np.sqrt(np.maximum(a * (1 - a) * b * (1 - b), 0.0))
    return np.where(spread > 0, (both - a * b) / np.where(spread > 0, spread, 1.0), 0.0)


def phi_matrix(first: sp.spmatrix, second: sp.spmatrix) -> np.ndarray:
    """φ of each of m answers with each of q, (m, q) float64; 0 where either does not vary.

    Args:
        first: (n, m) sparse, whatever is not 0 is a yes.
        second: (n, q), likewise.
    """
    n = first.shape[0]
    one, other = (sp.csr_matrix(matrix != 0, dtype=np.float64) for matrix in (first, second))
    both = (one.T @ other).toarray()
    a, b = (np.asarray(answers.sum(axis=0), dtype=np.float64).ravel() for answers in (one, other))
    spread = np.sqrt(np.outer(a * (n - a), b * (n - b)))
    return np.where(spread > 0, (n * both - np.outer(a, b)) / np.where(spread > 0, spread, 1.0), 0.0)
