"""A perfect fit is as sure as arrangements are few, and no surer; single clusters decide nothing."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.inference.effects import exact_fit_p, separation, test_hypotheses
from hsae_dagster_tests.core.simulated_designs import make_design, with_column


def labels_of_authors(with_it, without, texts=20):
    """Authors who use the concept always or never, of one party each."""
    author = np.repeat(np.arange(with_it + without), texts)
    h = (author < with_it).astype(float)
    return make_design(h, h, author)


def test_an_author_per_class_is_no_evidence_however_many_texts():
    (alone,) = test_hypotheses(labels_of_authors(1, 1, texts=500))
    assert np.isnan(alone.separation.p_value)
    assert alone.flags[0].name == "one cluster"


def test_a_perfect_fit_of_few_clusters_is_as_likely_as_its_arrangements():
    assert separation(labels_of_authors(2, 2), 0).p_value == pytest.approx(2 / 6)
    assert separation(labels_of_authors(5, 5), 0).p_value == pytest.approx(2 / comb(10, 5))
    assert separation(labels_of_authors(30, 30), 0).p_value < 1e-15


def test_texts_without_clusters_are_fishers_exact_test():
    h = np.repeat([1.0, 0.0], [6, 9])
    assert exact_fit_p(h, np.arange(15)) == pytest.approx(2 * stats.fisher_exact([[6, 0], [0, 9]]).pvalue)


def test_arrangements_are_those_within_clusters_and_among_whole_ones():
    clusters = np.repeat([0, 1, 2, 3, 4], [3, 4, 2, 2, 1])
    h = np.array([1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0], dtype=float)
    within = len(list(combinations(range(3), 1))) * len(list(combinations(range(4), 2)))
    among = len(list(combinations(range(3), 1)))  # of clusters 2, 3 and 4 one has it throughout
    assert exact_fit_p(h, clusters) == pytest.approx(2 / (within * among))


def test_a_concept_of_one_cluster_is_not_tested_on_either_side():
    rng = np.random.default_rng(0)
    author, outcome = np.repeat(np.arange(40), 25), rng.normal(size=1000)
    one = ((author == 3) & (np.arange(1000) % 25 < 22)).astype(float)
    two = (np.isin(author, [3, 4]) & (rng.random(1000) < 0.8)).astype(float)
    design = make_design(np.column_stack([one, 1 - one, two]), outcome, author, task="regression")
    having, lacking, both = test_hypotheses(design)
    assert "have the concept belong to one cluster" in having.flags[0].sentence
    assert "lack the concept belong to one cluster" in lacking.flags[0].sentence
    assert np.isfinite(both.separation.p_value)
    pairs = make_design(one, rng.random(1000) < 0.5, author, task="pairwise")
    assert test_hypotheses(pairs)[0].flags[0].name == "one cluster"


def test_a_cluster_with_most_of_the_texts_is_a_doubt():
    rng = np.random.default_rng(1)
    author = np.r_[np.zeros(300), np.repeat(np.arange(1, 31), 10)]
    design = make_design(rng.random(600) < 0.3, rng.normal(size=600), author, task="regression")
    assert "dominant cluster" in {flag.name for flag in test_hypotheses(design)[0].flags}
    even = make_design(design.concepts, design.outcome, np.arange(600) // 10, task="regression")
    (spread,) = test_hypotheses(with_column(even, rng.random(600) < 0.3))[:1]
    assert "dominant cluster" not in {flag.name for flag in spread.flags}
