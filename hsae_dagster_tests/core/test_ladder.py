"""The ladder: rungs on other clusters than were learned from, the weakest step, and honesty where there is nothing."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.core.inference.joint_fit import (
    ALL_NEURONS,
    CONCEPTS,
    EMBEDDINGS,
    FIRED,
    RUNGS,
    SELECTED,
    Fit,
    Rows,
    Score,
    chance_level,
    measure_rungs,
    read_ladder,
)


def fits(*values, metric="R2"):
    return [
        Fit(name, metric, value, value - 0.02, value + 0.02, "trained")
        for name, value in zip(RUNGS, values, strict=False)
    ]


def losing_most(below):
    """A ladder of R² that loses most on the step down to this rung."""
    values, value = [], 0.4
    for name in RUNGS:
        value -= 0.15 if name == below else 0.01
        values.append(value)
    return fits(*values)


def test_shares_are_distances_from_chance_over_the_ceilings():
    reading = read_ladder(fits(0.8, 0.75, 0.70, 0.65, 0.62, metric="AUC"), (0.5, 0.53))
    assert [share for _, share in reading.kept] == pytest.approx([1.0, 0.25 / 0.3, 0.2 / 0.3, 0.5, 0.4])
    assert [step.lost for step in reading.steps] == pytest.approx([0.05 / 0.3, 0.05 / 0.3, 0.05 / 0.3, 0.1])


@pytest.mark.parametrize("below", RUNGS[1:])
def test_the_weakest_step_is_the_one_that_loses_most(below):
    worst = read_ladder(losing_most(below), (0.0, 0.01)).weakest
    assert worst is not None
    assert worst.below == below
    assert worst.above == RUNGS[RUNGS.index(below) - 1]


def test_no_step_is_blamed_when_none_loses_much_and_a_gain_is_no_loss():
    assert read_ladder(fits(0.4, 0.4, 0.41, 0.40, 0.39), (0.0, 0.01)).weakest is None
    reading = read_ladder(fits(0.4, 0.2, 0.3, 0.3, 0.3), (0.0, 0.01))
    assert reading.steps[1].lost == pytest.approx(-0.25)
    assert reading.weakest is not None
    assert reading.weakest.below == ALL_NEURONS


def test_a_ladder_without_concepts_or_with_a_gap_reads_what_there_is():
    reading = read_ladder(fits(0.4, math.nan, 0.2, 0.2), (0.0, 0.01))
    assert [name for name, _ in reading.kept] == [EMBEDDINGS, SELECTED, FIRED]
    assert reading.steps[0].below == SELECTED
    assert read_ladder([], (0.0, 0.1)).state == "not measured"
    assert read_ladder(fits(math.nan, 0.2), (0.0, 0.1)).state == "not measured"
    assert read_ladder(fits(0.4), (0.0, 0.1)).state == "not measured"


def test_a_ceiling_that_chance_reaches_is_no_signal():
    assert read_ladder(fits(0.02, 0.4), (0.0, 0.03)).state == "no signal"
    assert read_ladder(fits(0.54, 0.53, metric="AUC"), (0.5, 0.55)).state == "no signal"


@given(st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5), st.floats(-0.1, 0.1))
def test_the_losses_add_up_to_what_the_concepts_lack(values, chance):
    reading = read_ladder(fits(*values), (chance, chance + 0.01))
    if reading.state == "read":
        assert sum(step.lost for step in reading.steps) == pytest.approx(1 - dict(reading.kept)[CONCEPTS], abs=1e-6)


def rows(seed, n=900, m=40):
    """Embeddings whose first two directions drive the outcome; only the first survives in the neurons."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, m))
    y = x[:, 0] + x[:, 1] + rng.normal(size=n)
    neurons = np.maximum(np.column_stack([x[:, [0, 2, 3]], -x[:, 0]]), 0)
    features = {EMBEDDINGS: x, SELECTED: neurons, FIRED: (neurons > 0).astype(float)}
    return Rows(features, y, rng.integers(0, 60, n))


def test_measured_rungs_find_where_a_direction_was_lost():
    learn, held_out = rows(0), rows(1)
    scorer = Score("regression", held_out.clusters, 50, 0)
    told: list[str] = []
    found = measure_rungs(learn, held_out, scorer, told.append)
    assert told == [fit.name for fit in found] == [EMBEDDINGS, SELECTED, FIRED]
    assert all(fit.low < fit.value < fit.high for fit in found)
    ceiling, selected, fired = (fit.value for fit in found)
    assert ceiling == pytest.approx(2 / 3, abs=0.06)
    assert ceiling / 2.5 < selected < ceiling * 0.6, "half of what can be known is in one direction"
    chance = chance_level(np.asarray(held_out.features[FIRED]), held_out, "regression", folds=5, seed=0)
    assert chance[0] < 0.02 < fired
    worst = read_ladder(found, chance).weakest
    assert worst is not None
    assert worst.below == SELECTED


def test_held_out_outcomes_do_not_shape_what_is_scored():
    learn, held_out = rows(0), rows(1)
    rng = np.random.default_rng(2)
    shuffled = Rows(held_out.features, rng.permutation(held_out.outcome), held_out.clusters)
    scorer = Score("regression", held_out.clusters, 0, 0)
    assert max(fit.value for fit in measure_rungs(learn, shuffled, scorer, lambda _: None)) < 0.02
