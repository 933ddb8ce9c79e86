"""Evaluations as records: where one came from, and two of them side by side, hypotheses matched one to one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from hsae_dagster.core.inference.joint_fit import phis

FILES = "labelled_texts"


@dataclass(frozen=True)
class Origin:
    """One result that an evaluation rests on: `created` in ISO 8601 (UTC), `upstream` the data versions that it read.

    `place` is its folder, relative to the results folder.
    """

    asset: str
    place: str
    data_version: str
    code_version: str
    run_id: str
    created: str
    upstream: Mapping[str, str]


@dataclass(frozen=True)
class EvaluationRecord:
    """One published evaluation.

    Attributes:
        number: from 1, in the order of publication.
        published: when it became current (ISO 8601, UTC).
        files: data version of the dataset's files and declaration that its corpus was made from.
        origins: everything it rests on, in the order of the stages.
        mixed: sentences about results that were made from other versions than those the evaluation read.
        summary: figures of the whole evaluation (JSON-like).
        hypotheses: rows (JSON-like): keys, claim, badge, effect, and how the hypothesis was known again.
    """

    dataset: str
    number: int
    published: str
    evaluation: Origin
    files: str
    origins: tuple[Origin, ...]
    mixed: tuple[str, ...]
    summary: Mapping[str, Any]
    hypotheses: tuple[Mapping[str, Any], ...]

    @property
    def key(self) -> str:
        """Short name of the evaluation: what its result was made from (12 hexadecimal characters)."""
        return PurePosixPath(self.evaluation.place).name[:12]

    def origin(self, asset: str) -> Origin | None:
        """What it rests on of one asset."""
        return next((origin for origin in self.origins if origin.asset == asset), None)

    def hypothesis(self, hypothesis_id: str) -> Mapping[str, Any] | None:
        """The row of one hypothesis, or None."""
        return next((row for row in self.hypotheses if row["hypothesis_id"] == hypothesis_id), None)


SAME_CLAIM = 0.7  # phi of annotations from which on two concepts are one hypothesis
LEAST_SHARED = 50  # texts that both have judged, below which phi says nothing


def annotation_phi(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """(h, k) float64 phi of annotations on the same texts, (n, h) and (n, k) int8: 1 yes, 0 no, -1 missing.

    NaN where fewer than `LEAST_SHARED` texts have both answers, or one of the two never varies.
    """
    judged_old, judged_new = (old >= 0).astype(np.float64), (new >= 0).astype(np.float64)
    yes_old, yes_new = (old == 1).astype(np.float64), (new == 1).astype(np.float64)
    n = judged_old.T @ judged_new
    first, second = yes_old.T @ judged_new, judged_old.T @ yes_new
    varies = (first > 0) & (first < n) & (second > 0) & (second < n)
    return np.where((n >= LEAST_SHARED) & varies, phis(yes_old.T @ yes_new, first, second, n), np.nan)


def match_hypotheses(phi: np.ndarray) -> list[tuple[int, int]]:
    """(old, new) positions of hypotheses that are one: the assignment of largest total phi (h, k), by the new ones.

    Two may be one from `SAME_CLAIM` on, when nearly the same texts have both concepts; NaN is unknown.
    """
    from scipy.optimize import linear_sum_assignment

    able = phi >= SAME_CLAIM
    pairs = zip(*linear_sum_assignment(np.where(able, phi, 0.0), maximize=True), strict=True)
    return sorted(((int(i), int(j)) for i, j in pairs if able[i, j]), key=lambda pair: pair[1])


Kind = Literal["appeared", "vanished", "moved", "unchanged"]
_ORDER = {"appeared": 0, "moved": 1, "vanished": 2, "unchanged": 3}


@dataclass(frozen=True)
class Standing:
    """How one hypothesis stands in one evaluation; effects in outcome units, NaN where not estimable."""

    hypothesis_id: str
    claim: str
    badge: str
    estimate: float
    low: float
    high: float

    @staticmethod
    def of(row: Mapping[str, Any]) -> "Standing":
        """From a row of the table of hypotheses, or of a record made from one (null stands for NaN)."""
        effect = {
            name: math.nan if row[f"effect_{name}"] is None else float(row[f"effect_{name}"])
            for name in ("estimate", "low", "high")
        }
        return Standing(row["hypothesis_id"], row["claim"], row["badge"], **effect)


@dataclass(frozen=True)
class Change:
    """One hypothesis in two evaluations.

    Attributes:
        before: its standing in the earlier one, None when it appeared.
        after: its standing in the later one, None when it vanished.
        effect: whether the later estimate lies outside the earlier interval, or stopped or began to be estimable.
    """

    kind: Kind
    before: Standing | None
    after: Standing | None
    verdict: bool = False
    effect: bool = False
    words: bool = False

    @property
    def standing(self) -> Standing:
        """The later standing, or the last one that it had."""
        found = self.after or self.before
        assert found is not None  # a change is of something
        return found


def by_concept(rows: Iterable[Mapping[str, Any]]) -> list[Standing]:
    """Standings keyed by their concepts, for `compare` between datasets, whose hypotheses have ids of their own."""
    return [Standing.of({**row, "hypothesis_id": row["concept_id"]}) for row in rows]


def compare(before: Iterable[Standing], after: Iterable[Standing]) -> list[Change]:
    """Every hypothesis of either evaluation, in the order appeared, moved, vanished, unchanged, then as given."""
    old, new = ({s.hypothesis_id: s for s in side} for side in (before, after))
    changes = [_change(old.get(key), standing) for key, standing in new.items()]
    changes += [Change("vanished", standing, None) for key, standing in old.items() if key not in new]
    return sorted(changes, key=lambda change: _ORDER[change.kind])


def _change(before: Standing | None, after: Standing) -> Change:
    if before is None:
        return Change("appeared", None, after)
    differs = {
        "verdict": before.badge != after.badge,
        "effect": _moved(before, after),
        "words": before.claim != after.claim,
    }
    return Change("moved" if any(differs.values()) else "unchanged", before, after, **differs)


def _moved(before: Standing, after: Standing) -> bool:
    known = math.isfinite(before.estimate), math.isfinite(after.estimate)
    if known[0] != known[1]:
        return True
    return known[0] and not before.low <= after.estimate <= before.high
