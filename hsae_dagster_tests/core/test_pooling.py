"""Codes of texts from codes of units, against a dense oracle."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.core import observations as pooling
from hsae_dagster.core.observations import Pool, TextUnits, pool_codes


def places(units_of: list[list[int]], n_units: int) -> TextUnits:
    """Texts t000, t001, … with units by position."""
    units = pl.DataFrame({"unit_id": [f"u{i:03d}" for i in range(n_units)]})
    rows = [(f"t{i:03d}", k, f"u{u:03d}") for i, found in enumerate(units_of) for k, u in enumerate(found)]
    return TextUnits.of(units, pl.DataFrame(rows, schema=["text_id", "position", "unit_id"], orient="row"))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    n_units, n_neurons = draw(st.integers(1, 8)), draw(st.integers(1, 5))
    # Few values, so that there are ties, and zeros.
    values = st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0, 3.25]), min_size=n_neurons, max_size=n_neurons)
    codes = np.array(draw(st.lists(values, min_size=n_units, max_size=n_units)), dtype=np.float32)
    texts = draw(st.lists(st.lists(st.integers(0, n_units - 1), min_size=1, max_size=6), min_size=1, max_size=7))
    return codes, texts


@settings(max_examples=150, deadline=None)
@given(cases(), st.sampled_from(["max", "mean", "sum"]), st.integers(1, 6))
def test_pooling_is_what_a_dense_matrix_gives(case: tuple[np.ndarray, list[list[int]]], how: Pool, block: int) -> None:
    codes, texts = case
    before, pooling._BLOCK_ENTRIES = pooling._BLOCK_ENTRIES, block
    try:
        found = pool_codes(sp.csr_matrix(codes), places(texts, len(codes)), how)
    finally:
        pooling._BLOCK_ENTRIES = before
    expected = np.stack([getattr(codes[rows].astype(np.float64), how)(axis=0) for rows in texts])
    np.testing.assert_allclose(found.codes.toarray(), expected, rtol=1e-6)
    assert found.codes.dtype == np.float32
    assert found.codes.has_sorted_indices
    assert (found.codes.data > 0).all()
    strongest = iter(found.strongest)
    for i, rows in enumerate(texts):
        for j in found.codes[i].indices:
            column = codes[rows, j]
            assert next(strongest) == rows[int(np.argmax(column))], "the first of the largest"
    assert next(strongest, None) is None


@settings(max_examples=60, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_some_texts_have_the_units_they_had(case: tuple[np.ndarray, list[list[int]]], random: object) -> None:
    codes, texts = case
    units = places(texts, len(codes))
    chosen = [i for i in range(len(texts)) if i % 2 == 0]
    some = units.of_texts(pl.Series([f"t{i:03d}" for i in chosen]))
    for place, i in enumerate(chosen):
        own = some.unit_ids.gather(some.rows[some.starts[place] : some.starts[place + 1]])
        assert own.to_list() == [f"u{u:03d}" for u in texts[i]]
    assert sorted(set(some.unit_ids)) == some.unit_ids.to_list()
    means = some.mean(codes[[int(key[1:]) for key in some.unit_ids]])
    np.testing.assert_allclose(means, [codes[texts[i]].mean(axis=0) for i in chosen], rtol=1e-6)


def test_texts_that_are_their_own_units_keep_their_codes() -> None:
    keys = pl.Series("unit_id", ["a", "b", "c"])
    frame = pl.DataFrame({"text_id": keys, "position": [0, 0, 0], "unit_id": keys})
    units = TextUnits.of(keys.to_frame(), frame)
    assert units.are_texts
    codes = sp.csr_matrix(np.array([[0, 2.0], [0, 0], [1.0, 3.0]], dtype=np.float32))
    found = pool_codes(codes, units)
    assert (found.codes != codes).nnz == 0
    assert found.strongest.tolist() == [0, 2, 2]
    assert not places([[0, 1], [1]], 2).are_texts


@pytest.mark.slow
def test_many_units_are_pooled_in_flat_memory() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    codes = sp.random_array((300_000, 64), density=0.1, format="csr", dtype=np.float32, rng=rng)
    starts = np.arange(0, 600_001, 6, dtype=np.int64)
    keys = pl.Series([f"{i:08d}" for i in range(300_000)])
    units = TextUnits(keys.head(100_000), keys, starts, rng.integers(0, 300_000, 600_000))
    tracemalloc.start()
    found = pool_codes(sp.csr_matrix(codes), units)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    size = found.codes.data.nbytes + found.codes.indices.nbytes + found.strongest.nbytes
    assert peak < 3 * size + 40 * 8 * pooling._BLOCK_ENTRIES
