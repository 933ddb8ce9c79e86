"""Vectors in LanceDB: keyed reads, appends, borrowing, refusals."""

from pathlib import Path

import numpy as np
import pytest

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import EmbeddingSet
from hsae_dagster.storage.vectors import VectorTable

FAMILY = EmbeddingSet("test", 4, "f" * 32)


def made(n: int, offset: int = 0) -> tuple[list[str], np.ndarray]:
    values = np.arange(offset, offset + n, dtype=np.float32)
    return [f"{int(v):032x}" for v in values], np.repeat(values[:, None], 4, axis=1)


def test_rows_come_back_in_the_order_asked_for_across_appends(tmp_path: Path) -> None:
    table = VectorTable(tmp_path, "mine", FAMILY)
    assert table.keys() == set()
    for start in (0, 50, 100):
        table.append(*made(50, start))
    ids, vectors = made(150)
    order = np.random.default_rng(0).permutation(150)
    read = VectorTable(tmp_path, "mine", FAMILY).read([ids[i] for i in order])
    assert read.dtype == np.float32
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, vectors[order])
    assert table.keys() == set(ids)


def test_texts_without_a_vector_are_told_from_the_others(tmp_path: Path) -> None:
    table, ids = VectorTable(tmp_path, "mine", FAMILY), made(10)[0]
    assert table.listed().len() == 0
    table.append(*made(4))
    assert sorted(table.listed()) == ids[:4]


def test_a_missing_vector_is_an_error_that_counts(tmp_path: Path) -> None:
    table = VectorTable(tmp_path, "mine", FAMILY)
    with pytest.raises(StorageError, match="has no embeddings"):
        table.read(["0" * 32])
    table.append(*made(3))
    with pytest.raises(StorageError, match="2 texts have no vector"):
        table.read([made(1)[0][0], "a" * 32, "b" * 32])


def test_wrong_shape_and_non_finite_vectors_never_enter(tmp_path: Path) -> None:
    table = VectorTable(tmp_path, "mine", FAMILY)
    ids, vectors = made(3)
    with pytest.raises(StorageError, match=r"shape \(3, 2\), expected \(3, 4\)"):
        table.append(ids, vectors[:, :2])
    vectors[1, 2] = np.nan
    with pytest.raises(StorageError, match=f"non-finite vector for text {ids[1]}"):
        table.append(ids, vectors)
    assert table.keys() == set()


def test_vectors_are_borrowed_only_within_one_embedding_set(tmp_path: Path) -> None:
    VectorTable(tmp_path, "lender", FAMILY).append(*made(5))
    VectorTable(tmp_path, "stranger", EmbeddingSet("test", 4, "e" * 32)).append(*made(5, 5))
    wanted = {*made(2, 3)[0], *made(2, 5)[0]}
    found, vectors, lenders = VectorTable(tmp_path, "mine", FAMILY).borrow(wanted)
    assert (found, lenders) == (made(2, 3)[0], ["lender"])
    np.testing.assert_array_equal(vectors, made(2, 3)[1])


def test_a_vector_that_changed_on_disk_is_absent_and_can_be_added_again(tmp_path: Path) -> None:
    table = VectorTable(tmp_path, "d", FAMILY)
    ids, vectors = [f"{i:032x}" for i in range(3)], np.arange(3 * FAMILY.dimensions, dtype=np.float32).reshape(3, -1)
    table.append(ids, vectors)
    (fragment,) = (tmp_path / "lancedb").glob("*.lance/data/*.lance")
    data = fragment.read_bytes()
    assert data.count(vectors[1].tobytes()) == 1
    fragment.write_bytes(data.replace(vectors[1].tobytes(), (vectors[1] + 1).tobytes()))
    table = VectorTable(tmp_path, "d", FAMILY)
    assert table.keys() == {ids[0], ids[2]}
    assert sorted(table.listed()) == ids
    with pytest.raises(StorageError, match=r"1 texts have no vector.*embeds only those"):
        table.read(ids)
    table.append(ids[1:2], vectors[1:2])
    np.testing.assert_array_equal(VectorTable(tmp_path, "d", FAMILY).read(ids), vectors)


def test_rows_that_another_process_added_meanwhile_are_not_added_again(tmp_path: Path) -> None:
    one, other = VectorTable(tmp_path, "d", FAMILY), VectorTable(tmp_path, "d", FAMILY)
    ids, vectors = [f"{i:032x}" for i in range(4)], np.ones((4, FAMILY.dimensions), dtype=np.float32)
    assert one.keys() == other.keys() == set()
    one.append(ids[:1], vectors[:1])
    other.append(ids[1:], vectors[1:])
    # The second append of `one` finds the version unchanged since its first, which had seen the rows of `other`.
    one.append(ids[:2], vectors[:2])
    one.append(ids[2:], vectors[2:])
    rows = [key for batch in one._rows(one._open()) for key in batch.column(0).to_pylist()]
    assert sorted(rows) == ids


def test_a_damaged_table_and_one_never_committed_are_no_riddle(tmp_path: Path) -> None:
    table = VectorTable(tmp_path, "d", FAMILY)
    folder = tmp_path / "lancedb" / f"{table.name}.lance"
    (folder / "data").mkdir(parents=True)  # as a process leaves it that was killed before its first commit
    assert table.keys() == set()
    table.append(["0" * 32], np.ones((1, FAMILY.dimensions), dtype=np.float32))
    (fragment,) = folder.glob("data/*.lance")
    fragment.write_bytes(fragment.read_bytes()[:20])
    with pytest.raises(StorageError, match=r"Embeddings of `d`.*cannot be read.*remove its folder and materialize"):
        VectorTable(tmp_path, "d", FAMILY).keys()
