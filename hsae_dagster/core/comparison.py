"""Two evaluations of a dataset side by side: what appeared, vanished, moved.

Belongs here: pairing hypotheses by id and saying what differs. Does not belong here: ids (`core.matching`) or words.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["appeared", "vanished", "moved", "unchanged"]
_ORDER = {"appeared": 0, "moved": 1, "vanished": 2, "unchanged": 3}


@dataclass(frozen=True)
class Standing:
    """How one hypothesis stands in one evaluation; effects in outcome units, NaN where not estimable."""

    hypothesis_id: str
    rank: int
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
        return Standing(row["hypothesis_id"], row["rank"], row["claim"], row["badge"], **effect)


@dataclass(frozen=True)
class Change:
    """One hypothesis in two evaluations.

    Attributes:
        kind: appeared, vanished, moved or unchanged.
        before: its standing in the earlier one, None when it appeared.
        after: its standing in the later one, None when it vanished.
        verdict: whether the badge differs.
        effect: whether the later estimate lies outside the earlier interval, or stopped or began to be estimable.
        words: whether the claim's words differ.
        rank: whether its place in selection differs.
    """

    kind: Kind
    before: Standing | None
    after: Standing | None
    verdict: bool = False
    effect: bool = False
    words: bool = False
    rank: bool = False

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
        "rank": before.rank != after.rank,
    }
    return Change("moved" if any(differs.values()) else "unchanged", before, after, **differs)


def _moved(before: Standing, after: Standing) -> bool:
    known = math.isfinite(before.estimate), math.isfinite(after.estimate)
    if known[0] != known[1]:
        return True
    return known[0] and not before.low <= after.estimate <= before.high
