"""Texts cut into the units that mean something: sentences, paragraphs, or the text as it is."""

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from statistics import median
from typing import Any, Literal

import polars as pl

from hsae_dagster.core.concepts.words import TAG
from hsae_dagster.keys import normalise_text, text_id

Kind = Literal["text", "sentence", "paragraph"]

UNITS_SCHEMA = {"unit_id": pl.String, "unit": pl.String, "n_words": pl.Int32}
TEXT_UNITS_SCHEMA = {
    "text_id": pl.String,
    "position": pl.Int32,
    "unit_id": pl.String,
    "start": pl.Int32,
    "end": pl.Int32,
}

# Words of the longest unit: a run-on sentence is cut at clauses, a paragraph so that an embedder reads all of it.
LONGEST = {"sentence": 60, "paragraph": 180}
_SHORTEST = 2
# A piece of something too long has between these shares of the longest: room to look for the end of a clause.
_LEAST, _MOST = 0.3, 0.7
_BLOCK = 20_000

# Scripts that put no space between words: Thai, Lao, Burmese, Khmer, Chinese, Japanese.
_WIDE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_WORD = re.compile(r"\w+(?:['’.-]\w+)*")
_WIDE_WORD = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])\w)+")
# What counts as one word of a long run: two characters of such a script, or what stands between spaces.
_ONE_WIDE = re.compile(rf"[{_WIDE}]")
_ATOM = re.compile(rf"[{_WIDE}]{{1,2}}|[^\s{_WIDE}]{{1,40}}")
_CLAUSE_WORDS = {
    *("and", "but", "or", "nor", "yet", "so", "because", "although", "though", "while", "which", "who", "when"),
    *("where", "und", "oder", "aber", "et", "mais", "y", "pero"),
}

_BREAK = re.compile(r"[\n\r\x0b\x0c\x85\u2028\u2029]\s*")
_ONE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")
_BULLET = re.compile(r"[-*+•·‣–—◦▪●○►✓✔]\s|\(?(?:\d{1,3}|[A-Za-z])[.)]\s")
_NUMBER = re.compile(r"\(?(?:\d{1,3}|[A-Za-z])[.)]")
# Lines of a text that is wrapped to a width are at least so long, and so large a share goes on in lower case.
_WRAPPED_LENGTH, _WRAPPED_SHARE = 40, 1 / 3

_MARKUP = re.compile(
    rf"{TAG.pattern}|&(?:\#\d{{1,7}}|\#[xX][0-9a-fA-F]{{1,6}}|[A-Za-z][A-Za-z0-9]{{1,30}});", TAG.flags
)
# The splitter reads UTF-8 and knows ASCII's white space; each character keeps its place.
_READABLE = {code: " " for code in range(128, 0x3001) if chr(code).isspace()} | dict.fromkeys(
    range(0xD800, 0xE000), "?"
)


@dataclass(frozen=True)
class Unit:
    """A part of a text.

    Attributes:
        text: what it reads like: tags dropped, entities decoded, white space folded.
        start: of its span in the text as it came, in characters.
        end: one behind its last.
    """

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class UnitTables:
    """The units of a corpus.

    Attributes:
        kind: what they are; never `auto`.
        units: distinct ones, columns `UNITS_SCHEMA`, ascending unit_id.
        text_units: which units each text has, columns `TEXT_UNITS_SCHEMA`, by text_id and position.
    """

    kind: Kind
    units: pl.DataFrame
    text_units: pl.DataFrame

    def counts(self) -> dict[str, Any]:
        """How many there are and how long, for the corpus' summary."""
        per_text = self.text_units.group_by("text_id").len()["len"]
        words = self.units["n_words"]
        return {
            "kind": self.kind,
            "units": self.text_units.height,
            "distinct": self.units.height,
            "longest": int(words.max() or 0),  # type: ignore[arg-type]
            "shortest": int(words.min() or 0),  # type: ignore[arg-type]
            "median per text": float(per_text.median() or 0),  # type: ignore[arg-type]
            "most per text": int(per_text.max() or 0),  # type: ignore[arg-type]
        }


def make_units(texts: pl.DataFrame, wanted: Kind | Literal["auto"]) -> UnitTables:
    """The units of a corpus' texts.

    Args:
        texts: columns text_id, text, n_words; ascending, distinct text_id.
        wanted: the kind, or `auto`: sentences where the median text has two or more, else the text.
    """
    if wanted == "text":
        return _whole(texts)
    kind: Kind = "sentence" if wanted == "auto" else wanted
    blocks, per_text = [], []
    for part in texts.iter_slices(_BLOCK):
        cut = [split_text(text, kind) for text in part["text"]]
        per_text += [len(units) for units in cut]
        blocks.append(_block(part["text_id"].to_list(), cut))
    if wanted == "auto" and median(per_text or [1]) < 2:
        return _whole(texts)
    units, text_units = (pl.concat(part) for part in zip(*blocks, strict=True))
    # Of spellings with equal keys, which one is shown must not depend on the order of the texts.
    units = units.sort("unit_id", "unit").unique("unit_id", keep="first", maintain_order=True)
    return UnitTables(kind, units, text_units)


def _whole(texts: pl.DataFrame) -> UnitTables:
    units = texts.select(unit_id="text_id", unit="text", n_words="n_words")
    nothing, ends = pl.lit(0, dtype=pl.Int32), pl.col("text").str.len_chars().cast(pl.Int32)
    places = texts.select("text_id", position=nothing, unit_id="text_id", start=nothing, end=ends)
    return UnitTables("text", units, places)


def _block(ids: list[str], cut: list[list[Unit]]) -> tuple[pl.DataFrame, pl.DataFrame]:
    keys = {text: text_id(text) for text in dict.fromkeys(unit.text for units in cut for unit in units)}
    rows = [
        (key, position, keys[unit.text], unit.start, unit.end)
        for key, units in zip(ids, cut, strict=True)
        for position, unit in enumerate(units)
    ]
    listed = [(key, unit, unit.count(" ") + 1) for unit, key in keys.items()]
    return (
        pl.DataFrame(listed, schema=UNITS_SCHEMA, orient="row"),
        pl.DataFrame(rows, schema=TEXT_UNITS_SCHEMA, orient="row"),
    )


def split_text(text: str, kind: Kind) -> list[Unit]:
    """The units of one text, in order; at least one.

    Spans do not overlap and hold every character that is not white space, tags included; a text has at least one such.
    """
    if kind == "text":
        return [Unit(text, 0, len(text))]
    shown, places = _without_markup(text)
    starts = [start for start, _ in _spans(shown, kind)]
    bounds = [0, *starts[1:], len(shown)]
    found = []
    for a, b in pairwise(bounds):
        start, end = (a, b) if places is None else (places[a] if a else 0, places[b])
        span = text[start:end]
        start += len(span) - len(span.lstrip())
        found.append(Unit(normalise_text(shown[a:b]), start, start + len(span.strip())))
    return found


def _without_markup(text: str) -> tuple[str, list[int] | None]:
    """What a reader sees, and where each of its characters (and its end) stands in the text; None for: where it is."""
    if "<" not in text and "&" not in text:
        return text, None
    parts: list[str] = []
    places: list[int] = []
    done = 0
    for found in _MARKUP.finditer(text):
        parts.append(text[done : found.start()])
        places += range(done, found.start())
        mark = found.group()
        instead = html.unescape(mark) if mark[0] == "&" else "\n" if found["block"] else ""
        parts.append(instead)
        places += [found.start()] * len(instead)
        done = found.end()
    if not done:
        return text, None
    shown = "".join([*parts, text[done:]])
    return (shown, [*places, *range(done, len(text) + 1)]) if shown.strip() else (text, None)


def _spans(text: str, kind: Kind) -> list[tuple[int, int]]:
    cuts = [0, *_line_cuts(text, blank_only=kind == "paragraph"), len(text)]
    lines = [(a, b) for a, b in pairwise(cuts) if a < b]
    if kind == "sentence":
        lines = [span for line in lines for span in _sentences(text, *line)]
    return [span for whole in _joined(text, lines) for span in _cut_long(text, *whole, LONGEST[kind])]


def _line_cuts(text: str, *, blank_only: bool) -> list[int]:
    """Where lines begin that begin a unit: after blank lines, at bullets, and after any break of an unwrapped text."""
    breaks = [found for found in _BREAK.finditer(text) if found.start() > 0 and found.end() < len(text)]
    if not breaks:
        return []
    blank = {found.end() for found in breaks if len(_ONE_BREAK.findall(found.group())) > 1}
    if blank_only and blank:
        return sorted(blank)
    if _is_wrapped(text, [found for found in breaks if found.end() not in blank]):
        return [found.end() for found in breaks if found.end() in blank or _BULLET.match(text, found.end())]
    return [found.end() for found in breaks]


def _is_wrapped(text: str, breaks: list["re.Match[str]"]) -> bool:
    """Whether lines are broken for their width: long ones, of which many go on in lower case."""
    if not breaks:
        return False
    ends = [0, *(found.start() for found in breaks)]
    lengths = [b - a for a, b in pairwise(ends)]
    going_on = sum(text[found.end()].islower() and not _BULLET.match(text, found.end()) for found in breaks)
    return median(lengths) >= _WRAPPED_LENGTH and going_on >= _WRAPPED_SHARE * len(breaks)


def _sentences(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    import sentencex

    readable = text[start:end].translate(_READABLE)
    try:
        parts = sentencex.segment("en", readable)
    except BaseException as error:
        # What the splitter cannot read ends in a Rust panic, which is no Exception; the run then counts as one.
        if type(error).__name__ != "PanicException":
            raise
        parts = [readable]
    if sum(map(len, parts)) != end - start:
        parts = [readable]
    for part in parts:
        yield start, start + len(part)
        start += len(part)


def _words(piece: str) -> int:
    """How many words it has, counted as far as the shortest unit."""
    found = (_WORD if piece.isascii() else _WIDE_WORD).finditer(piece)
    return sum(1 for _ in islice(found, _SHORTEST))


def _joined(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of fewer than two words join the one before; the first, a list's number or a word and a colon the next."""
    found: list[tuple[int, int]] = []
    waiting, waiting_words = None, 0
    for start, end in spans:
        piece = text[start:end]
        begin, words = (start, 0) if waiting is None else (waiting, waiting_words)
        words += _words(piece)
        waiting = None
        if words >= _SHORTEST:
            found.append((begin, end))
        elif not found or piece.strip().endswith((":", "：")) or _NUMBER.fullmatch(piece.strip()):
            waiting, waiting_words = begin, words
        else:
            found[-1] = (found[-1][0], end)
    if waiting is not None:
        begin = found.pop()[0] if found else waiting
        found.append((begin, len(text)))
    return found


def _cut_long(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """The span, or its pieces of at most `longest` words, cut where a clause ends if one does, else by a window."""
    # No word is shorter than a character and a space, or two characters of a script without spaces.
    if end - start > 2 * longest - 1:
        atoms = [(found.start(), found.end()) for found in _ATOM.finditer(text, start, end)]
        ideal, least, most = longest // 2, int(_LEAST * longest), int(_MOST * longest)
        first = 0
        while len(atoms) - first > longest:
            window = range(first + least, first + most + 1)
            at = max(window, key=lambda j: (_clause_end(text, atoms[j - 1], atoms[j]), -abs(j - first - ideal)))
            yield start, atoms[at][0]
            start, first = atoms[at][0], at
    yield start, end


def _clause_end(text: str, before: tuple[int, int], after: tuple[int, int]) -> int:
    """How good a place between two neighbouring words is to cut at."""
    last, apart = text[before[1] - 1], before[1] < after[0]
    if not apart and (unicodedata.category(text[after[0]])[0] == "M" or text[after[0]] == "\u200d" or last == "\u200d"):
        return -2  # inside a character of several code points
    wide = not apart and not last.isascii()
    for marks, worth in ((".!?…。！？｡", 4), (";:；：", 3), (",，、–—", 2)):
        if last in marks and (apart or wide):
            return worth
    word = text[after[0] : after[1]]
    # Scripts that put no space between words put one between clauses.
    clause = word.lower() in _CLAUSE_WORDS or word[0] in "–—" or word == "-" or _ONE_WIDE.fullmatch(last) is not None
    return int(clause) if apart else 0 if wide else -1
