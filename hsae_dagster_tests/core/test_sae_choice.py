"""Which candidate of a grid is taken: caps, parts of the clusters, the one-standard-error rule."""

from dataclasses import replace

import numpy as np
import pytest

from hsae_dagster.core.sae_choice import Caps, Choice, Trial, choose, contenders, kept_apart
from hsae_dagster.core.sae_grid import Judged, Labels, Size


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


def chosen_of(candidates: list[Judged], truth: Labels, caps: Caps | None = None) -> Choice:
    return choose([Trial(dict(enumerate(candidates)), truth)], caps or Caps())


def test_few_texts_alone_are_no_redundancy_of_guidance() -> None:
    truth = labels()
    pair = [
        candidate(24, 6, 0.0, 1.5, truth, redundancy=0.14),
        candidate(24, 6, 0.1, 0.5, truth, redundancy=0.13),
        candidate(24, 6, 0.3, 0.5, truth, redundancy=0.15),
    ]
    choice = chosen_of(pair, truth)
    assert choice.within_caps.tolist() == [True, True, False]
    assert choice.chosen == 1


def test_the_simplest_within_one_standard_error_is_taken() -> None:
    truth = labels()
    # The best by a hair, which a draw of other clusters would turn round.
    close = [candidate(24, 6, 0.0, 0.6, truth), candidate(64, 16, 0.3, 0.59, truth), candidate(16, 4, 0.0, 1.5, truth)]
    choice = chosen_of(close, truth)
    assert choice.best in (0, 1)
    assert choice.chosen == 0, "as good as the best, and smaller"
    assert choice.standard_errors[choice.best] == 0
    clear = [candidate(24, 6, 0.0, 1.2, truth), candidate(64, 16, 0.3, 0.5, truth)]
    choice = chosen_of(clear, truth, Caps(reconstruction=np.inf))
    assert choice.chosen == choice.best == 1
    assert choice.reason == "the best score"


def test_fewer_neurons_are_simpler_then_no_guidance_then_no_weight_on_distinctness() -> None:
    truth = labels()
    same = candidate(24, 6, 0.3, 0.6, truth)
    sizes = [(24, 6, 0.0), (24, 6, 0.3), (24, 6, 0.3, 1.0), (32, 4, 0.0), (32, 4, 0.3)]
    order = [Size(*size) for size in sizes]
    twins = [Judged(size, *_figures(same)) for size in reversed(order)]
    for left in range(len(order), 0, -1):
        assert chosen_of(twins[:left], truth).chosen == left - 1


def test_among_equally_simple_candidates_the_better_one_counts() -> None:
    truth = labels()
    for pair in (
        [candidate(24, 6, 0.1, 0.6, truth), candidate(24, 6, 0.3, 0.59, truth)],
        [candidate(24, 6, 0.3, 0.6, truth), candidate(24, 8, 0.3, 0.59, truth)],
    ):
        choice = chosen_of(pair, truth)
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
    choice = chosen_of([plain, copies, costly], truth)
    assert choice.within_caps.tolist() == [True, False, False]
    assert choice.chosen == 0
    # Nothing within the cap on redundancy: it is given up, and said so.
    choice = chosen_of([copies], truth)
    assert choice.within_caps.tolist() == [False]
    assert choice.chosen == 0
    assert "redundancy" in choice.reason
    dead = [candidate(24, 6, 0.0, 1.5, truth, dead_share=0.9)]
    assert "dead neurons" in chosen_of(dead, truth).reason


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
    choice = chosen_of([*grid_of_one, apart], truth)
    assert choice.within_caps.tolist() == [True, True, False, False, True]
    assert choice.chosen == choice.best


def test_a_candidate_that_could_not_be_judged_is_never_taken_over_one_that_could() -> None:
    truth = labels()
    judged = candidate(24, 6, 0.0, 1.5, truth)
    unable = Judged(Size(8, 2), *[float("nan")] * 5, 0.6, 0.0, np.zeros((2, 400)))
    assert chosen_of([unable, judged], truth, Caps(redundancy=1.0)).chosen == 1


def test_a_part_that_shows_a_candidate_by_luck_is_put_right_by_others() -> None:
    first, second, third = (labels(seed=seed) for seed in range(3))
    # The first part flatters the third candidate; on the others it predicts hardly anything.
    lucky = Trial(
        {
            0: candidate(24, 6, 0.0, 1.4, first),
            1: candidate(24, 6, 0.4, 0.5, first),
            2: candidate(32, 8, 0.4, 0.4, first),
        },
        first,
    )
    close = Trial({1: candidate(24, 6, 0.4, 0.5, second), 2: candidate(32, 8, 0.4, 1.5, second)}, second)
    assert chosen_of(list(lucky.judged.values()), first).chosen == 2
    choice = choose([lucky, close], Caps())
    assert choice.chosen == choice.best == 1
    assert choice.parts.tolist() == [1, 2, 2]
    assert choice.reason == "the best score, over 2 parts of the training and validation clusters"
    mean = np.mean([trial.judged[1].score for trial in (lucky, close)])
    assert choice.scores[1] == pytest.approx(mean)
    # One that was judged once lies as far behind the best as it did there.
    behind = lucky.judged[1].score - lucky.judged[0].score
    assert choice.scores[0] == pytest.approx(mean - behind)
    again = Trial({1: candidate(24, 6, 0.4, 0.5, third)}, third)
    assert choose([lucky, close, again], Caps()).chosen == 1


def test_the_standard_error_over_parts_is_that_of_a_mean() -> None:
    parts = [labels(seed=seed) for seed in range(4)]
    trials = [Trial({0: candidate(24, 6, 0.0, 0.6, p), 1: candidate(32, 8, 0.0, 0.55, p)}, p) for p in parts]
    single = [choose([trial], Caps()).standard_errors.max() for trial in trials]
    assert choose(trials, Caps()).standard_errors.max() == pytest.approx(np.sqrt(np.sum(np.square(single))) / 4)


def test_contenders_are_within_the_caps_and_not_clearly_behind() -> None:
    truth = labels()
    grid = [
        candidate(24, 6, 0.0, 1.5, truth),
        candidate(24, 6, 0.2, 0.5, truth),
        candidate(24, 6, 0.4, 0.52, truth),
        candidate(32, 8, 0.4, 0.3, truth, redundancy=0.3),
    ]
    trial = Trial(dict(enumerate(grid)), truth)
    assert contenders([trial], Caps()) == [1, 2]
    later = Trial({1: grid[1]}, truth)
    assert contenders([trial, later], Caps()) == [1], "who dropped out stays out"
    assert choose([trial, later], Caps()).chosen == 1


def test_guided_neurons_are_kept_apart_by_as_much_however_few_they_are() -> None:
    truth = labels()
    alike = [candidate(24, 6, 0.0, 1.5, truth), candidate(24, 6, 0.2, 0.4, truth, redundancy=0.3)]
    (whole,), (third,) = kept_apart(alike, Caps()), kept_apart(alike, Caps(), head_share=1 / 3)
    assert third.distinct_weight == pytest.approx(whole.distinct_weight / 9)


def test_neurons_that_are_hardly_too_alike_are_kept_apart_more_gently() -> None:
    truth = labels()
    likeness = (0.101, 0.12, 0.15, 0.4)
    alike = [candidate(24, 6, 0.0, 1.5, truth), *(candidate(24, 6, 0.2, 0.4, truth, redundancy=r) for r in likeness)]
    weights = [size.distinct_weight for size in kept_apart(alike, Caps())]
    assert weights[0] > 0
    assert weights[0] < weights[1] < weights[2] == weights[3] == pytest.approx(0.75 * 0.2)
    # What counts is how far beyond the cap they are, wherever that is.
    twice = [replace(one, redundancy=2 * one.redundancy) for one in alike]
    assert [size.distinct_weight for size in kept_apart(twice, Caps(redundancy=0.2))] == pytest.approx(weights)
