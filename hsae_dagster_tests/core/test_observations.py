"""Lining up texts, observations and pairs."""

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from hsae_dagster.core.observations import (
    BLOCKS,
    firing_separation,
    holdout_design,
    is_pairwise,
    observation_matrix,
    outcome_per_text,
    text_rows,
    with_blocks,
)
from hsae_dagster.errors import MethodError

IDS = pl.Series("text_id", ["a", "b", "c", "d"])
SINGLES = pl.DataFrame(
    {"text_id": ["d", "a", "a", "c"], "label": [1.0, 2.0, 4.0, 5.0], "cluster_id": ["x", "y", "y", "z"]}
)
PAIRS = pl.DataFrame(
    {
        "text_id_a": ["a", "c", "b"],
        "text_id_b": ["b", "a", "c"],
        "label": [1.0, 0.0, 1.0],
        "cluster_id": ["f", "f", "g"],
    }
)


def test_rows_of_keys():
    assert text_rows(IDS, pl.Series(["d", "a", "a"])).tolist() == [3, 0, 0]
    assert text_rows(IDS, pl.Series([], dtype=pl.String)).tolist() == []
    assert text_rows(IDS, pl.Series(["d"])).dtype == np.int64


@pytest.mark.parametrize("lost", ["zz", "aa", None])
def test_a_key_that_is_not_there_is_an_error_and_never_a_neighbour(lost):
    with pytest.raises(MethodError, match="1 observations point to texts that are not among the 4"):
        text_rows(IDS, pl.Series(["a", lost], dtype=pl.String))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_observation_matrix_takes_rows_or_differences(form):
    per_text = form(np.array([[1.0, 0], [2, 0], [0, 3], [0, 4]]))
    singles = observation_matrix(per_text, IDS, SINGLES)
    pairs = observation_matrix(per_text, IDS, PAIRS)
    assert sp.issparse(singles) == sp.issparse(pairs) == sp.issparse(per_text)
    dense = [x.toarray() if sp.issparse(x) else x for x in (singles, pairs)]
    assert dense[0].tolist() == [[0, 4], [1, 0], [1, 0], [0, 3]]
    assert dense[1].tolist() == [[-1, 0], [-1, 3], [2, -3]]
    assert is_pairwise(PAIRS)
    assert not is_pairwise(SINGLES)


def test_firing_separation():
    # d and c fire: (1 + 5) / 2 - (2 + 4) / 2.
    assert firing_separation(np.array([False, False, True, True]), IDS, SINGLES) == pytest.approx(0.0)
    assert firing_separation(np.array([True, False, False, False]), IDS, SINGLES) == pytest.approx(3 - 3)
    assert firing_separation(np.array([False, False, True, False]), IDS, SINGLES) == pytest.approx(5 - 7 / 3)
    # a fires: wins against b, wins against c (label 0 with a on side B): 2 of 2.
    assert firing_separation(np.array([True, False, False, False]), IDS, PAIRS) == pytest.approx(0.5)
    assert firing_separation(np.array([True] * 4), IDS, PAIRS) == 0.0
    assert firing_separation(np.array([True] * 4), IDS, SINGLES) == 0.0


def test_outcome_per_text():
    np.testing.assert_allclose(outcome_per_text(IDS, SINGLES), [3.0, np.nan, 5.0, 1.0])
    # a won both of its pairs, b lost to a and beat c, c lost both.
    np.testing.assert_allclose(outcome_per_text(IDS, PAIRS), [1.0, 0.5, 0.0, np.nan])


def test_outcome_per_text_does_not_depend_on_the_naming_of_sides():
    turned = PAIRS.select(
        pl.col("text_id_b").alias("text_id_a"),
        pl.col("text_id_a").alias("text_id_b"),
        (1 - pl.col("label")).alias("label"),
    )
    np.testing.assert_allclose(outcome_per_text(IDS, turned), outcome_per_text(IDS, PAIRS))


def test_design_of_texts():
    answers = np.array([[1, 0], [0, 1], [-1, 1], [0, 0]], dtype=np.int8)
    design = holdout_design(answers, IDS, np.array([9, 99, 0, 3]), SINGLES, "regression")
    np.testing.assert_array_equal(design.concepts, [[0, 0], [1, 0], [1, 0], [np.nan, 1]])
    np.testing.assert_allclose(design.controls, np.log1p([[3], [9], [9], [0]]))
    assert design.outcome.tolist() == [1, 2, 4, 5]
    assert design.clusters.tolist() == ["x", "y", "y", "z"]


def test_design_of_pairs_is_signed_and_a_missing_side_is_missing():
    answers = np.array([[1, 1], [0, 1], [-1, 0], [0, 0]], dtype=np.int8)
    design = holdout_design(answers, IDS, np.array([9, 99, 0, 3]), PAIRS, "pairwise")
    np.testing.assert_array_equal(design.concepts, [[1, 0], [np.nan, -1], [np.nan, 1]])
    np.testing.assert_allclose(design.controls[0], np.log1p(9) - np.log1p(99))


def controls_of(**columns):
    n = len(next(iter(columns.values())))
    observations = pl.DataFrame(
        {"text_id": ["a"] * n, "label": [0.0] * n, "cluster_id": ["x"] * n}
        | {f"control:{name}": values for name, values in columns.items()}
    )
    answers = np.zeros((4, 1), dtype=np.int8)
    return holdout_design(answers, IDS, np.array([1, 1, 1, 1]), observations, "regression").controls[:, 1:]


def test_numbers_with_gaps_take_their_mean():
    np.testing.assert_allclose(controls_of(age=[1.0, None, 3.0, float("nan")])[:, 0], [1, 2, 3, 2])
    np.testing.assert_allclose(controls_of(age=pl.Series([None, None], dtype=pl.Float64))[:, 0], [0, 0])


@pytest.mark.parametrize(("values", "expected"), [([1, None, 3], [1, 2, 3]), ([True, False, None], [1, 0, 0.5])])
def test_whole_numbers_and_truth_values_are_numbers(values, expected):
    np.testing.assert_allclose(controls_of(x=values)[:, 0], expected)


def test_categories_are_indicators_with_a_base_and_gaps_a_category():
    found = controls_of(state=["b", "a", None, "c", "a"])
    # Sorted: (none), a, b, c; the first is the base.
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0]])


def test_no_category_shares_a_column_with_others():
    names = [f"s{i:02d}" for i in range(61)]
    np.testing.assert_array_equal(controls_of(state=names), np.eye(61)[:, 1:])


def test_one_category_is_no_control():
    assert controls_of(state=["a", "a", "a"]).shape == (3, 0)


def test_blocks_of_time_are_the_clusters_where_each_cluster_lies_in_one_and_a_unit_elsewhere():
    rng = np.random.default_rng(0)
    day = np.sort(rng.integers(0, 90, 600)).astype(float)
    blocks, units = with_blocks(day, np.arange(600), None)
    assert units is None
    assert np.bincount(blocks).tolist() == pytest.approx([600 / BLOCKS] * BLOCKS, abs=10)
    assert (np.diff(blocks) >= 0).all()
    assert len(np.unique(np.column_stack([day, blocks]), axis=0)) == len(np.unique(day))  # days are not parted
    author = rng.integers(0, 30, 600)
    clusters, units = with_blocks(day, author, np.zeros((600, 1), dtype=np.int64))
    assert (clusters == author).all()
    assert units[:, 0].max() < units[:, 1].min()
    assert (np.unique(units[:, 1], return_inverse=True)[1] == blocks).all()
