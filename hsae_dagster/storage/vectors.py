"""Embedding vectors in LanceDB: one table per (dataset, embedding set), and a contiguous copy of a large one."""

import contextlib
import time
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from hsae_dagster.core.observations import TextUnits
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet, hash_bytes
from hsae_dagster.storage.files import Shared, locked

if TYPE_CHECKING:
    import pyarrow as pa


_BATCH_ROWS = 8192
# Tables of so many bytes of vectors are read from a contiguous copy; smaller ones take no time anyway.
_WORTH_A_COPY = 2**26


class VectorTable:
    """The vectors of one dataset in one embedding set. Created at the first append.

    Where the results folder belongs to a store, the table is there, and only contiguous copies are here.

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

    def lacking(self, ids: pl.Series) -> np.ndarray:
        """Which of `ids` (n,) have no vector, (n,) bool.

        Where there is a contiguous copy of the table as it is, its keys are asked, whose rows were checked then.
        """
        table = self._open()
        if table is None:
            return np.ones(len(ids), dtype=bool)
        self._version = int(table.version)
        copy = self._named_copy(table)
        known = copy.keys() if copy and copy.exists() else None
        known = pl.Series(list(self._keys(table)), dtype=pl.String) if known is None else known
        return ~ids.is_in(known.implode()).to_numpy()

    def append(self, ids: list[str], vectors: np.ndarray) -> None:
        """Add rows in one commit; rows that another process has added meanwhile are not added twice.

        `ids` are n keys, distinct and not in the table when `keys` was asked (the caller has anti-joined), `vectors`
        (n, dimensions) float32.

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

    def being_filled(self, waiting: Callable[[], None]) -> AbstractContextManager[object]:
        """The right to look for missing vectors and add them, which one process has at a time."""
        return locked(self.uri.parent / "locks" / f"{self.name}-filling", waiting)

    def read(self, ids: Iterable[str]) -> np.ndarray:
        """Vectors of `ids` in their order, (n, dimensions) float32, contiguous.

        Raises:
            StorageError: a key has no vector.
        """
        ids = list(ids)
        table = self._open()
        if table is None:
            raise StorageError(f"Dataset `{self.dataset}` has no embeddings. Materialize `embeddings` first.")
        copy = self._copy(table)
        if copy and (found := copy.read(ids)) is not None:
            return found
        if copy:  # damaged, or without some: the table alone is the truth
            copy.remove()
        out = np.empty((len(ids), self.embedding_set.dimensions), dtype=np.float32)
        seen = place(self._rows(table), ids, out)
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
        if table.count_rows() * self.embedding_set.dimensions * 4 < _WORTH_A_COPY:
            return None
        table_name, version = f"{self.name}.lance", int(table.version)
        state = state_of(self.uri / table_name, version)
        if self.shared is not None:
            kept = (self.shared.get(f"lancedb/{table_name}/_versions/{each}.manifest") for each in _numbers(version))
            state = next((hash_bytes(manifest) for manifest in kept if manifest), None)
        return None if state is None else VectorCopy(self.uri.with_name("vector_copies") / self.name, state)

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

    def _listed(self, table: Any) -> set[str]:
        """Keys of all rows, damaged ones included; their vectors are not read."""
        with self._explained("read"):
            return set(table.search().select(["text_id"]).limit(None).to_arrow().column("text_id").to_pylist())

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
_SUM_ROWS = 8192
# An unfinished copy that nobody has written to for so long is nobody's.
_LEFT_BEHIND_S = 3600.0


def state_of(table: Path, version: int) -> str | None:
    """Hash of the manifest of a version of a Lance table; None where there is no file of either of its names."""
    for number in _numbers(version):
        manifest = table / "_versions" / f"{number}.manifest"
        if manifest.is_file():
            return hash_bytes(manifest.read_bytes())
    return None


def _numbers(version: int) -> tuple[int, int]:
    """By which the manifest of a version is called in the newer and in the older of Lance's formats."""
    return 2**64 - 1 - version, version


class VectorCopy:
    """Vectors of one state (by `state_of`) of a table, rows in the order of their keys; a folder for each table."""

    def __init__(self, folder: Path, state: str) -> None:
        """Name the copy; nothing is read."""
        self._folder = folder
        self._vectors, self._keys = folder / f"{state}.npy", folder / f"{state}.parquet"

    def exists(self) -> bool:
        """Whether it has been written; the vectors come last, whole."""
        return self._vectors.is_file() and self._keys.is_file()

    def write(self, keys: Iterable[str], dimensions: int, batches: "Iterable[pa.RecordBatch]") -> bool:
        """Make the copy of rows with these keys, each once, and remove those of other states.

        `batches` are (key, vector) rows of the table, each key once, in any order. False where the disk did not take
        it, or a key has no row: nothing is left behind then.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        ordered = sorted(keys)
        aside, keys_aside = (self._folder / f".{uuid.uuid4().hex}" for _ in range(2))
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            held = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=(len(ordered), dimensions))
            if not place(batches, ordered, held).all():
                return False
            sums = np.concatenate([_sums(held[start : start + _SUM_ROWS]) for start in range(0, len(held), _SUM_ROWS)])
            held.flush()
            del held
            # Uncompressed: they are a hundredth of the vectors, and are read whenever new texts are looked for.
            pq.write_table(
                pa.table({"text_id": pa.array(ordered, pa.string()), "sum": sums}),
                keys_aside,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )
            keys_aside.replace(self._keys)
            aside.replace(self._vectors)
        except OSError:
            return False
        finally:
            _remove(aside)
            _remove(keys_aside)
        for other in self._folder.iterdir():
            if other not in (self._vectors, self._keys) and not _being_written(other):
                _remove(other)
        return True

    def keys(self) -> pl.Series | None:
        """Keys of its rows, all of which were as written when the copy was made; None where the copy is damaged."""
        try:
            return pl.Series(self._read_keys().column("text_id"))
        except (OSError, ValueError, KeyError):
            return None

    def _read_keys(self) -> "pa.Table":
        import pyarrow.parquet as pq

        with pq.ParquetFile(self._keys, page_checksum_verification=True) as file:
            return file.read(use_threads=False)

    def read(self, ids: Sequence[str]) -> np.ndarray | None:
        """Vectors of `ids` in their order, (n, d) float32, contiguous; None where some are not there or damaged."""
        try:
            vectors = np.load(self._vectors, mmap_mode="r")
            keys = self._read_keys()
            at, sums = positions(ids, keys.column("text_id")), keys.column("sum").to_numpy()
            if vectors.dtype != np.float32 or not vectors.flags.c_contiguous or len(vectors) != len(sums):
                return None
            if (at < 0).any():
                return None
            out = np.empty((len(at), vectors.shape[1]), dtype=np.float32)
            return out if _gather(self._vectors, vectors, at, sums, out) else None
        except (OSError, ValueError, KeyError):
            return None

    def remove(self) -> None:
        """Remove the copy, which is made again when the table is next read."""
        for path in (self._vectors, self._keys):
            _remove(path)


def _being_written(path: Path) -> bool:
    """Whether another process may be writing it: unfinished files are hidden, and an old one was left by a kill."""
    return path.name.startswith(".") and time.time() - path.stat().st_mtime < _LEFT_BEHIND_S


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


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


def positions(ids: Sequence[str], among: "pa.ChunkedArray") -> np.ndarray:
    """Row of each id in a column of distinct keys, (n,) int64; -1 where it is not there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted, column = pa.array(ids, pa.string()), among.combine_chunks()
    if wanted.equals(column):
        return np.arange(len(wanted))
    return pc.index_in(wanted, value_set=column).fill_null(-1).to_numpy().astype(np.int64)


def _gather(path: Path, vectors: np.memmap, rows: np.ndarray, sums: np.ndarray, out: np.ndarray) -> bool:
    """Set out = vectors[rows], in blocks that a few threads share; whether every row is what was written."""
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
        return all(threads.map(block, range(0, len(rows), size)))


def _sums(vectors: np.ndarray) -> np.ndarray:
    """Exclusive or over the words of each row, (n,) uint32: any one flipped bit changes it, at the speed of memory."""
    return np.bitwise_xor.reduce(np.ascontiguousarray(vectors).view(np.uint32), axis=1)


# Vectors held at once where they are only passed through: 100 MB of 384 float32.
_PASSED = 65_536


def text_vectors(vectors: VectorTable, units: TextUnits, text_ids: pl.Series) -> np.ndarray:
    """The vector of each text (ascending keys): its own, or the mean of its units' vectors, repetitions included.

    (n, d) float32.
    """
    some = units.of_texts(text_ids)
    if some.are_texts:
        return vectors.read(some.unit_ids)
    # A block of texts at a time: their units' vectors together are several times what is returned.
    each = max(1, _PASSED * len(text_ids) // max(len(some.rows), 1))
    blocks = (some.of_texts(text_ids.slice(start, each)) for start in range(0, max(len(text_ids), 1), each))
    return np.concatenate([block.mean(vectors.read(block.unit_ids)) for block in blocks])


def blocks_of_vectors(vectors: VectorTable, unit_ids: pl.Series) -> Iterator[np.ndarray]:
    """(block, d) vectors of units in their order, so that not all are held at once."""
    for start in range(0, max(len(unit_ids), 1), _PASSED):
        yield vectors.read(unit_ids.slice(start, _PASSED))
