"""Delimited text as programs export it: any encoding and separator, Excel's `sep=` line, titles, decimal commas.

Belongs here: from such a file to a table, and in words what about it the strict reader (`rows`) would not accept. Does
not belong here: other formats, or what becomes of the file (`intake`).
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import polars as pl

from hsae_dagster.errors import DatasetError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LOOKED_AT = 20
DECIMAL_COMMA = r"^\s*[-+]?\d+(,\d+)?\s*$"
FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def read_delimited(path: Path) -> tuple[pl.DataFrame, str | None]:
    """The table in a file, and what is unusual about it (None where the strict reader would accept it).

    Raises:
        DatasetError: it is no table, or has no line of names, with what to do.
    """
    data = path.read_bytes()
    if not data.strip():
        raise DatasetError(f"{path.name} is empty. Give a table with one row per text.")
    text, encoding = _decode(data, path)
    unusual = [] if encoding == "UTF-8" else [f"it was in {encoding}, not UTF-8"]
    said = re.match(rf"sep=([{re.escape(''.join(SEPARATORS))}])\r?\n", text)
    if said:
        unusual.append(f"its first line was {said[0].strip()}")
        text = text[said.end() :]
    frame, separator, above = _table(text, said[1] if said else _separator(text), path)
    if above:
        unusual.append(f"the names of its columns stood on line {above + 1}, below a title")
    # The strict reader goes by the ending.
    if separator != {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower()):
        unusual.append(f"its fields were separated by {SEPARATORS[separator]}")
    frame, with_commas = _decimal_points(frame) if separator != "," else (frame, [])
    if with_commas:
        unusual.append(f"the numbers of {', '.join(f'`{name.strip()}`' for name in with_commas)} had decimal commas")
    if _first_row_for_names(frame):
        raise DatasetError(
            f"The first line of {path.name} looks like a row, not like names of columns. Write a line with a name for "
            "each column above it, such as: text,label."
        )
    return frame, " and ".join(unusual) or None


def _table(text: str, separator: str, path: Path) -> tuple[pl.DataFrame, str, int]:
    """The table, its separator, and how many lines stand above its names."""
    fault = None
    for candidate in dict.fromkeys((separator, *SEPARATORS)):
        skipped = _lines_above_names(text, candidate)
        # Another separator than the first line's only where that line is not the table's.
        if candidate != separator and not skipped:
            continue
        # Lines as the csv module counts them.
        rest = "".join(islice(io.StringIO(text, newline=""), skipped, None)) if skipped else text
        try:
            return pl.read_csv(rest.encode(), separator=candidate, infer_schema_length=None), candidate, skipped
        except FAULTS as error:
            fault = fault or error
    where = _first_long_row(text, separator) or f"{' '.join(str(fault).split())[:300].rstrip('.')}."
    raise DatasetError(
        f"{path} cannot be read as a table: {where} Put every text that holds the separator, a double quote or a line "
        "break into double quotes; programs do so when they save as CSV."
    ) from fault


def _top(text: str, separator: str) -> list[tuple[int, list[str], int]]:
    """The first records: on which line each begins (from 0), its fields, how many of them are filled."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    records = []
    begun = 0
    try:
        for fields in islice(reader, LOOKED_AT):
            records.append((begun, fields, sum(bool(field.strip()) for field in fields)))
            begun = reader.line_num
    except csv.Error:
        return []
    return records


def _width(records: Sequence[tuple[int, list[str], int]]) -> int:
    """How many fields a record usually fills."""
    return Counter([filled for *_, filled in records if filled] or [0]).most_common(1)[0][0]


def _lines_above_names(text: str, separator: str) -> int:
    """How many lines at the top hold no row of the table: a title, a date of export, empty lines."""
    records = _top(text, separator)
    width, first = _width(records), 0
    if width < 2:
        return 0
    for number, (_, fields, filled) in enumerate(records):
        if filled >= width:
            break
        # A line of one name and one empty one may be names; with more empty ones, or none, it is a title. So is
        # whatever stands above an empty line.
        if not filled or (filled == 1 and len(fields) != 2 and first == number):
            first = number + 1
    return records[first][0] if first < len(records) else 0


def _first_long_row(text: str, separator: str) -> str:
    """A sentence about the first row with more fields than there are names."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        names = next(reader)
        begun = reader.line_num + 1
        for fields in reader:
            if len(fields) > len(names):
                return f"line {begun:,} has {len(fields)} fields, but the first line has {len(names)} names."
            begun = reader.line_num + 1
    except (csv.Error, StopIteration):
        return ""
    return ""


def _decimal_points(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Numbers written 3,5 as 3.5, in columns where nearly every value is a number so written; and which these are."""
    found = []
    for name in frame.columns:
        column = frame[name]
        present = column.drop_nulls() if column.dtype == pl.String else pl.Series([], dtype=pl.String)
        fits = present.str.contains(DECIMAL_COMMA)
        if present.len() and int(fits.sum()) >= 0.9 * present.len() and present.filter(fits).str.contains(",").any():
            found.append(name)
    points = [
        pl.when(pl.col(name).str.contains(DECIMAL_COMMA))
        .then(pl.col(name).str.replace(",", ".", literal=True))
        .otherwise(pl.col(name))
        .alias(name)
        for name in found
    ]
    return frame.with_columns(points), found


def _first_row_for_names(frame: pl.DataFrame) -> bool:
    """Whether the names of columns are a text and a number rather than names."""
    words = max((len(name.split()) for name in frame.columns), default=0)
    number = any(re.fullmatch(r"\s*[-+]?\d+([.,]\d+)?\s*", name) for name in frame.columns)
    return words > 20 or (words > 3 and number)


def _decode(data: bytes, path: Path) -> tuple[str, str]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "UTF-16"
        except UnicodeDecodeError as error:
            raise DatasetError(
                f"{path.name} begins as UTF-16 and breaks off or is damaged at byte {error.start:,}. Copy or export it "
                "again, as UTF-8 if you can choose."
            ) from None
    try:
        return data.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError:
        if b"\x00" in data[:4096]:
            raise DatasetError(f"{path.name} is no text file. Give a CSV, or name the file by its format.") from None
        return data.decode("cp1252", errors="replace"), "Windows-1252"


def _separator(text: str) -> str:
    """The separator that the first line has most of, of those that make a table; a comma where none does."""
    header = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    counts = {separator: header.count(separator) for separator in SEPARATORS}
    tables = [separator for separator in SEPARATORS if counts[separator] and _width(_top(text, separator)) > 1]
    return max(tables or SEPARATORS, key=lambda separator: (counts[separator], separator == ","))
