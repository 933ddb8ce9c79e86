"""Which controls can be held constant by rows as few as these, and which can divide them.

Belongs here: how many categories a control, a stratum or a subgroup may have. Does not belong here: reading it
(`rows`), its columns in a model (`core.observations`).

Each category beyond the first is a column of the models that hold controls constant. With too many of them, rare ones
would have to share a column, and whatever differs between those would be taken for an effect of the texts.
"""

import shlex

import numpy as np
import polars as pl

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Selection
from hsae_dagster.errors import DatasetError, MethodError

# A category needs this many rows, on average; so many categories are always allowed, and never more than so many.
_ROWS_PER_CATEGORY = 50
_ALWAYS = 31
_EVER = 61
# Of what divides the rows, each level is selected in, or tested, on its own.
MOST_LEVELS = 30
# A column settles the outcome if its levels agree more often than chance would let them once in a thousand tables; of
# the rows beyond the first of each level so few may disagree, for labels err; and there must be so many such rows.
_CHANCE, _ERRING, _FEWEST_REPEATS = 1e-3, 0.02, 0.05
# A control of numbers that follows the outcome's order so closely, in so many rows, is the outcome.
_SAME_ORDER, _FEWEST_ROWS = 0.999, 20


def most_categories(rows: int) -> int:
    """Categories of a control that so many rows can hold constant: one for every 50, at least 31, at most 61."""
    return min(max(rows // _ROWS_PER_CATEGORY, _ALWAYS), _EVER)


def check_categories(dataset: Dataset, frame: pl.DataFrame) -> None:
    """Refuse controls with too many categories; a missing value is a category of its own.

    Args:
        dataset: as declared.
        frame: its rows, with a column `control:<name>` for each control, text where it is a category.

    Raises:
        DatasetError: with the control, its categories and what to do.
    """
    most = most_categories(frame.height)
    for name in dataset.spec.columns.controls:
        column = frame[f"control:{name}"]
        found = column.n_unique()
        if column.dtype != pl.String or found <= most:
            continue
        remedy = "Group its values in the data file (weeks into months, say), or leave it out of columns.controls."
        if name in dataset.spec.columns.clusters or found > frame.height / 5:
            remedy = (
                f"Leave it out of columns.controls; to compare texts that share a value of `{name}`, make pairs of "
                f"them: `hsae new FILE --pairs-within {shlex.quote(name)}`."
            )
        raise DatasetError(
            f"Dataset `{dataset.name}`: the control `{name}` has {found:,} categories; with {frame.height:,} rows at "
            f"most {most} can be held constant. {remedy}"
        )


def settles(level: pl.Series, label: pl.Series) -> bool:
    """Whether rows of one level have one outcome, up to a few errors and more often than by chance.

    Args:
        level: (n,) of a column, null where it has no value.
        label: (n,) the outcome, likewise.
    """
    from scipy.stats import binom

    rows = pl.DataFrame({"level": level, "label": label}).drop_nulls()
    counts = rows.group_by("level", "label").len()
    levels = counts.group_by("level").agg(pl.col("len").max().alias("agreeing"))
    repeats = rows.height - levels.height
    if repeats < max(_FEWEST_REPEATS * rows.height, 1):
        return False
    disagreeing = rows.height - int(levels["agreeing"].sum())
    alike = float(((rows["label"].value_counts()["count"] / rows.height) ** 2).sum())
    by_chance = binom.sf(repeats - disagreeing - 1, repeats, alike)
    return disagreeing <= _ERRING * repeats and bool(by_chance < _CHANCE)


def check_not_outcome(dataset: Dataset, frame: pl.DataFrame) -> None:
    """Refuse controls that are the outcome, or settle it: with one held constant nothing is left to explain.

    Args:
        dataset: as declared.
        frame: its rows, with `label` and a column `control:<name>` for each control.

    Raises:
        DatasetError: with the control.
    """
    for name in dataset.spec.columns.controls:
        both = pl.DataFrame({"x": frame[f"control:{name}"], "y": frame["label"]}).drop_nulls()
        if both["x"].dtype.is_numeric():
            both = both.filter(pl.col("x").cast(pl.Float64).is_finite())
            rho = both.select(pl.corr("x", "y", method="spearman")).item() if both.height >= _FEWEST_ROWS else None
            same = rho is not None and abs(rho) >= _SAME_ORDER
        else:
            same = False
        if same or settles(both["x"], both["y"]):
            raise DatasetError(
                f"Dataset `{dataset.name}`: the control `{name}` settles the outcome `{dataset.spec.columns.label}`: "
                "rows that share a value of it share the outcome, so with it held constant nothing is left to explain. "
                f"Leave `{name}` out of columns.controls; if it says where rows come from, name it in "
                "columns.cluster_by."
            )


def levels_of(observations: pl.DataFrame, name: str) -> np.ndarray:
    """The level of a control that each observation belongs to, (observations,) str; `(none)` where it is missing.

    Raises:
        MethodError: the control has more than `MOST_LEVELS` levels.
    """
    values = observations[f"control:{name}"].cast(pl.String).fill_null("(none)")
    if values.n_unique() > MOST_LEVELS:
        raise MethodError(
            f"The column `{name}` has {values.n_unique()} levels; strata and subgroups need a category with at most "
            f"{MOST_LEVELS}. Group its values in the data file, or take it out of selection.within and interactions."
        )
    return np.array(values.to_list(), dtype=str)


def check_levels(selection: Selection, observations: pl.DataFrame) -> None:
    """Refuse before the work what selection on training rows, or effects on the holdout, would refuse after it.

    Args:
        selection: as declared.
        observations: with their split and a column `control:<name>` for each control.

    Raises:
        MethodError: a stratum or subgroup has too many levels.
    """
    for split in ("train", "holdout"):
        rows = observations.filter(pl.col("split") == split)
        for name in (*selection.within, *selection.interactions):
            levels_of(rows, name)
