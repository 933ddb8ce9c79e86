"""Random tables written as a dozen programs write them come back as they were, or are refused with a remedy."""

import csv
import io
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hsae_dagster.dataset.intake import read_leniently
from hsae_dagster.dataset.rows import READERS
from hsae_dagster.errors import DatasetError
from hsae_dagster_tests.torture.fuzz import REMEDY

Rows = list[tuple[str, int, str]]
NAMES = ("comment", "stars", "who")

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
    return "\n".join(["\t".join(NAMES), *lines, "no name\t1\t\\N"]) + "\n"


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


USUAL = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", DIALECTS)
@USUAL
@given(rows=tables)
def test_a_table_comes_back_or_is_refused(name: str, rows: Rows) -> None:
    read_back(name, rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIALECTS)
@settings(USUAL, max_examples=700)
@given(rows=tables)
def test_ten_thousand_tables_come_back_or_are_refused(name: str, rows: Rows) -> None:
    read_back(name, rows)
