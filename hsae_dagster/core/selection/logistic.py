"""L1-penalised logistic regression on sparse standardised codes, by a working set and prox-Newton steps."""

from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.selection.lasso import ALPHA_CEILING, ALPHA_FLOOR, PathChoice, PathPoint, bisect_alpha
from hsae_dagster.core.selection.standardised import StandardisedCodes, SubsetGram
from hsae_dagster.errors import MethodError


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


# Optimality on the working set, relative to the largest gradient at zero: far below what flips a selection.
_TOLERANCE = 1e-9
_MAX_NEWTON = 200
_MAX_ROUNDS = 100
# The walk down from the top: each alpha is this share of the one before.
_WALK = 0.7
# A loss below this share of the one at zero means that the classes are separated: smaller alphas add nothing.
_SEPARATED = 1e-7


@dataclass(frozen=True)
class LogisticFit:
    """The solution at one alpha.

    Attributes:
        alpha: penalty weight (1/C).
        columns: (k,) columns with a non-zero coefficient, ascending.
        coefficients: (k,) on the standardised scale.
        intercept: the penalised intercept.
        gradient: (m,) Z^T (y - p), at most alpha in size for every usable column.
        loss: sum of the log losses.
    """

    alpha: float
    columns: np.ndarray
    coefficients: np.ndarray
    intercept: float
    gradient: np.ndarray
    loss: float


class LogisticLasso:
    """L1-logistic fits of one target on one matrix, each warm-started from the nearest fit made before.

    Attributes:
        top: smallest alpha at which every coefficient, the intercept included, is zero.
        fits: the fits made so far, by alpha.
    """

    def __init__(self, matrix: StandardisedCodes, positive: np.ndarray, usable: np.ndarray) -> None:
        """Compute the gradient at zero.

        Args:
            matrix: standardised codes, n x m.
            positive: (n,) bool, True for the positive class.
            usable: (m,) bool, columns that may become active.
        """
        self._matrix, self._usable = matrix, usable
        self._y = positive.astype(np.float64)
        at_zero = np.where(usable, matrix.transposed_product(self._y - 0.5), 0.0)
        intercept = abs(float(np.sum(self._y - 0.5)))
        self.top = max(float(np.abs(at_zero).max(initial=0.0)), intercept)
        empty = np.empty(0, dtype=np.int64)
        self.loss_at_zero = matrix.n_rows * float(np.log(2.0))
        self._zero = LogisticFit(self.top, empty, np.empty(0), 0.0, at_zero, self.loss_at_zero)
        self.fits: dict[float, LogisticFit] = {self.top: self._zero}

    def fit(self, alpha: float) -> LogisticFit:
        """The solution at alpha, optimal over all usable columns.

        Raises:
            MethodError: it could not be computed to the tolerance (nearly dependent codes).
        """
        if alpha >= self.top:
            return self._zero
        if alpha not in self.fits:
            self.fits[alpha] = self._solve(alpha, self._nearest(alpha))
        return self.fits[alpha]

    def _nearest(self, alpha: float) -> LogisticFit:
        return min(self.fits.values(), key=lambda f: abs(np.log(f.alpha / alpha)))

    def _solve(self, alpha: float, start: LogisticFit) -> LogisticFit:
        """Working sets: solve on a few columns, let violators of the optimality conditions in, until there are none."""
        # The sequential strong rule (Tibshirani et al. 2012) proposes; the check over all columns decides.
        threshold = max(2 * alpha - start.alpha, 0.9 * alpha)
        wanted = self._usable & (np.abs(start.gradient) >= threshold)
        wanted[start.columns] = True
        weights = np.zeros(self._matrix.n_columns)
        weights[start.columns] = start.coefficients
        intercept = start.intercept
        for _ in range(_MAX_ROUNDS):
            working = np.flatnonzero(wanted)
            problem = _WorkingProblem(self._matrix, working, self._y, alpha, _TOLERANCE * self.top)
            theta = problem.minimise(np.append(weights[working], intercept))
            weights[working], intercept = theta[:-1], float(theta[-1])
            gradient = self._matrix.transposed_product(problem.residual)
            breach = np.where(self._usable, np.abs(gradient) - alpha, -1.0)
            breach[working] = -1.0
            violators = np.flatnonzero(breach > _TOLERANCE * self.top)
            if len(violators) == 0:
                columns = np.flatnonzero(weights)
                return LogisticFit(alpha, columns, weights[columns], intercept, gradient, problem.loss)
            # The worst ones are enough: most of the others fall back once these are in.
            worst = violators[np.argsort(-breach[violators], kind="stable")[: max(10, np.count_nonzero(weights))]]
            wanted[worst] = True
        raise MethodError(
            f"The logistic lasso at alpha = {alpha:.3g} did not settle in {_MAX_ROUNDS} rounds. "
            "Ask for fewer neurons, or select with task = regression."
        )


class _WorkingProblem:
    """The penalised problem on a fixed set of columns plus the intercept (the last coordinate of theta)."""

    def __init__(
        self, matrix: StandardisedCodes, columns: np.ndarray, y: np.ndarray, alpha: float, tolerance: float
    ) -> None:
        self._subset = SubsetGram(matrix, columns)
        self._y, self._alpha, self._tolerance = y, alpha, tolerance
        self._signs = 2.0 * y - 1.0

    def _margins(self, theta: np.ndarray) -> np.ndarray:
        return self._subset.product(theta[:-1]) + theta[-1]

    def _set_state(self, margins: np.ndarray) -> None:
        # exp of a non-positive number only, so that nothing overflows; log1p keeps small losses exact.
        small = np.exp(-np.abs(margins))
        signed = self._signs * margins
        self.loss = float(np.sum(np.log1p(small)) - np.sum(np.minimum(signed, 0.0)))
        probability = np.where(margins >= 0, 1.0, small) / (1.0 + small)
        self.residual = self._y - probability
        self._curvature = small / (1.0 + small) ** 2

    def minimise(self, theta: np.ndarray) -> np.ndarray:
        """Prox-Newton from theta to the tolerance; leaves `loss` and `residual` at the solution."""
        margins = self._margins(theta)
        self._set_state(margins)
        for _ in range(_MAX_NEWTON):
            gradient = -np.append(self._subset.transposed_product(self.residual), self.residual.sum())
            if subgradient_size(theta, gradient, self._alpha) <= self._tolerance:
                return theta
            moved = self._newton_step(theta, gradient, margins)
            if moved is None:
                return theta
            theta, margins = moved
        raise MethodError(
            f"The logistic lasso at alpha = {self._alpha:.3g} did not converge in {_MAX_NEWTON} Newton steps. "
            "Ask for fewer neurons, or select with task = regression."
        )

    def _newton_step(
        self, theta: np.ndarray, gradient: np.ndarray, margins: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """One proximal Newton step with backtracking; None when rounding leaves no descent."""
        gram, first = self._subset.weighted(self._curvature)
        k = len(theta)
        hessian = np.empty((k, k))
        hessian[:-1, :-1], hessian[-1, :-1], hessian[:-1, -1] = gram, first, first
        hessian[-1, -1] = self._curvature.sum()
        # The same damping that liblinear adds: a separated class has no curvature left.
        hessian[np.diag_indices(k)] += 1e-12 * (1.0 + np.trace(hessian) / k)
        target = minimise_quadratic(hessian, gradient - hessian @ theta, theta, self._alpha)
        step = target - theta
        before = self.loss + self._alpha * np.abs(theta).sum()
        decrease = float(gradient @ step) + self._alpha * float(np.abs(target).sum() - np.abs(theta).sum())
        direction = self._margins(step)
        slack = 1e-14 * abs(before)
        for halving in range(40):
            size = 0.5**halving
            # The whole step takes the target itself, so that its zeros are zeros.
            trial = target if halving == 0 else theta + size * step
            self._set_state(margins + size * direction)
            after = self.loss + self._alpha * np.abs(trial).sum()
            if after - before <= 0.01 * size * decrease + slack:
                return (trial, margins + size * direction) if np.any(trial != theta) else None
        self._set_state(margins)
        return None


def choose_logistic(matrix: StandardisedCodes, positive: np.ndarray, usable: np.ndarray, n_select: int) -> PathChoice:
    """The L1-logistic solution with n_select neurons, at the alpha that the reference's bisection finds.

    Below the largest alpha known to have more than n_select neurons by a walk from the top, the count is taken to
    stay above it (the visit says `lower_bound`). Where the bisection meets no solution with exactly n_select, its
    bracket is halved on, beyond the reference's ceiling and its 20 probes, to relative width 1e-10; where even that
    brackets no such solution (a tie lets several in at once), the n_select largest coefficients of the solution
    just below the jump are taken; where the classes are separated by fewer neurons, those.

    Args:
        matrix: standardised codes, n x m.
        positive: (n,) bool, True for the positive class.
        usable: (m,) bool, columns that may be selected (live, not copies).
        n_select: number of neurons wanted, >= 1.

    Raises:
        MethodError: a fit on the way did not converge.
    """
    model = LogisticLasso(matrix, positive, usable)
    deepest = _walk_down(model, n_select)
    enough = len(deepest.columns) > n_select

    def count(alpha: float) -> PathPoint:
        if alpha < deepest.alpha:
            found = n_select + 1 if enough else len(deepest.columns)
            return PathPoint(alpha, found, lower_bound=True)
        return PathPoint(alpha, len(model.fit(alpha).columns))

    alpha, visits = bisect_alpha(count, n_select)
    if alpha is not None:
        fit = model.fit(alpha)
        return PathChoice(alpha, fit.columns, fit.coefficients, visits, ())
    fit, note = _search_on(model, deepest, n_select)
    return PathChoice(fit.alpha, fit.columns, fit.coefficients, visits, (note,))


def _walk_down(model: LogisticLasso, n_select: int) -> LogisticFit:
    """The first fit on a geometric grid from the top with more than n_select neurons, or the last of use."""
    alpha = model.top
    fit = model.fit(alpha)
    while len(fit.columns) <= n_select and alpha > ALPHA_FLOOR and fit.loss > _SEPARATED * model.loss_at_zero:
        alpha *= _WALK
        fit = model.fit(alpha)
    return fit


def _search_on(model: LogisticLasso, deepest: LogisticFit, n_select: int) -> tuple[LogisticFit, str]:
    """A fit with n_select neurons beyond the reference's search, or the nearest one, and a note that says which."""
    searched = (
        f"The bisection over alpha in [{ALPHA_FLOOR:g}, {ALPHA_CEILING:g}] found no solution with {n_select} neurons"
    )
    by_alpha = sorted(model.fits.values(), key=lambda f: -f.alpha)
    low = next((f for f in by_alpha if len(f.columns) > n_select), None)
    exact = next((f for f in by_alpha if len(f.columns) == n_select), None)
    if exact is None and low is not None:
        high = min((f for f in by_alpha if f.alpha > low.alpha), key=lambda f: f.alpha)
        while exact is None and high.alpha > low.alpha * (1 + 1e-10):
            middle = model.fit(float(np.sqrt(low.alpha * high.alpha)))
            exact = middle if len(middle.columns) == n_select else None
            low, high = (middle, high) if len(middle.columns) > n_select else (low, middle)
    if exact is not None:
        return exact, f"{searched}; the search went on to alpha = {exact.alpha:.6g}."
    if low is not None:
        return low, (
            f"{searched}: the path goes from fewer to {len(low.columns)} at once. The {n_select} with the largest "
            "coefficients of that solution were taken."
        )
    return deepest, (
        f"{searched}: the classes are separated, or the path ends, with {len(deepest.columns)}; "
        "the other neurons add nothing to them."
    )
