"""Selection under demands: within strata, for effects that change, holding across clusters."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.errors import MethodError

FOLDS = 5
# Folds that must agree with the sign over all rows, clusters in which a neuron must fire, and the largest share of its
# firing that one of them may have.
_AGREE, _CLUSTERS, _SHARE = 4, 5, 0.5
# Fewer training clusters say nothing about other ones.
LEAST_CLUSTERS = 8


@dataclass(frozen=True)
class Across:
    """What holds across clusters.

    Attributes:
        few: (m,) bool: fires in too few clusters, or mostly in one.
        turns: (m,) bool: of the others, those whose association changes its sign between folds of clusters.
    """

    few: np.ndarray
    turns: np.ndarray

    @property
    def holds(self) -> np.ndarray:
        """(m,) bool: whether a neuron may be selected."""
        return ~(self.few | self.turns)

    def note(self) -> str | None:
        """How many neurons were left out, in words; None where none was."""
        if self.holds.all():
            return None
        return (
            f"{int((~self.holds).sum())} of {len(self.few)} neurons were left out because their association rests on "
            f"few clusters: {int(self.few.sum())} fire in fewer than {_CLUSTERS} or mostly in one, "
            f"{int(self.turns.sum())} point in different directions in different clusters."
        )


def across_clusters(
    codes: sp.csr_matrix, outcome: np.ndarray, clusters: np.ndarray, rng: np.random.Generator
) -> Across:
    """Ask each neuron's association with the outcome of folds of clusters.

    Activations of training observations are (n, m), signed for pairs, outcome and keys of clusters (n,).
    """
    codes, outcome = sp.csr_matrix(codes, dtype=np.float64), np.asarray(outcome, dtype=np.float64)
    group = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(group.max(initial=-1)) + 1
    member = sp.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(n_groups, len(group)))
    mass = (member @ abs(codes)).tocsc()
    total = np.asarray(mass.sum(axis=0)).ravel()
    largest = mass.max(axis=0).toarray().ravel()
    few = (np.diff(mass.indptr) < _CLUSTERS) | (largest > _SHARE * total)
    fold = (rng.permutation(n_groups) % FOLDS)[group]
    folds = (fold[:, None] == np.arange(FOLDS)).astype(np.float64)
    covariance = _covariance(codes, outcome, folds)
    overall = _covariance(codes, outcome, np.ones((len(outcome), 1)))
    agree = (np.sign(covariance) == np.sign(overall)).sum(axis=1)
    return Across(few, ~few & ((agree < _AGREE) | (overall[:, 0] == 0)))


def _covariance(codes: sp.csr_matrix, outcome: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(m, parts) covariances of each column with the outcome in each part of the rows, (n, parts) of 0 and 1."""
    sizes = np.maximum(parts.sum(axis=0), 1.0)
    centred = parts * (outcome[:, None] - (parts * outcome[:, None]).sum(axis=0) / sizes)
    found: np.ndarray = np.asarray(codes.T @ centred) / sizes
    # A column that does not vary in a part has rounding for a covariance there.
    scale = np.asarray(abs(codes).T @ np.abs(centred)) / sizes
    return np.where(np.abs(found) > 1e-12 * scale, found, 0.0)


# Columns and product terms of one Gram matrix: 8 bytes times their number squared.
MOST_COLUMNS = 6000
_CONSTANT = 1e-12


@dataclass(frozen=True)
class CovariateTerm:
    """One selected term of a neuron: its own, or its product with a level of a covariate, where `level` is given.

    The score is its standardised product with the outcome within strata.
    """

    column: int
    level: str | None
    score: float


def select_within(
    codes: sp.csr_matrix, outcome: np.ndarray, strata: np.ndarray, covariates: Sequence[np.ndarray], n_select: int
) -> list[CovariateTerm]:
    """The first n_select distinct neurons that the lasso path admits, by their own term or a product term.

    Activations are (n, m), outcome and keys of strata (n,), one key throughout for none; each covariate has (n,) levels
    to interact with.

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
    among = gram[np.ix_(able, able)] / np.outer(scale, scale)
    return _first_neurons(among, with_outcome[able] / scale, [terms[j] for j in able], n_select)


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
