"""The test of a concept that tells the outcome without a single error.

Belongs here: its p-value. Does not belong here: any fit with errors (`core.cluster_robust`).

Without errors there is no estimate of their size, and a t of infinity would be certain even of two authors of whom one
uses the concept and one is a Republican. What is known is how few arrangements fit as well: among clusters that have
the concept throughout or nowhere, those that have it could have been any others; within a cluster that has it in part,
the texts could (Fisher's exact test, stratified).
"""

import numpy as np


def exact_fit_p(h: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided permutation p-value of a perfect fit.

    Args:
        h: (n,) 1 with the concept, else 0.
        clusters: (n,) keys.

    Returns:
        Twice the chance that an arrangement of the concept within its bounds fits perfectly, at most 1.
    """
    from scipy.special import gammaln

    groups = np.unique(clusters, return_inverse=True)[1]
    sizes, having = np.bincount(groups), np.bincount(groups, h != 0)
    mixed = (having > 0) & (having < sizes)
    of = np.append(sizes[mixed], (~mixed).sum()).astype(np.float64)
    taken = np.append(having[mixed], (having[~mixed] > 0).sum()).astype(np.float64)
    arrangements = gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)
    return float(min(1.0, 2 * np.exp(-arrangements.sum())))
