"""The lasso path of the squared loss, exact, on sparse standardised codes; and the search for alpha."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hsae_dagster.core.selection.standardised import StandardisedCodes
from hsae_dagster.errors import MethodError

ALPHA_FLOOR, ALPHA_CEILING, MAX_PROBES = 1e-6, 1e4, 20
# Relative width under which a stretch of the path is a tie, not an interval that one could aim at.
_TIE_WIDTH = 1e-9
_KKT_TOLERANCE = 1e-7
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


class Correlated(Protocol):
    """What the homotopy reads of a matrix of standardised columns."""

    @property
    def n_rows(self) -> int:
        """Rows n."""

    @property
    def n_columns(self) -> int:
        """Columns m."""

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Z^T r."""

    def gram_column(self, j: int) -> np.ndarray:
        """Z^T z_j / n."""


class TiedPathError(Exception):
    """The homotopy came back to a set of columns without moving: exact ties must be broken first."""


def bisect_alpha(count: Callable[[float], PathPoint], n_select: int) -> tuple[float | None, tuple[PathPoint, ...]]:
    """Geometric bisection over [1e-6, 1e4], first probe 0.1, at most 20 probes: the reference's search.

    Args:
        count: alpha -> path point.
        n_select: number of neurons wanted.

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

    def __init__(self, matrix: Correlated, target: np.ndarray, usable: np.ndarray, *, jitter: float = 0.0) -> None:
        """Start at the top.

        Args:
            matrix: standardised codes, n x m, or their Gram matrix in the same guise.
            target: (n,) float64.
            usable: (m,) bool, columns that may become active.
            jitter: relative size of a fixed perturbation of the correlations with y that breaks exact ties.
        """
        self._matrix, self._usable = matrix, usable
        self._target = target - target.mean()
        correlation = matrix.transposed_product(self._target) / matrix.n_rows
        if jitter:
            correlation *= 1.0 + jitter * np.random.default_rng(0).uniform(-1, 1, matrix.n_columns)
        self._correlation = np.where(usable, correlation, 0.0)
        self._gram_rows: dict[int, np.ndarray] = {}
        first = int(np.argmax(np.abs(self._correlation)))
        self.top = float(abs(self._correlation[first]))
        self._alpha = self.top
        self._active, self._signs = [first], [float(np.sign(self._correlation[first]))]
        self._standstill: set[frozenset[int]] = set()
        self.segments: list[Segment] = []
        # Nothing correlates with y beyond rounding: the path is empty.
        rounding = 1e-13 * float(np.sqrt(np.mean(self._target**2)))
        self.finished = self.top <= rounding

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

    def _gram(self) -> np.ndarray:
        for j in self._active:
            if j not in self._gram_rows:
                self._gram_rows[j] = self._matrix.gram_column(j)
        return np.stack([self._gram_rows[j] for j in self._active])

    def _step(self) -> None:
        """One stretch: from the current knot to the next join or drop.

        With b_A = u - alpha v the correlations with the residual are p + alpha q. A column joins where
        |p + alpha q| rises to alpha, one drops where its coefficient shrinks to 0 as alpha falls.
        """
        active, signs = np.array(self._active), np.array(self._signs)
        gram = self._gram()
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
        self, matrix: StandardisedCodes, alpha: float, columns: np.ndarray, coefficients: np.ndarray
    ) -> float:
        """Largest breach of the optimality conditions over ALL usable columns, relative to `top`.

        |z_j^T r| / n <= alpha for every column, with equality and the right sign on the active ones; r from data.
        """
        residual = self._target - matrix.product(columns, coefficients)
        gradient = matrix.transposed_product(residual) / matrix.n_rows
        outside = np.abs(gradient[self._usable]).max(initial=0.0) - alpha
        inside = np.abs(gradient[columns] - alpha * np.sign(coefficients)).max(initial=0.0)
        return float(max(outside, inside, 0.0) / self.top)


def choose_lasso(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray, n_select: int) -> PathChoice:
    """The lasso solution with n_select neurons, at the alpha that the reference's bisection finds.

    Where the bisection meets no point with exactly n_select neurons (its range or its 20 probes end), the largest
    stretch of the exact path with that count is taken at its geometric middle; where the path has none (a tie lets
    two neurons in at once), the first stretch with more, of which the largest coefficients count; where the path
    ends with fewer, those.

    Args:
        matrix: standardised codes, n x m.
        target: (n,) float64, not constant.
        usable: (m,) bool, columns that may be selected (live, not copies).
        n_select: number of neurons wanted, >= 1.

    Raises:
        MethodError: the solution found does not satisfy the optimality conditions (ill-conditioned codes).
    """
    for jitter in (0.0, 1e-10):
        path = LassoPath(matrix, target, usable, jitter=jitter)
        try:
            choice = _choose(path, matrix, usable, n_select)
        except (TiedPathError, np.linalg.LinAlgError):
            continue
        if path.violation(matrix, choice.alpha, choice.columns, choice.coefficients) <= _KKT_TOLERANCE:
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


def _alpha_on_path(path: LassoPath, n_select: int, notes: list[str]) -> float:
    """An alpha with n_select neurons, or the nearest the path has, with a note that says which."""
    path.extend(0.0, n_select)
    wide = [s for s in path.segments if s.upper - s.lower > _TIE_WIDTH * path.top]
    searched = (
        f"The bisection over alpha in [{ALPHA_FLOOR:g}, {ALPHA_CEILING:g}] found no solution with {n_select} neurons"
    )
    exact = [s for s in wide if len(s.columns) == n_select]
    more = [s for s in wide if len(s.columns) > n_select]
    if exact:
        best = max(exact, key=lambda s: s.upper - s.lower)
        notes.append(f"{searched}; alpha was taken from the exact path.")
    elif more:
        best = more[0]
        notes.append(
            f"{searched}: the path goes from fewer to {len(best.columns)} at once. The {n_select} with the largest "
            "coefficients of that solution were taken."
        )
    elif wide:
        best = max(wide, key=lambda s: len(s.columns))
        notes.append(f"{searched}: the path ends with {len(best.columns)}; the other neurons add nothing to them.")
    else:
        notes.append(f"{searched}: no neuron is correlated with the target.")
        return path.top
    return float(np.sqrt(best.upper * max(best.lower, 1e-3 * best.upper)))
