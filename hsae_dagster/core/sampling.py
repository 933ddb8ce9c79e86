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
        strong: positions of strongly firing texts, int64, in random order.
        silent: positions of texts on which the neuron is exactly silent, int64, in random order.
    """

    strong: np.ndarray
    silent: np.ndarray


def sample_examples(
    activation: np.ndarray, bounds: tuple[float, float], count: int, rng: np.random.Generator
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
    """
    strong = np.flatnonzero((activation > 0) & (activation >= bounds[0]) & (activation <= bounds[1]))
    silent = np.flatnonzero(activation == 0)
    return Examples(
        strong=_draw(strong, count - count // 2, rng),
        silent=_draw(silent, count // 2, rng),
    )


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:count].astype(np.int64)
