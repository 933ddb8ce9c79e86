"""How faithful a concept is to its neuron: texts shown and hard negatives, and questions that examine a judge."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits, unit_length

# Silent texts that the nearest ones are drawn from, as a multiple of how many are shown: samples differ.
_NEAREST = 4
OPEN, CLOSE = "⟦", "⟧"


@dataclass(frozen=True)
class Places:
    """Which unit of each text matters for each neuron.

    Attributes:
        units: per text, what its units read like, in order.
        unit: (n, neurons) int32: the unit that fires most; in a silent text the one most like those that fire strongly.
        likeness: (n, neurons) float32: of a silent text the cosine of that unit with the mean direction of the
            strongest units of strongly firing texts; 0 of others.
    """

    units: Sequence[Sequence[str]]
    unit: np.ndarray
    likeness: np.ndarray

    def of_texts(self, rows: Sequence[int] | np.ndarray) -> "Places":
        """Of some of the texts."""
        return Places([self.units[row] for row in rows], self.unit[rows], self.likeness[rows])

    def excerpt(self, row: int, neuron: int, *, marked: bool) -> str:
        """The unit that matters between its neighbours, marked or not; a text of one unit whole."""
        units, at = self.units[row], int(self.unit[row, neuron])
        if len(units) == 1:
            return units[0]
        shown = list(units[max(at - 1, 0) : at + 2])
        if marked:
            shown[min(at, 1)] = f"{OPEN}{shown[min(at, 1)]}{CLOSE}"
        return " ".join([*(["…"] if at > 1 else []), *shown, *(["…"] if at + 2 < len(units) else [])])


def find_places(
    units: TextUnits,
    wording: Sequence[str],
    unit_codes: sp.csc_matrix,
    blocks: Iterable[np.ndarray],
    codes: sp.csc_matrix,
    bounds: Sequence[tuple[float, float]],
) -> Places:
    """Find the unit that matters in each text for each neuron.

    Args:
        units: of n texts.
        wording: (units,) what each unit reads like.
        unit_codes: (units, neurons) CSC of activations, >= 0.
        blocks: (block, d) vectors of the units in their order; all of them are kept at once.
        codes: (n, neurons) CSC of the texts' activations.
        bounds: per neuron, activations of texts that count as strong.
    """
    vectors = unit_length(np.concatenate(list(blocks)))
    n, neurons = codes.shape
    unit, likeness = np.zeros((n, neurons), dtype=np.int32), np.zeros((n, neurons), dtype=np.float32)
    for j, bound in enumerate(bounds):
        activation = codes[:, [j]].toarray()[:, 0]
        fires = activation > 0
        unit[:, j], _ = _largest(units, unit_codes[:, [j]].toarray()[:, 0])
        strong = np.flatnonzero(_strong(activation, bound))
        if not len(strong):
            continue
        direction = vectors[units.rows[units.starts[strong] + unit[strong, j]]].mean(axis=0)
        nearest, cosine = _largest(units, vectors @ (direction / max(float(np.linalg.norm(direction)), 1e-12)))
        unit[~fires, j], likeness[~fires, j] = nearest[~fires], cosine[~fires]
    texts = [[wording[u] for u in units.rows[a:b]] for a, b in zip(units.starts[:-1], units.starts[1:], strict=True)]
    return Places(texts, unit, likeness)


def _largest(units: TextUnits, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each text the position of its unit with the largest value (the first of equal ones), and that value."""
    per_entry = values[units.rows]
    best = np.maximum.reduceat(per_entry, units.starts[:-1])
    text = np.repeat(np.arange(len(best)), np.diff(units.starts))
    hits = np.flatnonzero(per_entry == best[text])
    _, first = np.unique(text[hits], return_index=True)
    return hits[first] - units.starts[:-1], best


@dataclass(frozen=True)
class Examples:
    """Texts to show for one neuron.

    Attributes:
        strong: positions of strongly firing texts, int64; in random order, the very top in rising order.
        silent: positions of texts to hold against them, int64, in random order: exactly silent ones, or, where a low
            bin was asked for, weakly firing ones.
    """

    strong: np.ndarray
    silent: np.ndarray


def sample_examples(
    activation: np.ndarray,
    bounds: tuple[float, float],
    count: int,
    rng: np.random.Generator,
    *,
    top: bool = False,
    weak: tuple[float, float] | None = None,
    likeness: np.ndarray | None = None,
) -> Examples:
    """Draw `count` texts without replacement: half strongly firing, half exactly silent.

    Strong texts are drawn uniformly from a percentile bin of the neuron's positive activations rather than from its
    very top, as in HypotheSAEs (arXiv 2502.04382, section 4); silent ones uniformly from all texts with activation 0,
    or, where it is known how like the strong ones they are, half of them from the nearest.
    An odd `count` gives the strong side one more. A side with too few texts gives all it has, and the other side does
    not make up for it.

    Args:
        activation: (n,) of one neuron, >= 0.
        bounds: lowest and highest activation that count as strong (`firing_bounds`).
        count: texts wanted in all.
        rng: a fresh generator per candidate makes candidates see different texts.
        top: take the strongest texts instead, whatever the bounds (the package's default, `sample_top_zero`), so that
            all candidates see the same ones. Equal activations rank by position.
        weak: draw the other half from texts that fire, with activations between these two (the package's
            `low_percentile`); never one that counts as strong.
        likeness: (n,) of silent texts to strong ones (`Places`). A concept has to tell near misses apart, and texts
            drawn by chance hold few of them. Not used with `weak`.
    """
    fires = activation > 0
    strong = _strong(activation, bounds)
    wanted = count - count // 2
    if top:
        ranked = np.argsort(activation, kind="stable")
        strongest = ranked[fires[ranked]][-wanted:].astype(np.int64)
        strong = np.zeros(len(activation), dtype=bool)
        strong[strongest] = True
    else:
        strongest = _draw(np.flatnonzero(strong), wanted, rng)
    against = activation == 0
    if weak is not None:
        against = fires & (activation >= weak[0]) & (activation <= weak[1]) & ~strong
    silent = np.flatnonzero(against)
    if likeness is None or weak is not None:
        return Examples(strong=strongest, silent=_draw(silent, count // 2, rng))
    wanted = count // 4
    close = silent[np.argsort(-likeness[silent], kind="stable")[: _NEAREST * wanted]]
    nearest = _draw(close, wanted, rng)
    others = _draw(np.setdiff1d(silent, nearest), count // 2 - len(nearest), rng)
    return Examples(strong=strongest, silent=rng.permutation(np.concatenate([nearest, others])))


def _draw(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(rows)[:count].astype(np.int64)


MISSING = -1


@dataclass(frozen=True)
class Fidelity:
    """Agreement of a concept's annotation with a neuron's firing, on texts of one split.

    Attributes:
        n_firing: texts judged that fire at all, strongly or weakly.
        recall: share of strongly firing texts judged yes.
        false_positive_interval: 95 % Wilson interval of the share of silent texts judged yes.
        precision: of yes-judgements if strong and silent texts were equally many.
        f1: harmonic mean of `precision` and `recall` (the reference's definition since 2.0.1).
        correlation: Pearson's r of annotation and activation over all judged texts of the split.
        natural_precision: share of yes-judged texts that fire at all, at natural prevalence: where only a sample was
            judged, strong, weak and silent texts are weighed by how many of each there are. Weak ones count only if
            some were judged.
        natural_recall: share of firing texts judged yes, weighed likewise.
        natural_f1: harmonic mean of the two.
    """

    n_firing: int
    recall: float
    false_positive_interval: tuple[float, float]
    precision: float
    f1: float
    correlation: float
    natural_precision: float
    natural_recall: float
    natural_f1: float

    @property
    def tells_apart(self) -> bool:
        """Whether firing texts are judged yes more often than silent ones beyond doubt (95 % intervals apart).

        Weak ones count too: a small split has few strong ones, and all that is asked is whether the concept has
        anything to do with the neuron.
        """
        hits = round(self.natural_recall * self.n_firing)
        return wilson_interval(hits, self.n_firing)[0] > self.false_positive_interval[1]


def firing_bounds(activation: np.ndarray, percentiles: tuple[float, float]) -> tuple[float, float]:
    """Lowest and highest activation that count as strong: percentiles among the positive ones of one neuron's (n,)."""
    positive = activation[activation > 0]
    if positive.size == 0:
        return (np.inf, np.inf)
    low, high = np.percentile(positive, percentiles)
    # The top of the training range is no ceiling for other splits.
    return float(low), float(high) if percentiles[1] < 100 else np.inf


def _strong(activation: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return (activation > 0) & (activation >= bounds[0]) & (activation <= bounds[1])


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
    """Compare a concept's (n,) int8 annotation, 1 yes, 0 no, -1 missing, with a neuron's (n,) activation, >= 0."""
    judged = annotation != MISSING
    yes, acts = annotation[judged] == 1, activation[judged]
    strong, silent = _strong(acts, bounds), acts == 0
    false_hits = int(yes[silent].sum())
    recall, fpr = _ratio(int(yes[strong].sum()), strong.sum()), _ratio(false_hits, silent.sum())
    natural = natural_agreement(annotation, activation, bounds)
    return Fidelity(
        n_firing=int((acts > 0).sum()),
        recall=recall,
        false_positive_interval=wilson_interval(false_hits, int(silent.sum())),
        precision=_ratio(recall, recall + fpr),
        f1=_ratio(2 * recall, 1 + recall + fpr) if strong.any() else 0.0,
        correlation=_correlation(yes.astype(float), acts),
        natural_precision=natural[0],
        natural_recall=natural[1],
        natural_f1=natural[2],
    )


def natural_agreement(
    annotation: np.ndarray, activation: np.ndarray, bounds: tuple[float, float], hard: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Precision, recall and F1 at natural prevalence: each judged text stands for as many of its kind as there are.

    Arguments as in `measure_fidelity`. `hard` are positions of silent texts that were all judged, and stand for
    themselves: a phrase is most often wrong about the nearest ones, and one drawn by chance would stand for many.
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
    return np.where(activation == 0, 0, np.where(_strong(activation, bounds), 2, 1))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return (0.0, 1.0)
    from statsmodels.stats.proportion import proportion_confint

    share = successes / trials
    low, high = proportion_confint(successes, trials, method="wilson")
    # At shares of 0 and 1 rounding would leave the share itself just outside.
    return min(share, max(0.0, float(low))), max(share, min(1.0, float(high)))


def column(codes: sp.csc_matrix, index: int) -> np.ndarray:
    """One neuron's activations as a dense (n,) float64 vector."""
    return codes[:, [index]].toarray()[:, 0].astype(np.float64)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


_BLOCK = 1024  # strong texts compared at once


def nearest_silent(vectors: np.ndarray, activation: np.ndarray, bounds: tuple[float, float], limit: int) -> np.ndarray:
    """The `limit` silent texts nearest to some strongly firing text: int64 positions, ascending and distinct.

    Vectors (n, d) are compared by cosine; none without a strong or a silent text.
    """
    strong = np.flatnonzero(_strong(activation, bounds))
    silent = np.flatnonzero(activation == 0)
    if not len(strong) or not len(silent) or limit == 0:
        return np.zeros(0, dtype=np.int64)
    unit = unit_length(vectors)
    against = unit[silent].T
    best = np.full(len(silent), -np.inf)
    for start in range(0, len(strong), _BLOCK):
        similar = unit[strong[start : start + _BLOCK]] @ against
        nearest = similar.argmax(axis=1)
        np.maximum.at(best, nearest, similar[np.arange(len(nearest)), nearest])
    found = np.flatnonzero(best > -np.inf)
    ranked = found[np.argsort(-best[found], kind="stable")][:limit]
    return np.sort(silent[ranked])


MOST_WORDS = 60
_MONTHS = r"\b(january|february|april|june|july|august|september|october|november|december)\b"
_COLOURS = r"\b(red|blue|green|yellow|purple|pink|brown|white|black|grey|gray|orange)\b"


@dataclass(frozen=True)
class Rule:
    """A concept that a pattern decides.

    Attributes:
        predicate: completes "The text …".
        planted: a sentence for which it does, and no other rule.
        doubtful: pattern of texts for which a careful reader may disagree with `holds`; they are not used.
    """

    predicate: str
    holds: str
    planted: str
    doubtful: str = r"(?!)"

    def truth(self, text: str) -> bool:
        """Whether the rule holds for a text."""
        return re.search(self.holds, text, re.IGNORECASE) is not None

    def clear(self, text: str) -> bool:
        """Whether its truth is beyond doubt."""
        return self.truth(text) or re.search(self.doubtful, text, re.IGNORECASE) is None


RULES = (
    Rule("contains a number written in digits", r"\d", "This is item 47 of the list.", r"[①-⓿]|\b[ivx]{2,}\b"),
    Rule("contains a question mark", r"[?？]", "Who would have thought so?", r"¿|؟"),
    Rule("names a month of the year", _MONTHS, "That was at the end of October.", r"\b(may|march|jan|feb|sept?|oct)\b"),
    Rule("contains an exclamation mark", "[!！]", "What a day that was!", "¡"),
    Rule("mentions a colour by its name", _COLOURS, "The door was painted blue.", r"colou?r|rot\b|bl[ae]u|gr[üu]n"),
    Rule(
        "contains a web address", r"https?:|www\.", "More of it is on www.example.org today.", r"\.(com|org|net|de)\b"
    ),
)


@dataclass(frozen=True)
class Probes:
    """n texts, and which rules hold for them, (n, rules) int8: 1 yes, 0 no, -1 not to be counted."""

    texts: tuple[str, ...]
    truth: np.ndarray


@dataclass(frozen=True)
class Examination:
    """How a judge did.

    Attributes:
        asked: answers counted, missing ones among them.
        right: of these.
        sensitivity: share of yes among those that are yes.
        specificity: share of no among those that are no.
        worst: the rule that it got wrong most often, and the share it got right.
    """

    asked: int
    right: int
    sensitivity: float
    specificity: float
    worst: tuple[str, float]

    @property
    def accuracy(self) -> float:
        """Mean of both: 0.5 for whoever always says the same."""
        return (self.sensitivity + self.specificity) / 2


def make_probes(texts: Sequence[str], count: int, rng: np.random.Generator) -> Probes:
    """Draw `count` texts, or all, of each the first 60 words, and plant every rule in half of them."""
    rows = np.sort(rng.permutation(len(texts))[:count])
    planted = np.zeros((len(rows), len(RULES)), dtype=bool)
    for column in range(len(RULES)):
        planted[rng.permutation(len(rows))[: len(rows) // 2], column] = True
    made, truth = [], np.full(planted.shape, MISSING, dtype=np.int8)
    for n, row in enumerate(rows):
        start = " ".join(texts[row].split()[:MOST_WORDS])
        sentences = [rule.planted for rule, is_planted in zip(RULES, planted[n], strict=True) if is_planted]
        made.append(" ".join([*sentences, start]))
        for column, rule in enumerate(RULES):
            if rule.clear(start) or planted[n, column]:
                truth[n, column] = rule.truth(made[-1])
    return Probes(tuple(made), truth)


def examine(truth: np.ndarray, answers: np.ndarray) -> Examination:
    """Compare answers (texts, rules) int8, 1 yes, 0 no, -1 missing, with the truth; a missing answer is a wrong one."""
    counted, right = truth != MISSING, truth == answers
    said_yes, said_no = (float(right[truth == said].mean()) if (truth == said).any() else 1.0 for said in (1, 0))
    by_rule = [float(right[counted[:, j], j].mean()) if counted[:, j].any() else 1.0 for j in range(truth.shape[1])]
    worst = int(np.argmin(by_rule))
    return Examination(
        asked=int(counted.sum()),
        right=int((counted & right).sum()),
        sensitivity=said_yes,
        specificity=said_no,
        worst=(RULES[worst].predicate, by_rule[worst]),
    )
