"""Files as programs of all kinds write them, each with its right outcome: read as meant, or refused with a remedy.

Every input is made here. `CELLS` is the table that most of them hold.
"""

import json
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hsae_dagster.dataset.new.columns import ReadTable
from hsae_dagster.dataset.new.intake import read_leniently, take_in, write_plain
from hsae_dagster.dataset.rows import READERS
from hsae_dagster.errors import DatasetError

WORDS = (
    "the room was clean and quiet",
    "my parcel arrived late",
    "we waited an hour at the desk",
    "breakfast was good",
)
CELLS = [(f"{WORDS[n % 4]}, visit {n}", n % 5 + 1, f"guest {n % 12}") for n in range(40)]
POLISH, GERMAN, FRENCH = (
    "pokój był ładny, łazienka świeża",
    "schön, aber zu laut für Käse",
    "très près de l’hôtel, ça va où",
)
SPANISH, CZECH, TURKISH = (
    "la habitación del niño, señor García, está aquí",
    "pokoj byl čistý, děkuji, příště",
    "çok güzel, şehir yakın, ılık",
)
RUSSIAN = "Гостиница была очень чистой, персонал вежливый, но завтрак плохой"
GREEK = "Το ξενοδοχείο ήταν πολύ καθαρό και το προσωπικό ευγενικό"
HEBREW, ARABIC = "המלון היה נקי מאוד והצוות היה אדיב", "كان الفندق نظيفا جدا والموظفون لطفاء"
CHINESE, TAIWAN = "酒店非常干净，服务员态度很好，早餐也不错。", "這家旅館非常乾淨，服務人員態度很好，早餐也很豐富。"
JAPANESE, KOREAN = "このホテルはとても清潔で、また来たいと思います。", "이 호텔은 매우 깨끗하고 직원들이 친절했습니다."
THAI = "โรงแรมสะอาดมาก พนักงานบริการดี อาหารเช้าอร่อย"


def lines(separator: str = ",", quote: Callable[[str], str] = lambda text: f'"{text}"', end: str = "\n") -> str:
    rows = [separator.join(("comment", "stars", "who"))]
    rows += [separator.join((quote(text), str(stars), who)) for text, stars, who in CELLS]
    return end.join(rows) + end


def in_language(text: str, encoding: str) -> bytes:
    return ("comment\tstars\n" + "".join(f"{text} {n}\t{n % 5}\n" for n in range(30))).encode(encoding)


def workbook(folder: Path, *, title: bool = False, sheets: int = 1) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in [["Survey of March"], []] * title:
        sheet.append(row)
    sheet.append(["comment", "stars", "who", "when"])
    for n, cells in enumerate(CELLS):
        sheet.append([*cells, datetime(2024, 3, n % 28 + 1, 10, 30)])
    for n in range(sheets - 1):
        other = book.create_sheet(f"more {n}")
        other.append(["a", "b"])
        other.append([1, 2])
    book.save(folder / "made.xlsx")
    return (folder / "made.xlsx").read_bytes()


def statistics(folder: Path, kind: str) -> bytes:
    import pandas as pd
    import pyreadstat

    frame = pd.DataFrame(CELLS, columns=["comment", "stars", "who"]).assign(agree=np.arange(40) % 2 + 1.0)
    path, labels = folder / f"made.{kind}", {"agree": {1: "Disagree", 2: "Agree"}}
    write = {"sav": pyreadstat.write_sav, "dta": pyreadstat.write_dta}[kind]
    write(frame, str(path), variable_value_labels=labels)
    return path.read_bytes()


def parquet(folder: Path, frame: pl.DataFrame) -> bytes:
    frame.write_parquet(folder / "made.parquet")
    return (folder / "made.parquet").read_bytes()


def table() -> pl.DataFrame:
    return pl.DataFrame(CELLS, schema=["comment", "stars", "who"], orient="row")


def said_by(n: int) -> list[str]:
    return [f"We stayed {n} nights, all in all.", f"It was good; room {n} | quiet, too."][: 1 + n % 2]


def objects() -> list[dict[str, Any]]:
    return table().to_dicts()


QUOTE, MARK = '"', "\ufeff"
SEVERAL = "comment,stars,who\n" + "".join(f'"{t}",{s},{w}\n' for t, s, w in CELLS)
MYSQL = "comment\tstars\twho\n" + "".join(f"{t}\\\nsecond line\t{s}\t{w}\n" for t, s, w in CELLS[:20]) + "x\t\\N\tann\n"
R_TABLE = '"comment" "stars" "who"\n' + "".join(f'"{n}" "{t}" {s} "{w}"\n' for n, (t, s, w) in enumerate(CELLS, 1))
R_COMMAS = R_TABLE.replace('" ', '",').replace(' "', ',"')
QUALTRICS = (
    "StartDate,comment,stars\nStart Date,Tell us in your own words,How many stars?\n"
    '"{""ImportId"":""startDate""}","{""ImportId"":""QID1""}","{""ImportId"":""QID2""}"\n'
    + "".join(f'2026-03-01 10:00:0{n % 10},"{t}",{s}\n' for n, (t, s, _) in enumerate(CELLS))
)
MONKEY = "Respondent,comment,stars,again\n,Open-Ended Response,Response,Response\n" + "".join(
    f'{n + 1000},"{t}",{s},{s % 2}\n' for n, (t, s, _) in enumerate(CELLS)
)
SPARK = 'comment,stars,who\n"he said \\"never, ever\\" again",1,ann\n' + "".join(
    f'"{t}",{s},{w}\n' for t, s, w in CELLS
)
SWALLOW = "stars\tcomment\n" + "".join(
    f"{s}\t{QUOTE * (n == 5)}{t}{QUOTE * (n == 15)}\n" for n, (t, s, _) in enumerate(CELLS)
)

# name, bytes, rows, columns, a phrase of what is said of it (None: nothing is unusual)
READ: list[tuple[str, bytes | Callable[[Path], bytes], int, list[str], str | None]] = [
    ("plain.csv", lines().encode(), 40, ["comment", "stars", "who"], None),
    ("crlf.csv", lines(end="\r\n").encode(), 40, ["comment", "stars", "who"], None),
    ("cr.csv", lines(end="\r").encode(), 40, ["comment", "stars", "who"], "carriage returns"),
    ("mark.csv", b"\xef\xbb\xbf" + lines().encode(), 40, ["comment", "stars", "who"], None),
    ("tabs.tsv", lines("\t").encode(), 40, ["comment", "stars", "who"], None),
    ("tabs.csv", lines("\t").encode(), 40, ["comment", "stars", "who"], "separated by tabs"),
    ("semicolons.csv", lines(";").encode(), 40, ["comment", "stars", "who"], "semicolons"),
    ("bars.txt", lines("|").encode(), 40, ["comment", "stars", "who"], "bars"),
    ("utf16.csv", lines("\t").encode("utf-16"), 40, ["comment", "stars", "who"], "UTF-16"),
    ("utf16le.csv", lines().encode("utf-16-le"), 40, ["comment", "stars", "who"], "UTF-16 without a mark"),
    ("utf16be.csv", lines().encode("utf-16-be"), 40, ["comment", "stars", "who"], "UTF-16 without a mark"),
    ("utf32.csv", lines().encode("utf-32"), 40, ["comment", "stars", "who"], "UTF-32"),
    ("sep.csv", ("sep=;\r\n" + lines(";", end="\r\n")).encode(), 40, ["comment", "stars", "who"], "sep=;"),
    ("title.csv", ("Export\n\n" + lines()).encode(), 40, ["comment", "stars", "who"], "line 3, below a title"),
    ("blank.csv", ("\n" + lines()).encode(), 40, ["comment", "stars", "who"], ""),
    ("gaps.csv", (lines() + ",,\n,,\n").encode(), 40, ["comment", "stars", "who"], "separators alone"),
    ("trailing.csv", lines().replace("\n", ",\n").encode(), 40, ["comment", "stars", "who"], "ended in a separator"),
    (
        "trailing rows.csv",
        lines().replace("\n", ",\n").replace("who,", "who", 1).encode(),
        40,
        ["comment", "stars", "who"],
        "ended in a separator",
    ),
    ("spaced.csv", lines(", ").encode(), 40, ["comment", " stars", " who"], ""),
    ("r.txt", R_TABLE.encode(), 40, ["row_name", "comment", "stars", "who"], "write.table"),
    ("r.csv", R_COMMAS.encode(), 40, ["row_name", "comment", "stars", "who"], "R's"),
    ("spark.csv", SPARK.encode(), 41, ["comment", "stars", "who"], 'written as \\"'),
    ("mysql.tsv", MYSQL.encode(), 21, ["comment", "stars", "who"], "after a backslash"),
    ("swallow.tsv", SWALLOW.encode(), 40, ["stars", "comment"], "would make 11 lines one text"),
    (
        "quotes.tsv",
        lines("\t", lambda text: f'"Never" {text}' if "parcel" in text else text).encode(),
        40,
        ["comment", "stars", "who"],
        "part of the texts",
    ),
    ("qualtrics.csv", QUALTRICS.encode(), 40, ["StartDate", "comment", "stars"], "2 lines below its names"),
    ("monkey.csv", MONKEY.encode(), 40, ["Respondent", "comment", "stars", "again"], "a line below its names"),
    ("breaks.csv", lines(quote=lambda t: f'"{t}\nand more"').encode(), 40, ["comment", "stars", "who"], None),
    ("short.csv", (SEVERAL + '"no name here",4\n').encode(), 41, ["comment", "stars", "who"], "ended before"),
    ("zeros.csv", lines().replace("guest 3", "guest\x00 3").encode(), 40, ["comment", "stars", "who"], "zero bytes"),
    ("repeated.csv", lines().replace("who", "stars", 1).encode(), 40, ["comment", "stars", "stars_duplicated_0"], None),
    ("bad bytes.csv", lines().encode().replace(b"visit 7", b"visit \xff7") + "é".join("é" * 9).encode() + b",1,x\n", 41,
     ["comment", "stars", "who"], "line 9 held bytes that are not UTF-8"),
    ("joined.csv", (lines() + lines()).encode(), 80, ["comment", "stars", "who"], "stood in it 2 times"),
    ("marked twice.csv", (2 * MARK + lines()).encode(), 40, ["comment", "stars", "who"], "byte order mark"),
    ("marked inside.csv", ('"' + MARK + 'comment"' + lines().removeprefix("comment")).encode(), 40,
     ["comment", "stars", "who"], "byte order mark"),
    ("joined with marks.csv", (2 * (MARK + lines())).encode(), 80, ["comment", "stars", "who"], "stood in it 2 times"),
    ("marked names.jsonl", "\n".join(json.dumps({MARK + "n": 1, **row}) for row in objects()).encode(), 40,
     [MARK + "n", "comment", "stars", "who"], None),
    ("sentences.json", json.dumps([{**row, "said": said_by(n)} for n, row in enumerate(objects())]).encode(), 40,
     ["comment", "stars", "who", "said"], "the sentences of `said` were made one text, a line each"),
    ("sentences.parquet", lambda f: parquet(f, table().with_columns(said=pl.Series(map(said_by, range(40))))), 40,
     ["comment", "stars", "who", "said"], "the sentences of `said` were made one text, a line each"),
    ("records.json", json.dumps(objects()).encode(), 40, ["comment", "stars", "who"], None),
    ("indented.json", json.dumps(objects(), indent=1).encode(), 40, ["comment", "stars", "who"], None),
    ("mark.json", b"\xef\xbb\xbf" + json.dumps(objects()).encode(), 40, ["comment", "stars", "who"], "byte order mark"),
    ("nan.json", json.dumps([{**row, "x": float("nan")} for row in objects()]).encode(), 40,
     ["comment", "stars", "who", "x"], "NaN"),
    ("columns.json", json.dumps(table().to_dict(as_series=False)).encode(), 40, ["comment", "stars", "who"],
     "of columns"),
    (
        "pandas.json",
        json.dumps({name: dict(enumerate(cells)) for name, cells in table().to_dict(as_series=False).items()}).encode(),
        40,
        ["comment", "stars", "who"],
        "of columns",
    ),
    ("index.json", json.dumps({f"id{n}": row for n, row in enumerate(objects())}).encode(), 40,
     ["comment", "stars", "who"], "object of rows"),
    ("split.json", json.dumps({"columns": table().columns, "data": [list(r) for r in table().rows()]}).encode(), 40,
     ["comment", "stars", "who"], "stood apart"),
    ("under.json", json.dumps({"count": 40, "items": objects()}).encode(), 40, ["comment", "stars", "who"], "`items`"),
    ("lines.jsonl", "\n".join(json.dumps(row) for row in objects()).encode(), 40, ["comment", "stars", "who"], None),
    ("lines.ndjson", "\n".join(json.dumps(row) for row in objects()).encode(), 40, ["comment", "stars", "who"], None),
    ("lines.json", "\n".join(json.dumps(row) for row in objects()).encode(), 40, ["comment", "stars", "who"], None),
    ("separators.jsonl", "\n".join(json.dumps({**row, "who": "a\u2028b\x85c"}, ensure_ascii=False) for row in
     objects()).encode(), 40, ["comment", "stars", "who"], None),
    ("indented.jsonl", "\n".join(json.dumps(row, indent=2) for row in objects()).encode(), 40,
     ["comment", "stars", "who"], ""),
    ("appended.jsonl", "\n".join(json.dumps(objects()[at : at + 20]) for at in (0, 20)).encode(), 40,
     ["comment", "stars", "who"], "it held 2 lists of objects"),
    ("nested.jsonl", "\n".join(json.dumps({**row, "x": {"a": 1}}) for row in objects()).encode(), 40,
     ["comment", "stars", "who", "x.a"], "objects in `x` were made columns"),
    ("mixed.jsonl", "\n".join(json.dumps({**row, "x": {"a": 1} if n else "no"}) for n, row in enumerate(objects()))
     .encode(), 40, ["comment", "stars", "who", "x"], None),
    ("nan.jsonl", "\n".join(json.dumps({**row, "x": float("nan")}) for row in objects()).encode(), 40,
     ["comment", "stars", "who", "x"], "NaN"),
    ("latin.jsonl", "\n".join(json.dumps({**row, "comment": GERMAN + row["comment"]}, ensure_ascii=False) for row in
     objects()).encode("cp1252"), 40, ["comment", "stars", "who"], "cp1252"),
    ("quoted names.csv", lines().replace("who", '"how ""old"" you are"', 1).encode(), 40,
     ["comment", "stars", "how old you are"], "names of columns held double quotes"),
    ("single.csv", lines(";", lambda text: f"'{text}; or so'").encode(), 40, ["comment", "stars", "who"],
     "single quotes"),
    ("apostrophes.csv", lines(";", lambda text: f"it's {text}").encode(), 40, ["comment", "stars", "who"],
     "semicolons"),
    ("sheet.xlsx", workbook, 40, ["comment", "stars", "who", "when"], "of a workbook"),
    ("titled.xlsx", lambda f: workbook(f, title=True), 40, ["comment", "stars", "who", "when"], "row 3, below"),
    ("stata.dta", lambda folder: statistics(folder, "dta"), 40, ["comment", "stars", "who", "agree"], "Stata"),
    ("spss.sav", lambda folder: statistics(folder, "sav"), 40, ["comment", "stars", "who", "agree"], "as their labels"),
    ("plain.parquet", lambda folder: parquet(folder, table()), 40, ["comment", "stars", "who"], None),
    ("factors.parquet", lambda f: parquet(f, table().with_columns(pl.col("who").cast(pl.Categorical))), 40,
     ["comment", "stars", "who"], None),
    ("enums.parquet", lambda f: parquet(f, table().with_columns(pl.col("who").cast(pl.Enum(table()["who"].unique())))),
     40, ["comment", "stars", "who"], None),
    ("decimals.parquet", lambda f: parquet(f, table().with_columns(pl.col("stars").cast(pl.Decimal(10, 2)))), 40,
     ["comment", "stars", "who"], None),
    ("bytes.parquet", lambda f: parquet(f, table().with_columns(pl.col("comment").cast(pl.Binary))), 40,
     ["comment", "stars", "who"], "were bytes"),
    ("zones.parquet", lambda f: parquet(f, table().with_columns(at=pl.datetime(2024, 1, "stars", time_zone="UTC"))), 40,
     ["comment", "stars", "who", "at"], None),
    ("big.parquet", lambda f: parquet(f, table().with_columns(id=pl.int_range(40, dtype=pl.UInt64) + 2**63)), 40,
     ["comment", "stars", "who", "id"], None),
    *[
        (f"{encoding}.tsv", in_language(text, encoding), 30, ["comment", "stars"], f"it was in {found}")
        for encoding, text, found in (
            ("cp1252", GERMAN, "cp1252"), ("latin-1", SPANISH, "cp1252"), ("cp1252", FRENCH, "cp1252"),
            ("cp1250", POLISH, "cp1250"), ("cp1250", CZECH, "cp1250"), ("iso8859-2", POLISH, "iso8859_2"),
            ("cp1254", TURKISH, "cp1254"), ("mac-roman", GERMAN, "mac_roman"), ("cp850", GERMAN, "cp850"),
            ("cp1251", RUSSIAN, "cp1251"), ("koi8-r", RUSSIAN, "koi8_r"), ("cp1253", GREEK, "cp1253"),
            ("cp1255", HEBREW, "cp1255"), ("cp1256", ARABIC, "cp1256"), ("gbk", CHINESE, "gb18030"),
            ("big5", TAIWAN, "big5"), ("shift_jis", JAPANESE, "cp932"), ("euc_jp", JAPANESE, "euc_jp"),
            ("euc_kr", KOREAN, "cp949"), ("tis_620", THAI, "cp874"),
        )
    ],
]  # fmt: skip

REFUSED: list[tuple[str, bytes | Callable[[Path], bytes], str]] = [
    ("empty.csv", b"", "is empty"),
    ("empty.json", b" \n", "is empty"),
    ("binary.csv", bytes(range(256)) * 20, "no text file"),
    ("unclosed.csv", b'a,b,c\n"x, y, v,1\nz,2,3\nw,3,4\n', "line 2 is never closed"),
    ("inside.csv", b'a,b\n"He said "no", really",1\nx,2\n', "on line 2 is closed inside a field"),
    ("commas.csv", b"a,b\nwell, well, well,1\nfine,2\n", "line 2 has 4 fields"),
    ("torn.csv", (SEVERAL + "a text that breaks\nin the middle,3,ann\n").encode(), "line 42 has 1 field,"),
    ("nameless.tsv", b"ham\tsee you there\nspam\twin a prize\nham\tok\nham\tlater\n", "looks like a row"),
    ("nameless numbers.csv", "".join(f"{n % 2},text {n}\n" for n in range(40)).encode(), "looks like a row"),
    (
        "nameless single.csv",
        "".join(f"News;'{t}; {n} of us stayed all the same'\n" for t, n, _ in CELLS).encode(),
        "looks like a row",
    ),
    ("nameless chinese.csv", f'1,"{CHINESE}"\n0,"{CHINESE}2"\n'.encode(), "looks like a row"),
    ("nameless.csv", b'"It arrived late, and it was broken",2\n"Lovely",5\n', "looks like a row"),
    (
        "unsure.csv",
        "comment,stars\nniño,1\n".encode("cp1252"),
        "--encoding cp1252: “niño,1”; --encoding cp1250: “nińo,1”",
    ),
    ("unsure rows.csv", "comment,stars\rhello there,1\rniño,2\r".encode("cp1252"), "line 3 is the first that is not"),
    ("half.csv", lines().encode("utf-16")[:-1], "breaks off"),
    ("broken.jsonl", b'{"a": 1}\n{"a":\n', "line 2 is no JSON"),
    ("broken.json", b'[{"a": 1},\n{"a" 2}]', "line 2, column 6 is not JSON"),
    ("scalars.json", b"[1, 2, 3]", "holds no table"),
    ("two.json", b'{"a": [{"x": 1}], "b": [{"x": 2}]}', "one object per row"),
    ("several.xlsx", lambda folder: workbook(folder, sheets=3), "“more 0”, “more 1”.*--sheet"),
    ("broken.xlsx", b"PK\x03\x04junk", "save the sheet as CSV"),
    ("broken.sav", b"junk", "Export the table as CSV"),
    ("broken.dta", b"junk" * 99, "Export the table as CSV"),
    ("broken.parquet", b"PAR1junk", "cannot be read as parquet"),
    ("footer.csv", (lines() + "(40 rows)\n").encode(), "line 42 has 1 field,"),
    ("r.rds", b"x", "export it, and give a CSV"),
    ("packed.csv.gz", b"x", "Unpack or export it"),
]


def put(folder: Path, name: str, data: bytes | Callable[[Path], bytes]) -> Path:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data(folder))
    return path


@pytest.mark.parametrize(
    ("name", "data", "rows", "columns", "said"), READ, ids=[f"{n}:{c[0]}" for n, c in enumerate(READ)]
)
def test_is_read_as_meant(
    tmp_path: Path, name: str, data: bytes, rows: int, columns: list[str], said: str | None
) -> None:
    path = put(tmp_path, name, data)
    found = read_leniently(path)
    assert (found.frame.height, found.frame.columns) == (rows, columns), found.unusual
    assert (said in " and ".join(found.unusual)) if said is not None else not found.unusual, found.unusual
    if "comment" in columns:
        texts = found.frame["comment"].to_list()
        known = [text for text, *_ in CELLS] if rows >= 40 else []
        for text, read in zip(known, texts, strict=False):
            assert text.replace("guest", "") in read or "�" in read or "never, ever" in texts[0], (text, read)
    check_what_is_written(path, found, tmp_path)


def check_what_is_written(path: Path, found: ReadTable, folder: Path) -> None:
    """What the strict reader makes of the file, or of what is written in its place, is what was read."""
    aside = folder / "aside"
    aside.mkdir()
    intake = take_in(path)
    write_plain(intake, aside)
    file = aside / intake.rewritten[0].name if intake.rewritten else path
    strict = READERS[file.suffix.replace("ndjson", "jsonl")](file)
    assert strict.columns == found.frame.columns
    for name in strict.columns:
        one, other = strict[name], found.frame[name]
        if one.dtype != other.dtype:
            one, other = one.cast(pl.String), other.cast(pl.String)
            if found.frame[name].dtype.is_float():
                one, other = one.cast(pl.Float64), other.cast(pl.Float64)
        assert one.fill_null("").equals(other.fill_null("")) if one.dtype == pl.String else one.equals(other), name


@pytest.mark.parametrize(("name", "data", "words"), REFUSED, ids=[case[0] for case in REFUSED])
def test_is_refused_with_a_remedy(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    path = put(tmp_path, name, data)
    with pytest.raises(DatasetError, match=words) as error:
        read_leniently(path)
    assert path.name in str(error.value)
    assert "infer_schema" not in str(error.value)


def test_what_is_shown_of_an_unsure_encoding_tells_the_candidates_apart(tmp_path: Path) -> None:
    # The first line reads the same in four of the five.
    path = put(tmp_path, "unsure.csv", "comment,stars\nfür alle,1\nmañana,2\nél château,3\n".encode("cp1252"))
    with pytest.raises(DatasetError) as error:
        read_leniently(path)
    shown = re.findall("--encoding (\\w+): “(.*?)”", str(error.value))
    assert len(shown) == len({reading for _, reading in shown}) == 5
    assert shown[0] == ("cp1252", "mañana,2 … él château,3")


def test_texts_come_out_as_they_were_written(tmp_path: Path) -> None:
    for encoding, text in (("gbk", CHINESE), ("cp1250", POLISH), ("euc_kr", KOREAN), ("cp1251", RUSSIAN)):
        path = put(tmp_path, f"{encoding}.tsv", in_language(text, encoding))
        assert read_leniently(path).frame["comment"].to_list() == [f"{text} {n}" for n in range(30)]


def test_an_encoding_that_is_named_is_taken_and_a_wrong_one_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "comment,stars\nniño,1\n".encode("cp1252"))
    assert read_leniently(path, "windows-1252").frame["comment"].to_list() == ["niño"]
    with pytest.raises(DatasetError, match="line 2 cannot be read so"):
        read_leniently(path, "utf-8")
    with pytest.raises(DatasetError, match="no encoding `klingon`"):
        read_leniently(path, "klingon")


def test_a_sheet_is_taken_by_name(tmp_path: Path) -> None:
    path = put(tmp_path, "a.xlsx", lambda folder: workbook(folder, sheets=2))
    assert read_leniently(path, sheet="Sheet").frame.height == 40
    with pytest.raises(DatasetError, match="no sheet “x”"):
        read_leniently(path, sheet="x")


@pytest.mark.parametrize(
    ("written", "separator", "numbers", "said"),
    [
        (["1.149", "996", "12.500", "3.118", "2.001", "1.000"], ";", [1149, 996, 12500, 3118, 2001, 1000], "thousands"),
        (["1.885,01", "3.538,84", "909,22"], ";", [1885.01, 3538.84, 909.22], "thousands"),
        (["1,234.50", "99.00", "1,000,000"], ";", [1234.5, 99.0, 1000000.0], "thousands"),
        (["$1,234.50", "$99.00", "($3.00)"], ";", [1234.5, 99.0, -3.0], "currency"),
        (["12 €", "9 €", "-3 €"], ";", [12, 9, -3], "currency"),
        (["1 234,5", "12 000", "7"], ";", [1234.5, 12000.0, 7.0], "apart"),
        (["1'234.50", "12'000", "7"], ";", [1234.5, 12000.0, 7.0], "apart"),
        (["1.2K", "17", "$3.4M", "950K"], ";", [1200, 17, 3400000, 950000], "currency or brackets and had K, M or B"),
        (["1,2K", "17", "3,4M"], ";", [1200, 17, 3400000], "decimal commas and had K, M or B"),
        (["1.001K", "-2k", "1.149K"], ";", [1001, -2000, 1149], "K, M or B"),
        (["3,5", "-1,25", "4"], ";", [3.5, -1.25, 4.0], "decimal commas"),
        (["0.125", "1.500", "2.250", "3", "4.125", "5.625"], ";", [0.125, 1.5, 2.25, 3, 4.125, 5.625], None),
        (["1.1", "2.25", "3.125"], ";", [1.1, 2.25, 3.125], None),
        (["1.149", "2.118"], ";", [1.149, 2.118], None),
    ],
)  # fmt: skip
def test_amounts_are_numbers(
    tmp_path: Path, written: list[str], separator: str, numbers: list[float], said: str | None
) -> None:
    rows = "".join(f"some text {n}{separator}{cell}\n" for n, cell in enumerate(written))
    path = put(tmp_path, "a.csv", f"text{separator}n\n{rows}".encode())
    found = read_leniently(path)
    assert found.frame["n"].to_list() == numbers
    amounts = [part for part in found.unusual if "numbers of" in part]
    assert (said in amounts[0]) if said else not amounts


def test_thousands_that_could_be_decimals_are_doubted(tmp_path: Path) -> None:
    rows = "".join(f"text {n};{value}\n" for n, value in enumerate(["1.149", "996", "2.118", "3.007", "4.1", "5.006"]))
    assert not read_leniently(put(tmp_path, "a.csv", f"text;n\n{rows}".encode())).notes.doubts
    path = put(tmp_path, "c.csv", f"text;n\n{rows.replace('4.1', '4.100')}".encode())
    assert "read as thousands" in read_leniently(path).notes.doubts["n"]


def test_decimal_commas_in_a_file_of_commas_are_doubted_and_lists_of_codes_left(tmp_path: Path) -> None:
    cells = ["1,25", "2,5", "3,75", "4,1", "0,9", "12,5"]
    file = "text,n\n" + "".join(f'some text {n},"{cell}"\n' for n, cell in enumerate(cells))
    found = read_leniently(put(tmp_path, "a.csv", file.encode()))
    assert found.frame["n"].to_list() == [1.25, 2.5, 3.75, 4.1, 0.9, 12.5]
    assert "two classes" in found.notes.doubts["n"]
    codes = read_leniently(put(tmp_path, "b.csv", file.replace("2,5", "3").encode()))
    assert codes.frame.schema["n"] == pl.String and not codes.notes.doubts


def test_thousands_in_letters_are_doubted_and_metres_and_seats_are_none(tmp_path: Path) -> None:
    def found(*cells: str) -> ReadTable:
        rows = "".join(f"some text {n};{cell}\n" for n, cell in enumerate(cells))
        return read_leniently(put(tmp_path, "a.csv", f"text;n\n{rows}".encode()))

    assert "1.2K is 1200" in found("1.2K", "17").notes.doubts["n"]
    for cells in (("5 m", "7 m"), ("12A", "12B", "14K"), ("4K", "large", "small")):
        assert found(*cells).frame["n"].to_list() == list(cells)


def test_a_text_of_sentences_is_a_line_each_and_an_empty_list_none(tmp_path: Path) -> None:
    rows = [{"said": said_by(n) if n else [], "n": n} for n in range(60)]
    found = read_leniently(put(tmp_path, "a.json", json.dumps(rows).encode())).frame["said"]
    assert found.to_list() == [None, *("\n".join(said_by(n)) for n in range(1, 60))]


def test_backslashes_that_are_all_doubled_are_remarked_on(tmp_path: Path) -> None:
    path = put(tmp_path, "a.tsv", b"text\tn\nlook in C:\\\\new for it\t1\nor leave it\t2\n")
    assert any("backslash is doubled" in said for said in read_leniently(path).notes.remarks)
    path.write_bytes(path.read_bytes().replace(b"or leave", b"or\\leave"))
    assert not read_leniently(path).notes.remarks


def test_quotes_around_whole_cells_are_marks_even_where_others_are_part_of_the_text(tmp_path: Path) -> None:
    texts = [f"good, visit {n}" for n in range(20)] + ["plain", 'a 5" screen, "big"', '"Never" again']
    rows = [f'"{text}"\t{n}' if "," in text and '"' not in text else f"{text}\t{n}" for n, text in enumerate(texts)]
    # One that a program cut off, quote and all.
    path = put(tmp_path, "a.tsv", "\n".join(["text\tn", *rows[:10], '"cut off, here\t7', *rows[10:]]).encode())
    found = read_leniently(path).frame
    assert found["text"].to_list() == [*texts[:10], '"cut off, here', *texts[10:]]


@pytest.mark.parametrize(("name", "module"), [("a.xlsx", "fastexcel"), ("a.sav", "pyreadstat")])
def test_a_reader_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DatasetError, match=r"Install the readers \(pip install 'hsae_dagster\[files\]'\), or"):
        read_leniently(put(tmp_path, name, b"x"))
