"""Vectors in LanceDB: keyed reads, appends, borrowing, refusals."""

from pathlib import Path

import numpy as np
import pytest

from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.errors import StorageError
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
