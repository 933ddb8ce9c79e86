"""Tests of single hypotheses: golden numbers, invariances, what cannot be tested, corrections for many tests."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from hsae_dagster.core.inference.effects import benjamini_hochberg, holm, separation, test_hypotheses
from hsae_dagster.core.inference.plan import Look, corrected
from hsae_dagster.core.observations import HoldoutDesign
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.simulated_designs import make_design, numbers, small_design, turn_round, with_column

# Golden numbers, by hand.


def test_separation_is_the_difference_in_means():
    # Means 2 and 16/3; variances 1 and 7/3 over three texts each, so SE^2 = 10/9, with 4 degrees of freedom.
    found = separation(make_design([1, 1, 1, 0, 0, 0], [1, 2, 3, 4, 5, 7], task="regression"), 0)
    assert found.estimate == pytest.approx(-10 / 3)
    assert found.standard_error == pytest.approx(np.sqrt(10 / 9))
    assert found.degrees_of_freedom == pytest.approx(4)
    assert found.p_value == pytest.approx(2 * stats.t.sf(np.sqrt(10), 4))
    assert found.low == pytest.approx(-10 / 3 - 2.776445 * np.sqrt(10 / 9), rel=1e-6)


def test_separation_of_pairs_is_the_share_won_minus_a_half():
    # Of five decided pairs the text with the concept wins the first three.
    found = separation(make_design([1, 1, -1, -1, 1, 0], [1, 1, 0, 1, 0, 1], task="pairwise"), 0)
    assert found.estimate == pytest.approx(3 / 5 - 1 / 2)


def test_missing_annotations_leave_their_rows_out():
    nan = np.nan
    found = separation(make_design([1, nan, 1, 0, 0, nan], [1, 100, 3, 4, 6, -100], task="regression"), 0)
    assert found.estimate == pytest.approx(2 - 5)


def test_counts_prevalence_and_missing_flag():
    design = small_design()
    design.concepts[:90, 0] = np.nan
    found = test_hypotheses(design)[0]
    judged = design.concepts[90:, 0]
    assert (found.n, found.n_with) == (510, int(judged.sum()))
    assert found.prevalence == pytest.approx(judged.mean())
    assert found.n_clusters == len(np.unique(design.clusters[90:]))
    assert "15% of its annotations are missing" in [flag.sentence for flag in found.flags]
    assert not any("missing" in flag.sentence for flag in test_hypotheses(design)[1].flags)


# Invariances.


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_which_text_is_called_a_changes_nothing(seed):
    design = small_design(seed, n=400, task="pairwise")
    turned = turn_round(design, np.random.default_rng(seed + 1).random(400) < 0.5)
    for a, b in zip(test_hypotheses(design), test_hypotheses(turned), strict=True):
        assert numbers(b.separation) == pytest.approx(numbers(a.separation), abs=1e-9)
        assert numbers(b.partial) == pytest.approx(numbers(a.partial), abs=1e-6)
        assert a.flags == b.flags


def test_pairs_all_won_by_a_are_as_good_as_any():
    design = small_design(3, task="pairwise")
    one_sided = turn_round(design, design.outcome == 0)
    assert one_sided.outcome.min() == 1
    for a, b in zip(test_hypotheses(design), test_hypotheses(one_sided), strict=True):
        assert numbers(b.separation) == pytest.approx(numbers(a.separation), abs=1e-9)


def test_saying_the_opposite_turns_the_sign_only():
    design = small_design(4)
    flipped = make_design(1 - design.concepts, design.outcome, design.clusters, design.controls)
    for a, b in zip(test_hypotheses(design), test_hypotheses(flipped), strict=True):
        assert b.separation.estimate == pytest.approx(-a.separation.estimate)
        assert b.partial.estimate == pytest.approx(-a.partial.estimate, abs=1e-6)
        assert b.separation.p_value == pytest.approx(a.separation.p_value)


def test_units_of_controls_and_of_the_outcome():
    design = small_design(5, task="regression")
    scaled = make_design(
        design.concepts, 10 * design.outcome, design.clusters, 1e6 * design.controls + 3e6, "regression"
    )
    for a, b in zip(test_hypotheses(design), test_hypotheses(scaled), strict=True):
        assert b.partial.estimate == pytest.approx(10 * a.partial.estimate)
        assert b.partial.p_value == pytest.approx(a.partial.p_value)


# What cannot be tested, or only with doubts.


def test_untestable_concepts_say_why_and_are_no_part_of_the_family():
    design = with_column(small_design(10), np.r_[np.ones(5), np.zeros(595)])
    found = test_hypotheses(design)
    assert found[0].flags[0].sentence.startswith("only 5 holdout observations have the concept")
    assert np.isnan(found[0].separation.p_value)
    p = np.array([test.separation.p_value for test in found])
    np.testing.assert_allclose(holm(p)[1:], multipletests(p[1:], method="holm")[1])
    lacking = test_hypotheses(with_column(small_design(10), np.r_[np.zeros(5), np.ones(595)]))[0]
    assert lacking.flags[0].sentence.startswith("only 5 holdout observations lack the concept")


def test_one_cluster_and_one_outcome_are_named():
    design = small_design(11)
    alone = make_design(design.concepts, design.outcome, np.zeros(600))
    assert test_hypotheses(alone)[0].flags[0].name == "one cluster"
    same = make_design(design.concepts, np.ones(600))
    assert "same outcome" in test_hypotheses(same)[0].flags[0].sentence


def test_few_clusters_with_the_concept_are_flagged_and_weigh_little():
    rng = np.random.default_rng(17)
    author = np.repeat(np.arange(60), 10)
    concept = np.isin(author, [0, 1, 2]) & (rng.random(600) < 0.9)
    label = np.where(np.arange(60) < 3, 1.0, np.arange(60) % 2)[author]
    found = test_hypotheses(make_design(concept, label, author))[0]
    assert any("degrees of freedom" in flag.sentence for flag in found.flags)
    naive = sm.OLS(label, np.column_stack([concept, np.ones(600)])).fit(
        cov_type="cluster", cov_kwds={"groups": author}, use_t=True
    )
    assert naive.pvalues[0] < 1e-6
    assert found.separation.p_value > 0.05


def test_parts_must_fit_and_outcomes_be_finite():
    with pytest.raises(MethodError, match="differ in length"):
        HoldoutDesign(np.zeros((3, 1)), np.zeros(4), np.zeros(4), np.zeros((4, 0)), "regression")
    with pytest.raises(MethodError, match="missing or not finite"):
        make_design([0, 1, 1], [1.0, np.nan, 0.0])


# Corrections.


@pytest.mark.parametrize("seed", range(6))
def test_corrections_equal_statsmodels_on_the_tested_ones(seed):
    rng = np.random.default_rng(seed)
    p = np.round(rng.random(25) ** 3, 2)  # rounded, so that there are ties, zeros and ones
    p[rng.random(25) < 0.2] = np.nan
    tested = np.isfinite(p)
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        found = ours(p)
        assert np.array_equal(np.isfinite(found), tested)
        np.testing.assert_allclose(found[tested], multipletests(p[tested], method=method)[1])
    assert (holm(p)[tested] >= benjamini_hochberg(p)[tested] - 1e-12).all()


def test_corrections_by_hand():
    p = np.array([0.01, 0.04, np.nan, 0.03])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, np.nan, 0.06])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.03, 0.04, np.nan, 0.04])
    look = Look(1, "plan", True, {})
    assert corrected(p, ["a", "b", "c", "d"], look, 0.05).bonferroni == 1
    assert corrected(np.array([np.nan]), ["a"], look, 0.05).bonferroni == 0


def test_a_concept_that_nearly_one_cluster_alone_has_is_not_tested():
    rng = np.random.default_rng(0)
    clusters = np.r_[np.zeros(200, dtype=int), np.repeat(np.arange(1, 40), 10)]
    h, y = (clusters <= 1).astype(float), rng.normal(size=len(clusters))
    (found,) = test_hypotheses(make_design(h, y, clusters, task="regression"))
    assert np.isnan(found.separation.p_value)
    assert found.flags[0].sentence == (
        "95% of the holdout observations that have the concept belong to one cluster, so nothing can "
        "be said about others"
    )
    (found,) = test_hypotheses(make_design((clusters <= 20).astype(float), y, clusters, task="regression"))
    assert np.isfinite(found.separation.p_value)
