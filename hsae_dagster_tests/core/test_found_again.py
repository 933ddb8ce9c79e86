"""Which neurons another seed finds again; columns that may not be selected."""

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.selection.methods import select_neurons
from hsae_dagster.core.selection.stability import found_again


def test_columns_that_may_not_be_selected_are_not() -> None:
    rng = np.random.default_rng(0)
    dense = np.maximum(rng.normal(size=(400, 10)), 0)
    codes, y = sp.csr_matrix(dense), 2 * dense[:, 3] - 2 * dense[:, 4] + 0.3 * rng.normal(size=400)
    assert 3 in select_neurons(codes, y, 4).columns
    assert 3 not in select_neurons(codes, y, 4, without=[3]).columns


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
