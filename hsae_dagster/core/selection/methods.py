"""Which neurons predict the label: the one front door to neuron selection, and scores of one neuron at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hsae_dagster.core.selection.lasso import PathChoice, PathPoint, choose_lasso, choose_logistic
from hsae_dagster.core.selection.standardised import StandardisedCodes
from hsae_dagster.errors import MethodError
from hsae_dagster.extensions import Own, Registry

N_TOP_ACTIVATING = 100


def correlations(matrix: StandardisedCodes, target: np.ndarray) -> np.ndarray:
    """Pearson r of every column with a target (n,) that varies, (m,); 0 for constant columns."""
    centred = target - target.mean()
    return matrix.transposed_product(centred) / (matrix.n_rows * centred.std())


def separation_scores(matrix: StandardisedCodes, target: np.ndarray) -> np.ndarray:
    """Mean target of the rows where a neuron fires most, minus that of the rows where it is exactly 0, (m,).

    The first mean is over the 100 largest positive activations. A neuron with fewer positive rows uses those it has
    (the reference fills up with rows on which the neuron is silent). Rows tied with the last one let in share its place
    equally, so the score does not depend on row order. Negative activations (pairwise codes) are neither firing nor
    zero. NaN for a neuron that never fires or is never zero.
    """
    by_column = matrix.by_column
    values, row_target = by_column.data, target[by_column.indices]
    filled = np.flatnonzero(matrix.fires)

    def per_column(weights: np.ndarray) -> np.ndarray:
        sums = np.zeros(matrix.n_columns)
        if len(filled):
            sums[filled] = np.add.reduceat(weights, by_column.indptr[filled], dtype=np.float64)
        return sums

    last = np.repeat(_last_let_in(by_column.indptr, values), matrix.fires)
    above, tied = values > last, values == last
    n_above, n_tied = per_column(above), per_column(tied)
    n_firing = per_column(values > 0)
    n_top = np.minimum(n_firing, N_TOP_ACTIVATING)
    shared = per_column(row_target * tied) * (n_top - n_above) / np.maximum(n_tied, 1)
    n_zero = matrix.n_rows - matrix.fires
    zero_sum = target.sum() - per_column(row_target)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = np.where(n_firing > 0, (per_column(row_target * above) + shared) / n_top, np.nan)
        return top - np.where(n_zero > 0, zero_sum / n_zero, np.nan)


def _last_let_in(indptr: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each column its 100th largest positive value; 0 where it has no more than 100 of them."""
    last = np.zeros(len(indptr) - 1)
    for j in np.flatnonzero(np.diff(indptr) > N_TOP_ACTIVATING):
        column = values[indptr[j] : indptr[j + 1]].copy()
        column.partition(len(column) - N_TOP_ACTIVATING)
        last[j] = max(column[len(column) - N_TOP_ACTIVATING], 0.0)
    return last


@dataclass(frozen=True)
class Method:
    """A way to select: it scores neurons one by one, or chooses them jointly. One of `score` and `choose` is given.

    Attributes:
        score: (codes, target, usable) -> (m,) signed scores, ranked by size; NaN for a neuron that has none.
        choose: (codes, target, usable, n_select, task) -> at least n_select columns of `usable`, where there are so
            many, and their signed scores.
        unscored: why a usable neuron may have no score, after "live neurons".
        again: whether it is run again on half-samples, to see what is selected from other texts.
    """

    score: Callable[[StandardisedCodes, np.ndarray, np.ndarray], np.ndarray] | None = None
    choose: Callable[[StandardisedCodes, np.ndarray, np.ndarray, int, str], PathChoice] | None = None
    unscored: str = "got no finite score"
    again: bool = True


def _lasso(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray, n_select: int, task: str) -> PathChoice:
    if task == "classification":
        return choose_logistic(matrix, target == target.max(), usable, n_select)
    return choose_lasso(matrix, target, usable, n_select)


def _own_metric(own: Own) -> Method:
    """A user's metric, asked about one dense column at a time: too slow to be run again on many half-samples."""

    def score(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray) -> np.ndarray:
        scores = np.full(matrix.n_columns, np.nan)
        for j in np.flatnonzero(usable):
            # A fresh copy of the target: a metric that changes its arguments must not change the next score.
            found = own(matrix.dense_column(int(j)), target.copy())
            try:
                scores[j] = float(found)
            except (TypeError, ValueError):
                raise own.wrong(f"{type(found).__name__} of shape {np.shape(found)} for neuron {j}") from None
        return scores

    return Method(score=score, again=False)


METHODS = Registry(
    "selection.method",
    {
        "lasso": Method(choose=_lasso),
        "correlation": Method(score=lambda matrix, target, usable: correlations(matrix, target)),
        "separation": Method(
            score=lambda matrix, target, usable: separation_scores(matrix, target),
            unscored="never fire or are never zero",
        ),
    },
    _own_metric,
    "fn(column: (n,) float64, target: (n,) float64) -> one number",
    MethodError,
)


_NAMED = 10


@dataclass(frozen=True)
class Selection:
    """What was selected, and how.

    Attributes:
        columns: of the selected neurons in the codes, by the size of their scores.
        scores: of each: standardised lasso coefficient, Pearson r, separation, or the custom metric; signed.
        alpha: penalty weight of the lasso solution, and visits of the search over it; none for other methods.
        notes: remarks in words on anything that did not go by the plain rule.
        dead: columns with one value on all rows, left out.
        duplicates: (kept, left out) pairs of columns with correlation 1 or -1.
    """

    method: str
    task: str
    columns: list[int]
    scores: list[float]
    alpha: float | None
    path: tuple[PathPoint, ...]
    notes: tuple[str, ...]
    dead: tuple[int, ...]
    duplicates: tuple[tuple[int, int], ...]


def select_neurons(
    codes: sparse.csr_matrix | sparse.csr_array,
    target: np.ndarray,
    n_select: int,
    *,
    method: str = "lasso",
    task: str = "regression",
    without: Sequence[int] = (),
    fewer: bool = False,
) -> Selection:
    """Select the n_select neurons that best predict the target, by rank; columns in `without` are not selected.

    Codes are (n, m) sparse activations, signed for pairwise differences Z_A - Z_B; the target is (n,), under the task
    "classification" any two values, the larger the positive class. `method` is a name in `METHODS` or a metric of the
    user's own. With `fewer` it does with the live, distinct neurons there are, even none; otherwise there are fewer
    only where the lasso path ends with fewer, with a note.

    Raises:
        MethodError: unknown method; a target of one value, or (classification) more than two, or of as many rows as
            the codes do not have; n_select < 1 or above the number of live, distinct neurons.
    """
    target = _checked_target(target, task)
    matrix = StandardisedCodes(codes)
    candidates = _Candidates(matrix)
    candidates.usable[list(without)] = False
    return candidates.select(target, n_select, method, task, fewer=fewer)


def select_for_each(
    codes: sparse.csr_matrix | sparse.csr_array,
    targets: Sequence[np.ndarray],
    n_select: int,
    *,
    method: str = "lasso",
    task: str = "regression",
) -> list[Selection]:
    """`select_neurons` for each of several targets on the same codes, whose moments are computed once.

    Where fewer than n_select neurons are live and distinct, those are selected, even none.
    """
    candidates = _Candidates(StandardisedCodes(codes))
    return [candidates.select(_checked_target(target, task), n_select, method, task, fewer=True) for target in targets]


class _Candidates:
    """The columns that may be selected; found once, used for any number of targets."""

    def __init__(self, matrix: StandardisedCodes) -> None:
        self.matrix = matrix
        live = ~matrix.constant
        self.dead = tuple(np.flatnonzero(~live).tolist())
        self.duplicates = tuple(matrix.copies(live))
        self.usable = live.copy()
        self.usable[[copy for _, copy in self.duplicates]] = False
        self.notes: list[str] = []
        if self.dead:
            n_zero = int(np.count_nonzero(matrix.mean[list(self.dead)] == 0))
            self.notes.append(
                f"{len(self.dead)} of {matrix.n_columns} neurons have one value on all rows ({n_zero} never fire) "
                f"and were left out: {_named(self.dead)}."
            )
        if self.duplicates:
            pairs = [f"{copy} (kept as {kept})" for kept, copy in self.duplicates]
            self.notes.append(
                f"{len(pairs)} neurons carry the same information as another and were left out: {_named(pairs)}."
            )

    def select(self, target: np.ndarray, n_select: int, method: str, task: str, *, fewer: bool = False) -> Selection:
        if len(target) != self.matrix.n_rows:
            raise MethodError(
                f"The target has {len(target)} rows and the codes have {self.matrix.n_rows}. "
                "Join both on the text id before selecting."
            )
        way = METHODS.find(method)
        scores = way.score(self.matrix, target, self.usable) if way.score else np.zeros(self.matrix.n_columns)
        if fewer:
            n_select = min(n_select, int((self.usable & np.isfinite(scores)).sum()))
            if n_select == 0:
                return Selection(method, task, [], [], None, (), tuple(self.notes), self.dead, self.duplicates)
        self._check(n_select)
        if way.choose:
            choice = way.choose(self.matrix, target, self.usable, n_select, task)
        else:
            choice = self._by_score(scores, n_select, method, way.unscored)
        return self._ranked(choice, n_select, method, task)

    def _check(self, n_select: int) -> None:
        if n_select < 1:
            raise MethodError(f"n_select is {n_select}; ask for at least one neuron.")
        n_usable = int(self.usable.sum())
        if n_usable < n_select:
            raise MethodError(
                f"{n_select} neurons were asked for, but only {n_usable} of {self.matrix.n_columns} are live "
                f"and distinct ({len(self.dead)} dead or constant, {len(self.duplicates)} copies). "
                f"Ask for at most {n_usable}, or train a wider SAE."
            )

    def _by_score(self, scores: np.ndarray, n_select: int, method: str, unscored: str) -> PathChoice:
        columns = np.flatnonzero(self.usable & np.isfinite(scores))
        without = np.flatnonzero(self.usable & ~np.isfinite(scores))
        notes: tuple[str, ...] = ()
        if len(without):
            notes = (f"{len(without)} live neurons {unscored} and were left out: {_named(without.tolist())}.",)
        if len(columns) < n_select:
            raise MethodError(
                f"{n_select} neurons were asked for, but {method} has a score for {len(columns)} of them only. "
                + " ".join([*self.notes, *notes])
                + f" Ask for at most {len(columns)}, or use another method."
            )
        return PathChoice(float("nan"), columns, scores[columns], (), notes)

    def _ranked(self, choice: PathChoice, n_select: int, method: str, task: str) -> Selection:
        columns, scores = choice.columns, choice.coefficients
        # Sizes that differ by rounding only are ties, or the order would hang on the order of additions.
        sizes = np.round(np.abs(scores) / max(float(np.abs(scores).max(initial=0.0)), 1e-300), 11)
        order = np.lexsort((columns, -sizes))[:n_select]
        return Selection(
            method=method,
            task=task,
            columns=columns[order].tolist(),
            scores=scores[order].tolist(),
            alpha=None if np.isnan(choice.alpha) else choice.alpha,
            path=choice.visits,
            notes=(*self.notes, *choice.notes),
            dead=self.dead,
            duplicates=self.duplicates,
        )


def _checked_target(target: np.ndarray, task: str) -> np.ndarray:
    """The target as (n,) float64, two-valued under classification."""
    values = np.asarray(target, dtype=np.float64)
    distinct = np.unique(values)
    if len(distinct) < 2:
        raise MethodError(
            f"Every row of the target has the same value ({distinct[0]:g}), so nothing can predict it. "
            "Check the label column and the split."
        )
    if task == "classification" and len(distinct) > 2:
        raise MethodError(
            f"The target has {len(distinct)} classes and classification takes two. Select for one class against the "
            "rest, or use task = regression if the label is a number with an order."
        )
    return values


def _named(items: tuple | list) -> str:
    """The first few items in words."""
    shown = ", ".join(str(item) for item in items[:_NAMED])
    return shown if len(items) <= _NAMED else f"{shown} and {len(items) - _NAMED} more"
