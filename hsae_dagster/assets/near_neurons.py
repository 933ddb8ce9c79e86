"""What selection needs to know of the autoencoders themselves: directions, families of near-copies, other seeds.

Belongs here: the part of `selected_neurons` that reads weights, and reading the families again for the cards. Does not
belong here: the methods (`core.distinct`, `core.seed_matches`).
"""

from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.distinct import Limits, Member, select_distinct
from hsae_dagster.core.hypothesis import NearCopy
from hsae_dagster.core.observations import text_rows
from hsae_dagster.core.seed_matches import Match, match_seeds
from hsae_dagster.core.selection import Selection, select_neurons
from hsae_dagster.errors import MethodError
from hsae_dagster.storage.checkpoints import load_sae
from hsae_dagster.storage.frames import read_arrays, read_frame
from hsae_dagster.storage.objects import StoredObject


@dataclass(frozen=True)
class Chosen:
    """A selection with the near-copies left out for it, and how well other seeds match each column."""

    selection: Selection
    members: tuple[Member, ...]
    notes: tuple[str, ...]
    seeds: "SeedTable | None"


@dataclass(frozen=True)
class SeedTable:
    """(columns,) least cosine and least correlation with the partner over the other seeds."""

    cosine: np.ndarray
    correlation: np.ndarray


def choose_neurons(
    stage: Stage,
    checkpoints: StoredObject,
    observed: sp.csr_matrix,
    label: np.ndarray,
    on_texts: sp.csr_matrix,
    text_ids: pl.Series,
) -> Chosen:
    """Select as the dataset asks: plainly, distinct neurons only, or only neurons that other seeds have found too.

    Args:
        stage: of the selection.
        checkpoints: the stored autoencoders.
        observed: (n, m) activations of training observations.
        label: (n,).
        on_texts: (t, m) activations of training texts.
        text_ids: (t,) their keys, ascending.

    Raises:
        MethodError: too few neurons are left to select from.
    """
    spec = stage.dataset.spec.selection
    how = {
        "method": spec.method,
        "task": "regression" if stage.dataset.spec.task == "regression" else "classification",
    }
    seeds = _seed_table(stage, checkpoints, on_texts, text_ids)
    without = [] if seeds is None or spec.min_match is None else np.flatnonzero(seeds.cosine < spec.min_match).tolist()
    notes: tuple[str, ...] = ()
    if without:
        notes = (f"{len(without)} neurons have no match of cosine {spec.min_match:g} in every other seed.",)
        left = observed.shape[1] - len(without)
        if left < spec.n:
            raise MethodError(
                f"Dataset `{stage.dataset.name}`: only {left} neurons have a match of cosine {spec.min_match:g} in "
                f"every other seed, fewer than selection.n = {spec.n}. Lower selection.min_match."
            )
    if spec.distinct is None:
        return Chosen(select_neurons(observed, label, spec.n, without=without, **how), (), notes, seeds)
    found = select_distinct(
        observed,
        label,
        spec.n,
        activations=on_texts,
        directions=_directions(checkpoints),
        limits=Limits(**spec.distinct.model_dump()),
        without=without,
        **how,
    )
    return Chosen(found.selection, found.members, (*notes, *found.notes), seeds)


def family_frame(members: tuple[Member, ...]) -> pl.DataFrame:
    """One row per near-copy: column of the kept neuron, its own, correlation, cosine."""
    schema = {"kept": pl.Int64, "left_out": pl.Int64, "correlation": pl.Float64, "cosine": pl.Float64}
    return pl.DataFrame([asdict(member) for member in members], schema=schema)


def read_families(selected: StoredObject, activations: StoredObject) -> dict[int, tuple[NearCopy, ...]]:
    """The near-copies that a selected neuron stands for, by its column, the most alike first."""
    places = read_frame(activations.file("columns.parquet")).select("column", "sae_id", "sae_column")
    members = read_frame(selected.file("families.parquet")).join(
        places, left_on="left_out", right_on="column", how="left", maintain_order="left"
    )
    alike = pl.max_horizontal(pl.col("correlation").abs(), "cosine")
    found: dict[int, tuple[NearCopy, ...]] = {}
    for row in members.sort(alike, descending=True, maintain_order=True).iter_rows(named=True):
        copy = NearCopy(row["sae_id"], row["sae_column"], row["correlation"], row["cosine"])
        found[row["kept"]] = (*found.get(row["kept"], ()), copy)
    return found


def _directions(checkpoints: StoredObject) -> np.ndarray:
    """(columns, d) decoder directions, in the order of the codes' columns."""
    records = checkpoints.json("saes.json")
    return np.concatenate([read_arrays(checkpoints.file(r["file"]))["decoder"] for r in records]).astype(np.float64)


def _seed_table(
    stage: Stage, checkpoints: StoredObject, on_texts: sp.csr_matrix, text_ids: pl.Series
) -> SeedTable | None:
    if not checkpoints.file("seeds.json").is_file():
        return None
    from hsae_dagster.core.codes import encode

    twins = checkpoints.json("seeds.json")
    vectors = open_vectors(stage)[1].read(text_ids)
    cosine, correlation = np.ones(on_texts.shape[1]), np.ones(on_texts.shape[1])
    start = 0
    for record in checkpoints.json("saes.json"):
        columns = slice(start, start + record["config"]["m"])
        start = columns.stop
        own = read_arrays(checkpoints.file(record["file"]))["decoder"].astype(np.float64)
        for twin in twins[record["sae_id"]]:
            other = load_sae(checkpoints.folder, twin)
            match: Match = match_seeds(
                own, other.decoder.detach().numpy().astype(np.float64), on_texts[:, columns], encode(other, vectors)
            )
            cosine[columns] = np.minimum(cosine[columns], match.cosine)
            correlation[columns] = np.minimum(correlation[columns], match.correlation)
    return SeedTable(cosine, correlation)


def training_texts(codes: sp.csr_matrix, ids: pl.Series, texts: pl.DataFrame) -> tuple[sp.csr_matrix, pl.Series]:
    """Codes of the training texts, and their keys."""
    wanted = texts.filter(pl.col("split") == "train")["text_id"]
    return codes[text_rows(ids, wanted)], wanted
