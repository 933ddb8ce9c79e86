"""Which candidate of a grid is taken: what can be said, then agreement between seeds, then size."""

import numpy as np
import pytest

from hsae_dagster.core.sae.sizes import Candidate, Size, Standing, choose, compare

N, CLUSTERS = 400, np.arange(400) % 40
OUTCOME = np.random.default_rng(0).normal(size=N)


def candidate(m: int, noise: float, outcome: np.ndarray = OUTCOME) -> Candidate:
    """One whose claims say half of the outcome plus noise of a given size."""
    said = 0.5 * (outcome + noise * np.random.default_rng(m).normal(size=len(outcome)))
    return Candidate(Size(m, 4), 20, outcome, said)


def standing(near: tuple[int, ...], best: int) -> Standing:
    return Standing(np.zeros(3), np.zeros(3), near, best)


def test_only_candidates_within_one_standard_error_of_the_best_are_near() -> None:
    found = compare([candidate(64, 0.6), candidate(128, 0.59), candidate(256, 1.5)], CLUSTERS, "regression")
    assert found.near == (0, 1)
    assert found.said[2] < found.said[found.best] - found.standard_errors[2]
    assert found.standard_errors[found.best] == 0
    clear = compare([candidate(64, 1.2), candidate(128, 0.4)], CLUSTERS, "regression")
    assert (clear.near, clear.best) == ((1,), 1)


def test_the_error_is_one_of_clusters_and_not_of_rows() -> None:
    # Ten copies of each row in one cluster say no more than one of them.
    few = [candidate(64, 0.9, OUTCOME[:40]), candidate(128, 0.5, OUTCOME[:40])]
    copied = [Candidate(c.size, c.claims, np.repeat(c.outcome, 10), np.repeat(c.predicted, 10)) for c in few]
    once = compare(few, np.arange(40), "regression").standard_errors
    often = compare(copied, np.repeat(np.arange(40), 10), "regression").standard_errors
    assert often == pytest.approx(once)


@pytest.mark.parametrize("task", ["classification", "pairwise"])
def test_classes_are_compared_by_auc(task: str) -> None:
    labels = (OUTCOME > 0).astype(float)
    found = compare([candidate(64, 2.0, labels), candidate(128, 0.4, labels)], CLUSTERS, task)
    assert found.near == (1,)
    assert 0.5 < found.said[0] < found.said[1] <= 1.0


def test_nothing_to_say_takes_the_smallest() -> None:
    nothing = [Candidate(Size(m, 4), 0, OUTCOME, np.zeros(N)) for m in (64, 128)]
    found = compare(nothing, CLUSTERS, "regression")
    assert (found.near, found.best) == ((0, 1), 0)
    assert choose(found, {0: 0.0, 1: 0.0})[0] == 0


@pytest.mark.parametrize(
    ("agreement", "taken", "why"),
    [
        ({0: 0.4, 1: 0.8}, 1, "finds most of its neurons again"),
        ({0: 0.8, 1: 0.3}, 0, "finds most of its neurons again"),
        ({0: 0.7, 1: 0.75}, 0, "the smallest among those"),
    ],
)
def test_of_those_that_say_as_much_the_one_found_again_then_the_smallest(
    agreement: dict[int, float], taken: int, why: str
) -> None:
    place, reason = choose(standing((0, 1), 1), agreement)
    assert place == taken
    assert why in reason


def test_one_that_says_most_needs_no_second_seed() -> None:
    assert choose(standing((2,), 2), {}) == (2, "its claims fit best")
