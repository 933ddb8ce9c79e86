"""A contiguous copy of a large table of vectors, from which training reads at the speed of memory.

Belongs here: the copy's files, which state of the table they are a copy of, gathering rows. Does not belong here: the
table itself (`storage.vectors`), which stays the only truth: a copy may be removed at any time.

A copy can never be stale. It is named by the hash of the table's manifest, which lists the data files of one version;
Lance writes each data file once, under a name of its own, and never changes it. Appending, compacting or making the
table anew makes another manifest, hence another name. Every row has a checksum, and so have the pages of its keys, so
that damage to the copy is noticed.
"""

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hsae_dagster.keys import hash_bytes

# Rows gathered by one thread at a time, in bytes: few enough that the checksum finds them in the processor's cache.
_BLOCK_BYTES = 2**22
# Some wait for the disk while others copy.
_THREADS = 4
# A block whose rows lie closer together than this, on average, is read with all that lies between them.
_GAP_ROWS = 2
_SUM_ROWS = 8192
# An unfinished copy that nobody has written to for so long is nobody's.
_LEFT_BEHIND_S = 3600.0


def state_of(table: Path, version: int) -> str | None:
    """Hash of the manifest of a version of a Lance table; None where there is no file of either of its names."""
    for number in (2**64 - 1 - version, version):
        manifest = table / "_versions" / f"{number}.manifest"
        if manifest.is_file():
            return hash_bytes(manifest.read_bytes())
    return None


class VectorCopy:
    """Vectors of one state of a table, rows in the order of their keys."""

    def __init__(self, folder: Path, state: str) -> None:
        """Name the copy; nothing is read.

        Args:
            folder: of all copies of the table.
            state: `state_of` the table.
        """
        self._folder = folder
        self._vectors, self._keys = folder / f"{state}.npy", folder / f"{state}.parquet"

    def exists(self) -> bool:
        """Whether it has been written; the vectors come last, whole."""
        return self._vectors.is_file() and self._keys.is_file()

    def write(self, keys: Iterable[str], dimensions: int, batches: Iterable[pa.RecordBatch]) -> bool:
        """Make the copy, and remove those of other states.

        Args:
            keys: of all rows, each once.
            dimensions: d.
            batches: (key, vector) rows of the table, each key once, in any order.

        Returns:
            False where the disk did not take it, or a key has no row: nothing is left behind then.
        """
        ordered = sorted(keys)
        aside = self._folder / f".{uuid.uuid4().hex}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            held = np.lib.format.open_memmap(aside, mode="w+", dtype=np.float32, shape=(len(ordered), dimensions))
            if not place(batches, ordered, held).all():
                return False
            sums = np.concatenate([_sums(held[start : start + _SUM_ROWS]) for start in range(0, len(held), _SUM_ROWS)])
            held.flush()
            del held
            self._put_keys(ordered, sums)
            aside.replace(self._vectors)
        except OSError:
            return False
        finally:
            _remove(aside)
        for other in self._folder.iterdir():
            if other not in (self._vectors, self._keys) and not _being_written(other):
                _remove(other)
        return True

    def _put_keys(self, ordered: list[str], sums: np.ndarray) -> None:
        aside = self._folder / f".{uuid.uuid4().hex}"
        try:
            # Uncompressed: they are a hundredth of the vectors, and are read whenever new texts are looked for.
            pq.write_table(
                pa.table({"text_id": pa.array(ordered, pa.string()), "sum": sums}),
                aside,
                compression="none",
                use_dictionary=False,
                write_statistics=False,
                write_page_checksum=True,
            )
            aside.replace(self._keys)
        finally:
            _remove(aside)

    def keys(self) -> pl.Series | None:
        """Keys of its rows, all of which were as written when the copy was made; None where the copy is damaged."""
        try:
            return pl.Series(self._read_keys().column("text_id"))
        except (OSError, ValueError, KeyError):
            return None

    def _read_keys(self) -> pa.Table:
        with pq.ParquetFile(self._keys, page_checksum_verification=True) as file:
            return file.read(use_threads=False)

    def read(self, ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
        """Vectors of `ids` in their order, (n, d) float32, contiguous, and which of them there are, (n,) bool.

        None where the copy is damaged.
        """
        try:
            vectors = np.load(self._vectors, mmap_mode="r")
            keys = self._read_keys()
            at, sums = positions(ids, keys.column("text_id")), keys.column("sum").to_numpy()
            if vectors.dtype != np.float32 or not vectors.flags.c_contiguous or len(vectors) != len(sums):
                return None
            found = at >= 0
            out = np.empty((len(at), vectors.shape[1]), dtype=np.float32)
            whole = _gather(self._vectors, vectors, np.where(found, at, 0), sums, out)
        except (OSError, ValueError, KeyError):
            return None
        return (out, found) if whole else None

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


def place(batches: Iterable[pa.RecordBatch], ids: Sequence[str], out: np.ndarray) -> np.ndarray:
    """Put the vectors of `ids` into their rows of out (n, d), from (key, vector) batches; which were met, (n,) bool."""
    wanted = pa.array(ids, pa.string())
    met = np.zeros(len(out), dtype=bool)
    for batch in batches:
        at = _index(batch.column(0), wanted)
        values = batch.column(1).flatten().to_numpy(zero_copy_only=False).reshape(-1, out.shape[1])
        if (at < 0).any():
            values, at = values[at >= 0], at[at >= 0]
        if len(at) and at[-1] - at[0] + 1 == len(at) and (np.diff(at) == 1).all():
            out[at[0] : at[-1] + 1] = values
        else:
            out[at] = values
        met[at] = True
    return met


def positions(ids: Iterable[str], among: Iterable[str]) -> np.ndarray:
    """Row of each id in a column of distinct keys, (n,) int64; -1 where it is not there; arrow columns are fastest."""
    values, column = _strings(ids), _strings(among)
    return np.arange(len(values)) if values.equals(column) else _index(values, column)


def absent(ids: Iterable[str], among: Iterable[str]) -> np.ndarray:
    """Which of `ids` (n,) are not in a column of keys, (n,) bool; polars columns are fastest."""
    wanted, known = (
        pl.DataFrame({"key": part if isinstance(part, pl.Series) else pl.Series(list(part), dtype=pl.String)})
        for part in (ids, among)
    )
    rows = wanted.with_row_index("row").join(known, on="key", how="anti")["row"].to_numpy()
    lacking = np.zeros(wanted.height, dtype=bool)
    lacking[rows] = True
    return lacking


def _strings(values: Iterable[str]) -> pa.Array:
    if isinstance(values, pl.Series):
        values = values.to_arrow()
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    return values.cast(pa.string()) if isinstance(values, pa.Array) else pa.array(list(values), pa.string())


def _index(values: pa.Array, among: pa.Array) -> np.ndarray:
    return pc.index_in(values.cast(pa.string()), value_set=among).fill_null(-1).to_numpy().astype(np.int64)


def _gather(path: Path, vectors: np.memmap, rows: np.ndarray, sums: np.ndarray, out: np.ndarray) -> bool:
    """Set out = vectors[rows], in blocks that a few threads share.

    Rows that lie close together are read from the file, which spares the page faults of mapped memory, in half the
    time; others are taken from the map.

    Returns:
        Whether every row is what was written.

    Raises:
        OSError: the file cannot be read, or has become shorter.
    """
    row_bytes = out.strides[0]
    size = max(1, _BLOCK_BYTES // max(1, row_bytes))

    def block(start: int) -> bool:
        at, into = rows[start : start + size], out[start : start + size]
        low, high = int(at.min()), int(at.max()) + 1
        if high - low == len(at) and (np.diff(at) == 1).all():
            _read(stream, vectors.offset + low * row_bytes, into)
        elif high - low <= _GAP_ROWS * len(at):
            near = np.empty((high - low, out.shape[1]), dtype=np.float32)
            _read(stream, vectors.offset + low * row_bytes, near)
            np.take(near, at - low, axis=0, out=into, mode="clip")
        else:
            np.take(vectors, at, axis=0, out=into, mode="clip")
        return bool((_sums(into) == sums[at]).all())

    with path.open("rb", buffering=0) as file, ThreadPoolExecutor(_THREADS) as threads:
        stream = file.fileno()
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return all(threads.map(block, range(0, len(rows), size)))


def _read(stream: int, start: int, into: np.ndarray) -> None:
    """Fill `into`, C-contiguous, with the bytes of a file from `start` on."""
    wanted = into.data.cast("B")
    while len(wanted):
        got = os.preadv(stream, [wanted], start)
        if got == 0:
            raise OSError("the file is shorter than it was")
        wanted, start = wanted[got:], start + got


def _sums(vectors: np.ndarray) -> np.ndarray:
    """Exclusive or over the words of each row, (n,) uint32: any one flipped bit changes it, at the speed of memory."""
    return np.bitwise_xor.reduce(np.ascontiguousarray(vectors).view(np.uint32), axis=1)
