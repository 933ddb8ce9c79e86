"""Two-fold cross-fitted discovery: each half confirms what the other found.

Belongs here: halves of whole components, running discovery on one and tests on the other, both ways, and the one list
that comes of it. Does not belong here: what is discovered or how it is tested; both are given.

Where data are few, a third for tests and a tenth for choices leave little to learn from and little to test on. Two
halves use every row for both, and never for the same claim: what half A suggests (neurons selected, words,
thresholds, directions, weights) is tested on half B alone, and the other way round. Each way has alpha / 2, corrected
by weighted Holm over its own claims, so that the family-wise error of the whole list is at most alpha (Cox 1975;
Dahl, Grotte and Røislien 2008 on exchanging the halves). An autoencoder that sees no outcome may learn from all
texts: what it knows is not what is tested.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from hsae_dagster.core.multiple_tests import weighted_holm
from hsae_dagster.errors import MethodError

T = TypeVar("T")
_FEWEST = 5


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """What one half suggests.

    Attributes:
        content: whatever the test needs; its direction is part of it.
        weight: in Holm's correction, frozen before the other half is opened.
    """

    content: T
    weight: float = 1.0


@dataclass(frozen=True)
class Claim(Generic[T]):
    """One line of the joint list.

    Attributes:
        content: of the candidate.
        tested_on: half that it was tested on, 0 or 1; the other one suggested it.
        p_value: one-sided, uncorrected.
        p_adjusted: corrected over both halves; below alpha it is confirmed.
        twin: position in the list of the other half's claim of the same meaning, or None.
    """

    content: T
    tested_on: int
    p_value: float
    p_adjusted: float
    twin: int | None = None


def halves(components: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Two halves of whole components, of about as many rows.

    Args:
        components: (n,) int of each row, from 0.
        rng: decides which half is which; the largest components are dealt first, each to the smaller half.

    Returns:
        (n,) int8, 0 or 1.

    Raises:
        MethodError: fewer than five components in a half.
    """
    sizes = np.bincount(components)
    order = rng.permutation(len(sizes))
    order = order[np.argsort(-sizes[order], kind="stable")]
    half, rows, counts = np.zeros(len(sizes), dtype=np.int8), np.zeros(2), np.zeros(2, dtype=np.int64)
    for component in order:
        k = int(rng.integers(2)) if rows[0] == rows[1] else int(rows[1] < rows[0])
        half[component], rows[k], counts[k] = k, rows[k] + sizes[component], counts[k] + 1
    if counts.min() < _FEWEST:
        raise MethodError(
            f"Halves of {counts[0]} and {counts[1]} independent clusters cannot confirm each other's findings; at "
            f"least {_FEWEST} are needed in each. Bring data of more clusters."
        )
    return half[components]


def cross_fit(
    half: np.ndarray,
    discover: Callable[[np.ndarray], Sequence[Candidate[T]]],
    test: Callable[[Sequence[T], np.ndarray], np.ndarray],
    same: Callable[[T, T], bool] = lambda a, b: a == b,
) -> list[Claim[T]]:
    """Discover on each half, test on the other.

    Args:
        half: (n,) of each row, 0 or 1.
        discover: rows (bool) -> candidates; it must read outcomes of these rows only.
        test: candidates' contents and rows (bool) -> (h,) one-sided p-values, NaN where one cannot be tested.
        same: whether two contents say the same.

    Returns:
        Claims, those tested on half 0 first. `p_adjusted` is twice Holm's p of its half, at most 1.
    """
    claims: list[Claim[T]] = []
    for tested_on in (0, 1):
        found = list(discover(half != tested_on))
        if not found:
            continue
        p = np.asarray(test([one.content for one in found], half == tested_on), dtype=np.float64)
        adjusted = np.minimum(2 * weighted_holm(p, np.array([one.weight for one in found])), 1.0)
        claims += [Claim(one.content, tested_on, float(p[i]), float(adjusted[i])) for i, one in enumerate(found)]
    return _paired(claims, same)


def _paired(claims: list[Claim[T]], same: Callable[[T, T], bool]) -> list[Claim[T]]:
    """Each claim with the first of the other half that says the same."""
    out = []
    for claim in claims:
        others = (j for j, other in enumerate(claims) if other.tested_on != claim.tested_on)
        twin = next((j for j in others if same(claim.content, claims[j].content)), None)
        out.append(Claim(claim.content, claim.tested_on, claim.p_value, claim.p_adjusted, twin))
    return out
