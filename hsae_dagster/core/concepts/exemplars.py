"""Exemplar claims: up to three short, typical sentences, and how close a sentence must be to one of them.

Belongs here: choosing exemplars of a neuron among training units, and judging by them. Does not belong here: vectors'
making (providers), which exemplar claims are taken (`choice`).

A text has the claim when the cosine of one of its units with one of the exemplars is at least the similarity. Exemplars
of one claim lie close to each other, or they would be several claims; a claim for which people would no longer call two
sentences alike is refused. On MiniLM's scale, of 96 pairs of sentences of reviews that we judged, about half between
0.55 and 0.7 were alike, since praise lies close to blame of the same thing, and seven in ten above.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

# Similarities that are tried; none below is a claim people could follow.
SIMILARITIES = (0.65, 0.7, 0.75, 0.8)
MOST_SENTENCES = 3
# Words of an exemplar: long enough to say something, short enough to be read at a glance.
_FEWEST_WORDS, _MOST_WORDS = 3, 16
# Strongest units of a neuron among which its exemplars are looked for.
_STRONGEST = 40
_BLOCK = 2**22
# Pairs of units drawn to learn how alike they are by chance.
_DRAWN = 20_000


@dataclass(frozen=True)
class Exemplars:
    """Rows of units that stand for a claim, most typical first."""

    units: tuple[int, ...]


def least_similarity(vectors: np.ndarray, rng: np.random.Generator) -> float:
    """The similarity below which two units of a corpus are called alike for its boilerplate.

    Three standard deviations above the mean of units drawn by chance: where all texts begin alike ("A bill to …"),
    sentences must be closer than elsewhere to be alike in what they say.
    """
    first = rng.integers(len(vectors), size=_DRAWN)
    # Never a unit and itself, which small corpora would have many of.
    second = (first + rng.integers(1, max(len(vectors), 2), size=_DRAWN)) % len(vectors)
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    return float(cosines.mean() + 3 * cosines.std())


def typical_units(
    activation: np.ndarray,
    units: np.ndarray,
    vectors: np.ndarray,
    n_words: np.ndarray,
    *,
    coherent: float,
    sets: int = 2,
) -> list[Exemplars]:
    """Sets of exemplars of one neuron: one sentence, and up to three that are close to each other.

    Args:
        activation: (f,) of the neuron on the units that fire it.
        units: (f,) rows of these units.
        vectors: (units, d) float32 of unit length.
        n_words: (units,) words of each unit.
        coherent: cosine that any two exemplars of one claim need.
        sets: most different centres to start from.

    Returns:
        At most `2 * sets` sets, none where no short unit fires.
    """
    short = (n_words[units] >= _FEWEST_WORDS) & (n_words[units] <= _MOST_WORDS)
    order = np.lexsort((units[short], -activation[short]))[:_STRONGEST]
    rows, strength = units[short][order], activation[short][order]
    if not len(rows):
        return []
    alike = vectors[rows] @ vectors[rows].T
    found: list[Exemplars] = []
    left = np.ones(len(rows), dtype=bool)
    for _ in range(sets):
        if not left.any():
            break
        # Typical: close to many strong ones.
        typical = np.where(left, (alike * strength[None, :] * left[None, :]).sum(axis=1), -np.inf)
        centre = int(typical.argmax())
        members = _spread(centre, alike, coherent)
        found.append(Exemplars((int(rows[centre]),)))
        if len(members) > 1:
            found.append(Exemplars(tuple(int(rows[m]) for m in members)))
        left &= alike[centre] < coherent
    return found


def _spread(centre: int, alike: np.ndarray, least: float) -> list[int]:
    """Up to three units, coherent with each other, that together lie close to most of the others."""
    members = [centre]
    covered = alike[centre].copy()
    while len(members) < MOST_SENTENCES:
        coherent = (alike[members] >= least).all(axis=0) & (alike[members] < 0.95).all(axis=0)
        if not coherent.any():
            break
        reach = np.maximum(covered[None, :], alike)
        gain = np.where(coherent, np.minimum(reach, 0.7).clip(min=0.4).sum(axis=1), -np.inf)
        best = int(gain.argmax())
        members.append(best)
        covered = np.maximum(covered, alike[best])
    return members


def closest(sentences: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(units, q) float32 cosine of each unit with each of q sentences, in blocks; both of unit length."""
    out = np.empty((len(vectors), len(sentences)), dtype=np.float32)
    size = max(1, _BLOCK // max(len(sentences), 1))
    for start in range(0, len(vectors), size):
        out[start : start + size] = vectors[start : start + size] @ sentences.T
    return out


def columns_at(likeness: np.ndarray, sets: Sequence[Sequence[int]], similarities: Sequence[float]) -> sp.csc_matrix:
    """(texts, sets × similarities) CSC: which texts have some sentence of each set at each similarity."""
    parts = []
    for members in sets:
        top = likeness[:, list(members)].max(axis=1)
        parts += [top >= similarity for similarity in similarities]
    return sp.csc_matrix(np.column_stack(parts).astype(np.float32)) if parts else sp.csc_matrix((len(likeness), 0))
