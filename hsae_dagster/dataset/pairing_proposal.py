"""A dataset.yaml for pairs made within the groups of a table.

Belongs here: which columns are the text and the outcome, the outcome as a number, and the reasons for each field. Does
not belong here: how pairs are made (`pairing`), or the proposal for a table as it is (`proposal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from hsae_dagster.dataset.classes import classes_of, listed, one_against_the_rest
from hsae_dagster.dataset.column_profile import ColumnProfile, marks_nothing, profile
from hsae_dagster.dataset.pairing import PAIRS_SCHEMA, PairCounts, Pairs, Rule, pair_within
from hsae_dagster.dataset.percents import why_no_number, without_percent_signs
from hsae_dagster.dataset.proposal import Field, Proposal, Wishes, outcome_phrase, propose
from hsae_dagster.dataset.proposal_roles import Choice, check_present, choose_label, choose_text
from hsae_dagster.dataset.rows import plain_headers
from hsae_dagster.errors import DatasetError

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


@dataclass(frozen=True)
class PairedUp:
    """Pairs to be written to `FILE` (its group column named as in the table), the proposal, and doubtful choices."""

    frame: pl.DataFrame
    counts: PairCounts
    proposal: Proposal
    unsure: list[Field]


def pair_up(frame: pl.DataFrame, source: str, wishes: Wishes, how: PairWishes) -> PairedUp:
    """Make pairs of the texts of a table and propose a declaration for them.

    Args:
        frame: all rows, one per text.
        source: the file's name, for what is said.
        wishes: choices already made, of the table's columns.
        how: of which texts pairs are made.

    Raises:
        DatasetError: a column is missing or cannot serve, wishes contradict each other, or no pairs can be made.
    """
    frame = plain_headers(frame)
    columns = profile(frame)
    _check(columns, wishes, how)
    text = choose_text([column for column in columns if column.name != how.within], wishes.text)
    label = choose_label(columns, [text.name, how.within], wishes.label, pair=False)
    _check_plain([text.column, label.column, *[c for c in columns if c.name == how.within]])
    table = pl.DataFrame(
        {
            "group": _words(frame[how.within]),
            "text": _words(frame[text.name]),
            "outcome": _outcome(frame, label.name, source, wishes.positive),
        }
    )
    made = pair_within(table, rule=how.rule, least_margin=how.least_margin)
    group = how.within if how.within not in PAIRS_SCHEMA else "group"
    pairs = made.frame.rename({"group": group})
    known = Wishes(task="pairwise", text_a="text_a", text_b="text_b", label="label", cluster_by=group)
    proposal = _with_reasons(propose(pairs, FILE, known), made, text, label, wishes.positive, how)
    remarks = (*_said(made.counts, source, how, text.name, label.name), *proposal.remarks)
    chosen = [
        Field(f"columns.{role}", choice.name, choice.why, choice.sure, choice.others)
        for role, choice in (("text", text), ("label", label))
    ]
    unsure = [field for field in chosen if not field.sure]
    return PairedUp(pairs, made.counts, replace(proposal, remarks=remarks), unsure)


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


def _check_plain(columns: Sequence[ColumnProfile]) -> None:
    for column in columns:
        if column.kind == "other":
            raise DatasetError(f"Column `{column.name}` holds {column.said}, not one text or number per row.")


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
    """The proposal for the pairs' file with reasons that speak of the table it was made of."""
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
    values = {
        "description": f"Pairs of {text.name} with the same {how.within}",
        "outcome": f"having the higher {outcome_phrase(label.column, None)}"
        if positive is None
        else outcome_phrase(label.column, replace(label, value=positive)),
    }
    doubts = {"columns.text_a": text, "columns.label": label}
    fields = []
    for field in proposal.fields:
        field = replace(field, why=reasons.get(field.path, field.why))
        if choice := doubts.get(field.path):
            field = replace(field, sure=choice.sure, others=choice.others)
        fields.append(replace(field, value=values.get(field.path, field.value)))
    return replace(proposal, fields=tuple(fields))


def _said(counts: PairCounts, source: str, how: PairWishes, text: str, label: str) -> list[str]:
    """How many pairs were made of how many rows, and what was left out."""
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
