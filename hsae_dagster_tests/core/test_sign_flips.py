"""The sign-flip p-value: against every sign gone through, against exact convolution, and where nothing is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.core.inference.effects import item_swap_test, separation, sign_flip_p
from hsae_dagster_tests.core.simulated_designs import at_most, make_design, pairs_within_tests


def exact(scores):
    """The mid-p by convolution, one cluster after the other."""
    if not scores.any():
        return 1.0
    steps = np.rint(2 * np.abs(scores)).astype(int)
    chance = np.ones(1)
    for step in steps:
        wider = np.zeros(len(chance) + 2 * step)
        wider[: len(chance)] += chance / 2
        wider[2 * step :] += chance / 2
        chance = wider
    sums, total = np.abs(np.arange(len(chance)) - steps.sum()), abs(round(2 * scores.sum()))
    return chance[sums > total].sum() + chance[sums == total].sum() / 2


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 120), st.integers(0, 10**6), st.sampled_from([0.5, 1.0, 1.5]))
def test_it_is_the_exact_probability_however_small(clusters, seed, unit):
    rng = np.random.default_rng(seed)
    scores = unit * rng.integers(0, 4, clusters) * np.where(rng.random(clusters) < rng.random(), 1, -1)
    # Beyond 14 clusters it is an approximation.
    assert sign_flip_p(scores) == pytest.approx(exact(scores), rel=1e-9 if clusters <= 14 else 0.12)


def test_all_won_by_a_few_clusters_is_as_likely_as_coins():
    assert sign_flip_p(np.full(5, 1.5)) == pytest.approx(2 * 2**-5 / 2)
    assert sign_flip_p(np.full(40, 0.5)) == pytest.approx(2 * 2**-40 / 2)
    assert sign_flip_p(np.array([0.5, 0.0, 0.0])) == 0.5
    assert sign_flip_p(np.zeros(9)) == 1.0
    won = make_design(np.ones(12), np.ones(12), np.repeat(np.arange(4), 3), task="pairwise")
    assert separation(won, 0).p_value == pytest.approx(2 * 2**-4 / 2), "four clusters are no certainty"


def test_the_sign_of_all_scores_plays_no_part():
    scores = np.random.default_rng(0).choice([-1.5, -0.5, 0.0, 0.5, 1.5], 60)
    assert sign_flip_p(scores) == sign_flip_p(-scores)
    assert sign_flip_p(scores) == pytest.approx(sign_flip_p(np.sort(scores)))


def test_with_many_clusters_it_agrees_with_students_t():
    from hsae_dagster.core.inference.cluster_robust import cluster_ols

    rng = np.random.default_rng(1)
    for _ in range(10):
        design = pairs_within_tests(rng, tests=1500, h=1, effect=0.08)
        by_t = cluster_ols(design.concepts[:, :1], design.outcome - 0.5, design.clusters, "pairs", exchangeable=False)[
            0
        ].p_value
        assert separation(design, 0).p_value == pytest.approx(by_t, rel=0.1, abs=1e-3)


@pytest.mark.slow
def test_far_out_in_the_tail_a_null_is_rejected_at_most_as_often_as_asked():
    rng, level, found = np.random.default_rng(2), 0.0025, []
    for _ in range(700):
        design = pairs_within_tests(rng, prevalence=0.03)
        found += [separation(design, j).p_value < level for j in range(20)]
    # Concepts of one holdout share its outcomes, so their tests are not independent: a wider margin.
    assert np.mean(found) <= at_most(level, len(found)) + 0.0005
    assert np.mean(found) > 0.001


def dealt(has, a, b, scores):
    """The p-value by hand: every way to deal the concept to the texts."""
    wins = np.zeros(len(has))
    np.add.at(wins, a, scores)
    np.add.at(wins, b, -scores)
    found = []
    for chosen in itertools.combinations(range(len(has)), int(has.sum())):
        c = np.isin(np.arange(len(has)), chosen) - has.mean()
        found.append(abs(c @ wins) / np.sqrt(c**2 @ wins**2))
    seen = abs((has - has.mean()) @ wins) / np.sqrt((has - has.mean()) ** 2 @ wins**2)
    return np.mean(np.array(found) >= seen - 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_dealing_the_concept_to_other_texts_is_the_exact_probability(seed):
    rng = np.random.default_rng(seed)
    a, b = np.array(list(itertools.combinations(range(9), 2))).T
    has, strength = np.isin(np.arange(9), rng.permutation(9)[:3]).astype(float), rng.normal(size=9)
    scores = np.sign(strength[a] - strength[b]) / 2
    p_value, reach = item_swap_test(has[a] - has[b], scores, np.column_stack([a + 100, b + 100]))
    assert p_value == pytest.approx(dealt(has, a, b, scores), abs=0.03)
    assert reach > 0


def test_of_separate_pairs_dealing_is_flipping_signs_and_nothing_to_deal_is_no_test():
    rng = np.random.default_rng(5)
    h, scores = rng.choice([-1.0, 0.0, 1.0], 40), rng.choice([-0.5, 0.5], 40)
    p_value, _ = item_swap_test(h, scores, np.arange(80).reshape(40, 2))
    assert p_value == pytest.approx(sign_flip_p(h * scores), abs=0.15)  # whole ties here, half of them there
    assert item_swap_test(np.zeros(40), scores, np.arange(80).reshape(40, 2)) is None
