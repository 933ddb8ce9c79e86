"""What the columns of an unknown table hold.

Belongs here: telling texts from numbers, categories, keys and dates, by looking at the values. Does not belong here:
deciding which column is the text or the outcome (`proposal`), or reading files (`intake`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from hsae_dagster.dataset.amounts import lost_digits
from hsae_dagster.dataset.classes import folded
from hsae_dagster.dataset.percents import percents
from hsae_dagster.dataset.scales import list_separator, members, missing_codes, scale_of

Kind = Literal["text", "number", "flag", "category", "key", "date", "row number", "empty", "other"]

# Rows looked at for what needs every word; counts of distinct and missing values are of all rows.
LOOKED_AT = 20_000
MOST_LEVELS = 50
_TIME = r"\d{1,2}[:.h]\d{2}([:.]\d{2}([.,]\d+)?)?\s*([ap]\.?m\.?|uhr)?\s*(z|utc|gmt)?([-+]\d{1,2}(:?\d{2})?)?"
_MONTH = r"(jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-zä]*\.?"
_DAY = r"((mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
DATE = re.compile(
    rf"\d{{4}}[-/.]\d{{1,2}}([-/.]\d{{1,2}})?([T ]+{_TIME})?"
    rf"|{_DAY}\d{{1,2}}\s?[-/.]\s?\d{{1,2}}\s?[-/.]\s?\d{{2,4}}(,?\s+{_TIME})?"
    rf"|{_DAY}\d{{1,2}}\.?[-\s]{_MONTH}[-\s,]+\d{{2,4}}(,?\s+(at\s+)?{_TIME})?"
    rf"|{_DAY}{_MONTH}\s+(\d{{1,2}}(st|nd|rd|th)?,?\s+)?({_TIME}\s+)?\d{{4}}(,?\s+(at\s+)?{_TIME})?|{_TIME}"
    # How long, as ISO 8601 has it.
    r"|P(?=[\dT])(\d+[YMWD])*(T(\d+[HMS])+)?",
    re.IGNORECASE,
)
# A name that says when.
WHEN = frozenset(
    ("date", "dates", "time", "timestamp", "datetime", "created", "updated", "posted", "published", "epoch", "datum")
)
# Writing without spaces: about two signs make a word; of pictures each is one.
UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
PICTURES = r"\p{Extended_Pictographic}"
# Cells that say that there is no value. “none” is not among them: it is an answer as often.
MISSING_MARKS = (
    *("na", "n/a", "n.a.", "#n/a", "<na>", "nan", "null", "(null)", "nil", "k.a.", "-", "--", "?", ".", "..", "…"),
    *("\\n", "#null!", "#value!", "#ref!", "#div/0!", "not available", "no answer", "keine angabe"),
)


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
        codes: (number, rows) of numbers that stand outside all others, such as -99 beside 1 to 5: no values either.
        scale: its words from lowest to highest, if they are those of a scale.
        separator: between the classes that a cell lists; the levels are then these classes.
        lost: whether it holds keys that were rounded.
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
    codes: tuple[tuple[int, int], ...] = ()
    scale: tuple[str, ...] = ()
    separator: str | None = None
    lost: bool = False

    @property
    def ends(self) -> tuple[int, int] | None:
        """The first and last point of a scale: words in order, or a few whole numbers without a gap."""
        if self.scale:
            return 1, len(self.scale)
        if self.kind != "number" or not self.whole or not 3 <= len(self.levels) <= 11:
            return None
        try:
            points = sorted(int(float(value)) for value, _ in self.levels)
        except (ValueError, OverflowError):  # words and infinities
            return None
        return (points[0], points[-1]) if points[-1] - points[0] == len(points) - 1 else None

    @property
    def said(self) -> str:
        """The column in a few words, for a person who has to choose."""
        if self.kind == "text":
            return f"texts, {self.words:.0f} words on average, {self.distinct:,} different"
        if self.separator is not None:
            return f"lists of classes: {', '.join(value for value, _ in self.levels[:6])}"
        if self.kind in ("flag", "category") and len(self.levels) <= 6:
            return f"{self.kind}: {', '.join(value for value, _ in self.levels)}"
        kind = "number in percent" if self.percent else self.kind
        return {"empty": "empty", "other": "nested values"}.get(self.kind, f"{kind}, {self.distinct:,} different")


def profile(frame: pl.DataFrame, lists: Mapping[str, str] | None = None) -> list[ColumnProfile]:
    """A profile of each column, in the file's order.

    Args:
        frame: the table.
        lists: what separates the members of cells, by column, where cells are known to be lists.
    """
    known = lists or {}
    return [
        _profile(frame[name]) if name not in known else _of_lists(frame[name], known[name]) for name in frame.columns
    ]


def _of_lists(column: pl.Series, separator: str) -> ColumnProfile:
    """A column known to hold lists: classes where they are few, else something no dataset can declare."""
    cells = members(column, separator)
    classes = cells.list.unique().explode().drop_nulls()
    base = ColumnProfile(column.name, "other", column.len(), cells.null_count(), classes.n_unique())
    if not 1 < base.distinct <= MOST_LEVELS:
        return base
    return _as(base, "category", separator=separator, levels=_levels(classes.alias(column.name)))


def marks_nothing(words: pl.Series) -> pl.Series:
    """Which cells, without spaces around them, say that there is no value (bool); not those that are empty."""
    return words.str.to_lowercase().is_in(MISSING_MARKS).fill_null(False)


def _profile(column: pl.Series) -> ColumnProfile:
    name, rows = column.name, column.len()
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary, pl.Duration):
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
    lost = lost_digits(column)
    column, codes = _without_codes(column)
    present = column.drop_nulls()
    distinct = present.n_unique()
    if not distinct:
        return ColumnProfile(name, "empty", rows, rows, 0)
    levels = tuple(folded(_levels(present))) if distinct <= 2 * MOST_LEVELS else ()
    levels = levels if len(levels) <= MOST_LEVELS else ()
    distinct = len(levels) or distinct
    base = ColumnProfile(
        name, "category", rows, rows - present.len(), distinct, levels=levels, marks=marks, codes=codes, lost=lost
    )
    if column.dtype == pl.String:
        return _of_strings(base, present)
    if column.dtype.is_temporal():
        return _as(base, "date")
    if column.dtype == pl.Boolean or distinct == 2:
        return _as(base, "flag", whole=True)
    return _of_numbers(base, present)


def _without_codes(column: pl.Series) -> tuple[pl.Series, tuple[tuple[int, int], ...]]:
    """The column with null for codes of no answer, and these with their rows."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return column, ()
    present = column.drop_nulls()
    numbers = present.cast(pl.Float64, strict=False)
    if not numbers.len() or numbers.null_count() or not (codes := missing_codes(numbers)):
        return column, ()
    values = column.cast(pl.Float64)
    found = tuple((code, int((values == code).sum())) for code in codes)
    return column.set(values.is_in([float(code) for code in codes]).fill_null(False), None), found


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
    sample = looked.head(200)
    if sum(bool(DATE.fullmatch(value)) for value in sample) >= 0.95 * sample.len():
        return _as(base, "date")
    if listed := list_separator(looked):
        separator, levels = listed
        return _as(base, "category", separator=separator, levels=levels, distinct=len(levels))
    words = _words(looked)
    # Names of films or laws have several words too, but come again and again.
    if words >= 3.0 and base.distinct >= 0.2 * present.len() and base.distinct > 10:
        return _as(base, "text", words=words)
    scale = scale_of([value for value, _ in base.levels])
    return _as(base, "category" if base.levels else "key", words=words, scale=scale)


def _words(cells: pl.Series) -> float:
    """Mean number of words; scripts without spaces have about one for every two signs, and a picture is one."""
    counted = [int(cells.str.count_matches(pattern).sum()) for pattern in (r"\S+", UNSPACED, PICTURES)]
    return (counted[0] + counted[1] / 2 + counted[2]) / cells.len()


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
