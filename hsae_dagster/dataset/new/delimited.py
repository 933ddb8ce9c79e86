"""Delimited text as programs export it: any encoding, separator, way of quoting, titles, headers of survey tools."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import polars as pl

from hsae_dagster.dataset.new.columns import WORDS, ReadTable, Record, names_at, table_of_records
from hsae_dagster.dataset.rows import READING_FAULTS
from hsae_dagster.errors import DatasetError

# Lines that are not plain ASCII, as far as they are looked at.
LOOKED_AT = 100_000
# So many characters in UTF-8 for each that is none make the file UTF-8 with errors.
GOOD_PER_BAD = 4
LINES_NAMED = 5
# Places of a file, to tell encodings apart by.
MOST_SHOWN = 3
# In order of likelihood; those of DOS and the Mac only where no other fits.
WINDOWS = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "iso8859_15")
OLD = ("mac_roman", "cp850", "cp437", "cp852")
# Letters beyond a to z, by language.
LETTERS = [frozenset(letters) for letters in WORDS["letters"]]
# Signs that every language uses, and that say nothing of it.
NEUTRAL = frozenset("“”„‘’‚«»‹›–—…•€£¥¢¡¿°§·´®©™×½¼¾²³µ\u00a0\u00ad")
KANA = re.compile("[\u3041-\u30ff]")
WELL_FORMED = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
RARE = re.compile(r"mac_|cp(?!874)[478]\d\d$|cp1125|kz1048|hp_|ptcp|johab")
FITS, CLEARLY = 0.97, 0.02


def read_text(path: Path, wished: str | None = None) -> tuple[str, str]:
    """The text of a file without a mark of its encoding, and half a sentence on why it has to be written anew, or none.

    Raises:
        DatasetError: it is empty or no text, or its encoding is unknown or cannot be told.
    """
    data = path.read_bytes()
    if not data.strip():
        raise DatasetError(f"{path.name} is empty. Give a table with one row per text.")
    if wished:
        return _as_wished(data, path, wished)
    for mark, encoding in ((codecs.BOM_UTF32_LE, "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return _whole(data, path, encoding), f"it was in {encoding.upper()}, not UTF-8"
    if b"\x00" in data[:4096]:
        return _without_mark(data, path)
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        return _mostly_utf8(data) or _guessed(data, path)


def _as_wished(data: bytes, path: Path, wished: str) -> tuple[str, str]:
    try:
        codec = codecs.lookup(wished)
    except (LookupError, ValueError):
        codec = None
    # Codecs such as base64 are no encodings of text.
    if codec is None or not codec._is_text_encoding:
        raise DatasetError(
            f"There is no encoding `{wished}`. Use one of Python's names, such as utf-8, cp1252, gb18030, shift_jis."
        )
    try:
        text = data.decode("utf-8-sig" if codec.name == "utf-8" else codec.name)
    except (UnicodeError, ValueError) as error:
        place = getattr(error, "start", 0)
        raise DatasetError(
            f"{path.name} is not in {wished}: line {data.count(10, 0, place) + 1:,} cannot be read so. Leave "
            "--encoding out to have it guessed, or name another."
        ) from None
    return text, "" if codec.name in ("utf-8", "utf-8-sig", "ascii") else f"it was in {wished}, as you said"


def _whole(data: bytes, path: Path, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path.name} begins as {encoding.upper()} and breaks off or is damaged at byte {error.start:,}. Copy or "
            "export it again, as UTF-8 if you can choose."
        ) from None


def _without_mark(data: bytes, path: Path) -> tuple[str, str]:
    """UTF-16 without its mark has a zero beside nearly every Latin letter, always on the same side."""
    head = data[:4096]
    zeros = (head[::2].count(0), head[1::2].count(0))
    half = max(len(head) // 2, 1)
    for side, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[side] > 0.4 * half and zeros[1 - side] < 0.05 * half:
            return _whole(data, path, encoding), "it was in UTF-16 without a mark, not UTF-8"
    text = _decoded(data.replace(b"\x00", b""), "utf-8-sig")
    if text is None or max(zeros) > 0.02 * half:
        raise DatasetError(f"{path.name} is no text file. Give a CSV, or name the file by its format.")
    return text, "it held zero bytes, which were left out"


def _mostly_utf8(data: bytes) -> tuple[str, str] | None:
    """UTF-8 with a few bytes that are none, if most of what is not ASCII is UTF-8."""
    text = data.decode("utf-8-sig", errors="replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    if len(WELL_FORMED.findall(data)) < GOOD_PER_BAD * bad:
        return None
    lines = _no_utf8(data)
    named = ", ".join(f"{n:,}" for n in lines[:LINES_NAMED])
    more = f" and {len(lines) - LINES_NAMED:,} more" if len(lines) > LINES_NAMED else ""
    return text, f"line{'s' * (len(lines) > 1)} {named}{more} held bytes that are not UTF-8, each now “\ufffd”"


def _no_utf8(data: bytes) -> list[int]:
    """Numbers of the lines that are not UTF-8, from 1."""
    lines = data.split(b"\n" if b"\n" in data else b"\r")
    return [number for number, line in enumerate(lines, 1) if _decoded(line, "utf-8") is None]


def _guessed(data: bytes, path: Path) -> tuple[str, str]:
    """Another encoding, on evidence; a question where there is too little."""
    sample = _sample(data)
    readings: dict[str, str] = {}
    for encoding in _latin(sample) or _foreign(sample):
        if (text := _decoded(data, encoding)) is not None:
            readings.setdefault(text, encoding)
    if len(readings) == 1:
        text, encoding = next(iter(readings.items()))
        said = (
            f"it was in {encoding} judging by its content, not UTF-8 (a line then reads “{_line_of(sample, encoding)}”"
        )
        return text, f"{said}; if that is wrong, name the right one with --encoding)"
    likely_first = sorted(readings.values(), key=lambda name: WINDOWS.index(name) if name in WINDOWS else len(WINDOWS))
    offered = likely_first or [*WINDOWS[:2], "cp1251", "gb18030", "shift_jis"]
    # In languages of Latin letters a few strange signs look like another script.
    offered = [*offered[:4], *[name for name in ("cp1252", "mac_roman") if name not in offered[:4]]]
    distinct: dict[str, str] = {}
    for name in offered[:5]:
        distinct.setdefault(sample.decode(name, errors="replace"), name)
    offered = list(distinct.values())
    shown = "; ".join(
        f"--encoding {name}: “{read}”" for name, read in zip(offered, _apart(sample, offered), strict=True)
    )
    first = _no_utf8(data)[0]
    raise DatasetError(
        f"{path.name} is not in UTF-8 (line {first:,} is the first that is not), and its encoding cannot be told from "
        f"what it holds. Name it, by how words of the file then read: {shown}."
    )


def _sample(data: bytes) -> bytes:
    """Lines that are not plain ASCII, up to `LOOKED_AT` bytes."""
    lines, size = [], 0
    for line in re.split(rb"[\r\n]+", data):
        if not line.isascii():
            lines.append(line)
            size += len(line)
        if size > LOOKED_AT:
            break
    return b"\n".join(lines)


def _line_of(sample: bytes, encoding: str) -> str:
    line = sample.split(b"\n", 1)[0]
    return _around(line, next((place for place, byte in enumerate(line) if byte > 127), 0), encoding)


def _around(line: bytes, place: int, encoding: str) -> str:
    """Up to 60 characters of a line, the byte at `place` among them."""
    start = max(len(line[:place].decode(encoding, errors="replace")) - 30, 0)
    return " ".join(line.decode(encoding, errors="replace")[start : start + 60].split())


def _apart(sample: bytes, encodings: Sequence[str]) -> list[str]:
    """How each encoding reads places that tell them apart: one where it is enough, else up to three."""
    chosen: list[tuple[str, ...]] = [("",) * len(encodings)]
    best, told = chosen[0], 0
    while len(chosen) <= MOST_SHOWN and told < len(encodings):
        before = told
        for line in sample.split(b"\n"):
            # The first place of each byte in its line, so that a long line is not read once per letter.
            for byte in dict.fromkeys(byte for byte in line if byte > 127):
                place = line.index(byte)
                readings = tuple(_around(line, place, name) for name in encodings)
                if (n := len(set(zip(*chosen, readings, strict=True)))) > told:
                    best, told = readings, n
            if told == len(encodings):
                break
        if told == before:
            break
        chosen.append(best)
    return [" … ".join(parts[1:]) for parts in zip(*chosen, strict=True)]


def _latin(sample: bytes) -> list[str]:
    """Encodings of Latin scripts in which nearly every letter beyond ASCII is one of a single language."""
    for family in (WINDOWS, OLD):
        fits = {name: fit for name in family if (fit := _fit(sample, name)) is not None}
        best = max(fits.values(), default=0.0)
        if best >= FITS:
            return [name for name, fit in fits.items() if fit >= best - CLEARLY]
    return []


def _fit(sample: bytes, encoding: str) -> float | None:
    """Share of the characters beyond ASCII that one language has, at best; None where a byte means nothing."""
    if (text := _decoded(sample, encoding)) is None:
        return None
    found = Counter(character for character in text if ord(character) > 127 and character not in NEUTRAL)
    if not found:
        return 1.0
    known = max(sum(n for c, n in found.items() if c.lower() in letters) for letters in LETTERS)
    return known / sum(found.values())


def _foreign(sample: bytes) -> list[str]:
    """What `charset_normalizer` finds likely, most likely first; Japanese, which it overlooks, by its kana."""
    from charset_normalizer import from_bytes

    for encoding in ("euc_jp", "cp932"):
        text = _decoded(sample, encoding)
        if text and len(KANA.findall(text)) > 0.2 * sum(ord(character) > 127 for character in text):
            return [encoding]
    matches = sorted(from_bytes(sample), key=lambda match: (round(match.chaos, 2), -match.coherence))
    # Encodings of the old Mac and of DOS differ from others in few letters, and are rare.
    matches = [match for match in matches if not RARE.match(match.encoding)] or matches
    return [
        match.encoding
        for match in matches
        if match.chaos <= matches[0].chaos + 0.03 and match.coherence >= matches[0].coherence - 0.08
    ]


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
Quoting = Literal["doubled", "spaced", "escaped", "escaped always", "off", "off, escaped", "single"]
# In the order they are tried; what each would be called.
QUOTING: dict[Quoting, str] = {
    "doubled": "",
    "spaced": "spaces stood before its quotes",
    "escaped": 'quotes inside its texts were written as \\"',
    "escaped always": 'quotes inside its texts were written as \\"',
    "off": "double quotes that are not around a whole cell were part of the texts (else its rows do not agree)",
    "off, escaped": "its separators and line breaks inside texts were written after a backslash",
    "single": "its texts stood in single quotes",
}
# A cell in quotes, those inside of it doubled or, all of them, behind a backslash.
WRAPPED = re.compile(r'"(?:(?:[^"]|"")*|(?:[^"\\]|\\.)*)"', re.DOTALL)
# A text may be longer than the csv module allows by itself.
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Reading:
    """A file as one separator and one way of quoting have it: records from the line of names on, without blank lines.

    `fault` says why it cannot be so, with the line; it is None where every record has as many cells as there are names.
    `said` is what was unusual.
    """

    separator: str
    quoting: Quoting
    records: list[Record]
    fault: str | None
    said: tuple[str, ...] = ()


def read_delimited(path: Path, encoding: str | None = None) -> ReadTable:
    """The table in a file, and what is unusual about it.

    Raises:
        DatasetError: it is no table, or has no line of names, with what to do.
    """
    text, why = read_text(path, encoding)
    unusual = [why]
    named = re.match(rf"sep=([{re.escape(''.join(SEPARATORS))}])\r?\n", text)
    if named:
        unusual.append(f"its first line was {named[0].strip()}")
        text = text[named.end() :]
    reading = _choose(text, named[1] if named else None, path)
    unusual += reading.said
    # The strict reader goes by the ending.
    if reading.separator != {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower()):
        unusual.append(f"its fields were separated by {SEPARATORS[reading.separator]}")
    unusual.append(QUOTING[reading.quoting])
    if "\r" in text and "\n" not in text:
        unusual.append("its lines ended in carriage returns alone")
    names, *rows = [record.cells for record in reading.records]
    table = table_of_records(names, rows, reading.separator, path.name).with_unusual(unusual)
    if swallowed := _swallowed(reading):
        table = table.with_remark(swallowed)
    if reading.quoting != "off, escaped" and "\\\\" in text and "\\" not in re.sub(r"\\(?:[\\N\t\n])", "", text):
        table = table.with_remark(
            "Every backslash is doubled, as a database writes a single one. They are left as they are; if that is what "
            "they are, export the table as CSV."
        )
    if not table.unusual and not _reads_the_same(path, reading.separator, table.plain):
        table = table.with_unusual(["a standard reader would misread its quotes or lines"])
    return table


def _choose(text: str, named: str | None, path: Path) -> Reading:
    """The first reading in which all rows agree, likelier ones first; where they agree in none, a DatasetError."""
    fault: Reading | None = None
    for separator in [named] if named else _separators(text):
        # Where every backslash is a mark of MySQL or PostgreSQL, texts hold their escapes and not these.
        first: list[Quoting] = ["off, escaped"] if separator == "\t" and _escapes_alone(text) else []
        if first and re.search(r'(?:^|[\t\n])"', text):
            first = ["doubled", *first]
        for quoting in dict.fromkeys([*first, *QUOTING]):
            if not _may_be(text, separator, quoting):
                continue
            reading = _read(text, separator, quoting)
            if reading.fault is None:
                _check_alone(text, reading, path)
                return _unswallowed(text, reading)
            fault = fault or reading
    lone = _read(text, "\x00", "doubled")
    if fault is None and lone.fault is None:
        return Reading(",", "doubled", lone.records, None, lone.said)
    fault = fault or lone
    raise DatasetError(
        f"{path} cannot be read as a table: {fault.fault} Put every text that holds the separator, a double quote or a "
        "line break into double quotes; programs do so when they save as CSV."
    )


def _escapes_alone(text: str) -> bool:
    """Whether every backslash is a mark of a database, and one of them shows that it can be nothing else."""
    bare, nothing = re.subn(r"(?<![^\t\n])\\N(?![^\t\r\n])", "", text.replace("\\\\", ""))
    bare, inside = re.subn(r"\\[\t\n]", "", bare)
    return bool(nothing or inside) and "\\" not in bare


def _check_alone(text: str, reading: Reading, path: Path) -> None:
    """Refuse a file that is another table if a backslash before a quote is a mark of it."""
    if reading.quoting not in ("doubled", "escaped") or '\\"' not in text:
        return
    cells = [record.cells for record in reading.records]
    ways: tuple[Quoting, ...] = ("escaped", "escaped always")
    others = (_read(text, reading.separator, quoting) for quoting in ways if quoting != reading.quoting)
    if any(other.fault is None and [record.cells for record in other.records] != cells for other in others):
        raise DatasetError(
            f'{path.name} can be read in two ways, as it is unclear whether \\" ends a field or is a quote inside it. '
            'Export it again with quotes inside texts doubled (""), as CSV has them.'
        )


def _may_be(text: str, separator: str, quoting: Quoting) -> bool:
    if separator == " " and (quoting.startswith("off") or not text.lstrip().startswith('"')):
        return False
    wanted = {"spaced": f'{separator} "', "off": '"', "off, escaped": "\\", "single": "'"}
    wanted |= dict.fromkeys(("escaped", "escaped always"), '\\"')
    return quoting not in wanted or wanted[quoting] in text


def _separators(text: str) -> list[str]:
    """Separators by how many the first line has, then those that it has none of, as a title has."""
    first = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0])
    counts = {separator: first.count(separator) for separator in SEPARATORS}
    counts[" "] = min(counts[" "], 1) if first.strip() == "" else 0
    return sorted((separator for separator in SEPARATORS if separator in text), key=lambda s: -counts[s])


def _read(text: str, separator: str, quoting: Quoting) -> Reading:
    try:
        records = list(_records(text, separator, quoting))
    except _Broken as error:
        return Reading(separator, quoting, [], str(error))
    first = names_at(records)
    said: list[str] = []
    if first is None:
        return Reading(separator, quoting, [], "it has no line of names.")
    if first:
        said.append(f"the names of its columns stood on line {records[first].line}, below a title")
    records = [record for record in records[first:] if record.cells]
    if quoting == "off":
        records = _unwrapped(records)
    names, *rows = records
    filled = [record for record in rows if record.filled]
    if blank := len(rows) - len(filled):
        rows = filled
        said.append(f"{blank:,} of its lines held separators alone")
    if separator != "\x00" and len(names.cells) < 2:
        return Reading(separator, quoting, [], f"line {names.line:,} has no {SEPARATORS[separator]}.")
    fitted, how = _fitted(names, rows)
    said += how
    fault = _disagreement(names, rows) if fitted is None else None
    return Reading(separator, quoting, fitted or [], fault, tuple(said))


def _unescaped(text: str, separator: str) -> Iterator[Record]:
    r"""Rows in which separators, line breaks and backslashes of texts follow a backslash; `\N` is an empty cell."""
    # Stand in for these while the text is cut.
    signs = {"\\\\": "\ue000", f"\\{separator}": "\ue001", "\\\n": "\ue002"}
    if any(sign in text for sign in signs.values()):
        raise _Broken("it holds signs of no meaning (Unicode's private use).")
    text = text.replace("\r\n", "\n") if text.count("\r\n") == text.count("\n") else text
    for escaped, sign in signs.items():
        text = text.replace(escaped, sign)
    meant = {sign: escaped[-1] for escaped, sign in signs.items()}
    line = 1
    for row in text.removesuffix("\n").split("\n"):
        cells = ["" if cell == "\\N" else cell for cell in row.split(separator)] if row else []
        yield Record(line, [re.sub("[\ue000-\ue002]", lambda sign: meant[sign[0]], cell) for cell in cells])
        line += 1 + row.count("\ue002")


def _unwrapped(records: list[Record]) -> list[Record]:
    """Records without the quotes around cells, in columns where a quote that opens a cell nearly always closes it.

    Elsewhere they are part of the texts. Quotes inside such cells are doubled, or all behind a backslash.
    """
    width = len(records[0].cells)
    opened, closed = [0] * width, [0] * width
    for record in records:
        for column, cell in enumerate(record.cells[:width]):
            opened[column] += cell.startswith('"')
            closed[column] += WRAPPED.fullmatch(cell) is not None
    columns = {column for column in range(width) if closed[column] > 0.8 * opened[column]}
    return [
        Record(line, [_bare(cell) if column in columns else cell for column, cell in enumerate(cells)])
        for line, cells in ((record.line, record.cells) for record in records)
    ]


def _bare(cell: str) -> str:
    if WRAPPED.fullmatch(cell) is None:
        return cell
    inside = cell[1:-1]
    return inside.replace('""', '"') if '""' in inside else inside.replace('\\"', '"')


class _Broken(Exception):
    """Quotes that cannot be as a reading has them; the message names the line."""


def _records(text: str, separator: str, quoting: Quoting) -> Iterator[Record]:
    """Rows with the lines they begin on."""
    if quoting == "off, escaped":
        yield from _unescaped(text, separator)
        return
    if quoting == "escaped":
        text = re.sub(r'(?<!\\)((?:\\\\)*)\\"', r'\1""', text)
    elif quoting == "escaped always":
        text = text.replace('\\"', '""')
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=separator,
        quotechar="'" if quoting == "single" else '"',
        strict=quoting != "off",
        skipinitialspace=quoting == "spaced",
        quoting=csv.QUOTE_NONE if quoting == "off" else csv.QUOTE_MINIMAL,
    )
    begun = 1
    try:
        for cells in reader:
            yield Record(begun, cells)
            begun = reader.line_num + 1
    except csv.Error as error:
        end = "unexpected end" in str(error)
        why = "is never closed" if end else "is closed inside a field, before other characters"
        raise _Broken(f"a double quote that opens on line {begun:,} {why}.") from None


def _fitted(names: Record, rows: Sequence[Record]) -> tuple[list[Record] | None, list[str]]:
    """Records of one width each, and what had to be done to them; None where they do not agree."""
    width, widths = len(names.cells), {len(record.cells) for record in rows}
    if widths <= {width} and width > 2 and not any(record.cells[-1].strip() for record in (names, *rows)):
        return [Record(record.line, record.cells[:-1]) for record in (names, *rows)], ["its lines ended in a separator"]
    if widths <= {width}:
        return [names, *rows], []
    if widths == {width + 1}:
        if not any(record.cells[-1].strip() for record in rows):
            cut = [Record(record.line, record.cells[:-1]) for record in rows]
            return [names, *cut], ["every row ended in a separator"]
        if not _are_row_names([record.cells[0] for record in rows]):
            return None, []
        said = "its first column had no name, as in R's write.table, and is called `row_name`"
        return [Record(names.line, ["row_name", *names.cells]), *rows], [said]
    if widths == {width - 1} and not names.cells[-1].strip() and width > 2:
        return [Record(names.line, names.cells[:-1]), *rows], ["its line of names ended in a separator"]
    # Programs leave empty cells at the end of a row out; a cut text is another thing.
    short = [record for record in rows if len(record.cells) < width]
    if max(widths) == width and len(short) <= 0.5 * len(rows) and not _torn(rows, width):
        filled = [Record(r.line, r.cells + [""] * (width - len(r.cells))) for r in rows]
        lines = ", ".join(f"{record.line:,}" for record in short[:5]) + (" …" if len(short) > 5 else "")
        rows_ended = "1 row" if len(short) == 1 else f"{len(short):,} rows"
        return [names, *filled], [f"{rows_ended} ended before the last fields, now empty (line {lines})"]
    return None, []


def _are_row_names(cells: Sequence[str]) -> bool:
    """Whether cells can be names of rows: all different, and numbers or short; else a text was cut at its commas."""
    short = sum(len(cell.split()) for cell in cells) <= 2 * len(cells)
    return len(set(cells)) == len(cells) > 1 and short and not any('"' in cell for cell in cells)


def _torn(rows: Sequence[Record], width: int) -> bool:
    """Whether two rows in succession make up one: a line break inside a text that was not put into quotes."""
    widths = [len(record.cells) for record in rows]
    halves = any(max(one, two) < width and one + two == width + 1 for one, two in pairwise(widths))
    return halves or any(found == 1 < width for found in widths)


def _disagreement(names: Record, rows: Sequence[Record]) -> str:
    """A sentence about the first row that has more, else fewer, cells than there are names."""
    width = len(names.cells)
    others = [record for record in rows if len(record.cells) != width]
    odd = next((record for record in others if len(record.cells) > width), others[0])
    top = "the first line" if names.line == 1 else f"line {names.line:,}"
    return f"line {odd.line:,} has {len(odd.cells)} field{'s' * (len(odd.cells) != 1)}, but {top} has {width} names."


def _swallowing(reading: Reading) -> Record | None:
    """The first record with a cell that holds lines which would be rows of the table."""
    width = len(reading.records[0].cells)
    for record in reading.records[1:]:
        for cell in record.cells:
            if "\n" not in cell and "\r" not in cell:
                continue
            inside = re.split(r"\r\n|\n|\r", cell)[1:-1]
            if inside and sum(line.count(reading.separator) == width - 1 for line in inside) > 0.5 * len(inside):
                return record
    return None


def _unswallowed(text: str, reading: Reading) -> Reading:
    """The same, or with quotes as part of the texts where one that is never closed would make many rows one."""
    if reading.quoting.startswith("off") or (found := _swallowing(reading)) is None:
        return reading
    other = _read(text, reading.separator, "off")
    if other.fault is not None or any('"' in cell for cell in other.records[0].cells):
        return reading
    lines = max(len(re.split(r"\r\n|\n|\r", cell)) for cell in found.cells)
    said = f"a double quote on line {found.line:,} would make {lines} lines one text, and each of them is a row"
    return Reading(other.separator, other.quoting, other.records, None, (*other.said, said))


def _swallowed(reading: Reading) -> str | None:
    if (record := _swallowing(reading)) is None:
        return None
    cells = zip(reading.records[0].cells, record.cells, strict=True)
    name, cell = max(cells, key=lambda pair: pair[1].count("\n") + pair[1].count("\r"))
    breaks = len(re.findall(r"\r\n|\n|\r", cell))
    return (
        f"A cell of `{name.strip()}` that begins on line {record.line:,} holds {breaks} line breaks, and its lines "
        "have as many separators as rows have. If they are rows, correct the double quote there."
    )


def _reads_the_same(path: Path, separator: str, plain: pl.DataFrame) -> bool:
    try:
        strict = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except READING_FAULTS:
        return False
    return strict.columns == plain.columns and strict.fill_null("").equals(plain.fill_null(""))
