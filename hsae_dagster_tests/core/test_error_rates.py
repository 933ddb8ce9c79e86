"""Error rates under true nulls and coverage of known effects, by simulation, beside the reference's formula."""

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.inference.effects import separation
from hsae_dagster_tests.core import simulated_rates
from hsae_dagster_tests.core.simulated_designs import (
    at_most,
    authors_with_labels,
    independent_texts,
    pairs_within_tests,
    rejection,
)
from hsae_dagster_tests.core.simulated_rates import DISCOVERIES, NULLS, REJECTIONS, effect_coverages


def reference_pairwise_p(h, y):
    """As in the reference's `compute_hypothesis_separation_scores` (hypothesaes 2.0.1): -y where 1 - y is due."""
    return stats.ttest_ind(np.concatenate([y[h == 1], -y[h == -1]]), y[h == 0]).pvalue


# Error rates. The quick ones could fail only for a formula that is plainly wrong; the slow ones measure.


def test_pairwise_null_the_reference_rejects_it_always_and_we_do_not():
    rng = np.random.default_rng(20)
    theirs, ours = [], []
    for _ in range(200):
        design = pairs_within_tests(rng, tests=200, h=1)
        theirs.append(reference_pairwise_p(design.concepts[:, 0], design.outcome))
        ours.append(separation(design, 0).p_value)
    assert np.mean(np.array(theirs) < 0.05) > 0.95
    assert np.mean(np.array(ours) < 0.05) <= at_most(0.05, 200)


def test_author_level_null_naive_rejects_a_third_and_we_stay_nominal():
    rng = np.random.default_rng(21)
    naive, ours = [], []
    for _ in range(200):
        design = authors_with_labels(rng, authors=80, texts=15, h=1, habit=2.0)
        h, y = design.concepts[:, 0], design.outcome
        naive.append(stats.ttest_ind(y[h == 1], y[h == 0]).pvalue)
        ours.append(separation(design, 0).p_value)
    assert np.mean(np.array(naive) < 0.05) > 0.3
    assert np.mean(np.array(ours) < 0.05) <= at_most(0.05, 200)


def test_an_effect_that_is_there_is_found():
    rng = np.random.default_rng(22)
    found = [separation(pairs_within_tests(rng, tests=300, h=1, effect=0.5), 0) for _ in range(20)]
    assert np.mean([effect.low > 0 for effect in found]) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("scenario", NULLS, ids=lambda scenario: scenario.name)
def test_confirmed_by_holm_is_wrong_at_most_at_alpha(scenario, monkeypatch):
    # The reference's own, a quarter of the time, is for the test after this one.
    monkeypatch.setattr(simulated_rates, "reference_p", lambda design, column: np.nan)
    ours, _ = scenario.observe(400, 23)
    assert ours <= at_most(0.05, 400)


@pytest.mark.slow
def test_the_references_formula_would_fail_where_rows_depend_on_one_another():
    for name in ("authors, scores", "authors, strong habits", "pairs within tests"):
        (scenario,) = [scenario for scenario in NULLS if scenario.name == name]
        assert scenario.observe(40, 23)[1] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("scenario", DISCOVERIES, ids=lambda scenario: scenario.name)
def test_the_false_discovery_rate_is_at_most_nominal(scenario):
    ours, _ = scenario.observe(300, 26)
    assert ours <= scenario.nominal + 3 * 0.1 / np.sqrt(300)  # a share of false ones has a spread of about 0.1


@pytest.mark.slow
@pytest.mark.parametrize("scenario", REJECTIONS, ids=lambda scenario: scenario.name)
def test_partial_effects_reject_a_null_at_most_at_the_nominal_rate(scenario):
    ours, _ = scenario.observe(400, 27)
    assert ours <= at_most(0.05, 400)


SINGLE = {
    "texts, prevalence 0.5": lambda rng: independent_texts(rng, prevalence=0.5),
    "texts, scores": lambda rng: independent_texts(rng, prevalence=0.1, gaussian=True),
    "authors": authors_with_labels,
    "pairs": pairs_within_tests,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
def test_single_tests_reject_a_null_near_the_nominal_rate(name):
    found = rejection(SINGLE[name], 150, 24)
    assert 0.03 <= found <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["separation", "marginal effect", "predict-then-debias"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind):
    # Fits (AUC, R²) have a test of their own in test_joint_fit.
    repetitions = 500 if kind == "marginal effect" else 1500
    error = np.sqrt(0.95 * 0.05 / repetitions)
    scenarios = effect_coverages(kind)
    assert scenarios
    for scenario in scenarios:
        ours, _ = scenario.observe(repetitions, 25)
        assert 0.93 - 2 * error <= ours <= 0.97 + 2 * error, scenario.name


@pytest.mark.slow
def test_an_uncorrected_judge_hardly_ever_covers_the_truth():
    for scenario in effect_coverages("predict-then-debias"):
        assert scenario.observe(100, 28)[1] < 0.5
