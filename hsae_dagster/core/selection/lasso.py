"""L1-penalised fits, of an outcome (least squares) and of a class (logistic)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from hsae_dagster.core.selection.standardised import StandardisedCodes, SubsetGram
from hsae_dagster.errors import MethodError

ALPHA_FLOOR, ALPHA_CEILING, MAX_PROBES = 1e-6, 1e4, 20
# Relative width under which a stretch of the path is a tie, not an interval that one could aim at.
_TIE_WIDTH = 1e-9
_KKT_TOLERANCE = 1e-7
_MAX_SWEEPS = 1000
# Up to this many non-zeros x columns the path is followed as deep as the bisection asks; above, `_margin` more.
_DEEP_LIMIT = 2_000_000


@dataclass(frozen=True)
class PathPoint:
    """One visit of the search: penalty weight and number of neurons with a non-zero coefficient.

    `lower_bound` is True where alpha lies below the deepest point computed, the exact number being of no use to the
    search: `n_active` is then the count known from above.
    """

    alpha: float
    n_active: int
    lower_bound: bool = False


@dataclass(frozen=True)
class PathChoice:
    """The path point chosen: alpha, the active columns with their coefficients, the visits, remarks in words."""

    alpha: float
    columns: np.ndarray
    coefficients: np.ndarray
    visits: tuple[PathPoint, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Segment:
    """A stretch lower < alpha < upper of the path on which b[columns] = intercepts - alpha * slopes."""

    upper: float
    lower: float
    columns: np.ndarray
    intercepts: np.ndarray
    slopes: np.ndarray

    def coefficients(self, alpha: float) -> np.ndarray:
        """Coefficients of `columns` at alpha."""
        return self.intercepts - alpha * self.slopes


class TiedPathError(Exception):
    """The homotopy came back to a set of columns without moving: exact ties must be broken first."""


def bisect_alpha(count: Callable[[float], PathPoint], n_select: int) -> tuple[float | None, tuple[PathPoint, ...]]:
    """Geometric bisection over [1e-6, 1e4], first probe 0.1, at most 20 probes: the reference's search.

    Returns:
        The first alpha with exactly n_select active neurons (None if none was hit) and all visits in order.
    """
    low, high = ALPHA_FLOOR, ALPHA_CEILING
    visits: list[PathPoint] = []
    for _ in range(MAX_PROBES):
        alpha = float(np.sqrt(low * high))
        point = count(alpha)
        visits.append(point)
        if point.n_active == n_select and not point.lower_bound:
            return alpha, tuple(visits)
        if point.n_active < n_select:
            high = alpha
        else:
            low = alpha
    return None, tuple(visits)


class LassoPath:
    """The lasso path from its top down, extended on demand.

    Attributes:
        top: smallest alpha at which nothing is active, max_j |z_j^T y| / n.
        segments: the stretches computed so far, from large alpha to small.
        finished: True once alpha = 0 is reached.
    """

    def __init__(
        self,
        correlation: np.ndarray,
        usable: np.ndarray,
        spread: float,
        gram: Callable[[list[int]], np.ndarray],
        *,
        jitter: float = 0.0,
    ) -> None:
        """Start at the top.

        Args:
            correlation: (m,) Z^T y / n of the standardised columns and the outcome about its mean.
            usable: (m,) bool, columns that may become active.
            spread: standard deviation of the outcome.
            gram: (k columns) -> (k, m) their rows of Z^T Z / n.
            jitter: relative size of a fixed perturbation of the correlations with y that breaks exact ties.
        """
        self._usable, self._gram = usable, gram
        if jitter:
            correlation = correlation * (1.0 + jitter * np.random.default_rng(0).uniform(-1, 1, len(correlation)))
        self._correlation = np.where(usable, correlation, 0.0)
        first = int(np.argmax(np.abs(self._correlation)))
        self.top = float(abs(self._correlation[first]))
        self._alpha = self.top
        self._active, self._signs = [first], [float(np.sign(self._correlation[first]))]
        self._standstill: set[frozenset[int]] = set()
        self.segments: list[Segment] = []
        # Nothing correlates with y beyond rounding: the path is empty.
        self.finished = self.top <= 1e-13 * spread

    @staticmethod
    def of(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray, *, jitter: float = 0.0) -> "LassoPath":
        """Of an outcome (n,) on codes (n, m), of whose Gram matrix only rows that are needed are computed."""
        centred, column = target - target.mean(), cache(matrix.gram_column)
        correlation, spread = matrix.transposed_product(centred) / matrix.n_rows, float(np.sqrt(np.mean(centred**2)))
        return LassoPath(correlation, usable, spread, lambda columns: np.stack([*map(column, columns)]), jitter=jitter)

    def extend(self, alpha: float, max_active: int) -> None:
        """Follow the path down to alpha, or until more than max_active columns are active."""
        while not self.finished and self._alpha > alpha and len(self._active) <= max_active:
            self._step()

    def segment_at(self, alpha: float) -> Segment | None:
        """The computed stretch that contains alpha, or None (nothing active above `top`; not computed below)."""
        for segment in reversed(self.segments):
            if segment.lower <= alpha < segment.upper:
                return segment
        return None

    def _step(self) -> None:
        """One stretch: from the current knot to the next join or drop.

        With b_A = u - alpha v the correlations with the residual are p + alpha q. A column joins where
        |p + alpha q| rises to alpha, one drops where its coefficient shrinks to 0 as alpha falls.
        """
        active, signs = np.array(self._active), np.array(self._signs)
        gram = self._gram(self._active)
        right = np.column_stack([self._correlation[active], signs])
        u, v = np.linalg.solve(gram[:, active], right).T
        joins, join_signs = self._joins(gram, active, u, v)
        drops = np.where(signs * v < 0, u / np.where(v == 0, 1.0, v), 0.0)
        joining, dropping = int(np.argmax(joins)), int(np.argmax(drops))
        lower = min(max(float(joins[joining]), float(drops[dropping]), 0.0), self._alpha)
        self._record(Segment(self._alpha, lower, active, u, v))
        if lower <= 1e-12 * self.top:
            self.finished = True
        elif drops[dropping] >= joins[joining]:
            del self._active[dropping], self._signs[dropping]
            self.finished = not self._active
        else:
            self._active.append(joining)
            self._signs.append(float(join_signs[joining]))
        self._alpha = lower

    def _joins(
        self, gram: np.ndarray, active: np.ndarray, u: np.ndarray, v: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """For every column the alpha at which it would join (0: never) and the sign it would have."""
        p, q = self._correlation - u @ gram, v @ gram
        signs = np.sign(p)
        # p = 0 beyond rounding is a column in the span of the active ones: it can never add anything.
        rising = 1.0 - signs * q
        possible = self._usable & (np.abs(p) > 1e-11 * self.top) & (rising > 0)
        possible[active] = False
        return np.where(possible, np.abs(p) / np.where(rising > 0, rising, 1.0), 0.0), signs

    def _record(self, segment: Segment) -> None:
        if segment.upper - segment.lower > 1e-13 * self.top:
            self._standstill.clear()
        else:
            state = frozenset(self._active)
            if state in self._standstill:
                raise TiedPathError
            self._standstill.add(state)
        self.segments.append(segment)

    def violation(
        self,
        matrix: StandardisedCodes,
        target: np.ndarray,
        alpha: float,
        columns: np.ndarray,
        coefficients: np.ndarray,
    ) -> float:
        """Largest breach of the optimality conditions over ALL usable columns, relative to `top`.

        |z_j^T r| / n <= alpha for every column, with equality and the right sign on the active ones; r from data.
        """
        residual = target - target.mean() - matrix.product(columns, coefficients)
        gradient = matrix.transposed_product(residual) / matrix.n_rows
        outside = np.abs(gradient[self._usable]).max(initial=0.0) - alpha
        inside = np.abs(gradient[columns] - alpha * np.sign(coefficients)).max(initial=0.0)
        return float(max(outside, inside, 0.0) / self.top)


def choose_lasso(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray, n_select: int) -> PathChoice:
    """The lasso solution with n_select neurons, at the alpha that the reference's bisection finds.

    Where the bisection meets no point with exactly n_select neurons (its range or its 20 probes end), the largest
    stretch of the exact path with that count is taken at its geometric middle; where the path has none (a tie lets
    two neurons in at once), the first stretch with more, of which the largest coefficients count; where the path
    ends with fewer, those. The target (n,) varies; `usable` (m,) bool are live columns, not copies.

    Raises:
        MethodError: the solution found does not satisfy the optimality conditions (ill-conditioned codes).
    """
    for jitter in (0.0, 1e-10):
        path = LassoPath.of(matrix, target, usable, jitter=jitter)
        try:
            choice = _choose(path, matrix, usable, n_select)
        except (TiedPathError, np.linalg.LinAlgError):
            continue
        if path.violation(matrix, target, choice.alpha, choice.columns, choice.coefficients) <= _KKT_TOLERANCE:
            return choice
    raise MethodError(
        f"The lasso path with {n_select} neurons could not be computed to its optimality conditions: the active "
        "codes are nearly linearly dependent. Ask for fewer neurons or select by correlation."
    )


def _choose(path: LassoPath, matrix: StandardisedCodes, usable: np.ndarray, n_select: int) -> PathChoice:
    n_usable = int(usable.sum())
    deep = matrix.raw.nnz * n_usable <= _DEEP_LIMIT
    max_active = n_usable if deep else n_select + max(5, n_select // 4)

    def count(alpha: float) -> PathPoint:
        path.extend(alpha, max_active)
        segment = path.segment_at(alpha)
        if segment is not None:
            return PathPoint(alpha, len(segment.columns))
        reached_below = path.segments and alpha < path.segments[-1].lower
        return PathPoint(alpha, n_select + 1, lower_bound=True) if reached_below else PathPoint(alpha, 0)

    alpha, visits = bisect_alpha(count, n_select)
    notes: list[str] = []
    if alpha is None:
        alpha = _alpha_on_path(path, n_select, notes)
    segment = path.segment_at(alpha)
    if segment is None:
        return PathChoice(alpha, np.empty(0, dtype=int), np.empty(0), visits, tuple(notes))
    return PathChoice(alpha, segment.columns, segment.coefficients(alpha), visits, tuple(notes))


def _searched(n_select: int) -> str:
    return f"The bisection over alpha in [{ALPHA_FLOOR:g}, {ALPHA_CEILING:g}] found no solution with {n_select} neurons"


def _jumped(n_select: int, reached: int) -> str:
    return (
        f"{_searched(n_select)}: the path goes from fewer to {reached} at once. The {n_select} with the largest "
        "coefficients of that solution were taken."
    )


def _alpha_on_path(path: LassoPath, n_select: int, notes: list[str]) -> float:
    """An alpha with n_select neurons, or the nearest the path has, with a note that says which."""
    path.extend(0.0, n_select)
    wide = [s for s in path.segments if s.upper - s.lower > _TIE_WIDTH * path.top]
    searched = _searched(n_select)
    exact = [s for s in wide if len(s.columns) == n_select]
    more = [s for s in wide if len(s.columns) > n_select]
    if exact:
        best = max(exact, key=lambda s: s.upper - s.lower)
        notes.append(f"{searched}; alpha was taken from the exact path.")
    elif more:
        best = more[0]
        notes.append(_jumped(n_select, len(best.columns)))
    elif wide:
        best = max(wide, key=lambda s: len(s.columns))
        notes.append(f"{searched}: the path ends with {len(best.columns)}; the other neurons add nothing to them.")
    else:
        notes.append(f"{searched}: no neuron is correlated with the target.")
        return path.top
    return float(np.sqrt(best.upper * max(best.lower, 1e-3 * best.upper)))


def subgradient_size(theta: np.ndarray, gradient: np.ndarray, alpha: float) -> float:
    """Size of the smallest subgradient: 0 at the optimum."""
    active = theta != 0
    inside = np.abs(gradient[active] + alpha * np.sign(theta[active])).max(initial=0.0)
    outside = (np.abs(gradient[~active]) - alpha).max(initial=0.0)
    return float(max(inside, outside))


def minimise_quadratic(hessian: np.ndarray, linear: np.ndarray, start: np.ndarray, alpha: float) -> np.ndarray:
    """The (k,) minimiser of x^T H x / 2 + c^T x + alpha |x|_1, with exact zeros, for a positive definite H (k, k).

    Coordinate descent finds the signs; as soon as they stand still over a sweep, the linear system on the support
    gives the exact answer, which is taken if it meets the optimality conditions.
    """
    x = start.copy()
    slope = linear + hessian @ x
    diagonal = hessian.diagonal()
    scale = float(np.abs(linear).max(initial=0.0)) + alpha
    previous = np.sign(x)
    for sweep in range(_MAX_SWEEPS):
        for j in range(len(x)):
            curvature = float(diagonal[j])
            free = curvature * float(x[j]) - float(slope[j])
            new = max(abs(free) - alpha, 0.0) / curvature * (1.0 if free > 0 else -1.0)
            if new != x[j]:
                slope += hessian[j] * (new - x[j])
                x[j] = new
        signs = np.sign(x)
        if sweep == _MAX_SWEEPS - 1 or np.array_equal(signs, previous):
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
        """Compute the gradient at zero; `positive` (n,) bool is the class, `usable` (m,) bool may become active."""
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
            nearest = min(self.fits.values(), key=lambda f: abs(np.log(f.alpha / alpha)))
            self.fits[alpha] = self._solve(alpha, nearest)
        return self.fits[alpha]

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
    just below the jump are taken; where the classes are separated by fewer neurons, those. `positive` (n,) bool is the
    class; `usable` (m,) bool are live columns, not copies.

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
    searched = _searched(n_select)
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
        return low, _jumped(n_select, len(low.columns))
    return deepest, (
        f"{searched}: the classes are separated, or the path ends, with {len(deepest.columns)}; "
        "the other neurons add nothing to them."
    )
