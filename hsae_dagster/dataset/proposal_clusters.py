"""Columns that settle the outcome, and clusters that hold too much.

Belongs here: what of clusters follows from the rows rather than from names. Does not belong here: which column looks
like a cluster by its name (`proposal_roles`), or splitting (`core.corpus`).
"""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl

from hsae_dagster.dataset.column_profile import MISSING_MARKS, ColumnProfile, words_of
from hsae_dagster.dataset.proposal_roles import CLUSTER_NAMES, FEWEST_CLUSTERS, KEY_WORDS, Choice

# A column settles the outcome if its levels agree more often than chance would let them once in a thousand tables.
CHANCE = 1e-3
FEWEST_REPEATS = 0.05
LARGE = 0.5


def with_settling(
    frame: pl.DataFrame,
    columns: Sequence[ColumnProfile],
    label: ColumnProfile,
    taken: Sequence[str],
    found: Choice | None,
) -> tuple[Choice | None, list[str]]:
    """The cluster, if need be a column within whose levels the outcome never differs; and remarks.

    Rows that share such a level are one observation of the outcome, however many texts they have. A column of few
    levels without a name that says so may also be the outcome in other words, and is only remarked on.

    Args:
        frame: all rows.
        columns: their profiles.
        label: the outcome.
        taken: columns that are used otherwise or say the same as the outcome.
        found: the cluster that was chosen by name.
    """
    settling = [c for c in columns if c.name not in taken and c.name != label.name and _settles(frame, c, label)]
    sure = [c for c in settling if c.distinct >= FEWEST_CLUSTERS or (CLUSTER_NAMES | KEY_WORDS) & set(words_of(c.name))]
    remarks = [
        f"`{c.name}` settles `{label.name}`: rows that share it never differ in the outcome. If it is not the "
        "outcome in other words, it is the cluster (--cluster-by)."
        for c in settling
        if c not in sure
    ]
    if not sure or (found and found.name in {c.name for c in sure}):
        return found, remarks
    # The coarsest: what is finer is settled through it.
    best = min(sure, key=lambda c: c.distinct)
    why = (
        f"Rows that share `{best.name}` ({best.distinct:,} different) never differ in `{label.name}`, so they are one "
        "observation of it. Kept on one side of every split."
    )
    others = [c.name for c in sure if c is not best] + ([found.name] if found else [])
    return Choice(best, why, False, tuple(others)), remarks


def _settles(frame: pl.DataFrame, column: ColumnProfile, label: ColumnProfile) -> bool:
    """Whether the outcome is the same wherever the column is, more than by chance."""
    named = bool((CLUSTER_NAMES | KEY_WORDS) & set(words_of(column.name)))
    usable = column.kind in ("key", "category", "text", "flag", "date") or (column.kind == "number" and named)
    if not usable or column.separator is not None or not label.distinct < column.distinct < 0.95 * column.rows:
        return False
    rows = frame.select(_plain(column.name).alias("level"), _plain(label.name).alias("label")).drop_nulls()
    levels = rows.group_by("level").agg(pl.len().alias("n"), pl.col("label").n_unique().alias("values"))
    repeats = rows.height - levels.height
    if not repeats or bool((levels["values"] > 1).any()) or repeats < FEWEST_REPEATS * rows.height:
        return False
    alike = float(((rows["label"].value_counts()["count"] / rows.height) ** 2).sum())
    return alike**repeats < CHANCE


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
