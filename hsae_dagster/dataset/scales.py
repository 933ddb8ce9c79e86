"""Answers in words that have an order, several classes in a cell, and codes for no answer.

Belongs here: telling these from the values of a column. Does not belong here: the other kinds of columns
(`column_profile`), or what is proposed for them (`proposal`).
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import polars as pl

FEWEST_ON_SCALE = 4
MIDDLE = (
    "neither agree nor disagree, neutral, undecided, not sure, unsure, neither, neither nor, mixed, indifferent, "
    "teils teils, teils/teils, weder noch, weder/noch, unentschieden, neither satisfied nor dissatisfied, "
    "neither likely nor unlikely, no opinion"
)
# Words of one rank stand on one line; what is in braces is left out or put in.
FAMILIES = (
    (
        "strongly disagree, completely disagree, totally disagree, fully disagree, stimme überhaupt nicht zu, "
        "stimme gar nicht zu, trifft überhaupt nicht zu, trifft nicht zu",
        "disagree, mostly disagree, stimme nicht zu",
        "somewhat disagree, slightly disagree, rather disagree, tend to disagree, stimme eher nicht zu, "
        "trifft eher nicht zu",
        MIDDLE,
        "somewhat agree, slightly agree, rather agree, tend to agree, stimme eher zu, trifft eher zu",
        "agree, mostly agree, stimme zu, trifft zu",
        "strongly agree, completely agree, totally agree, fully agree, stimme voll zu, stimme voll und ganz zu, "
        "trifft voll zu, trifft voll und ganz zu",
    ),
    (
        "very dissatisfied, extremely dissatisfied, completely dissatisfied, very unsatisfied, sehr unzufrieden",
        "dissatisfied, unsatisfied, unzufrieden",
        "somewhat dissatisfied, slightly dissatisfied, rather dissatisfied, eher unzufrieden",
        MIDDLE,
        "somewhat satisfied, slightly satisfied, rather satisfied, eher zufrieden",
        "satisfied, zufrieden",
        "very satisfied, extremely satisfied, completely satisfied, sehr zufrieden",
    ),
    (
        "very unlikely, extremely unlikely, definitely not",
        "unlikely, probably not",
        "somewhat unlikely, slightly unlikely",
        f"{MIDDLE}, possibly, maybe",
        "somewhat likely, slightly likely",
        "likely, probably",
        "very likely, extremely likely, definitely",
    ),
    (
        "never, nie, niemals",
        "rarely, seldom, selten, almost never, hardly ever",
        "sometimes, occasionally, manchmal, gelegentlich",
        "often, frequently, usually, oft, häufig",
        "very often, almost always, sehr oft, meistens",
        "always, immer",
    ),
    (
        "very poor, very bad, terrible, awful, sehr schlecht",
        "poor, bad, schlecht",
        f"fair, average, ok, okay, acceptable, mittel, {MIDDLE}",
        "good, gut",
        "very good, sehr gut, great",
        "excellent, outstanding, ausgezeichnet",
    ),
    (
        "not at all, none, gar nicht, überhaupt nicht",
        "slightly, a little, kaum, wenig",
        "moderately, somewhat, mittelmäßig, teilweise",
        "very, quite a bit, a lot, ziemlich",
        "extremely, very much, a great deal, sehr",
    ),
    (
        "not at all important, not important, unimportant",
        "slightly important, a little important",
        "moderately important, somewhat important",
        "important, quite important",
        "very important",
        "extremely important",
    ),
    (
        "very negative, strongly negative",
        "negative, somewhat negative",
        MIDDLE,
        "positive, somewhat positive",
        "very positive, strongly positive",
    ),
    ("very low", "low", "medium, moderate", "high", "very high"),
    ("very easy", "easy", MIDDLE, "difficult, hard", "very difficult, very hard"),
)
RANKS: tuple[Mapping[str, int], ...] = tuple(
    {word: rank for rank, words in enumerate(family) for word in words.split(", ")} for family in FAMILIES
)
# Around a word: the number that survey tools put before or after it.
NUMBERED = re.compile(r"^\(?\d+\)?\s*[-–:.=)]?\s*|\s*[-–:=]?\s*\(?\d+\)?$")

SEPARATORS = ("|", ";", ",")
BRACKETS = " \t'\"[]{}"
MOST_MEMBERS = 50
SHARE_OF_LISTS = 0.05

NEGATIVE_CODES = (-7, -8, -9, -66, -77, -88, -97, -98, -99, -997, -998, -999, -9998, -9999, -99999)
POSITIVE_CODES = (9, 88, 97, 98, 99, 888, 997, 998, 999, 8888, 9998, 9999, 99999)


def scale_of(values: Sequence[str]) -> tuple[str, ...]:
    """Values from lowest to highest if they are the words of one scale, else none.

    At least `FEWEST_ON_SCALE`, each of a rank of its own: negative, neutral and positive are classes as often.
    """
    if len(values) < FEWEST_ON_SCALE:
        return ()
    if points := _points(values):
        return points
    plain = {value: _plain(value) for value in values}
    for ranks in RANKS:
        if all(word in ranks for word in plain.values()):
            if len({ranks[word] for word in plain.values()}) < len(values):
                return ()
            return tuple(sorted(values, key=lambda value: ranks[plain[value]]))
    return ()


def _points(values: Sequence[str]) -> tuple[str, ...]:
    """`★` to `★★★★★`, `1/5` to `5/5`, `1 star` to `5 stars`, those between that nobody gave included; else none."""
    for pattern, write in (
        (r"(?P<mark>[★⭐*])(?P=mark)*(?P<rest>☆*)", lambda n, found: found["mark"] * n),
        (
            r"(?P<n>\d+)(?P<rest>(?:\s*/\s*| (?:out )?of | von | sur )\d+(?:\D+)?)",
            lambda n, found: f"{n}{found['rest']}",
        ),
        (r"(?P<n>\d+)(?P<rest>[- ]stars?)", lambda n, found: f"{n}{found['rest']}"),
    ):
        found = [f for value in values if (f := re.fullmatch(pattern, value.strip(), re.IGNORECASE))]
        if len(found) < len(values):
            continue
        given = {
            int(f.groupdict().get("n") or len(f[0]) - len(f["rest"])): v for f, v in zip(found, values, strict=True)
        }
        alike = len({(f["rest"] or "").rstrip("s") for f in found if f.groupdict().get("n")}) <= 1
        if not alike or len(given) < len(values) or not 1 <= min(given) < max(given) <= 11:
            return ()
        top = max(found, key=lambda f: len(f[0]))
        return tuple(given.get(n) or write(n, top) for n in range(1, max(given) + 1))
    return ()


def _plain(value: str) -> str:
    return " ".join(NUMBERED.sub("", value.strip().lower()).replace("’", "'").split())


def members(cells: pl.Series, separator: str) -> pl.Series:
    """The classes that each cell lists (list of str), null where there are none."""
    split = cells.cast(pl.String).str.split(separator)
    bare = split.list.eval(pl.element().str.strip_chars(BRACKETS))
    bare = bare.list.eval(pl.element().filter(pl.element() != ""))
    return bare.set(bare.list.len() == 0, None) if bare.dtype != pl.Null else bare


def list_separator(present: pl.Series) -> tuple[str, tuple[tuple[str, int], ...]] | None:
    """What separates classes within cells, and how many cells hold each; None where cells hold one thing each.

    Lists differ in length and share few members; a name such as `Bonn, Germany` has always two parts.

    Args:
        present: cells without those that hold nothing (str).
    """
    for separator in SEPARATORS:
        several = present.str.contains(separator, literal=True).mean() or 0.0
        if not SHARE_OF_LISTS < several < 1.0 - SHARE_OF_LISTS:  # type: ignore[operator]
            continue
        found = Counter(member for cell in members(present, separator) if cell is not None for member in set(cell))
        alone = {cell.strip(BRACKETS) for cell in present.unique() if separator not in cell}
        known = sum(n for member, n in found.items() if member in alone) > 0.8 * sum(found.values())
        wordy = any(len(member.split()) > 4 for member in found)
        if 2 < len(found) <= MOST_MEMBERS and known and not wordy and len(found) < present.n_unique():
            return separator, tuple(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return None


def missing_codes(numbers: pl.Series) -> tuple[int, ...]:
    """Values that stand so far outside the others that they can be codes for no answer.

    Args:
        numbers: f64 without nulls.
    """
    values = {float(value) for value in numbers.unique()}
    below = {code for code in NEGATIVE_CODES if float(code) in values}
    rest = values - below
    if below and len(rest) > 1 and min(rest) >= -1:
        return tuple(sorted(int(code) for code in below))
    above = {code for code in POSITIVE_CODES if float(code) in values}
    rest = values - above
    # Answers of a scale are whole numbers without a gap.
    if (
        not above
        or len(rest) < 2
        or min(rest) < 0
        or rest != {float(n) for n in range(int(min(rest)), int(max(rest)) + 1)}
    ):
        return ()
    far = all(code >= 2 * max(rest) if code > 9 else max(rest) <= 7 and len(rest) <= 7 for code in above)
    return tuple(sorted(above)) if far and max(rest) <= 20 else ()
