"""Negative controls: silent where there is nothing, loud where one is no null, and on the path of the real tests."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.inference.joint_fit import without_relation
from hsae_dagster.core.selection.stability import Rows, Rule, permuted_concepts, permuted_labels, random_neurons
from hsae_dagster_tests.core.simulated_designs import make_design


def rows(seed, n=900, m=30, task="regression", strong=10):
    """Neurons with habits by cluster; the first `strong` drive the outcome, which belongs to clusters in part."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(n // 6), 6)
    habit = rng.beta(0.6, 2.4, size=(n // 6, m))[cluster]
    codes = (rng.random((n, m)) < habit) * rng.exponential(1.0, size=(n, m))
    fires = (codes > 0).astype(float)
    drive = fires[:, :strong].sum(axis=1) + rng.normal(size=n // 6)[cluster] + rng.normal(size=n)
    if task == "pairwise":
        half = n // 2
        codes, fires = codes[:half] - codes[half:], fires[:half] - fires[half:]
        outcome, cluster = (drive[:half] > drive[half:]).astype(float), cluster[:half]
    else:
        outcome = drive if task == "regression" else (drive > np.median(drive)).astype(float)
    return Rows(sp.csr_matrix(codes), sp.csr_matrix(fires), outcome, cluster)


def rule(task="regression", method="lasso"):
    return Rule(task=task, method=method, n_select=8, alpha=0.05, min_positives=20)


@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
def test_permuted_labels_are_hardly_ever_discovered_though_the_real_ones_would_be(task):
    train, holdout = rows(1, task=task), rows(2, task=task)
    found = permuted_labels(train, holdout, rule(task), 20, np.random.default_rng(3))
    assert found.runs == 20
    assert 100 < found.tested <= 160
    assert found.runs_with_any <= 4  # of 20 at 5 %: more has a chance below 0.003
    real = random_neurons(train, holdout, range(20, 30), rule(task), np.random.default_rng(4))
    assert real.discoveries >= 2  # some of the ten that matter are among those not selected


def test_random_neurons_are_tested_with_the_units_that_rows_share():
    """Neurons and outcome belong to units of many clusters and have nothing to do with each other."""
    rng = np.random.default_rng(8)
    units, cluster = rng.integers(0, 30, (900, 1)), np.arange(900)
    fires = (rng.random((30, 40)) < 0.4).astype(float)[units[:, 0]]
    outcome = rng.normal(size=30)[units[:, 0]] + 0.3 * rng.normal(size=900)
    alone = Rows(sp.csr_matrix(fires), sp.csr_matrix(fires), outcome, cluster)
    sharing = replace(alone, units=units)
    taken = range(10)
    found = [random_neurons(alone, each, taken, rule(), np.random.default_rng(9)) for each in (alone, sharing)]
    assert [control.tested for control in found] == [10, 10]
    assert found[0].discoveries >= 5
    assert found[1].discoveries <= 1


def test_labels_of_clusters_are_dealt_as_blocks_or_the_control_would_cry_wolf():
    rng = np.random.default_rng(5)
    author = np.repeat(np.arange(60), 15)
    label = (rng.random(60) < 0.5).astype(float)[author]
    concepts = (rng.random((900, 20)) < rng.beta(0.4, 0.6, size=(60, 20))[author]).astype(float)
    own = permuted_concepts(make_design(concepts, label, author), rule("classification"), 40, np.random.default_rng(6))
    assert own.runs_with_any <= 7  # of 40 at 5 %
    alone = make_design(concepts, label, np.arange(900))
    effects = permuted_concepts(alone, rule("classification"), 5, np.random.default_rng(7))
    # Blocks have more spread than single rows: the null that respects clusters is the wider one.
    assert own.typical_effect > 2 * effects.typical_effect


def test_an_outcome_that_belongs_to_clusters_of_unequal_sizes_still_does_when_it_is_permuted():
    rng = np.random.default_rng(6)
    groups = np.repeat(np.arange(40), rng.integers(1, 60, 40))
    y = (rng.random(40) < 0.5).astype(float)[groups]
    for _ in range(20):
        dealt = without_relation(y, groups, "classification", rng)
        assert all(len(set(dealt[groups == g])) == 1 for g in range(40))
    within = y.copy()
    within[::7] = 1 - within[::7]
    assert sorted(without_relation(within, groups, "classification", rng)) == sorted(within)


def test_selected_neurons_and_rare_ones_are_not_drawn_at_random():
    train, holdout = rows(8), rows(9)
    found = random_neurons(train, holdout, range(28), rule(), np.random.default_rng(0))
    assert found.tested == 2
    assert found.runs == 1


def test_a_large_training_split_is_sampled_by_whole_clusters():
    some = rows(10).sample(300, np.random.default_rng(0))
    assert 300 <= len(some.outcome) <= 306
    assert np.bincount(some.clusters)[np.unique(some.clusters)].min() == 6


def test_nothing_to_test_is_said():
    empty = permuted_concepts(
        make_design(np.zeros((50, 2)), np.arange(50) % 2), rule("classification"), 2, np.random.default_rng(0)
    )
    assert (empty.tested, empty.discoveries) == (0, 0)
    assert np.isnan(empty.typical_effect)
