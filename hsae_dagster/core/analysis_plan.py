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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from hsae_dagster.core.inference import benjamini_hochberg, bonferroni_count, holm
from hsae_dagster.core.observations import text_sides
from hsae_dagster.keys import hash_json, set_fingerprint

Source = Literal["found", "yours"]
# Shared texts whose outcomes agree this often are one holdout with a few corrected labels; another outcome is not.
_SAME_OUTCOME = 0.999


@dataclass(frozen=True)
class PlannedTest:
    """One hypothesis of the plan.

    Attributes:
        concept_id: key of the concept.
        claim: the predicate.
        source: `found` by the pipeline or `yours` (written in dataset.yaml).
        direction: sign of the effect expected from training texts or declared; 0 for none.
    """

    concept_id: str
    claim: str
    source: Source
    direction: int


@dataclass(frozen=True)
class AnalysisPlan:
    """Everything that decides what a holdout is asked.

    Attributes:
        holdout: fingerprint of the holdout's texts and labels.
        tests: the hypotheses, in rank order; their number is the family of this look.
        annotation: who judges the concepts, on what sample, with which prompt.
        model: outcome, task, unit of clustering and controls: what the tests estimate and how sure they are.
        gates: alpha and the gates of the verdict.
        controls_part_rows: whether rows of the holdout differ in nothing but their controls. Only then do controls
            change what is tested, since such rows are no duplicates of each other. It follows from the data that the
            plan names, so it is no part of the record.
    """

    holdout: str
    tests: tuple[PlannedTest, ...]
    annotation: Mapping[str, Any]
    model: Mapping[str, Any]
    gates: Mapping[str, Any]
    controls_part_rows: bool = False

    @property
    def record(self) -> dict[str, Any]:
        """The plan as JSON-like data."""
        fields = {name: value for name, value in asdict(self).items() if name != "controls_part_rows"}
        return {**fields, "tests": [asdict(test) for test in self.tests]}

    @property
    def fingerprint(self) -> str:
        """Key of the plan (16 hexadecimal characters): equal plans are one look, however often they are evaluated."""
        return hash_json(self.record)[:16]

    def test_key(self, concept_id: str) -> str:
        """Key of one test: the concept, its judge and the model of the plain effect.

        Gates change verdicts, not what is tested. Controls enter the effects shown beside the plain one, which are not
        corrected for many tests because no verdict is confirmed by them; the p-value that is corrected is the same
        whatever they are, so two plans that differ in controls alone share their tests.
        """
        model = dict(self.model)
        if "controls" in model and not self.controls_part_rows:
            model["controls"] = []
        return hash_json({"concept": concept_id, "annotation": dict(self.annotation), "model": model})[:16]


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
        bonferroni: of this look's tests, those below alpha / size.
    """

    p_holm: np.ndarray
    q_value: np.ndarray
    size: int
    bonferroni: int


def corrected(p_values: np.ndarray, keys: Sequence[str], look: Look, alpha: float) -> Family:
    """Correct this look's p-values over the union with those of earlier looks.

    Args:
        p_values: (h,) of this look, NaN where nothing could be tested.
        keys: h test keys.
        look: which look it is.
        alpha: for the Bonferroni count.
    """
    # A test whose p never came out still had its chance: it counts with p = 1.
    others = [p if np.isfinite(p) else 1.0 for key, p in sorted(look.earlier.items()) if key not in set(keys)]
    together = np.concatenate([p_values, np.array(others, dtype=np.float64)])
    h, size = len(p_values), int(np.isfinite(together).sum())
    return Family(
        p_holm=holm(together)[:h],
        q_value=benjamini_hochberg(together)[:h],
        size=size,
        bonferroni=bonferroni_count(p_values, alpha, size),
    )


def holdout_keys(observations: pl.DataFrame) -> pl.DataFrame:
    """Key of each observation's text or pair and its label, sorted: (key str, label f64)."""
    return (
        observations.select(pl.concat_str(text_sides(observations)).alias("key"), "label")
        .unique(maintain_order=True)
        .sort("key", "label")
    )


def parted_by_controls(observations: pl.DataFrame) -> bool:
    """Whether some observations differ in nothing but their controls (`control:` columns)."""
    content = [name for name in observations.columns if name != "obs_id" and not name.startswith("control:")]
    return observations.select(content).is_duplicated().any()


def holdout_fingerprint(keys: pl.DataFrame) -> str:
    """Fingerprint of a holdout: its texts with their labels, whatever clusters, controls or order they have."""
    parts = [hash_json([key, label]) for key, label in keys.iter_rows()]
    return set_fingerprint(parts, "holdout")[:16]


def one_holdout(first: pl.DataFrame, second: pl.DataFrame) -> bool:
    """Whether two holdouts share texts and their outcomes, so that who looked at one has seen part of the other.

    A grown, shrunk or differently salted holdout shares texts and labels. The same texts with another outcome (other
    labels) are another question, hence another holdout.

    Args:
        first: as `holdout_keys` gives it.
        second: likewise.
    """
    # A text that several rows rate has several labels: their mean stands for it.
    means = [keys.group_by("key").agg(pl.col("label").mean()) for keys in (first, second)]
    shared = means[0].join(means[1], on="key", suffix="_second")
    agree = int(((shared["label"] - shared["label_second"]).abs() < 1e-9).sum())
    return shared.height > 0 and agree >= _SAME_OUTCOME * shared.height
