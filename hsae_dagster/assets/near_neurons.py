"""What selection needs to know of the autoencoders themselves: directions, families of near-copies, other seeds.

Belongs here: the part of `selected_neurons` that reads weights, and reading the families again for the cards. Does not
belong here: the methods (`core.distinct`, `core.seed_matches`).
"""

from dataclasses import asdict, astuple, dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_text_units
from hsae_dagster.core.across_clusters import LEAST_CLUSTERS, Across, across_clusters
from hsae_dagster.core.distinct import DistinctSelection, Limits, Member, select_distinct
from hsae_dagster.core.hypothesis import NearCopy
from hsae_dagster.core.observations import text_rows
from hsae_dagster.core.pooling import pool_codes
from hsae_dagster.core.seed_matches import FOUND, found_again
from hsae_dagster.core.selection import Selection, select_neurons
from hsae_dagster.errors import MethodError
from hsae_dagster.storage.checkpoints import load_sae
from hsae_dagster.storage.frames import read_arrays, read_frame
from hsae_dagster.storage.objects import StoredObject


@dataclass(frozen=True)
class Training:
    """What neurons are selected on.

    Attributes:
        observed: (n, m) activations of training observations.
        label: (n,).
        clusters: (n,) keys.
        on_texts: (t, m) activations of training texts.
        text_ids: (t,) their keys, ascending.
    """

    observed: sp.csr_matrix
    label: np.ndarray
    clusters: np.ndarray
    on_texts: sp.csr_matrix
    text_ids: pl.Series


@dataclass(frozen=True)
class Chosen:
    """A selection with the near-copies left out for it, and how well other seeds find each column.

    Attributes:
        selection: of the neurons; may be empty.
        members: near-copies.
        notes: in words.
        seeds: of every column; None with one seed.
        left_out: columns that might not be selected.
    """

    selection: Selection
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    seeds: "SeedTable | None"
    left_out: tuple[int, ...]


@dataclass(frozen=True)
class SeedTable:
    """How other seeds find each column.

    Attributes:
        least: (columns,) of the best φ in each other seed the least; NaN for an autoencoder without further seeds.
        mean: (columns,) of those the mean.
        found_in: (columns,) int64 other seeds in which it is found (`core.seed_matches.FOUND`).
        others: (columns,) int64 other seeds there are.
    """

    least: np.ndarray
    mean: np.ndarray
    found_in: np.ndarray
    others: np.ndarray

    def columns(self, chosen: list[int]) -> dict[str, np.ndarray]:
        """As columns of neurons.parquet."""
        found = (self.least, self.mean, self.found_in, self.others)
        names = ("seed_phi", "seed_phi_mean", "found_in", "other_seeds")
        return {name: values[chosen] for name, values in zip(names, found, strict=True)}

    @staticmethod
    def of(best: list[np.ndarray], columns: int) -> "SeedTable":
        """From the best φ of each column, (columns,), in each other seed; there may be none."""
        others = np.full(columns, len(best), dtype=np.int64)
        if not best:
            nan = np.full(columns, np.nan)
            return SeedTable(nan, nan, np.zeros(columns, dtype=np.int64), others)
        phi = np.stack(best)
        return SeedTable(phi.min(axis=0), phi.mean(axis=0), (phi >= FOUND).sum(axis=0).astype(np.int64), others)


def choose_neurons(stage: Stage, corpus: StoredObject, checkpoints: StoredObject, training: Training) -> Chosen:
    """Select as the dataset asks: plainly, distinct neurons only, or only those that other seeds or clusters bear out.

    Raises:
        MethodError: too few neurons are left to select from.
    """
    spec = stage.dataset.spec
    seeds = _seed_table(stage, corpus, checkpoints, training)
    unmatched = _unmatched(stage, seeds)
    notes, unmatched_n = [], len(unmatched)
    if unmatched_n:
        notes.append(f"{unmatched_n} neurons have no match of φ {spec.selection.min_match:g} in every other seed.")
    across = _across(stage, training)
    left_out = unmatched
    if across is not None:
        notes += filter(None, [across.note()])
        left_out = sorted({*unmatched, *np.flatnonzero(~across.holds).tolist()})
    found = _select(stage, checkpoints, training, left_out, fewer=across is not None)
    return Chosen(found.selection, found.members, (*notes, *found.notes), seeds, tuple(left_out))


def _select(
    stage: Stage, checkpoints: StoredObject, training: Training, left_out: list[int], *, fewer: bool
) -> DistinctSelection:
    spec = stage.dataset.spec.selection
    task = "regression" if stage.dataset.spec.task == "regression" else "classification"
    how: dict[str, Any] = {"method": spec.method, "task": task, "without": left_out, "fewer": fewer}
    if spec.distinct is None:
        plain = select_neurons(training.observed, training.label, spec.n, **how)
        return DistinctSelection(plain, (), ())
    return select_distinct(
        training.observed,
        training.label,
        spec.n,
        activations=training.on_texts,
        directions=_directions(checkpoints),
        limits=Limits(**spec.distinct.model_dump()),
        **how,
    )


def _unmatched(stage: Stage, seeds: SeedTable | None) -> list[int]:
    """Columns that some other seed has not found as `min_match` asks."""
    spec = stage.dataset.spec.selection
    if seeds is None or spec.min_match is None:
        return []
    without: list[int] = np.flatnonzero(seeds.least < spec.min_match).tolist()
    left = len(seeds.least) - len(without)
    if left < spec.n:
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: only {left} neurons have a match of φ {spec.min_match:g} in every other "
            f"seed, fewer than selection.n = {spec.n}. Lower selection.min_match."
        )
    return without


def _across(stage: Stage, training: Training) -> Across | None:
    """Which neurons hold across clusters, where that is asked for; None where it is not."""
    wanted = stage.dataset.spec.selection.across_clusters
    if wanted is None:
        declared = stage.dataset.spec.columns.cluster_by is not None
        # Who asks for effects that change with a covariate must not lose those that turn between clusters.
        by_covariate = bool(stage.dataset.spec.selection.within or stage.dataset.spec.selection.interactions)
        wanted = declared and not by_covariate and len(np.unique(training.clusters)) >= LEAST_CLUSTERS
    if not wanted:
        return None
    return across_clusters(training.observed, training.label, training.clusters, np.random.default_rng(0))


def family_frame(members: tuple[Member, ...]) -> pl.DataFrame:
    """One row per near-copy: column of the kept neuron, its own, correlation, cosine."""
    schema = {"kept": pl.Int64, "left_out": pl.Int64, "correlation": pl.Float64, "cosine": pl.Float64}
    return pl.DataFrame([asdict(member) for member in members], schema=schema)


def read_families(selected: StoredObject, activations: StoredObject) -> dict[tuple[str, int], tuple[NearCopy, ...]]:
    """Near-copies that a selected neuron stands for, by the half that selected it and its column, most alike first."""
    places = read_frame(activations.file("columns.parquet")).select("column", "sae_id", "sae_column")
    members = read_frame(selected.file("families.parquet")).join(
        places, left_on="left_out", right_on="column", how="left", maintain_order="left"
    )
    alike = pl.max_horizontal(pl.col("correlation").abs(), "cosine")
    found: dict[tuple[str, int], tuple[NearCopy, ...]] = {}
    for row in members.sort(alike, descending=True, maintain_order=True).iter_rows(named=True):
        copy = NearCopy(row["sae_id"], row["sae_column"], row["correlation"], row["cosine"])
        key = (row["half"], row["kept"])
        found[key] = (*found.get(key, ()), copy)
    return found


def _directions(checkpoints: StoredObject) -> np.ndarray:
    """(columns, d) decoder directions, in the order of the codes' columns."""
    records = checkpoints.json("saes.json")
    return np.concatenate([read_arrays(checkpoints.file(r["file"]))["decoder"] for r in records]).astype(np.float64)


def _seed_table(stage: Stage, corpus: StoredObject, checkpoints: StoredObject, training: Training) -> SeedTable | None:
    if not checkpoints.file("seeds.json").is_file():
        return None
    from hsae_dagster.core.codes import encode

    twins, pool = checkpoints.json("seeds.json"), stage.dataset.spec.pool
    units = read_text_units(corpus).of_texts(training.text_ids)
    vectors = open_vectors(stage)[1].read(units.unit_ids)
    parts, start = [], 0
    for record in checkpoints.json("saes.json"):
        own = training.on_texts[:, start : start + record["config"]["m"]]
        start += own.shape[1]
        further = [load_sae(checkpoints.folder, twin) for twin in twins[record["sae_id"]]]
        others = [pool_codes(encode(sae, vectors), units, pool).codes for sae in further]
        parts.append(SeedTable.of([found_again(own, other) for other in others], own.shape[1]))
    return SeedTable(*(np.concatenate(each) for each in zip(*map(astuple, parts), strict=True)))


def training_texts(codes: sp.csr_matrix, ids: pl.Series, texts: pl.DataFrame) -> tuple[sp.csr_matrix, pl.Series]:
    """Codes of the training texts, and their keys."""
    wanted = texts.filter(pl.col("split") == "train")["text_id"]
    return codes[text_rows(ids, wanted)], wanted
