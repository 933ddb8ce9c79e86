"""How faithful a concept is to its neuron.

Belongs here: which texts score a concept, and the measures. Does not belong here: judging texts (providers) or the
label (`core.inference`): fidelity never looks at the outcome.

Texts that fire strongly (a percentile bin of the neuron's positive activations on training texts) are held against
texts on which the neuron is exactly silent, as in HypotheSAEs (arXiv 2502.04382, section 4; package 2.0.1 for `f1`, up
to 2.0.0 for `legacy_f1`). Beside these balanced measures stand the ones at natural prevalence, over every text.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

MISSING = -1


@dataclass(frozen=True)
class Fidelity:
    """Agreement of a concept's annotation with a neuron's firing, on texts of one split.

    Attributes:
        n_strong: strongly firing texts judged.
        n_silent: silent texts judged.
        n_firing: texts judged that fire at all, strongly or weakly.
        recall: share of strongly firing texts judged yes; with its 95 % Wilson interval.
        false_positive_rate: share of silent texts judged yes; with its 95 % Wilson interval.
        precision: of yes-judgements if strong and silent texts were equally many.
        f1: harmonic mean of `precision` and `recall` (the reference's definition since 2.0.1).
        legacy_f1: harmonic mean of recall and 1 - false_positive_rate (the reference up to 2.0.0).
        correlation: Pearson's r of annotation and activation over all judged texts of the split.
        natural_precision: share of yes-judged texts that fire at all, at natural prevalence: where only a sample was
            judged, strong, weak and silent texts are weighed by how many of each there are. Weak ones count only if
            some were judged.
        natural_recall: share of firing texts judged yes, weighed likewise.
        natural_f1: harmonic mean of the two.
        n_missing: texts without an answer, left out.
        n_hard: hard negatives judged: silent texts that are nearest to firing ones (`core.hard_negatives`).
        hard_false_positive_rate: share of them judged yes; with its 95 % Wilson interval. 0 without any.
        hard_f1: as `f1`, with hard negatives as the silent texts; 0 without any.
    """

    n_strong: int
    n_silent: int
    n_firing: int
    recall: float
    recall_interval: tuple[float, float]
    false_positive_rate: float
    false_positive_interval: tuple[float, float]
    precision: float
    f1: float
    legacy_f1: float
    correlation: float
    natural_precision: float
    natural_recall: float
    natural_f1: float
    n_missing: int
    n_hard: int = 0
    hard_false_positive_rate: float = 0.0
    hard_false_positive_interval: tuple[float, float] = (0.0, 1.0)
    hard_f1: float = 0.0

    @property
    def tells_apart(self) -> bool:
        """Whether firing texts are judged yes more often than silent ones beyond doubt (95 % intervals apart).

        All firing texts that were judged count here, weak ones too: a small split has few strong ones, and the
        question is only whether the concept has anything to do with the neuron.
        """
        hits = round(self.natural_recall * self.n_firing)
        return wilson_interval(hits, self.n_firing)[0] > self.false_positive_interval[1]


def firing_bounds(activation: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest activation that count as strong: percentiles among the positive activations.

    Args:
        activation: (n,) of one neuron on training texts.
        percentiles: from 0 to 100, low and high.
    """
    positive = activation[activation > 0]
    if positive.size == 0:
        return (np.inf, np.inf)
    low, high = np.percentile(positive, percentiles)
    # The top of the training range is no ceiling for other splits.
    return float(low), float(high) if percentiles[1] < 100 else np.inf


def scoring_rows(
    activation: np.ndarray, bounds: tuple[float, float], limit: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Positions of the texts to judge: all of them, or at most `limit`, equally many silent, weak and strong.

    Without weak ones nothing would be known of precision and recall at natural prevalence, to which most firing texts
    belong. A shortfall on one side is not made up on the others. Returned ascending, int64.
    """
    if limit is None:
        return np.arange(len(activation), dtype=np.int64)
    kind = _kinds(activation, bounds)
    sides = [side for side in (np.flatnonzero(kind == k) for k in (2, 0, 1)) if len(side)]
    picks = [rng.choice(side, size=min(limit // max(len(sides), 2), len(side)), replace=False) for side in sides]
    return np.sort(np.concatenate(picks)).astype(np.int64)


def measure_fidelity(annotation: np.ndarray, activation: np.ndarray, bounds: tuple[float, float]) -> Fidelity:
    """Compare one concept's annotation with one neuron's activation.

    Args:
        annotation: (n,) int8: 1 yes, 0 no, -1 missing.
        activation: (n,) float, >= 0.
        bounds: from `firing_bounds`.
    """
    judged = annotation != MISSING
    yes, acts = annotation[judged] == 1, activation[judged]
    strong = (acts > 0) & (acts >= bounds[0]) & (acts <= bounds[1])
    silent, fires = acts == 0, acts > 0
    hits, false_hits = int(yes[strong].sum()), int(yes[silent].sum())
    recall, fpr = _ratio(hits, strong.sum()), _ratio(false_hits, silent.sum())
    natural = natural_agreement(annotation, activation, bounds)
    return Fidelity(
        n_strong=int(strong.sum()),
        n_silent=int(silent.sum()),
        n_firing=int(fires.sum()),
        recall=recall,
        recall_interval=wilson_interval(hits, int(strong.sum())),
        false_positive_rate=fpr,
        false_positive_interval=wilson_interval(false_hits, int(silent.sum())),
        precision=_ratio(recall, recall + fpr),
        f1=_ratio(2 * recall, 1 + recall + fpr) if strong.any() else 0.0,
        legacy_f1=_harmonic(recall, 1 - fpr) if strong.any() else 0.0,
        correlation=_correlation(yes.astype(float), acts),
        natural_precision=natural[0],
        natural_recall=natural[1],
        natural_f1=natural[2],
        n_missing=int((~judged).sum()),
    )


def natural_agreement(
    annotation: np.ndarray, activation: np.ndarray, bounds: tuple[float, float], hard: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Precision, recall and F1 at natural prevalence: each judged text stands for as many of its kind as there are.

    Args:
        annotation: (n,) int8: 1 yes, 0 no, -1 not judged.
        activation: (n,) float, >= 0.
        bounds: from `firing_bounds`.
        hard: positions of silent texts that were all judged, and stand for themselves: a phrase is most often wrong
            about the nearest ones, and one drawn by chance would stand for many.
    """
    kind = _kinds(activation, bounds)
    if hard is not None:
        kind[hard] = 3
    judged = annotation != MISSING
    there, seen = np.bincount(kind, minlength=4), np.bincount(kind[judged], minlength=4)
    weight = (there / np.maximum(seen, 1))[kind[judged]]
    yes, fires = annotation[judged] == 1, activation[judged] > 0
    both, said, firing = (float(weight[rows].sum()) for rows in (yes & fires, yes, fires))
    return _ratio(both, said), _ratio(both, firing), _ratio(2 * both, said + firing)


def _kinds(activation: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """0 for silent, 1 for weak, 2 for strong."""
    strong = (activation > 0) & (activation >= bounds[0]) & (activation <= bounds[1])
    return np.where(activation == 0, 0, np.where(strong, 2, 1))


def wilson_interval(successes: int, trials: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return (0.0, 1.0)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    # At shares of 0 and 1 rounding would leave the share itself just outside.
    return float(min(share, max(0.0, centre - half))), float(max(share, min(1.0, centre + half)))


def column(codes: sp.csc_matrix, index: int) -> np.ndarray:
    """One neuron's activations as a dense (n,) float64 vector."""
    out = np.zeros(codes.shape[0])
    span = slice(codes.indptr[index], codes.indptr[index + 1])
    out[codes.indices[span]] = codes.data[span]
    return out


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _harmonic(a: float, b: float) -> float:
    return _ratio(2 * a * b, a + b)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
