"""Random tables written as a dozen programs write them come back as they were, or are refused with a remedy."""

import csv
import io
import json
import os
import re
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hsae_dagster.dataset.new.intake import Intake, read_leniently, take_in, write_plain
from hsae_dagster.dataset.new.proposal import propose
from hsae_dagster.dataset.rows import READERS
from hsae_dagster.errors import DatasetError
from hsae_dagster_tests.torture.fuzz import REMEDY

Rows = list[tuple[str, int, str]]
NAMES = ("comment", "stars", "who")
MYSQL_LAST = "no name\t1\t\\N\n"

# Words with everything in between and inside that some program treats as a mark.
words = st.sampled_from(
    ["the", "room", "was", "cold", "Käse", "naïve", "很好", '5"', "it's", "\\", "C:\\new", "a\\b", "🎉", "1,5"]
)
glue = st.sampled_from(
    [" ", " ", " ", ", ", "; ", " | ", "\t", "\n", "\r\n", '"', ' "', '" ', "\\n", "\\N", ",", '","']
)
texts = st.lists(st.tuples(words, glue), min_size=1, max_size=8).map(
    lambda parts: "".join(w + g for w, g in parts) + "end"
)
plain = st.lists(st.sampled_from(["ann", "bob", "zoë", "N", "an o'dd one", "x-1"]), min_size=1, max_size=2).map(
    " ".join
)
tables = st.lists(st.tuples(texts, st.integers(-5, 500), plain), min_size=4, max_size=12)


def python_csv(rows: Rows, **options: object) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, **options)  # type: ignore[arg-type]
    writer.writerow(NAMES)
    writer.writerows(rows)
    return stream.getvalue()


def quoted(text: str, escape: str = '""') -> str:
    return '"' + text.replace('"', escape) + '"'


def r_table(rows: Rows, separator: str, escape: str, *, names: bool) -> str:
    """write.table quotes texts and names of rows; `escape` is its qmethod."""
    top = separator.join(quoted(name) for name in NAMES)
    lines = [
        separator.join(([quoted(str(n))] if names else []) + [quoted(text, escape), str(stars), quoted(who, escape)])
        for n, (text, stars, who) in enumerate(rows, 1)
    ]
    return "\n".join([top, *lines]) + "\n"


def pandas_index(rows: Rows) -> str:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["", *NAMES])
    writer.writerows([(n, *row) for n, row in enumerate(rows)])
    return stream.getvalue()


def mysql(rows: Rows) -> str:
    r"""SELECT … INTO OUTFILE: a backslash before tabs, line breaks and backslashes; \N for no value (the last row)."""

    def escaped(text: str) -> str:
        return re.sub(r"[\t\n\\]", lambda found: "\\" + found[0], text)

    lines = ["\t".join((escaped(text), str(stars), escaped(who))) for text, stars, who in rows]
    return "\n".join(["\t".join(NAMES), *lines]) + "\n" + MYSQL_LAST


def spark(rows: Rows) -> str:
    """Quotes where it must, and writes a backslash before quotes and before backslashes beside them."""

    def cell(text: str) -> str:
        return quoted(text, '\\"') if re.search(r'[",\n\r]', text) else text

    return "\n".join([",".join(NAMES), *[",".join((cell(t), str(s), cell(w))) for t, s, w in rows]]) + "\n"


def qualtrics(rows: Rows) -> str:
    second = [("Tell us in your own words", "How many stars do you give?", "Who are you, if we may ask?")]
    third = [tuple(f'{{"ImportId":"QID{n}"}}' for n in range(3))]
    return python_csv([*second, *third, *rows], lineterminator="\n")  # type: ignore[list-item]


def excel(rows: Rows, separator: str) -> str:
    return f"sep={separator}\r\n" + python_csv(rows, delimiter=separator)


DIALECTS: dict[str, tuple[str, Callable[[Rows], bytes]]] = {
    "python": (".csv", lambda rows: python_csv(rows).encode()),
    "python, all quoted": (".csv", lambda rows: python_csv(rows, quoting=csv.QUOTE_ALL).encode()),
    "python, words quoted": (".csv", lambda rows: python_csv(rows, quoting=csv.QUOTE_NONNUMERIC).encode()),
    "python, tabs": (".tsv", lambda rows: python_csv(rows, delimiter="\t", lineterminator="\n").encode()),
    "python, bars": (".txt", lambda rows: python_csv(rows, delimiter="|").encode()),
    "pandas with its index": (".csv", lambda rows: pandas_index(rows).encode()),
    "excel, german": (".csv", lambda rows: excel(rows, ";").encode("utf-8-sig")),
    "excel, unicode text": (".txt", lambda rows: python_csv(rows, delimiter="\t").encode("utf-16")),
    "R, write.csv": (".csv", lambda rows: r_table(rows, ",", '""', names=False).encode()),
    "R, write.table": (".txt", lambda rows: r_table(rows, " ", '\\"', names=True).encode()),
    "R, write.table with tabs": (".tsv", lambda rows: r_table(rows, "\t", '\\"', names=False).encode()),
    "mysql": (".tsv", lambda rows: mysql(rows).encode()),
    "spark": (".csv", lambda rows: spark(rows).encode()),
    "qualtrics": (".csv", lambda rows: qualtrics(rows).encode("utf-8-sig")),
    "stata": (".csv", lambda rows: python_csv(rows, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()),
}  # fmt: skip


def read_back(name: str, rows: Rows) -> None:
    """Reads a table in a dialect and compares it, cell by cell; a refusal has to name the file and a remedy."""
    ending, write = DIALECTS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"made{ending}"
        path.write_bytes(write(rows))
        try:
            found = read_leniently(path)
        except DatasetError as error:
            assert path.name in str(error)
            assert REMEDY.search(str(error))
            return
        if any("lines one text" in said for said in found.unusual):
            return  # a text whose lines look like rows, between quotes: a guess, and said
        rows = [*rows, ("no name", 1, "")] if name == "mysql" else rows
        assert_same(rows, found.plain, name)
        if not found.unusual:
            assert_same(rows, READERS[ending](path), name)


def assert_same(rows: Rows, frame: pl.DataFrame, name: str) -> None:
    assert frame.height == len(rows), name
    columns: Sequence[str] = [column for column in frame.columns if column not in ("", "row_name")]
    assert columns == list(NAMES), name
    assert frame["comment"].cast(pl.String).to_list() == [text for text, *_ in rows], name
    assert frame["stars"].cast(pl.Int64).to_list() == [stars for _, stars, _ in rows], name
    assert frame["who"].cast(pl.String).to_list() == [who for *_, who in rows], name


# How many times as many files the slow tests write and damage.
TIMES = int(os.environ.get("HSAE_FUZZ_TIMES", "1"))
USUAL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", DIALECTS)
@USUAL
@given(rows=tables)
# With a backslash before its quotes, the last text could as well end at its comma, in a row that is short.
@example(rows=[("the end", 0, "ann")] * 3 + [('\\","the\nend', 0, "ann")])
@example(rows=[("the end", 0, "ann")] * 2 + [('the"end', 0, "ann"), ('\\" the the\nthe end', 0, "ann")])
def test_a_table_comes_back_or_is_refused(name: str, rows: Rows) -> None:
    read_back(name, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIALECTS)
@settings(USUAL, max_examples=700 * TIMES)
@given(rows=tables)
def test_ten_thousand_tables_come_back_or_are_refused(name: str, rows: Rows) -> None:
    read_back(name, rows)


def objects(rows: Rows) -> list[dict[str, object]]:
    return [dict(zip(NAMES, row, strict=True)) for row in rows]


def json_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in objects(rows)).encode()


def workbook(rows: Rows) -> bytes:
    import openpyxl

    book, stream = openpyxl.Workbook(), io.BytesIO()
    for row in [NAMES, *rows]:
        book.active.append(row)
    book.save(stream)
    return stream.getvalue()


def parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pl.DataFrame(rows, schema=list(NAMES), orient="row").write_parquet(stream)
    return stream.getvalue()


def stata(rows: Rows) -> bytes:
    import pandas as pd

    stream = io.BytesIO()
    pd.DataFrame(rows, columns=list(NAMES)).to_stata(stream, version=118, write_index=False)
    return stream.getvalue()


# Of a file that is no text, a single byte tells nothing of the row that it is in: these are only read or refused.
BINARY = {"workbook": (".xlsx", workbook), "parquet": (".parquet", parquet), "stata's own": (".dta", stata)}
FILE_KINDS = {
    **DIALECTS,
    "json lines": (".jsonl", json_lines),
    "json": (".json", lambda rows: json.dumps(objects(rows), indent=1).encode()),
    **BINARY,
}


def fuzzed(name: str, count: int) -> Counter[str]:
    """Writes tables in a dialect, damages each file in one place, and reads them as `hsae new` and every stage would.

    A damaged file is refused in a sentence with a remedy, or something unusual is said of it, or every row that the
    damage does not touch comes back as it was written. What the strict reader makes of what is written in the file's
    place is what was read.

    Returns:
        How many files met which fate; few are refused before they are damaged.
    """
    ending, write = FILE_KINDS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    fates: Counter[str] = Counter()
    for at in range(count):
        rows = [
            (f"{_words(rng)} {n}end", int(rng.integers(-5, 500)), f"who {n}") for n in range(int(rng.integers(6, 14)))
        ]
        data, first, last = _damaged(write(rows), rng)
        whole = [] if name in (*BINARY, "json") else _untouched(rows, write, first, last)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"made{ending}"
            path.write_bytes(write(rows))
            told = f"{name}, file {at}: {data!r}"
            try:
                usual = _said(take_in(path))
            except DatasetError as error:  # of two readings, with R's backslashes, even where nothing is damaged
                _check_refusal(error, path, told)
                fates["refused whole"] += 1
                continue
            path.write_bytes(data)
            fates[_fate(path, whole, usual, told)] += 1
    return fates


def _untouched(rows: Rows, write: Callable[[Rows], bytes], first: int, last: int) -> Rows:
    """Rows whose bytes lie outside of what was damaged, the end of the line before them included."""
    lengths = [len(write(rows[:n])) for n in range(len(rows) + 1)]
    # MySQL's last row comes after them.
    after = len(MYSQL_LAST) if write is DIALECTS["mysql"][1] else 0
    ends = [length - after for length in lengths]
    return [row for row, start, end in zip(rows, ends, ends[1:], strict=False) if end <= first or start > last + 1]


def _words(rng: np.random.Generator) -> str:
    parts = [
        "the",
        "room",
        "Käse",
        "很好",
        '5"',
        "it's",
        "a\\b",
        "🎉",
        "1,5",
        ";",
        "\t",
        "\n",
        "|",
        ", ",
        "1.149",
        "'",
        "ok",
    ]
    return " ".join(rng.choice(parts, size=int(rng.integers(1, 9))))


def _damaged(data: bytes, rng: np.random.Generator) -> tuple[bytes, int, int]:
    """The file with one fault, and the bytes from first to before last that it touches."""
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
    put = [
        b'"',
        b"'",
        b",",
        b";",
        b"\t",
        b"\n",
        b"\r",
        b"\\",
        b"\x00",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\x1a",
        b"|",
        b'""',
        b"N/A",
    ]
    kind = rng.choice(["put", "change", "remove", "cut"], p=[0.5, 0.2, 0.2, 0.1])
    if kind == "put":
        return data[:at] + put[int(rng.integers(len(put)))] + data[at:], at, at + 1
    if kind == "change":
        return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :], at, at + 1
    if kind == "remove":
        return data[:at] + data[at + length :], at, at + length
    return data[:at], at, len(data)


def _said(intake: Intake) -> set[str]:
    """What is said of how a file was read, for whatever line."""
    said = [*(part for made in intake.rewritten for part in made.unusual.split(" and ")), *intake.notes.remarks]
    return {re.sub(r"[\d,]+", "N", part) for part in [*said, *intake.notes.doubts.values()]}


def _fate(path: Path, whole: Rows, usual: set[str], told: str) -> str:
    try:
        intake = take_in(path)
        write_plain(intake, path.parent)
        file = path.parent / intake.rewritten[0].name if intake.rewritten else path
        strict = READERS[file.suffix](file)
    except DatasetError as error:
        _check_refusal(error, path, told)
        return "refused"
    try:
        propose(intake.frame, path.name, notes=intake.notes)
    except DatasetError as error:
        assert REMEDY.search(str(error)), (str(error), told)
    assert _plain(strict.select(intake.frame.columns)) == _plain(intake.frame), told
    if _said(intake) - usual:
        return "something is said"
    frame = intake.frame
    cells = set(_plain(frame.select(NAMES if set(NAMES) <= set(frame.columns) else frame.columns[-3:])))
    missing = [row for row in _plain(pl.DataFrame(whole, schema=list(NAMES), orient="row")) if row not in cells]
    assert not missing, (missing, told)
    return "untouched rows are whole"


def _check_refusal(error: DatasetError, path: Path, told: str) -> None:
    assert path.name in str(error), (str(error), told)
    assert REMEDY.search(str(error)), (str(error), told)


def _plain(frame: pl.DataFrame) -> list[tuple[str, ...]]:
    """Rows as strings; numbers alike whether they are whole or not."""
    return [
        tuple("" if cell is None else f"{cell:g}" if isinstance(cell, int | float) else cell for cell in row)
        for row in frame.rows()
    ]


@pytest.mark.parametrize("name", FILE_KINDS)
def test_no_value_changes_in_silence_in_a_damaged_file(name: str) -> None:
    assert sum(fuzzed(name, 25).values()) == 25


@pytest.mark.slow
@pytest.mark.parametrize("name", FILE_KINDS)
def test_no_value_changes_in_silence_in_ten_thousand_damaged_files(name: str) -> None:
    fates = fuzzed(name, 500 * TIMES)
    # None of the checks is idle.
    assert len(fates) > 1 and fates["untouched rows are whole"] > 50, fates
