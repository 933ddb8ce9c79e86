"""Error rates under true nulls and coverage of known effects, by simulation, beside the reference's formula."""

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.inference import separation
from hsae_dagster_tests.core.simulated_designs import (
    at_most,
    authors_with_labels,
    family_wise_error,
    independent_texts,
    make_design,
    pairs_within_tests,
    rejection,
)


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


NULLS = {
    "texts, prevalence 0.03": lambda rng: independent_texts(rng, prevalence=0.03),
    "texts, prevalence 0.03, rare outcome": lambda rng: independent_texts(rng, prevalence=0.03, base=0.1),
    "texts, prevalence 0.5": lambda rng: independent_texts(rng, prevalence=0.5),
    "texts, scores": lambda rng: independent_texts(rng, prevalence=0.1, gaussian=True),
    "authors": authors_with_labels,
    "authors, strong habits": lambda rng: authors_with_labels(rng, habit=0.3),
    "authors, rare concepts": lambda rng: authors_with_labels(rng, texts=20, prevalence=0.03, habit=0.3),
    "authors, few": lambda rng: authors_with_labels(rng, authors=25, prevalence=0.1, habit=0.5),
    "authors, rare label": lambda rng: authors_with_labels(rng, base=0.15, habit=0.5),
    "authors, scores": lambda rng: authors_with_labels(rng, gaussian=True, habit=0.5),
    "pairs": pairs_within_tests,
    "pairs, rare": lambda rng: pairs_within_tests(rng, prevalence=0.03),
    "pairs, few tests": lambda rng: pairs_within_tests(rng, tests=40, prevalence=0.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NULLS)
def test_confirmed_by_holm_is_wrong_at_most_at_alpha(name):
    assert family_wise_error(NULLS[name], 400, 23) <= at_most(0.05, 400)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["texts, prevalence 0.5", "texts, scores", "authors", "pairs"])
def test_single_tests_reject_a_null_near_the_nominal_rate(name):
    found = rejection(NULLS[name], 150, 24)
    assert 0.03 <= found <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "clustered"), [("regression", False), ("regression", True), ("classification", False), ("pairwise", True)]
)
def test_separation_interval_covers_the_truth(task, clustered):
    rng = np.random.default_rng(25)
    covered = []
    for _ in range(1500):
        n = 600
        cluster = np.repeat(np.arange(100), 6) if clustered else np.arange(n)
        h = (rng.random(n) < 0.3).astype(float)
        if task == "pairwise":
            h -= rng.random(n) < 0.3
            y, truth = rng.random(n) < 0.5 + 0.1 * h, 0.1
        elif task == "classification":
            y, truth = rng.random(n) < 0.3 + 0.2 * h, 0.2
        else:
            habit = rng.normal(size=100)[cluster % 100] if clustered else 0.0
            h = (rng.random(n) < 1 / (1 + np.exp(1 - habit))).astype(float)
            y, truth = 0.4 * h + rng.normal(size=600)[cluster] + rng.normal(size=n), 0.4
        found = separation(make_design(h, y, cluster, task=task), 0)
        covered.append(found.low <= truth <= found.high)
    assert 0.93 <= np.mean(covered) <= 0.97
