"""How close the units of texts are to quoted sentences, by the dataset's embedder.

Belongs here: cutting texts as the corpus does, and finding or making the vectors. Does not belong here: what closeness
a claim asks for (`core.concepts.claims`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from hsae_dagster.assets.embeddings import open_vectors, vector_table
from hsae_dagster.assets.spending import account_of, open_account
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import unit_kind
from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.units import Kind, split_text
from hsae_dagster.keys import text_id
from hsae_dagster.resources import Project
from hsae_dagster.storage.objects import StoredObject
from hsae_dagster.storage.vectors import VectorTable

# Vectors of single terms and of texts that belong to no dataset, shared by all datasets of an embedding set.
_SHARED = "_terms"
_BLOCK = 20_000


@dataclass(frozen=True)
class UnitCloseness:
    """Cosines of the units of texts with sentences.

    Attributes:
        vectors: the dataset's; a unit that has none there is embedded.
        embed: (texts) -> (n, d) float32, asked only for what has no vector.
        kind: what units are.
    """

    vectors: VectorTable
    embed: Callable[[Sequence[str]], np.ndarray]
    kind: Kind

    @staticmethod
    def of(stage: Stage, corpus: StoredObject) -> "UnitCloseness":
        """By the dataset's current embeddings."""
        return UnitCloseness(open_vectors(stage)[1], embedder_of(stage), unit_kind(corpus))  # type: ignore[arg-type]

    @staticmethod
    def of_results(
        project: Project, dataset: Dataset, embeddings: StoredObject, corpus: StoredObject
    ) -> "UnitCloseness":
        """By stored embeddings, outside a run: what has no vector is embedded and not kept."""
        from hsae_dagster.providers.registry import make_embedder

        def embed(texts: Sequence[str]) -> np.ndarray:
            account = open_account(project, dataset, embeddings.asset, "try")
            return make_embedder(dataset.spec.embedding, account).embed(texts)

        vectors = vector_table(project, dataset, embeddings)
        return UnitCloseness(vectors, embed, unit_kind(corpus))  # type: ignore[arg-type]

    def __call__(self, texts: Sequence[str], sentences: Sequence[str]) -> tuple[np.ndarray, list[list[str]]]:
        """(texts, sentences) float32 cosine of the closest unit of each text, and that unit."""
        quoted = self._of(list(sentences)).T
        closest = np.empty((len(texts), len(sentences)), dtype=np.float32)
        best: list[list[str]] = []
        for start in range(0, len(texts), _BLOCK):
            units = [self._units(text) for text in texts[start : start + _BLOCK]]
            starts = np.concatenate([[0], np.cumsum([len(own) for own in units])])
            likeness = self._of(list(chain.from_iterable(units))) @ quoted
            for i, own in enumerate(units):
                mine = likeness[starts[i] : starts[i + 1]]
                closest[start + i] = mine.max(axis=0)
                best.append([own[j] for j in mine.argmax(axis=0)])
        return closest, best

    def _units(self, text: str) -> list[str]:
        return [unit.text for unit in split_text(text, self.kind)] or [text]

    def _of(self, units: list[str]) -> np.ndarray:
        """(n, d) vectors of units, each distinct one read or made once."""
        keys = [text_id(unit) for unit in units]
        distinct = dict(zip(keys, units, strict=True))
        ids = pl.Series(sorted(distinct), dtype=pl.String)
        lacking = self.vectors.lacking(ids)
        dimensions = self.vectors.embedding_set.dimensions
        found = np.empty((len(ids), dimensions), dtype=np.float32)
        found[~lacking] = self.vectors.read(ids.filter(pl.Series(~lacking))) if not lacking.all() else 0
        if lacking.any():
            found[lacking] = self.embed([distinct[key] for key in ids.filter(pl.Series(lacking))])
        return found[ids.search_sorted(pl.Series(keys, dtype=pl.String)).to_numpy()]


def embedder_of(stage: Stage) -> Callable[[Sequence[str]], np.ndarray]:
    """The dataset's embedder, made when it is first asked."""

    def embed(texts: Sequence[str]) -> np.ndarray:
        from hsae_dagster.providers.registry import make_embedder

        return make_embedder(stage.dataset.spec.embedding, account_of(stage)).embed(texts)

    return embed


def term_vectors(
    stage: Stage, family: EmbeddingSet, terms: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray]
) -> np.ndarray:
    """(n, d) float32 vectors of single terms, kept for every dataset that has the same ones."""
    table = VectorTable(stage.project.results, _SHARED, family)
    by_key = {text_id(term): term for term in terms}
    ids = pl.Series(sorted(by_key), dtype=pl.String)
    with table.being_filled(lambda: stage.report("another run is embedding terms; waiting for it")):
        missing = ids.filter(pl.Series(table.lacking(ids))).to_list()
        if missing:
            stage.report(f"{len(missing):,} terms are embedded")
            table.append(missing, embed([by_key[key] for key in missing]))
    found = table.read(ids)
    return found[ids.search_sorted(pl.Series([text_id(term) for term in terms], dtype=pl.String)).to_numpy()]
