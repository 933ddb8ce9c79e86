"""The units of a dataset's texts and their vectors, for every stage that reads texts by their parts."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits, text_rows
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.storage.outputs import StoredActivations, StoredCorpus, StoredEmbeddings
from hsae_dagster.storage.vectors import VectorTable


def open_vectors(stage: Stage) -> VectorTable:
    """The vectors of the dataset's current embeddings, for the stages downstream."""
    return vector_table(stage.project, stage.dataset, stage.upstream(StoredEmbeddings))


def vector_table(project: Project, dataset: Dataset, embeddings: StoredEmbeddings) -> VectorTable:
    """The table that holds the vectors of which some `embeddings` of the dataset speak."""
    return VectorTable(project.results, dataset.origin, embeddings.family)


# Vectors held at once where they are only passed through: 100 MB of 384 float32.
_BLOCK = 65_536


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
    if some.are_texts:
        return vectors.read(some.unit_ids)
    # A block of texts at a time: their units' vectors together are several times what is returned.
    each = max(1, _BLOCK * len(text_ids) // max(len(some.rows), 1))
    blocks = (some.of_texts(text_ids.slice(start, each)) for start in range(0, max(len(text_ids), 1), each))
    return np.concatenate([block.mean(vectors.read(block.unit_ids)) for block in blocks])


def blocks_of_vectors(vectors: VectorTable, unit_ids: pl.Series) -> Iterator[np.ndarray]:
    """(block, d) vectors of units in their order, so that not all are held at once."""
    for start in range(0, max(len(unit_ids), 1), _BLOCK):
        yield vectors.read(unit_ids.slice(start, _BLOCK))


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
    def of(activations: StoredActivations, corpus: StoredCorpus, text_ids: pl.Series) -> "StrongestUnits":
        """For some texts."""
        units = activations.units.join(corpus.units, "unit_id", "left", maintain_order="left")
        places = text_rows(activations.text_ids, text_ids)
        return StrongestUnits(activations.codes, activations.strongest, places, units["unit"])

    def strongest(self, row: int, neuron: int | None) -> str:
        """The unit of a judged text that fires a neuron most; empty where none does."""
        if neuron is None:
            return ""
        start, end = self.codes.indptr[self.places[row]], self.codes.indptr[self.places[row] + 1]
        found = np.flatnonzero(self.codes.indices[start:end] == neuron)
        return str(self.units[int(self.rows[start + found[0]])]) if len(found) else ""
