"""Two halves that confirm each other's findings."""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.corpus import build_corpus
from hsae_dagster.core.inference.joint_fit import Fit, averaged, averaged_floor
from hsae_dagster.core.inference.plan import corrected
from hsae_dagster.core.observations import SplitShares
from hsae_dagster.core.selection.stability import (
    NegativeControl,
    Said,
    alpha_shares,
    placed_in,
    rows_that_test,
    sides,
    together,
    twins,
)
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.simulated_designs import at_most
from hsae_dagster_tests.core.simulated_discovery import DISCOVERY, FIRST_LOOK

HALVES = SplitShares(validation=0.2, fidelity=0.0, holdout=0.3, salt="s", two_halves=True)


def rows(clusters: int, each: int = 10, label=lambda i: i % 3) -> pl.DataFrame:
    n = clusters * each
    return pl.DataFrame(
        {
            "text": [f"text number {i}" for i in range(n)],
            "label": [float(label(i)) for i in range(n)],
            "cluster": [f"c{i % clusters}" for i in range(n)],
            "file": ["f"] * n,
            "row": list(range(n)),
            "declared_split": pl.Series([None] * n, dtype=pl.String),
        }
    )


def test_halves_keep_components_whole_and_have_about_as_many_rows():
    made = build_corpus(rows(60), HALVES)
    placed = placed_in(made.observations)
    assert list(placed) == ["half A", "half B"]
    assert abs(placed["half A"].height / made.observations.height - 0.5) < 0.06
    assert made.observations.group_by("cluster_id").agg(pl.col("half", "split").n_unique()).max().row(0)[1:] == (1, 1)
    assert set(made.observations["split"]) == {"train", "validation"}
    assert set(made.texts.columns) >= {"half", "split"}


def test_few_or_unlike_clusters_are_refused_by_the_name_of_their_half():
    with pytest.raises(MethodError, match=r"landed in half [AB]"):
        build_corpus(rows(7), HALVES)
    with pytest.raises(MethodError, match=r"clusters of half [AB] have the label 1"):
        build_corpus(rows(40, label=lambda i: int(i % 40 == 0)), HALVES)


def test_each_side_sees_the_other_half_as_its_holdout_and_nothing_of_it_to_learn_from():
    made = build_corpus(rows(60), HALVES)
    first, second = sides(made.texts, made.observations)
    for side, other in ((first, second), (second, first)):
        held_out = set(side.observations.filter(pl.col("split") == "holdout")["obs_id"])
        assert held_out == set(rows_that_test(made.observations, side.half)["obs_id"])
        assert held_out == set(other.observations.filter(pl.col("split") != "holdout")["obs_id"])
        learned = set(side.texts.filter(pl.col("split") != "holdout")["text_id"])
        assert not learned & set(side.texts.filter(pl.col("split") == "holdout")["text_id"])
    assert set(rows_that_test(made.observations)["obs_id"]) == set(made.observations["obs_id"])


def test_a_corpus_with_a_holdout_has_one_side():
    made = build_corpus(rows(60), SplitShares(0.1, 0.1, 0.3, "s"))
    (side,) = sides(made.texts, made.observations)
    assert side.half == ""
    assert side.observations.equals(made.observations)
    assert set(rows_that_test(made.observations)["split"]) == {"holdout"}


def test_shares_of_alpha_add_up_and_do_not_depend_on_what_was_found():
    assert alpha_shares(halves=False, own=3, wanted=20) == {"": 1.0}
    assert alpha_shares(halves=True, own=0, wanted=20) == {"a": 0.5, "b": 0.5}
    assert alpha_shares(halves=True, own=5, wanted=20) == pytest.approx({"a": 0.4, "b": 0.4, "": 0.2})


def test_a_half_of_alpha_doubles_corrected_p_values_and_the_other_half_is_no_earlier_look():
    p, keys = np.array([0.001, 0.2]), ["a", "b"]
    whole, half = (corrected(p, keys, FIRST_LOOK, 0.05, share=share) for share in (1.0, 0.5))
    assert half.p_holm == pytest.approx(np.minimum(2 * whole.p_holm, 1))
    assert half.q_value == pytest.approx(np.minimum(2 * whole.q_value, 1))
    look = type(FIRST_LOOK)(2, "", True, {"a": 0.001, "x": 0.3, "y": 0.4})
    assert corrected(p, keys, look, 0.05, share=0.5, planned=["a", "b", "x"]).size == 3  # a, b and y
    assert corrected(p, keys, look, 0.05, share=0.5).size == 4


def said(concept: str, answers: np.ndarray, direction: int = 1, claim: str = "") -> Said:
    return Said(concept, claim or f"says {concept}", direction, answers.astype(np.int8))


def test_twins_are_equal_meanings_or_near_duplicates_with_one_direction_each_once():
    rng = np.random.default_rng(0)
    one = rng.random(400) < 0.3
    near, far = one ^ (rng.random(400) < 0.02), rng.random(400) < 0.3
    first = [said("same", far), said("one", one), said("far", far, claim="rare")]
    second = [said("near", near), said("same", far), said("opposite", ~one, direction=-1), said("against", one, -1)]
    pairs = twins(first, second, 0.8)
    # Each claim is in one pair; the most alike ones come first; what was found with the opposite direction is no twin.
    assert [(i, j) for i, j, _ in pairs] == [(0, 1), (1, 2)]
    assert [phi for *_, phi in pairs] == pytest.approx([1.0, -1.0])
    assert [(i, j) for i, j, _ in twins(first, second[:2], 0.8)] == [(0, 1), (1, 0)]
    # A meaning that no text has is still one meaning.
    nowhere = np.zeros(400)
    assert twins([said("k", nowhere)], [said("k", nowhere)], 0.8) == [(0, 0, 1.0)]


def test_a_mean_of_two_ladders_has_the_interval_of_independent_errors():
    ladders = [
        [Fit("words", "R2", v, v - 0.03, v + 0.04, "trained"), Fit(f"only {v}", "R2", v, v, v, "")] for v in (0.2, 0.4)
    ]
    (fit,) = averaged(ladders)
    assert (fit.value, fit.low, fit.high) == pytest.approx((0.3, 0.3 - 0.03 / 2**0.5, 0.3 + 0.04 / 2**0.5))
    assert fit.how == "trained, mean of halves"
    assert averaged([ladders[0]]) == tuple(ladders[0])
    assert averaged_floor([(0.1, 0.1), (0.3, 0.38)]) == pytest.approx((0.2, 0.24))


def test_a_permutation_of_both_halves_is_one_run():
    def control(*found: bool) -> NegativeControl:
        return NegativeControl("permuted labels", len(found), 10, sum(found), sum(found), 0.1, found)

    joined = together([control(True, False, False), control(True, True, False)])
    assert (joined.runs, joined.runs_with_any, joined.discoveries, joined.tested) == (3, 2, 3, 20)


@pytest.mark.parametrize("scenario", DISCOVERY, ids=lambda scenario: f"{scenario.name}, {scenario.measure}")
def test_two_halves_find_twice_as_much_at_the_promised_error(scenario):
    now, before = scenario.observe(60, 7)
    if scenario.measure == "true discoveries":
        assert now > 1.5 * before
    else:
        assert now <= at_most(0.05, 60)
