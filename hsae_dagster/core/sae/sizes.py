"""Sizes of autoencoders: those worth trying for so many units, the reference's rule of thumb, and which is taken."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.concepts.choice import fit

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
    """Sizes worth trying for distinct training units, by rising m: sparse ones, for neurons that mean something.

    Few units still get one neuron more than will be selected, if they are so many.
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


def batch_size(n_units: int) -> int:
    """Units per training step: 512, fewer where an epoch would then have fewer than about eight steps; at least 32."""
    return min(512, max(32, 2 ** round(math.log2(max(n_units, 1) / 8))))


# Validation observations below which nothing is told from chance.
ENOUGH_OBSERVATIONS = 30
# Shares of neurons found again that differ by less count as equal: two neurons of twenty.
_AS_WELL = 0.1
_DRAWS = 200


@dataclass(frozen=True)
class Candidate:
    """What can be said with one candidate on validation observations.

    So many claims were taken on training clusters; `outcome` (n,) is the validation outcome without what is held
    constant, `predicted` (n,) what the claims say of it.
    """

    size: Size
    claims: int
    outcome: np.ndarray
    predicted: np.ndarray


@dataclass(frozen=True)
class Standing:
    """How the candidates compare.

    Attributes:
        said: (candidates,) R² or AUC of the claims.
        standard_errors: (candidates,) cluster-bootstrap standard error of each one's difference to the best.
        near: places of those within one standard error of the best, itself included, ascending.
        best: place of the best; of equals the smallest.
    """

    said: np.ndarray
    standard_errors: np.ndarray
    near: tuple[int, ...]
    best: int


def compare(candidates: Sequence[Candidate], clusters: np.ndarray, task: str) -> Standing:
    """Compare candidates, by rising size, that were judged on the same observations, of clusters (n,)."""
    said = np.array([fit(task, c.outcome, c.predicted) for c in candidates])
    best = int(np.nanargmax(said)) if np.isfinite(said).any() else 0
    draws = np.array([_drawn(candidate, clusters, task) for candidate in candidates])
    errors = np.zeros(len(candidates))
    if draws.shape[1] > 1:
        errors = np.nan_to_num((draws[best] - draws).std(axis=1, ddof=1))
    near = [place for place in range(len(candidates)) if place == best or said[best] - said[place] <= errors[place]]
    return Standing(said, errors, tuple(near), best)


def _drawn(candidate: Candidate, clusters: np.ndarray, task: str) -> np.ndarray:
    """(draws,) fit over seeded draws of whole clusters; the draws are the same for every candidate."""
    groups = np.unique(clusters, return_inverse=True)[1]
    members = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.bincount(groups))[:-1])
    rng = np.random.default_rng(0)
    found = []
    for _ in range(_DRAWS):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        found.append(fit(task, candidate.outcome[rows], candidate.predicted[rows]))
    values = np.array(found)
    # A draw with a single class has no AUC, whoever is judged.
    return values[np.isfinite(values)]


def choose(standing: Standing, agreement: Mapping[int, float]) -> tuple[int, str]:
    """The place of the candidate that is taken, and why, in words.

    Where several are near, `agreement` has the share of neurons that another seed finds again, by their places.
    """
    if len(standing.near) == 1:
        return standing.best, "its claims fit best"
    found = {place: agreement[place] for place in standing.near}
    most = max(value for value in found.values())
    equal = [place for place in standing.near if found[place] >= most - _AS_WELL or math.isclose(found[place], most)]
    if len(equal) == 1:
        return equal[0], "among those whose claims fit as well, another seed finds most of its neurons again"
    return min(equal), "the smallest among those whose claims fit as well and whose neurons are found again as often"
