"""A small quadratic with an L1 penalty, minimised exactly: the inner problem of a proximal Newton step.

Belongs here: the minimiser and its optimality measure, on dense arrays of a few dozen coordinates. Does not belong
here: data, losses.
"""

import numpy as np


def subgradient_size(theta: np.ndarray, gradient: np.ndarray, alpha: float) -> float:
    """Size of the smallest subgradient: 0 at the optimum."""
    active = theta != 0
    inside = np.abs(gradient[active] + alpha * np.sign(theta[active])).max(initial=0.0)
    outside = (np.abs(gradient[~active]) - alpha).max(initial=0.0)
    return float(max(inside, outside))


def minimise_quadratic(
    hessian: np.ndarray, linear: np.ndarray, start: np.ndarray, alpha: float, sweeps: int = 1000
) -> np.ndarray:
    """Minimise x^T H x / 2 + c^T x + alpha |x|_1 for a small positive definite H.

    Coordinate descent finds the signs; as soon as they stand still over a sweep, the linear system on the support
    gives the exact answer, which is taken if it meets the optimality conditions.

    Args:
        hessian: (k, k).
        linear: (k,).
        start: (k,) warm start.
        alpha: penalty weight.
        sweeps: most sweeps over the coordinates.

    Returns:
        (k,) minimiser, with exact zeros.
    """
    x = start.copy()
    slope = linear + hessian @ x
    diagonal = hessian.diagonal()
    scale = float(np.abs(linear).max(initial=0.0)) + alpha
    previous = np.sign(x)
    for sweep in range(sweeps):
        for j in range(len(x)):
            curvature = float(diagonal[j])
            free = curvature * float(x[j]) - float(slope[j])
            new = max(abs(free) - alpha, 0.0) / curvature * (1.0 if free > 0 else -1.0)
            if new != x[j]:
                slope += hessian[j] * (new - x[j])
                x[j] = new
        signs = np.sign(x)
        if sweep == sweeps - 1 or np.array_equal(signs, previous):
            exact = _solve_on_support(hessian, linear, signs, alpha, scale)
            if exact is not None:
                return exact
        if subgradient_size(x, slope, alpha) <= 1e-14 * scale:
            break
        previous = signs
    return x


def _solve_on_support(
    hessian: np.ndarray, linear: np.ndarray, signs: np.ndarray, alpha: float, scale: float
) -> np.ndarray | None:
    """The minimiser with these signs, or None if the signs are not those of the minimiser."""
    support = np.flatnonzero(signs)
    x = np.zeros(len(signs))
    try:
        x[support] = np.linalg.solve(hessian[np.ix_(support, support)], -linear[support] - alpha * signs[support])
    except np.linalg.LinAlgError:
        return None
    if not np.array_equal(np.sign(x), signs):
        return None
    outside = np.abs(linear + hessian @ x)[signs == 0]
    return x if (outside <= alpha + 1e-13 * scale).all() else None
