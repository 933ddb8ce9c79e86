"""Labels as the names of classes.

Belongs here: when two values are one class, how many rows each has, and how they are listed for a person. Does not
belong here: which class counts as 1 (`rows`).
"""

from collections.abc import Iterable, Mapping

import polars as pl

from hsae_dagster.dataset.scales import BRACKETS, SEPARATORS, members

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

    Args:
        classes: rows of each class, as `class_sizes` has them.
        positive: the class that counts as 1.
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

    Args:
        classes: from `classes_of`; with a separator, from `listed_classes`.
        positive: the class.
        separator: between the classes of a cell; 1 then means that the class is among them.
    """
    lower = classes.str.to_lowercase()
    hit = (
        lower == class_key(positive)
        if separator is None
        else lower.str.split(separator).list.contains(class_key(positive))
    )
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
    sizes = class_sizes(classes.alias("class"))
    shown = ", ".join(f"{name!r} ({size:,} row{'s' * (size != 1)})" for name, size in list(sizes.items())[:MOST_SHOWN])
    return shown + (f" and {len(sizes) - MOST_SHOWN} more" if len(sizes) > MOST_SHOWN else "")
