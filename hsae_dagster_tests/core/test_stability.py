"""Selection frequencies: sure neurons come back, chance ones do not; halves respect clusters; sums are exact."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core import stability
from hsae_dagster.core.selection import select_neurons
from hsae_dagster.core.stability import matches_elsewhere, selection_frequency


def sample(seed=0, n=1200, m=40, strong=3, size=1.0):
    rng = np.random.default_rng(seed)
    codes = sp.csr_matrix((rng.random((n, m)) < 0.2) * rng.exponential(size=(n, m)))
    outcome = size * codes[:, :strong].toarray().sum(axis=1) + rng.normal(size=n)
    return codes, outcome, np.repeat(np.arange(n // 4), 4)


@pytest.mark.parametrize("method", ["lasso", "correlation", "separation"])
def test_real_neurons_come_back_and_fillers_do_not(method):
    codes, outcome, clusters = sample()
    selection = select_neurons(codes, outcome, 6, method=method)
    found = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    real = np.array([column < 3 for column in selection.columns])
    assert found[real].min() > 0.95
    assert found[~real].mean() < 0.75


@pytest.mark.parametrize("method", ["lasso", "correlation"])
def test_halves_from_sums_select_what_selection_from_their_rows_selects(method):
    codes, outcome, _ = sample(2)
    half = np.random.default_rng(3).random(1200) < 0.5
    whole = stability._Moments.of(codes, outcome)
    first = stability._Moments.of(codes[half], outcome[half])
    for moments, rows in ((first, half), (whole.without(first), ~half)):
        direct = select_neurons(codes[rows], outcome[rows], 5, method=method)
        assert set(stability._select(moments, 5, method)) == set(direct.columns)


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


def test_wide_codes_are_screened_and_the_selected_are_always_kept(monkeypatch):
    codes, outcome, clusters = sample(9, m=60)
    selection = select_neurons(codes, outcome, 5)
    whole = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    monkeypatch.setattr(stability, "MOST_COLUMNS", 30)
    assert set(selection.columns) <= set(stability._screened(codes, outcome, selection))
    narrow = selection_frequency(codes, outcome, clusters, selection, np.random.default_rng(1))
    np.testing.assert_allclose(narrow[:3], whole[:3], atol=0.1)


def test_pairs_and_zero_one_outcomes_have_frequencies_too():
    codes, outcome, clusters = sample(10)
    difference = (codes[:600] - codes[600:]).tocsr()
    won = (outcome[:600] > outcome[600:]).astype(float)
    selection = select_neurons(difference, won, 3, task="classification")
    found = selection_frequency(difference, won, clusters[:600], selection, np.random.default_rng(2))
    assert found.min() > 0.9


def test_matches_are_sought_in_other_autoencoders_only():
    rng = np.random.default_rng(11)
    a = (rng.random((500, 3)) < 0.3) * rng.exponential(size=(500, 3))
    b = np.column_stack([2 * a[:, 1], (rng.random(500) < 0.3) * 1.0])
    codes = sp.csr_matrix(np.column_stack([a, b]))
    found = matches_elsewhere(codes, [0, 1], ["first"] * 3 + ["second"] * 2)
    assert found[0] < 0.2
    assert found[1] == pytest.approx(1.0)
    assert np.isnan(matches_elsewhere(codes, [0], ["one"] * 5)).all()
