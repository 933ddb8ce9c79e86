"""A card as a picture: for a README, a slide, a mail.

Belongs here: one hypothesis, its figures and its lineage as one SVG. Does not belong here: texts of the dataset (a
picture travels further than data may), the card itself (`card_view`).
"""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

from hsae_dagster.core.cluster_robust import Effect
from hsae_dagster.core.lineage import FILES, EvaluationRecord
from hsae_dagster.report.canvas import NEGATIVE, POSITIVE
from hsae_dagster.report.templates import template
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    count,
    effect_figure,
    one_line,
    p_value,
    percent,
    shorten,
    shown,
)

WIDTH, _MARGIN, _PER_ROW, _BOX = 860, 28, 5, 146
_CLAIM_CHARACTERS, _CLAIM_LINES = 60, 3
_COLOURS = {
    "confirmed": "#0b5d4a",
    "confirmed, judge unchecked": "#0b5d4a",
    "suggestive": "#8a5f0e",
    "not supported": "#5b6570",
    "invalid": "#b3372b",
}


def card_svg(record: EvaluationRecord, row: Mapping[str, Any]) -> str:
    """One hypothesis as an SVG document.

    Args:
        record: its evaluation.
        row: of the evaluation's table of hypotheses.
    """
    task, outcome = str(record.summary["task"]), str(record.summary["outcome"])
    effect = Effect(
        row["effect_estimate"],
        row["effect_standard_error"],
        row["effect_low"],
        row["effect_high"],
        row["effect_p_value"],
        row["effect_estimator"],
    )
    claim = textwrap.wrap(capitalised(one_line(row["claim"])), _CLAIM_CHARACTERS)[:_CLAIM_LINES]
    boxes = _boxes(record, str(row["hypothesis_id"]))
    told = effect_figure(effect, task, outcome)
    return str(
        template("card.svg.j2").render(
            width=WIDTH,
            height=82 + 28 * len(claim) + 140 + 54 * (1 + boxes[-1]["row"]) + 12,
            alt=f"{row['badge']}: {' '.join(claim)}; {told}",
            colour=_COLOURS[row["badge"]],
            badge=row["badge"],
            badge_width=24 + 8 * len(row["badge"]),
            reason=shorten(capitalised(row["reason"]), 92),
            claim=claim,
            effect=f"{told}, 95 % interval",
            strip=_strip(effect, task),
            facts=_facts(row),
            step=(WIDTH - 2 * _MARGIN) / 5,
            boxes=boxes,
            box_width=_BOX,
        )
    )


def _facts(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Tested on", f"{count(row['n'])}"),
        ("Clusters", f"{count(row['n_clusters'])}"),
        ("Holds for", percent(row["prevalence"])),
        ("p, corrected (Holm)", p_value(row["p_holm"])),
        ("Of its neuron", _coverage(row)),
    ]


def _coverage(row: Mapping[str, Any]) -> str:
    if not row["sae_id"]:
        return "no neuron"
    precision, recall = (row[f"fidelity_natural_{name}"] for name in ("precision", "recall"))
    known = all(value is not None and math.isfinite(value) for value in (precision, recall))
    return f"{percent(precision)} / {percent(recall)}" if known else NOT_ESTIMABLE


def _strip(effect: Effect, task: str) -> dict[str, Any] | None:
    s = shown(effect, task)
    if not all(math.isfinite(value) for value in (s.low, s.estimate, s.high)):
        return None
    reach = 1.15 * max(abs(end - s.zero) for end in (s.low, s.high)) or 1.0

    def place(value: float) -> float:
        return round(WIDTH / 2 + (WIDTH / 2 - _MARGIN) * (value - s.zero) / reach, 1)

    colour = POSITIVE if s.estimate >= s.zero else NEGATIVE
    ends = {name: place(getattr(s, name)) for name in ("zero", "low", "high", "estimate")}
    return {**ends, "colour": colour}


def _boxes(record: EvaluationRecord, hypothesis_id: str) -> list[dict[str, Any]]:
    steps = [(FILES, record.files), *((o.asset, o.data_version) for o in (*record.origins, record.evaluation))]
    steps.append(("hypothesis_card", hypothesis_id))
    space = (WIDTH - 2 * _MARGIN - _BOX) / (_PER_ROW - 1)
    return [
        {
            "x": round(_MARGIN + (k % _PER_ROW) * space, 1),
            "row": k // _PER_ROW,
            "name": name,
            "version": version[:12],
            "last": k == len(steps) - 1 or k % _PER_ROW == _PER_ROW - 1,
        }
        for k, (name, version) in enumerate(steps)
    ]
