"""Standardised sparse codes equal what a dense StandardScaler gives, and never change the caller's matrix."""

import numpy as np
import pytest
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from hsae_dagster.core.selection.standardised import StandardisedCodes, SubsetGram
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.reference_selection import topk_codes


@pytest.fixture(params=[0, 1, 2])
def pair(request):
    dense, _ = topk_codes(request.param, 300, 40, 4)
    dense[:, 3] = 0.0
    dense[:, 7] = 2.5
    if request.param == 2:
        dense = dense - np.roll(dense, 1, axis=0)  # signed, as in pairwise data
    return dense, StandardisedCodes(sparse.csr_matrix(dense))


def test_moments_are_those_of_standard_scaler(pair):
    dense, matrix = pair
    scaler = StandardScaler().fit(dense)
    np.testing.assert_allclose(matrix.mean, scaler.mean_, atol=1e-14)
    np.testing.assert_allclose(matrix.scale, scaler.scale_, rtol=1e-12)
    np.testing.assert_array_equal(matrix.constant, dense.std(axis=0) < 1e-12)
    np.testing.assert_array_equal(matrix.fires, np.count_nonzero(dense, axis=0))


def test_products_equal_the_dense_ones(pair):
    dense, matrix = pair
    standardised = StandardScaler().fit_transform(dense)
    rng = np.random.default_rng(5)
    row, few = rng.standard_normal(len(dense)), np.array([2, 3, 7, 19])
    weights, curvature = rng.standard_normal(4), rng.uniform(size=len(dense))
    np.testing.assert_allclose(matrix.transposed_product(row), standardised.T @ row, atol=1e-10)
    np.testing.assert_allclose(matrix.product(few, weights), standardised[:, few] @ weights, atol=1e-10)
    for j in range(matrix.n_columns):
        np.testing.assert_allclose(matrix.gram_column(j), standardised.T @ standardised[:, j] / len(dense), atol=1e-10)
    z = standardised[:, few]
    subset = SubsetGram(matrix, few)
    np.testing.assert_allclose(subset.product(weights), z @ weights, atol=1e-10)
    np.testing.assert_allclose(subset.transposed_product(row), z.T @ row, atol=1e-10)
    np.testing.assert_allclose(subset.weighted(curvature)[1], z.T @ curvature, atol=1e-10)


def test_variance_survives_a_mean_that_dwarfs_it():
    column = 1e6 + np.random.default_rng(0).standard_normal(500) * 1e-3
    matrix = StandardisedCodes(sparse.csr_matrix(column[:, None]))
    assert not matrix.constant[0]
    np.testing.assert_allclose(matrix.scale[0], column.std(), rtol=1e-6)


def test_copies_are_found_and_near_copies_are_not():
    dense, _ = topk_codes(3, 400, 12, 4)
    dense = np.column_stack(
        [dense, dense[:, 2], 3.7 * dense[:, 5].astype(np.float32), -dense[:, 2], dense[:, 1] + 1e-3 * dense[:, 0]]
    )
    fired = (dense[:, 4] > 0).astype(float)
    dense = np.column_stack([dense, fired, 1.0 - fired])
    matrix = StandardisedCodes(sparse.csr_matrix(dense))
    assert matrix.copies(~matrix.constant) == [(2, 12), (2, 14), (5, 13), (16, 17)]
    allowed = ~matrix.constant
    allowed[2] = False
    assert matrix.copies(allowed) == [(5, 13), (12, 14), (16, 17)]


def test_the_callers_matrix_is_left_alone_and_made_canonical():
    codes = sparse.csr_matrix(
        (np.array([1.0, 2.0, 0.0, 3.0]), np.array([1, 1, 0, 2]), np.array([0, 2, 3, 4])), shape=(3, 3)
    )
    before = codes.data.copy(), codes.indices.copy(), codes.indptr.copy()
    matrix = StandardisedCodes(codes)
    for now, then in zip((codes.data, codes.indices, codes.indptr), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert matrix.raw.nnz == 2
    np.testing.assert_allclose(matrix.mean, [0, 1, 1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_activations_that_are_not_finite_are_refused(bad):
    with pytest.raises(MethodError, match="NaN or infinite"):
        StandardisedCodes(sparse.csr_matrix(np.array([[1.0, bad], [0.0, 2.0]])))


def test_dense_or_empty_codes_are_refused():
    with pytest.raises(MethodError, match="csr_matrix"):
        StandardisedCodes(np.eye(3))
    with pytest.raises(MethodError, match="no rows"):
        StandardisedCodes(sparse.csr_matrix((0, 3)))


def test_nothing_of_size_rows_by_columns_is_made():
    import tracemalloc

    n, m, k = 20_000, 4_000, 8
    rng = np.random.default_rng(0)
    columns = np.sort((rng.integers(0, m // k, (n, k)) + np.arange(k) * (m // k)), axis=1)
    codes = sparse.csr_matrix((rng.random(n * k), columns.ravel(), np.arange(0, n * k + 1, k)), shape=(n, m))
    tracemalloc.start()
    matrix = StandardisedCodes(codes)
    matrix.copies(~matrix.constant)
    matrix.gram_column(0)
    SubsetGram(matrix, np.arange(30)).weighted(np.ones(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * m * 8 / 25  # a dense copy is 640 MB
