"""The plan, what makes two holdouts one, and the family that several looks share."""

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.analysis_plan import (
    AnalysisPlan,
    Look,
    PlannedTest,
    corrected,
    holdout_fingerprint,
    holdout_keys,
    one_holdout,
    parted_by_controls,
)
from hsae_dagster.core.inference import benjamini_hochberg, holm


def make_plan(*concepts, alpha=0.05, annotator="lexical"):
    tests = tuple(PlannedTest(concept, f"claim {concept}", "found", 1) for concept in concepts)
    return AnalysisPlan("h0", tests, {"model": annotator}, {"task": "regression"}, {"alpha": alpha})


def make_look(earlier=(), number=1):
    return Look(number, "plan", frozen_before=True, earlier=dict(earlier), earlier_plans=())


def observations(n=200, seed=0, split_outcome=False):
    rng = np.random.default_rng(seed)
    label = rng.normal(size=n) if not split_outcome else (rng.random(n) < 0.5).astype(float)
    return pl.DataFrame({"text_id": [f"{i:032x}" for i in range(n)], "label": label, "cluster_id": "c"})


def test_everything_in_a_plan_changes_its_fingerprint_and_nothing_else_does():
    base = make_plan("a", "b")
    assert base.fingerprint == make_plan("a", "b").fingerprint
    others = [make_plan("a"), make_plan("b", "a"), make_plan("a", "b", alpha=0.1), make_plan("a", "b", annotator="x")]
    assert len({base.fingerprint, *(plan.fingerprint for plan in others)}) == 5


def test_the_same_test_has_one_key_in_all_plans_and_another_judge_makes_another_test():
    assert make_plan("a", "b").test_key("a") == make_plan("a", alpha=0.1).test_key("a")
    assert make_plan("a").test_key("a") != make_plan("a", annotator="x").test_key("a")


def test_controls_make_another_plan_but_no_other_test_unless_they_part_rows():
    def plan(controls, cluster_by="author", parted=False):
        model = {"task": "regression", "cluster_by": cluster_by, "controls": controls}
        return AnalysisPlan("h0", (), {"model": "lexical"}, model, {"alpha": 0.05}, controls_part_rows=parted)

    plain, week = plan([]), plan(["week"])
    assert plain.fingerprint != week.fingerprint
    assert plain.test_key("a") == week.test_key("a") != plan([], "week").test_key("a")
    family = corrected(np.array([0.01]), [week.test_key("a")], make_look({plain.test_key("a"): 0.01}, 2), 0.05)
    assert (family.size, family.p_holm[0]) == (1, 0.01)
    # Rows that differ in the control alone are tested only where it is declared.
    parted = plan(["week"], parted=True)
    assert parted.test_key("a") != plain.test_key("a")
    assert parted.fingerprint == week.fingerprint


def test_controls_part_rows_where_nothing_else_does():
    rows = observations(20).with_columns(pl.Series("obs_id", range(20)), pl.lit(1.0).alias("control:week"))
    assert not parted_by_controls(rows)
    other = rows[:1].with_columns(pl.lit(99, pl.Int64).alias("obs_id"), pl.lit(2.0).alias("control:week"))
    assert parted_by_controls(pl.concat([rows, other]))
    assert not parted_by_controls(pl.concat([rows, other.with_columns(pl.lit("d").alias("cluster_id"))]))


def test_first_look_is_plain_holm():
    p = np.array([0.001, 0.04, np.nan, 0.2])
    family = corrected(p, list("abcd"), make_look(), 0.05)
    np.testing.assert_array_equal(family.p_holm, holm(p))
    np.testing.assert_array_equal(family.q_value, benjamini_hochberg(p))
    assert (family.size, family.bonferroni) == (3, 1)


def test_a_second_look_corrects_over_the_union_and_counts_shared_tests_once():
    p = np.array([0.01, 0.02])
    look = make_look({"a": 0.01, "x": 0.5, "y": 0.9}, 2)
    family = corrected(p, ["a", "b"], look, 0.05)
    assert family.size == 4
    np.testing.assert_allclose(family.p_holm, holm(np.array([0.01, 0.02, 0.5, 0.9]))[:2])
    # Fifteen dead ends before: what would have been confirmed alone no longer is.
    many = make_look({f"t{i}": 0.5 for i in range(15)}, 2)
    assert corrected(np.array([0.02]), ["a"], make_look(), 0.05).p_holm[0] < 0.05
    assert corrected(np.array([0.02]), ["a"], many, 0.05).p_holm[0] > 0.05


def test_a_test_that_broke_off_still_counts():
    family = corrected(np.array([0.03]), ["a"], make_look({"x": np.nan}, 2), 0.05)
    assert family.size == 2
    assert family.p_holm[0] == pytest.approx(0.06)


def test_holdouts_are_the_same_by_texts_and_labels_in_any_order():
    first = observations()
    keys = holdout_keys(first)
    assert holdout_fingerprint(keys) == holdout_fingerprint(
        holdout_keys(first.sample(fraction=1.0, shuffle=True, seed=1))
    )
    assert holdout_fingerprint(keys) == holdout_fingerprint(holdout_keys(first.with_columns(cluster_id=pl.lit("d"))))
    moved = first.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(9.0).otherwise("label").alias("label"))
    assert holdout_fingerprint(keys) != holdout_fingerprint(holdout_keys(moved))


def test_a_grown_or_partly_shared_holdout_is_the_same_and_another_outcome_is_not():
    everything = holdout_keys(observations(400, split_outcome=True))
    assert one_holdout(everything[:300], everything)
    assert one_holdout(everything[:300], everything[100:])
    assert not one_holdout(everything[:200], everything[200:])
    rng = np.random.default_rng(1)
    shuffled = everything.with_columns(pl.Series("label", rng.permutation(everything["label"].to_numpy())))
    assert not one_holdout(everything, shuffled)


def test_one_corrected_label_among_many_does_not_make_a_holdout_fresh():
    keys = holdout_keys(observations(2000))
    corrected_one = keys.with_columns(pl.when(pl.int_range(pl.len()) == 7).then(3.0).otherwise("label").alias("label"))
    assert one_holdout(keys, corrected_one)


def test_family_wise_error_holds_over_a_second_look_at_the_same_null_holdout():
    rng = np.random.default_rng(2)
    wrong, uncorrected = 0, 0
    for _ in range(2000):
        p = rng.random(20)
        look = make_look({f"e{i}": x for i, x in enumerate(p[:10])}, 2)
        wrong += bool(
            corrected(p[10:], [f"n{i}" for i in range(10)], look, 0.05).p_holm.min() < 0.05 or p[:10].min() < 0.0025
        )
        uncorrected += bool(holm(p[:10]).min() < 0.05 or holm(p[10:]).min() < 0.05)
    assert wrong / 2000 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert uncorrected / 2000 > 0.08
