"""What a column would explain, beside an oracle of dense least squares."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import Residual, Watched


def made(seed: int, *, pairs: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, sp.csc_matrix]:
    """Outcome, what is held constant, clusters, and columns of texts (or of text A less text B)."""
    rng = np.random.default_rng(seed)
    n, texts, p = 150, 90, 8
    held = np.column_stack([*([] if pairs else [np.ones(n)]), rng.normal(size=(n, 2))])
    if pairs:
        sides = np.array([rng.choice(texts, 2, replace=False) for _ in range(n)])
        design = sp.csr_matrix((np.tile([1.0, -1.0], n), (np.repeat(np.arange(n), 2), sides.ravel())), shape=(n, texts))
    else:
        design = sp.csr_matrix((np.ones(n), (np.arange(n), rng.integers(0, texts, n))), shape=(n, texts))
    columns = (design @ sp.csc_matrix((rng.random((texts, p)) < 0.2).astype(np.float32))).tocsc()
    clusters = rng.integers(0, 30, n)
    outcome = columns.toarray() @ rng.normal(size=p) * 0.3 + held.sum(axis=1) + rng.normal(size=n)
    return outcome, held, np.unique(clusters, return_inverse=True)[1], columns


def left_of(outcome: np.ndarray, beside: np.ndarray) -> np.ndarray:
    return outcome - beside @ np.linalg.lstsq(beside, outcome, rcond=None)[0]


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_gains_are_those_of_dense_least_squares(seed: int, pairs: bool) -> None:
    outcome, held, clusters, columns = made(seed, pairs=pairs)
    residual, dense = Residual(outcome, held, clusters), columns.toarray()
    watched = Watched(columns, clusters)  # asked about again and again while the basis grows
    total = float(left_of(outcome, held) @ left_of(outcome, held))
    beside = held
    for taken in (None, 0, 3):
        if taken is not None:
            residual.take(dense[:, taken])
            beside = np.column_stack([beside, dense[:, taken]])
        rest = left_of(outcome, beside)
        gains = residual.gains(columns)
        for name, value in vars(residual.gains(watched)).items():
            np.testing.assert_allclose(value, getattr(gains, name), atol=1e-9, err_msg=name)
        np.testing.assert_allclose(residual.values, rest, atol=1e-9)
        assert residual.noise == pytest.approx(rest @ rest / (len(rest) - beside.shape[1]))
        for j in set(range(dense.shape[1])) - {0, 3}:
            own = left_of(dense[:, j], beside)
            both = left_of(outcome, np.column_stack([beside, dense[:, j]]))
            assert gains.explained[j] == pytest.approx((rest @ rest - both @ both) / total)
            # CR0 of one coefficient (Liang and Zeger 1986) with the residuals that there are without the column.
            coefficient = own @ rest / (own @ own)
            meat = sum(float(own[clusters == g] @ rest[clusters == g]) ** 2 for g in np.unique(clusters))
            assert gains.strength[j] == pytest.approx(coefficient / (np.sqrt(meat) / (own @ own)))
            assert residual.gain(dense[:, j]) == pytest.approx((gains.explained[j], gains.strength[j]))


@pytest.mark.parametrize("pairs", [False, True])
def test_a_column_that_the_basis_holds_already_explains_nothing(pairs: bool) -> None:
    outcome, held, clusters, columns = made(0, pairs=pairs)
    residual = Residual(outcome, held, clusters)
    residual.take(columns[:, [2]].toarray().ravel())
    values, basis = residual.values.copy(), residual.basis.shape[1]
    gains = residual.gains(columns)
    assert gains.explained[2] == gains.strength[2] == 0.0
    assert residual.gain(columns[:, [2]].toarray().ravel()) == (0.0, 0.0)
    residual.take(columns[:, [2]].toarray().ravel())
    residual.take(np.zeros(len(outcome)))
    assert residual.basis.shape[1] == basis
    np.testing.assert_array_equal(residual.values, values)


def test_what_is_held_constant_may_repeat_itself() -> None:
    outcome, held, clusters, columns = made(1, pairs=False)
    once, twice = (Residual(outcome, x, clusters) for x in (held, np.column_stack([held, held[:, 1] * 2, held[:, 0]])))
    assert twice.basis.shape == once.basis.shape
    np.testing.assert_allclose(twice.gains(columns).strength, once.gains(columns).strength)
