"""The grid of sizes, the figures of a candidate, and the one-standard-error rule."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from hsae_dagster.core.sae_grid import (
    Caps,
    Judged,
    Labels,
    Size,
    WordReader,
    balanced_f1,
    batch_size,
    choose,
    fit_of,
    fit_within,
    grid,
    kept_apart,
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
    assert [size.label_weight for size in sizes] == [0.0, 0.1, 0.3] * len(shapes)
    assert {(size.m, size.k) for size in sizes} == set(shapes)
    assert len(grid(n_texts, n_select, ())) == len(shapes)
    assert len(shapes) <= len(grid(10 * n_texts, n_select, ()))


def test_few_neurons_to_select_do_not_make_a_dictionary_that_is_redundant_by_its_size() -> None:
    assert {(size.m, size.k) for size in grid(318, 10, ())} == {(16, 4), (16, 5), (64, 16)}
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


def test_few_texts_alone_are_no_redundancy_of_guidance() -> None:
    truth = labels()
    pair = [
        candidate(24, 6, 0.0, 1.5, truth, redundancy=0.14),
        candidate(24, 6, 0.1, 0.5, truth, redundancy=0.13),
        candidate(24, 6, 0.3, 0.5, truth, redundancy=0.15),
    ]
    choice = choose(pair, truth, Caps())
    assert choice.within_caps.tolist() == [True, True, False]
    assert choice.chosen == 1


def test_redundancy_is_the_mean_absolute_correlation() -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(200, 4))
    dense[:, 3] = -dense[:, 0]
    wanted = np.abs(np.corrcoef(dense.T))[~np.eye(4, dtype=bool)].mean()
    assert redundancy(dense) == pytest.approx(wanted)
    assert redundancy(np.column_stack([dense[:, 0], np.ones(200)])) == 0.0
    assert redundancy(dense[:, :1]) == 0.0


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


def labels(n: int = 400, clusters: int = 40, seed: int = 0) -> Labels:
    rng = np.random.default_rng(seed)
    y = rng.normal(size=2 * n)
    names = np.array([f"c{i % clusters}" for i in range(n)])
    return Labels("regression", y[:n], names, y[n:], names)


def candidate(m: int, k: int, weight: float, noise: float, truth: Labels, **changes: float) -> Judged:
    """A candidate whose two predictions are the label plus noise of a given size."""
    rng = np.random.default_rng([m, k, int(100 * weight)])
    y = truth.validation
    predictions = np.stack([0.5 * (y + noise * rng.normal(size=len(y))) for _ in range(2)])
    fits = [1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum() for p in predictions]
    figures = {"words": 0.1, "fidelity": 0.8, "redundancy": 0.05, "nmse": 0.6, "dead_share": 0.0} | changes
    return Judged(Size(m, k, weight), *fits, **figures, predictions=predictions)


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    truth = labels()
    # The best by a hair, which a draw of other clusters would turn round.
    close = [candidate(24, 6, 0.0, 0.6, truth), candidate(64, 16, 0.3, 0.59, truth), candidate(16, 4, 0.0, 1.5, truth)]
    choice = choose(close, truth, Caps())
    assert choice.best in (0, 1)
    assert choice.chosen == 0, "as good as the best, and smaller"
    assert choice.standard_errors[choice.best] == 0
    clear = [candidate(24, 6, 0.0, 1.2, truth), candidate(64, 16, 0.3, 0.5, truth)]
    choice = choose(clear, truth, Caps(reconstruction=np.inf))
    assert choice.chosen == choice.best == 1
    assert choice.reason == "the best score"


def test_fewer_neurons_are_simpler_then_fewer_per_text_then_no_guidance() -> None:
    truth = labels()
    same = candidate(24, 6, 0.3, 0.6, truth)
    sizes = [(24, 4, 0.0), (24, 4, 0.3), (24, 4, 0.3, 1.0), (24, 6, 0.0), (24, 6, 0.3), (32, 4, 0.0)]
    order = [Size(*size) for size in sizes]
    twins = [Judged(size, *_figures(same)) for size in reversed(order)]
    for left in range(len(order), 0, -1):
        assert choose(twins[:left], truth, Caps()).chosen == left - 1


def test_among_equally_simple_candidates_the_better_one_counts() -> None:
    truth = labels()
    pair = [candidate(24, 6, 0.1, 0.6, truth), candidate(24, 6, 0.3, 0.59, truth)]
    choice = choose(pair, truth, Caps())
    assert choice.chosen == choice.best


def _figures(judged: Judged) -> tuple:
    return (
        judged.signal,
        judged.fired,
        judged.words,
        judged.fidelity,
        judged.redundancy,
        judged.nmse,
        judged.dead_share,
        judged.predictions,
    )


def test_caps_bind_and_give_way_in_turn() -> None:
    truth = labels()
    plain = candidate(24, 6, 0.0, 1.5, truth)
    costly = candidate(24, 6, 0.3, 0.4, truth, nmse=0.67)
    copies = candidate(24, 6, 0.1, 0.4, truth, redundancy=0.2)
    choice = choose([plain, copies, costly], truth, Caps())
    assert choice.within_caps.tolist() == [True, False, False]
    assert choice.chosen == 0
    # Nothing within the cap on redundancy: it is given up, and said so.
    choice = choose([copies], truth, Caps())
    assert choice.within_caps.tolist() == [False]
    assert choice.chosen == 0
    assert "redundancy" in choice.reason
    dead = [candidate(24, 6, 0.0, 1.5, truth, dead_share=0.9)]
    assert "dead neurons" in choose(dead, truth, Caps()).reason


def test_only_guided_neurons_that_are_too_alike_are_kept_apart() -> None:
    truth = labels()
    plain = candidate(24, 6, 0.0, 1.5, truth, redundancy=0.2)
    grid_of_one = [
        plain,
        candidate(24, 6, 0.1, 0.4, truth, redundancy=0.19),
        candidate(24, 6, 0.2, 0.4, truth, redundancy=0.3),
        candidate(24, 6, 0.4, 0.4, truth, redundancy=0.3, nmse=0.9),
    ]
    again = kept_apart(grid_of_one, Caps())
    # No likelier than the unguided ones: not guidance's doing. Rebuilds too badly: of no use either way.
    assert again == [Size(24, 6, 0.2, distinct_weight=again[0].distinct_weight)]
    assert again[0].distinct_weight > 0
    apart = replace(candidate(24, 6, 0.2, 0.39, truth, redundancy=0.06), size=again[0])
    assert kept_apart([plain, apart], Caps()) == []
    choice = choose([*grid_of_one, apart], truth, Caps())
    assert choice.within_caps.tolist() == [True, True, False, False, True]
    assert choice.chosen == choice.best


def test_a_candidate_that_could_not_be_judged_is_never_taken_over_one_that_could() -> None:
    truth = labels()
    judged = candidate(24, 6, 0.0, 1.5, truth)
    unable = Judged(Size(8, 2), *[float("nan")] * 5, 0.6, 0.0, np.zeros((2, 400)))
    assert choose([unable, judged], truth, Caps(redundancy=1.0)).chosen == 1


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
