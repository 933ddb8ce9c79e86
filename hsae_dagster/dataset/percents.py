"""Numbers written as percents.

Belongs here: telling that a column is in percent, its values, and a sentence about a column that is so only in part.
Does not belong here: which columns are read (`rows`), or what an unknown column holds (`column_profile`).
"""

from collections.abc import Sequence

import polars as pl

_NUMBER = r"[+\-\u2212]?(?:[0-9]+(?:[.,][0-9]+)?|[.,][0-9]+)"
PERCENT = rf"^\s*{_NUMBER}\s*%\s*$"
# What may be a thousand as well as one and some decimals.
_AMBIGUOUS = r"^\s*[+\-\u2212]?[1-9][0-9]{0,2},[0-9]{3}\s*%\s*$"
# More values than this are amounts, whatever they are called.
MOST_CLASSES = 50


def percents(column: pl.Series) -> pl.Series:
    """The number before the percent sign of each cell, as written: 1.97 of `1.97%` and of `1,97 %`.

    Args:
        column: strings.

    Returns:
        f64, null where the cell is no percent, and where its comma could be of thousands: beside decimal points, or if
        every comma of the column has just three digits after it.
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
    """A sentence about a regression label that is not a number, with what to do.

    Args:
        label: strings, null where there is none.
        where: the dataset, file and column, as a sentence begins.
        row: position of a value that is not a number.
        remedy: what to do about a column of words.
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
