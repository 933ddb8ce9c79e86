"""Selection that looks within strata of a covariate, and for effects that change with one.

Belongs here: the within-stratum Gram matrix of sparse codes, and selection on it. Does not belong here: selection over
all rows alike (`core.selection`), effects by subgroup (`core.subgroups`).

After Xu, Liu and Ai (2026, arXiv 2606.03029). Label and activations are demeaned within strata, and rows weigh
inversely to the size of their stratum, so that neither differences between strata nor the largest decide. Interactions
add, for each neuron and each level of a covariate but the first, the product of the two: a neuron whose effect differs
between subgroups has a large product term though its own may be zero.

Nothing dense of size rows × neurons is made: with D the weights, S the strata and m_s the mean of the columns in s, the
weighted within-stratum Gram is X' D X - sum_s w_s n_s m_s m_s', and a product term has the non-zeros of its neuron.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.errors import MethodError

# Columns and product terms of one Gram matrix: 8 bytes times their number squared.
MOST_COLUMNS = 6000
_CONSTANT = 1e-12


@dataclass(frozen=True)
class CovariateTerm:
    """One selected term.

    Attributes:
        column: of the neuron.
        level: of the interacting covariate, or None for the neuron's own term.
        score: standardised coefficient at the point of the lasso path with as many neurons as were asked for.
    """

    column: int
    level: str | None
    score: float


def select_within(
    codes: sp.csr_matrix, outcome: np.ndarray, strata: np.ndarray, covariates: Sequence[np.ndarray], n_select: int
) -> list[CovariateTerm]:
    """The first n_select distinct neurons that the lasso path admits, by their own term or a product term.

    Args:
        codes: (n, m) activations.
        outcome: (n,).
        strata: (n,) keys; one key throughout for none.
        covariates: each (n,) levels to interact with; may be none.
        n_select: neurons.

    Returns:
        One term per neuron (the one that entered first), in order of entry; fewer where the path ends.

    Raises:
        MethodError: more columns and product terms than `MOST_COLUMNS`, or no variation within strata.
    """
    x, terms = _with_products(codes, covariates)
    if x.shape[1] > MOST_COLUMNS:
        raise MethodError(
            f"{x.shape[1]} neurons and product terms are more than covariate-aware selection holds ({MOST_COLUMNS}). "
            "Use smaller autoencoders, or a covariate with fewer levels."
        )
    gram, with_outcome = _within_moments(x, outcome, strata)
    variance = gram.diagonal()
    able = np.flatnonzero(variance > _CONSTANT * max(float(variance.max(initial=0.0)), 1e-300))
    if not able.size or not np.abs(with_outcome[able]).max(initial=0.0) > 0:
        raise MethodError("Neither label nor neurons vary within strata, so nothing can be selected; drop `within`.")
    scale = np.sqrt(variance[able])
    return _first_neurons(
        gram[np.ix_(able, able)] / np.outer(scale, scale),
        with_outcome[able] / scale,
        [terms[j] for j in able],
        n_select,
    )


def _with_products(
    codes: sp.csr_matrix, covariates: Sequence[np.ndarray]
) -> tuple[sp.csr_matrix, list[tuple[int, str | None]]]:
    """Codes with product terms to their right, and (neuron, level or None) of each column."""
    terms: list[tuple[int, str | None]] = [(j, None) for j in range(codes.shape[1])]
    parts = [sp.csr_matrix(codes, dtype=np.float64)]
    for covariate in covariates:
        for level in np.unique(covariate)[1:]:
            inside = (covariate == level).astype(np.float64)
            # About its mean, so that a product term is not the neuron's own effect once more.
            parts.append((sp.diags_array(inside - inside.mean()) @ parts[0]).tocsr())
            terms += [(j, str(level)) for j in range(codes.shape[1])]
    return sp.hstack(parts, format="csr"), terms


def _within_moments(x: sp.csr_matrix, outcome: np.ndarray, strata: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted within-stratum Gram (c, c) and products with the outcome (c,), per unit of weight."""
    group = np.unique(strata, return_inverse=True)[1]
    sizes = np.bincount(group).astype(np.float64)
    weight = 1.0 / (len(sizes) * sizes)  # of each row of a stratum; every stratum weighs the same
    member = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))))
    sums = np.asarray((member @ x).todense())
    means = sums / sizes[:, None]
    rows = weight[group]
    raw = (x.T @ sp.diags_array(rows) @ x).toarray()
    gram = raw - np.einsum("s,si,sj->ij", weight * sizes, means, means, optimize=True)
    centred = outcome - (np.bincount(group, outcome) / sizes)[group]
    return gram, np.asarray(x.T @ (rows * centred)).ravel()


def _first_neurons(
    gram: np.ndarray, with_outcome: np.ndarray, terms: Sequence[tuple[int, str | None]], n_select: int
) -> list[CovariateTerm]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path_gram

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # dependent columns end the path early; what it has counts
        _, _, path = lars_path_gram(with_outcome, gram, n_samples=1, max_iter=6 * n_select + 10, method="lasso")
    chosen: dict[int, CovariateTerm] = {}
    for step in range(1, path.shape[1]):
        entered = np.flatnonzero((path[:, step] != 0) & (path[:, step - 1] == 0))
        for k in entered[np.argsort(-np.abs(with_outcome[entered]), kind="stable")]:
            column, level = terms[k]
            chosen.setdefault(column, CovariateTerm(column, level, float(with_outcome[k])))
        if len(chosen) >= n_select:
            break
    return list(chosen.values())[:n_select]
