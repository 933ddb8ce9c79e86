"""L1-logistic fits: optimal over all columns, equal to liblinear with its penalised intercept, stable under ties."""

import warnings

import numpy as np
import pytest
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hsae_dagster.core.selection.lasso import LogisticLasso, choose_logistic, minimise_quadratic, subgradient_size
from hsae_dagster.core.selection.standardised import StandardisedCodes
from hsae_dagster_tests.core.reference_selection import topk_codes


def prepared(seed, n=400, m=40, k=4, share=0.3):
    dense, score = topk_codes(seed, n, m, k)
    matrix = StandardisedCodes(sparse.csr_matrix(dense))
    usable = ~matrix.constant
    usable[[copy for _, copy in matrix.copies(usable)]] = False
    return dense, score > np.quantile(score, 1 - share), matrix, usable


def breach(dense, positive, usable, fit):
    """Optimality computed from the dense problem, independently of the code under test."""
    z = np.column_stack([StandardScaler().fit_transform(dense), np.ones(len(dense))])
    theta = np.zeros(z.shape[1])
    theta[fit.columns], theta[-1] = fit.coefficients, fit.intercept
    gradient = z.T @ (1 / (1 + np.exp(-z @ theta)) - positive)
    keep = np.append(usable, True)
    return subgradient_size(theta[keep], gradient[keep], fit.alpha)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_fits_are_optimal_over_all_columns(seed, share):
    dense, positive, matrix, usable = prepared(seed, share=share)
    model = LogisticLasso(matrix, positive, usable)
    for part in (0.8, 0.4, 0.1, 0.02):
        fit = model.fit(part * model.top)
        assert breach(dense, positive, usable, fit) < 1e-7 * model.top
    assert len(model.fit(model.top * 1.001).columns) == 0


@pytest.mark.parametrize("seed", range(3))
def test_coefficients_and_intercept_equal_liblinear(seed):
    dense, positive, matrix, usable = prepared(seed, share=0.2)
    standardised = StandardScaler().fit_transform(dense)
    model = LogisticLasso(matrix, positive, usable)
    for part in (0.6, 0.2, 0.05):
        alpha = part * model.top
        fit = model.fit(alpha)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = LogisticRegression(penalty="l1", solver="liblinear", C=1 / alpha, tol=1e-10, max_iter=100_000).fit(
                standardised, positive
            )
        ours = np.zeros(matrix.n_columns)
        ours[fit.columns] = fit.coefficients
        np.testing.assert_allclose(ours, theirs.coef_[0], atol=1e-6)
        np.testing.assert_allclose(fit.intercept, theirs.intercept_[0], atol=1e-6)
        assert fit.intercept != 0


def test_a_warm_start_does_not_change_the_answer():
    _, positive, matrix, usable = prepared(1)
    cold, warm = LogisticLasso(matrix, positive, usable), LogisticLasso(matrix, positive, usable)
    alpha = 0.1 * cold.top
    for part in (0.9, 0.5, 0.02, 0.2):
        warm.fit(part * warm.top)
    np.testing.assert_array_equal(cold.fit(alpha).columns, warm.fit(alpha).columns)
    np.testing.assert_allclose(cold.fit(alpha).coefficients, warm.fit(alpha).coefficients, atol=1e-8)


def test_separated_classes_end_with_a_note_not_with_a_hang():
    dense, _, matrix, usable = prepared(0)
    choice = choose_logistic(matrix, dense[:, 0] > 0, usable, 20)
    assert 0 in choice.columns[np.argmax(np.abs(choice.coefficients))][None]
    assert len(choice.columns) >= 20 or "separated" in choice.notes[0]


def test_the_search_goes_on_beyond_the_ceiling():
    # 150,000 rows with strong signal need alpha > 1e4, where the reference cannot go.
    n = 150_000
    rng = np.random.default_rng(0)
    fired = rng.random((n, 6)) < 0.3
    positive = rng.random(n) < np.where(fired[:, 0], 0.9, np.where(fired[:, 1], 0.7, 0.3))
    matrix = StandardisedCodes(sparse.csr_matrix(fired.astype(float)))
    choice = choose_logistic(matrix, positive, np.ones(6, dtype=bool), 1)
    assert choice.alpha > 1e4
    assert choice.columns.tolist() == [0]
    assert "went on" in choice.notes[0]
    assert len(choice.visits) == 20


@pytest.mark.parametrize("seed", range(20))
def test_the_quadratic_minimiser_meets_its_optimality_conditions(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 25))
    a = rng.standard_normal((k, k + 2))
    hessian, linear = a @ a.T + 1e-6 * np.eye(k), rng.standard_normal(k) * 3
    x = minimise_quadratic(hessian, linear, rng.standard_normal(k), 1.0)
    assert subgradient_size(x, linear + hessian @ x, 1.0) < 1e-9
