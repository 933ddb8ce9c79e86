"""Autoencoder sizes: the grid that is worth trying and how one candidate is judged.

Belongs here: sizes from the amount of data, the reference's rule of thumb, the figures of a candidate on validation
texts. Does not belong here: which candidate is taken (`sae_choice`), training (`sae_training`), reading or storing
anything.

A candidate is judged by what n selected neurons say about labels of validation clusters, by their strengths and by
whether they fired at all. What words say about the firing neurons is reported beside it and decides nothing: it varies
more from one candidate to the next than it differs between them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.joint_fit import cross_fitted, score, trained

# Fewest training texts for each neuron of the largest size tried.
_TEXTS_PER_NEURON = 4
_LARGE = 64
# When k of m neurons fire for every text, one that fires leaves less room for the others: correlations are -1/(m - 1)
# on average, without any text being read. With fewer than 16 neurons that alone would fill the cap on redundancy.
_FEWEST = 16
# From so many training texts on, sparser codes are tried as well; from so many, larger dictionaries.
_MORE_TEXTS = 8_000
_MANY_TEXTS = 20_000
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


def reference_size(n_texts: int) -> Size:
    """The rule of thumb of HypotheSAEs: 64/4 for about 1,000 texts, 256/8 for 10,000, 1024/8 for 100,000; nearest."""
    power = min(max(round(math.log10(max(n_texts, 1))), 3), 5)
    return {3: Size(64, 4), 4: Size(256, 8), 5: Size(1024, 8)}[power]


def grid(n_texts: int, n_select: int, label_weights: Sequence[float]) -> list[Size]:
    """Sizes worth trying, unguided first within each: never more neurons than a quarter of the training texts.

    Small dictionaries are a little larger than the number of neurons to select, because what they know of the label
    must then lie in neurons that are selected; larger ones divide the texts more finely. The label guides these only
    where texts are many: it would be in more neurons than are selected, and each takes longest to train. Codes are
    dense, a third or half of the small ones, because few labels tell more where more neurons fire; sparser ones can say
    more in words, and are tried where validation texts are enough to tell.

    Args:
        n_texts: training texts.
        n_select: neurons that will be selected.
        label_weights: weights λ > 0 to try beside 0.
    """
    most = max(n_texts // _TEXTS_PER_NEURON, 2)
    small, medium = (max(4 * math.ceil(factor * n_select / 4), _FEWEST) for factor in (1.2, 1.6))
    shapes = [(small, 3), (small, 2), (medium, 4), (_LARGE, 4)]
    if n_texts >= _MORE_TEXTS:
        shapes += [(small, 4)]
    if n_texts >= _MANY_TEXTS:
        shapes += [(4 * _LARGE, 16)]
    found = []
    for m, per_neuron in shapes:
        kept = min(m, max(most, min(n_select + 1, n_texts)))
        shape = (kept, max(kept // per_neuron, 1))
        if shape not in found:
            found.append(shape)
    guided = set(found) if n_texts >= _MANY_TEXTS else {shape for shape in found if shape[0] <= medium}
    weights = sorted(set(label_weights) - {0.0})
    return [Size(m, k, w) for m, k in found for w in (0.0, *(weights if (m, k) in guided else ()))]


def head_neurons(m: int, share: float) -> int:
    """How many of m neurons predict the label: a share of them, at least two (praise and blame are not one neuron)."""
    return min(max(round(share * m), 2), m)


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


def batch_size(n_texts: int) -> int:
    """Texts per training step: 512, fewer where an epoch would then have fewer than about eight steps; at least 32."""
    return min(512, max(32, 2 ** round(math.log2(max(n_texts, 1) / 8))))
