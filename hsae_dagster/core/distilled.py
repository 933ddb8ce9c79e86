"""Judging a sample and letting a probe judge the rest.

Belongs here: drawing the sample, the probe on text vectors, its labels for all texts, and the effect that the judge
would find on all of them. Does not belong here: asking a judge, or labels by people (`core.annotation_error`, whose
correction is used with the judge in the place of people).

All concepts share one sample, so that one request still judges a stack of them on a text. The probe of a concept is
fitted on some folds of clusters and labels the others, judged texts among them. Its errors are therefore alike on
judged and unjudged texts of a fold, and predict-then-debias takes them out, however many they are: they cost width of
the interval, never its coverage.
"""

from dataclasses import dataclass, replace

import numpy as np

from hsae_dagster.core.annotation_error import Corrected, corrected_separation
from hsae_dagster.core.cluster_robust import effect

FOLDS = 5
# Of the mean squared length of a unit vector's coordinates.
RIDGE = 0.1


@dataclass(frozen=True)
class Sample:
    """Texts for the judge, the same for all concepts.

    Attributes:
        rows: their positions, ascending, int64.
        probability: (rows) that each had of being drawn.
    """

    rows: np.ndarray
    probability: np.ndarray


def draw_sample(scores: np.ndarray, size: int, rng: np.random.Generator) -> Sample:
    """Draw half of the sample among the texts with the highest scores of some concept, half among the rest.

    A rare concept is found among texts that fire its neuron; a sample by chance alone would hardly have it. Each
    concept has as many of the highest as there are places for it, so that about every second of them is drawn.

    Args:
        scores: (n, c) of texts by concept, such as the activations of the concepts' neurons; c may be 0.
        size: texts to draw; all, where there are no more.
        rng: of the draw.
    """
    n, concepts = scores.shape
    if size >= n:
        return Sample(np.arange(n), np.ones(n))
    most = min(size, n // 2) // max(concepts, 1)
    jitter = 1e-9 * rng.random(n)
    top = np.unique(np.argsort(-(scores.T + jitter), axis=1, kind="stable")[:, :most]) if concepts else np.arange(0)
    rest = np.setdiff1d(np.arange(n), top)
    from_top = min(size // 2, len(top))
    parts = [(top, from_top), (rest, size - from_top)]
    rows = np.concatenate([rng.choice(part, take, replace=False) for part, take in parts if take])
    chance = np.concatenate([np.full(take, take / len(part)) for part, take in parts if take])
    ascending = np.argsort(rows)
    return Sample(rows[ascending].astype(np.int64), chance[ascending])


def probe_labels(
    vectors: np.ndarray, clusters: np.ndarray, sample: Sample, answers: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Labels (n,) float64 0 or 1 of every text by a probe that never saw an answer of its own cluster.

    Where all answers are alike there is nothing to learn, and they are every text's label.

    Args:
        vectors: (n, d) of unit length, perhaps with further columns of their size.
        clusters: (n,) keys.
        sample: texts that were judged.
        answers: (rows of the sample) 1 or 0.
        rng: assigns clusters to folds.
    """
    if not len(answers) or np.ptp(answers) == 0:
        return np.full(len(vectors), float(answers[0]) if len(answers) else 0.0)
    keys, groups = np.unique(clusters, return_inverse=True)
    fold = rng.permutation(len(keys))[groups] % FOLDS
    weight = 1.0 / sample.probability
    labels = np.zeros(len(vectors))
    for number in range(FOLDS):
        fitted, held = fold[sample.rows] != number, fold == number
        if not fitted.any():
            continue
        known = vectors[sample.rows[fitted]].astype(np.float64)
        direction = _ridge(known, answers[fitted], weight[fitted])
        threshold = _threshold(known @ direction, answers[fitted], weight[fitted])
        # All other texts may be many: their vectors stay as short as they are.
        labels[held] = vectors[held] @ direction.astype(vectors.dtype) > threshold
    return labels


def distilled_separation(
    labels: np.ndarray, outcome: np.ndarray, clusters: np.ndarray, answers: np.ndarray, probability: np.ndarray
) -> Corrected:
    """The difference in mean outcome that the judge would find on all texts, from its answers on a sample.

    Args:
        labels: (n,) 1 or 0 by the probe (`probe_labels`).
        outcome: (n,).
        clusters: (n,) keys.
        answers: (n,) 1 or 0 by the judge, NaN where it was not asked.
        probability: (n,) that a text had of being drawn; read where there is an answer.
    """
    found = corrected_separation(labels, outcome, clusters, answers, probability)
    return found if found.note else _widened(found, labels, outcome, clusters, answers, probability)


def _widened(
    found: Corrected,
    labels: np.ndarray,
    outcome: np.ndarray,
    clusters: np.ndarray,
    answers: np.ndarray,
    probability: np.ndarray,
) -> Corrected:
    """The same estimates with intervals for few judged texts of much weight.

    A text drawn with a chance of 5 % weighs twenty; one that is alone among many light ones hides its own error. So
    each text's influence is taken without itself (the jackknife), and the degrees of freedom are as many as clusters of
    equal influence would be (Satterthwaite).
    """
    known = np.isfinite(answers)
    weight, judged = np.where(known, 1.0 / np.where(known, probability, 1.0), 0.0), np.where(known, answers, 0.0)
    groups = np.unique(clusters, return_inverse=True)[1]
    people = np.bincount(groups, _jackknife(judged, outcome, weight))
    probe = np.bincount(groups, _jackknife(labels, outcome, weight) - _jackknife(labels, outcome, np.ones(len(labels))))
    wide = [
        effect(each.estimate, float(np.sqrt(values @ values)), _freedom(values), each.estimator)
        for each, values in ((found.gold_only, people), (found.corrected, people - found.omega * probe))
    ]
    return replace(found, gold_only=wide[0], corrected=wide[1])


def _jackknife(h: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Each row's influence (n,) on the weighted difference in means, as its removal shows it."""
    found = np.zeros(len(y))
    for side, sign in ((weight * h, 1.0), (weight * (1 - h), -1.0)):
        others = np.maximum(side.sum() - side, 1e-12)
        found += sign * side * (y - float(side @ y) / float(side.sum())) / others
    return found


def _freedom(values: np.ndarray) -> float:
    """Satterthwaite's: twice the squared sum of variances over the variance of its estimate.

    The fourth power of a normal value is three times its squared variance on average, so the sum of fourth powers is
    three times what belongs under the fraction. Without that, intervals at a prevalence of 2 % covered 98 %.
    """
    squares = values**2
    return max(3.0 * float(squares.sum() ** 2 / (squares @ squares)) - 1.0, 1.0)


def _ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Direction (d,) of the weighted ridge regression of y on x."""
    share = weight / weight.sum()
    mean_x, mean_y = share @ x, float(share @ y)
    centred = x - mean_x
    gram = (centred * share[:, None]).T @ centred + RIDGE / x.shape[1] * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, (centred * share[:, None]).T @ (y - mean_y)))


def _threshold(scores: np.ndarray, answers: np.ndarray, weight: np.ndarray) -> float:
    """The score above which as much (weighted) of the sample lies as the judge said yes to."""
    order = np.argsort(-scores)
    above = np.cumsum(weight[order])
    at = int(np.searchsorted(above, float(weight @ answers)))
    return float(scores[order[min(at, len(order) - 1)]])
