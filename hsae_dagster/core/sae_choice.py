"""Which autoencoder of a grid is taken.

Belongs here: comparing candidates by what can be said with them, by agreement between seeds and by size. Does not
belong here: the grid (`sae_grid`), finding claims (`concepts`), training, reading or storing anything.

What counts is what can be said: the fit, on validation clusters, of claims that were chosen on training clusters from a
candidate's neurons. Candidates within one standard error of the best say as much (Breiman et al. 1984; Hastie et al.
2009, section 7.10). That error is one of the difference to the best, over draws of whole clusters: two candidates see
the same observations, so what is easy or hard about those cancels. Of these the one is taken whose neurons another seed
finds again, and of equals the smallest.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.concepts.choice import fit
from hsae_dagster.core.sae_grid import Size

# Validation observations below which nothing is told from chance.
ENOUGH_OBSERVATIONS = 30
# Shares of neurons found again that differ by less count as equal: two neurons of twenty.
_AS_WELL = 0.1
_DRAWS = 200


@dataclass(frozen=True)
class Candidate:
    """What can be said with one candidate on validation observations.

    Attributes:
        size: of the autoencoder.
        claims: how many were taken on training clusters.
        outcome: (n,) validation outcome, without what is held constant.
        predicted: (n,) by the claims.
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
    """Compare candidates that were judged on the same observations.

    Args:
        candidates: by rising size.
        clusters: (n,) of the validation observations.
        task: regression, classification or pairwise.
    """
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

    Args:
        standing: of the candidates.
        agreement: share of neurons that another seed finds again, by place; of every near candidate if there are
            several, else none is needed.
    """
    if len(standing.near) == 1:
        return standing.best, "most can be said with it"
    found = {place: agreement[place] for place in standing.near}
    most = max(value for value in found.values())
    equal = [place for place in standing.near if found[place] >= most - _AS_WELL or math.isclose(found[place], most)]
    if len(equal) == 1:
        return equal[0], "of those with which as much can be said, another seed finds most of its neurons again"
    return min(equal), "the smallest of those with which as much can be said and whose neurons are found again as often"
