"""Which controls can be held constant by rows as few as these.

Belongs here: how many categories a control may have. Does not belong here: reading it (`rows`), its columns in a model
(`core.observations`).

Each category beyond the first is a column of the models that hold controls constant. With too many of them, rare ones
would have to share a column, and whatever differs between those would be taken for an effect of the texts.
"""

import polars as pl

from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.errors import DatasetError

# A category needs this many rows, on average; so many categories are always allowed, and never more than so many.
_ROWS_PER_CATEGORY = 50
_ALWAYS = 31
_EVER = 61


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
        if name == dataset.spec.columns.cluster_by or found > frame.height / 5:
            remedy = (
                f"Leave it out of columns.controls; to compare texts that share a value of `{name}`, make pairs of "
                "them and set task to `pairwise`."
            )
        raise DatasetError(
            f"Dataset `{dataset.name}`: the control `{name}` has {found:,} categories; with {frame.height:,} rows at "
            f"most {most} can be held constant. {remedy}"
        )
