import numpy as np
import pytest

from hsae_dagster.core.evaluations import LEAST_SHARED, annotation_phi, match_hypotheses

NAN = np.nan


def test_phi_is_numpys_correlation_over_the_rows_that_both_judged() -> None:
    rng = np.random.default_rng(0)
    old = rng.integers(-1, 2, size=(400, 3)).astype(np.int8)
    new = np.column_stack([old[:, 0], np.where(rng.random(400) < 0.8, old[:, 1], 0), rng.integers(0, 2, 400)])
    found = annotation_phi(old, new.astype(np.int8))
    for i in range(3):
        for j in range(3):
            both = (old[:, i] >= 0) & (new[:, j] >= 0)
            assert found[i, j] == pytest.approx(np.corrcoef(old[both, i], new[both, j])[0, 1])
    assert found[0, 0] == pytest.approx(1.0)


def test_few_shared_texts_or_a_constant_say_nothing() -> None:
    answers = np.tile([[0], [1]], (LEAST_SHARED, 1)).astype(np.int8)
    assert annotation_phi(answers, answers)[0, 0] == pytest.approx(1.0)
    few = answers[: LEAST_SHARED - 1]
    assert np.isnan(annotation_phi(few, few)).all()
    assert np.isnan(annotation_phi(answers, np.ones_like(answers))).all()


@pytest.mark.parametrize(("phi", "one"), [(0.95, True), (0.7, True), (0.69, False), (-0.9, False), (NAN, False)])
def test_what_makes_two_hypotheses_one(phi: float, one: bool) -> None:
    assert bool(match_hypotheses(np.array([[phi]]))) is one


def test_each_is_matched_once_and_the_total_counts() -> None:
    # Greedily 0-0 would leave 1 without; together 0-1 and 1-0 are better.
    assert match_hypotheses(np.array([[0.90, 0.89], [0.88, 0.10]])) == [(1, 0), (0, 1)]
    assert match_hypotheses(np.array([[0.9], [0.95], [0.8]])) == [(1, 0)]
    assert match_hypotheses(np.empty((0, 2))) == []
