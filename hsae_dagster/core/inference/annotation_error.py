"""What annotation errors do to an effect, and how some labels by people, or by a costly judge, undo it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED, Effect, effect, within_correlation
from hsae_dagster.errors import MethodError

# Fewest gold texts that people find to have, and to lack, the concept: the correction rests on them.
MIN_GOLD = 10


@dataclass(frozen=True)
class Corrected:
    """One effect from the gold sample alone and corrected (predict-then-debias).

    Attributes:
        omega: weight of the judge's labels; 0 means that they do not help.
        n_gold: texts labelled by people.
        sensitivity: share of texts with the concept (by people) that the judge says yes to, at natural prevalence.
        false_positive_rate: the same of texts without it; `kappa` is Cohen's, at natural prevalence, too.
        note: why there is no estimate, or empty.
    """

    gold_only: Effect
    corrected: Effect
    omega: float
    n_gold: int
    sensitivity: float
    false_positive_rate: float
    kappa: float
    note: str = ""


@dataclass(frozen=True)
class AnnotationError:
    """What is known about the errors of one concept's annotation.

    Attributes:
        corrected: by labels of people; None without any for this concept.
        human_kappa: Cohen's kappa between the two people who labelled most; NaN without two.
        band: true effects that the stated accuracy of the judge allows; NaNs where none is stated.
        distilled: by the judge's answers on a sample, where a probe labelled the rest; the judge stands in the place of
            people, and the probe in that of the judge.
    """

    corrected: Corrected | None
    human_kappa: float
    band: tuple[float, float]
    distilled: Corrected | None = None


def draw_gold(
    answers: np.ndarray, size: int, rng: np.random.Generator, activation: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Texts to be labelled by people for one concept: half judged yes, a quarter near misses, a quarter other noes.

    Near misses are the texts judged no on which the neuron fires hardest, a tenth of all noes. Where a stratum has too
    few texts, the others get its share. Answers are (n,) int8: 1 yes, 0 no, -1 missing (never drawn); without the
    activation (n,) of a neuron, noes are one stratum.

    Returns:
        Positions, ascending (int64), and the probability that each had of being drawn.
    """
    strata = np.where(answers == 1, 0, np.where(answers == 0, 2, -1))
    noes = np.flatnonzero(answers == 0)
    if activation is not None and len(noes):
        hardest = noes[np.argsort(-activation[noes], kind="stable")[: max(1, len(noes) // 10)]]
        strata[hardest[activation[hardest] > 0]] = 1
    shares = [0.5, 0.25, 0.25] if activation is not None else [0.5, 0.0, 0.5]
    sides = [np.flatnonzero(strata == k) for k in range(3)]
    takes = [min(len(side), int(size * share)) for side, share in zip(sides, shares, strict=True)]
    for k in (2, 1, 0):
        takes[k] = min(len(sides[k]), takes[k] + size - sum(takes))
    return _drawn(sides, takes, rng)


def _drawn(
    parts: Sequence[np.ndarray], takes: Sequence[int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """So many of each part's positions, ascending (int64), and the probability that each had of being drawn."""
    drawn = [rng.choice(part, size=take, replace=False) for part, take in zip(parts, takes, strict=True)]
    chances = [np.full(take, take / max(len(part), 1)) for part, take in zip(parts, takes, strict=True)]
    rows, probability = np.concatenate(drawn), np.concatenate(chances)
    order = np.argsort(rows)
    return rows[order].astype(np.int64), probability[order]


def post_stratified(answers: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Sampling probability (n,) of each text if the labelled ones are a random sample within yes and within no."""
    probability = np.full(len(answers), np.nan)
    for side in (0, 1):
        members = answers == side
        if members.any():
            probability[members] = labelled[members].mean()
    return probability


def corrected_separation(
    judged: np.ndarray, outcome: np.ndarray, clusters: np.ndarray, gold: np.ndarray, probability: np.ndarray
) -> Corrected:
    """Predict-then-debias for the difference in mean outcome (texts, not pairs).

    All are (n,): 1 or 0 by the judge, none missing; outcomes; keys of clusters; 1 or 0 by people, NaN where nobody
    labelled; and the probability that a text was drawn for labelling, read where there is a label.

    Raises:
        MethodError: a labelled text with a probability outside (0, 1].
    """
    known = np.isfinite(gold)
    given = probability[known]
    if not ((given > 0) & (given <= 1)).all():
        raise MethodError("A labelled text has no sampling probability between 0 and 1; draw the sample again.")
    truth = np.where(known, gold, 0.0)
    weight = np.where(known, 1.0 / np.where(known, probability, 1.0), 0.0)
    agreement = _agreement(judged[known], truth[known], weight[known])
    with_it, without = int((truth[known] == 1).sum()), int((truth[known] == 0).sum())
    note = ""
    if min(with_it, without) < MIN_GOLD or np.ptp(judged[known]) == 0 or np.ptp(judged) == 0:
        note = f"{with_it} labelled texts have the concept and {without} lack it (at least {MIN_GOLD} of each, judged "
        note += "yes and no, are needed)"
    # What tells with from without is the clusters of the rarer side: their number is what the errors rest on.
    freedom = min(len(np.unique(clusters[known & (truth == side)])) for side in (0, 1)) - 1.0
    if not note and freedom < 1:
        note = "all labelled texts that have the concept, or lack it, belong to one cluster, so nothing can be said "
        note += "about others"
    if note:
        return Corrected(NO_EFFECT_ESTIMATED, NO_EFFECT_ESTIMATED, 0.0, int(known.sum()), *agreement, note)
    groups = np.unique(clusters, return_inverse=True)[1]
    people, pull, residual = _difference(truth, outcome, weight)
    by_judge, judge_pull, judge_residual = _difference(judged, outcome, weight)
    everywhere, all_pull, all_residual = _difference(judged, outcome, np.ones(len(judged)))
    first, second = pull * residual, judge_pull * judge_residual - all_pull * all_residual
    by_cluster = [np.bincount(groups, values) for values in (first, second)]
    spread = float(by_cluster[1] @ by_cluster[1])
    omega = float(by_cluster[0] @ by_cluster[1]) / spread if spread > 0 else 0.0
    n_labelled = len(np.unique(groups[known]))
    errors = []
    for share in (0.0, omega):
        seen = np.bincount(groups, first - share * second)
        robust = n_labelled / (n_labelled - 1) * float(seen @ seen)
        model = _model_variance(pull - share * (judge_pull - all_pull), residual, truth, known, groups)
        errors.append(float(np.sqrt(max(robust, model))))
    corrected = people - omega * (by_judge - everywhere)
    gold_only = effect(people, errors[0], freedom, "gold labels alone")
    debiased = effect(corrected, errors[1], freedom, "predict-then-debias")
    return Corrected(gold_only, debiased, omega, int(known.sum()), *agreement)


def _difference(h: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The weighted difference in means of y between h = 1 and h = 0, and of each row (n,) pull and residual.

    Its pull is the change of the difference with its outcome, its residual the outcome less its side's mean.
    """
    shares = [weight * side / float(weight @ side) for side in (h, 1 - h)]
    means = [float(share @ y) for share in shares]
    return means[0] - means[1], shares[0] - shares[1], y - np.where(h == 1, means[0], means[1])


def _model_variance(
    pull: np.ndarray, residual: np.ndarray, truth: np.ndarray, known: np.ndarray, groups: np.ndarray
) -> float:
    """Variance if labelled rows have the mean squared error of their side and one correlation within clusters.

    Rows without a label have small pulls, and enter with none.
    """
    error = np.zeros(len(pull))
    for side in (0, 1):
        rows = known & (truth == side)
        error[rows] = np.sqrt(float(residual[rows] @ residual[rows]) / (rows.sum() - 1))
    spread, own = pull * error, np.unique(groups[known], return_inverse=True)[1]
    scaled = residual[known] / np.where(error[known] > 0, error[known], 1.0)
    correlation = within_correlation(scaled, own)
    together = np.bincount(own, spread[known])
    return (1 - correlation) * float(spread @ spread) + correlation * float(together @ together)


def _agreement(judged: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> tuple[float, float, float]:
    """Sensitivity, false-positive rate and Cohen's kappa, weighted to natural prevalence; NaN without such texts."""
    yes, no = weight * truth, weight * (1 - truth)
    sensitivity = float(yes @ judged / yes.sum()) if yes.sum() > 0 else np.nan
    false_positives = float(no @ judged / no.sum()) if no.sum() > 0 else np.nan
    return sensitivity, false_positives, kappa(judged, truth, weight)


def kappa(first: np.ndarray, second: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Cohen's kappa (1960) of two annotators' labels (n,), 0/1 or bool, rows weighted; NaN where both never vary."""
    from sklearn.metrics import cohen_kappa_score

    labels = np.asarray([first, second], dtype=np.int64)
    if not labels.size or (weight is not None and not weight.sum() > 0) or np.ptp(labels) == 0:
        return np.nan
    return float(cohen_kappa_score(*labels, sample_weight=weight))


def without_attenuation(seen: float, prevalence: float, sensitivity: float, specificity: float) -> float:
    """The true separation that an error-prone judge shows as `seen`, if its errors do not depend on the outcome.

    With observed prevalence q, true prevalence pi = (q - fpr) / (sensitivity - fpr); the seen difference is the true
    one times (positive predictive value + negative predictive value - 1).

    Returns:
        The true separation; NaN where such a judge could not have said yes to so many or so few texts.
    """
    false_positives = 1 - specificity
    if not (0 < prevalence < 1 and sensitivity > false_positives):
        return float("nan")
    true = (prevalence - false_positives) / (sensitivity - false_positives)
    if not 0 < true < 1:
        return float("nan")
    positive = sensitivity * true / prevalence
    negative = specificity * (1 - true) / (1 - prevalence)
    factor = positive + negative - 1
    return seen / factor if factor > 0 else float("nan")


def attenuation_band(
    seen: float, prevalence: float, sensitivity: tuple[float, float], specificity: tuple[float, float]
) -> tuple[float, float]:
    """Range of true separations over stated ranges of sensitivity and specificity; NaNs where no pair is possible.

    The true effect is monotone in both, so the corners are enough, unless some of them are impossible: then a grid.
    """
    grid = [np.linspace(low, high, 21) for low, high in (sensitivity, specificity)]
    values = np.array([without_attenuation(seen, prevalence, a, b) for a in grid[0] for b in grid[1]])
    possible = values[np.isfinite(values)]
    return (float(possible.min()), float(possible.max())) if possible.size else (float("nan"), float("nan"))


FOLDS = 5
# Of the mean squared length of a unit vector's coordinates.
RIDGE = 0.1


@dataclass(frozen=True)
class Sample:
    """Texts for the judge, the same for all concepts: ascending int64 positions, and each one's chance to be drawn."""

    rows: np.ndarray
    probability: np.ndarray


def draw_sample(scores: np.ndarray, size: int, rng: np.random.Generator) -> Sample:
    """Draw half of the sample among the texts with the highest scores of some concept, half among the rest.

    A rare concept is found among texts that fire its neuron; a sample by chance alone would hardly have it. Each
    concept has as many of the highest as there are places for it, so that about every second of them is drawn. Scores
    (n, c) are of texts by concept, such as the activations of the concepts' neurons; c may be 0.
    """
    n, concepts = scores.shape
    if size >= n:
        return Sample(np.arange(n), np.ones(n))
    most = min(size, n // 2) // max(concepts, 1)
    jitter = 1e-9 * rng.random(n)
    top = np.unique(np.argsort(-(scores.T + jitter), axis=1, kind="stable")[:, :most]) if concepts else np.arange(0)
    rest = np.setdiff1d(np.arange(n), top)
    from_top = min(size // 2, len(top))
    return Sample(*_drawn([top, rest], [from_top, size - from_top], rng))


def probe_labels(
    vectors: np.ndarray, clusters: np.ndarray, sample: Sample, answers: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Labels (n,) float64 0 or 1 of every text by a probe that never saw an answer of its own cluster.

    Where all answers are alike there is nothing to learn, and they are every text's label. Vectors (n, d) are of unit
    length, perhaps with further columns of their size, keys of clusters (n,), answers (rows of the sample) 1 or 0.
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

    Arguments as in `corrected_separation`, with the probe's labels as the judge's and the judge's answers as people's.
    The estimates are the same, with intervals for few judged texts of much weight: a text drawn with a chance of 5 %
    weighs twenty, and one that is alone among many light ones hides its own error. So each text's influence is taken
    without itself (the jackknife), and the degrees of freedom are as many as clusters of equal influence would be
    (Satterthwaite).
    """
    found = corrected_separation(labels, outcome, clusters, answers, probability)
    if found.note:
        return found
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
