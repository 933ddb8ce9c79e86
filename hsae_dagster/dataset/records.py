"""Records of cells as a table: names, second lines of names, numbers as people write them, types.

Belongs here: what is done alike to rows of delimited text and of a sheet. Does not belong here: getting at the cells
(`delimited`, `formats`), or what the columns mean (`column_profile`).
"""

import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from hsae_dagster.dataset.amounts import plain_amounts
from hsae_dagster.dataset.column_profile import DATE, MISSING_MARKS
from hsae_dagster.errors import DatasetError

NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?%?")
IMPORT_ID = re.compile(r'\{\s*"+ImportId"+')
LOOKED_AT = 20
LOOKED_AT_FOR_NAMES = 2000
# Signs of which about two make a word.
UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
MOST_SECOND_LINES = 3
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
        notes: for a person.
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

    Args:
        names: of the columns.
        rows: their cells.
        separator: between the cells, if there was one; it says whether a comma can be in a number.
        file: its name, for what is said.

    Raises:
        DatasetError: the line of names looks like a row.
    """
    names = list(names)
    repeated = sum(row == names for row in rows)
    rows = [row for row in rows if row != names] if repeated else rows
    if _like_a_row(names, rows):
        raise DatasetError(
            f"The first line of {file} looks like a row, not like names of columns. Write a line with a name for "
            "each column above it, such as: text,label."
        )
    unusual = [f"its line of names stood in it {repeated + 1:,} times"] if repeated else []
    second = second_lines(names, rows)
    if second:
        lines = "a line" if second == 1 else f"{second} lines"
        unusual.append(
            f"{lines} below its names held no row, but wordings of questions (“{_shown(rows[0])}”): left out"
        )
        rows = rows[second:]
    if any('"' in name for name in names):
        # Readers disagree on whether quotes in names are doubled.
        names = [name.replace('"', "") for name in names]
        unusual.append("its names of columns held double quotes, which were left out")
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    plain = pl.DataFrame(
        {name: pl.Series(cells, dtype=pl.String) for name, cells in zip(distinct(names), columns, strict=True)}
    )
    amounts = plain_amounts(plain, separator)
    return ReadTable(typed(amounts.frame), amounts.frame, (*unusual, *amounts.said), Notes(doubts=amounts.doubts))


def names_at(records: Sequence[Record]) -> int | None:
    """Which record holds the names: the first, or the one below a title, a date of export, empty lines."""
    records = records[:LOOKED_AT]
    if not records:
        return None
    width = Counter([record.filled for record in records if record.filled] or [0]).most_common(1)[0][0]
    first = 0
    for number, record in enumerate(records):
        if width < 2 and record.filled:
            break
        if record.filled >= width >= 2:
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
    words = max((len(name.split()) + len(UNSPACED.findall(name)) // 2 for name in names), default=0)
    number = any(re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", name) for name in names)
    if words > 20 or (words > 3 and number):
        return True
    looked = rows[:LOOKED_AT_FOR_NAMES]
    again = (sum(row[column] == name for row in looked) for column, name in enumerate(names) if name.strip())
    return any(n > max(1, 0.02 * len(looked)) for n in again)


def _shown(row: Sequence[str]) -> str:
    said = max((cell for cell in row), key=len)
    return " ".join(said.split())[:60]
