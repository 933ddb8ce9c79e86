"""Which texts a reader is shown to say what a neuron responds to.

Belongs here: drawing example texts for interpretation. Does not belong here: which texts score a concept
(`core.fidelity.scoring_rows`, on other splits) or how texts are shown (providers).
"""

from dataclasses import dataclass

import numpy as np


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
) -> Examples:
    """Draw `count` texts without replacement: half strongly firing, half exactly silent.

    Strong texts are drawn uniformly from a percentile bin of the neuron's positive activations rather than from its
    very top, as in HypotheSAEs (arXiv 2502.04382, section 4); silent ones uniformly from all texts with activation 0.
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
    return Examples(strong=strongest, silent=_draw(np.flatnonzero(against), count // 2, rng))


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:count].astype(np.int64)
