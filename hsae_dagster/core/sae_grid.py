"""Autoencoder sizes: the grid that is worth trying, how one candidate is judged, and which candidate is taken.

Belongs here: sizes from the amount of data, the reference's rule of thumb, the figures of a candidate on validation
texts, the one-standard-error rule. Does not belong here: training (`sae_training`), reading or storing anything.

A candidate is judged by what n selected neurons say about labels of validation clusters, by their strengths and by
whether they fired at all. The simplest candidate within one standard error of the best is taken (Breiman et al. 1984;
Hastie et al. 2009, section 7.10). That error is one of the difference to the best, over draws of whole clusters: two
candidates see the same texts, so what is easy or hard about those cancels. What words say about the firing neurons is
reported beside it and decides nothing: it varies more from one candidate to the next than it differs between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.joint_fit import cross_fitted, score, trained

# Fewest training texts for each neuron of the largest size tried.
_TEXTS_PER_NEURON = 4
_LARGE = 64
# When k of m neurons fire for every text, one that fires leaves less room for the others: correlations are -1/(m - 1)
# on average, without any text being read. With fewer than 16 neurons that alone would fill the cap on redundancy.
_FEWEST = 16
# From so many training texts on, larger dictionaries are tried as well.
_MANY_TEXTS = 20_000
_APART = 1.0
_DRAWS = 200
_FOLDS = 5
_OBSERVATIONS_PER_PREDICTOR = 20
# Words that are read to predict firing: the commonest ones; more add little and cost a larger system to solve.
MOST_WORDS = 1500
_WORD_PENALTY = 30.0


@dataclass(frozen=True)
class Size:
    """One point of the grid: m neurons, k of them per text, label weight λ, weight of keeping them apart."""

    m: int
    k: int
    label_weight: float = 0.0
    distinct_weight: float = 0.0


@dataclass(frozen=True)
class Caps:
    """What a candidate may cost.

    Attributes:
        reconstruction: largest ratio of its validation error to that of the unguided autoencoder of its size.
        redundancy: largest mean |correlation| among its selected neurons (or that of the unguided autoencoder of its
            size, where that is larger: few texts and few neurons alone make correlations).
        dead_share: largest share of dead neurons.
    """

    reconstruction: float = 1.1
    redundancy: float = 0.1
    dead_share: float = 0.1


@dataclass(frozen=True)
class Judged:
    """The figures of one candidate.

    Attributes:
        size: its place in the grid.
        signal: R² or AUC of the selected neurons on validation clusters.
        fired: the same, knowing only which of them fired.
        words: the same, cross-fitted and knowing only what words say about which of them fired; NaN where validation
            has too few observations for that.
        fidelity: median balanced F1 with which words predict firing of a selected neuron.
        redundancy: mean |correlation| among the selected neurons.
        nmse: normalised squared error on validation texts.
        dead_share: share of neurons dead at the end of training.
        predictions: (2, n) predictions of the first two fits for validation observations.
    """

    size: Size
    signal: float
    fired: float
    words: float
    fidelity: float
    redundancy: float
    nmse: float
    dead_share: float
    predictions: np.ndarray

    @property
    def score(self) -> float:
        """What candidates are compared by: the mean of the fits of strengths and of firing."""
        return (self.signal + self.fired) / 2


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and why.

    Attributes:
        chosen: place among the candidates.
        best: place of the best score among those within the caps.
        standard_errors: (candidates,) cluster-bootstrap standard error of each score's difference to the best.
        within_caps: (candidates,) bool.
        reason: in words.
    """

    chosen: int
    best: int
    standard_errors: np.ndarray
    within_caps: np.ndarray
    reason: str


def reference_size(n_texts: int) -> Size:
    """The rule of thumb of HypotheSAEs: 64/4 for about 1,000 texts, 256/8 for 10,000, 1024/8 for 100,000; nearest."""
    power = min(max(round(math.log10(max(n_texts, 1))), 3), 5)
    return {3: Size(64, 4), 4: Size(256, 8), 5: Size(1024, 8)}[power]


def grid(n_texts: int, n_select: int, label_weights: Sequence[float]) -> list[Size]:
    """Sizes worth trying, unguided first within each: never more neurons than a quarter of the training texts.

    Small dictionaries are a little larger than the number of neurons to select, because what they know of the label
    must then lie in neurons that are selected; larger ones divide the texts more finely.

    Args:
        n_texts: training texts.
        n_select: neurons that will be selected.
        label_weights: weights λ > 0 to try beside 0.
    """
    most = max(n_texts // _TEXTS_PER_NEURON, 2)
    small, medium = (max(4 * math.ceil(factor * n_select / 4), _FEWEST) for factor in (1.2, 1.6))
    shapes = [(small, 4), (small, 3), (medium, 4), (_LARGE, 4)]
    if n_texts >= _MANY_TEXTS:
        shapes += [(4 * _LARGE, 16)]
    found = []
    for m, per_neuron in shapes:
        kept = min(m, max(most, min(n_select + 1, n_texts)))
        shape = (kept, max(kept // per_neuron, 1))
        if shape not in found:
            found.append(shape)
    return [Size(m, k, weight) for m, k in found for weight in (0.0, *sorted(set(label_weights) - {0.0}))]


class WordReader:
    """What words say about firing: ridge regression of each neuron's firing on the presence of common words.

    A stand-in for the lexicons of the offline interpreter, cheap enough for every candidate: the system is factorised
    once. Thresholds are set on training texts so that each neuron is predicted to fire as often as it does.
    """

    def __init__(self, train: sp.csr_matrix, validation: sp.csr_matrix) -> None:
        """Take presence of words in training texts (n, w) and validation texts (v, w)."""
        from scipy.linalg import cho_factor

        self._train, self._validation = train, validation
        self._mean = np.asarray(train.mean(axis=0)).ravel()
        gram = (train.T @ train).toarray() - train.shape[0] * np.outer(self._mean, self._mean)
        self._factor = cho_factor(gram + _WORD_PENALTY * np.eye(len(gram)))

    def read(self, fires: np.ndarray) -> np.ndarray:
        """Firing (n, q) of training texts, bool -> predicted firing of validation texts (v, q), bool."""
        from scipy.linalg import cho_solve

        centred = fires - fires.mean(axis=0)
        weights = cho_solve(self._factor, self._train.T @ centred)
        scores, unseen = self._train @ weights, self._validation @ weights
        cuts = np.array([np.quantile(scores[:, j], 1 - fires[:, j].mean()) for j in range(fires.shape[1])])
        return np.asarray(unseen > cuts)


def balanced_f1(predicted: np.ndarray, fires: np.ndarray) -> float:
    """F1 as if firing and silent texts were equally many; NaN where there are none of either."""
    if not fires.any() or fires.all():
        return float("nan")
    recall, false_alarms = float(predicted[fires].mean()), float(predicted[~fires].mean())
    return 2 * recall / (1 + recall + false_alarms)


def redundancy(dense: np.ndarray) -> float:
    """Mean |correlation| over pairs of columns of dense (n, q); columns that do not vary count as uncorrelated."""
    q = dense.shape[1]
    if q < 2:
        return 0.0
    centred = dense - dense.mean(axis=0)
    length = np.linalg.norm(centred, axis=0)
    unit = centred / np.where(length > 0, length, 1.0)
    return float(np.abs(unit.T @ unit)[~np.eye(q, dtype=bool)].mean())


@dataclass(frozen=True)
class Labels:
    """Labels of training and validation observations, and their clusters."""

    task: str
    train: np.ndarray
    train_clusters: np.ndarray
    validation: np.ndarray
    validation_clusters: np.ndarray


def fit_of(train: np.ndarray, unseen: np.ndarray, labels: Labels) -> tuple[float, np.ndarray]:
    """R² or AUC on validation observations of a model fitted on training observations, and its predictions."""
    found = trained(train, labels.train, labels.train_clusters, unseen, labels.task).values
    return score(labels.task, labels.validation, found), found


def fit_within(unseen: np.ndarray, labels: Labels) -> float:
    """R² or AUC of predictors that exist on validation observations alone, cross-fitted over their clusters.

    NaN with fewer than 20 observations for each predictor: chance would decide.
    """
    if len(unseen) < _OBSERVATIONS_PER_PREDICTOR * unseen.shape[1]:
        return float("nan")
    clusters = labels.validation_clusters
    found = cross_fitted(unseen, labels.validation, clusters, labels.task, folds=_FOLDS, seed=0)
    return score(labels.task, labels.validation, found.values, found.folds)


def choose(candidates: Sequence[Judged], labels: Labels, caps: Caps, seed: int = 0) -> Choice:
    """The simplest candidate whose score is within one standard error of the best, among those within the caps.

    Simpler is: fewer neurons, then fewer of them per text, then no guidance by the label, then no weight on
    distinctness; among equally simple ones the better score counts, since the caps bound what guidance may cost. Where
    no candidate is within all caps, that on redundancy goes first, then that on dead neurons, then that on
    reconstruction.
    """
    rules = _rules(candidates, caps)
    scores = np.array([c.score if np.isfinite(c.score) else -np.inf for c in candidates])
    within = np.logical_and.reduce(rules)
    allowed, given_up = within, []
    for name in ("redundancy", "dead neurons", "reconstruction"):
        if allowed.any():
            break
        given_up.append(name)
        rules.pop()
        allowed = np.logical_and.reduce(rules) if rules else np.ones(len(candidates), dtype=bool)
    best = int(np.argmax(np.where(allowed, scores, -np.inf)))
    errors = _standard_errors(candidates, best, labels, seed)
    near = allowed & (scores[best] - scores <= errors)
    near[best] = True
    chosen = min(np.flatnonzero(near), key=lambda i: (*_complexity(candidates[int(i)].size), -scores[i]))
    reason = "the best score" if chosen == best else "the simplest within one standard error of the best score"
    if given_up:
        reason += f"; no candidate was within the cap on {' or '.join(given_up)}"
    return Choice(int(chosen), best, errors, within, reason)


def _rules(candidates: Sequence[Judged], caps: Caps) -> list[np.ndarray]:
    """(candidates,) bool of each cap: reconstruction, dead neurons, redundancy."""
    plain = {(c.size.m, c.size.k): c for c in candidates if c.size.label_weight == 0}
    pairs = [(c, plain.get((c.size.m, c.size.k), c)) for c in candidates]
    return [
        np.array([c.nmse <= caps.reconstruction * twin.nmse for c, twin in pairs]),
        np.array([c.dead_share <= caps.dead_share for c in candidates]),
        np.array([c.redundancy <= max(caps.redundancy, _redundancy_of(twin, c)) for c, twin in pairs]),
    ]


def kept_apart(candidates: Sequence[Judged], caps: Caps) -> list[Size]:
    """What is worth training once more with neurons kept apart: guided ones beyond the cap on redundancy alone.

    A small weight on distinctness takes most of the likeness of neurons and little of what they say (`guidance`).
    """
    reconstruction, dead, redundancy_cap = _rules(candidates, caps)
    return [
        replace(c.size, distinct_weight=_APART)
        for c, fit, alike in zip(candidates, reconstruction & dead, ~redundancy_cap, strict=True)
        if fit and alike and c.size.label_weight > 0 and math.isfinite(c.redundancy)
    ]


def _redundancy_of(twin: Judged, candidate: Judged) -> float:
    return 0.0 if twin is candidate and candidate.size.label_weight > 0 else twin.redundancy


def batch_size(n_texts: int) -> int:
    """Texts per training step: 512, fewer where an epoch would then have fewer than about eight steps; at least 32."""
    return min(512, max(32, 2 ** round(math.log2(max(n_texts, 1) / 8))))


def _complexity(size: Size) -> tuple[float, ...]:
    return (size.m, size.k, size.label_weight > 0, size.distinct_weight > 0)


def _standard_errors(candidates: Sequence[Judged], best: int, labels: Labels, seed: int) -> np.ndarray:
    """Standard deviation over cluster draws of the score of the best minus that of each."""
    groups = np.unique(labels.validation_clusters, return_inverse=True)[1]
    members = [np.flatnonzero(groups == g) for g in range(int(groups.max(initial=0)) + 1)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(_DRAWS):
        rows = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        y = labels.validation[rows]
        if len(np.unique(y)) < 2:
            continue
        draws.append([np.mean([score(labels.task, y, p[rows]) for p in c.predictions]) for c in candidates])
    if len(draws) < 2:
        return np.zeros(len(candidates))
    table = np.array(draws)
    return np.asarray((table[:, [best]] - table).std(axis=0, ddof=1))
