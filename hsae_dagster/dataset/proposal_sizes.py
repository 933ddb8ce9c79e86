"""Sizes that follow from how many texts there are.

Belongs here: number of neurons to select and splits for data that the defaults (about 10,000 texts) do not fit. Does
not belong here: which columns are used (`proposal_roles`); the size of the autoencoder, which is measured by default.
"""

from typing import Any

import polars as pl

# (fewer distinct texts than, neurons to select)
SMALL = ((1_500, 10), (4_000, 12))

SizeField = tuple[str, Any, str]


def size_fields(frame: pl.DataFrame, texts: list[str], cluster: str | None) -> list[SizeField]:
    """(path, value, reason) of the fields whose default does not fit."""
    distinct = pl.concat([frame[name].cast(pl.String).drop_nulls().rename("text") for name in texts]).unique()
    clusters = _as_many_equal(frame[cluster]) if cluster else distinct.len()
    return [*_splits(clusters, cluster), *_selection(distinct.len())]


def _as_many_equal(clusters: pl.Series) -> int:
    """How many clusters of one size share out the rows as these do: few, where a few hold most of them."""
    sizes = clusters.drop_nulls().value_counts()["count"].cast(pl.Float64)
    return round(float(sizes.sum()) ** 2 / float((sizes**2).sum())) if sizes.len() else 0


def _selection(n: int) -> list[SizeField]:
    for limit, select in SMALL:
        if n < limit:
            return [("selection.n", select, f"{n:,} distinct texts carry fewer hypotheses than 10,000 (default 20).")]
    return []


def _splits(clusters: int, cluster: str | None) -> list[SizeField]:
    if clusters >= 500:
        return []
    unit = f"clusters (`{cluster}`)" if cluster else "texts"
    why = f"A tenth of {clusters:,} {unit} would be too few to choose and judge concepts on."
    return [("splits.validation", 0.15, why)]
