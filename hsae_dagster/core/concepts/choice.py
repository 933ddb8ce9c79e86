"""Which claims are taken: n chosen together for what they say of the outcome, fewer where no more helps.

Belongs here: forward selection over ready candidates and over word groups grown on the way, how many are worth having.
Does not belong here: making candidates (`candidates`), testing claims (`core.inference`).

Everything is learned from the clusters that may be learned from, never from the holdout. A claim is taken for what it
explains beside those taken before and the controls; one that nearly repeats another is passed over. How many claims are
taken is decided by cross-validation over whole clusters, in each fold of which everything is chosen anew (Hastie,
Tibshirani and Friedman 2009, section 7.10.2).
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.residual import Residual
from hsae_dagster.core.concepts.word_groups import Group, Grower, strongest_seeds
from hsae_dagster.core.joint_fit import cluster_folds, score

# Largest |φ| of two claims over the texts that they were learned from.
MOST_ALIKE = 0.5
# Cluster-robust t that a claim needs among the texts it was chosen on.
_LEAST_STRENGTH = 2.5
_SEEDS = 10
_FOLDS = 5


@dataclass(frozen=True)
class Learned:
    """Observations that claims are learned from.

    Attributes:
        outcome: (n,) float64; of pairs 1/2 is subtracted.
        held: (n, c) float64, what is held constant: controls, and an intercept unless these are pairs.
        clusters: (n,) int64 from 0.
        design: (n, texts) CSR of 1 and -1 (see `word_groups`).
        task: regression, classification or pairwise.
    """

    outcome: np.ndarray
    held: np.ndarray
    clusters: np.ndarray
    design: sp.csr_matrix
    task: str

    def rows(self, rows: np.ndarray) -> "Learned":
        """Some of the observations."""
        return Learned(self.outcome[rows], self.held[rows], self.clusters[rows], self.design[rows], self.task)


@dataclass(frozen=True)
class Pick:
    """A claim that was taken: a column of the pool, or a group that was grown.

    Attributes:
        column: of the pool; None for a group.
        group: a grown word group; None for a column of the pool.
        sign: of its association beside those taken before.
        explained: share of the outcome's squares that it adds.
        strength: cluster-robust t of that.
        holds: (texts,) bool.
    """

    column: int | None
    group: Group | None
    sign: float
    explained: float
    strength: float
    holds: np.ndarray
    worth: float = 0.0


@dataclass(frozen=True)
class Path:
    """How well the first k claims predict clusters that they were not chosen on.

    Attributes:
        scores: (n + 1,) R² or AUC by number of claims, from none; mean over folds.
        errors: (n + 1,) standard error over folds of the difference to the best.
        best: number of claims that is taken.
    """

    scores: np.ndarray
    errors: np.ndarray
    best: int


def choose_together(
    learned: Learned,
    pool: sp.csc_matrix,
    grower_of: "type[Grower] | None",
    table: "object",
    vectors: np.ndarray,
    n: int,
    least_texts: int,
    price: float,
) -> list[Pick]:
    """At most n claims, in the order in which they were taken."""
    residual = Residual(learned.outcome, learned.held, learned.clusters)
    grower = Grower(table, vectors, learned.design)  # type: ignore[arg-type]
    columns = (learned.design @ pool).tocsc()
    used = np.asarray(abs(learned.design).sum(axis=0)).ravel() > 0
    pool_here = sp.csc_matrix(sp.diags_array(used.astype(np.float32)) @ pool)
    size = np.asarray(pool_here.sum(axis=0)).ravel()
    open_ = size >= least_texts
    picks: list[Pick] = []
    while len(picks) < n:
        best = _best_column(residual, columns, open_)
        worth = -np.inf if best is None else best.worth - price
        noise = residual.noise
        for group in _groups(residual, grower, price * noise):
            if (group.holds & used).sum() < least_texts:
                continue
            if group.explained / noise - price * len(group.families) <= worth:
                continue
            if any(abs(phi(group.holds[used], pick.holds[used])) > MOST_ALIKE for pick in picks):
                continue
            column = np.asarray(learned.design @ group.holds.astype(np.float64))
            gain = residual.gains(sp.csc_matrix(column[:, None]))
            t2 = min(float(gain.strength[0]) ** 2, group.explained / noise)
            if abs(gain.strength[0]) >= _LEAST_STRENGTH and t2 - price * len(group.families) > worth:
                best = Pick(None, group, group.sign, float(gain.explained[0]), float(gain.strength[0]), group.holds, t2)
                worth = t2 - price * len(group.families)
        if best is not None and worth <= 0:
            best = None
        if best is None:
            break
        if best.column is not None:
            holds = np.zeros(pool.shape[0], dtype=bool)
            holds[pool.indices[pool.indptr[best.column] : pool.indptr[best.column + 1]]] = True
            best = Pick(best.column, None, best.sign, best.explained, best.strength, holds, best.worth)
        residual.take(np.asarray(learned.design @ best.holds.astype(np.float64)))
        picks.append(best)
        open_ &= np.abs(_phis(pool_here, size, best.holds & used, int(used.sum()))) <= MOST_ALIKE
    return picks


def _best_column(residual: Residual, columns: sp.csc_matrix, open_: np.ndarray) -> Pick | None:
    if not open_.any():
        return None
    gains = residual.gains(columns)
    t2 = np.minimum(gains.explained * residual.total / residual.noise, gains.strength**2)
    value = np.where(open_ & (np.abs(gains.strength) >= _LEAST_STRENGTH), t2, -1.0)
    best = int(value.argmax())
    if value[best] <= 0:
        return None
    sign, empty = float(np.sign(gains.sums[best])), np.zeros(0, dtype=bool)
    return Pick(best, None, sign, float(gains.explained[best]), float(gains.strength[best]), empty, float(t2[best]))


def _groups(residual: Residual, grower: Grower, price: float) -> list[Group]:
    if not grower.columns.shape[1]:
        return []
    gains = residual.gains(grower.columns)
    found = []
    for seed in strongest_seeds(gains.strength, gains.explained, _SEEDS):
        sign = np.sign(gains.sums[seed])
        found.append(grower.grow(residual, seed, gains.strength * sign > 1.0, price))
    return found


def phi(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two yes/no answers (n,) bool; 0 where one does not vary."""
    a, b = first.mean(), second.mean()
    spread = np.sqrt(a * (1 - a) * b * (1 - b))
    return float(((first & second).mean() - a * b) / spread) if spread > 0 else 0.0


def _phis(pool: sp.csc_matrix, size: np.ndarray, holds: np.ndarray, n: int) -> np.ndarray:
    """(C,) φ of each column of the pool with one claim, over n texts."""
    both = np.asarray(pool.T @ holds.astype(np.float64)).ravel() / n
    a, b = size / n, holds.sum() / n
    spread = np.sqrt(np.maximum(a * (1 - a) * b * (1 - b), 0.0))
    return np.where(spread > 0, (both - a * b) / np.where(spread > 0, spread, 1.0), 0.0)


def cross_validated(learned: Learned, pool, table, vectors, n: int, least_texts: int, price: float, seed: int = 0) -> Path:
    """How many claims are worth having."""
    scores = []
    for train, test in cluster_folds(learned.clusters, _FOLDS, seed):
        part, unseen = learned.rows(train), learned.rows(test)
        share = len(train) / len(learned.outcome)
        picks = choose_together(part, pool, None, table, vectors, n, max(int(least_texts * share), 1), price)
        scores.append(_scores(part, unseen, picks, n))
    found = np.array(scores)
    mean = found.mean(axis=0)
    best = int(mean.argmax())
    errors = (found[:, [best]] - found).std(axis=0, ddof=1) / np.sqrt(len(found))
    return Path(mean, errors, best)


def _scores(part: Learned, unseen: Learned, picks: list[Pick], n: int) -> np.ndarray:
    """(n + 1,) scores of the first k claims, fitted on one part, on the other."""
    holds = np.array([pick.holds for pick in picks], dtype=np.float64).reshape(len(picks), -1).T
    train, test = (np.asarray(rows.design @ holds) for rows in (part, unseen))
    found = []
    # Controls are fitted beside the claims and taken out of the outcome, so that claims alone are scored.
    for k in range(n + 1):
        k = min(k, len(picks))
        x = np.column_stack([part.held, train[:, :k]])
        weights = np.linalg.lstsq(x, part.outcome, rcond=None)[0]
        c = part.held.shape[1]
        said = test[:, :k] @ weights[c:]
        rest = unseen.outcome - unseen.held @ weights[:c]
        if part.task == "regression":
            found.append(1 - float(((rest - said) ** 2).sum()) / max(float((rest**2).sum()), 1e-12))
        else:
            outcome = unseen.outcome + (0.5 if part.task == "pairwise" else 0.0)
            found.append(score(part.task, outcome, said))
    return np.array(found)
