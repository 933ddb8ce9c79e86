"""Selection frequencies: sure neurons come back, chance ones do not; halves respect clusters; sums are exact."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.selection import stability
from hsae_dagster.core.selection.methods import METHODS, select_neurons
from hsae_dagster.core.selection.stability import selection_frequency
from hsae_dagster.core.selection.standardised import BlockSums, HalfSums


def sample(seed=0, n=1200, m=40, strong=3, size=1.0):
    rng = np.random.default_rng(seed)
    codes = sp.csr_matrix((rng.random((n, m)) < 0.2) * rng.exponential(size=(n, m)))
    outcome = size * codes[:, :strong].toarray().sum(axis=1) + rng.normal(size=n)
    return codes, outcome, np.repeat(np.arange(n // 4), 4)


@pytest.mark.parametrize("method", METHODS.shipped)
def test_real_neurons_come_back_and_fillers_do_not(method):
    codes, outcome, clusters = sample()
    selection = select_neurons(codes, outcome, 6, method=method)
    found = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    real = np.array([column < 3 for column in selection.columns])
    assert found[real].min() > 0.95
    assert found[~real].mean() < 0.75


@pytest.mark.parametrize("method", stability._FROM_SUMS)
def test_halves_from_sums_select_what_selection_from_their_rows_selects(method):
    codes, outcome, _ = sample(2)
    blocks = np.random.default_rng(3).permutation(1200) % 8
    halves = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [1, 0, 0, 1, 1, 0, 1, 0]], dtype=bool)
    selection = select_neurons(codes, outcome, 5, method=method)
    # Two columns to begin with: all others must be let in by their gradient.
    near = np.array([0, 30])
    sums = BlockSums.of(codes, outcome, blocks, near)
    found = stability._FROM_SUMS[method][1](codes, blocks, sums, halves, selection)
    for half, columns in zip(halves, found, strict=True):
        rows = half[blocks]
        assert set(columns) == set(select_neurons(codes[rows], outcome[rows], 5, method=method).columns)


def test_moments_of_a_union_of_blocks_are_those_of_its_rows():
    codes, outcome, _ = sample(12, n=300, m=12)
    codes = sp.csr_matrix(np.column_stack([codes.toarray(), np.zeros(300)]))
    blocks, near = np.random.default_rng(0).permutation(300) % 5, np.array([1, 4, 7])
    members = np.array([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]], dtype=bool)
    sums = HalfSums(BlockSums.of(codes, outcome, blocks, near), members)
    weights = np.array([[0.3, -0.2, 0.0], [0.1, 0.4, -0.5]])
    gradients, grams = sums.gradient(weights), sums.gram()
    for h, half in enumerate(members):
        dense, y = codes[half[blocks]].toarray(), outcome[half[blocks]]
        z = (dense - dense.mean(axis=0)) / np.where(dense.std(axis=0) > 0, dense.std(axis=0), 1.0)
        np.testing.assert_allclose(sums.with_outcome[h], z.T @ (y - y.mean()) / len(y), atol=1e-12)
        np.testing.assert_allclose(grams[h], z[:, near].T @ z[:, near] / len(y), atol=1e-12)
        np.testing.assert_allclose(gradients[h], z.T @ (y - y.mean() - z[:, near] @ weights[h]) / len(y), atol=1e-12)
        np.testing.assert_allclose(sums.outcome_spread[h], y.std(), atol=1e-12)
        assert not sums.varies[h, -1]


def test_halves_of_blocks_say_what_free_halves_say():
    codes, outcome, clusters = sample(13, m=60, size=0.25)
    selection = select_neurons(codes, outcome, 6)
    found = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1), pairs=100)
    rng, counts = np.random.default_rng(2), np.zeros(60)
    for _ in range(100):
        rows = np.isin(clusters, rng.permutation(300)[:150])
        counts[select_neurons(codes[rows], outcome[rows], 6).columns] += 1
    np.testing.assert_allclose(found, counts[selection.columns] / 100, atol=0.15)


def test_a_neuron_of_one_cluster_is_as_unsure_as_its_cluster():
    codes, outcome, clusters = sample(4, strong=0)
    wide = sp.csr_matrix(np.column_stack([codes.toarray(), np.zeros(1200)]))
    # One cluster of two hundred rows, all firing, all high: half of the halves do not have it.
    clusters = clusters.copy()
    clusters[:200] = 0
    wide = wide.tolil()
    wide[:200, 40] = 1.0
    outcome[:200] += 3
    wide = wide.tocsr()
    selection = select_neurons(wide, outcome, 1)
    assert selection.columns == [40]
    found = selection_frequency(wide, outcome, clusters, selection, np.random.default_rng(5))
    assert found[0] == pytest.approx(0.5, abs=0.02)
    apart = selection_frequency(wide, outcome, np.arange(1200), selection, np.random.default_rng(5))
    assert apart[0] > 0.95


def test_equal_generators_give_equal_frequencies_and_one_half_of_each_pair_complements_the_other():
    codes, outcome, clusters = sample(6)
    selection = select_neurons(codes, outcome, 4)
    first, second = (
        selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(7)) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_what_cannot_be_repeated_has_no_frequency():
    codes, outcome, clusters = sample(8)
    own = select_neurons(codes, outcome, 2, method="hsae_dagster_tests.core.test_stability:metric")
    assert np.isnan(selection_frequency(codes, outcome, clusters, own, np.random.default_rng(0))).all()
    plain = select_neurons(codes, outcome, 2)
    few = np.repeat([0, 1], 600)
    assert np.isnan(selection_frequency(codes, outcome, few, plain, np.random.default_rng(0))).all()


def metric(column, target):
    return float(np.corrcoef(column, target)[0, 1])


def test_wide_codes_take_fewer_blocks_and_every_column_is_looked_at(monkeypatch):
    codes, outcome, clusters = sample(9, m=60)
    selection = select_neurons(codes, outcome, 5)
    whole = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    monkeypatch.setattr(stability, "_MOST_NUMBERS", 1)
    monkeypatch.setattr(stability, "_NEAR", 1)
    narrow = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    np.testing.assert_allclose(narrow[:3], whole[:3], atol=0.1)


def test_pairs_and_zero_one_outcomes_have_frequencies_too():
    codes, outcome, clusters = sample(10)
    difference = (codes[:600] - codes[600:]).tocsr()
    won = (outcome[:600] > outcome[600:]).astype(float)
    selection = select_neurons(difference, won, 3, task="classification")
    found = selection_frequency(difference, won, clusters[:600], selection, np.random.default_rng(2))
    assert found.min() > 0.9
