"""Autoencoder sizes: those worth trying for so many units, and the reference's rule of thumb.

Belongs here: sizes and batches from the amount of data, how alike neurons are. Does not belong here: which candidate is
taken (`sae_choice`), training (`sae_training`), reading or storing anything.
"""

import math
from dataclasses import dataclass

import numpy as np

# Fewest distinct training units for each neuron, and how many there must be for the largest size.
_UNITS_PER_NEURON, _MANY_UNITS = 8, 20_000
# Where even the smallest size has fewer: neurons are at most a quarter of the units.
_UNITS_AT_LEAST = 4


@dataclass(frozen=True)
class Size:
    """m neurons, k of them for each unit."""

    m: int
    k: int


_SMALLEST = Size(64, 4)
_LARGER = (Size(128, 4), Size(256, 8))
_LARGEST = Size(512, 8)


def reference_size(n_texts: int) -> Size:
    """The rule of thumb of HypotheSAEs: 64/4 for about 1,000 texts, 256/8 for 10,000, 1024/8 for 100,000; nearest."""
    power = min(max(round(math.log10(max(n_texts, 1))), 3), 5)
    return {3: Size(64, 4), 4: Size(256, 8), 5: Size(1024, 8)}[power]


def grid(n_units: int, n_select: int) -> list[Size]:
    """Sizes worth trying, by rising m: sparse ones, for neurons that mean something one could say.

    Args:
        n_units: distinct training units.
        n_select: neurons that will be selected; few units still get one neuron more than that, if they are so many.
    """
    most = max(n_units // _UNITS_AT_LEAST, min(n_select + 1, n_units), 2)
    m = min(_SMALLEST.m, most)
    found = [Size(m, min(_SMALLEST.k, max(m // 4, 1)))]
    larger = (*_LARGER, *([_LARGEST] if n_units >= _MANY_UNITS else []))
    return found + [size for size in larger if size.m * _UNITS_PER_NEURON <= n_units]


def passes(epochs: int, n_units: int) -> int:
    """Passes over so many units that make as many training steps as `epochs` over 20,000 of them; `epochs` for fewer.

    At least 5, so that early stopping has something to compare.
    """
    return min(epochs, max(5, math.ceil(epochs * _MANY_UNITS / max(n_units, 1))))


def redundancy(dense: np.ndarray) -> float:
    """Mean |correlation| over pairs of columns of dense (n, q); columns that do not vary count as uncorrelated."""
    q = dense.shape[1]
    if q < 2:
        return 0.0
    centred = dense - dense.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(length > 0, length, 1.0)
    return float(np.abs(unit.T @ unit)[~np.eye(q, dtype=bool)].mean())


def batch_size(n_units: int) -> int:
    """Units per training step: 512, fewer where an epoch would then have fewer than about eight steps; at least 32."""
    return min(512, max(32, 2 ** round(math.log2(max(n_units, 1) / 8))))
