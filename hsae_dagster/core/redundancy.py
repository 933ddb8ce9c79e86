"""Concepts that say nearly the same, as families of which one is tested.

Belongs here: how alike two concepts are and who stands for whom. Does not belong here: neurons that copy one another
(`core.selection`), coefficients of concepts that overlap (`core.partial_effects`).

Two near-duplicates tested side by side are one finding counted twice, cost the correction a test, and cancel each other
in a joint model. Families are made from annotations and words alone, never from outcomes, so that testing only their
representatives needs no correction for the choice.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Annotations that agree less may still be one concept when the words are nearly the same.
_PHI_WITH_WORDS, _WORDS = 0.5, 0.6
_WORD = re.compile(r"\w+")
_FRAME = {"uses", "words", "such", "as", "the", "a", "an", "of", "or", "and", "that", "is", "about"}


@dataclass(frozen=True)
class Member:
    """A concept that another one stands for.

    Attributes:
        position: of the concept, among those given.
        phi: correlation of its annotation with the representative's; negative for the opposite concept.
    """

    position: int
    phi: float


def families(answers: np.ndarray, claims: Sequence[str], threshold: float) -> dict[int, tuple[Member, ...]]:
    """Representatives with the members they stand for.

    In order, each concept joins the first representative that it nearly repeats, or becomes one: |phi| of at least
    `threshold`, or of at least 0.5 where at least 0.6 of their words (Jaccard) are shared. Members are near their
    representative, not just near one another, so families do not grow by chains.

    Args:
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        claims: predicate of each concept, in order of preference.
        threshold: of |phi|; above 1 every concept is its own family.

    Returns:
        Position of each representative -> its members, in order.
    """
    found: dict[int, list[Member]] = {}
    for j in range(answers.shape[1]):
        for leader, members in found.items():
            alike = likeness((answers[:, leader], answers[:, j]), (claims[leader], claims[j]), threshold)
            if alike is not None:
                members.append(Member(j, alike))
                break
        else:
            found[j] = []
    return {leader: tuple(members) for leader, members in found.items()}


def likeness(answers: tuple[np.ndarray, np.ndarray], claims: tuple[str, str], threshold: float) -> float | None:
    """φ of two concepts that say nearly the same, by the rule of `families`; None where they do not.

    Args:
        answers: (texts,) int8 of each: 1 yes, 0 no, -1 missing.
        claims: of each.
        threshold: of |φ|.
    """
    found = phi(*answers)
    same_words = words_shared(*claims) >= _WORDS and threshold <= 1
    return found if abs(found) >= threshold or (same_words and found >= _PHI_WITH_WORDS) else None


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two annotations over texts where both are given; 0 where either does not vary."""
    both = (first >= 0) & (second >= 0)
    a, b = first[both].astype(np.float64), second[both].astype(np.float64)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def words_shared(first: str, second: str) -> float:
    """Jaccard index of the content words of two claims."""
    a, b = (set(_WORD.findall(claim.lower())) - _FRAME for claim in (first, second))
    return len(a & b) / len(a | b) if a | b else 0.0
