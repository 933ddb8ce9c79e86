"""Which texts a reader is shown to say what a neuron responds to.

Belongs here: drawing example texts for interpretation, and which part of each is shown. Does not belong here: which
texts score a concept (`core.fidelity.scoring_rows`, on other splits) or how texts are fenced (providers).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.pooling import TextUnits, unit_length

# Silent texts that the nearest ones are drawn from, as a multiple of how many are shown: samples differ.
_NEAREST = 4
OPEN, CLOSE = "⟦", "⟧"


@dataclass(frozen=True)
class Places:
    """Which unit of each text matters for each neuron.

    Attributes:
        units: per text, what its units read like, in order.
        unit: (n, neurons) int32: the unit that fires most; in a silent text the one most like those that fire strongly.
        likeness: (n, neurons) float32: of a silent text the cosine of that unit with the mean direction of the
            strongest units of strongly firing texts; 0 of others.
    """

    units: Sequence[Sequence[str]]
    unit: np.ndarray
    likeness: np.ndarray

    def of_texts(self, rows: Sequence[int] | np.ndarray) -> "Places":
        """Of some of the texts."""
        return Places([self.units[row] for row in rows], self.unit[rows], self.likeness[rows])

    def excerpt(self, row: int, neuron: int, *, marked: bool) -> str:
        """The unit that matters between its neighbours, marked or not; a text of one unit whole."""
        units, at = self.units[row], int(self.unit[row, neuron])
        if len(units) == 1:
            return units[0]
        shown = list(units[max(at - 1, 0) : at + 2])
        if marked:
            shown[min(at, 1)] = f"{OPEN}{shown[min(at, 1)]}{CLOSE}"
        return " ".join([*(["…"] if at > 1 else []), *shown, *(["…"] if at + 2 < len(units) else [])])


def find_places(
    units: TextUnits,
    wording: Sequence[str],
    unit_codes: sp.csc_matrix,
    blocks: Iterable[np.ndarray],
    codes: sp.csc_matrix,
    bounds: Sequence[tuple[float, float]],
) -> Places:
    """Find the unit that matters in each text for each neuron.

    Args:
        units: of n texts.
        wording: (units,) what each unit reads like.
        unit_codes: (units, neurons) CSC of activations, >= 0.
        blocks: (block, d) vectors of the units in their order; all of them are kept at once.
        codes: (n, neurons) CSC of the texts' activations.
        bounds: per neuron, activations of texts that count as strong.
    """
    vectors = unit_length(np.concatenate(list(blocks)))
    n, neurons = codes.shape
    unit, likeness = np.zeros((n, neurons), dtype=np.int32), np.zeros((n, neurons), dtype=np.float32)
    for j, (low, high) in enumerate(bounds):
        activation = codes[:, [j]].toarray()[:, 0]
        fires = activation > 0
        unit[:, j], _ = _largest(units, unit_codes[:, [j]].toarray()[:, 0])
        strong = np.flatnonzero(fires & (activation >= low) & (activation <= high))
        if not len(strong):
            continue
        direction = vectors[units.rows[units.starts[strong] + unit[strong, j]]].mean(axis=0)
        nearest, cosine = _largest(units, vectors @ (direction / max(float(np.linalg.norm(direction)), 1e-12)))
        unit[~fires, j], likeness[~fires, j] = nearest[~fires], cosine[~fires]
    texts = [[wording[u] for u in units.rows[a:b]] for a, b in zip(units.starts[:-1], units.starts[1:], strict=True)]
    return Places(texts, unit, likeness)


def _largest(units: TextUnits, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the position of its unit with the largest value (the first of equal ones), and that value."""
    per_entry = values[units.rows]
    best = np.maximum.reduceat(per_entry, units.starts[:-1])
    text = np.repeat(np.arange(len(best)), np.diff(units.starts))
    hits = np.flatnonzero(per_entry == best[text])
    _, first = np.unique(text[hits], return_index=True)
    return hits[first] - units.starts[:-1], best


@dataclass(frozen=True)
class Examples:
    """Texts to show for one neuron.

    Attributes:
        strong: positions of strongly firing texts, int64; in random order, the very top in rising order.
        silent: positions of texts to hold against them, int64, in random order: exactly silent ones, or, where a low
            bin was asked for, weakly firing ones.
    """

    strong: np.ndarray
    silent: np.ndarray


def sample_examples(
    activation: np.ndarray,
    bounds: tuple[float, float],
    count: int,
    rng: np.random.Generator,
    *,
    top: bool = False,
    weak: tuple[float, float] | None = None,
    likeness: np.ndarray | None = None,
) -> Examples:
    """Draw `count` texts without replacement: half strongly firing, half exactly silent.

    Strong texts are drawn uniformly from a percentile bin of the neuron's positive activations rather than from its
    very top, as in HypotheSAEs (arXiv 2502.04382, section 4); silent ones uniformly from all texts with activation 0,
    or, where it is known how like the strong ones they are, half of them from the nearest.
    An odd `count` gives the strong side one more. A side with too few texts gives all it has: a shortfall is not made
    up on the other side, so the two are never unbalanced in the direction of what happens to be plentiful.

    Args:
        activation: (n,) of one neuron, >= 0.
        bounds: lowest and highest activation that count as strong (`core.fidelity.firing_bounds`).
        count: texts wanted in all.
        rng: a fresh generator per candidate makes candidates see different texts.
        top: take the strongest texts instead, whatever the bounds (the default of the package, `sample_top_zero`);
            nothing is drawn for that side, so all candidates see the same ones. Equal activations rank by position.
        weak: draw the other half from texts that fire, with activations between these two (a low percentile bin of
            the positive ones, the package's `low_percentile`); never one that counts as strong.
        likeness: (n,) of silent texts to strong ones (`Places`). A concept has to tell near misses apart, and texts
            drawn by chance hold few of them. Not used with `weak`.
    """
    fires = activation > 0
    strong = fires & (activation >= bounds[0]) & (activation <= bounds[1])
    wanted = count - count // 2
    if top:
        ranked = np.argsort(activation, kind="stable")
        strongest = ranked[fires[ranked]][-wanted:].astype(np.int64)
        strong = np.zeros(len(activation), dtype=bool)
        strong[strongest] = True
    else:
        strongest = _draw(np.flatnonzero(strong), wanted, rng)
    against = activation == 0
    if weak is not None:
        against = fires & (activation >= weak[0]) & (activation <= weak[1]) & ~strong
    silent = np.flatnonzero(against)
    if likeness is None or weak is not None:
        return Examples(strong=strongest, silent=_draw(silent, count // 2, rng))
    wanted = count // 4
    close = silent[np.argsort(-likeness[silent], kind="stable")[: _NEAREST * wanted]]
    nearest = _draw(close, wanted, rng)
    others = _draw(np.setdiff1d(silent, nearest), count // 2 - len(nearest), rng)
    return Examples(strong=strongest, silent=rng.permutation(np.concatenate([nearest, others])))


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:count].astype(np.int64)
