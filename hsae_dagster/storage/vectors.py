"""Embedding vectors in LanceDB: one table per (dataset, embedding set), key first.

Belongs here: opening, appending and reading vectors by key. Does not belong here: computing a vector (`providers`) or
which texts a dataset has (`core.corpus`): the split of a text lives in the corpus alone, so that it has one truth.

Row order in Lance is not promised, so reading always joins on the key. Large tables are read from a contiguous copy
(`storage.vector_copy`), which is made when they are first read and again after they change. A table's version number
says nothing about its content (compaction changes it); it is reported, never used as a data version.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

    from hsae_dagster.storage.vector_copy import VectorCopy

_BATCH_ROWS = 8192
# Tables of so many bytes of vectors are read from a contiguous copy; smaller ones take no time anyway.
_WORTH_A_COPY = 2**26


class VectorTable:
    """The vectors of one dataset in one embedding set. Created at the first append."""

    def __init__(self, root: Path, dataset: str, embedding_set: EmbeddingSet) -> None:
        self.uri = root / "lancedb"
        self.dataset = dataset
        self.embedding_set = embedding_set
        self.name = f"{dataset}__{embedding_set.set_id[:16]}"

    def keys(self) -> set[str]:
        """Keys that have a vector."""
        table = self._open()
        return set() if table is None else _keys(table)

    def append(self, ids: list[str], vectors: np.ndarray) -> None:
        """Add rows in one commit.

        Args:
            ids: n keys, distinct and not yet in the table (the caller has anti-joined).
            vectors: (n, dimensions) float32, finite.

        Raises:
            StorageError: the vectors' shape is not the set's, or a value is not finite.
        """
        import pyarrow as pa

        expected = (len(ids), self.embedding_set.dimensions)
        if vectors.shape != expected:
            raise StorageError(
                f"Embeddings of `{self.dataset}`: {self.embedding_set.model} gave vectors of shape {vectors.shape}, "
                f"expected {expected}. A table never mixes dimensions; check the embedding model."
            )
        if not np.isfinite(vectors).all():
            bad = ids[int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])]
            raise StorageError(
                f"Embeddings of `{self.dataset}`: {self.embedding_set.model} gave a non-finite vector for text {bad}."
            )
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).ravel())
        batch = pa.table(
            [pa.array(ids), pa.FixedSizeListArray.from_arrays(flat, self.embedding_set.dimensions)],
            schema=self._schema(),
        )
        table = self._open()
        if table is None:
            self._connect().create_table(self.name, data=batch, exist_ok=True)
        else:
            table.add(batch)

    def read(self, ids: Iterable[str]) -> np.ndarray:
        """Vectors of `ids` in their order, (n, dimensions) float32, contiguous.

        Raises:
            StorageError: a key has no vector.
        """
        from hsae_dagster.storage.vector_copy import place

        ids = list(ids)
        table = self._open()
        if table is None:
            raise StorageError(f"Dataset `{self.dataset}` has no embeddings. Materialize `embeddings` first.")
        copy = self._copy(table)
        if copy is None:
            out = np.empty((len(ids), self.embedding_set.dimensions), dtype=np.float32)
            seen = place(_batches(table), ids, out)
        else:
            out, seen = copy.read(ids)
        if not seen.all():
            missing = int((~seen).sum())
            raise StorageError(
                f"Dataset `{self.dataset}`: {missing} texts have no vector in {self.name} (first: "
                f"{ids[int(np.flatnonzero(~seen)[0])]}). Materialize `embeddings` again; it embeds only those."
            )
        return out

    def _copy(self, table: Any) -> "VectorCopy | None":
        """The contiguous copy of the table as it is, made where it is missing; None where the table is small."""
        from hsae_dagster.storage.vector_copy import VectorCopy, state_of

        dimensions = self.embedding_set.dimensions
        if table.count_rows() * dimensions * 4 < _WORTH_A_COPY:
            return None
        state = state_of(self.uri / f"{self.name}.lance", int(table.version))
        if state is None:
            return None
        copy = VectorCopy(self.uri.with_name("vector_copies") / self.name, state)
        if copy.exists() or copy.write(sorted(_keys(table)), dimensions, _batches(table)):
            return copy
        return None

    def borrow(self, wanted: set[str]) -> tuple[list[str], np.ndarray, list[str]]:
        """Vectors that other datasets' tables of the same embedding set already hold.

        Returns:
            keys found, their vectors (n, dimensions) float32, and the datasets they came from.
        """
        found: list[str] = []
        parts: list[np.ndarray] = []
        lenders: list[str] = []
        missing = set(wanted)
        suffix = f"__{self.embedding_set.set_id[:16]}"
        for name in _table_names(self._connect()):
            if not missing:
                break
            if name == self.name or not name.endswith(suffix):
                continue
            lender = VectorTable(self.uri.parent, name.removesuffix(suffix), self.embedding_set)
            shared = sorted(missing & lender.keys())
            if shared:
                parts.append(lender.read(shared))
                found += shared
                missing -= set(shared)
                lenders.append(lender.dataset)
        empty = np.empty((0, self.embedding_set.dimensions), dtype=np.float32)
        return found, np.concatenate([empty, *parts]), lenders

    def version(self) -> int | None:
        """The table's version number (for display only)."""
        table = self._open()
        return None if table is None else int(table.version)

    def _schema(self) -> "pa.Schema":
        import pyarrow as pa

        vector = pa.list_(pa.float32(), self.embedding_set.dimensions)
        meta = {"model": self.embedding_set.model, "set_id": self.embedding_set.set_id}
        return pa.schema([pa.field("text_id", pa.string(), nullable=False), pa.field("vector", vector)], metadata=meta)

    def _connect(self) -> Any:
        import lancedb

        self.uri.mkdir(parents=True, exist_ok=True)
        return lancedb.connect(str(self.uri))

    def _open(self) -> Any | None:
        database = self._connect()
        return database.open_table(self.name) if self.name in _table_names(database) else None


def _table_names(database: Any) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = database.list_tables(page_token=token) if token else database.list_tables()
        names += page.tables
        token = page.page_token
        if not token:
            return sorted(names)


def _batches(table: Any) -> Iterable["pa.RecordBatch"]:
    """(key, vector) rows, a block at a time."""
    found: Iterable[pa.RecordBatch] = table.search().select(["text_id", "vector"]).limit(None).to_batches(_BATCH_ROWS)
    return found


def _keys(table: Any) -> set[str]:
    return set(table.search().select(["text_id"]).limit(None).to_arrow().column("text_id").to_pylist())
