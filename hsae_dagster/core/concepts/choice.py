"""Which claims are taken: n chosen together for what they say of the outcome, fewer where no more helps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import Group, Grower, Residual, Watched, strongest_seeds
from hsae_dagster.core.concepts.words import TermTable
from hsae_dagster.core.inference.joint_fit import cluster_folds, phis, score

# Largest |φ| of two claims over the texts that they were learned from.
MOST_ALIKE = 0.5
# Prices that are tried, in squared t statistics.
PRICES = (1.0, 2.0, 5.0)
# Shares of the labels that are tried besides 1, see `Chooser.choose`.
LABEL_SHARES = (0.5, 0.25)
# Ridge penalties, in mean squared lengths of a vector.
_PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
FOLDS = 5
# Folds are drawn anew so often where observations are few: one draw tells the paths apart by chance.
_REPEATS = 3
_FEW = 5_000
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
        vectors: (n, d) embeddings, pairs: A less B; None where labels are taken as they are.
    """

    outcome: np.ndarray
    held: np.ndarray
    clusters: np.ndarray
    design: sp.csr_matrix
    task: str
    vectors: np.ndarray | None = None

    def rows(self, rows: np.ndarray) -> "Learned":
        """Some of the observations, over the same texts."""
        clusters = np.unique(self.clusters[rows], return_inverse=True)[1]
        return replace(
            self,
            outcome=self.outcome[rows],
            held=self.held[rows],
            clusters=clusters,
            design=self.design[rows],
            vectors=None if self.vectors is None else self.vectors[rows],
        )

    @property
    def residual(self) -> Residual:
        """The outcome beside what is held constant."""
        return Residual(self.outcome, self.held, self.clusters)


@dataclass(frozen=True)
class Vocabulary:
    """Terms that word groups may grow from, and the vectors (families, d) of their names."""

    table: TermTable
    vectors: np.ndarray


@dataclass(frozen=True)
class Pick:
    """A claim that was taken: a column of the pool, or a group that was grown.

    Attributes:
        sign: of its association beside those taken before.
        explained: share of the outcome's squares that it adds.
        strength: cluster-robust t of that.
        holds: (texts,) bool.
        worth: squared t (the lesser of the plain and the robust one) less its price, by the labels it was chosen on.
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
        scores: (n + 1,) R² or AUC by number of claims, from none; mean over folds.
        best: how many fit best; 0 where none fit as well within one standard error, over folds.
    """

    price: float
    label_share: float
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
    """The claims to test, in the order in which they were taken, and the paths of every setting that was tried.

    The pool, (texts, candidates) float32 CSC of ones, says which texts hold which ready candidate; the vocabulary is of
    the same texts, the seed that of the folds.
    """
    paths = _paths(learned, pool, vocabulary, limits, [(price, 1.0) for price in PRICES], seed)
    if learned.vectors is not None:
        smoothed = [(best_of(paths).price, share) for share in LABEL_SHARES]
        paths += _paths(learned, pool, vocabulary, limits, smoothed, seed)
    best = best_of(paths)
    if best.best == 0:
        return [], paths
    chooser = Chooser(learned, pool, vocabulary, Limits(best.best, limits.least_texts))
    return chooser.choose(best.price, best.label_share), paths


def _paths(
    learned: Learned,
    pool: sp.csc_matrix,
    vocabulary: Vocabulary,
    limits: Limits,
    settings: Sequence[tuple[float, float]],
    seed: int,
) -> list[Path]:
    """Scores of the first k claims on clusters that they were not chosen on, for each (price, label share)."""
    scores = []
    repeats = _REPEATS if len(learned.outcome) <= _FEW else 1
    for train, test in chain.from_iterable(cluster_folds(learned.clusters, FOLDS, seed + r) for r in range(repeats)):
        part, unseen = learned.rows(train), learned.rows(test)
        chooser = Chooser(part, pool, vocabulary, limits.share(len(train) / len(learned.outcome)))
        scores.append([path_scores(part, unseen, chooser.choose(*setting), limits.n) for setting in settings])
    by_fold = np.array(scores)
    return [_path(price, share, by_fold[:, place]) for place, (price, share) in enumerate(settings)]


def _path(price: float, label_share: float, by_fold: np.ndarray) -> Path:
    mean = np.nanmean(by_fold, axis=0)
    best = int(np.nanargmax(mean))
    # Fewer claims that fit as well within an error would say less: fits rise slowly and errors over folds are wide.
    more = by_fold[:, best] - by_fold[:, 0]
    helps = np.nanmean(more) > np.nanstd(more, ddof=1) / np.sqrt(min(len(more), FOLDS))
    return Path(price, label_share, mean, best if helps else 0)


def best_of(paths: list[Path]) -> Path:
    """The path whose claims fit best at the best number of them."""
    return max(paths, key=lambda path: float(np.nanmax(path.scores)))


def expected(learned: Learned) -> np.ndarray:
    """What embeddings tell of each outcome beside what is held constant: (n,) float64, zeros if there are none.

    A ridge regression predicts each fold of clusters from the others, with the penalty that predicts best. Its
    predictions are shrunk to their regression on the outcomes, so that noise is not taken for knowledge.
    """
    if learned.vectors is None:
        return np.zeros(len(learned.outcome))
    residual = learned.residual
    x, y = learned.vectors.astype(np.float64), residual.values
    x -= residual.basis @ (residual.basis.T @ x)
    gram, products = x.T @ x, x.T @ y
    penalties = np.array(_PENALTIES) * max(float(np.trace(gram)), 1e-12) / len(x)
    told = np.zeros((len(x), len(penalties)))
    for _, test in cluster_folds(learned.clusters, FOLDS, 0):
        spread, axes = np.linalg.eigh(gram - x[test].T @ x[test])
        along = axes.T @ (products - x[test].T @ y[test])
        told[test] = x[test] @ (axes @ (along[:, None] / (np.maximum(spread, 0.0)[:, None] + penalties)))
    best = told[:, int(((y[:, None] - told) ** 2).sum(axis=0).argmin())]
    return best * float(np.clip(best @ y / max(float(best @ best), 1e-12), 0.0, 1.0))


class Chooser:
    """Chooses among the same candidates again and again, at several prices and label shares."""

    def __init__(self, learned: Learned, pool: sp.csc_matrix, vocabulary: Vocabulary, limits: Limits) -> None:
        """Prepare what does not change; see `choose_claims`."""
        self.learned, self.pool, self.limits = learned, pool, limits
        self.used = np.asarray(abs(learned.design).sum(axis=0)).ravel() > 0
        self.alone = learned.residual
        self.grower = Grower(vocabulary.table, vocabulary.vectors, learned.design)
        self.columns = Watched((learned.design @ pool).tocsc(), learned.clusters)
        self.families = Watched(self.grower.columns, learned.clusters)
        self._here = sp.csc_matrix(sp.diags_array(self.used.astype(np.float32)) @ pool)
        self._size = np.asarray(self._here.sum(axis=0)).ravel()
        own = self.alone.gains(self.columns).strength
        self.signs = np.where(np.abs(own) >= _LEAST_ALONE, np.sign(own), 0.0)

    @cached_property
    def _expected(self) -> np.ndarray:
        return expected(self.learned)

    def choose(self, price: float, label_share: float = 1.0) -> list[Pick]:
        """At most n claims at one price, in the order in which they were taken.

        Labels are noisy, and with them the choice. With a share s below 1 claims are chosen on s times the label plus
        1 - s times what embeddings tell of it (soft targets; Hinton, Vinyals and Dean 2015, section 2). Signs, the t
        that a claim needs alone and all figures that are told are those of the labels.
        """
        learned, least = self.learned, self.limits.least_texts
        for watched in (self.columns, self.families):
            watched.restart()
        labels = learned.residual
        residual = labels
        if label_share < 1:
            smoothed = learned.outcome - (1 - label_share) * (labels.values - self._expected)
            residual = Residual(smoothed, learned.held, learned.clusters)
        able = (self._size >= least) & (self._size <= self.used.sum() - least)
        picks: list[Pick] = []
        while len(picks) < self.limits.n:
            ready = self._best_ready(residual, able, price)
            grown = self._best_grown(residual, labels.noise, picks, price)
            best = max((pick for pick in (ready, grown) if pick is not None), key=lambda pick: pick.worth, default=None)
            if best is None or best.worth <= 0:
                break
            if best.column is not None:
                best = replace(best, holds=self.pool[:, [best.column]].toarray().ravel() > 0)
            column = np.asarray(learned.design @ best.holds.astype(np.float64))
            # What is told of a claim is by the labels, whatever it was chosen on.
            explained, strength = labels.gain(column)
            picks.append(replace(best, explained=explained, strength=strength))
            residual.take(column)
            if labels is not residual:
                labels.take(column)
            here = best.holds & self.used
            common = self._here.T @ here.astype(np.float64)
            able &= np.abs(phis(common, self._size, int(here.sum()), int(self.used.sum()))) <= MOST_ALIKE
        return picks

    def _best_ready(self, residual: Residual, able: np.ndarray, price: float) -> Pick | None:
        if not able.any():
            return None
        gains = residual.gains(self.columns)
        squared = np.minimum(gains.explained * residual.total / residual.noise, gains.strength**2)
        # What is tested is a claim alone, so alone it must say something, and beside the others point the same way.
        value = np.where(able & (np.sign(gains.sums) == self.signs), squared, -np.inf)
        best = int(value.argmax())
        if not np.isfinite(value[best]):
            return None
        holds, worth = np.zeros(0, dtype=bool), float(value[best]) - price
        return Pick(best, None, float(self.signs[best]), 0.0, 0.0, holds, worth)

    def _best_grown(self, residual: Residual, label_noise: float, picks: list[Pick], price: float) -> Pick | None:
        if not self.grower.columns.shape[1]:
            return None
        used, least = self.used, self.limits.least_texts
        gains, noise = residual.gains(self.families), residual.noise
        taken = np.array([pick.holds[used] for pick in picks], dtype=np.float64).reshape(len(picks), int(used.sum()))
        best: Pick | None = None
        for seed in strongest_seeds(gains.strength, gains.explained, _SEEDS):
            able = gains.strength * np.sign(gains.sums[seed]) > 1.0
            # A term joins at the noise of labels: at the lesser one of smoothed labels strangers would.
            group = self.grower.grow(residual, seed, able, price * label_noise)
            cost, n_texts = price * len(group.families), int((group.holds & used).sum())
            hopeless = best is not None and group.explained / noise - cost <= best.worth
            if hopeless or not least <= n_texts <= used.sum() - least:
                continue
            alike = phis(taken @ group.holds[used], taken.sum(axis=1), n_texts, taken.shape[1])
            if (np.abs(alike) > MOST_ALIKE).any():
                continue
            column = np.asarray(self.grower.design @ group.holds.astype(np.float64))
            if group.sign * self.alone.gain(column)[1] < _LEAST_ALONE:
                continue
            worth = min(residual.gain(column)[1] ** 2, group.explained / noise) - cost
            if best is None or worth > best.worth:
                best = Pick(None, group, group.sign, 0.0, 0.0, group.holds, worth)
        return best


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


def fit(task: str, outcome: np.ndarray, said: np.ndarray) -> float:
    """R² (beside what is held constant) or AUC of what claims say of an outcome, both (n,)."""
    if task == "regression":
        return 1 - float(((outcome - said) ** 2).sum()) / max(float((outcome**2).sum()), 1e-12)
    return score(task, outcome, said)
