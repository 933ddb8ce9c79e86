"""The grid of sizes and the figures of a candidate."""

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.sae_choice import Caps
from hsae_dagster.core.sae_grid import (
    Labels,
    WordReader,
    balanced_f1,
    batch_size,
    fit_of,
    fit_within,
    grid,
    head_neurons,
    redundancy,
    reference_size,
)


@pytest.mark.parametrize(
    ("n_texts", "expected"),
    [(300, (64, 4)), (1_000, (64, 4)), (10_000, (256, 8)), (20_000, (256, 8)), (10**6, (1024, 8))],
)
def test_the_reference_rule_of_thumb(n_texts: int, expected: tuple[int, int]) -> None:
    size = reference_size(n_texts)
    assert (size.m, size.k, size.label_weight) == (*expected, 0.0)


@pytest.mark.parametrize("n_texts", [2, 12, 91, 300, 1000, 5000, 50_000])
@pytest.mark.parametrize("n_select", [1, 4, 10, 20, 100])
def test_the_grid_grows_with_the_data_and_never_asks_for_more_than_it_carries(n_texts: int, n_select: int) -> None:
    sizes = grid(n_texts, n_select, (0.3, 0.1))
    assert sizes
    assert len(set(sizes)) == len(sizes)
    for size in sizes:
        assert 1 <= size.k <= size.m <= n_texts
        assert size.m <= max(n_texts // 4, min(n_select + 1, n_texts), 2)
    # Every guided size has its unguided twin, which comes first: the cap on reconstruction is relative to it.
    shapes = [(size.m, size.k) for size in sizes if size.label_weight == 0]
    weights = {shape: [size.label_weight for size in sizes if (size.m, size.k) == shape] for shape in shapes}
    assert set(map(tuple, weights.values())) <= {(0.0, 0.1, 0.3), (0.0,)}
    assert {(size.m, size.k) for size in sizes} == set(shapes)
    # The label guides small dictionaries, and larger ones where texts are many.
    unguided = [m for (m, _), tried in weights.items() if tried == [0.0]]
    assert not unguided or (n_texts < 20_000 and unguided == [max(m for m, _ in shapes)])
    assert len(grid(n_texts, n_select, ())) == len(shapes)
    assert len(shapes) <= len(grid(10 * n_texts, n_select, ()))


def test_sparser_codes_are_tried_where_texts_are_enough_to_tell() -> None:
    few, many = ({(size.m, size.k) for size in grid(n, 20, (0.1,))} for n in (7_000, 9_000))
    assert many - few == {(24, 6)}
    assert few == {(24, 8), (24, 12), (32, 8), (64, 16)}


def test_few_neurons_to_select_do_not_make_a_dictionary_that_is_redundant_by_its_size() -> None:
    assert {(size.m, size.k) for size in grid(318, 10, ())} == {(16, 4), (16, 5), (16, 8), (64, 16)}
    rng = np.random.default_rng(0)
    # Three of twelve neurons fire at random, or four of sixteen.
    alike = [
        redundancy(np.stack([rng.permutation(m) < k for _ in range(20_000)]).astype(float))
        for m, k in ((12, 3), (16, 4))
    ]
    assert alike == pytest.approx([1 / 11, 1 / 15], abs=0.005)
    assert alike[0] > 0.9 * Caps().redundancy > 0.06 > alike[1] - 0.01


def test_an_epoch_has_several_steps_however_few_texts_there_are() -> None:
    assert [batch_size(n) for n in (1, 91, 318, 1583, 4755, 10**6)] == [32, 32, 32, 256, 512, 512]


def test_redundancy_is_the_mean_absolute_correlation() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(200, 4))
    dense[:, 3] = -dense[:, 0]
    wanted = np.abs(np.corrcoef(dense.T))[~np.eye(4, dtype=bool)].mean()
    assert redundancy(dense) == pytest.approx(wanted)
    assert redundancy(np.column_stack([dense[:, 0], np.ones(200)])) == 0.0
    assert redundancy(dense[:, :1]) == 0.0


def test_a_share_of_the_neurons_predicts_the_label() -> None:
    assert [head_neurons(m, 1 / 3) for m in (2, 4, 16, 24, 32, 64)] == [2, 2, 5, 8, 11, 21]
    assert head_neurons(24, 1.0) == 24


def test_balanced_f1_does_not_hang_on_how_many_fire() -> None:
    fires = np.array([True] * 10 + [False] * 90)
    predicted = np.array([True] * 8 + [False] * 2 + [True] * 9 + [False] * 81)
    recall, alarms = 0.8, 0.1
    precision = recall / (recall + alarms)
    assert balanced_f1(predicted, fires) == pytest.approx(2 * precision * recall / (precision + recall))
    assert np.isnan(balanced_f1(predicted, np.zeros(100, dtype=bool)))


def test_words_read_a_neuron_that_follows_them_and_no_other() -> None:
    rng = np.random.default_rng(0)
    words = (rng.random((900, 30)) < 0.2).astype(float)
    follows = (words[:, 3] + words[:, 7]) > 0
    fires = np.column_stack([follows, rng.random(900) < 0.3])
    reader = WordReader(sp.csr_matrix(words[:600]), sp.csr_matrix(words[600:]))
    said = reader.read(fires[:600])
    assert said.shape == (300, 2)
    assert balanced_f1(said[:, 0], fires[600:, 0]) > 0.9
    assert balanced_f1(said[:, 1], fires[600:, 1]) < 0.6
    assert abs(said[:, 0].mean() - fires[:600, 0].mean()) < 0.1


@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
def test_fits_find_what_is_there(task: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 3))
    y = x[:, 0] + 0.5 * rng.normal(size=800)
    if task != "regression":
        y = (y > 0).astype(float)
    names = np.array([f"c{i % 50}" for i in range(400)])
    truth = Labels(task, y[:400], names, y[400:], names)
    floor = 0.7 if task == "regression" else 0.9
    noise = rng.normal(size=(800, 3))
    found, predicted = fit_of(x[:400], x[400:], truth)
    assert found > floor
    assert predicted.shape == (400,)
    assert fit_within(x[400:], truth) > floor - 0.05
    for unrelated in (fit_of(noise[:400], noise[400:], truth)[0], fit_within(noise[400:], truth)):
        assert unrelated < floor - 0.25
    assert np.isnan(fit_within(rng.normal(size=(400, 21)), truth))
