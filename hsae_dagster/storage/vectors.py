"""Embedding vectors: in LanceDB, a table per (dataset, embedding set), and as the rows of a file that stages read."""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage.files import Shared, locked

if TYPE_CHECKING:
    import pyarrow as pa


_BATCH_ROWS = 8192
T = TypeVar("T")


class LackingVectors(StorageError):
    """Keys without a vector, or with one that is not what was written."""


class VectorTable:
    """The vectors of one dataset in one embedding set; in the store that the results folder belongs to, if any.

    Created at the first append.

    Raises:
        StorageError: from every method, where the table is damaged or cannot be used.
    """

    def __init__(self, root: Path, dataset: str, embedding_set: EmbeddingSet) -> None:
        self.uri, self.shared = root / "lancedb", Shared.of(root)
        self.dataset = dataset
        self.embedding_set = embedding_set
        self.name = f"{dataset}__{embedding_set.set_id[:16]}"
        # Of the table when this process last saw or wrote it, and the keys that it found there unexpectedly.
        self._version: int | None = None
        self._found: set[str] = set()

    def keys(self) -> set[str]:
        """Keys that have a vector."""
        table = self._open()
        if table is None:
            return set()
        self._version = int(table.version)
        return self._keys(table)

    def listed(self) -> pl.Series:
        """Keys of all rows, damaged ones included: the vectors are not read."""
        table = self._open()
        if table is None:
            return pl.Series([], dtype=pl.String)
        self._version = int(table.version)
        with self._explained("read"):
            # In few large batches, which takes a third of the time.
            batches = table.search().select(["text_id"]).limit(None).to_batches(8 * _BATCH_ROWS)
            return pl.Series(batches.read_all().column("text_id"))

    def append(self, ids: list[str], vectors: np.ndarray) -> None:
        """Add rows in one commit; rows that another process has added meanwhile are not added twice.

        `ids` are n keys, distinct and not in the table when `keys` or `listed` was asked, `vectors` (n, dimensions)
        float32.

        Raises:
            StorageError: the vectors' shape is not the set's, or a value is not finite.
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
                table = self._create(ids, vectors)
            elif ids:
                table.add(self._batch(ids, vectors))
            self._version = int(table.version)

    def _create(self, ids: list[str], vectors: np.ndarray) -> Any:
        """The new table. On disk it takes the place of what a killed process left; in a store, only of nothing."""
        database, rows = self._connect(), self._batch(ids, vectors)
        if self.shared is None:
            return database.create_table(self.name, data=rows, mode="overwrite")
        table = database.create_table(self.name, schema=rows.schema, exist_ok=True)
        table.add(rows)
        return table

    def _batch(self, ids: list[str], vectors: np.ndarray) -> "pa.Table":
        import pyarrow as pa

        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.embedding_set.dimensions)
        columns = [pa.array(ids), flat, pa.array(_checksums(ids, vectors))]
        vector = pa.list_(pa.float32(), self.embedding_set.dimensions)
        meta = {"model": self.embedding_set.model, "set_id": self.embedding_set.set_id}
        fields = [pa.field("text_id", pa.string(), nullable=False), pa.field("vector", vector)]
        fields.append(pa.field("checksum", pa.uint32()))
        return pa.table(columns, schema=pa.schema(fields, metadata=meta))

    def filled(self, fill: Callable[[pl.Series], T], waiting: Callable[[], None]) -> T:
        """What `fill` makes, which is told the keys that have vectors and adds others; one process at a time.

        It is told the keys of all rows first. If it then finds that a row is not what was written, which only reading
        all of them tells, it is called again with the keys of whole rows alone. `waiting` is called once if another
        process is at it.
        """
        with locked(self.uri.parent / "locks" / f"{self.name}-filling", waiting):
            try:
                return fill(self.listed())
            except LackingVectors:
                return fill(pl.Series(list(self.keys()), dtype=pl.String))

    def read(self, ids: Iterable[str], out: np.ndarray | None = None) -> np.ndarray:
        """Vectors of `ids` in their order, (n, dimensions) float32, contiguous; in `out`, if there is one.

        Raises:
            LackingVectors: a key has no vector.
        """
        ids = list(ids)
        table = self._open()
        if table is None:
            raise StorageError(f"Dataset `{self.dataset}` has no embeddings. Materialize `embeddings` first.")
        out = np.empty((len(ids), self.embedding_set.dimensions), dtype=np.float32) if out is None else out
        seen = place(self._rows(table), ids, out)
        if not seen.all():
            missing = int((~seen).sum())
            raise LackingVectors(
                f"Dataset `{self.dataset}`: {missing} texts have no vector in {self.name} (first: "
                f"{ids[int(np.flatnonzero(~seen)[0])]}). Materialize `embeddings` again; it embeds only those."
            )
        return out

    def borrow(self, wanted: set[str]) -> tuple[list[str], np.ndarray, list[str]]:
        """Keys that other datasets' tables of the same embedding set have, their vectors, and those datasets."""
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

    def _keys(self, table: Any) -> set[str]:
        return {key for batch in self._rows(table) for key in batch.column(0).to_pylist()}

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        # Lance's own code panics on some damaged files, which Python sees as no Exception at all.
        except (OSError, RuntimeError, ValueError, MemoryError, pl.exceptions.PanicException) as error:
            cause = " ".join(str(error).split())[:300]
            raise StorageError(
                f"Embeddings of `{self.dataset}`: the table {self._place}/{self.name}.lance cannot be {what}: {cause}. "
                "Make sure that there is room and that the folder is readable and writable. If the table is damaged, "
                "restore it from a copy, or remove its folder and materialize `embeddings` again, which embeds the "
                "texts anew."
            ) from error

    def _connect(self) -> Any:
        import lancedb

        if self.shared is None:
            self.uri.mkdir(parents=True, exist_ok=True)
        return lancedb.connect(self._place)

    @property
    def _place(self) -> str:
        return str(self.uri) if self.shared is None else f"{self.shared.url}/lancedb"

    def _open(self) -> Any | None:
        # A process that was killed before the first commit leaves a folder without a version.
        versions = f"{self.name}.lance/_versions"
        here = self.shared is None and any((self.uri / versions).glob("*.manifest"))
        if not here and not (self.shared and self.shared.has(f"lancedb/{versions}")):
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


# Rows gathered by one thread at a time, in bytes: few enough that the checksum finds them in the processor's cache.
_BLOCK_BYTES = 2**22
# Some wait for the disk while others copy.
_THREADS = 4


def write_vectors(path: Path, table: VectorTable, ids: pl.Series) -> np.ndarray:
    """Write the vectors of `ids` (n,) as the rows of a .npy file; what `gather` compares with, (n,) uint32.

    Raises:
        LackingVectors: a key has no vector.
        OSError: the disk did not take them.
    """
    # Room first, from zeros that take no memory: a full disk would end the process where it writes to mapped memory.
    np.save(path, np.zeros((len(ids), table.embedding_set.dimensions), np.float32))
    held = np.load(path, mmap_mode="r+")
    table.read(ids, held)
    held.flush()
    sums = [_sums(held[start : start + _BATCH_ROWS]) for start in range(0, len(held), _BATCH_ROWS)]
    return np.concatenate([np.empty(0, np.uint32), *sums])


def place(batches: "Iterable[pa.RecordBatch]", ids: Sequence[str], out: np.ndarray) -> np.ndarray:
    """Put the vectors of `ids` into their rows of out (n, d), from (key, vector) batches; which were met, (n,) bool.

    The keys are sorted once and searched for each batch: a table of many small commits has as many batches, and a hash
    of all keys for each would make the time grow with the square of the rows.
    """
    wanted = pl.Series(ids, dtype=pl.String)
    order = wanted.arg_sort().to_numpy()
    ordered = wanted.gather(order)
    met = np.zeros(len(out), dtype=bool)
    for batch in batches:
        keys = pl.Series(batch.column(0)).cast(pl.String)
        place_of = ordered.search_sorted(keys).to_numpy()
        known = place_of < len(ordered)
        known[known] = (ordered.gather(place_of[known]) == keys.filter(pl.Series(known))).to_numpy()
        at = order[place_of[known]].astype(np.int64)
        values = batch.column(1).flatten().to_numpy(zero_copy_only=False).reshape(-1, out.shape[1])
        values = values if known.all() else values[known]
        out[at] = values
        met[at] = True
    return met


def gather(path: Path, rows: np.ndarray, sums: np.ndarray, dimensions: int) -> np.ndarray | None:
    """Some rows of the .npy file of n vectors with these sums (n,), (len(rows), dimensions) float32, contiguous.

    Blocks are shared by a few threads. None where the file or a row is not what was written.
    """
    try:
        vectors = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    if (vectors.dtype, vectors.shape, vectors.flags.c_contiguous) != (np.float32, (len(sums), dimensions), True):
        return None
    out = np.empty((len(rows), dimensions), dtype=np.float32)
    row_bytes = out.strides[0]
    size = max(1, _BLOCK_BYTES // max(1, row_bytes))

    def block(start: int) -> bool:
        at, into = rows[start : start + size], out[start : start + size]
        if (np.diff(at) == 1).all():  # read from the file, which spares the page faults of mapped memory
            with path.open("rb") as file:
                file.seek(vectors.offset + int(at[0]) * row_bytes)
                file.readinto(into.data)
        else:
            np.take(vectors, at, axis=0, out=into, mode="clip")
        return bool((_sums(into) == sums[at]).all())

    with ThreadPoolExecutor(_THREADS) as threads:
        return out if all(threads.map(block, range(0, len(rows), size))) else None


def _sums(vectors: np.ndarray) -> np.ndarray:
    """Exclusive or over the words of each row, (n,) uint32: any one flipped bit changes it, at the speed of memory."""
    return np.bitwise_xor.reduce(np.ascontiguousarray(vectors).view(np.uint32), axis=1)
