import numpy as np
import pytest

from hsae_dagster.core.evaluations import LEAST_SHARED, annotation_correlation, direction_cosine, match_hypotheses

NAN = np.nan


def test_correlation_is_numpys_over_the_rows_that_both_judged() -> None:
    rng = np.random.default_rng(0)
    old = rng.integers(-1, 2, size=(400, 3)).astype(np.int8)
    new = np.column_stack([old[:, 0], np.where(rng.random(400) < 0.8, old[:, 1], 0), rng.integers(0, 2, 400)])
    found = annotation_correlation(old, new.astype(np.int8))
    for i in range(3):
        for j in range(3):
            both = (old[:, i] >= 0) & (new[:, j] >= 0)
            assert found[i, j] == pytest.approx(np.corrcoef(old[both, i], new[both, j])[0, 1])
    assert found[0, 0] == pytest.approx(1.0)


def test_few_shared_texts_or_a_constant_say_nothing() -> None:
    answers = np.tile([[0], [1]], (LEAST_SHARED, 1)).astype(np.int8)
    assert annotation_correlation(answers, answers)[0, 0] == pytest.approx(1.0)
    few = answers[: LEAST_SHARED - 1]
    assert np.isnan(annotation_correlation(few, few)).all()
    assert np.isnan(annotation_correlation(answers, np.ones_like(answers))).all()


def test_directions_are_compared_whatever_their_length() -> None:
    old, new = np.array([[3.0, 0.0], [0.0, 0.0]]), np.array([[1.0, 1.0], [0.1, 0.0]])
    cosine = direction_cosine(old, new)
    assert cosine[0] == pytest.approx([np.sqrt(0.5), 1.0])
    assert np.isnan(cosine[1]).all()


@pytest.mark.parametrize(
    ("correlation", "cosine", "one"),
    [
        (0.95, 0.2, True),  # the same texts have it, whichever neuron it was written for
        (0.69, 0.89, False),
        (0.6, 0.95, True),  # the same neuron, words that say nearly the same
        (0.4, 0.99, False),  # the same neuron, but its words now mean something else
        (NAN, 0.95, True),
        (NAN, 0.8, False),
        (0.8, NAN, True),
        (NAN, NAN, False),
    ],
)
def test_what_makes_two_hypotheses_one(correlation: float, cosine: float, one: bool) -> None:
    found = match_hypotheses(np.array([[correlation]]), np.array([[cosine]]))
    assert bool(found) is one


def test_each_is_matched_once_and_the_total_counts() -> None:
    # Greedily 0-0 would leave 1 without; together 0-1 and 1-0 are better.
    correlation = np.array([[0.90, 0.89], [0.88, 0.10]])
    found = match_hypotheses(correlation, np.full((2, 2), NAN))
    assert [(match.old, match.new) for match in found] == [(1, 0), (0, 1)]
    more = np.array([[0.9], [0.95], [0.8]])
    assert [(match.old, match.new) for match in match_hypotheses(more, np.full((3, 1), NAN))] == [(1, 0)]
    assert match_hypotheses(np.empty((0, 2)), np.empty((0, 2))) == []
