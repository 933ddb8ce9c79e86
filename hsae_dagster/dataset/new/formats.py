"""Files that are no delimited text: JSON of any shape, workbooks, Stata, SPSS and SAS files, Parquet."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.dataset.new.columns import (
    MOST_LEVELS,
    Notes,
    ReadTable,
    Record,
    distinct,
    names_at,
    table_of_records,
    with_plain_types,
)
from hsae_dagster.dataset.new.delimited import read_text
from hsae_dagster.dataset.rows import READING_FAULTS
from hsae_dagster.dataset.values import SEPARATORS, plain_amounts
from hsae_dagster.errors import DatasetError

WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")
STATISTICS = {
    ".dta": "read_dta",
    ".sav": "read_sav",
    ".zsav": "read_sav",
    ".por": "read_por",
    ".sas7bdat": "read_sas7bdat",
}
INSTALL = "Install the readers (pip install 'hsae_dagster[files]')"
LARGEST_EXACT = 2**53
NO_CLASS = "(none)"
# Members of lists with so many words on average are sentences, no classes.
_WORDY = 3
# Objects of more members than this are keyed by what they hold, and stay text.
_MOST_MEMBERS = 100
# Between values of JSON that follow one another; some programs write a record separator.
_BETWEEN = " \t\n\r\x1e"


def read_json(path: Path, encoding: str | None, strictly: Callable[[Path], pl.DataFrame]) -> ReadTable:
    """The table in a JSON or JSON-lines file: objects in a list, one a line or under a name; columns; lists of cells.

    Raises:
        DatasetError: it is no JSON, or no table, with the line.
    """
    text, why = read_text(path, encoding)
    value, parts = _parsed(text, path)
    value, nested = _flat(value)
    columns, shape = _columns(value, path)
    frame = pl.DataFrame([_series(name, cells) for name, cells in columns.items()])
    if not frame.height:
        raise DatasetError(f"{path.name} holds no rows. Give a table with one row per text.")
    table = _with_amounts(frame).with_unusual([why, parts, shape, nested])
    if not table.unusual and not _same(frame, path, strictly):
        return table.with_unusual([_why(path.read_bytes(), columns)])
    return table


def _why(data: bytes, columns: Mapping[str, Sequence[Any]]) -> str:
    """What in a JSON file the strict reader stumbles over."""
    if data.startswith(b"\xef\xbb\xbf"):
        return "it began with a byte order mark"
    if any(word in data for word in (b"NaN", b"Infinity")):
        return "it held NaN or Infinity, which are not JSON"
    nested = [name for name, cells in columns.items() if any(isinstance(cell, dict) for cell in cells)]
    if nested:
        return f"the objects in {', '.join(f'`{name}`' for name in nested)} were written as text"
    return "a standard reader would reject or misread it"


def _parsed(text: str, path: Path) -> tuple[Any, str]:
    """The value of the file, or of all that stand in it one after another, and what was unusual about that."""
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        whole = error
    values: list[Any] = []
    decoder, at = json.JSONDecoder(), len(text) - len(text.lstrip(_BETWEEN))
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            if not values:
                break
            line = text.count("\n", 0, at) + 1
            raise DatasetError(
                f"{path.name} cannot be read as json: line {line:,} is no JSON of its own. Give one object a line, or "
                "one list of objects."
            ) from None
        values.append(value)
        while text[at : at + 1] and text[at] in _BETWEEN:
            at += 1
    if values and all(_are_records(value) for value in values):
        return [row for value in values for row in value], f"it held {len(values):,} lists of objects"
    if values:
        return values, ""
    place = (
        f"line {whole.lineno:,}, column {whole.colno:,}" if isinstance(whole, json.JSONDecodeError) else "its brackets"
    )
    raise DatasetError(f"{path.name} cannot be read as json: {place} is not JSON. Check the file's format.") from None


def _columns(value: Any, path: Path) -> tuple[dict[str, list[Any]], str]:
    if _are_records(value):
        return _of_records(value), ""
    if isinstance(value, dict) and value:
        return _of_object(value, path)
    if isinstance(value, list) and len(value) > 1 and isinstance(value[0], list):
        names, *rows = value
        if all(isinstance(name, str) for name in names) and _are_rows(rows, len(names)):
            return _of_rows(names, rows), "its rows were lists"
    raise DatasetError(
        f"{path.name} holds no table: give a list of objects with the same names, one object per row, or one object a "
        "line (JSON lines)."
    )


def _of_object(value: dict[str, Any], path: Path) -> tuple[dict[str, list[Any]], str]:
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and _are_rows(rows, len(names)):
        return _of_rows([str(name) for name in names], rows), "its names and rows stood apart"
    inside = {key: rows for key, rows in value.items() if _are_records(rows)}
    if len(inside) == 1:
        key, rows = next(iter(inside.items()))
        return _of_records(rows), f"its rows stood under `{key}`"
    cells = list(value.values())
    plain = all(isinstance(column, list) and not any(isinstance(cell, dict) for cell in column) for column in cells)
    if plain and len({len(column) for column in cells}) == 1 and cells[0]:
        return dict(value), "it was an object of columns"
    if all(isinstance(column, dict) for column in cells):
        inner = list(dict.fromkeys(key for column in cells for key in column))
        if all(key.isdigit() for key in inner):
            return {n: [column.get(key) for key in inner] for n, column in value.items()}, "it was an object of columns"
        return _of_records(cells), "it was an object of rows"
    if any(isinstance(cell, list | dict) for cell in cells):
        raise DatasetError(
            f"{path.name} holds one object with lists in it, not one object per row. Write it as a list of objects, "
            "or one object a line (JSON lines)."
        )
    return _of_records([value]), ""


def _are_rows(value: Sequence[Any], width: int) -> bool:
    return all(isinstance(row, list) and len(row) == width for row in value)


def _of_rows(names: Sequence[str], rows: Sequence[list[Any]]) -> dict[str, list[Any]]:
    return {name: [row[i] for row in rows] for i, name in enumerate(distinct(names))}


def _are_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _flat(value: Any) -> tuple[Any, str]:
    """Records with a column for each member of an object in them, one level deep; and what is said of that."""
    if not _are_records(value):
        return value, ""
    inside = list(dict.fromkeys(name for row in value for name, cell in row.items() if isinstance(cell, dict)))
    deep = [
        name for name in inside if not any(isinstance(row.get(name, {}), str | int | float | list) for row in value)
    ]
    if not deep or len({key for row in value for name in deep for key in row.get(name) or {}}) > _MOST_MEMBERS:
        return value, ""
    flat: list[dict[str, Any]] = [{} for _ in value]
    for made, row in zip(flat, value, strict=True):
        for name, cell in row.items():
            made |= {f"{name}.{key}": inner for key, inner in (cell or {}).items()} if name in deep else {name: cell}
    return flat, f"the objects in {', '.join(f'`{name}`' for name in deep)} were made columns of their own"


def _of_records(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _series(name: str, cells: Sequence[Any]) -> pl.Series:
    """A column of one type that holds every value unchanged: as text where no other does."""
    cells = [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in cells]
    kinds = {type(cell) for cell in cells if cell is not None}
    if not kinds:
        return pl.Series(name, cells, dtype=pl.String)
    if kinds <= {bool}:
        return pl.Series(name, cells, dtype=pl.Boolean)
    if kinds <= {int} and all(cell is None or -(2**63) <= cell < 2**63 for cell in cells):
        return pl.Series(name, cells, dtype=pl.Int64)
    if kinds <= {int, float} and all(not isinstance(cell, int) or abs(cell) <= LARGEST_EXACT for cell in cells):
        return pl.Series(name, [None if cell is None else float(cell) for cell in cells], dtype=pl.Float64)
    if kinds <= {list} and all(isinstance(member, str | int | float) for cell in cells for member in cell or ()):
        return pl.Series(name, [None if c is None else [_word(x) for x in c] for c in cells], dtype=pl.List(pl.String))
    return pl.Series(name, [None if cell is None else _word(cell) for cell in cells], dtype=pl.String)


def _word(cell: Any) -> str:
    """A value as text that can be encoded."""
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _same(frame: pl.DataFrame, path: Path, strictly: Callable[[Path], pl.DataFrame]) -> bool:
    try:
        found = strictly(path)
    except READING_FAULTS:
        return False
    alike = set(found.columns) == set(frame.columns) and found.height == frame.height
    return alike and all(_alike(frame[name], found[name]) for name in frame.columns)


def _alike(one: pl.Series, other: pl.Series) -> bool:
    if one.dtype == other.dtype or one.null_count() == one.len():
        return one.equals(other.cast(one.dtype, strict=False), null_equal=True)
    if one.dtype.is_numeric() and other.dtype.is_numeric():
        return one.cast(pl.Float64).equals(other.cast(pl.Float64), null_equal=True)
    return False


def _with_amounts(frame: pl.DataFrame) -> ReadTable:
    frame, lists = _joined(frame)
    amounts = plain_amounts(frame, None)
    typed = amounts.frame
    for name in frame.columns:
        # What was made plain is to be a number in the file that is written.
        if not frame[name].equals(typed[name], null_equal=True):
            numbers = typed[name].cast(pl.Float64, strict=False)
            if numbers.null_count() == typed[name].null_count():
                typed = typed.with_columns(numbers)
    said = [
        f"the sentences of `{name}` were made one text, a line each"
        if separator == "\n"
        else f"the lists of `{name}` were joined by `{separator}`"
        for name, separator in lists.items()
    ]
    classes = {name: separator for name, separator in lists.items() if separator != "\n"}
    return ReadTable(typed, typed, (*said, *amounts.said), Notes(doubts=amounts.doubts, lists=classes))


def _joined(frame: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """The table with the members of each list in one cell, and by column what separates them there.

    Sentences are no members of a list of classes, but lines of one text.
    """
    found = {}
    for name, dtype in frame.schema.items():
        inner = getattr(dtype, "inner", None)
        if inner is None or inner.is_nested() or inner in (pl.Binary, pl.Object):
            continue
        lists = frame[name].cast(pl.List(pl.String))
        words = lists.explode().drop_nulls()
        if words.n_unique() > MOST_LEVELS and int(words.str.count_matches(r"\S+").sum()) >= _WORDY * words.len():
            frame = frame.with_columns(lists.list.join("\n").set(lists.list.len() == 0, None).alias(name))
            found[name] = "\n"
            continue
        separator = next((s for s in SEPARATORS if not words.str.contains(s, literal=True).any()), None)
        if separator is None:
            continue
        # An empty list holds no class, which is another thing than an unknown one.
        cells = lists.list.join(separator).set(lists.list.len() == 0, NO_CLASS)
        frame = frame.with_columns(cells.alias(name))
        found[name] = separator
    return frame, found


def read_workbook(path: Path, sheet: str | None) -> ReadTable:
    """The table on a sheet of a workbook.

    Raises:
        DatasetError: the reader is not installed, the file is damaged, or it is unclear which sheet is meant.
    """
    try:
        import fastexcel
    except ImportError:
        raise DatasetError(
            f"{path.name} cannot be read: {INSTALL}, or save the sheet as CSV (UTF-8) and give that."
        ) from None
    try:
        book = fastexcel.read_excel(path)
        names = list(book.sheet_names)
        wanted = names if sheet is None else [name for name in names if name == sheet]
        found = {name: _cells(book, name) for name in wanted}
    except (fastexcel.FastExcelError, OSError, ValueError) as error:
        raise DatasetError(
            f"{path.name} cannot be read as a workbook ({_first_words(error)}). Open it, save the sheet as CSV "
            "(UTF-8) and give that."
        ) from error
    listed = ", ".join(f"“{name}”" for name in names)
    if sheet is not None and not found:
        raise DatasetError(f"{path.name} has no sheet “{sheet}” (it has {listed}). Correct --sheet.")
    filled = {name: cells for name, cells in found.items() if len(cells) > 1}
    if not filled:
        raise DatasetError(f"{path.name} holds no rows. Give a table with one row per text.")
    if len(filled) > 1:
        raise DatasetError(f"{path.name} has several sheets ({listed}). Name one with --sheet.")
    name, rows = next(iter(filled.items()))
    records = [Record(line, row) for line, row in enumerate(rows, 1)]
    first = names_at(records) or 0
    unusual = [f"it was the sheet “{name}” of a workbook"]
    unusual += [f"the names of its columns stood on row {first + 1}, below a title"] if first else []
    head, *rest = [record.cells for record in records[first:] if record.filled]
    return table_of_records(head, rest, None, path.name).with_unusual(unusual)


def _cells(book: Any, name: str) -> list[list[str]]:
    """Rows of cells as text; empty ones below and beside the table are left out."""
    frame = book.load_sheet(name, header_row=None, dtypes="string").to_polars()
    rows = [["" if cell is None else str(cell) for cell in row] for row in frame.iter_rows()]
    width = max((n for row in rows for n, cell in enumerate(row, 1) if cell.strip()), default=0)
    return [row[:width] for row in rows]


def read_statistics(path: Path) -> ReadTable:
    """The table in a file of Stata, SPSS or SAS; values that all have labels are read as these.

    Raises:
        DatasetError: the reader is not installed, or the file is damaged.
    """
    try:
        import pyreadstat
    except ImportError:
        raise DatasetError(
            f"{path.name} cannot be read: {INSTALL}, or export the table as CSV (UTF-8) and give that."
        ) from None
    try:
        columns, meta = getattr(pyreadstat, STATISTICS[path.suffix.lower()])(str(path), output_format="dict")
    # The reader stumbles over damaged files in many ways.
    except (
        pyreadstat.ReadstatError,
        pyreadstat.PyreadstatError,
        OSError,
        ValueError,
        LookupError,
        MemoryError,
    ) as error:
        raise DatasetError(
            f"{path.name} cannot be read ({_first_words(error)}). Export the table as CSV (UTF-8) and give that."
        ) from error
    labels = meta.variable_value_labels
    frame = pl.DataFrame([_labelled(name, list(cells), labels.get(name, {})) for name, cells in columns.items()])
    said = ["it was a file of Stata, SPSS or SAS"]
    worded = [f"`{n}`" for n in frame.columns if labels.get(n) and frame.schema[n] == pl.String]
    if worded:
        said.append(f"the values of {', '.join(worded)} were written as their labels")
    return _with_amounts(frame).with_unusual(said)


def _labelled(name: str, cells: Sequence[Any], labels: Mapping[Any, str]) -> pl.Series:
    present = {cell for cell in cells if cell is not None and cell == cell}
    if labels and present and present <= set(labels):
        return pl.Series(name, [labels.get(cell) for cell in cells], dtype=pl.String)
    cells = [None if cell is None or cell != cell or cell == "" else cell for cell in cells]
    made = pl.Series(name, cells, strict=False)
    whole = made.dtype.is_float() and bool((made.drop_nulls() == made.drop_nulls().round(0)).all())
    return made.cast(pl.Int64) if whole and bool((made.drop_nulls().abs() < LARGEST_EXACT).all()) else made


def read_parquet(path: Path) -> ReadTable:
    """The table in a Parquet file: words for categories, numbers for decimals, text for bytes that are text.

    Raises:
        PolarsError, PanicException, OSError: it cannot be read.
    """
    plain, said = pl.read_parquet(path), []
    for name, dtype in plain.schema.items():
        if dtype == pl.Binary:
            with suppress(pl.exceptions.PolarsError):
                plain = plain.with_columns(plain[name].cast(pl.String))
                said.append(f"the texts of `{name}` were bytes")
    table = _with_amounts(with_plain_types(plain))
    if not table.unusual:
        table = replace(table, plain=plain)
    return table.with_unusual(said)


def _first_words(error: Exception) -> str:
    """What a library says, without its advice to programmers."""
    return " ".join(str(error).split())[:120].split("Context")[0].rstrip(" .:")
