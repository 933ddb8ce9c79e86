"""What will be tested and how, fixed before a holdout text is judged; and how often a holdout has been looked at.

Belongs here: the plan, its fingerprint, what makes two holdouts one, and the p-values of a family that several looks
share. Does not belong here: where plans and looks are kept (`storage.holdouts`) or the tests (`core.inference`).

A holdout is unused once. Every plan evaluated on it after the first is a further look, and what it tests joins one
family with everything that earlier looks tested there: Holm's correction runs over the union. A test that two looks
share counts once. The union is the right family because the report of a look replaces the earlier ones, and because
nobody can say which of several looks would have been shown. It bounds the error of every look by alpha as long as later
hypotheses were not made from what an earlier look showed about the holdout; no correction knows what a person learned
from reading a report, so every further look is labelled as well (Dwork et al. 2015, "The reusable holdout").
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from hsae_dagster.core.inference import benjamini_hochberg, bonferroni_count
from hsae_dagster.core.multiple_tests import weighted_holm
from hsae_dagster.core.near_texts import folded
from hsae_dagster.core.observations import text_sides
from hsae_dagster.keys import hash_json, set_fingerprint

Source = Literal["found", "yours"]
# Pairs of shared texts that two outcomes put in one order (or in the opposite one) so often have one outcome in two
# codings: a logarithm, a median split, one class against the rest, a few corrected labels.
_SAME_ORDER = 0.95
# Holdouts that share fewer texts share phrases that everybody writes.
_FEWEST_SHARED, _LEAST_SHARE = 5, 0.01
_MOST_COMPARED = 1_500


@dataclass(frozen=True)
class PlannedTest:
    """One hypothesis of the plan.

    Attributes:
        concept_id: key of the concept.
        claim: the predicate.
        source: `found` by the pipeline or `yours` (written in dataset.yaml).
        direction: sign of the effect expected from training texts or declared; 0 for none.
        weight: of its p-value in Holm's correction, from training texts (`multiple_tests.training_weights`).
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
    """Everything that decides what a holdout is asked.

    Attributes:
        holdout: fingerprint of the holdout's texts and labels.
        tests: the hypotheses, in rank order; their number is the family of this look.
        annotation: who judges the concepts, on what sample, with which prompt.
        model: outcome, task, unit of clustering and controls: what the tests estimate and how sure they are.
        gates: alpha and the gates of the verdict.
    """

    holdout: str
    tests: tuple[PlannedTest, ...]
    annotation: Mapping[str, Any]
    model: Mapping[str, Any]
    gates: Mapping[str, Any]

    @property
    def record(self) -> dict[str, Any]:
        """The plan as JSON-like data."""
        # A plan for a holdout reads, and is keyed, as before there were halves.
        found = [asdict(test) for test in self.tests]
        tests = [{name: value for name, value in test.items() if (name, value) != ("half", "")} for test in found]
        return {**asdict(self), "tests": tests}

    @property
    def fingerprint(self) -> str:
        """Key of the plan (16 hexadecimal characters): equal plans are one look, however often they are evaluated."""
        return hash_json(self.record)[:16]

    def test_key(self, concept_id: str, half: str = "") -> str:
        """Key of one test: the concept, its judge and the model of the effect that decides, controls included.

        Gates change verdicts, not what is tested. The half that a claim was found in says which rows test it.
        """
        named = {"concept": concept_id, "annotation": dict(self.annotation), "model": dict(self.model)}
        return hash_json(named | ({"half": half} if half else {}))[:16]


@dataclass(frozen=True)
class Look:
    """One evaluation of a holdout.

    Attributes:
        number: 1 for the first look at this holdout.
        plan: fingerprint of the plan evaluated.
        frozen_before: whether this very plan was written down before the holdout's texts were judged.
        earlier: p-values of everything earlier looks tested, by test key (NaN: tested, but no p came out).
        earlier_plans: fingerprints of the plans of earlier looks, first one first.
    """

    number: int
    plan: str
    frozen_before: bool
    earlier: Mapping[str, float]
    earlier_plans: tuple[str, ...]

    @property
    def record(self) -> dict[str, Any]:
        """The look as JSON-like data; p-values as text, since NaN is not JSON."""
        return {**asdict(self), "earlier": {key: repr(p) for key, p in sorted(self.earlier.items())}}


@dataclass(frozen=True)
class Family:
    """Corrected p-values of one look.

    Attributes:
        p_holm: (h,) Holm over this look's tests and those of earlier looks.
        q_value: (h,) Benjamini-Hochberg over the same.
        size: tests in the family.
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

    Where several sets of tests share alpha (`core.cross_fitting`), a corrected p is that of its set over its share.

    Args:
        p_values: (h,) of this look, one-sided where a direction was frozen, NaN where nothing could be tested.
        keys: h test keys.
        look: which look it is.
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
    own = np.ones(h) if weights is None else weights
    return Family(
        p_holm=np.minimum(weighted_holm(together, np.concatenate([own, np.ones(len(others))]))[:h] / share, 1.0),
        q_value=np.minimum(benjamini_hochberg(together)[:h] / share, 1.0),
        size=size,
        bonferroni=bonferroni_count(p_values, alpha * share, size),
        earlier=len(others),
    )


def holdout_keys(observations: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Key of each observation's text or pair and its label, sorted: (key str, label f64).

    Keys are of folded texts: a holdout in lower case, or without full stops, is the same one.

    Args:
        observations: of the holdout.
        texts: with text_id and text of all of them.
    """
    names = texts.select("text_id", folded(texts["text"]).alias("folded"))
    keyed = observations.select(*text_sides(observations), "label")
    for side in text_sides(observations):
        keyed = keyed.join(names.rename({"folded": f"{side}:folded"}), left_on=side, right_on="text_id", how="left")
    sides = [f"{side}:folded" for side in text_sides(observations)]
    keys = [hash_json(list(row)) for row in keyed.select(sides).iter_rows()]
    return keyed.select(pl.Series("key", keys, dtype=pl.String), "label").unique().sort("key", "label")


def holdout_fingerprint(keys: pl.DataFrame) -> str:
    """Fingerprint of a holdout: its texts with their labels, whatever clusters, controls or order they have."""
    parts = [hash_json([key, label]) for key, label in keys.iter_rows()]
    return set_fingerprint(parts, "holdout")[:16]


def one_holdout(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two holdouts share texts and their outcomes, so that who looked at one has seen part of the other.

    A grown, shrunk or differently salted holdout shares texts and labels, and so does one whose outcome is coded
    otherwise: what counts is the order in which the outcomes put the shared texts. Two classes of one column, each
    against the rest, put them in opposite order wherever they differ. The same texts with an outcome of another order
    are another question, hence another holdout.

    Args:
        first: as `holdout_keys` gives it.
        second: likewise.
    """
    # A text that several rows rate has several labels: their mean stands for it.
    means = [keys.group_by("key").agg(pl.col("label").mean()) for keys in (first, second)]
    shared = means[0].join(means[1], on="key", suffix="_second").sort("key")
    fewest = max(_FEWEST_SHARED, _LEAST_SHARE * min(len(part) for part in means))
    if shared.height < min(fewest, *(len(part) for part in means)):
        return False
    some = shared.gather_every(max(1, shared.height // _MOST_COMPARED)).head(_MOST_COMPARED)
    orders = [np.sign(np.subtract.outer(values, values)) for values in (some[c].to_numpy() for c in some.columns[1:])]
    agreement = orders[0] * orders[1]
    decided = float(np.abs(agreement).sum())
    return decided == 0 or abs(float(agreement.sum())) >= _SAME_ORDER * decided
