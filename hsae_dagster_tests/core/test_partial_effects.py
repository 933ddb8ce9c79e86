"""The joint model: equal to least squares and logit where these are well posed; awkward concepts never spoil others."""

import numpy as np
import pytest
import statsmodels.api as sm

from hsae_dagster.core.inference.effects import test_hypotheses
from hsae_dagster.core.inference.partial_effects import partial_effects
from hsae_dagster_tests.core.simulated_designs import make_design, numbers, small_design, with_column


def test_partial_effects_of_a_regression_are_least_squares():
    design = small_design(6, task="regression")
    x = np.column_stack([design.concepts, design.controls, np.ones(600)])
    theirs = sm.OLS(design.outcome, x).fit(cov_type="cluster", cov_kwds={"groups": design.clusters}, use_t=True)
    ours, flags = partial_effects(design, [0, 1, 2, 3])
    np.testing.assert_allclose([ours[j].estimate for j in range(4)], theirs.params[:4], rtol=1e-8)
    np.testing.assert_allclose([ours[j].standard_error for j in range(4)], theirs.bse[:4], rtol=0.12)
    assert flags == {0: [], 1: [], 2: [], 3: []}


@pytest.mark.parametrize("task", ["classification", "pairwise"])
def test_partial_effects_of_a_choice_are_average_marginal_effects(task):
    design = small_design(7, task=task)
    constant = [np.ones(600)] if task == "classification" else []
    fit = sm.Logit(design.outcome, np.column_stack([design.concepts, design.controls, *constant])).fit(disp=0)
    ours, _ = partial_effects(design, [0, 1, 2, 3])
    theirs = fit.get_margeff(at="overall").margeff[:4]
    np.testing.assert_allclose([ours[j].estimate for j in range(4)], theirs, rtol=1e-5)


def test_partial_effect_takes_a_confounder_out():
    rng = np.random.default_rng(8)
    length = rng.normal(size=3000)
    concept = (length + rng.normal(size=3000) > 0).astype(float)
    design = make_design(concept, length + rng.normal(size=3000), controls=length, task="regression")
    found = test_hypotheses(design)[0]
    assert found.separation.low > 0.8
    assert found.partial.low < 0 < found.partial.high


# Awkward concepts: flagged, and the others keep what they had.


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (task, name)
        for task in ("classification", "regression", "pairwise")
        for name in ("zero", "constant", "rare", "twin", "opposite", "sum")
        # A pair design has no constant: a concept that text A always has is a proper regressor there.
        if (task, name) != ("pairwise", "constant")
    ],
)
def test_awkward_concepts_are_flagged_and_never_shift_the_others(task, name):
    design = small_design(9, task=task)
    first = design.concepts[:, 0]
    column = {
        "zero": np.zeros(600),
        "constant": np.ones(600),
        "rare": np.r_[np.ones(5), np.zeros(595)],
        "twin": first.copy(),
        "opposite": -first if task == "pairwise" else 1 - first,
        # In the span of two others, without being one of them.
        "sum": design.concepts[:, 2] - design.concepts[:, 3],
    }[name]
    before, after = test_hypotheses(design), test_hypotheses(with_column(design, column))
    if name == "twin":  # the earlier of two stands for both
        assert numbers(after[0].partial) == pytest.approx(numbers(before[0].partial), rel=1e-5)
    else:
        assert after[0].flags
        assert np.isnan(after[0].partial.estimate)
    tangled = {"twin": {0}, "opposite": {0}, "sum": {2, 3}}.get(name, set())
    for j in range(4):
        assert numbers(after[j + 1].separation) == pytest.approx(numbers(before[j].separation))
        if j in tangled:
            assert after[j + 1].flags
            assert np.isnan(after[j + 1].partial.estimate)
        else:
            assert numbers(after[j + 1].partial) == pytest.approx(numbers(before[j].partial), rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("task", ["classification", "pairwise"])
def test_a_concept_that_decides_its_rows_is_flagged_and_the_others_get_the_limit_of_the_full_model(task):
    design = small_design(12, n=1500, task=task)
    rows = np.random.default_rng(13).random(1500) < 0.05
    winner = np.where(rows, 2 * design.outcome - 1 if task == "pairwise" else 1.0, 0.0)
    outcome = design.outcome.copy()
    if task == "classification":
        outcome[rows] = 1.0
    spoilt = make_design(np.column_stack([winner, design.concepts]), outcome, design.clusters, design.controls, task)
    found = test_hypotheses(spoilt)
    assert any("one outcome only" in flag.sentence for flag in found[0].flags)
    assert np.isnan(found[0].partial.estimate)
    assert found[0].separation.p_value < 1e-6
    # The limit: the same logit with that concept's coefficient held at a large value.
    x = np.column_stack([design.concepts, design.controls, *([np.ones(1500)] if task == "classification" else [])])
    fit = sm.GLM(outcome, x, family=sm.families.Binomial(), offset=30 * winner).fit()
    mean_weight = (fit.fittedvalues * (1 - fit.fittedvalues)).mean()
    for j in range(4):
        assert found[j + 1].partial.estimator == "logit average marginal effect"
        assert found[j + 1].partial.estimate == pytest.approx(fit.params[j] * mean_weight, rel=1e-4)


def test_a_concept_that_is_the_outcome_is_a_leak_and_leaves_the_others_alone():
    design = small_design(14)
    leaking = with_column(design, design.outcome)
    before, after = test_hypotheses(design), test_hypotheses(leaking)
    assert after[0].separation.estimate == pytest.approx(1.0)
    assert any("contain the label" in flag.sentence for flag in after[0].flags)
    for j in range(4):
        assert numbers(after[j + 1].partial) == pytest.approx(numbers(before[j].partial), rel=1e-5)


def test_concepts_that_separate_only_together_fall_back_to_least_squares_with_a_flag():
    concepts = np.random.default_rng(15).random((600, 3)) < 0.5
    for test in test_hypotheses(make_design(concepts, concepts.sum(axis=1) >= 2)):  # a majority decides, none alone
        assert test.partial.estimator == "linear probability model"
        assert test.partial.estimate == pytest.approx(0.5, abs=0.05)
        assert [flag.name for flag in test.flags] == ["not converged"]


def test_sign_conflict_is_flagged():
    rng = np.random.default_rng(16)
    a = rng.random(4000) < 0.5
    b = np.where(rng.random(4000) < 0.9, a, ~a)
    y = 1.0 * a - 0.4 * b + rng.normal(size=4000)
    found = test_hypotheses(make_design(np.column_stack([a, b]), y, task="regression"))
    assert any("opposite signs" in flag.sentence for flag in found[1].flags)
    assert not any("opposite signs" in flag.sentence for flag in found[0].flags)


def test_more_concepts_than_complete_rows_are_not_fitted():
    design = small_design(18, n=600, h=4)
    design.concepts[20:, 3] = np.nan
    design.concepts[:20, 3] = 1.0
    found = test_hypotheses(design, min_positives=1)
    assert all(np.isfinite(test.separation.p_value) for test in found[:3])
    tiny = make_design(np.kron(np.eye(3), np.ones((2, 1)))[:, [0, 1, 2, 2]], [1, 0, 1, 0, 1, 0])
    doubts = [{flag.name for flag in test.flags} for test in test_hypotheses(tiny, min_positives=1)]
    assert all(names & {"too few rows", "too few positives"} for names in doubts)
