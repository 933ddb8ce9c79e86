"""The lasso path: optimal at every knot, equal to sklearn, exact where the reference's search gives up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler

from hsae_dagster.core.selection import lasso
from hsae_dagster.core.selection.lasso import LassoPath, PathPoint, bisect_alpha, choose_lasso
from hsae_dagster.core.selection.standardised import StandardisedCodes
from hsae_dagster_tests.core.reference_selection import topk_codes


def prepared(seed, n=300, m=40, k=4):
    dense, target = topk_codes(seed, n, m, k)
    matrix = StandardisedCodes(sparse.csr_matrix(dense))
    usable = ~matrix.constant
    usable[[copy for _, copy in matrix.copies(usable)]] = False
    return dense, target, matrix, usable


@pytest.mark.parametrize("seed", range(4))
def test_every_knot_is_optimal_over_all_columns(seed):
    _, target, matrix, usable = prepared(seed)
    path = LassoPath.of(matrix, target, usable)
    path.extend(0.0, matrix.n_columns)
    assert path.finished
    assert len(path.segments) >= usable.sum()
    for segment in path.segments:
        # Just inside both knots: linear between them, so this is the whole stretch.
        for share in (0.001, 0.999):
            alpha = share * segment.upper + (1 - share) * segment.lower
            assert path.violation(matrix, target, alpha, segment.columns, segment.coefficients(alpha)) < 1e-9


def test_the_certificate_sees_a_wrong_solution():
    _, target, matrix, usable = prepared(0)
    path = LassoPath.of(matrix, target, usable)
    path.extend(0.0, 8)
    segment = path.segments[-1]
    alpha = (segment.upper + segment.lower) / 2
    right = segment.coefficients(alpha)
    assert path.violation(matrix, target, alpha, segment.columns, right * 1.01) > 1e-5
    assert path.violation(matrix, target, alpha, segment.columns[:-1], right[:-1]) > 1e-5


@pytest.mark.parametrize("seed", range(4))
def test_coefficients_equal_sklearn_lasso(seed):
    dense, target, matrix, usable = prepared(seed, n=400, m=30)
    standardised = StandardScaler().fit_transform(dense)
    path = LassoPath.of(matrix, target, usable)
    for share in (0.7, 0.3, 0.1, 0.02):
        alpha = share * path.top
        path.extend(alpha, matrix.n_columns)
        segment = path.segment_at(alpha)
        ours = np.zeros(matrix.n_columns)
        ours[segment.columns] = segment.coefficients(alpha)
        theirs = Lasso(alpha=alpha, tol=1e-12, max_iter=100_000).fit(standardised, target).coef_
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 40), m=st.integers(2, 60), k=st.integers(1, 3))
def test_any_shape_gives_an_optimal_solution(seed, n, m, k):
    _, target, matrix, usable = prepared(seed, n, m, min(k, m))
    if not usable.any():
        return
    wanted = min(5, int(usable.sum()))
    choice = choose_lasso(matrix, target, usable, wanted)
    path = LassoPath.of(matrix, target, usable)
    assert path.violation(matrix, target, choice.alpha, choice.columns, choice.coefficients) < 1e-7
    assert len(choice.columns) == wanted or choice.notes


def test_the_bisection_visits_the_published_alphas():
    # Yelp: the count first equals the goal at the eighth probe.
    alpha, visits = bisect_alpha(lambda a: PathPoint(a, 20 if 0.0371 < a < 0.0374 else (25 if a < 0.0371 else 5)), 20)
    seen = [visit.alpha for visit in visits]
    expected = [0.1, 3.16e-4, 5.62e-3, 2.37e-2, 4.87e-2, 3.40e-2, 4.07e-2, 3.72e-2]
    np.testing.assert_allclose(seen, expected, rtol=2e-3)
    assert alpha == seen[-1]
    assert bisect_alpha(lambda a: PathPoint(a, 0), 20)[0] is None
    assert len(bisect_alpha(lambda a: PathPoint(a, 0), 20)[1]) == 20


def test_a_shallow_path_gives_the_choice_of_a_deep_one(monkeypatch):
    for seed in range(6):
        _, target, matrix, usable = prepared(seed, 500, 80, 6)
        deep = choose_lasso(matrix, target, usable, 8)
        monkeypatch.setattr(lasso, "_DEEP_LIMIT", 0)
        shallow = choose_lasso(matrix, target, usable, 8)
        monkeypatch.undo()
        assert shallow.alpha == deep.alpha
        np.testing.assert_array_equal(shallow.columns, deep.columns)
        np.testing.assert_array_equal(shallow.coefficients, deep.coefficients)


def test_exact_ties_are_broken_without_cycling():
    # All eight columns of an orthogonal design enter at the same alpha.
    dense = np.vstack([np.eye(8), np.zeros((8, 8))])
    matrix = StandardisedCodes(sparse.csr_matrix(dense))
    target = np.concatenate([np.ones(8), -np.ones(8)])
    choice = choose_lasso(matrix, target, np.ones(8, dtype=bool), 3)
    assert len(choice.columns) >= 3
    assert "at once" in choice.notes[0]


def test_a_target_outside_the_search_range_is_still_solved():
    _, target, matrix, usable = prepared(1)
    plain = choose_lasso(matrix, target, usable, 6)
    for factor in (1e9, 1e-9):
        scaled = choose_lasso(matrix, target * factor, usable, 6)
        assert len(scaled.columns) == 6
        assert set(scaled.columns) == set(plain.columns)
        assert "taken from the exact path" in scaled.notes[0]


def test_a_path_that_ends_early_returns_what_it_has():
    dense, _, matrix, usable = prepared(2)
    target = dense[:, 0] - 2.0 * dense[:, 1]
    choice = choose_lasso(matrix, target, usable, 10)
    assert sorted(c for c, b in zip(choice.columns, choice.coefficients, strict=True) if abs(b) > 0.1) == [0, 1]
