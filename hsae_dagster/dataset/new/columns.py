"""Records of cells as a table, and what the columns of an unknown table hold."""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
import yaml
from polars import selectors

from hsae_dagster.dataset import values
from hsae_dagster.errors import DatasetError

Kind = Literal["text", "number", "flag", "category", "key", "date", "row number", "empty", "other"]

WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
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
        missing: rows without a value, marks of missing ones included.
        distinct: different values; of few, those that differ in case alone are one.
        words: mean number of words of its values (0 for anything but strings).
        levels: (value, rows) of each value, most frequent first, where there are at most `MOST_LEVELS`.
        not_numbers: (rows, one of them) that keep a column of numbers from being one, else None.
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

    `lists` says what separates the members of cells, by column, where these are known to be lists.
    """
    known = lists or {}
    return [
        _profile(frame[name]) if name not in known else _of_lists(frame[name], known[name]) for name in frame.columns
    ]


def _of_lists(column: pl.Series, separator: str) -> ColumnProfile:
    """A column known to hold lists: classes where they are few, else something no dataset can declare."""
    cells = values.members(column, separator)
    classes = cells.list.unique().explode().drop_nulls()
    base = ColumnProfile(column.name, "other", column.len(), cells.null_count(), classes.n_unique())
    if not 1 < base.distinct <= MOST_LEVELS:
        return base
    return replace(base, kind="category", separator=separator, levels=_levels(classes.alias(column.name)))


def with_plain_types(frame: pl.DataFrame) -> pl.DataFrame:
    """The table with words for categories and numbers for decimals, as they are profiled."""
    words = selectors.categorical() | selectors.enum()
    return frame.with_columns(words.cast(pl.String), selectors.decimal().cast(pl.Float64))


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
    lost = values.lost_digits(column)
    column, codes = _without_codes(column)
    present = column.drop_nulls()
    distinct = present.n_unique()
    if not distinct:
        return ColumnProfile(name, "empty", rows, rows, 0)
    levels = tuple(values.folded(_levels(present))) if distinct <= 2 * MOST_LEVELS else ()
    levels = levels if len(levels) <= MOST_LEVELS else ()
    distinct = len(levels) or distinct
    base = ColumnProfile(
        name, "category", rows, rows - present.len(), distinct, levels=levels, marks=marks, codes=codes, lost=lost
    )
    if column.dtype == pl.String:
        return _of_strings(base, present)
    if column.dtype.is_temporal():
        return replace(base, kind="date")
    if column.dtype == pl.Boolean or distinct == 2:
        return replace(base, kind="flag", whole=True)
    return _of_numbers(base, present)


def _without_codes(column: pl.Series) -> tuple[pl.Series, tuple[tuple[int, int], ...]]:
    """The column with null for codes of no answer, and these with their rows."""
    if not (column.dtype.is_numeric() or column.dtype == pl.String):
        return column, ()
    present = column.drop_nulls()
    numbers = present.cast(pl.Float64, strict=False)
    if not numbers.len() or numbers.null_count() or not (codes := values.missing_codes(numbers)):
        return column, ()
    numbers = column.cast(pl.Float64)
    found = tuple((code, int((numbers == code).sum())) for code in codes)
    return column.set(numbers.is_in([float(code) for code in codes]).fill_null(False), None), found


def _levels(present: pl.Series) -> tuple[tuple[str, int], ...]:
    counts = present.cast(pl.String).value_counts(sort=True, name="rows")
    ordered = counts.sort("rows", present.name, descending=[True, False])
    return tuple((str(value), int(n)) for value, n in ordered.iter_rows())


def _of_numbers(base: ColumnProfile, present: pl.Series) -> ColumnProfile:
    numbers = present.cast(pl.Float64, strict=False).drop_nulls()
    whole = bool((numbers == numbers.round(0)).all())
    steps = numbers.diff().drop_nulls()
    if whole and base.distinct == base.rows and base.rows > 2 and bool((steps == 1).all()):
        return replace(base, kind="row number", whole=True)
    return replace(base, kind="number", whole=whole)


def _of_strings(base: ColumnProfile, present: pl.Series) -> ColumnProfile:
    if base.distinct == 2:
        return replace(base, kind="flag")
    looked = present.head(LOOKED_AT)
    # Percents are never whole numbers, for they are no keys.
    if base.distinct > 2 and (numbers := values.percents(present)).null_count() <= 0.1 * present.len():
        return replace(base, kind="number", percent=True, not_numbers=_faulty(present, numbers))
    numeric = 1 - looked.cast(pl.Float64, strict=False).null_count() / looked.len()
    if numeric == 1:
        return _of_numbers(base, present)
    if numeric >= 0.9:
        return replace(base, kind="number", not_numbers=_faulty(present, present.cast(pl.Float64, strict=False)))
    sample = looked.head(200)
    if sum(bool(DATE.fullmatch(value)) for value in sample) >= 0.95 * sample.len():
        return replace(base, kind="date")
    if listed := values.list_separator(looked):
        separator, levels = listed
        return replace(base, kind="category", separator=separator, levels=levels, distinct=len(levels))
    words = _words(looked)
    # Names of films or laws have several words too, but come again and again.
    if words >= 3.0 and base.distinct >= 0.2 * present.len() and base.distinct > 10:
        return replace(base, kind="text", words=words)
    scale = values.scale_of([value for value, _ in base.levels])
    return replace(base, kind="category" if base.levels else "key", words=words, scale=scale)


def _faulty(present: pl.Series, numbers: pl.Series) -> tuple[int, str] | None:
    faulty = present.filter(numbers.is_null())
    return (faulty.len(), str(faulty[0])) if faulty.len() else None


def _words(cells: pl.Series) -> float:
    """Mean number of words; scripts without spaces have about one for every two signs, and a picture is one."""
    spaced, unspaced, pictures = (int(cells.str.count_matches(each).sum()) for each in (r"\S+", UNSPACED, PICTURES))
    return (spaced + unspaced / 2 + pictures) / cells.len()


def words_of(name: str) -> list[str]:
    """The words of a column's name in lower case: `Review Text`, `review_text` and `reviewText` agree."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return [word for word in re.split(r"[^a-zA-Z0-9]+", spaced.lower()) if word]


def mostly_small_groups(frame: pl.DataFrame, group: str, outcome: str) -> bool:
    """Whether most groups have 2 to 20 rows that differ in their outcome, so that comparing within them makes sense."""
    groups = frame.drop_nulls([group, outcome]).group_by(group).agg(pl.len().alias("n"), pl.col(outcome).n_unique())
    fits = pl.col("n").is_between(2, 20) & (pl.col(outcome) > 1)
    return groups.height > 0 and groups.filter(fits).height > groups.height / 2


NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?%?")
IMPORT_ID = re.compile(r'\{\s*"+ImportId"+')
CELLS_LOOKED_AT = 20
LOOKED_AT_FOR_NAMES = 2000
# Signs of which about two make a word.
UNSPACED_NAME = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
MOST_SECOND_LINES = 3
# Of bytes, at the start of a file; programs that join files leave it inside.
MARK = "\ufeff"
# More rows of numbers than this, at least, to take the one above them for a second line of names.
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Record:
    """One row: the line it begins on (from 1) and its cells."""

    line: int
    cells: list[str]

    @property
    def filled(self) -> int:
        """How many cells hold more than spaces."""
        return sum(bool(cell.strip()) for cell in self.cells)


@dataclass(frozen=True)
class Notes:
    """What a person should know of how a table was read.

    Attributes:
        remarks: sentences on what to look at.
        doubts: by column, a sentence on how its values were read where they could be read otherwise.
        lists: by column, what separates the members of the lists that it holds.
    """

    remarks: tuple[str, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: "Notes") -> "Notes":
        return Notes(self.remarks + other.remarks, {**self.doubts, **other.doubts}, {**self.lists, **other.lists})


NO_NOTES = Notes()


@dataclass(frozen=True)
class ReadTable:
    """A table as it was read.

    Attributes:
        frame: typed.
        plain: as it is to be written where the file has to be written anew.
        unusual: half sentences on what the strict reader would not accept; empty where it would.
    """

    frame: pl.DataFrame
    plain: pl.DataFrame
    unusual: tuple[str, ...] = ()
    notes: Notes = NO_NOTES

    def with_unusual(self, said: Sequence[str]) -> "ReadTable":
        """The same, with more that is unusual in front; empty strings are passed over."""
        return replace(self, unusual=(*[part for part in said if part], *self.unusual))

    def with_remark(self, said: str) -> "ReadTable":
        """The same with a remark more."""
        return replace(self, notes=self.notes + Notes((said,)))


def table_of_records(
    names: Sequence[str], rows: Sequence[Sequence[str]], separator: str | None, file: str
) -> ReadTable:
    """The table of a line of names and of rows as wide as it.

    `separator` stood between the cells; it says whether a comma can be in a number.

    Raises:
        DatasetError: the line of names looks like a row.
    """
    marked = any(MARK in name for name in names)
    names = [name.replace(MARK, "") for name in names]
    kept = [row for row in rows if row[-1] != names[-1] or [cell.replace(MARK, "") for cell in row] != names]
    repeated, rows = len(rows) - len(kept), kept
    if _like_a_row(names, rows):
        raise DatasetError(
            f"The first line of {file} looks like a row, not like names of columns. Write a line with a name for "
            "each column above it, such as: text,label."
        )
    unusual = [f"its line of names stood in it {repeated + 1:,} times"] if repeated else []
    if marked:
        unusual.append("its names of columns held a byte order mark, which was left out")
    second = second_lines(names, rows)
    if second:
        lines = "a line" if second == 1 else f"{second} lines"
        shown = " ".join(max(rows[0], key=len).split())[:60]
        unusual.append(f"{lines} below its names held no row, but wordings of questions (“{shown}”): left out")
        rows = rows[second:]
    if any('"' in name for name in names):
        # Readers disagree on whether quotes in names are doubled.
        names = [name.replace('"', "") for name in names]
        unusual.append("its names of columns held double quotes, which were left out")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    plain = pl.DataFrame(
        {name: pl.Series(cells, dtype=pl.String) for name, cells in zip(distinct(names), columns, strict=True)}
    )
    amounts = values.plain_amounts(plain, separator)
    return ReadTable(typed(amounts.frame), amounts.frame, (*unusual, *amounts.said), Notes(doubts=amounts.doubts))


def names_at(records: Sequence[Record]) -> int | None:
    """Which record holds the names: the first, or the one below a title, a date of export, empty lines."""
    records = records[:CELLS_LOOKED_AT]
    if not records:
        return None
    width = Counter([record.filled for record in records if record.filled] or [0]).most_common(1)[0][0]
    first = 0
    for number, record in enumerate(records):
        if record.filled >= max(width, 1):
            break
        # A line of one name and one empty one may be names; with more empty ones, or none, it is a title. So is
        # whatever stands above an empty line.
        if not record.filled or (record.filled == 1 and len(record.cells) != 2 and first == number):
            first = number + 1
    return first if first < len(records) else None


def typed(plain: pl.DataFrame) -> pl.DataFrame:
    """Columns of strings with the types that the strict reader will give them."""
    if not plain.height or not plain.width:
        return plain
    return pl.read_csv(io.BytesIO(plain.write_csv().encode()), infer_schema_length=None)


def distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, repeated ones numbered as the strict reader numbers them."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        found.append(f"{name}_duplicated_{count - 1}" if count else name)
    return found


def second_lines(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """How many rows below the names are none: wordings of questions, and codes such as Qualtrics' ImportId."""
    for number, row in enumerate(rows[:MOST_SECOND_LINES], 1):
        filled = [cell for cell in row if cell.strip()]
        if filled and all(IMPORT_ID.match(cell.strip()) for cell in filled):
            return number
    if len(rows) <= FEWEST_ROWS:
        return 0
    rows = rows[:LOOKED_AT_FOR_NAMES]
    measured = [
        column
        for column in range(len(names))
        if sum(_measured(row[column]) for row in rows[1:]) > 0.8 * (len(rows) - 1)
    ]
    first = [rows[0][column].strip() for column in measured]
    worded = [cell for cell in first if cell and not _measured(cell) and cell.lower() not in MISSING_MARKS]
    # A single word among numbers may be a slip; a question above them is none.
    asked = sum(len(cell.split()) > 2 for cell in worded)
    return int(bool(worded) and len(worded) == sum(bool(cell) for cell in first) and (len(worded) > 1 or asked > 0))


def _measured(cell: str) -> bool:
    cell = cell.strip()
    return bool(NUMBER.fullmatch(cell) or DATE.fullmatch(cell))


def _like_a_row(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether the names of columns are a text beside a number, or values that their columns have again and again."""
    words = max((len(name.split()) + len(UNSPACED_NAME.findall(name)) // 2 for name in names), default=0)
    number = any(re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", name) for name in names)
    if words > 20 or (words > 3 and number):
        return True
    looked = rows[:LOOKED_AT_FOR_NAMES]
    again = (sum(row[column] == name for row in looked) for column, name in enumerate(names) if name.strip())
    return any(n > max(1, 0.02 * len(looked)) for n in again)
