"""Bringing in somebody's files as a dataset: JSON of any shape, workbooks, Stata, SPSS, SAS, Parquet, plain text."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.dataset.discovery import DATASET_NAME
from hsae_dagster.dataset.new.columns import (
    MOST_LEVELS,
    NO_NOTES,
    Notes,
    ReadTable,
    Record,
    distinct,
    names_at,
    table_of_records,
    with_plain_types,
)
from hsae_dagster.dataset.new.delimited import decode, read_delimited
from hsae_dagster.dataset.rows import READERS, reading_fault
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
# Between values of JSON that follow one another; some programs write a record separator.
# Objects of more members than this are keyed by what they hold, and stay text.
_MOST_MEMBERS = 100
_BETWEEN = re.compile("[ \\t\\n\\r\\x1e]*")


def read_json(path: Path, encoding: str | None, strictly: Callable[[Path], pl.DataFrame]) -> ReadTable:
    """The table in a JSON or JSON-lines file: objects in a list, one a line or under a name; columns; lists of cells.

    Raises:
        DatasetError: it is no JSON, or no table, with the line.
    """
    data = path.read_bytes()
    if not data.strip():
        raise DatasetError(f"{path.name} is empty. Give a table with one row per text.")
    decoded = decode(data, path, encoding)
    value, parts = _parsed(decoded.text, path)
    value, nested = _flat(value)
    columns, shape = _columns(value, path)
    frame = pl.DataFrame([_series(name, cells) for name, cells in columns.items()])
    if not frame.height:
        raise DatasetError(f"{path.name} holds no rows. Give a table with one row per text.")
    table = _with_amounts(frame).with_unusual([decoded.unusual, parts, shape, nested])
    if not table.unusual and not _same(frame, path, strictly):
        return table.with_unusual([_why(data, columns)])
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
    decoder, at = json.JSONDecoder(), _past_space(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            if not values:
                break
            line = text.count("\n", 0, at) + 1
            raise DatasetError(
                f"{path.name} cannot be read as json: line {line:,} is no JSON of its own. Give one object a line, or "
                "one list of objects."
            ) from None
        values.append(value)
        at = _past_space(text, end)
    if values and all(_are_records(value) for value in values):
        return [row for value in values for row in value], f"it held {len(values):,} lists of objects"
    if values:
        return values, ""
    place = (
        f"line {whole.lineno:,}, column {whole.colno:,}" if isinstance(whole, json.JSONDecodeError) else "its brackets"
    )
    raise DatasetError(f"{path.name} cannot be read as json: {place} is not JSON. Check the file's format.") from None


def _past_space(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _columns(value: Any, path: Path) -> tuple[dict[str, list[Any]], str]:
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        return _of_records(value), ""
    if isinstance(value, list) and len(value) > 1 and all(isinstance(row, list) for row in value):
        names = value[0]
        if all(isinstance(name, str) for name in names) and all(len(row) == len(names) for row in value):
            return {n: [row[i] for row in value[1:]] for i, n in enumerate(distinct(names))}, "its rows were lists"
    if isinstance(value, dict) and value:
        return _of_object(value, path)
    raise DatasetError(
        f"{path.name} holds no table: give a list of objects with the same names, one object per row, or one object a "
        "line (JSON lines)."
    )


def _of_object(value: dict[str, Any], path: Path) -> tuple[dict[str, list[Any]], str]:
    names, rows = value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(rows, list) and _are_rows(rows, len(names)):
        found = distinct([str(name) for name in names])
        return {name: [row[i] for row in rows] for i, name in enumerate(found)}, "its names and rows stood apart"
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
    flat = [
        {key: cell for name, cell in row.items() for key, cell in _members(name, cell, split=name in deep)}
        for row in value
    ]
    return flat, f"the objects in {', '.join(f'`{name}`' for name in deep)} were made columns of their own"


def _members(name: str, cell: Any, *, split: bool) -> list[tuple[str, Any]]:
    if not split:
        return [(name, cell)]
    return [(f"{name}.{key}", inner) for key, inner in (cell or {}).items()]


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
    if kinds <= {list} and all(_are_plain(cell) for cell in cells if cell is not None):
        return pl.Series(name, [None if c is None else [_word(x) for x in c] for c in cells], dtype=pl.List(pl.String))
    return pl.Series(name, [None if cell is None else _word(cell) for cell in cells], dtype=pl.String)


def _are_plain(cells: Sequence[Any]) -> bool:
    return all(isinstance(cell, str | int | float) for cell in cells)


def _word(cell: Any) -> str:
    """A value as text that can be encoded."""
    text = cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()


def _same(frame: pl.DataFrame, path: Path, strictly: Callable[[Path], pl.DataFrame]) -> bool:
    try:
        found = strictly(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError):
        return False
    if set(found.columns) != set(frame.columns) or found.height != frame.height:
        return False
    return all(_alike(frame[name], found[name]) for name in frame.columns)


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
    return _of_sheet(rows, path).with_unusual([f"it was the sheet “{name}” of a workbook"])


def _cells(book: Any, name: str) -> list[list[str]]:
    """Rows of cells as text; empty ones below and beside the table are left out."""
    frame = book.load_sheet(name, header_row=None, dtypes="string").to_polars()
    rows = [["" if cell is None else str(cell) for cell in row] for row in frame.iter_rows()]
    width = max((n for row in rows for n, cell in enumerate(row, 1) if cell.strip()), default=0)
    return [row[:width] for row in rows]


def _of_sheet(rows: Sequence[list[str]], path: Path) -> ReadTable:
    records = [Record(line, row) for line, row in enumerate(rows, 1)]
    first = names_at(records) or 0
    above = [f"the names of its columns stood on row {first + 1}, below a title"] if first else []
    filled = [record.cells for record in islice(records, first, None) if record.filled]
    return table_of_records(filled[0], filled[1:], None, path.name).with_unusual(above)


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
        if dtype == pl.Binary and (words := _text_of(plain[name])) is not None:
            plain = plain.with_columns(words)
            said.append(f"the texts of `{name}` were bytes")
    amounts = _with_amounts(with_plain_types(plain))
    if amounts.unusual:
        plain = amounts.plain
    return ReadTable(amounts.frame, plain, (*said, *amounts.unusual), amounts.notes)


def _text_of(column: pl.Series) -> pl.Series | None:
    """Bytes as text, None where some are none."""
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError:
        return None


def _first_words(error: Exception) -> str:
    """What a library says, without its advice to programmers."""
    return " ".join(str(error).split())[:120].split("Context")[0].rstrip(" .:")


DELIMITED = (".csv", ".tsv", ".tab", ".txt")
JSON = (".json", ".jsonl", ".ndjson")
REMEDIES = {
    ".numbers": "Save the sheet as CSV (UTF-8) and give that.",
    **dict.fromkeys((".rds", ".rdata", ".rda"), "Write the table with write.csv(…, row.names = FALSE) and give that."),
    **dict.fromkeys((".zip", ".gz", ".bz2", ".xz", ".7z", ".tar"), "Unpack it and give the file inside."),
    **dict.fromkeys((".pdf", ".docx", ".doc"), "Make a table of it: one row per text, with an outcome beside it."),
}
KNOWN = "CSV, TSV, Parquet, JSON or JSON-lines file, workbook, Stata, SPSS or SAS file"
# What lies in a dataset's folder may be private, and `git add .` would publish it.
PRIVATE = "# Written by `hsae new`: texts of yours enter no repository. Remove this file to commit them.\n*\n"
# Names of files that say nothing of the data; the folder's says more.
GENERIC = ("data", "dataset", "train", "test", "table", "file", "export", "texts", "output")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "holdout": ("holdout", "test", "testing", "heldout"),
}


@dataclass(frozen=True)
class Rewritten:
    """A file that has to be written in a plain form: its new name, half a sentence on why, and what is written."""

    path: Path
    name: str
    unusual: str
    plain: pl.DataFrame


@dataclass(frozen=True)
class Intake:
    """Files to become a dataset.

    Attributes:
        frame: the rows of all of them.
        paths: the files as they came.
        files: the value of `files` in dataset.yaml, by the names they will have.
        rewritten: those that have to be written in a plain form.
        notes: what a person should know of how they were read.
    """

    frame: pl.DataFrame
    paths: tuple[Path, ...]
    files: str | list[str] | dict[str, str]
    rewritten: tuple[Rewritten, ...] = ()
    notes: Notes = NO_NOTES

    def declared_name(self, path: Path) -> str:
        """The name that a file will have in the dataset's folder."""
        return next((made.name for made in self.rewritten if made.path == path), path.name)


def take_in(source: Path, *, encoding: str | None = None, sheet: str | None = None) -> Intake:
    """Read a file, or the data files of a folder.

    Raises:
        DatasetError: nothing there can be read as a table, or the files do not go together.
    """
    if not source.exists():
        raise DatasetError(f"There is no {source}. Give a {KNOWN}, or a folder.")
    paths = _data_files(source) if source.is_dir() else [source]
    read = [(path, read_leniently(path, encoding, sheet)) for path in paths]
    columns = set(read[0][1].frame.columns)
    for path, table in read[1:]:
        if set(table.frame.columns) != columns:
            raise DatasetError(
                f"{paths[0].name} and {path.name} have different columns, so they are not one dataset. Give one of "
                f"the files instead of the folder {source}."
            )
    rewritten = tuple(
        Rewritten(path, _plain_name(path), " and ".join(table.unusual), table.plain)
        for path, table in read
        if table.unusual
    )
    made = Intake(
        _together([table.frame for _, table in read]),
        tuple(paths),
        "",
        rewritten,
        sum((table.notes for _, table in read), NO_NOTES),
    )
    names = [made.declared_name(path) for path in paths]
    if len(set(names)) < len(names):
        raise DatasetError(f"Two files of {source} would get the name {names[0]}. Rename one.")
    return replace(made, files=_declared(names))


def _together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows; a column that is of numbers in one file and of words in another becomes one of words."""
    order = frames[0].columns
    try:
        return pl.concat([frame.select(order) for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        flat = [frame.select(pl.col(order).exclude(pl.List, pl.Struct, pl.Array).cast(pl.String)) for frame in frames]
        shared = [name for name in order if all(name in frame.columns for frame in flat)]
        return pl.concat([frame.select(shared) for frame in flat])


def _plain_name(path: Path) -> str:
    """Another name than the file's own, so that it can lie beside it; text stays text, the rest keeps its types."""
    ending = ".csv" if path.suffix.lower() in DELIMITED else ".parquet"
    return f"{path.stem}{ending}" if path.suffix.lower() != ending else f"{path.stem}_plain{ending}"


def _data_files(folder: Path) -> list[Path]:
    known = {*READERS, *DELIMITED, *JSON, *WORKBOOKS, *STATISTICS}
    present = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [
        path for path in present if path.suffix.lower() in known and path.stem.lower() not in ("readme", "license")
    ]
    if not found:
        others = ", ".join(path.name for path in present[:8]) or "nothing"
        raise DatasetError(f"{folder} holds no {KNOWN} (it holds {others}).")
    return found


def _declared(names: Sequence[str]) -> str | list[str] | dict[str, str]:
    """One file, one file per split if the names say so, or a list."""
    if len(names) == 1:
        return names[0]
    by_split: dict[str, str] = {}
    for name in names:
        words = re.split(r"[^a-z]+", name.lower())
        splits = [split for split, said in SPLIT_WORDS.items() if set(words) & set(said)]
        if len(splits) != 1 or splits[0] in by_split:
            return list(names)
        by_split[splits[0]] = name
    # Without one of the three the project's own split by hash has to serve.
    return by_split if len(by_split) == 3 else list(names)


def read_leniently(path: Path, encoding: str | None = None, sheet: str | None = None) -> ReadTable:
    """The table in a file, and what about it the strict reader would not accept.

    Raises:
        DatasetError: it is no table, with what to do instead.
    """
    suffix = path.suffix.lower()
    if suffix in REMEDIES:
        raise DatasetError(f"{path.name} cannot be read: {REMEDIES[suffix]}")
    try:
        if suffix in DELIMITED:
            return read_delimited(path, encoding)
        if suffix in JSON:
            return read_json(path, encoding, READERS[".jsonl" if suffix != ".json" else ".json"])
        if suffix in WORKBOOKS:
            return read_workbook(path, sheet)
        if suffix in STATISTICS:
            return read_statistics(path)
        if suffix == ".parquet":
            return read_parquet(path)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise DatasetError(
            f"{path} cannot be read as {suffix[1:]}: {reading_fault(error)} Check its format."
        ) from error
    raise DatasetError(f"{path.name} cannot be read: Give a {KNOWN}.")


def name_for(source: Path) -> str:
    """A dataset's name from a file's or folder's.

    Raises:
        DatasetError: nothing usable is left of it.
    """
    stem = source.resolve().name if source.is_dir() else source.stem
    if stem.lower() in GENERIC and not source.is_dir():
        stem = source.resolve().parent.name
    name = re.sub(r"[^a-z0-9_\-]+", "_", stem.lower()).strip("_-")[:64]
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(f"No dataset name can be made of `{stem}`. Give one with --name.")
    return name


def exists_already(source: Path, target: Path) -> str:
    """A sentence on a dataset that is there, with what to do about it."""
    # A folder that may hold the only copy of the files must not be removed.
    only = not source.exists() or source.resolve().is_relative_to(target.resolve())
    remove = f"the file {target / 'dataset.yaml'}" if only else f"the folder {target}"
    other = next(name for n in range(2, 10_000) if not (target.parent / (name := f"{target.name}_{n}")).exists())
    return (
        f"The dataset `{target.name}` exists already and is left as it is. Give the new one another name (--name "
        f"{other}), or remove {remove} and try again; or keep it, edit {target / 'dataset.yaml'} and run `hsae check "
        f"{target.name}`."
    )


def write_plain(intake: Intake, folder: Path) -> None:
    """Write the rewritten files into `folder`: as CSV in UTF-8 with commas, or as Parquet."""
    for made in intake.rewritten:
        write = made.plain.write_csv if made.name.endswith(".csv") else made.plain.write_parquet
        write(folder / made.name)


def publish(intake: Intake, plain: Path, declaration: str, target: Path, *, move: bool) -> None:
    """Make the folder `target` from the files and the text of dataset.yaml, whole or not at all.

    `plain` is where `write_plain` put the rewritten ones. `target` must not exist, or is the folder of the files.

    Raises:
        DatasetError: there is a dataset, or anything else, of that name.
    """
    in_place = all(path.resolve().parent == target.resolve() for path in intake.paths)
    if (target / "dataset.yaml").exists() or (target.exists() and not in_place):
        raise DatasetError(
            f"{target} exists already and is left as it is. Choose another name with --name, or remove that folder."
        )
    new_names = {made.path: made.name for made in intake.rewritten}
    if in_place:
        for name in new_names.values():
            if (target / name).exists():
                raise DatasetError(f"{target / name} exists already and is left as it is. Rename or remove it first.")
            shutil.copyfile(plain / name, target / name)
        _write_new(target / "dataset.yaml", declaration)
        if not (target / ".gitignore").exists():
            _write_new(target / ".gitignore", PRIVATE)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for path in intake.paths:
            plain_name = new_names.get(path)
            shutil.copyfile(plain / plain_name if plain_name else path, aside / (plain_name or path.name))
        _write_new(aside / "dataset.yaml", declaration)
        _write_new(aside / ".gitignore", PRIVATE)
        aside.chmod(0o755)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if move:
        for path in intake.paths:
            path.unlink()


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as stream:
        stream.write(text)
