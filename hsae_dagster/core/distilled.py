"""Judging a sample and letting a probe judge the rest.

Belongs here: drawing the sample, the probe on text vectors, and its labels for all texts. Does not belong here: the
corrected effect (`core.annotation_error`, with the judge in the place of people) or asking a judge.

The probe is fitted on some folds of clusters and labels the others, judged texts among them. Its errors are therefore
alike on judged and unjudged texts of a fold, and predict-then-debias takes them out, however many they are: they cost
width of the interval, never its coverage.
"""

from dataclasses import dataclass, replace

import numpy as np

from hsae_dagster.core.annotation_error import Corrected, corrected_separation
from hsae_dagster.core.cluster_robust import effect
from hsae_dagster.errors import MethodError

FOLDS = 5
# Of the mean squared length of a unit vector's coordinates.
RIDGE = 0.1


@dataclass(frozen=True)
class Sample:
    """Texts for the judge, of one concept.

    Attributes:
        rows: their positions, ascending, int64.
        probability: (rows) that each had of being drawn.
    """

    rows: np.ndarray
    probability: np.ndarray


def draw_sample(scores: np.ndarray, size: int, rng: np.random.Generator) -> Sample:
    """Draw half of the sample among the texts with the highest scores, half among the rest.

    A rare concept is found among texts that fire its neuron; a sample by chance alone would hardly have it.

    Args:
        scores: (n,) of texts, such as the activation of the concept's neuron.
        size: texts to draw; all, where there are no more.
        rng: of the draw.
    """
    n = len(scores)
    if size >= n:
        return Sample(np.arange(n), np.ones(n))
    order = np.argsort(-(scores + 1e-9 * rng.random(n)), kind="stable")
    top, rest = order[: min(size, n // 2)], order[min(size, n // 2) :]
    parts = [(top, size // 2), (rest, size - size // 2)]
    rows = np.concatenate([rng.choice(part, take, replace=False) for part, take in parts])
    chance = np.concatenate([np.full(take, take / len(part)) for part, take in parts])
    ascending = np.argsort(rows)
    return Sample(rows[ascending].astype(np.int64), chance[ascending])


def probe_labels(
    vectors: np.ndarray, clusters: np.ndarray, sample: Sample, answers: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Labels (n,) float64 0 or 1 of every text by a probe that never saw an answer of its own cluster.

    Args:
        vectors: (n, d) of unit length.
        clusters: (n,) keys.
        sample: texts that were judged.
        answers: (rows of the sample) 1 or 0.
        rng: assigns clusters to folds.

    Raises:
        MethodError: the answers are all alike, so that there is nothing to learn.
    """
    if np.ptp(answers) == 0:
        raise MethodError(
            f"The judge gave the same answer to all {len(answers):,} texts of the sample, so no probe can learn the "
            "concept. Raise annotation.distil.sample, or leave the concept out."
        )
    keys, groups = np.unique(clusters, return_inverse=True)
    fold = rng.permutation(len(keys))[groups] % FOLDS
    weight = 1.0 / sample.probability
    labels = np.zeros(len(vectors))
    for number in range(FOLDS):
        fitted, held = fold[sample.rows] != number, fold == number
        direction, shift = _ridge(vectors[sample.rows[fitted]], answers[fitted], weight[fitted])
        scores = vectors @ direction + shift
        labels[held] = scores[held] > _threshold(scores[sample.rows[fitted]], answers[fitted], weight[fitted])
    return labels


def distilled_separation(
    vectors: np.ndarray,
    outcome: np.ndarray,
    clusters: np.ndarray,
    sample: Sample,
    answers: np.ndarray,
    rng: np.random.Generator,
) -> Corrected:
    """The difference in mean outcome that the judge would find on all texts, from its answers on a sample.

    Args:
        vectors: (n, d) of unit length.
        outcome: (n,).
        clusters: (n,) keys.
        sample: texts that were judged.
        answers: (rows of the sample) 1 or 0.
        rng: of the folds.

    Raises:
        MethodError: the answers are all alike.
    """
    judged, chance = np.full(len(outcome), np.nan), np.full(len(outcome), np.nan)
    judged[sample.rows], chance[sample.rows] = answers, sample.probability
    labels = probe_labels(vectors, clusters, sample, answers, rng)
    found = corrected_separation(labels, outcome, clusters, judged, chance)
    if found.note:
        return found
    return _widened(found, labels, outcome, clusters, sample, answers)


def _widened(
    found: Corrected,
    labels: np.ndarray,
    outcome: np.ndarray,
    clusters: np.ndarray,
    sample: Sample,
    answers: np.ndarray,
) -> Corrected:
    """The same estimates with intervals for few judged texts of much weight.

    A text drawn with a chance of 5 % weighs twenty; one that is alone among many light ones hides its own error. So
    each text's influence is taken without itself (the jackknife), and the degrees of freedom are as many as clusters of
    equal influence would be (Satterthwaite).
    """
    weight, judged = np.zeros(len(outcome)), np.zeros(len(outcome))
    weight[sample.rows], judged[sample.rows] = 1.0 / sample.probability, answers
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
    squares = values**2
    return max(float(squares.sum() ** 2 / (squares @ squares)) - 1.0, 1.0)


def _ridge(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, float]:
    """Direction (d,) and shift of the weighted ridge regression of y on x."""
    share = weight / weight.sum()
    mean_x, mean_y = share @ x, float(share @ y)
    centred = x - mean_x
    gram = (centred * share[:, None]).T @ centred + RIDGE / x.shape[1] * np.eye(x.shape[1])
    direction = np.linalg.solve(gram, (centred * share[:, None]).T @ (y - mean_y))
    return direction, mean_y - float(mean_x @ direction)


def _threshold(scores: np.ndarray, answers: np.ndarray, weight: np.ndarray) -> float:
    """The score above which as much (weighted) of the sample lies as the judge said yes to."""
    order = np.argsort(-scores)
    above = np.cumsum(weight[order])
    at = int(np.searchsorted(above, float(weight @ answers)))
    return float(scores[order[min(at, len(order) - 1)]])
