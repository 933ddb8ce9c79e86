"""Labels as the names of classes.

Belongs here: when two values are one class, how many rows each has, and how they are listed for a person. Does not
belong here: which class counts as 1 (`rows`).
"""

import polars as pl

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


def class_sizes(classes: pl.Series) -> dict[str, int]:
    """Rows of each class, largest first; spellings that differ in case alone are one, under the commonest."""
    spelled = classes.alias("class").drop_nulls().value_counts().sort("count", "class", descending=[True, False])
    folded = spelled.group_by(pl.col("class").str.to_lowercase().alias("folded"), maintain_order=True)
    counts = folded.agg(pl.col("class").first(), pl.col("count").sum())
    return dict(counts.sort("count", "class", descending=[True, False]).select("class", "count").iter_rows())


def listed(classes: pl.Series) -> str:
    """The commonest classes with their sizes."""
    sizes = class_sizes(classes.alias("class"))
    shown = ", ".join(f"{name!r} ({size:,} row{'s' * (size != 1)})" for name, size in list(sizes.items())[:MOST_SHOWN])
    return shown + (f" and {len(sizes) - MOST_SHOWN} more" if len(sizes) > MOST_SHOWN else "")
