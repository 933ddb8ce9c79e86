"""A reversal between subgroups, an effect in a small stratum: found here, missed by selection over all rows alike."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.selection.methods import select_neurons
from hsae_dagster.core.selection.variants import _within_moments, select_within
from hsae_dagster.errors import MethodError


def codes_of(rng, n, m=30):
    return sp.csr_matrix((rng.random((n, m)) < 0.2) * rng.exponential(size=(n, m)))


def test_within_moments_are_those_of_demeaned_weighted_columns():
    rng = np.random.default_rng(0)
    x, y, strata = codes_of(rng, 300, 6), rng.normal(size=300), rng.choice(["a", "b", "c"], 300, p=[0.7, 0.2, 0.1])
    dense, centred, weight = x.toarray(), y.copy(), np.empty(300)
    for s in "abc":
        rows = strata == s
        dense[rows] -= dense[rows].mean(axis=0)
        centred[rows] -= centred[rows].mean()
        weight[rows] = 1 / (3 * rows.sum())
    gram, products = _within_moments(x, y, strata)
    np.testing.assert_allclose(gram, dense.T @ (weight[:, None] * dense), atol=1e-12)
    np.testing.assert_allclose(products, dense.T @ (weight * centred), atol=1e-12)


def reversal(seed, n=6000):
    """Neuron 7 raises the outcome in one half of the texts and lowers it in the other; 0 to 3 have plain effects."""
    rng = np.random.default_rng(seed)
    codes, side = codes_of(rng, n), np.where(rng.random(n) < 0.5, "left", "right")
    fires = codes.toarray() > 0
    turn = np.where(side == "left", 1.0, -1.0) * fires[:, 7]
    return codes, fires[:, :4].sum(axis=1) * 0.5 + 1.0 * turn + rng.normal(size=n), side


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_reversal_is_found_by_interactions_and_missed_by_the_plain_option(seed):
    codes, outcome, side = reversal(seed)
    assert 7 not in select_neurons(codes, outcome, 5).columns
    found = select_within(codes, outcome, np.zeros(len(side)), [side], 5)
    assert {term.column for term in found} >= {0, 1, 2, 3, 7}
    (turned,) = [term for term in found if term.column == 7]
    assert turned.level == "right"
    assert turned.score < 0
    assert all(term.level is None for term in found if term.column < 4)


@pytest.mark.parametrize("seed", range(3))
def test_a_planted_effect_in_a_small_stratum_is_found_within_and_missed_by_the_plain_option(seed):
    rng = np.random.default_rng(seed)
    n = 8000
    codes, strata = codes_of(rng, n), np.where(rng.random(n) < 0.08, "few", "many")
    fires = codes.toarray() > 0
    outcome = 0.5 * fires[:, :6].sum(axis=1) * (strata == "many") + 2.0 * fires[:, 9] * (strata == "few")
    outcome = outcome + rng.normal(size=n) + 3.0 * (strata == "few")
    assert 9 not in select_neurons(codes, outcome, 4).columns
    assert select_within(codes, outcome, strata, [], 4)[0].column == 9


def test_differences_between_strata_select_nothing_by_themselves():
    rng = np.random.default_rng(5)
    strata = rng.choice(["a", "b"], 3000)
    dense = (rng.random((3000, 10)) < 0.2).astype(float)
    dense[:, 0] = rng.random(3000) < np.where(strata == "a", 0.6, 0.1)  # tells the stratum, not the outcome within it
    outcome = 2.0 * (strata == "a") + 0.5 * dense[:, 4] + rng.normal(size=3000)
    codes = sp.csr_matrix(dense)
    assert select_neurons(codes, outcome, 1).columns == [0]
    assert select_within(codes, outcome, strata, [], 1)[0].column == 4


def test_what_cannot_be_done_is_a_sentence():
    rng = np.random.default_rng(6)
    codes = codes_of(rng, 100, 5)
    with pytest.raises(MethodError, match="drop `within`"):
        select_within(codes, rng.normal(size=100), np.arange(100), [], 2)
    wide = sp.csr_matrix((100, 4000))
    with pytest.raises(MethodError, match="fewer levels"):
        select_within(wide, rng.normal(size=100), np.zeros(100), [np.arange(100) % 2], 2)
