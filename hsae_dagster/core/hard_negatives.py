"""Hard negatives: silent texts that are most like the ones on which a neuron fires.

Belongs here: which texts they are, and how often a concept is fooled by them. Does not belong here: the measures on
texts as they come (`core.fidelity`), or judging (providers).

A concept may tell a neuron's texts from any other text and still not from their neighbours: words such as "a film" fit
many silent texts about films. The reference scores against random silent texts only.
"""

from dataclasses import replace

import numpy as np

from hsae_dagster.core.fidelity import MISSING, Fidelity, wilson_interval
from hsae_dagster.core.pooling import unit_length

_BLOCK = 1024  # strong texts compared at once


def nearest_silent(
    vectors: np.ndarray, activation: np.ndarray, bounds: tuple[float, float], limit: int | None = None
) -> np.ndarray:
    """Silent texts that are the nearest one of some strongly firing text.

    Args:
        vectors: (n, d) embeddings of the texts; compared by cosine.
        activation: (n,) of one neuron, >= 0.
        bounds: activations that count as strong (`core.fidelity.firing_bounds`).
        limit: keep this many at most, the most similar ones; None for all.

    Returns:
        Their positions, int64, ascending and distinct; none if there is no strong or no silent text.
    """
    strong = np.flatnonzero((activation > 0) & (activation >= bounds[0]) & (activation <= bounds[1]))
    silent = np.flatnonzero(activation == 0)
    if not len(strong) or not len(silent) or limit == 0:
        return np.zeros(0, dtype=np.int64)
    unit = unit_length(vectors)
    against = unit[silent].T
    best = np.full(len(silent), -np.inf)
    for start in range(0, len(strong), _BLOCK):
        similar = unit[strong[start : start + _BLOCK]] @ against
        nearest = similar.argmax(axis=1)
        np.maximum.at(best, nearest, similar[np.arange(len(nearest)), nearest])
    found = np.flatnonzero(best > -np.inf)
    ranked = found[np.argsort(-best[found], kind="stable")][:limit]
    return np.sort(silent[ranked]).astype(np.int64)


def with_hard_negatives(fidelity: Fidelity, answers: np.ndarray) -> Fidelity:
    """The fidelity with its figures on hard negatives filled in.

    Args:
        fidelity: of the concept on texts as they come.
        answers: (h,) int8 of the hard negatives: 1 yes, 0 no, -1 missing.
    """
    judged = answers[answers != MISSING]
    fooled = int((judged == 1).sum())
    share = fooled / len(judged) if len(judged) else 0.0
    return replace(
        fidelity,
        n_hard=len(judged),
        hard_false_positive_rate=share,
        hard_false_positive_interval=wilson_interval(fooled, len(judged)),
        hard_f1=2 * fidelity.recall / (1 + fidelity.recall + share) if len(judged) and fidelity.n_strong else 0.0,
    )
