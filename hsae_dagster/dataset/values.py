"""Values as people write them: numbers, percents, times, names of classes, answers that have an order."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import polars as pl
import yaml

CURRENCY = r"(?:[$€£¥₹₽₩]|US\$|USD|EUR|GBP|CHF|JPY|INR|Fr\.?|Rs\.?|kr\.?|zł|Kč)"
SPACE = "[ \u00a0\u202f]"
# What stands behind a number for thousands, millions and billions.
TIMES = {"k": 1e3, "m": 1e6, "b": 1e9}
MARKED = (
    rf"^\(?\s*[-+\u2212]?\s*{CURRENCY}?\s*[-+\u2212]?\s*([0-9][0-9.,'’ \u00a0\u202f]*)\s*([kKMB]?)\s*{CURRENCY}?\s*\)?$"
)
# The digits alone, by how thousands and decimals are written.
PLAIN = r"^\d+(\.\d+)?$"
COMMA = r"^\d+,\d+$"
POINTS = r"^[1-9]\d{0,2}(\.\d{3})+$"
COMMAS = r"^[1-9]\d{0,2}(,\d{3})+$"
EUROPEAN = r"^\d{1,3}(\.\d{3})+,\d+$|^\d{1,3}(\.\d{3}){2,}$"
AMERICAN = r"^\d{1,3}(,\d{3})+\.\d+$|^\d{1,3}(,\d{3}){2,}$"
APART = rf"^\d{{1,3}}(({SPACE}|['’])\d{{3}})+([.,]\d+)?$"
SHARE = 0.9
LOOKED_AT, LONGEST = 1000, 40
# So many numbers with three digits after the point speak of thousands, if others have no point.
FEWEST = 5


@dataclass(frozen=True)
class Amounts:
    """A table of strings with plain numbers in some columns; what is said of these; doubts, by column."""

    frame: pl.DataFrame
    said: tuple[str, ...] = ()
    doubts: Mapping[str, str] = field(default_factory=dict)


def plain_amounts(frame: pl.DataFrame, separator: str | None) -> Amounts:
    """Numbers written plainly, in columns of strings nearly all of whose values are amounts.

    `separator` is that of the file's cells.
    """
    said: dict[str, list[str]] = {}
    doubts: dict[str, str] = {}
    for name in frame.columns:
        if frame.schema[name] != pl.String:
            continue
        made = _amounts(frame[name], separator)
        if made is None:
            continue
        column, how, doubt = made
        frame = frame.with_columns(column)
        said.setdefault(how, []).append(f"`{name.strip()}`")
        if doubt:
            doubts[name.strip()] = doubt
    return Amounts(frame, tuple(f"the numbers of {', '.join(names)} {how}" for how, names in said.items()), doubts)


def _amounts(column: pl.Series, separator: str | None) -> tuple[pl.Series, str, str] | None:
    """The column with plain numbers, how they were written and a doubt; None where nothing is to be done."""
    # A column of texts shows in its first rows.
    first = column.drop_nulls().head(LOOKED_AT)
    if not first.str.contains(r"\d").any() or float(first.str.len_chars().mean() or 0) > LONGEST:  # type: ignore[arg-type]
        return None
    cells = column.str.strip_chars()
    digits = cells.str.extract(MARKED, 1).str.strip_chars()
    filled = known(cells)
    if not filled.any() or int(digits.is_not_null().sum()) < SHARE * int(filled.sum()):
        return None
    how, doubt = _thousands(digits.drop_nulls(), separator)
    bare = _bare(digits, how)
    times = cells.str.extract(MARKED, 2).str.to_lowercase().replace_strict(TIMES, default=None)
    scaled = bool((times.is_not_null() & bare.is_not_null()).any())
    if scaled:
        bare, doubt = _times(bare, times), doubt or _TIMES_DOUBT
    number = pl.select(
        pl.when(cells.str.contains(r"[-\u2212]|^\(.*\)$") & bare.is_not_null()).then(pl.lit("-") + bare).otherwise(bare)
    ).to_series()
    marked = bool(cells.filter(digits.is_not_null()).str.contains(rf"{CURRENCY}|\u2212|\(").any())
    parts = [how] * bool(how) + ["had a currency or brackets"] * marked
    parts += ["had K, M or B behind them"] * scaled
    if not parts:
        return None
    result = pl.select(pl.coalesce(number, column)).to_series().alias(column.name)
    return result, " and ".join(parts), doubt.format(column.name.strip())


def _thousands(digits: pl.Series, separator: str | None) -> tuple[str, str]:
    """How thousands and decimals are written, empty where plainly; and a doubt.

    `digits` are strings without sign and currency. Points alone are left as they are, unless all have three digits
    after them and others have none; commas alone are of thousands in that case, else decimal ones.
    """
    apart, european, american, points, commas = (
        bool(digits.str.contains(pattern).any()) for pattern in (APART, EUROPEAN, AMERICAN, r"\.", ",")
    )
    if apart:
        return "had thousands apart", ""
    if european != american:
        return ("had points of thousands" if european else "had commas of thousands"), ""
    if points == commas:
        return "", ""
    marked = digits.filter(digits.str.contains(r"\." if points else ","))
    several, everywhere = marked.n_unique() >= FEWEST, marked.len() == digits.len()
    # A cell that lists classes, the other thing that it could be, holds a single one now and then.
    if commas and separator == "," and several and everywhere and marked.str.contains(r"^\d+,\d{1,2}$").all():
        return "had decimal commas", _DECIMAL_DOUBT
    if marked.str.contains(POINTS if points else COMMAS).all():
        if commas and separator == ",":
            return "had commas of thousands", ""
        if several and not everywhere:
            name, mark = ("points", ".") if points else ("commas", ",")
            return f"had {name} of thousands", _DOUBT.replace("MARK", mark)
    decimal = commas and separator not in (",", None) and marked.str.contains(COMMA).all()
    return ("had decimal commas" if decimal else ""), ""


_DOUBT = (
    "Every MARK in `{0}` is followed by just three digits, beside numbers without one: read as thousands (1MARK149 is "
    "1149). If they are decimals, write them with as many digits throughout."
)
_DECIMAL_DOUBT = (
    "Every value of `{0}` has a comma with one or two digits after it: read as decimals (3,5 is 3.5). If a cell lists "
    "two classes, write another separator between them."
)
_TIMES_DOUBT = (
    "Values of `{0}` have K, M or B behind them: read as thousands, millions and billions (1.2K is 1200), which may be "
    "rounded. If they are units of something else, write the unit into the name of the column."
)


def _times(bare: pl.Series, times: pl.Series) -> pl.Series:
    """Plain numbers with those that have a factor multiplied by it."""
    # Products of decimals and powers of ten are whole but for the last bits.
    number = (bare.cast(pl.Float64) * times).round(4)
    whole = number.cast(pl.Int64, strict=False)
    written = pl.when(whole == number).then(whole.cast(pl.String)).otherwise(number.cast(pl.String))
    return pl.select(pl.when(times.is_not_null()).then(written).otherwise(bare)).to_series()


def _bare(digits: pl.Series, how: str) -> pl.Series:
    """Digits with a decimal point at most, null where a cell is no number written so."""
    remove, decimal = {
        "": ("", ""),
        "had thousands apart": (rf"{SPACE}|['’]", ","),
        "had points of thousands": (r"\.", ","),
        "had commas of thousands": (",", ""),
        "had decimal commas": ("", ","),
    }[how]
    bare = digits.str.replace_all(remove, "") if remove else digits
    bare = bare.str.replace(decimal, ".", literal=True) if decimal else bare
    return bare.set(~bare.str.contains(PLAIN).fill_null(False), None)


def lost_digits(column: pl.Series) -> bool:
    """Whether keys were rounded by a spreadsheet or a float: `1.23457E+17`, or numbers too large to be exact."""
    if column.dtype == pl.String:
        present = column.drop_nulls().str.strip_chars()
        rounded = present.str.contains(r"^\d[.,]\d+[eE]\+?1\d$")
        return bool(present.len()) and bool(rounded.mean() > 0.5)  # type: ignore[operator]
    if not column.dtype.is_numeric():
        return False
    present = column.cast(pl.Float64, strict=False).drop_nulls().drop_nans()
    if not present.len() or not bool((present.abs() >= 2.0**53).all()):
        return False
    return column.dtype.is_float() or bool((present % 1000 == 0).mean() > 0.9)  # type: ignore[operator]


_NUMBER = r"[+\-\u2212]?(?:[0-9]+(?:[.,][0-9]+)?|[.,][0-9]+)"
PERCENT = rf"^\s*{_NUMBER}\s*%\s*$"
# What may be a thousand as well as one and some decimals.
_AMBIGUOUS = r"^\s*[+\-\u2212]?[1-9][0-9]{0,2},[0-9]{3}\s*%\s*$"
# More values than this are amounts, whatever they are called.
MOST_CLASSES = 50


def percents(column: pl.Series) -> pl.Series:
    """The number before the percent sign of each cell, as written: 1.97 of `1.97%` and of `1,97 %`.

    Returned as f64, null where the cell (a string) is no percent, and where its comma could be of thousands: beside
    decimal points, or if every comma of the column has just three digits after it.
    """
    fits = column.str.contains(PERCENT).fill_null(False)
    comma = fits & column.str.contains(",", literal=True).fill_null(False)
    point = fits & column.str.contains(".", literal=True).fill_null(False)
    if point.any() or column.filter(comma).str.contains(_AMBIGUOUS).all():
        fits = fits & ~comma
    plain = column.str.replace(",", ".", literal=True).str.replace("\u2212", "-").str.replace(r"\s*%\s*$", "")
    return plain.str.strip_chars().cast(pl.Float64, strict=False).set(~fits, None)


def known(column: pl.Series) -> pl.Series:
    """Whether each cell holds more than spaces (bool)."""
    return column.is_not_null() & (column.str.strip_chars() != "").fill_null(False)


def without_percent_signs(frame: pl.DataFrame, names: Sequence[str]) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """The table with numbers (f64) in those of the columns whose known values are all percents; and which these are."""
    found: list[str] = []
    for name in names:
        if frame.schema[name] not in (pl.String, pl.Categorical, pl.Enum):
            continue
        column = frame[name].cast(pl.String)
        filled = known(column)
        numbers = percents(column)
        if filled.any() and numbers.is_not_null().sum() == filled.sum():
            frame, found = frame.with_columns(numbers.alias(name)), [*found, name]
    return frame, tuple(found)


def why_no_number(label: pl.Series, where: str, row: int, remedy: str) -> str:
    """A sentence about a regression label (strings, null where there is none) that is not a number, with what to do.

    `where` begins it, `row` is the position of a value that is no number, `remedy` is for a column of words.
    """
    signed = label.str.ends_with("%").fill_null(False)
    unsigned = label.is_not_null() & ~signed
    if signed.any() and unsigned.any():
        first, second = int(signed.arg_true()[0]), int(unsigned.arg_true()[0])
        return (
            f"{where}: row {first + 1} is {label[first]!r} and row {second + 1} is {label[second]!r}, so it is unclear "
            "what is in percent. End every value in a percent sign (12% is read as 12) or none; name marks of missing "
            "values in columns.missing."
        )
    if signed.any():
        row = int((label.is_not_null() & percents(label).is_null()).arg_true()[0])
        remedy = "Write percents as 1.97% or 1,97 % throughout, without separators of thousands."
    elif (distinct := label.n_unique()) > MOST_CLASSES:
        remedy = (
            f"Make the column numeric, with a decimal point and without units or separators of thousands (it has "
            f"{distinct:,} different values, too many for classes)."
        )
    if signed.any() or not label[row].strip()[:1].isdigit():
        remedy += " If it stands for no value, name it in columns.missing."
    return f"{where}, row {row + 1}: {label[row]!r} is not a number. {remedy}"


FEWEST_ON_SCALE = 4
# Around a word: the number that survey tools put before or after it.
NUMBERED = re.compile(r"^\(?\d+\)?\s*[-–:.=)]?\s*|\s*[-–:=]?\s*\(?\d+\)?$")

SEPARATORS = ("|", ";", ",")
BRACKETS = " \t'\"[]{}"
MOST_MEMBERS = 50
SHARE_OF_LISTS = 0.05

NEGATIVE_CODES = (-7, -8, -9, -66, -77, -88, -97, -98, -99, -997, -998, -999, -9998, -9999, -99999)
POSITIVE_CODES = (9, 88, 97, 98, 99, 888, 997, 998, 999, 8888, 9998, 9999, 99999)


@cache
def _ranks() -> tuple[Mapping[str, int], ...]:
    known = yaml.safe_load(Path(__file__).with_name("scales.yaml").read_text(encoding="utf-8"))
    scales = [[words.format(middle=known["middle"]).split(", ") for words in scale] for scale in known["scales"]]
    return tuple({word: rank for rank, words in enumerate(scale) for word in words} for scale in scales)


def scale_of(values: Sequence[str]) -> tuple[str, ...]:
    """Values from lowest to highest if they are the words of one scale, else none.

    At least `FEWEST_ON_SCALE`, each of a rank of its own: negative, neutral and positive are classes as often.
    """
    if len(values) < FEWEST_ON_SCALE:
        return ()
    if points := _points(values):
        return points
    for ranks in _ranks():
        if all(_plain(value) in ranks for value in values):
            found = {ranks[_plain(value)]: value for value in values}
            return tuple(found[rank] for rank in sorted(found)) if len(found) == len(values) else ()
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
    """What separates classes within cells (str, none empty), and how many cells hold each; None for one thing each.

    Lists differ in length and share few members; a name such as `Bonn, Germany` has always two parts.
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
    """Values (f64, no null) that stand so far outside the others that they can be codes for no answer."""
    values = {float(value) for value in numbers.unique()}
    below = {code for code in NEGATIVE_CODES if float(code) in values}
    rest = values - below
    if below and len(rest) > 1 and min(rest) >= -1:
        return tuple(sorted(int(code) for code in below))
    above = {code for code in POSITIVE_CODES if float(code) in values}
    rest = values - above
    if not above or len(rest) < 2 or min(rest) < 0:
        return ()
    # Answers of a scale are whole numbers without a gap.
    scale = max(rest) <= 20 and rest == {float(n) for n in range(int(min(rest)), int(max(rest)) + 1)}
    far = all(code >= 2 * max(rest) if code > 9 else max(rest) <= 7 and len(rest) <= 7 for code in above)
    return tuple(sorted(above)) if scale and far else ()


MOST_SHOWN = 6


def class_name(value: object) -> str:
    """A class as it is compared: `true`, `True` and true are one, and so are 1 and 1.0."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else repr(value)
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false") else text


def classes_of(label: pl.Series) -> pl.Series:
    """Labels as the names of classes, null where there is none."""
    names = label.fill_nan(None) if label.dtype.is_float() else label
    names = names.map_elements(class_name, return_dtype=pl.String)
    return names.set(names == "", None)


def class_key(value: object) -> str:
    """What tells a class from others: more than case, for who wrote `Yes` once and `yes` else meant one."""
    return class_name(value).lower()


def listed_classes(label: pl.Series, separator: str) -> pl.Series:
    """The classes that each cell lists, joined by `separator` alone; null where there are none."""
    cells = members(label, separator)
    return cells.list.eval(pl.element().map_elements(class_name, return_dtype=pl.String)).list.join(separator)


def each_class(classes: pl.Series, separator: str | None) -> pl.Series:
    """One entry for every class of every cell, from `listed_classes`; the same where cells hold one each."""
    return classes if separator is None else classes.drop_nulls().str.split(separator).explode()


def among_others(classes: Mapping[str, int], positive: object) -> tuple[str, int] | None:
    """What separates classes in cells that list the positive one among others, and how many rows these are; or None.

    `classes` are of `class_sizes`.
    """
    wanted = class_key(positive)
    for separator in SEPARATORS:
        lists = {name: name.lower().split(separator) for name in classes if separator in name}
        n = sum(classes[name] for name, found in lists.items() if wanted in [each.strip(BRACKETS) for each in found])
        if n and wanted not in lists:
            return separator, n
    return None


def one_against_the_rest(classes: pl.Series, positive: object, separator: str | None = None) -> pl.Series:
    """1 for the rows of a class and 0 for those of others (f64), null where there is none.

    Classes are of `classes_of`; with a separator, of `listed_classes`, and 1 means that the class is among a cell's.
    """
    lower, wanted = classes.str.to_lowercase(), class_key(positive)
    hit = lower == wanted if separator is None else lower.str.split(separator).list.contains(wanted)
    return hit.cast(pl.Float64).set(classes.is_null(), None)


def folded(counts: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(value, rows), commonest first, with those that differ in case alone as one, under the commonest spelling."""
    found: dict[str, tuple[str, int]] = {}
    for value, n in counts:
        first, before = found.get(value.lower(), (value, 0))
        found[value.lower()] = (first, before + n)
    return sorted(found.values(), key=lambda level: (-level[1], level[0]))


def class_sizes(classes: pl.Series) -> dict[str, int]:
    """Rows of each class, largest first, folded."""
    spelled = classes.alias("class").drop_nulls().value_counts().sort("count", "class", descending=[True, False])
    return dict(folded(spelled.iter_rows()))


def listed(classes: pl.Series) -> str:
    """The commonest classes with their sizes."""
    sizes = class_sizes(classes)
    shown = ", ".join(f"{name!r} ({size:,} row{'s' * (size != 1)})" for name, size in list(sizes.items())[:MOST_SHOWN])
    return shown + (f" and {len(sizes) - MOST_SHOWN} more" if len(sizes) > MOST_SHOWN else "")


# Forms in which no day can be taken for a month; the first in which all values read is that of the column.
_FORMS = (
    *("%Y-%m-%d", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y/%m/%d", "%Y/%m/%d %H:%M:%S"),
    *("%Y/%m/%d %H:%M", "%Y%m%d", "%d.%m.%Y", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%d %B %Y", "%B %d, %Y"),
    *("%d %b %Y", "%b %d, %Y", "%d-%b-%Y", "%a %b %d %H:%M:%S %z %Y", "%a, %d %b %Y %H:%M:%S %z"),
)
_MONTHS = r"^\d{4}-\d{1,2}$"


def seconds_of(column: pl.Series) -> pl.Series:
    """The column as f64: seconds since 1970 of dates and times, numbers as they are; null where it cannot be read."""
    if column.dtype.is_numeric():
        return column.cast(pl.Float64).fill_nan(None)
    if column.dtype.is_temporal() and column.dtype != pl.Time:
        return column.cast(pl.Datetime("us")).dt.timestamp("us").cast(pl.Float64) / 1e6
    words = column.cast(pl.String).str.strip_chars().str.replace(r"(\d)[Tt](\d)", "$1 $2")
    words = words.str.replace(r"[Zz]$", "+00:00")
    words = words.set(words == "", None)
    numbers = words.cast(pl.Float64, strict=False)
    dates = words.str.len_chars() == 8  # 20260131 is a day
    if numbers.null_count() == words.null_count() and not bool(dates.all()):
        return numbers
    monthly = words.str.contains(_MONTHS).fill_null(True).all()
    words = words + "-01" if monthly else words
    best = pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    for form in _FORMS:
        read = words.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC" if "z" in form else None)
        read = read.dt.timestamp("us").cast(pl.Float64) / 1e6
        if read.null_count() < best.null_count():
            best = read
        if best.null_count() == words.null_count():
            break
    return best
