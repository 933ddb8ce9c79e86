"""What will be tested and how, fixed before a holdout text is judged: tests, weights, corrections, looks.

Which figure decides about a hypothesis, and the family that it is corrected in.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal
from zlib import crc32

import numpy as np
import polars as pl

from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.effects import HypothesisTest, benjamini_hochberg, holm
from hsae_dagster.core.observations import folded, text_sides
from hsae_dagster.keys import hash_json, set_fingerprint

# Of the z of training rows, what the holdout may be expected to show: the best of many look better than they are.
_SHRUNK = 0.6
_EVEN = 0.5


def one_sided(p_value: float, estimate: float, direction: float) -> float:
    """The p-value for the frozen direction; two-sided where there is none (0)."""
    if direction == 0 or not np.isfinite(p_value):
        return p_value
    return p_value / 2 if estimate * direction > 0 else 1 - p_value / 2


def training_weights(z: np.ndarray, ratio: float, alpha: float) -> np.ndarray:
    """Weights (h,), of mean 1 and at least one half, by what training rows showed.

    Sizes of the training z are (h,), NaN where there is none (a hypothesis of the user's own): its weight is 1.
    `ratio` is the square root of holdout over training rows.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    known = np.isfinite(z)
    out = np.ones(len(z))
    m = int(known.sum())
    if m < 2:
        return out
    expected = np.clip(np.abs(z[known]) * ratio * _SHRUNK, 0.5, 8.0)

    def made(c: float) -> np.ndarray:
        found: np.ndarray = norm.sf(expected / 2 + c / expected) * m / alpha
        return found

    c = brentq(lambda c: float(made(c).mean()) - 1, -64.0, 64.0)
    out[known] = _EVEN + (1 - _EVEN) * made(float(c))
    return out


Source = Literal["found", "yours"]
# Pairs of shared texts that two outcomes put in one order (or in the opposite one) so often have one outcome in two
# codings: a logarithm, a median split, one class against the rest, a few corrected labels.
_SAME_ORDER = 0.95
# Holdouts that share fewer texts share phrases that everybody writes.
_FEWEST_SHARED, _LEAST_SHARE = 5, 0.01
_MOST_COMPARED = 1_500
# A text is also known by a few runs of its words, so that one that was cut into chunks, shortened, or put behind a
# heading is known again; fewer shared runs are what writers of one kind have in common.
_RUN, _RUNS, _LEAST_RUNS = 5, 4, 0.1
_MARK = "~"
_MARKED = pl.col("key").str.starts_with(_MARK)


@dataclass(frozen=True)
class PlannedTest:
    """One hypothesis of the plan.

    Attributes:
        source: `found` by the pipeline or `yours` (written in dataset.yaml).
        direction: sign of the effect expected from training texts or declared; 0 for none.
        weight: of its p-value in Holm's correction, from training texts (`core.inference.plan.training_weights`).
        half: that it was found in where each half tests what the other found; else empty.
    """

    concept_id: str
    claim: str
    source: Source
    direction: int
    weight: float = 1.0
    half: str = ""


@dataclass(frozen=True)
class AnalysisPlan:
    """Everything that determines what is tested on a holdout.

    Attributes:
        holdout: fingerprint of the holdout's texts and labels.
        tests: the hypotheses, in rank order; their number is the family of this look.
        annotation: who judges the concepts, on what sample, with which prompt.
        model: outcome, task, unit of clustering and controls: what the tests estimate and how sure they are.
        gates: alpha, the round and its level, and the gates of the verdict.
    """

    holdout: str
    tests: tuple[PlannedTest, ...]
    annotation: Mapping[str, Any]
    model: Mapping[str, Any]
    gates: Mapping[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """The plan as JSON-like data."""
        return asdict(self)

    @property
    def fingerprint(self) -> str:
        """Key of the plan (16 hexadecimal characters): equal plans are one look, however often they are evaluated."""
        return hash_json(self.record)[:16]

    @property
    def level(self) -> float:
        """Family-wise error that its report may spend."""
        return float(self.gates["level"])

    def test_key(self, concept_id: str, half: str = "") -> str:
        """Key of one test: the concept, its judge and the model of the effect that decides, controls included.

        Gates change verdicts, not what is tested. The half that a claim was found in says which rows test it.
        """
        named = {"concept": concept_id, "annotation": dict(self.annotation), "model": dict(self.model), "half": half}
        return hash_json(named)[:16]


@dataclass(frozen=True)
class Look:
    """One evaluation of a holdout, `number` 1 for the first, of the plan with this fingerprint.

    Attributes:
        frozen_before: whether this very plan was written down before the holdout's texts were judged.
        earlier: p-values of everything earlier looks tested, by test key (NaN: tested, but no p came out).
    """

    number: int
    plan: str
    frozen_before: bool
    earlier: Mapping[str, float]

    @property
    def record(self) -> dict[str, Any]:
        """The look as JSON-like data; p-values as text, since NaN is not JSON."""
        return {**asdict(self), "earlier": {key: repr(p) for key, p in sorted(self.earlier.items())}}


@dataclass(frozen=True)
class Family:
    """Corrected p-values of one look.

    Attributes:
        p_holm: (h,) Holm over this look's tests and those of earlier looks, `size` in all.
        q_value: (h,) Benjamini-Hochberg over the same.
        bonferroni: of this look's tests, those below their share of alpha / size.
        earlier: of `size`, tests of earlier looks alone.
    """

    p_holm: np.ndarray
    q_value: np.ndarray
    size: int
    bonferroni: int
    earlier: int = 0


def corrected(
    p_values: np.ndarray,
    keys: Sequence[str],
    look: Look,
    alpha: float,
    weights: np.ndarray | None = None,
    *,
    share: float = 1.0,
    planned: Collection[str] = (),
) -> Family:
    """Correct this look's p-values over the union with those of earlier looks.

    Where several sets of tests share alpha (`stability`), a corrected p is that of its set over its share.

    Args:
        p_values: (h,) of this look, one-sided where a direction was frozen, NaN where nothing could be tested.
        keys: of their tests.
        look: with the earlier ones' p-values.
        alpha: for the Bonferroni count.
        weights: (h,) of Holm's correction, as frozen in the plan; None for equal ones. Earlier tests weigh 1.
        share: of alpha that these tests have.
        planned: keys of the whole plan, which are no tests of earlier looks alone.
    """
    # A test whose p never came out still had its chance: it counts with p = 1.
    own_keys = {*keys, *planned}
    others = [p if np.isfinite(p) else 1.0 for key, p in sorted(look.earlier.items()) if key not in own_keys]
    together = np.concatenate([p_values, np.array(others, dtype=np.float64)])
    h, size = len(p_values), int(np.isfinite(together).sum())
    of_all = None if weights is None else np.concatenate([weights, np.ones(len(others))])
    return Family(
        p_holm=np.minimum(holm(together, of_all)[:h] / share, 1.0),
        q_value=np.minimum(benjamini_hochberg(together)[:h] / share, 1.0),
        size=size,
        bonferroni=int((p_values < alpha * share / max(size, 1)).sum()),
        earlier=len(others),
    )


def level(alpha: float, first: float, round_: int, spent: float = 0.0) -> float:
    """Family-wise error that the report of a round may spend: two significant digits, rounded down.

    The first report has `first` of alpha; of the rest the k-th refresh has 6 / (pi^2 k^2), which adds up to one.

    `round_` is 1 for the first holdout, k + 1 for the k-th refresh; `spent` is what earlier rounds have spent.
    """
    share = first if round_ == 1 else (1 - first) * 6 / (math.pi * (round_ - 1)) ** 2
    # As a share of alpha, so that rounding away the error of floating point leaves the smallest alpha something.
    left = round(min(share, 1 - spent / alpha), 12) * alpha
    if left <= 0:
        return 0.0
    digits = 1 - math.floor(math.log10(left))
    return round(math.floor(round(left * 10**digits, 6)) / 10**digits, digits)


def holdout_keys(observations: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """What a holdout is known by, with labels, sorted: (key str, label f64).

    One key per observation: its text folded, so that a holdout in lower case, or without full stops, is the same one;
    of a pair both, in alphabetical order and with the label to match, so that a pair turned round is the same one. And
    of texts a few runs of words that no other text of the holdout has, their keys marked.
    """
    names = texts.select("text_id", folded(texts["text"]).alias("folded"))
    sides = text_sides(observations)
    keyed = observations.select(*sides, "label")
    for side in sides:
        keyed = keyed.join(names.rename({"folded": f"{side}:folded"}), left_on=side, right_on="text_id", how="left")
    plain = [keyed[f"{side}:folded"] for side in sides]
    label = keyed["label"]
    if len(plain) == 2:
        label = pl.select(pl.when(plain[0] > plain[1]).then(1 - label).otherwise(label)).to_series()
    keys = [hash_json(sorted(row)) for row in zip(*plain, strict=True)]
    found = pl.DataFrame({"key": pl.Series(keys, dtype=pl.String), "label": label.alias("label")})
    if len(plain) == 1:
        distinct = plain[0].unique().sort()
        runs = pl.DataFrame({"folded": distinct, "key": [_runs(text) for text in distinct]}).explode("key").drop_nulls()
        runs = runs.filter(~pl.col("key").is_duplicated())
        labels = pl.DataFrame({"folded": plain[0], "label": label})
        found = pl.concat([found, runs.join(labels, on="folded").select("key", "label")])
    return found.unique().sort("key", "label")


def _runs(text: str) -> list[str]:
    """Marked keys of the runs of five words of a folded text whose checksums are smallest."""
    words = text.split(" ")
    sums = {crc32(" ".join(words[i : i + _RUN]).encode()) for i in range(len(words) - _RUN + 1)}
    return [f"{_MARK}{found:08x}" for found in sorted(sums)[:_RUNS]]


def holdout_fingerprint(keys: pl.DataFrame) -> str:
    """Fingerprint of a holdout: its texts with their labels, whatever clusters, controls or order they have."""
    parts = [hash_json([key, label]) for key, label in keys.filter(~_MARKED).iter_rows()]
    return set_fingerprint(parts, "holdout")[:16]


def one_holdout(first: pl.DataFrame, second: pl.DataFrame, *, same_column: bool = False) -> bool:
    """Whether two holdouts share texts and their outcomes, so that who looked at one has seen part of the other.

    A grown, shrunk or differently salted holdout shares texts and labels, and so does one whose outcome is coded
    otherwise: what counts is the order in which the outcomes put the shared texts. Two classes of one column, each
    against the rest, put them in opposite order wherever they differ. The same texts with an outcome of another order
    are another question, hence another holdout, unless both outcomes are classes of one column.
    """
    if _shared(first.filter(~_MARKED), second.filter(~_MARKED), _LEAST_SHARE, any_order=same_column):
        return True
    return _shared(first.filter(_MARKED), second.filter(_MARKED), _LEAST_RUNS, any_order=same_column)


def _shared(first: pl.DataFrame, second: pl.DataFrame, least: float, *, any_order: bool) -> bool:
    """Whether enough keys are shared, and the labels put the shared ones in one order or in the opposite one."""
    # A text that several rows rate has several labels: their mean stands for it.
    means = [keys.group_by("key").agg(pl.col("label").mean()) for keys in (first, second)]
    shared = means[0].join(means[1], on="key", suffix="_second").sort("key")
    smaller = min(len(part) for part in means)
    fewest = max(_FEWEST_SHARED, least * smaller)
    if not shared.height or shared.height < min(fewest, smaller):
        return False
    if any_order:
        return True
    some = shared.gather_every(max(1, shared.height // _MOST_COMPARED)).head(_MOST_COMPARED)
    orders = [np.sign(np.subtract.outer(values, values)) for values in (some[c].to_numpy() for c in some.columns[1:])]
    agreement = orders[0] * orders[1]
    decided = float(np.abs(agreement).sum())
    return decided == 0 or abs(float(agreement.sum())) >= _SAME_ORDER * decided


@dataclass(frozen=True)
class Decision:
    """What decides, for h hypotheses.

    Attributes:
        p_one_sided: (h,) for the frozen direction, two-sided where there is none; NaN where nothing could be tested.
        basis: what gave them: `plain`, `controls` or `distilled`, with `, ranks` and `, gold` where those decided too.
        checked: (h,) bool, whether labels of people corrected the judge.
        family: the correction of `p_one_sided`.
        p_against: (h,) corrected p of the opposite direction; 1 where none was frozen.
        p_worst: (h,) corrected p if the missing answers are those that speak most against the claim.
    """

    p_one_sided: np.ndarray
    basis: tuple[str, ...]
    checked: np.ndarray
    family: Family
    p_against: np.ndarray
    p_worst: np.ndarray


def decide(
    tests: Sequence[HypothesisTest],
    errors: Sequence[AnnotationError],
    planned: Sequence[PlannedTest],
    keys: Sequence[str],
    look: Look,
    alpha: float,
    *,
    ranks: bool,
    share: float = 1.0,
    plan: Collection[str] = (),
) -> Decision:
    """Choose and correct the p-values."""

    def family(p: np.ndarray, weights: np.ndarray | None) -> Family:
        return corrected(p, keys, look, alpha, weights, share=share, planned=plan)

    found = [_one(test, error, plan, ranks=ranks) for test, error, plan in zip(tests, errors, planned, strict=True)]
    p, worst = (np.array([one[k] for one in found], dtype=np.float64) for k in (0, 1))
    weights = np.array([plan.weight for plan in planned], dtype=np.float64)
    frozen = np.array([plan.direction != 0 for plan in planned])
    against = family(np.where(frozen, 1.0 - p, 1.0), None).p_holm
    return Decision(
        p_one_sided=p,
        basis=tuple(one[2] for one in found),
        checked=np.array([one[3] for one in found], dtype=bool),
        family=family(p, weights),
        p_against=against,
        p_worst=family(worst, weights).p_holm,
    )


def _one(
    test: HypothesisTest, error: AnnotationError, plan: PlannedTest, *, ranks: bool
) -> tuple[float, float, str, bool]:
    """(p, p with the worst answers, basis, whether people's labels count) of one hypothesis."""
    p, basis, checked = one_sided(test.separation.p_value, test.separation.estimate, plan.direction), test.basis, False
    if ranks and np.isfinite(test.rank.p_value):
        p, basis = one_sided(test.rank.p_value, test.rank.estimate, plan.direction), f"{basis}, ranks"
    gold = error.corrected.corrected if error.corrected else None
    if gold is not None and np.isfinite(gold.p_value) and np.isfinite(p):
        by_people = one_sided(gold.p_value, gold.estimate, plan.direction)
        p = by_people if basis == "plain" else max(p, by_people)
        basis, checked = f"{basis}, gold", True
    if not np.isfinite(test.worst.p_value):
        return p, p, basis, checked
    return p, max(p, one_sided(test.worst.p_value, test.worst.estimate, plan.direction)), basis, checked
