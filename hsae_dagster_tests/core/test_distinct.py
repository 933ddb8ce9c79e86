"""Distinct neurons: near-copies make room, families know who stands for whom; matches among seeds."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.selection.methods import select_neurons
from hsae_dagster.core.selection.stability import found_again
from hsae_dagster.core.selection.variants import Limits, near_copies, select_distinct

LIMITS = Limits(correlation=0.6, cosine=0.8)


def copies(n: int = 400, seed: int = 0) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
    """Ten neurons: 1 and 2 nearly repeat 0, the outcome follows 0, 3, 4 and, weakly, 5."""
    rng = np.random.default_rng(seed)
    dense = np.maximum(rng.normal(size=(n, 10)), 0)
    dense[:, 1] = dense[:, 0] * rng.uniform(0.9, 1.1, size=n)
    dense[:, 2] = dense[:, 0] * rng.uniform(0.8, 1.2, size=n)
    y = 3 * dense[:, 0] + 2 * dense[:, 3] - 2 * dense[:, 4] + 0.5 * dense[:, 5] + 0.3 * rng.normal(size=n)
    return sp.csr_matrix(dense), y, np.eye(10)


def test_near_copies_make_room_for_the_next_on_the_path() -> None:
    codes, y, directions = copies()
    plain = select_neurons(codes, y, 5).columns
    assert len({0, 1, 2} & set(plain)) > 1, "otherwise there is nothing to test"
    found = select_distinct(codes, y, 4, activations=codes, directions=directions, limits=LIMITS)
    (stands,) = {0, 1, 2} & set(found.selection.columns)
    assert set(found.selection.columns) == {stands, 3, 4, 5}
    assert {member.left_out for member in found.members} <= {0, 1, 2} - {stands}
    assert all(member.kept == stands and member.correlation > 0.9 for member in found.members)
    again = select_neurons(codes, y, 4, without=[member.left_out for member in found.members])
    assert again.scores == found.selection.scores, "coefficients are those of a model without the copies"


def test_without_near_copies_nothing_changes() -> None:
    codes, y, directions = copies()
    wide = Limits(correlation=1.0, cosine=1.0)
    found = select_distinct(codes, y, 5, activations=codes, directions=directions, limits=wide)
    assert found.selection == select_neurons(codes, y, 5)
    assert (found.members, found.notes) == ((), ())


def test_a_decoder_direction_alone_makes_a_near_copy() -> None:
    codes, _, directions = copies()
    turned = directions.copy()
    turned[7] = 0.9 * turned[6] + np.sqrt(1 - 0.81) * turned[7]
    assert near_copies([6, 7], codes, directions, LIMITS) == []
    (found,) = near_copies([6, 7], codes, turned, LIMITS)
    assert (found.kept, found.left_out) == (6, 7)
    assert found.cosine == pytest.approx(0.9)


def test_a_near_copy_of_a_near_copy_is_measured_against_those_that_stay() -> None:
    rng = np.random.default_rng(0)
    a, noise = rng.normal(size=500), rng.normal(size=(2, 500))
    dense = np.column_stack([a, a + 0.9 * noise[0], a + 0.9 * noise[0] + 0.9 * noise[1]])
    found = near_copies([0, 1, 2], sp.csr_matrix(dense), np.eye(3), Limits(correlation=0.7, cosine=1.0))
    assert [(member.kept, member.left_out) for member in found] == [(0, 1)]


def test_where_neurons_run_out_near_copies_stay_and_it_is_said() -> None:
    codes, y, directions = copies()
    found = select_distinct(codes, y, 9, activations=codes, directions=directions, limits=LIMITS)
    assert len(found.selection.columns) == 9
    assert any("not enough neurons" in note for note in found.notes)


def test_columns_that_may_not_be_selected_are_not() -> None:
    codes, y, directions = copies()
    assert 3 not in select_neurons(codes, y, 4, without=[3]).columns
    found = select_distinct(codes, y, 4, activations=codes, directions=directions, limits=LIMITS, without=[3])
    assert 3 not in found.selection.columns


def test_a_neuron_is_found_again_by_the_texts_on_which_it_fires() -> None:
    rng = np.random.default_rng(0)
    codes = sp.csr_matrix(np.maximum(rng.normal(size=(200, 8)), 0))
    order = rng.permutation(8)
    np.testing.assert_allclose(found_again(codes, 3 * codes[:, order]), 1.0)
    other = np.maximum(rng.normal(size=(200, 5)), 0)
    other[:, 2], other[:, 3] = 0.0, 1.0  # silent, and firing on all
    dense = codes.toarray() > 0
    phi = [
        [0.0 if b in (2, 3) else np.corrcoef(dense[:, a], other[:, b] > 0)[0, 1] for b in range(5)] for a in range(8)
    ]
    np.testing.assert_allclose(found_again(codes, sp.csr_matrix(other)), np.max(phi, axis=1), atol=1e-12)
    assert found_again(sp.csr_matrix((200, 1)), codes).tolist() == [0.0]
