"""Scores that look at one neuron at a time: correlation, separation, a user's own metric.

Belongs here: a score for every column of sparse codes against one target. Does not belong here: ranking, and the rules
about which columns may be selected (`selection.py`); models of several neurons at once (`lasso.py`, `logistic.py`).
"""

import importlib
from collections.abc import Callable

import numpy as np

from hsae_dagster.core.standardised import StandardisedCodes
from hsae_dagster.errors import MethodError

METHODS = ("lasso", "correlation", "separation")
N_TOP_ACTIVATING = 100

Metric = Callable[[np.ndarray, np.ndarray], float]


def correlations(matrix: StandardisedCodes, target: np.ndarray) -> np.ndarray:
    """Pearson r of every column with the target, (m,); 0 for constant columns.

    Args:
        matrix: standardised codes, n x m.
        target: (n,) float64, not constant.
    """
    centred = target - target.mean()
    return matrix.transposed_product(centred) / (matrix.n_rows * centred.std())


def separation_scores(
    matrix: StandardisedCodes, target: np.ndarray, n_top_activating: int = N_TOP_ACTIVATING
) -> np.ndarray:
    """Mean target of the rows where a neuron fires most, minus that of the rows where it is exactly 0.

    The first mean is over the n_top_activating largest positive activations. A neuron with fewer positive rows uses
    those it has (the reference fills up with rows on which the neuron is silent). Rows tied with the last one let in
    share its place equally, so the score does not depend on row order. Negative activations (pairwise codes) are
    neither firing nor zero.

    Args:
        matrix: standardised codes, n x m.
        target: (n,) float64.
        n_top_activating: rows in the first mean, at most.

    Returns:
        (m,) scores; NaN for a neuron that never fires or is never zero.
    """
    by_column = matrix.by_column
    values, row_target = by_column.data, target[by_column.indices]
    filled = np.flatnonzero(matrix.fires)

    def per_column(weights: np.ndarray) -> np.ndarray:
        sums = np.zeros(matrix.n_columns)
        if len(filled):
            sums[filled] = np.add.reduceat(weights, by_column.indptr[filled], dtype=np.float64)
        return sums

    last = np.repeat(_last_let_in(by_column.indptr, values, n_top_activating), matrix.fires)
    above, tied = values > last, values == last
    n_above, n_tied = per_column(above), per_column(tied)
    n_firing = per_column(values > 0)
    n_top = np.minimum(n_firing, n_top_activating)
    shared = per_column(row_target * tied) * (n_top - n_above) / np.maximum(n_tied, 1)
    n_zero = matrix.n_rows - matrix.fires
    zero_sum = target.sum() - per_column(row_target)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = np.where(n_firing > 0, (per_column(row_target * above) + shared) / n_top, np.nan)
        return top - np.where(n_zero > 0, zero_sum / n_zero, np.nan)


def _last_let_in(indptr: np.ndarray, values: np.ndarray, n_top: int) -> np.ndarray:
    """For each column its n_top-th largest positive value; 0 where it has no more than n_top of them."""
    last = np.zeros(len(indptr) - 1)
    for j in np.flatnonzero(np.diff(indptr) > n_top):
        column = values[indptr[j] : indptr[j + 1]].copy()
        column.partition(len(column) - n_top)
        last[j] = max(column[len(column) - n_top], 0.0)
    return last


def load_metric(path: str) -> Metric:
    """The function at "package.module:function".

    Raises:
        MethodError: the path has another form, or nothing callable is there.
    """
    module_name, colon, name = path.partition(":")
    if not (colon and module_name and name):
        raise MethodError(
            f"Unknown selection method {path!r}. Use one of {', '.join(METHODS)}, or the import path of your own "
            "metric as package.module:function."
        )
    try:
        metric = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise MethodError(
            f"The selection metric {path!r} cannot be imported: {error}. Install the package that holds it in the "
            "environment of this code location, or correct the path."
        ) from error
    if not callable(metric):
        raise MethodError(f"The selection metric {path!r} is a {type(metric).__name__}, not a function.")
    return metric


def custom_scores(matrix: StandardisedCodes, target: np.ndarray, usable: np.ndarray, metric: Metric) -> np.ndarray:
    """The metric on every usable column, one dense column at a time; NaN elsewhere."""
    scores = np.full(matrix.n_columns, np.nan)
    for j in np.flatnonzero(usable):
        # A fresh copy of the target: a metric that changes its arguments must not change the next score.
        scores[j] = float(metric(matrix.dense_column(int(j)), target.copy()))
    return scores
