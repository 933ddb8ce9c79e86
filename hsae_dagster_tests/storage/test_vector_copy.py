"""The contiguous copy of a large table: equal to the table, never of another state, never needed."""

import shutil
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage import vectors
from hsae_dagster.storage import vectors as vector_copy
from hsae_dagster.storage.vectors import VectorTable

FAMILY = EmbeddingSet("test", 8, "f" * 32)


@pytest.fixture(autouse=True)
def every_table_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_WORTH_A_COPY", 1)
    monkeypatch.setattr(vectors, "_BATCH_ROWS", 16)
    monkeypatch.setattr(vector_copy, "_BLOCK_BYTES", 256)


def made(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(16).hex() for _ in range(n)], rng.standard_normal((n, 8), dtype=np.float32)


def filled(root: Path, ids: list[str], values: np.ndarray) -> VectorTable:
    table = VectorTable(root, "mine", FAMILY)
    for start in range(0, len(ids), 40):
        table.append(ids[start : start + 40], values[start : start + 40])
    return table


def copies(root: Path) -> list[Path]:
    return sorted((root / "vector_copies").rglob("*.npy"))


def test_rows_come_back_in_any_order_from_the_copy_as_from_the_table(tmp_path: Path) -> None:
    ids, values = made(100)
    table = filled(tmp_path, ids, values)
    ascending, drawn = np.argsort(ids), np.random.default_rng(1)
    close = ascending[drawn.random(100) < 0.7]
    for order in (np.arange(100), ascending, close, close[::-1], drawn.permutation(100)[:37], ascending[:0]):
        read = table.read([ids[i] for i in order])
        assert read.flags.c_contiguous and read.flags.writeable and read.dtype == np.float32
        np.testing.assert_array_equal(read, values[order])
    assert len(copies(tmp_path)) == 1
    with pytest.raises(StorageError, match="1 texts have no vector"):
        table.read([ids[0], "0" * 32])


def test_many_small_commits_cost_no_more_than_their_rows() -> None:
    import pyarrow as pa

    n, rows = 100_000, 50
    keys = [f"{i * 7_919 % n:064x}" for i in range(n)]
    values = np.arange(n, dtype=np.float32)[:, None]
    batches = [
        pa.record_batch({"k": keys[i : i + rows], "v": pa.FixedSizeListArray.from_arrays(values[i : i + rows, 0], 1)})
        for i in range(0, n, rows)
    ]
    out, ascending = np.zeros_like(values), sorted(keys)
    started = time.process_time()
    vectors.positions(keys, pa.chunked_array([ascending]))
    once = time.process_time() - started
    assert vectors.place(batches, ascending, out).all()
    took = time.process_time() - started - once
    np.testing.assert_array_equal(out, values[np.argsort(keys)])
    # A look-up of all keys for each of the 2,000 batches would take 2,000 times as long as one.
    assert took < 100 * once + 1


def test_a_changed_table_is_never_read_from_its_old_copy(tmp_path: Path) -> None:
    ids, values = made(100)
    table = filled(tmp_path, ids, values)
    table.read(ids)
    first = copies(tmp_path)
    further, more = made(5, seed=1)
    table.append(further, more)
    np.testing.assert_array_equal(table.read(further), more)
    second = copies(tmp_path)
    assert first != second, "another state, another copy"
    assert len(second) == 1, "copies of other states are removed"
    # The same name, the same number of rows and commits, other vectors: a table made anew.
    shutil.rmtree(tmp_path / "lancedb")
    filled(tmp_path, ids + further, np.concatenate([values, more]) + 1)
    np.testing.assert_array_equal(VectorTable(tmp_path, "mine", FAMILY).read(ids), values + 1)


def test_a_copy_is_made_once_and_may_be_removed_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, values = made(60)
    table = filled(tmp_path, ids, values)
    table.read(ids)
    (path,) = copies(tmp_path)
    written = path.stat().st_mtime_ns
    table.read(ids[:3])
    assert path.stat().st_mtime_ns == written
    shutil.rmtree(tmp_path / "vector_copies")
    np.testing.assert_array_equal(table.read(ids), values)
    assert len(copies(tmp_path)) == 1
    shutil.rmtree(tmp_path / "vector_copies")
    (tmp_path / "vector_copies").write_text("in the way")
    np.testing.assert_array_equal(table.read(ids), values)


def test_a_table_whose_state_cannot_be_told_has_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, values = made(20)
    table = filled(tmp_path, ids, values)
    assert vector_copy.state_of(tmp_path / "lancedb" / f"{table.name}.lance", 999) is None
    monkeypatch.setattr(vector_copy, "state_of", lambda *_: None)
    np.testing.assert_array_equal(table.read(ids), values)
    assert not copies(tmp_path)


def test_known_texts_are_told_from_new_ones_by_the_copy_only_while_it_is_of_the_table(tmp_path: Path) -> None:
    ids, values = made(60)
    table = filled(tmp_path, ids[:50], values[:50])
    assert table.lacking(pl.Series(ids)).tolist() == [False] * 50 + [True] * 10, "no copy yet"
    table.read(ids[:50])
    assert table.lacking(pl.Series(ids)).tolist() == [False] * 50 + [True] * 10, "by the copy"
    table.append(ids[50:], values[50:])
    assert not table.lacking(pl.Series(ids)).any(), "the copy is of an earlier state"
    table.read(ids)
    next((tmp_path / "vector_copies").rglob("*.parquet")).write_bytes(b"damaged")
    assert not table.lacking(pl.Series(ids)).any(), "the table is asked where the copy is damaged"


def test_small_tables_have_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_WORTH_A_COPY", 2**26)
    ids, values = made(20)
    np.testing.assert_array_equal(filled(tmp_path, ids, values).read(ids), values)
    assert not copies(tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "torn", "keys torn", "keys flipped"])
def test_a_damaged_copy_is_noticed_and_the_table_read(tmp_path: Path, damage: str) -> None:
    ids, values = made(60)
    table = filled(tmp_path, ids, values)
    table.read(ids)
    (path,) = copies(tmp_path)
    if damage.startswith("keys"):
        path = path.with_suffix(".parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data if damage.endswith("flipped") else data[: len(data) // 2])
    np.testing.assert_array_equal(table.read(ids), values)
    np.testing.assert_array_equal(table.read(ids), values)


def test_keys_of_a_damaged_copy_never_make_a_known_text_look_new(tmp_path: Path) -> None:
    ids, values = made(60)
    table = filled(tmp_path, ids, values)
    table.read(ids)
    path = next((tmp_path / "vector_copies").rglob("*.parquet"))
    whole = path.read_bytes()
    for at in range(0, len(whole), 97):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert not table.lacking(pl.Series(ids)).any(), f"byte {at}"


def test_a_damaged_row_of_the_table_is_not_in_its_copy(tmp_path: Path) -> None:
    ids, values = made(60)
    table = filled(tmp_path, ids, values)
    path, mark = next(
        (path, data.index(mark))
        for path in (tmp_path / "lancedb").rglob("data/*.lance")
        for data, mark in [(path.read_bytes(), values[7].tobytes())]
        if mark in data
    )
    data = bytearray(path.read_bytes())
    data[mark + 5] ^= 16
    path.write_bytes(data)
    others = [key for row, key in enumerate(ids) if row != 7]
    np.testing.assert_array_equal(table.read(others), np.delete(values, 7, axis=0))
    assert len(copies(tmp_path)) == 1
    assert table.lacking(pl.Series(ids)).nonzero()[0].tolist() == [7]
