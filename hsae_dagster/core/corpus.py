"""Rows to a corpus: keys, duplicates, and splits by cluster.

Belongs here: who lands in which split and why a row is left out. Does not belong here: reading files or checking labels
(`dataset.rows`), or anything that looks at what a text says.

Roles of the splits (each cluster has exactly one):
    train       SAE weights, neuron selection, and what the interpreter sees
    validation  early stopping, choice among candidate concepts
    fidelity    reported fidelity of the chosen concepts; nothing is chosen on it
    holdout     the tests, once
"""

from dataclasses import dataclass

import polars as pl

from hsae_dagster.errors import MethodError
from hsae_dagster.keys import hash_json, normalise_text, text_id, unit_interval

# In order of protection: a text wanted by two splits belongs to the later one.
SPLITS = ("train", "validation", "fidelity", "holdout")

TEXTS_SCHEMA = {
    "text_id": pl.String,
    "text": pl.String,
    "split": pl.String,
    "cluster_id": pl.String,
    "n_words": pl.Int32,
}


@dataclass(frozen=True)
class SplitShares:
    """Shares of clusters for each split but train, and the salt of the hash."""

    validation: float
    fidelity: float
    holdout: float
    salt: str


@dataclass(frozen=True)
class Corpus:
    """A corpus.

    Attributes:
        texts: one row per distinct text, columns `TEXTS_SCHEMA`, sorted by text_id.
        observations: one row per labelled text or pair: obs_id, text_id (or text_id_a, text_id_b), label f64,
            cluster_id, split, and `control:<name>` columns; sorted by obs_id.
        dropped: rows left out, by reason.
    """

    texts: pl.DataFrame
    observations: pl.DataFrame
    dropped: dict[str, int]


def assign_split(cluster: str, shares: SplitShares) -> str:
    """The split of a cluster: holdout first on [0, 1), then fidelity, validation, train."""
    place = unit_interval(cluster, shares.salt)
    for split, share in (
        ("holdout", shares.holdout),
        ("fidelity", shares.fidelity),
        ("validation", shares.validation),
    ):
        if place < share:
            return split
        place -= share
    return "train"


def build_corpus(rows: pl.DataFrame, shares: SplitShares, dropped: dict[str, int] | None = None) -> Corpus:
    """Key, deduplicate and split observations (columns as in `dataset.rows`).

    A text that occurs in clusters of two splits stays with the more protected one (holdout > fidelity > validation
    > train) and its other observations are left out, so no text is on both sides and appending rows never moves an
    old text towards training.

    Raises:
        MethodError: fewer than 10 observations, or none, in train or holdout.
    """
    pair = "text_a" in rows.columns
    sides = ("text_a", "text_b") if pair else ("text",)
    ids = tuple("text_id" + side[4:] for side in sides)
    keyed = rows.with_columns(
        *[_map(rows, side, text_id).alias(key) for side, key in zip(sides, ids, strict=True)],
    )
    left_out = dict(dropped or {})
    if pair:
        same = pl.col("text_id_a") == pl.col("text_id_b")
        left_out["pair of equal texts"] = keyed.filter(same).height
        keyed = keyed.filter(~same)
    fallback = pl.concat_str([pl.min_horizontal(*ids), pl.max_horizontal(*ids)]) if pair else pl.col(ids[0])
    keyed = keyed.with_columns(pl.coalesce("cluster", fallback).alias("cluster_id"))
    content = [*ids, "label", "cluster_id", *[c for c in rows.columns if c.startswith("control:")]]
    distinct = keyed.unique(content, keep="first", maintain_order=True)
    left_out["exact duplicate"] = keyed.height - distinct.height
    placed = _place(distinct, ids, shares)
    kept = placed.filter(pl.col("split") == pl.col("own_split"))
    left_out["text also in a more protected split"] = placed.height - kept.height
    observations = _observations(kept, content)
    _check_size(observations)
    return Corpus(
        texts=_texts(kept, sides, ids),
        observations=observations,
        dropped={reason: n for reason, n in left_out.items() if n},
    )


def _map(frame: pl.DataFrame, column: str, function: object) -> pl.Series:
    """Apply a key function once per distinct value."""
    return frame[column].map_elements(function, return_dtype=pl.String, skip_nulls=False)  # type: ignore[arg-type]


def _place(frame: pl.DataFrame, ids: tuple[str, ...], shares: SplitShares) -> pl.DataFrame:
    """Add `own_split` (of the cluster) and `split` (the most protected that any of its texts is wanted by)."""
    clusters = frame.select("cluster_id").unique()
    clusters = clusters.with_columns(
        _map(clusters, "cluster_id", lambda cluster: assign_split(cluster, shares)).alias("hashed")
    )
    declared = (
        pl.when(pl.col("declared_split") == "validation")
        .then(  # a declared validation file serves both choosing and reporting, by cluster
            pl.when(pl.col("half")).then(pl.lit("validation")).otherwise(pl.lit("fidelity"))
        )
        .otherwise(pl.col("declared_split"))
    )
    halves = clusters["cluster_id"].map_elements(
        lambda cluster: unit_interval(cluster, shares.salt + ":half") < 0.5, return_dtype=pl.Boolean
    )
    frame = frame.join(clusters.with_columns(halves.alias("half")), on="cluster_id", how="left", maintain_order="left")
    frame = frame.with_columns(pl.coalesce(declared, pl.col("hashed")).alias("own_split"))
    rank = pl.col("own_split").replace_strict({s: i for i, s in enumerate(SPLITS)}, return_dtype=pl.Int8)
    frame = frame.with_columns(rank.alias("rank"))
    wanted = pl.concat([frame.select(pl.col(key).alias("text_id"), "rank") for key in ids])
    wanted = wanted.group_by("text_id").agg(pl.col("rank").max())
    for key in ids:
        frame = frame.join(
            wanted.rename({"rank": f"rank_{key}"}),
            left_on=key,
            right_on="text_id",
            how="left",
            maintain_order="left",
        )
    most = pl.max_horizontal(*[f"rank_{key}" for key in ids])
    return frame.with_columns(most.replace_strict(dict(enumerate(SPLITS)), return_dtype=pl.String).alias("split"))


def _observations(kept: pl.DataFrame, content: list[str]) -> pl.DataFrame:
    keys = [hash_json(list(row)) for row in kept.select(content).iter_rows()]
    frame = kept.with_columns(pl.Series("obs_id", keys, dtype=pl.String), pl.col("own_split").alias("split"))
    return frame.select("obs_id", *content, "split").sort("obs_id")


def _texts(kept: pl.DataFrame, sides: tuple[str, ...], ids: tuple[str, ...]) -> pl.DataFrame:
    long = pl.concat(
        [
            kept.select(pl.col(key).alias("text_id"), pl.col(side).alias("text"), "split", "cluster_id")
            for side, key in zip(sides, ids, strict=True)
        ]
    )
    # Which of several equal-keyed spellings is shown must not depend on the order of the rows.
    one = long.sort("text_id", "text", "cluster_id").unique("text_id", keep="first", maintain_order=True)
    words = [len(normalise_text(text).split(" ")) for text in one["text"]]
    return one.with_columns(pl.col("text").str.strip_chars(), pl.Series("n_words", words, dtype=pl.Int32)).select(
        list(TEXTS_SCHEMA)
    )


def _check_size(observations: pl.DataFrame) -> None:
    counts = dict(observations.group_by("split").len().iter_rows())
    for split in ("train", "holdout"):
        if counts.get(split, 0) < 10:
            clusters = observations["cluster_id"].n_unique()
            raise MethodError(
                f"Only {counts.get(split, 0)} observations landed in the {split} split ({observations.height} "
                f"observations of {clusters} clusters in all). Bring more data or more clusters, raise the split's "
                "share in `splits`, or declare one file per split."
            )
