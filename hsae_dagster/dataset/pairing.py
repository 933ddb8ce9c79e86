"""Pairs of texts out of a table with one row per text.

Belongs here: which texts of a group are compared, which side each takes, and how many rows, groups and pairs are left
out for which reason. Does not belong here: which columns are the group, the text and the outcome, or what dataset.yaml
says of the pairs (`pairing_proposal`).

Every choice is a function of groups, texts and outcomes alone: the order of the rows changes nothing, and a pair keeps
its sides when other rows are added.
"""

from dataclasses import dataclass
from typing import Literal

import polars as pl

from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_json, text_id, unit_interval

Rule = Literal["all", "extremes"]

# A group of n texts has n (n - 1) / 2 pairs; more than this are a group that is none rather than data.
MOST_PAIRS = 500_000
# Equal means of different rows may differ in the last bits of what was averaged.
SAME = 1e-12
SALT = "hsae:side"

TABLE_SCHEMA = {"group": pl.String, "text": pl.String, "outcome": pl.Float64}
PAIRS_SCHEMA = {
    "group": pl.String,
    "text_a": pl.String,
    "text_b": pl.String,
    "label": pl.Int8,
    "outcome_a": pl.Float64,
    "outcome_b": pl.Float64,
    "margin": pl.Float64,
}


@dataclass(frozen=True)
class PairCounts:
    """What became of the rows: `rows` = sum of `missing` + `repeats` + `texts`, candidates = ties + close + `pairs`.

    Attributes:
        rows: of the table.
        missing: rows without a group, text or outcome, by the first that they lack.
        repeats: rows whose text had been seen in their group; outcomes of one text in one group are averaged.
        texts: different texts, counted per group.
        single: groups with one text.
        undecided: groups with several texts, but no pair that is neither tied nor close.
        groups: groups with at least one pair.
        ties: pairs with equal outcomes.
        close: pairs whose outcomes differ by less than was asked for.
        pairs: pairs made.
        a_wins: pairs in which the first text has the higher outcome.
        largest: pairs of the group with most of them.
    """

    rows: int
    missing: dict[str, int]
    repeats: int
    texts: int
    single: int
    undecided: int
    groups: int
    ties: int
    close: int
    pairs: int
    a_wins: int
    largest: int


@dataclass(frozen=True)
class Pairs:
    """Pairs (columns `PAIRS_SCHEMA`, sorted by group, then by the keys of the texts) and their counts."""

    frame: pl.DataFrame
    counts: PairCounts


def pair_within(table: pl.DataFrame, *, rule: Rule = "all", least_margin: float = 0.0) -> Pairs:
    """Make pairs of different texts of one group.

    Args:
        table: columns `TABLE_SCHEMA`, null where a row has no value.
        rule: `all`, every two different texts of a group; `extremes`, the one with the highest outcome and the one with
            the lowest.
        least_margin: pairs whose outcomes differ by less are left out, in units of the outcome.

    Returns:
        pairs with `label` 1 where `text_a` has the higher outcome and 0 where `text_b` has; `margin` is the difference,
        above 0.

    Raises:
        DatasetError: no group has two texts, none has two that differ enough, or there are too many pairs.
    """
    texts, missing = _texts(table)
    sizes = texts.group_by("group").len("n").sort("n", "group", descending=[True, False])
    several = sizes.filter(pl.col("n") > 1)
    if several.is_empty():
        raise DatasetError(
            f"No group has two different texts with an outcome ({texts.height:,} texts of {sizes.height:,} groups), so "
            "there is nothing to compare. Name a column whose values several texts share."
        )
    _check_number(several, rule)
    candidates = _candidates(_extremes(texts) if rule == "extremes" else texts)
    distinct = candidates.filter(~pl.col("tied"))
    kept = distinct.filter(pl.col("margin") >= least_margin).select(list(PAIRS_SCHEMA))
    if kept.is_empty():
        raise DatasetError(
            f"Of {candidates.height:,} pairs of texts of one group none is left: {_left_out(candidates, distinct)}. "
            "Name another outcome, or a smaller --least-margin."
        )
    groups = kept.group_by("group").len("n")
    counts = PairCounts(
        rows=table.height,
        missing=missing,
        repeats=table.height - sum(missing.values()) - texts.height,
        texts=texts.height,
        single=sizes.height - several.height,
        undecided=several.height - groups.height,
        groups=groups.height,
        ties=candidates.height - distinct.height,
        close=distinct.height - kept.height,
        pairs=kept.height,
        a_wins=int(kept["label"].sum()),
        largest=max(groups["n"].to_list()),
    )
    return Pairs(kept, counts)


def mostly_small_groups(frame: pl.DataFrame, group: str, outcome: str) -> bool:
    """Whether most groups have 2 to 20 rows that differ in their outcome, so that comparing within them makes sense."""
    groups = frame.drop_nulls([group, outcome]).group_by(group).agg(pl.len().alias("n"), pl.col(outcome).n_unique())
    fits = pl.col("n").is_between(2, 20) & (pl.col(outcome) > 1)
    return groups.height > 0 and groups.filter(fits).height > groups.height / 2


def _texts(table: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, int]]:
    """One row per group and text: mean and largest size of its outcomes; and the rows that lack something."""
    missing: dict[str, int] = {}
    for name in TABLE_SCHEMA:
        complete = table.filter(pl.col(name).is_not_null())
        missing[name] = table.height - complete.height
        table = complete
    keys = table.select("text").unique()
    keys = keys.with_columns(pl.col("text").map_elements(text_id, return_dtype=pl.String).alias("key"))
    texts = (
        table.join(keys, on="text", how="left")
        .group_by("group", "key")
        # Sorted, because a sum of floats depends on its order; which spelling is shown must not depend on it either.
        .agg(pl.col("text").min(), pl.col("outcome").sort().mean(), pl.col("outcome").abs().max().alias("scale"))
        .sort("group", "key")
    )
    return texts, missing


def _extremes(texts: pl.DataFrame) -> pl.DataFrame:
    """The lowest and the highest text of each group; of equal ones the key decides."""
    ordered = texts.sort("group", "outcome", "key")
    place = pl.int_range(pl.len()).over("group")
    ends = (place == 0) | (place == pl.len().over("group") - 1)
    return ordered.filter(ends).sort("group", "key")


def _candidates(texts: pl.DataFrame) -> pl.DataFrame:
    """Every two texts of a group once, their sides drawn by hash (columns `PAIRS_SCHEMA`, and `tied`)."""
    both = texts.join(texts, on="group", suffix="_2").filter(pl.col("key") < pl.col("key_2"))
    both = both.sort("group", "key", "key_2")
    draws = [
        unit_interval(hash_json(list(row)), SALT) < 0.5 for row in both.select("group", "key", "key_2").iter_rows()
    ]
    first = pl.Series("first", draws, dtype=pl.Boolean)
    sides = {
        f"{name}_{side}": pl.when(first if side == "a" else ~first).then(pl.col(name)).otherwise(pl.col(f"{name}_2"))
        for name in ("text", "outcome")
        for side in ("a", "b")
    }
    return (
        both.with_columns(**sides)
        .with_columns(
            (pl.col("outcome_a") > pl.col("outcome_b")).cast(pl.Int8).alias("label"),
            (pl.col("outcome_a") - pl.col("outcome_b")).abs().alias("margin"),
        )
        .with_columns((pl.col("margin") <= SAME * pl.max_horizontal("scale", "scale_2")).alias("tied"))
    )


def _check_number(sizes: pl.DataFrame, rule: Rule) -> None:
    """Before the pairs are made, for they might not fit into memory."""
    number = sizes.height if rule == "extremes" else sum(n * (n - 1) // 2 for n in sizes["n"])
    if number <= MOST_PAIRS:
        return
    group, n = sizes.row(0)
    remedy = "take a sample of the groups"
    if rule == "all":
        remedy = f"use --pairs extremes (one pair per group, here {sizes.height:,}), a finer column, or {remedy}"
    raise DatasetError(
        f"The groups have {number:,} pairs of different texts, more than {MOST_PAIRS:,}; the largest group, {group!r}, "
        f"has {n:,} texts. To stay below it, {remedy}."
    )


def _left_out(candidates: pl.DataFrame, distinct: pl.DataFrame) -> str:
    ties, close = candidates.height - distinct.height, distinct.height
    said = [f"{ties:,} have equal outcomes"] * bool(ties) + [f"{close:,} differ by less than was asked"] * bool(close)
    return " and ".join(said)
