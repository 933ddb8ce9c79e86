"""Bytes of a text file as text, and on what evidence."""

import codecs
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hsae_dagster.errors import DatasetError

# Lines that are not plain ASCII, as far as they are looked at.
LOOKED_AT = 100_000
# So many characters in UTF-8 for each that is none make the file UTF-8 with errors.
GOOD_PER_BAD = 4
LINES_NAMED = 5
# In order of likelihood; those of DOS and the Mac only where no other fits.
WINDOWS = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859_2", "iso8859_15")
OLD = ("mac_roman", "cp850", "cp437", "cp852")
# Letters beyond a to z, by language.
LETTERS = tuple(
    frozenset(letters)
    for letters in (
        "äöüß",
        "àâæçéèêëîïôœùûüÿ",
        "áéíóúüñªº",
        "áâãàçéêíóôõúü",
        "àèéìòóù",
        "ëïéèöü",
        "åäöé",
        "æøåé",
        "áðéíóúýþæö",
        "äõöüšž",
        "ąćęłńóśźż",
        "áčďéěíňóřšťúůýž",
        "áäčďéíĺľňóôŕšťúýž",
        "áéíóöőúüű",
        "čćđšž",
        "ăâîşţșț",
        "çğıöşüâîûi̇",
        "ąčęėįšųūž",
        "āčēģīķļņšūž",
        "àçèéíïòóúü",
        "çë",
    )
)
# Signs that every language uses, and that say nothing of it.
NEUTRAL = frozenset("“”„‘’‚«»‹›–—…•€£¥¢¡¿°§·´®©™×½¼¾²³µ\u00a0\u00ad")
KANA = re.compile("[\u3041-\u30ff]")
WELL_FORMED = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}",
)
RARE = re.compile(r"mac_|cp(?!874)[478]\d\d$|cp1125|kz1048|hp_|ptcp|johab")
FITS, CLEARLY = 0.97, 0.02


@dataclass(frozen=True)
class Decoded:
    """A file's text, its encoding, and what a person should know of it (empty for plain UTF-8).

    Attributes:
        text: without a byte order mark.
        encoding: as it is called in a sentence.
        unusual: half a sentence on why the file has to be written anew, or empty.
    """

    text: str
    encoding: str = "UTF-8"
    unusual: str = ""


def decode(data: bytes, path: Path, wished: str | None = None) -> Decoded:
    """The text of a file.

    Raises:
        DatasetError: it is no text, or its encoding is unknown or cannot be told.
    """
    if wished:
        return _as_wished(data, path, wished)
    for mark, encoding in ((codecs.BOM_UTF32_LE, "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return Decoded(_whole(data, path, encoding), encoding.upper(), f"it was in {encoding.upper()}, not UTF-8")
    if b"\x00" in data[:4096]:
        return _without_mark(data, path)
    try:
        return Decoded(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return _mostly_utf8(data) or _guessed(data, path)


def known_encoding(name: str) -> str:
    """The codec of an encoding's name.

    Raises:
        DatasetError: Python knows none of that name.
    """
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        found = None
    # Codecs such as base64 are no encodings of text.
    if found is None or not found._is_text_encoding:
        raise DatasetError(
            f"There is no encoding `{name}`. Use one of Python's names, such as utf-8, cp1252, gb18030, shift_jis."
        )
    return found.name


def _as_wished(data: bytes, path: Path, wished: str) -> Decoded:
    encoding = known_encoding(wished)
    encoding = "utf-8-sig" if encoding == "utf-8" else encoding
    try:
        text = data.decode(encoding)
    except (UnicodeError, ValueError) as error:
        place = getattr(error, "start", 0)
        raise DatasetError(
            f"{path.name} is not in {wished}: line {data.count(10, 0, place) + 1:,} cannot be read so. Leave "
            "--encoding out to have it guessed, or name another."
        ) from None
    plain = encoding in ("utf-8-sig", "ascii")
    return Decoded(text, wished, "" if plain else f"it was in {wished}, as you said")


def _whole(data: bytes, path: Path, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path.name} begins as {encoding.upper()} and breaks off or is damaged at byte {error.start:,}. Copy or "
            "export it again, as UTF-8 if you can choose."
        ) from None


def _without_mark(data: bytes, path: Path) -> Decoded:
    """UTF-16 without its mark has a zero beside nearly every Latin letter, always on the same side."""
    head = data[:4096]
    zeros = (head[::2].count(0), head[1::2].count(0))
    half = max(len(head) // 2, 1)
    for side, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        if zeros[side] > 0.4 * half and zeros[1 - side] < 0.05 * half:
            return Decoded(_whole(data, path, encoding), "UTF-16", "it was in UTF-16 without a mark, not UTF-8")
    if max(zeros) > 0.02 * half:
        raise DatasetError(f"{path.name} is no text file. Give a CSV, or name the file by its format.")
    try:
        return Decoded(
            data.replace(b"\x00", b"").decode("utf-8-sig"), unusual="it held zero bytes, which were left out"
        )
    except UnicodeDecodeError:
        raise DatasetError(f"{path.name} is no text file. Give a CSV, or name the file by its format.") from None


def _mostly_utf8(data: bytes) -> Decoded | None:
    """UTF-8 with a few bytes that are none, if most of what is not ASCII is UTF-8."""
    text = data.decode("utf-8-sig", errors="replace")
    bad = text.count("\ufffd") - data.count("\ufffd".encode())
    if len(WELL_FORMED.findall(data)) < GOOD_PER_BAD * bad:
        return None
    lines = _no_utf8(data)
    named = ", ".join(f"{n:,}" for n in lines[:LINES_NAMED])
    more = f" and {len(lines) - LINES_NAMED:,} more" if len(lines) > LINES_NAMED else ""
    said = f"line{'s' * (len(lines) > 1)} {named}{more} held bytes that are not UTF-8, each now “\ufffd”"
    return Decoded(text, unusual=said)


def _no_utf8(data: bytes) -> list[int]:
    """Numbers of the lines that are not UTF-8, from 1."""
    found = []
    for number, line in enumerate(data.split(b"\n" if b"\n" in data else b"\r"), 1):
        try:
            line.decode("utf-8")
        except UnicodeDecodeError:
            found.append(number)
    return found


def _guessed(data: bytes, path: Path) -> Decoded:
    """Another encoding, on evidence; a question where there is too little."""
    sample = _sample(data)
    likely = _latin(sample) or _foreign(sample)
    readings: dict[str, str] = {}
    for encoding in likely:
        try:
            readings.setdefault(data.decode(encoding), encoding)
        except UnicodeDecodeError:
            continue
    if len(readings) == 1:
        text, encoding = next(iter(readings.items()))
        shown = _line_of(sample, encoding)
        return Decoded(
            text,
            encoding,
            f"it was in {encoding} judging by its content, not UTF-8 (a line then reads “{shown}”; if that is "
            "wrong, name the right one with --encoding)",
        )
    likely_first = sorted(readings.values(), key=lambda name: WINDOWS.index(name) if name in WINDOWS else len(WINDOWS))
    offered = likely_first or [*WINDOWS[:2], "cp1251", "gb18030", "shift_jis"]
    # In languages of Latin letters a few strange signs look like another script.
    offered = [*offered[:4], *[name for name in ("cp1252", "mac_roman") if name not in offered[:4]]]
    shown = "; ".join(f"--encoding {name}: “{_line_of(sample, name)}”" for name in offered[:5])
    first = _no_utf8(data)[0]
    raise DatasetError(
        f"{path.name} is not in UTF-8 (line {first:,} is the first that is not), and its encoding cannot be told from "
        f"what it holds. Name it, by how that line then reads: {shown}."
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
    line = sample.split(b"\n", 1)[0].decode(encoding, errors="replace")
    place = next((n for n, character in enumerate(line) if ord(character) > 127), 0)
    return " ".join(line[max(place - 30, 0) :][:60].split())


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
    if not matches:
        return []
    best = matches[0]
    return [
        match.encoding
        for match in matches
        if match.chaos <= best.chaos + 0.03 and match.coherence >= best.coherence - 0.08
    ]


def _decoded(sample: bytes, encoding: str) -> str | None:
    try:
        return sample.decode(encoding)
    except UnicodeDecodeError:
        return None
