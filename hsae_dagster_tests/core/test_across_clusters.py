"""Neurons whose association rests on a few clusters are no candidates for selection."""

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.selection.methods import select_neurons
from hsae_dagster.core.selection.variants import across_clusters


def world() -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """40 clusters of 30 rows; columns: of every cluster, of one cluster, turning between clusters, silent."""
    rng = np.random.default_rng(3)
    clusters = np.repeat(np.arange(40), 30)
    of_cluster = rng.normal(size=40)[clusters]
    real, turning = (rng.random(1200) < 0.2).astype(float), (rng.random(1200) < 0.3).astype(float)
    side = np.where(clusters % 2 == 0, 1.0, -1.0)
    best = int(np.argmax(np.bincount(clusters, of_cluster)))
    identity = ((clusters == best) & (rng.random(1200) < 0.9)).astype(float)
    identity[rng.choice(1200, 6, replace=False)] = 1.0
    outcome = of_cluster + 0.8 * real + 0.8 * side * turning + rng.normal(scale=0.3, size=1200)
    codes = np.column_stack([real, identity, turning, np.zeros(1200)])
    return sp.csr_matrix(codes), outcome, clusters.astype(str)


def test_identity_and_what_turns_are_left_out() -> None:
    codes, outcome, clusters = world()
    found = across_clusters(codes, outcome, clusters, np.random.default_rng(0))
    assert found.holds[0]
    assert found.few.tolist() == [False, True, False, True]
    note = found.note()
    assert note is not None
    assert f"{int((~found.holds).sum())} of 4 neurons" in note
    plain = select_neurons(codes, outcome, 2)
    assert 1 in plain.columns, "without the rule the senator is found"
    kept = select_neurons(codes, outcome, 3, without=np.flatnonzero(~found.holds).tolist(), fewer=True)
    assert 1 not in kept.columns
    assert 0 in kept.columns


def test_signs_that_turn_between_clusters_do_not_hold() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(10), 100)
    fires = (rng.random((1000, 1)) < 0.5).astype(float)
    # Ten clusters in five folds of two: each fold has one direction, whatever it is.
    folds = (rng_folds := np.random.default_rng(7)).permutation(10) % 5
    sign = np.where(folds[clusters] < 3, 1.0, -1.0)
    found = across_clusters(sp.csr_matrix(fires), sign * fires[:, 0], clusters, np.random.default_rng(7))
    assert rng_folds is not None
    assert found.turns.tolist() == [True]
    steady = across_clusters(sp.csr_matrix(fires), fires[:, 0], clusters, np.random.default_rng(7))
    assert steady.holds.tolist() == [True]
    assert steady.note() is None


def test_pairs_count_both_signs_as_firing() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 20)
    signed = rng.choice([-1.0, 0.0, 1.0], size=(400, 1))
    found = across_clusters(sp.csr_matrix(signed), (signed[:, 0] > 0).astype(float), clusters, rng)
    assert found.holds.tolist() == [True]


def test_nothing_left_is_an_empty_selection() -> None:
    codes, outcome, _ = world()
    for method in ("lasso", "correlation", "separation"):
        nothing = select_neurons(codes, outcome, 3, method=method, without=range(4), fewer=True)
        assert nothing.columns == []
        assert nothing.method == method
