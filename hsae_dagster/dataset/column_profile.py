"""What the columns of an unknown table hold.

Belongs here: telling texts from numbers, categories, keys and dates, by looking at the values. Does not belong here:
deciding which column is the text or the outcome (`proposal`), or reading files (`intake`).
"""

import re
from dataclasses import dataclass
from typing import Literal

import polars as pl

from hsae_dagster.dataset.classes import folded
from hsae_dagster.dataset.percents import percents

Kind = Literal["text", "number", "flag", "category", "key", "date", "row number", "empty", "other"]

# Rows looked at for what needs every word; counts of distinct and missing values are of all rows.
LOOKED_AT = 20_000
MOST_LEVELS = 50
DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([T ].*)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}")
# Cells that say that there is no value. “none” is not among them: it is an answer as often.
MISSING_MARKS = ("na", "n/a", "n.a.", "#n/a", "nan", "null", "k.a.", "-", "--", "?", ".")


@dataclass(frozen=True)
class ColumnProfile:
    """One column.

    Attributes:
        name: as in the file, without spaces around it.
        kind: what it holds.
        rows: of the table.
        missing: rows without a value, marks of missing ones included.
        distinct: different values; of few, those that differ in case alone are one.
        words: mean number of words of its values (0 for anything but strings).
        levels: (value, rows) of each value, most frequent first, where there are at most `MOST_LEVELS`.
        not_numbers: (rows, one of them) that keep a column of numbers from being one, else None.
        whole: whether all its numbers are whole.
        percent: whether its numbers are followed by a percent sign.
        marks: (mark, rows) of cells that say that there is no value, such as `n/a`, as they are spelled.
    """

    name: str
    kind: Kind
    rows: int
    missing: int
    distinct: int
    words: float = 0.0
    levels: tuple[tuple[str, int], ...] = ()
    not_numbers: tuple[int, str] | None = None
    whole: bool = False
    percent: bool = False
    marks: tuple[tuple[str, int], ...] = ()

    @property
    def said(self) -> str:
        """The column in a few words, for a person who has to choose."""
        if self.kind == "text":
            return f"texts, {self.words:.0f} words on average, {self.distinct:,} different"
        if self.kind in ("flag", "category") and len(self.levels) <= 6:
            return f"{self.kind}: {', '.join(value for value, _ in self.levels)}"
        kind = "number in percent" if self.percent else self.kind
        return {"empty": "empty", "other": "nested values"}.get(self.kind, f"{kind}, {self.distinct:,} different")


def profile(frame: pl.DataFrame) -> list[ColumnProfile]:
    """A profile of each column, in the file's order."""
    return [_profile(frame[name]) for name in frame.columns]


def marks_nothing(words: pl.Series) -> pl.Series:
    """Which cells, without spaces around them, say that there is no value (bool); not those that are empty."""
    return words.str.to_lowercase().is_in(MISSING_MARKS).fill_null(False)


def _profile(column: pl.Series) -> ColumnProfile:
    name, rows = column.name, column.len()
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        return ColumnProfile(name, "other", rows, column.null_count(), 0)
    marks: tuple[tuple[str, int], ...] = ()
    if column.dtype == pl.String:
        column = column.str.strip_chars()
        column = column.set(column == "", None)
        marked = marks_nothing(column)
        if (column.is_not_null() & ~marked).any():
            marks = _levels(column.filter(marked))
            column = column.set(marked, None)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    present = column.drop_nulls()
    distinct = present.n_unique()
    if not distinct:
        return ColumnProfile(name, "empty", rows, rows, 0)
    levels = tuple(folded(_levels(present))) if distinct <= 2 * MOST_LEVELS else ()
    levels = levels if len(levels) <= MOST_LEVELS else ()
    distinct = len(levels) or distinct
    base = ColumnProfile(name, "category", rows, rows - present.len(), distinct, levels=levels, marks=marks)
    if column.dtype == pl.String:
        return _of_strings(base, present)
    if column.dtype.is_temporal():
        return _as(base, "date")
    if column.dtype == pl.Boolean or distinct == 2:
        return _as(base, "flag", whole=True)
    return _of_numbers(base, present)


def _as(base: ColumnProfile, kind: Kind, **more: object) -> ColumnProfile:
    return ColumnProfile(**{**base.__dict__, "kind": kind, **more})


def _levels(present: pl.Series) -> tuple[tuple[str, int], ...]:
    counts = present.cast(pl.String).value_counts(sort=True, name="rows")
    ordered = counts.sort("rows", present.name, descending=[True, False])
    return tuple((str(value), int(n)) for value, n in ordered.iter_rows())


def _of_numbers(base: ColumnProfile, present: pl.Series) -> ColumnProfile:
    numbers = present.cast(pl.Float64, strict=False).drop_nulls()
    whole = bool((numbers == numbers.round(0)).all())
    steps = numbers.diff().drop_nulls()
    if whole and base.distinct == base.rows and base.rows > 2 and bool((steps == 1).all()):
        return _as(base, "row number", whole=True)
    return _as(base, "number", whole=whole)


def _of_strings(base: ColumnProfile, present: pl.Series) -> ColumnProfile:
    looked = present.head(LOOKED_AT)
    numbers = looked.cast(pl.Float64, strict=False)
    if base.distinct > 2 and (percent := _of_percents(base, present)):
        return percent
    if (numeric := 1 - numbers.null_count() / looked.len()) == 1 and base.distinct > 2:
        return _of_numbers(base, present)
    if base.distinct == 2:
        return _as(base, "flag")
    if numeric == 1:  # the same number throughout
        return _of_numbers(base, present)
    if numeric >= 0.9:
        all_numbers = present.cast(pl.Float64, strict=False)
        faulty = present.filter(all_numbers.is_null())
        return _as(base, "number", not_numbers=(faulty.len(), str(faulty[0])))
    if all(DATE.fullmatch(value) for value in looked.head(200)):
        return _as(base, "date")
    words = float(looked.str.count_matches(r"\S+").cast(pl.Float64).sum()) / looked.len()
    # Names of films or laws have several words too, but come again and again.
    if words >= 3.0 and base.distinct >= 0.2 * present.len() and base.distinct > 10:
        return _as(base, "text", words=words)
    return _as(base, "category" if base.levels else "key", words=words)


def _of_percents(base: ColumnProfile, present: pl.Series) -> ColumnProfile | None:
    """The column if nine in ten of its values are percents; never whole numbers, for they are no keys."""
    numbers = percents(present)
    if numbers.null_count() > 0.1 * present.len():
        return None
    faulty = present.filter(numbers.is_null())
    return _as(base, "number", percent=True, not_numbers=(faulty.len(), str(faulty[0])) if faulty.len() else None)


def words_of(name: str) -> list[str]:
    """The words of a column's name in lower case: `Review Text`, `review_text` and `reviewText` agree."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^a-zA-Z0-9]+", spaced.lower()) if word]
