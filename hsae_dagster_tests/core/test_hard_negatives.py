"""Hard negatives are the silent neighbours of firing texts."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.concepts.fidelity import nearest_silent
from hsae_dagster.dataset.spec import Interpretation
from hsae_dagster.stages.judging import Split, sample_to_read

STRONG = (1.0, np.inf)
ALL = 10_000


def place(n_strong: int, n_near: int, n_far: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Texts around two directions: strong and near ones share one, far ones have the other."""
    rng = np.random.default_rng(seed)
    here, there = np.eye(8)[:2]
    centres = np.r_[np.tile(here, (n_strong + n_near, 1)), np.tile(there, (n_far, 1))]
    vectors = (centres + 0.1 * rng.standard_normal(centres.shape)) * rng.uniform(0.5, 5, (len(centres), 1))
    return vectors.astype(np.float32), np.r_[np.full(n_strong, 2.0), np.zeros(n_near + n_far)]


def test_they_are_silent_neighbours_of_strong_texts_whatever_the_length_of_vectors() -> None:
    vectors, activation = place(30, 10, 200)
    rows = nearest_silent(vectors, activation, STRONG, ALL)
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
    assert nearest_silent(vectors, activation, (0.2, np.inf), ALL).tolist() == sorted(near)
    best = sorted(sorted(near, key=lambda row: -near[row])[:7])
    assert nearest_silent(vectors, activation, (0.2, np.inf), 7).tolist() == best


def test_without_strong_or_silent_texts_there_are_none() -> None:
    vectors = np.ones((4, 3), np.float32)
    for activation in (np.zeros(4), np.full(4, 2.0), np.full(4, 0.5)):
        assert len(nearest_silent(vectors, activation, STRONG, ALL)) == 0
    assert len(nearest_silent(np.zeros((4, 3)), np.array([2.0, 0, 0, 0]), STRONG, ALL)) == 1


def test_a_quarter_of_the_texts_that_score_a_concept_are_hard_negatives() -> None:
    vectors, activation = place(100, 40, 400)
    names = [str(row) for row in range(540)]
    split = Split(names, names, np.arange(540), sp.csc_matrix(activation[:, None]), vectors)
    read = sample_to_read(Interpretation(scoring_texts=40), split, 0, activation, STRONG)
    assert 0 < len(read.hard) <= 10
    assert set(read.hard) <= set(range(100, 140))
    assert len(read.drawn) == 30
    assert (activation[read.drawn] > 0).sum() == 15
