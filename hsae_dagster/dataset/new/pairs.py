"""Pairs of texts out of a table with one row per text, and a dataset.yaml for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl

from hsae_dagster.core.observations import folded_keys
from hsae_dagster.dataset.new.columns import ColumnProfile, marks_nothing, profile
from hsae_dagster.dataset.new.proposal import Proposal, Wishes, outcome_phrase, propose
from hsae_dagster.dataset.new.roles import Choice, Field, check_present, choose_label, choose_text
from hsae_dagster.dataset.rows import plain_headers
from hsae_dagster.dataset.values import classes_of, listed, one_against_the_rest, why_no_number, without_percent_signs
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
        missing: rows without a group, text or outcome, by the first that they lack.
        repeats: rows whose text had been seen in their group; outcomes of one text in one group are averaged.
        texts: different texts, counted per group.
        single: groups with one text.
        undecided: groups with several texts, but no pair that is neither tied nor close.
        groups: groups with at least one pair.
        ties: pairs with equal outcomes.
        close: pairs whose outcomes differ by less than was asked for.
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
        rule: `all`, every two different texts of a group; `extremes`, the highest and the lowest by outcome.
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
        ties, close = candidates.height - distinct.height, distinct.height
        said = [f"{ties:,} have equal outcomes"] * bool(ties) + [f"{close:,} differ by less than was asked"] * bool(
            close
        )
        raise DatasetError(
            f"Of {candidates.height:,} pairs of texts of one group none is left: {' and '.join(said)}. Name another "
            "outcome, or a smaller --least-margin."
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


FILE = "pairs.parquet"
_REMEDY = "Correct those cells, name another column with --label, or the value that counts as higher with --positive."
_RULES = {
    "all": "every two different texts of a group",
    "extremes": "of each group the text with the highest outcome and the one with the lowest",
}


@dataclass(frozen=True)
class PairWishes:
    """How pairs are to be made: the column of the group, which pairs, and the least difference of their outcomes."""

    within: str
    rule: Rule = "all"
    least_margin: float = 0.0


def pair_up(
    frame: pl.DataFrame, source: str, wishes: Wishes, how: PairWishes
) -> tuple[pl.DataFrame, Proposal, list[Field]]:
    """Make pairs of the texts of a table and propose a declaration for them.

    Returns:
        pairs to be written to `FILE` (columns `PAIRS_SCHEMA`, its group column named as in the table, one spelling per
        group), the proposal, and doubtful choices of columns.

    Raises:
        DatasetError: a column is missing or cannot serve, wishes contradict each other, or no pairs can be made.
    """
    frame = plain_headers(frame)
    columns = profile(frame)
    _check(columns, wishes, how)
    text = choose_text([column for column in columns if column.name != how.within], wishes.text)
    label = choose_label(columns, [text.name, how.within], wishes.label, pair=False)
    for column in (text.column, label.column, *[c for c in columns if c.name == how.within]):
        if column.kind == "other":
            raise DatasetError(f"Column `{column.name}` holds {column.said}, not one text or number per row.")
    spelled = _words(frame[how.within])
    # Groups are the clusters that the corpus will make of this column, which folds its keys.
    folded = folded_keys(spelled)
    table = pl.DataFrame(
        {
            "group": folded,
            "text": _words(frame[text.name]),
            "outcome": _outcome(frame, label.name, source, wishes.positive),
        }
    )
    made = pair_within(table, rule=how.rule, least_margin=how.least_margin)
    group = how.within if how.within not in PAIRS_SCHEMA else "group"
    shown = pl.DataFrame({"group": folded, "as": spelled}).drop_nulls().group_by("group").agg(pl.col("as").min())
    pairs = made.frame.with_columns(pl.col("group").replace_strict(shown["group"], shown["as"])).rename(
        {"group": group}
    )
    known = Wishes(task="pairwise", text_a="text_a", text_b="text_b", label="label", cluster_by=group)
    proposal = _with_reasons(propose(pairs, FILE, known), made, text, label, wishes.positive, how)
    remarks = (*_said(made.counts, source, how, text.name, label.name), *proposal.remarks)
    unsure = [field for field in (text.field("text"), label.field("label")) if not field.sure]
    return pairs, replace(proposal, remarks=remarks), unsure


def _check(columns: Sequence[ColumnProfile], wishes: Wishes, how: PairWishes) -> None:
    check_present(columns, (how.within, wishes.text, wishes.label))
    if how.within in (wishes.text, wishes.label):
        raise DatasetError(f"`{how.within}` is what texts are compared within; name other columns as text and label.")
    if wishes.text_a or wishes.text_b:
        raise DatasetError("--pairs-within makes pairs of one column: name it with --text, not --text-a and --text-b.")
    if wishes.task not in (None, "pairwise"):
        raise DatasetError(f"Pairs are a task of their own, `pairwise`: leave --task {wishes.task} or --pairs-within.")
    if wishes.cluster_by not in (None, how.within):
        raise DatasetError(
            f"Pairs within `{how.within}` have it as their cluster. Leave --cluster-by out; if groups have something "
            "in common, add that column to the pairs' file and name it in dataset.yaml."
        )


def _words(column: pl.Series) -> pl.Series:
    """A column as strings, null where the cell is empty or says that there is no value."""
    words = column.cast(pl.String).str.strip_chars()
    return words.set((words == "").fill_null(False) | marks_nothing(words), None)


def _outcome(frame: pl.DataFrame, name: str, source: str, positive: str | None) -> pl.Series:
    """The outcome as f64, null where a row has none; 1 and 0 where a class was named."""
    column, where = frame[name], f"{source}, column `{name}`"
    if positive is not None:
        classes = classes_of(column if column.dtype != pl.String else _words(column))
        hit = one_against_the_rest(classes, positive)
        if not hit.sum():
            raise DatasetError(f"No row of {where} has the value {positive!r} (it has {listed(classes)}).")
        return hit
    if column.dtype.is_temporal():
        raise DatasetError(f"{where} holds dates or times. Make a number of it, or name another column with --label.")
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        column = without_percent_signs(_words(column).to_frame(name), [name])[0][name]
    numbers = column.cast(pl.Float64, strict=False)
    faulty = numbers.is_null() & column.is_not_null()
    if faulty.any():
        raise DatasetError(why_no_number(column, where, int(faulty.arg_true()[0]), _REMEDY))
    return numbers.set(~numbers.is_finite().fill_null(True), None)


def _with_reasons(
    proposal: Proposal, made: Pairs, text: Choice, label: Choice, positive: str | None, how: PairWishes
) -> Proposal:
    counts = made.counts
    wins = f"the higher `{label.name}`" if positive is None else f"`{label.name}` {positive} and text_b has not"
    share = f"{counts.a_wins / counts.pairs:.0%}"
    reasons = {
        "task": f"Two texts a row, and `label` says which one wins. What they share by `{how.within}` cancels out.",
        "columns.text_a": f"From `{text.name}`. {text.why} Which of two is A is drawn by a hash of group and texts.",
        "columns.label": f"1 where text_a has {wins}: {share} of pairs. {label.why}",
        "columns.cluster_by": (
            f"Pairs of a group share texts and circumstances: kept on one side of every split, and one unit of every "
            f"interval. {counts.groups:,} groups have {counts.pairs / counts.groups:,.1f} pairs each, the largest "
            f"{counts.largest:,}; every pair counts the same."
        ),
        "columns.text_b": "",
        "outcome": "What the winning text has, in words.",
    }
    outcome = outcome_phrase(label.column, None if positive is None else replace(label, value=positive))
    changes: dict[str, dict[str, Any]] = {path: {"why": why} for path, why in reasons.items()}
    changes["description"] = {"value": f"Pairs of {text.name} with the same {how.within}"}
    changes["outcome"]["value"] = f"having the higher {outcome}" if positive is None else outcome
    for path, choice in (("columns.text_a", text), ("columns.label", label)):
        changes[path] |= {"sure": choice.sure, "others": choice.others}
    fields = tuple(replace(field, **changes.get(field.path, {})) for field in proposal.fields)
    return replace(proposal, fields=fields)


def _said(counts: PairCounts, source: str, how: PairWishes, text: str, label: str) -> list[str]:
    said = [
        f"{counts.pairs:,} pairs of texts with the same `{how.within}` ({counts.groups:,} groups) were made of the "
        f"{counts.rows:,} rows of {source}: {_RULES[how.rule]}. What is the same throughout a group cancels out of "
        "every comparison and needs no control."
    ]
    names = {"group": how.within, "text": text, "outcome": label}
    left = [f"{_many(n, 'row')} without `{names[role]}`" for role, n in counts.missing.items() if n]
    left += [f"{_many(counts.single, 'group')} with one text"] * bool(counts.single)
    left += [f"{_many(counts.ties, 'pair')} with equal outcomes"] * bool(counts.ties)
    left += [f"{_many(counts.close, 'pair')} with a margin below {how.least_margin:g}"] * bool(counts.close)
    left += [f"and with these {_many(counts.undecided, 'group')} without another pair"] * bool(counts.undecided)
    if left:
        said.append(f"Left out: {', '.join(left)}.")
    if counts.repeats:
        said.append(
            f"Rows with a text that their group has already: {counts.repeats:,}. Outcomes of a text in one group were "
            "averaged, every row alike."
        )
    return said


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}{'s' * (n != 1)}"
