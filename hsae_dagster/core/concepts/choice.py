"""Which claims are taken: n chosen together for what they say of the outcome, fewer where no more helps."""

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import Group, Grower, Residual, Watched, strongest_seeds
from hsae_dagster.core.concepts.words import TermTable
from hsae_dagster.core.inference.joint_fit import cluster_folds, phis, score

# Largest |φ| of two claims over the texts that they were learned from.
MOST_ALIKE = 0.5
# Prices that are tried, in squared t statistics.
PRICES = (1.0, 2.0, 5.0)
FOLDS = 5
# Cluster-robust t that a claim needs alone, which is what is tested: one that only completes others would never be
# confirmed. What it must add beside the others is its price.
_LEAST_ALONE = 2.0
_SEEDS = 10


@dataclass(frozen=True)
class Learned:
    """Observations that claims are learned from.

    Attributes:
        outcome: (n,) float64; of pairs 1/2 is subtracted.
        held: (n, c) float64, what is held constant: controls, and an intercept unless these are pairs.
        clusters: (n,) int64 from 0.
        design: (n, texts) float64 CSR of 1 and -1 (see `core.concepts.candidates`).
        task: regression, classification or pairwise.
    """

    outcome: np.ndarray
    held: np.ndarray
    clusters: np.ndarray
    design: sp.csr_matrix
    task: str

    def rows(self, rows: np.ndarray) -> "Learned":
        """Some of the observations, over the same texts."""
        clusters = np.unique(self.clusters[rows], return_inverse=True)[1]
        return replace(
            self, outcome=self.outcome[rows], held=self.held[rows], clusters=clusters, design=self.design[rows]
        )


@dataclass(frozen=True)
class Vocabulary:
    """Terms that word groups may grow from, and the vectors (families, d) of their names."""

    table: TermTable
    vectors: np.ndarray


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
        worth: squared t (the lesser of the plain and the robust one) less its price.
    """

    column: int | None
    group: Group | None
    sign: float
    explained: float
    strength: float
    holds: np.ndarray
    worth: float


@dataclass(frozen=True)
class Path:
    """How well the first k claims predict clusters that they were not chosen on.

    Attributes:
        price: of a choice.
        scores: (n + 1,) R² or AUC by number of claims, from none; mean over folds.
        best: how many fit best; 0 where none fit as well within one standard error, over folds.
    """

    price: float
    scores: np.ndarray
    best: int


@dataclass(frozen=True)
class Limits:
    """How many claims are wanted at most, and how many texts each needs."""

    n: int
    least_texts: int

    def share(self, share: float) -> "Limits":
        """For a part of the observations."""
        return Limits(self.n, max(int(self.least_texts * share), 1))


def choose_claims(
    learned: Learned, pool: sp.csc_matrix, vocabulary: Vocabulary, limits: Limits, *, seed: int = 0
) -> tuple[list[Pick], list[Path]]:
    """The claims to test, in the order in which they were taken, and the paths of every price that was tried.

    Args:
        learned: observations.
        pool: (texts, candidates) float32 CSC of ones: which texts hold which ready candidate.
        vocabulary: terms over the same texts.
        limits: most claims, least texts.
        seed: of the folds.
    """
    paths = [cross_validated(learned, pool, vocabulary, limits, price, seed) for price in PRICES]
    best = best_of(paths)
    if best.best == 0:
        return [], paths
    return choose_together(learned, pool, vocabulary, Limits(best.best, limits.least_texts), best.price), paths


def best_of(paths: list[Path]) -> Path:
    """The path whose claims fit best at the best number of them."""
    return max(paths, key=lambda path: float(np.nanmax(path.scores)))


def choose_together(
    learned: Learned, pool: sp.csc_matrix, vocabulary: Vocabulary, limits: Limits, price: float
) -> list[Pick]:
    """At most n claims at one price, in the order in which they were taken."""
    residual = Residual(learned.outcome, learned.held, learned.clusters)
    alone = Residual(learned.outcome, learned.held, learned.clusters)
    grower = Grower(vocabulary.table, vocabulary.vectors, learned.design)
    used = np.asarray(abs(learned.design).sum(axis=0)).ravel() > 0
    columns = Watched((learned.design @ pool).tocsc(), learned.clusters)
    families = Watched(grower.columns, learned.clusters)
    here = sp.csc_matrix(sp.diags_array(used.astype(np.float32)) @ pool)
    size = np.asarray(here.sum(axis=0)).ravel()
    able = (size >= limits.least_texts) & (size <= used.sum() - limits.least_texts)
    own = alone.gains(columns).strength
    signs = np.where(np.abs(own) >= _LEAST_ALONE, np.sign(own), 0.0)
    picks: list[Pick] = []
    while len(picks) < limits.n:
        ready = _best_ready(residual, columns, signs, able, price)
        grown = _best_grown(residual, alone, grower, families, picks, used, limits.least_texts, price)
        best = max((pick for pick in (ready, grown) if pick is not None), key=lambda pick: pick.worth, default=None)
        if best is None or best.worth <= 0:
            break
        if best.column is not None:
            best = replace(best, holds=_texts_of(pool, best.column))
        residual.take(np.asarray(learned.design @ best.holds.astype(np.float64)))
        picks.append(best)
        able &= np.abs(_phis(here, size, best.holds & used, int(used.sum()))) <= MOST_ALIKE
    return picks


def _texts_of(pool: sp.csc_matrix, column: int) -> np.ndarray:
    holds = np.zeros(pool.shape[0], dtype=bool)
    holds[pool.indices[pool.indptr[column] : pool.indptr[column + 1]]] = True
    return holds


def _best_ready(residual: Residual, columns: Watched, signs: np.ndarray, able: np.ndarray, price: float) -> Pick | None:
    if not able.any():
        return None
    gains = residual.gains(columns)
    squared = np.minimum(gains.explained * residual.total / residual.noise, gains.strength**2)
    # What is tested is a claim alone, so alone it must say something, and beside the others point the same way.
    able = able & (np.sign(gains.sums) == signs)
    value = np.where(able, squared, -np.inf)
    best = int(value.argmax())
    if not np.isfinite(value[best]):
        return None
    sign = float(signs[best])
    explained, strength = float(gains.explained[best]), float(gains.strength[best])
    return Pick(best, None, sign, explained, strength, np.zeros(0, dtype=bool), float(value[best]) - price)


def _best_grown(
    residual: Residual,
    alone: Residual,
    grower: Grower,
    families: Watched,
    picks: list[Pick],
    used: np.ndarray,
    least_texts: int,
    price: float,
) -> Pick | None:
    if not grower.columns.shape[1]:
        return None
    gains, noise = residual.gains(families), residual.noise
    taken = np.array([pick.holds[used] for pick in picks], dtype=np.float64).reshape(len(picks), int(used.sum()))
    best: Pick | None = None
    for seed in strongest_seeds(gains.strength, gains.explained, _SEEDS):
        able = gains.strength * np.sign(gains.sums[seed]) > 1.0
        group = grower.grow(residual, seed, able, price * noise)
        cost, n_texts = price * len(group.families), int((group.holds & used).sum())
        hopeless = best is not None and group.explained / noise - cost <= best.worth
        if hopeless or not least_texts <= n_texts <= used.sum() - least_texts:
            continue
        if (np.abs(phis(taken @ group.holds[used], taken.sum(axis=1), n_texts, taken.shape[1])) > MOST_ALIKE).any():
            continue
        column = np.asarray(grower.design @ group.holds.astype(np.float64))
        if group.sign * alone.gain(column)[1] < _LEAST_ALONE:
            continue
        explained, strength = residual.gain(column)
        worth = min(strength**2, group.explained / noise) - cost
        if best is None or worth > best.worth:
            best = Pick(None, group, group.sign, explained, strength, group.holds, worth)
    return best


def _phis(pool: sp.csc_matrix, size: np.ndarray, holds: np.ndarray, n: int) -> np.ndarray:
    """(candidates,) φ of each column of the pool with one claim, over n texts."""
    return phis(np.asarray(pool.T @ holds.astype(np.float64)).ravel(), size, int(holds.sum()), n)


def cross_validated(
    learned: Learned, pool: sp.csc_matrix, vocabulary: Vocabulary, limits: Limits, price: float, seed: int = 0
) -> Path:
    """Scores of the first k claims on clusters that they were not chosen on."""
    scores = []
    for train, test in cluster_folds(learned.clusters, FOLDS, seed):
        part, unseen = learned.rows(train), learned.rows(test)
        picks = choose_together(part, pool, vocabulary, limits.share(len(train) / len(learned.outcome)), price)
        scores.append(path_scores(part, unseen, picks, limits.n))
    by_fold = np.array(scores)
    mean = np.nanmean(by_fold, axis=0)
    best = int(np.nanargmax(mean))
    # Fewer claims that fit as well within an error would say less: fits rise slowly and errors over folds are wide.
    more = by_fold[:, best] - by_fold[:, 0]
    return Path(price, mean, best if np.nanmean(more) > np.nanstd(more, ddof=1) / np.sqrt(len(more)) else 0)


def path_scores(part: Learned, unseen: Learned, picks: list[Pick], n: int) -> np.ndarray:
    """(n + 1,) R² or AUC on some observations of the first k claims as fitted on others; of none first."""
    train, test = _holding(part, picks), _holding(unseen, picks)
    found = [fit(part.task, *_predicted(part, unseen, train[:, :k], test[:, :k])) for k in range(len(picks) + 1)]
    return np.array(found + [found[-1]] * (n - len(picks)))


def predicted(part: Learned, unseen: Learned, picks: list[Pick]) -> tuple[np.ndarray, np.ndarray]:
    """Outcome (n,) of some observations, and what claims say of it (n,) as fitted on others.

    What is held constant is fitted beside the claims and taken out of a numeric outcome, so that claims alone are
    scored.
    """
    return _predicted(part, unseen, _holding(part, picks), _holding(unseen, picks))


def fit(task: str, outcome: np.ndarray, said: np.ndarray) -> float:
    """R² (beside what is held constant) or AUC of what claims say of an outcome, both (n,)."""
    if task == "regression":
        return 1 - float(((outcome - said) ** 2).sum()) / max(float((outcome**2).sum()), 1e-12)
    return score(task, outcome, said)


def _holding(learned: Learned, picks: list[Pick]) -> np.ndarray:
    """(n, picks) float64: which observations have which claim."""
    holds = np.array([pick.holds for pick in picks], dtype=np.float64).reshape(len(picks), learned.design.shape[1]).T
    return np.asarray(learned.design @ holds)


def _predicted(part: Learned, unseen: Learned, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    c = part.held.shape[1]
    weights = np.linalg.lstsq(np.column_stack([part.held, train]), part.outcome, rcond=None)[0]
    said = test @ weights[c:]
    if part.task == "regression":
        return unseen.outcome - unseen.held @ weights[:c], said
    return unseen.outcome + (0.5 if part.task == "pairwise" else 0.0), said
