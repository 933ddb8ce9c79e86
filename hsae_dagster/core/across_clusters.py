"""Which neurons' association with the outcome holds in several clusters.

Belongs here: that rule. Does not belong here: selection among the neurons for which it holds (`core.selection`).

The finer the unit, the easier it is to find who wrote a text: a neuron for "Wyoming" fits the outcome of one senator
and says nothing about another. Selection sees that only if clusters are asked one by one: a neuron stays if it fires in
several clusters, none of which has most of its firing, and if the sign of its association with the outcome is the same
in nearly every fold of clusters. Under no association some 3 of 8 neurons pass the last, so this is no test; it only
takes out what a few clusters carry.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

FOLDS = 5
# Folds that must agree with the sign over all rows, clusters in which a neuron must fire, and the largest share of its
# firing that one of them may have.
_AGREE, _CLUSTERS, _SHARE = 4, 5, 0.5
# Fewer training clusters say nothing about other ones.
LEAST_CLUSTERS = 8


@dataclass(frozen=True)
class Across:
    """What holds.

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

    Args:
        codes: (n, m) activations of training observations; signed for pairs.
        outcome: (n,) numbers.
        clusters: (n,) keys.
        rng: deals the clusters to folds.
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
