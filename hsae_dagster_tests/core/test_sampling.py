import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from hsae_dagster.core.concepts.fidelity import find_places, firing_bounds, sample_examples
from hsae_dagster.core.observations import TextUnits


@pytest.fixture
def activation() -> np.ndarray:
    values = np.zeros(300)
    values[100:200] = np.linspace(0.1, 10, 100)
    return values


def rows(examples) -> tuple[list[int], list[int]]:
    return examples.strong.tolist(), examples.silent.tolist()


def test_half_come_from_the_bin_and_half_are_exactly_silent(activation: np.ndarray) -> None:
    bounds = firing_bounds(activation, (80, 100))
    examples = sample_examples(activation, bounds, 20, np.random.default_rng(0))
    assert len(examples.strong) == len(examples.silent) == 10
    assert (activation[examples.strong] >= np.percentile(activation[activation > 0], 80)).all()
    assert (activation[examples.silent] == 0).all()
    assert len(set(examples.strong)) == len(set(examples.silent)) == 10


def test_a_middle_bin_leaves_out_the_top(activation: np.ndarray) -> None:
    bounds = firing_bounds(activation, (40, 60))
    examples = sample_examples(activation, bounds, 40, np.random.default_rng(0))
    low, high = np.percentile(activation[activation > 0], (40, 60))
    assert len(examples.strong) == 20
    assert activation[examples.strong].min() >= low
    assert activation[examples.strong].max() <= high


def test_every_text_of_the_bin_can_be_drawn_with_equal_chance(activation: np.ndarray) -> None:
    bounds = firing_bounds(activation, (80, 100))
    draws = [sample_examples(activation, bounds, 20, np.random.default_rng(seed)).strong for seed in range(400)]
    counts = np.bincount(np.concatenate(draws), minlength=300)[180:200]
    # 400 draws of 10 from 20: expected 200, standard deviation 10.
    assert counts.sum() == 4000
    assert (np.abs(counts - 200) < 50).all()


def test_the_generator_alone_decides(activation: np.ndarray) -> None:
    bounds = firing_bounds(activation, (80, 100))
    np.random.seed(1)  # noqa: NPY002 TID251 (the global state must neither matter nor move)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    seeds = ((0, 3, 0), (0, 3, 0), (0, 3, 1))
    first, again, other = (sample_examples(activation, bounds, 20, np.random.default_rng(seed)) for seed in seeds)
    assert rows(first) == rows(again)
    assert set(first.strong) != set(other.strong)
    assert set(first.silent) != set(other.silent)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002


def test_a_shortfall_is_not_made_up_on_the_other_side(activation: np.ndarray) -> None:
    activation[103:200] = 0
    examples = sample_examples(activation, (0.05, np.inf), 20, np.random.default_rng(0))
    assert sorted(examples.strong) == [100, 101, 102]
    assert len(examples.silent) == 10


def test_a_neuron_that_never_or_always_fires_leaves_its_side_empty() -> None:
    silent = sample_examples(np.zeros(50), firing_bounds(np.zeros(50), (80, 100)), 10, np.random.default_rng(0))
    assert (len(silent.strong), len(silent.silent)) == (0, 5)
    loud = sample_examples(np.ones(50), firing_bounds(np.ones(50), (80, 100)), 10, np.random.default_rng(0))
    assert (len(loud.strong), len(loud.silent)) == (5, 0)


def test_an_odd_count_gives_the_strong_side_one_more(activation: np.ndarray) -> None:
    examples = sample_examples(activation, (0.05, np.inf), 5, np.random.default_rng(0))
    assert (len(examples.strong), len(examples.silent)) == (3, 2)


def test_the_top_is_the_strongest_texts_for_every_candidate(activation: np.ndarray) -> None:
    first, second = (
        sample_examples(activation, (0.0, 1.0), 21, np.random.default_rng(seed), top=True) for seed in (0, 1)
    )
    assert first.strong.tolist() == second.strong.tolist() == list(range(189, 200))
    assert len(first.silent) == 10
    assert first.silent.tolist() != second.silent.tolist()


def test_a_neuron_that_fires_on_few_texts_has_a_top_of_those(activation: np.ndarray) -> None:
    few = np.where(np.arange(300) < 103, activation, 0)
    examples = sample_examples(few, (np.inf, np.inf), 20, np.random.default_rng(0), top=True)
    assert rows(examples)[0] == [100, 101, 102]
    assert len(examples.silent) == 10


def test_weakly_firing_texts_may_stand_against_strong_ones(activation: np.ndarray) -> None:
    strong, weak = (firing_bounds(activation, ends) for ends in ((80, 100), (0, 20)))
    examples = sample_examples(activation, strong, 20, np.random.default_rng(0), weak=weak)
    low, high = np.percentile(activation[activation > 0], (0, 20))
    assert len(examples.silent) == 10
    assert low <= activation[examples.silent].min()
    assert activation[examples.silent].max() <= high


def test_no_text_is_shown_on_both_sides() -> None:
    equal = np.r_[np.ones(50), np.zeros(10)]
    both = firing_bounds(equal, (0, 50))
    examples = sample_examples(equal, firing_bounds(equal, (50, 100)), 20, np.random.default_rng(0), weak=both)
    assert (len(examples.strong), len(examples.silent)) == (10, 0)


def test_half_of_the_silent_texts_are_drawn_from_the_nearest(activation: np.ndarray) -> None:
    bounds = firing_bounds(activation, (80, 100))
    silent = np.flatnonzero(activation == 0)
    likeness = np.zeros(len(activation))
    likeness[silent] = np.linspace(0.9, 0.0, len(silent))
    samples = [
        sample_examples(activation, bounds, 20, np.random.default_rng(seed), likeness=likeness) for seed in range(40)
    ]
    nearest = set(silent[:20])
    counts = [len(nearest & set(sample.silent)) for sample in samples]
    assert all(len(set(sample.silent)) == 10 for sample in samples)
    assert min(counts) >= 5
    assert 5 <= np.mean(counts) < 8
    assert len({tuple(sorted(nearest & set(sample.silent))) for sample in samples}) > 10


def test_the_sentence_that_matters_is_found_and_shown_between_its_neighbours() -> None:
    """Three texts: a b c, b d, c. Neuron 0 fires on unit b; c points almost as b does."""
    text_units = pl.DataFrame(
        {"text_id": ["1", "1", "1", "2", "2", "3"], "position": [0, 1, 2, 0, 1, 0], "unit_id": [*"abcbdc"]}
    )
    units = TextUnits.of(pl.DataFrame({"unit_id": [*"abcd"]}), text_units)
    unit_codes = sp.csc_matrix(np.array([[0.0, 1.0], [2.0, 0.0], [0.0, 0.0], [0.0, 3.0]]))
    vectors = np.array([[0.0, 1.0], [2.0, 0.0], [0.9, 0.1], [0.0, -1.0]], dtype=np.float32)
    codes = sp.csc_matrix(np.array([[2.0, 1.0], [2.0, 3.0], [0.0, 0.0]]))
    places = find_places(units, [*"ABCD"], unit_codes, [vectors[:3], vectors[3:]], codes, [(1.0, 9.0), (2.0, 9.0)])
    assert places.unit.tolist() == [[1, 0], [0, 1], [0, 0]]
    assert places.excerpt(0, 0, marked=True) == "A ⟦B⟧ C"
    assert places.excerpt(0, 1, marked=True) == "⟦A⟧ B …"
    assert places.excerpt(1, 1, marked=False) == "B D"
    assert places.excerpt(2, 0, marked=True) == "C"
    assert places.likeness[2] == pytest.approx([0.9 / np.hypot(0.9, 0.1), -0.1 / np.hypot(0.9, 0.1)])
    assert places.likeness[:2].max() == 0
    assert places.of_texts([2]).excerpt(0, 1, marked=True) == "C"
