"""Numbers as people write them: separators of thousands, decimal commas, currencies, brackets for what is owed.

Belongs here: columns of such cells as columns of plain numbers, and in words which these are. Does not belong here:
percents, which the strict reader knows (`percents`), or missing codes (`column_profile`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

CURRENCY = r"(?:[$€£¥₹₽₩]|US\$|USD|EUR|GBP|CHF|JPY|INR|Fr\.?|Rs\.?|kr\.?|zł|Kč)"
SPACE = "[ \u00a0\u202f]"
MARKED = rf"^\(?\s*[-+\u2212]?\s*{CURRENCY}?\s*[-+\u2212]?\s*([0-9][0-9.,'’ \u00a0\u202f]*)\s*{CURRENCY}?\s*\)?$"
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
    """Numbers written plainly, in columns nearly all of whose values are amounts.

    Args:
        frame: columns of other types than strings are left as they are.
        separator: of the file's cells; a comma inside a cell of a file separated by commas is never a decimal one.
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
    known = cells.is_not_null() & (cells != "")
    if not known.any() or int(digits.is_not_null().sum()) < SHARE * int(known.sum()):
        return None
    written = _Written(digits.drop_nulls(), separator)
    how, doubt = written.thousands()
    bare = _bare(digits, how)
    if bare is None:
        return None
    number = pl.select(
        pl.when(cells.str.contains(r"[-\u2212]|^\(.*\)$") & bare.is_not_null()).then(pl.lit("-") + bare).otherwise(bare)
    ).to_series()
    marked = bool(cells.filter(digits.is_not_null()).str.contains(rf"{CURRENCY}|\u2212|\(").any())
    if not how and not marked:
        return None
    parts = [how] * bool(how) + ["had a currency or brackets"] * marked
    result = pl.select(pl.coalesce(number, column)).to_series().alias(column.name)
    return result, " and ".join(parts), doubt.format(column.name.strip())


class _Written:
    """How the digits of a column are written (strings without sign and currency)."""

    def __init__(self, digits: pl.Series, separator: str | None) -> None:
        self.digits, self.separator = digits, separator

    def _any(self, pattern: str) -> bool:
        return bool(self.digits.str.contains(pattern).any())

    def thousands(self) -> tuple[str, str]:
        """How thousands and decimals are written, `` where plainly; and a doubt."""
        if self._any(APART):
            return "had thousands apart", ""
        european, american = self._any(EUROPEAN), self._any(AMERICAN)
        points, commas = self._any(r"\."), self._any(",")
        if european != american:
            return ("had points of thousands" if european else "had commas of thousands"), ""
        if commas and not points:
            return self._commas()
        if points and not commas:
            return self._points()
        return "", ""

    def _commas(self) -> tuple[str, str]:
        """Commas alone: of thousands if all have three digits after them and others none, else decimal ones."""
        with_comma = self.digits.filter(self.digits.str.contains(","))
        # A cell that lists classes, the other thing that it could be, holds a single one now and then.
        everywhere = with_comma.len() == self.digits.len() and with_comma.n_unique() >= FEWEST
        if self.separator == "," and everywhere and bool(with_comma.str.contains(r"^\d+,\d{1,2}$").all()):
            return "had decimal commas", _DECIMAL_DOUBT
        if bool(with_comma.str.contains(COMMAS).all()) and (self.separator == "," or self._alike(with_comma)):
            doubt = "" if self.separator == "," else _DOUBT
            return "had commas of thousands", doubt.replace("MARK", ",")
        if self.separator in (",", None) or not bool(with_comma.str.contains(COMMA).all()):
            return "", ""
        return "had decimal commas", ""

    def _points(self) -> tuple[str, str]:
        """Points alone: as they are, unless all have three digits after them and others have none."""
        with_point = self.digits.filter(self.digits.str.contains(r"\."))
        if not bool(with_point.str.contains(POINTS).all()) or not self._alike(with_point):
            return "", ""
        return "had points of thousands", _DOUBT.replace("MARK", ".")

    def _alike(self, marked: pl.Series) -> bool:
        """Whether enough numbers are marked, and some below a thousand are not."""
        return marked.n_unique() >= FEWEST and marked.len() < self.digits.len()


_DOUBT = (
    "Every MARK in `{0}` is followed by just three digits, beside numbers without one: read as thousands (1MARK149 is "
    "1149). If they are decimals, write them with as many digits throughout."
)


_DECIMAL_DOUBT = (
    "Every value of `{0}` has a comma with one or two digits after it: read as decimals (3,5 is 3.5). If a cell lists "
    "two classes, write another separator between them."
)


def _bare(digits: pl.Series, how: str) -> pl.Series | None:
    """Digits with a decimal point at most, null where a cell is no number written so."""
    swaps = {
        "": None,
        "had thousands apart": (rf"{SPACE}|['’]", ",", "."),
        "had points of thousands": (r"\.", ",", "."),
        "had commas of thousands": (",", "", ""),
        "had decimal commas": (None, ",", "."),
    }
    swap = swaps[how]
    bare = digits
    if swap is not None:
        remove, old, new = swap
        bare = bare.str.replace_all(remove, "") if remove else bare
        bare = bare.str.replace(old, new, literal=True) if old else bare
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
