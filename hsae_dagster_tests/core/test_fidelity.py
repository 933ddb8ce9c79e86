"""Fidelity: golden numbers, natural prevalence, nothing counted that was not judged."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.core.concepts.fidelity import (
    column,
    firing_bounds,
    measure_fidelity,
    natural_agreement,
    scoring_rows,
    wilson_interval,
)


def test_golden_numbers() -> None:
    # 100 strong texts, 97 judged yes; 100 silent, none judged yes.
    activation = np.r_[np.ones(100), np.zeros(100)]
    answers = np.r_[np.ones(97), np.zeros(103)].astype(np.int8)
    fidelity = measure_fidelity(answers, activation, (1.0, np.inf))
    assert fidelity.recall == pytest.approx(0.97)
    assert fidelity.precision == 1.0
    assert fidelity.f1 == pytest.approx(2 * 0.97 / 1.97)


def test_balanced_f1_equals_the_reference_on_equal_sides() -> None:
    rng = np.random.default_rng(0)
    activation = np.r_[rng.random(50) + 1, np.zeros(50)]
    answers = (rng.random(100) < np.r_[np.full(50, 0.8), np.full(50, 0.3)]).astype(np.int8)
    fidelity = measure_fidelity(answers, activation, (1.0, np.inf))
    tp, fp = answers[:50].sum(), answers[50:].sum()
    precision, recall = tp / (tp + fp), tp / 50
    assert fidelity.precision == pytest.approx(precision)
    assert fidelity.f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert fidelity.correlation == pytest.approx(np.corrcoef(answers, activation)[0, 1])


def test_weak_firing_counts_at_natural_prevalence_only() -> None:
    activation = np.array([5.0, 5.0, 0.1, 0.1, 0.0, 0.0])
    answers = np.array([1, 1, 0, 0, 0, 1], np.int8)
    fidelity = measure_fidelity(answers, activation, (1.0, np.inf))
    assert (fidelity.recall, fidelity.n_firing, fidelity.natural_recall) == (1.0, 4, 0.5)
    assert fidelity.natural_precision == pytest.approx(2 / 3)


def test_a_balanced_sample_is_weighed_to_natural_prevalence() -> None:
    rng = np.random.default_rng(0)
    activation = np.where(rng.random(20_000) < 0.05, 2.0, 0.0)
    answers = (rng.random(20_000) < np.where(activation > 0, 0.8, 0.1)).astype(np.int8)
    whole = measure_fidelity(answers, activation, (1.0, np.inf))
    rows = scoring_rows(activation, (1.0, np.inf), 1600, rng)
    sampled = np.full(20_000, -1, np.int8)
    sampled[rows] = answers[rows]
    part = measure_fidelity(sampled, activation, (1.0, np.inf))
    # 4 % of yes to 9.5 %: a precision near 0.3, which the balanced sample alone would put near 0.9.
    assert whole.natural_precision == pytest.approx(0.3, abs=0.03)
    assert part.natural_precision == pytest.approx(whole.natural_precision, abs=0.04)
    assert part.natural_recall == pytest.approx(whole.natural_recall, abs=0.04)
    assert part.precision == pytest.approx(0.89, abs=0.03)


def test_missing_answers_are_left_out_never_no() -> None:
    fidelity = measure_fidelity(np.array([1, -1, 0, -1], np.int8), np.array([1.0, 1.0, 0.0, 0.0]), (0.5, np.inf))
    assert (fidelity.recall, fidelity.precision, fidelity.n_firing) == (1.0, 1.0, 1)


def test_constant_annotations_and_dead_neurons_give_figures_not_nan() -> None:
    for answers in (np.ones(4, np.int8), np.zeros(4, np.int8)):
        for activation in (np.zeros(4), np.array([0.0, 0.0, 1.0, 2.0])):
            fidelity = measure_fidelity(answers, activation, (0.5, np.inf))
            assert np.isfinite([fidelity.f1, fidelity.correlation, fidelity.natural_f1]).all()
            assert not fidelity.tells_apart


def test_bounds_are_percentiles_of_positive_activations() -> None:
    activation = np.r_[np.zeros(1000), np.arange(1, 101)]
    assert firing_bounds(activation, (80, 100)) == (pytest.approx(80.2), np.inf)
    assert firing_bounds(activation, (80, 90)) == (pytest.approx(80.2), pytest.approx(90.1))
    assert firing_bounds(np.zeros(3), (80, 100))[0] == np.inf


def test_natural_agreement_is_unbiased_where_few_are_strong_and_near_misses_are_judged_in_full() -> None:
    """Weak texts are most of those that fire, and false positives sit among the nearest silent ones."""
    rng = np.random.default_rng(3)
    strength = rng.random(4000)
    activation = np.where(rng.random(4000) < 0.1, strength, 0.0)
    answers = (rng.random(4000) < np.where(activation > 0, 0.5 + 0.5 * strength, 0.0)).astype(np.int8)
    hard = np.flatnonzero(activation == 0)[:80]
    answers[hard] = rng.random(80) < 0.6
    bounds = (0.8, np.inf)
    true = natural_agreement(answers, activation, bounds)
    found = []
    for draw in range(300):
        drawn = scoring_rows(activation, bounds, 90, np.random.default_rng(draw))
        judged = np.full(4000, -1, np.int8)
        rows = np.union1d(drawn, hard)
        judged[rows] = answers[rows]
        found.append(natural_agreement(judged, activation, bounds, hard))
    np.testing.assert_allclose(np.mean(found, axis=0), true, atol=0.01)
    # Strong and silent texts alone put recall far too high.
    strong = np.where((activation > 0) & (activation < 0.8), -1, answers).astype(np.int8)
    assert natural_agreement(strong, activation, bounds)[1] > true[1] + 0.1


def test_scoring_rows_are_as_many_strong_as_weak_and_silent_and_seeded() -> None:
    activation = np.r_[np.zeros(500), np.full(200, 0.1), np.full(300, 2.0)]
    rows = scoring_rows(activation, (1.0, np.inf), 99, np.random.default_rng(1))
    assert [int((activation[rows] == level).sum()) for level in (2.0, 0.1, 0.0)] == [33, 33, 33]
    rows = scoring_rows(activation, (0.05, np.inf), 100, np.random.default_rng(1))
    assert [(activation[rows] > 0).sum(), (activation[rows] == 0).sum()] == [50, 50]
    rows = scoring_rows(activation, (1.0, np.inf), 100, np.random.default_rng(1))
    np.testing.assert_array_equal(rows, scoring_rows(activation, (1.0, np.inf), 100, np.random.default_rng(1)))
    assert len(scoring_rows(activation, (1.0, np.inf), None, np.random.default_rng(1))) == 1000
    few = scoring_rows(np.r_[np.zeros(500), 2.0], (1.0, np.inf), 100, np.random.default_rng(1))
    assert len(few) == 51


@given(st.integers(0, 50), st.integers(0, 50))
def test_wilson_holds_the_share_and_stays_in_the_unit_interval(successes: int, more: int) -> None:
    low, high = wilson_interval(successes, successes + more)
    assert 0.0 <= low <= high <= 1.0
    if successes + more:
        assert low <= successes / (successes + more) <= high


def test_wilson_agrees_with_its_formula() -> None:
    z, share, n = 1.959963984540054, 7 / 40, 40
    half = z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    bounds = [(share + z * z / (2 * n) + side * half) / (1 + z * z / n) for side in (-1, 1)]
    assert wilson_interval(7, 40) == pytest.approx(bounds)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_a_column_is_read_from_sparse_codes() -> None:
    codes = sp.random(30, 5, 0.3, format="csc", random_state=0)
    np.testing.assert_array_equal(column(codes, 3), codes.toarray()[:, 3])
