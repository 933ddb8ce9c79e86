"""When each row was: dates, times and numbers that order rows, as one number."""

from pathlib import Path

import polars as pl

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.errors import DatasetError

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
    words = (
        column.cast(pl.String).str.strip_chars().str.replace(r"(\d)[Tt](\d)", "$1 $2").str.replace(r"[Zz]$", "+00:00")
    )
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


def read_times(dataset: Dataset, path: Path, column: pl.Series) -> pl.Series:
    """The column as f64, null where a cell is empty.

    Raises:
        DatasetError: a value that does not read, with its row.
    """
    found = seconds_of(column)
    given = column.is_not_null()
    if column.dtype == pl.String:
        given = given & (column.str.strip_chars() != "")
    bad = (found.is_null() & given).arg_true()
    if len(bad):
        row = int(bad[0])
        raise DatasetError(
            f"Dataset `{dataset.name}`: {path.name} row {row + 1}, column `{column.name}`: {str(column[row])!r} is no "
            "date or time that can be read in one way only (01/02/2026 may be in January or in February). Write all "
            "of them as 2026-01-31 or 2026-01-31 14:05, or as a number, or leave columns.time out."
        )
    return found
