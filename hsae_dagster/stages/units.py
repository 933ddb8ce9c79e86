"""The units of a dataset's texts and their vectors, for every stage that reads texts by their parts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits, text_rows
from hsae_dagster.core.selection.stability import Side, sides, silenced
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.storage.artifacts import read_arrays, read_codes, read_frame
from hsae_dagster.storage.objects import StoredObject
from hsae_dagster.storage.vectors import VectorTable

EMBEDDINGS = "embeddings"


def unit_texts(corpus: StoredObject) -> pl.DataFrame:
    """What is embedded: the distinct units of a corpus, as text_id and text."""
    return read_frame(corpus.file("units.parquet")).select(text_id="unit_id", text="unit")


def open_vectors(stage: Stage) -> tuple[StoredObject, VectorTable]:
    """The dataset's current embeddings and their table, for the stages downstream."""
    stored = stage.upstream(EMBEDDINGS)
    return stored, vector_table(stage.project, stage.dataset, stored)


def vector_table(project: Project, dataset: Dataset, stored: StoredObject) -> VectorTable:
    """The table that holds the vectors which `stored`, an `embeddings` of the dataset, speaks of."""
    record = stored.json("embeddings.json")
    family = EmbeddingSet(record["model"], record["dimensions"], record["set_id"])
    return VectorTable(project.results, dataset.origin, family)


# Vectors held at once where they are only passed through: 100 MB of 384 float32.
_BLOCK = 65_536


def read_text_units(corpus: StoredObject) -> TextUnits:
    """Which units each text of a corpus has."""
    return TextUnits.of(read_frame(corpus.file("units.parquet")), read_frame(corpus.file("text_units.parquet")))


def read_sides(corpus: StoredObject) -> list[Side]:
    """A corpus as each discovery sees it: once, or once from each half."""
    texts, observations = (read_frame(corpus.file(f"{name}.parquet")) for name in ("texts", "observations"))
    return sides(texts, observations)


def unit_kind(corpus: StoredObject) -> str:
    """`text`, `sentence` or `paragraph`: what `units: auto` was resolved to."""
    return str(corpus.json("summary.json")["units"]["kind"])


def text_vectors(vectors: VectorTable, units: TextUnits, text_ids: pl.Series) -> np.ndarray:
    """The vector of each text: its own, or the mean of its units' vectors, repetitions included.

    Args:
        vectors: of the units.
        units: which texts have which.
        text_ids: (n,) keys, ascending.

    Returns:
        (n, d) float32.
    """
    some = units.of_texts(text_ids)
    return vectors.read(some.unit_ids) if some.are_texts else some.mean(vectors.read(some.unit_ids))


def blocks_of_vectors(vectors: VectorTable, unit_ids: pl.Series) -> Iterator[np.ndarray]:
    """(block, d) vectors of units in their order, so that not all are held at once."""
    for start in range(0, max(len(unit_ids), 1), _BLOCK):
        yield vectors.read(unit_ids.slice(start, _BLOCK))


def read_text_codes(activations: StoredObject, half: str = "") -> tuple[sp.csr_matrix, pl.Series]:
    """Codes (texts, neurons) and the texts' keys, ascending.

    Args:
        activations: the result of that stage.
        half: neurons of an autoencoder whose size the outcomes of the other half chose are silent; empty: none is.
    """
    codes, ids = (
        read_codes(activations.file("codes.safetensors")),
        read_frame(activations.file("texts.parquet"))["text_id"],
    )
    if not half:
        return codes, ids
    foreign = read_frame(activations.file("columns.parquet")).filter(~pl.col("half").is_in(["", half]))
    return silenced(codes, foreign["column"].to_list()), ids


def read_unit_codes(activations: StoredObject) -> tuple[sp.csr_matrix, pl.Series]:
    """Codes (units, neurons) and the units' keys, ascending."""
    return (
        read_codes(activations.file("unit_codes.safetensors")),
        read_frame(activations.file("units.parquet"))["unit_id"],
    )


def read_strongest(activations: StoredObject) -> np.ndarray:
    """(entries,) int32, parallel to the data of the texts' codes: row of the unit with the largest activation."""
    return read_arrays(activations.file("strongest.safetensors"))["rows"]


@dataclass(frozen=True)
class StrongestUnits:
    """Which unit of each judged text fires a neuron most.

    Attributes:
        codes: (texts, m) CSR of the texts, and parallel to its data the row of the strongest unit.
        rows: of the strongest units.
        places: (judged,) rows of `codes`.
        units: what each unit reads like, rows as in the activations.
    """

    codes: sp.csr_matrix
    rows: np.ndarray
    places: np.ndarray
    units: pl.Series

    @staticmethod
    def of(upstream: Mapping[str, StoredObject], text_ids: pl.Series) -> "StrongestUnits":
        """Of the activations and the corpus, for some texts."""
        activations = upstream["activations"]
        ids = read_frame(activations.file("texts.parquet"))["text_id"]
        keys = read_frame(activations.file("units.parquet"))
        units = keys.join(
            read_frame(upstream["corpus"].file("units.parquet")), "unit_id", "left", maintain_order="left"
        )
        codes = read_codes(activations.file("codes.safetensors"))
        return StrongestUnits(codes, read_strongest(activations), text_rows(ids, text_ids), units["unit"])

    def strongest(self, row: int, neuron: int | None) -> str:
        """The unit of a judged text that fires a neuron most; empty where none does."""
        if neuron is None:
            return ""
        start, end = self.codes.indptr[self.places[row]], self.codes.indptr[self.places[row] + 1]
        found = np.flatnonzero(self.codes.indices[start:end] == neuron)
        return str(self.units[int(self.rows[start + found[0]])]) if len(found) else ""
