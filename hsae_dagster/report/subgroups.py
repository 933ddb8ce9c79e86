"""Effects by subgroup as a report shows and stores them.

Belongs here: the table's columns, its words. Does not belong here: the figures (`core.subgroups`).
"""

import math
from dataclasses import dataclass

import polars as pl

from hsae_dagster.core.subgroups import SubgroupEffect
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import count, effect_brief, one_line, p_phrase, p_value, partial_brief, plural

_FIGURES = ("estimate", "standard_error", "low", "high", "p_value", "degrees_of_freedom")
SUBGROUP_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "hypothesis_id": pl.String,
    "claim": pl.String,
    "covariate": pl.String,
    "level": pl.String,
    "n": pl.Int64,
    "n_with": pl.Int64,
    "n_clusters": pl.Int64,
    **{f"effect_{name}": pl.Float64 for name in _FIGURES},
    "effect_p_holm": pl.Float64,
    **{f"difference_{name}": pl.Float64 for name in _FIGURES},
    "difference_p_holm": pl.Float64,
}


@dataclass(frozen=True)
class SubgroupView:
    """The table of the page: (hypothesis id, claim, subgroup, figures in words) per row, and what holds in words."""

    rows: tuple[tuple[str, str, str, tuple[str, ...]], ...]
    reading: str


def subgroup_records(content: ReportContent) -> list[tuple[object, ...]]:
    """Rows of `SUBGROUP_SCHEMA`: every hypothesis in every subgroup with enough texts."""
    return [
        (
            h.hypothesis_id,
            h.claim,
            *(getattr(one, name) for name in ("covariate", "level", "n", "n_with", "n_clusters")),
            *(getattr(one.effect, name) for name in _FIGURES),
            one.p_holm,
            *(getattr(one.difference, name) for name in _FIGURES),
            one.difference_p_holm,
        )
        for h in content.hypotheses
        for one in h.subgroups
    ]


def subgroup_view(content: ReportContent) -> SubgroupView | None:
    """What the page shows; None where no subgroup was asked for, or none has enough texts."""
    rows = [
        (h.hypothesis_id, h.claim, subgroup_name(one), _figures(one, content.task))
        for h in content.hypotheses
        for one in h.subgroups
    ]
    return SubgroupView(tuple(rows), _reading(content)) if rows else None


def _figures(one: SubgroupEffect, task: str) -> tuple[str, ...]:
    return (
        effect_brief(one.effect, task),
        p_value(one.p_holm),
        partial_brief(one.difference, task),
        p_value(one.difference_p_holm),
        count(one.n),
        count(one.n_with),
    )


def _reading(content: ReportContent) -> str:
    alpha = content.alpha
    every = [(h, one) for h in content.hypotheses for one in h.subgroups]
    holding = sum(one.p_holm < alpha for _, one in every)
    differing = [h for h in content.hypotheses if any(one.difference_p_holm < alpha for one in h.subgroups)]
    return (
        f"Of {plural(len(every), 'effect')} within subgroups, {holding} {'differs' if holding == 1 else 'differ'} from "
        f"none after Holm's correction over all of them; the effect of {plural(len(differing), 'hypothesis')} differs "
        "between subgroups after a correction of its own. Verdicts rest on all held-out texts together and do not read "
        "this table."
    )


def subgroup_name(one: SubgroupEffect) -> str:
    """`side = north`."""
    return f"{one_line(one.covariate)} = {one_line(one.level)}"


def difference_words(one: SubgroupEffect, content: ReportContent) -> str:
    """How the effect in a subgroup compares with that elsewhere."""
    if not math.isfinite(one.difference.estimate):
        return "too few texts elsewhere to compare"
    corrected = p_phrase("Holm's p", one.difference_p_holm)
    return f"{partial_brief(one.difference, content.task)} against elsewhere ({corrected})"
