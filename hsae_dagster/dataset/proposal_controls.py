"""Which columns could be held constant, and which had better not.

Belongs here: leaving out of the suggestion the numbers that the outcome is likely made of, each with its reason. Does
not belong here: how the suggestion is written (`proposal`), or what holding constant does (`core.partial_effects`).
"""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from hsae_dagster.dataset.column_profile import ColumnProfile, words_of
from hsae_dagster.dataset.percents import percents
from hsae_dagster.dataset.proposal_roles import ASKING, CLUSTER_NAMES, LABEL_NAMES, RATE_NAMES, TEXT_NAMES, is_rate

# From here on a number says too much of the outcome to be told from a part, or a consequence, of it.
CLOSE = 0.5
COUNT_NAMES = frozenset({"count", "counts", "total", "number", "num", "n", "sum"})
# Words that say nothing of what is measured.
GENERAL = LABEL_NAMES | RATE_NAMES | CLUSTER_NAMES | TEXT_NAMES | COUNT_NAMES
GENERAL |= {"mean", "average", "avg", "median", "min", "max", "overall", "the", "an", "of", "in", "per", "to", "and"}
GENERAL |= ASKING


def sort_out(
    frame: pl.DataFrame, candidates: Sequence[ColumnProfile], label: ColumnProfile, positive: Any
) -> tuple[list[str], list[str]]:
    """Candidates for controls, and those left out, each as half a sentence with its reason.

    A number is left out if it shares a word with the outcome's name, if it is a count and the outcome a rate, or if its
    rank correlation (Spearman) with the outcome is at least `CLOSE` in size. Categories are never left out.

    Args:
        frame: all rows.
        candidates: columns not used otherwise.
        label: the outcome.
        positive: its class that counts as 1, or None.
    """
    outcome = _amounts(frame, label, positive)
    kept, left_out = [], []
    for column in candidates:
        reason = _reason(column, _amounts(frame, column, None), label, outcome)
        if reason is None:
            kept.append(column.name)
        else:
            left_out.append(f"`{column.name}` ({reason})")
    return kept, left_out


def _reason(
    column: ColumnProfile, values: pl.Series | None, label: ColumnProfile, outcome: pl.Series | None
) -> str | None:
    if values is None:
        return None
    if shared := sorted(_telling(column) & _telling(label)):
        return f"its name says “{shared[0]}”, too"
    if is_rate(label) and _counts(column, values):
        return "a count beside a rate"
    rank = _rank_correlation(values, outcome) if outcome is not None else 0.0
    return f"rank correlation {rank:.2f}" if abs(rank) >= CLOSE else None


def _telling(column: ColumnProfile) -> set[str]:
    """Words of the name that say what is measured, singular and plural alike."""
    return {word.removesuffix("s") for word in set(words_of(column.name)) - GENERAL if len(word) > 1}


def _counts(column: ColumnProfile, values: pl.Series) -> bool:
    """Whether a column holds whole numbers from 0 up under the name of things that are counted, such as a plural."""
    words = words_of(column.name)
    plural = bool(words) and len(words[-1]) > 3 and words[-1].endswith("s") and not words[-1].endswith("ss")
    named = plural or bool(set(words) & COUNT_NAMES)
    return column.kind == "number" and column.whole and named and bool((values.drop_nulls() >= 0).all())


def _amounts(frame: pl.DataFrame, column: ColumnProfile, positive: Any) -> pl.Series | None:
    """The column as f64, null where nothing is known; None for classes, which have no order."""
    series = frame[column.name]
    if column.kind == "number":
        if series.dtype != pl.String:
            return series.cast(pl.Float64, strict=False)
        plain = series.str.strip_chars()
        return percents(plain) if column.percent else plain.cast(pl.Float64, strict=False)
    first = positive if positive is not None else column.levels[0][0] if column.kind == "flag" else None
    if first is None:
        return None
    plain = series.cast(pl.String).str.strip_chars().str.to_lowercase()
    return (plain == str(first).lower()).cast(pl.Float64)


def _rank_correlation(values: pl.Series, outcome: pl.Series) -> float:
    """Spearman's rho over the rows where both are known; 0 where either is constant."""
    both = pl.DataFrame({"x": values, "y": outcome}).fill_nan(None).drop_nulls()
    rho = both.select(pl.corr("x", "y", method="spearman")).item() if both.height > 2 else None
    return float(rho) if rho is not None and math.isfinite(rho) else 0.0
