"""`embeddings` at rest: equal to the table, in any order; damage is noticed; the file goes with the next result."""

import resource
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hsae_dagster.errors import HsaeError, StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage import vectors
from hsae_dagster.storage.objects import ObjectStore, StageInputs
from hsae_dagster.storage.outputs import StoredEmbeddings
from hsae_dagster.storage.vectors import LackingVectors, VectorTable

FAMILY = EmbeddingSet("test", 8, "f" * 32)


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_BATCH_ROWS", 16)
    monkeypatch.setattr(vectors, "_BLOCK_BYTES", 256)


def made(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.bytes(16).hex() for _ in range(n)], rng.standard_normal((n, 8), dtype=np.float32)


def filled(root: Path, ids: list[str], values: np.ndarray) -> VectorTable:
    table = VectorTable(root, "mine", FAMILY)
    for start in range(0, len(ids), 40):
        table.append(ids[start : start + 40], values[start : start + 40])
    return table


def stored(root: Path, ids: list[str], dataset: str = "mine") -> StoredEmbeddings:
    """What the asset makes of a table, as the current result of a dataset."""
    store, unit_ids = ObjectStore(root), pl.Series(sorted(ids), dtype=pl.String)
    record = {"model": "test", "dimensions": 8, "set_id": FAMILY.set_id, "texts": len(ids), "ids": sorted(ids)}
    table = VectorTable(root, "mine", FAMILY)

    def make(folder: Path) -> None:
        StoredEmbeddings.write(folder, record=record, table=table, unit_ids=unit_ids)

    store.point(dataset, store.build(StageInputs("embeddings", "1", record, {}), "run", make), "_vectors.npy")
    return StoredEmbeddings.current(store, dataset)


def test_rows_come_back_in_any_order_as_from_the_table(tmp_path: Path) -> None:
    ids, values = made(100)
    table = filled(tmp_path, ids, values)
    held = stored(tmp_path, ids)
    ascending, drawn = np.argsort(ids), np.random.default_rng(1)
    close = ascending[drawn.random(100) < 0.7]
    for order in (np.arange(100), ascending, close, close[::-1], drawn.permutation(100)[:37], ascending[:0]):
        asked = [ids[i] for i in order]
        read = held.read(pl.Series(asked, dtype=pl.String))
        assert read.flags.c_contiguous and read.flags.writeable and read.dtype == np.float32
        np.testing.assert_array_equal(read, values[order])
        np.testing.assert_array_equal(read, table.read(asked))
    with pytest.raises(HsaeError, match="1 observations point to texts that are not among"):
        held.read(pl.Series([ids[0], "0" * 32]))
    assert held.lacking(pl.Series([ids[0], "0" * 32])).tolist() == [False, True]
    assert len(held.lacking(pl.Series([], dtype=pl.String))) == 0


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
    pl.Series(ascending).search_sorted(pl.Series(keys))
    once = time.process_time() - started
    assert vectors.place(batches, ascending, out).all()
    took = time.process_time() - started - once
    np.testing.assert_array_equal(out, values[np.argsort(keys)])
    # A look-up of all keys for each of the 2,000 batches would take 2,000 times as long as one.
    assert took < 100 * once + 1


def test_vectors_that_were_read_stay_those_of_the_result_whatever_becomes_of_the_table(tmp_path: Path) -> None:
    ids, values = made(100)
    table = filled(tmp_path, ids, values)
    held = stored(tmp_path, ids)
    table.append(*made(5, seed=1))
    shutil.rmtree(tmp_path / "lancedb")
    filled(tmp_path, ids, values + 1)
    np.testing.assert_array_equal(held.read(pl.Series(ids)), values)
    np.testing.assert_array_equal(stored(tmp_path, ids).read(pl.Series(ids)), values)


def test_the_file_goes_with_the_next_result_unless_another_dataset_has_it_and_comes_back(tmp_path: Path) -> None:
    ids, values = made(60)
    filled(tmp_path, ids, values)
    first, same = stored(tmp_path, ids[:50]), stored(tmp_path, ids[:50], "other")
    assert first.stored.folder == same.stored.folder
    second = stored(tmp_path, ids)
    assert first.stored.file("_vectors.npy").is_file(), "the other dataset has it"
    stored(tmp_path, ids, "other")
    assert not first.stored.file("_vectors.npy").exists() and first.record["texts"] == 50
    assert first.lacking(pl.Series(ids)).all(), "what is not there is embedded"
    np.testing.assert_array_equal(second.read(pl.Series(ids)), values)
    np.testing.assert_array_equal(stored(tmp_path, ids[:50]).read(pl.Series(ids[:50])), values[:50])


@pytest.mark.parametrize("name", ["_vectors.npy", "_units.parquet"])
@pytest.mark.parametrize("torn", [False, True])
def test_damage_is_noticed_and_the_result_made_again(tmp_path: Path, name: str, torn: bool) -> None:
    ids, values = made(60)
    filled(tmp_path, ids, values)
    path = stored(tmp_path, ids).stored.file(name)
    whole = path.read_bytes()
    for at in range(0, len(whole), 61):
        path.write_bytes(whole[:at] if torn else whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            read = StoredEmbeddings.current(ObjectStore(tmp_path), "mine").read(pl.Series(ids))
        except StorageError as error:
            assert str(path) in str(error) and "Materialize `embeddings` again." in str(error)
        else:  # of the header only what says how to read the rest matters
            assert not torn and at < 128 and name.endswith(".npy")
            np.testing.assert_array_equal(read, values)
    np.testing.assert_array_equal(stored(tmp_path, ids).read(pl.Series(ids)), values)
    assert path.read_bytes() == whole


def test_a_damaged_row_of_the_table_enters_no_result(tmp_path: Path) -> None:
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
    with pytest.raises(LackingVectors, match=f"1 texts have no vector.*{ids[7]}"):
        stored(tmp_path, ids)
    assert set(ids) - table.keys() == {ids[7]} and len(table.listed()) == 60
    others = [key for row, key in enumerate(ids) if row != 7]
    np.testing.assert_array_equal(stored(tmp_path, others).read(pl.Series(others)), np.delete(values, 7, axis=0))


def test_a_full_disk_is_an_error_and_no_end_of_the_process(tmp_path: Path) -> None:
    ids, values = made(600)
    table = filled(tmp_path, ids, values)
    limits, heard = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError):
            vectors.write_vectors(tmp_path / "full.npy", table, pl.Series(sorted(ids)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
