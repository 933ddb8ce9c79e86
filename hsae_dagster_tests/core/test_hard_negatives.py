"""Hard negatives are the silent neighbours of firing texts, and fooled concepts pay for it."""

import numpy as np
import pytest

from hsae_dagster.core.concepts.fidelity import measure_fidelity, nearest_silent, wilson_interval, with_hard_negatives

STRONG = (1.0, np.inf)


def place(n_strong: int, n_near: int, n_far: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts around two directions: strong and near ones share one, far ones have the other."""
    rng = np.random.default_rng(seed)
    here, there = np.eye(8)[:2]
    centres = np.r_[np.tile(here, (n_strong + n_near, 1)), np.tile(there, (n_far, 1))]
    vectors = (centres + 0.1 * rng.standard_normal(centres.shape)) * rng.uniform(0.5, 5, (len(centres), 1))
    return vectors.astype(np.float32), np.r_[np.full(n_strong, 2.0), np.zeros(n_near + n_far)]


def test_they_are_silent_neighbours_of_strong_texts_whatever_the_length_of_vectors() -> None:
    vectors, activation = place(30, 10, 200)
    rows = nearest_silent(vectors, activation, STRONG)
    assert set(rows) <= set(range(30, 40))
    assert len(rows) == len(set(rows)) > 0
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_they_are_the_brute_force_neighbours(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((1600, 6)).astype(np.float32)
    activation = rng.exponential(size=1600) * (rng.random(1600) < 0.8)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    silent = np.flatnonzero(activation == 0)
    near = {}
    for row in np.flatnonzero(activation >= 0.2):
        similar = unit[silent] @ unit[row]
        near[silent[similar.argmax()]] = max(similar.max(), near.get(silent[similar.argmax()], -1.0))
    assert nearest_silent(vectors, activation, (0.2, np.inf)).tolist() == sorted(near)
    best = sorted(sorted(near, key=lambda row: -near[row])[:7])
    assert nearest_silent(vectors, activation, (0.2, np.inf), 7).tolist() == best


def test_without_strong_or_silent_texts_there_are_none() -> None:
    vectors = np.ones((4, 3), np.float32)
    for activation in (np.zeros(4), np.full(4, 2.0), np.full(4, 0.5)):
        assert len(nearest_silent(vectors, activation, STRONG)) == 0
    assert len(nearest_silent(np.zeros((4, 3)), np.array([2.0, 0, 0, 0]), STRONG)) == 1


def test_a_concept_that_only_knows_the_neighbourhood_is_found_out() -> None:
    vectors, activation = place(50, 20, 400)
    topic = (np.arange(470) < 70).astype(np.int8)  # the whole neighbourhood
    exact = (activation > 0).astype(np.int8)
    hard = nearest_silent(vectors, activation, STRONG)
    vague, sharp = (
        with_hard_negatives(measure_fidelity(said, activation, STRONG), said[hard]) for said in (topic, exact)
    )
    assert vague.f1 > 0.97
    assert vague.hard_false_positive_rate == 1.0
    assert vague.hard_f1 == pytest.approx(2 / 3)
    assert vague.hard_false_positive_interval == wilson_interval(len(hard), len(hard))
    assert (sharp.hard_f1, sharp.hard_false_positive_rate) == (1.0, 0.0)


def test_missing_answers_are_left_out_and_none_at_all_is_no_figure() -> None:
    fidelity = measure_fidelity(np.array([1, 0], np.int8), np.array([2.0, 0.0]), STRONG)
    some = with_hard_negatives(fidelity, np.array([-1, 0, 1, -1], np.int8))
    assert (some.n_hard, some.hard_false_positive_rate) == (2, 0.5)
    none = with_hard_negatives(fidelity, np.array([-1, -1], np.int8))
    assert (none.n_hard, none.hard_f1, none.hard_false_positive_interval) == (0, 0.0, (0.0, 1.0))
