"""Embedding vectors in LanceDB: one table per (dataset, embedding set), key first.

Belongs here: opening, appending and reading vectors by key. Does not belong here: computing a vector (`providers`) or
which texts a dataset has (`core.corpus`): the split of a text lives in the corpus alone, so that it has one truth.

Row order in Lance is not promised, so reading always joins on the key. Large tables are read from a contiguous copy
(`storage.vector_copy`), which is made when they are first read and again after they change. A table's version number
says nothing about its content (compaction changes it); it is reported, never used as a data version. Lance does not
check what it reads from disk, so every row has a checksum; a row that is not what was written counts as absent, and its
text is embedded again.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.errors import StorageError
from hsae_dagster.lance_tables import has_version, lance_explained
from hsae_dagster.whole_files import locked

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
        # Of the table when this process last saw or wrote it, and the keys that it found there unexpectedly.
        self._version: int | None = None
        self._found: set[str] = set()

    def keys(self) -> set[str]:
        """Keys that have a vector.

        Raises:
            StorageError: the table is damaged.
        """
        table = self._open()
        if table is None:
            return set()
        self._version = int(table.version)
        return self._keys(table)

    def lacking(self, ids: Iterable[str]) -> np.ndarray:
        """Which of `ids` (n,) have no vector, (n,) bool; a polars column is fastest.

        Where there is a contiguous copy of the table as it is, its keys are asked, whose rows were checked then.

        Raises:
            StorageError: the table is damaged.
        """
        from hsae_dagster.storage.vector_copy import absent

        ids = ids if isinstance(ids, Sized) else list(ids)
        table = self._open()
        if table is None:
            return np.ones(len(ids), dtype=bool)
        self._version = int(table.version)
        copy = self._named_copy(table)
        known = copy.keys() if copy and copy.exists() else None
        return absent(ids, self._keys(table) if known is None else known)

    def append(self, ids: list[str], vectors: np.ndarray) -> None:
        """Add rows in one commit; rows that another process has added meanwhile are not added twice.

        Args:
            ids: n keys, distinct and not in the table when `keys` was asked (the caller has anti-joined).
            vectors: (n, dimensions) float32, finite.

        Raises:
            StorageError: the vectors' shape is not the set's, a value is not finite, or the table cannot be written.
        """
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
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        # Commits of Lance are safe for several processes, but none knows which keys the others add.
        with locked(self.uri.parent / "locks" / self.name), self._explained("written"):
            table = self._open()
            if table is not None and int(table.version) != self._version:
                self._found = self._keys(table)
            new = [row for row, key in enumerate(ids) if key not in self._found]
            ids, vectors = [ids[row] for row in new], vectors[new]
            if table is None:
                table = self._connect().create_table(self.name, data=self._batch(ids, vectors), mode="overwrite")
            elif ids:
                table.add(self._batch(ids, vectors))
            self._version = int(table.version)

    def _batch(self, ids: list[str], vectors: np.ndarray) -> "pa.Table":
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.embedding_set.dimensions)
        columns = [pa.array(ids), flat, pa.array(_checksums(ids, vectors))]
        return pa.table(columns, schema=self._schema())

    def being_filled(self, waiting: Callable[[], None]) -> AbstractContextManager[object]:
        """The right to look for missing vectors and add them, which one process has at a time.

        Args:
            waiting: called once if another has it.
        """
        return locked(self.uri.parent / "locks" / f"{self.name}-filling", waiting)

    def read(self, ids: Iterable[str]) -> np.ndarray:
        """Vectors of `ids` in their order, (n, dimensions) float32, contiguous.

        Raises:
            StorageError: a key has no vector, or the table is damaged.
        """
        from hsae_dagster.storage.vector_copy import place

        ids = list(ids)
        table = self._open()
        if table is None:
            raise StorageError(f"Dataset `{self.dataset}` has no embeddings. Materialize `embeddings` first.")
        copy = self._copy(table)
        found = copy.read(ids) if copy else None
        if copy and (found is None or not found[1].all()):
            # Damaged: the table alone is the truth.
            copy.remove()
            found = None
        if found is None:
            out = np.empty((len(ids), self.embedding_set.dimensions), dtype=np.float32)
            found = out, place(self._rows(table), ids, out)
        out, seen = found
        if not seen.all():
            missing = int((~seen).sum())
            raise StorageError(
                f"Dataset `{self.dataset}`: {missing} texts have no vector in {self.name} (first: "
                f"{ids[int(np.flatnonzero(~seen)[0])]}). Materialize `embeddings` again; it embeds only those."
            )
        return out

    def _copy(self, table: Any) -> "VectorCopy | None":
        """The contiguous copy of the table as it is, made where it is missing; None where the table is small."""
        copy, dimensions = self._named_copy(table), self.embedding_set.dimensions
        if copy is None or copy.exists() or copy.write(self._listed(table), dimensions, self._rows(table)):
            return copy
        # Some listed rows are not what was written, which only reading all of them tells.
        return copy if copy.write(self._keys(table), dimensions, self._rows(table)) else None

    def _named_copy(self, table: Any) -> "VectorCopy | None":
        """The place of that copy, which may not have been made; None where the table is small."""
        from hsae_dagster.storage.vector_copy import VectorCopy, state_of

        if table.count_rows() * self.embedding_set.dimensions * 4 < _WORTH_A_COPY:
            return None
        state = state_of(self.uri / f"{self.name}.lance", int(table.version))
        return None if state is None else VectorCopy(self.uri.with_name("vector_copies") / self.name, state)

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
        fields = [pa.field("text_id", pa.string(), nullable=False), pa.field("vector", vector)]
        fields.append(pa.field("checksum", pa.uint32()))
        return pa.schema(fields, metadata=meta)

    def _rows(self, table: Any) -> Iterator["pa.RecordBatch"]:
        """(key, vector) of the rows that are what was written, a block at a time."""
        import pyarrow as pa

        with self._explained("read"):
            for batch in table.search().limit(None).to_batches(_BATCH_ROWS):
                vectors = batch.column("vector").flatten().to_numpy(zero_copy_only=False)
                sums = _checksums(batch.column("text_id").to_pylist(), vectors.reshape(batch.num_rows, -1))
                whole = sums == batch.column("checksum").to_numpy(zero_copy_only=False)
                if not whole.all():
                    batch = batch.filter(pa.array(whole))
                yield batch.select(["text_id", "vector"])

    def _listed(self, table: Any) -> set[str]:
        """Keys of all rows, damaged ones included; their vectors are not read."""
        with self._explained("read"):
            return set(table.search().select(["text_id"]).limit(None).to_arrow().column("text_id").to_pylist())

    def _keys(self, table: Any) -> set[str]:
        return {key for batch in self._rows(table) for key in batch.column(0).to_pylist()}

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        with lance_explained(
            lambda cause: StorageError(
                f"Embeddings of `{self.dataset}`: the table {self.uri / self.name}.lance cannot be {what}: {cause}. "
                "Make sure that there is room and that the folder is readable and writable. If the table is damaged, "
                "restore it from a copy, or remove its folder and materialize `embeddings` again, which embeds the "
                "texts anew."
            )
        ):
            yield

    def _connect(self) -> Any:
        import lancedb

        self.uri.mkdir(parents=True, exist_ok=True)
        return lancedb.connect(str(self.uri))

    def _open(self) -> Any | None:
        if not has_version(self.uri / f"{self.name}.lance"):
            return None
        with self._explained("opened"):
            return self._connect().open_table(self.name)


def _checksums(ids: list[str], vectors: np.ndarray) -> np.ndarray:
    """CRC-32 of each key and its vector, (n,) uint32."""
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    sums = [zlib.crc32(row, zlib.crc32(key.encode())) for key, row in zip(ids, rows, strict=True)]
    return np.array(sums, dtype=np.uint32)


def _table_names(database: Any) -> list[str]:
    names: list[str] = []
    token = None
    while True:
        page = database.list_tables(page_token=token) if token else database.list_tables()
        names += page.tables
        token = page.page_token
        if not token:
            return sorted(names)
