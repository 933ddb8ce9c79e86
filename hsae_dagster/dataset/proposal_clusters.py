"""Columns that settle the outcome, and clusters that hold too much.

Belongs here: what of clusters follows from the rows rather than from names. Does not belong here: which column looks
like a cluster by its name (`proposal_roles`), or splitting (`core.corpus`).
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from hsae_dagster.dataset.column_profile import MISSING_MARKS, WHEN, ColumnProfile, words_of
from hsae_dagster.dataset.controls import settles
from hsae_dagster.dataset.proposal_roles import CLUSTER_NAMES, FEWEST_CLUSTERS, KEY_WORDS, Choice

LARGE = 0.5


def with_settling(
    frame: pl.DataFrame,
    columns: Sequence[ColumnProfile],
    label: ColumnProfile,
    taken: Sequence[str],
    found: Choice | None,
) -> Choice | None:
    """The cluster: if need be a column within whose levels the outcome does not differ, however few these are.

    Rows that share such a level are one observation of the outcome, however many texts they have. A column of few
    levels without a name that says so may also be the outcome in other words, so the choice is then not sure.

    Args:
        frame: all rows.
        columns: their profiles.
        label: the outcome.
        taken: columns that are used otherwise or say the same as the outcome.
        found: the cluster that was chosen by name.
    """
    settling = [c for c in columns if c.name not in taken and c.name != label.name and _settles(frame, c, label)]
    if not settling or (found and found.name in {c.name for c in settling}):
        return found
    # The coarsest: what is finer is settled through it.
    best = min(settling, key=lambda c: c.distinct)
    why = (
        f"Rows that share `{best.name}` ({best.distinct:,} different) do not differ in `{label.name}`, so they are one "
        "observation of it. Kept on one side of every split."
    )
    if best.distinct < FEWEST_CLUSTERS and not _named(best):
        why += f" If `{best.name}` is the outcome in other words, leave it out (--cluster-by none)."
    others = [c.name for c in settling if c is not best] + ([found.name] if found else [])
    return Choice(best, why, False, tuple(others))


def _settles(frame: pl.DataFrame, column: ColumnProfile, label: ColumnProfile) -> bool:
    """Whether the outcome is the same wherever the column is, and no cut or grade of the column."""
    usable = column.kind in ("key", "category", "text", "flag", "date", "number") and not column.scale
    usable = usable and not (column.kind == "number" and WHEN & set(words_of(column.name)))
    if not usable or column.separator is not None or not label.distinct < column.distinct < 0.95 * column.rows:
        return False
    level, outcome = (frame.select(_plain(name)).to_series() for name in (column.name, label.name))
    if not settles(level, outcome):
        return False
    return column.kind != "number" or _named(column) or not _in_order(level, outcome)


def _named(column: ColumnProfile) -> bool:
    return bool((CLUSTER_NAMES | KEY_WORDS) & set(words_of(column.name)))


def _in_order(level: pl.Series, outcome: pl.Series) -> bool:
    """Whether each outcome has a range of the numbers of its own, so that the outcome was cut from them."""
    rows = pl.DataFrame({"level": level.cast(pl.Float64, strict=False), "outcome": outcome}).drop_nulls()
    runs = rows.sort("level")["outcome"].rle_id().n_unique()
    return runs <= 2 * rows["outcome"].n_unique()


def _plain(name: str) -> pl.Expr:
    """Values as they are compared; null where there is none."""
    value = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return pl.when(value.is_in(["", *MISSING_MARKS])).then(None).otherwise(value)


def doubt_large(frame: pl.DataFrame, cluster: Choice) -> Choice:
    """The choice with a doubt where one cluster holds half of the rows: it lands in one split, whole."""
    values = frame.select(_plain(cluster.name).alias("level")).to_series().drop_nulls()
    if not values.len():
        return cluster
    largest = values.value_counts(sort=True).row(0)
    share = largest[1] / values.len()
    if share < LARGE:
        return cluster
    why = (
        f"{cluster.why} One of them, “{str(largest[0])[:40]}”, has {share:.0%} of the rows and lies in one split, "
        "whole: what is left may be too little to learn from or to test on."
    )
    return replace(cluster, why=why, sure=False)
