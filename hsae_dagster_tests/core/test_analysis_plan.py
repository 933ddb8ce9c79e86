"""The plan, what makes two holdouts one, and the family that several looks share."""

import numpy as np
import polars as pl
import pytest
from scipy import stats

from hsae_dagster.core.inference.effects import benjamini_hochberg, holm
from hsae_dagster.core.inference.plan import (
    AnalysisPlan,
    Look,
    PlannedTest,
    corrected,
    holdout_fingerprint,
    holdout_keys,
    level,
    one_holdout,
    one_sided,
    training_weights,
)


def make_plan(*concepts, alpha=0.05, annotator="lexical"):
    tests = tuple(PlannedTest(concept, f"claim {concept}", "found", 1) for concept in concepts)
    return AnalysisPlan("h0", tests, {"model": annotator}, {"task": "regression"}, {"alpha": alpha})


def make_look(earlier=(), number=1):
    return Look(number, "plan", frozen_before=True, earlier=dict(earlier))


def observations(n=200, seed=0, split_outcome=False):
    rng = np.random.default_rng(seed)
    label = rng.normal(size=n) if not split_outcome else (rng.random(n) < 0.5).astype(float)
    return pl.DataFrame({"text_id": [f"{i:032x}" for i in range(n)], "label": label, "cluster_id": "c"})


def keys_of(observations, words=str):
    texts = observations.select("text_id").unique()
    texts = texts.with_columns(texts["text_id"].map_elements(words, return_dtype=pl.String).alias("text"))
    return holdout_keys(observations, texts)


def test_everything_in_a_plan_changes_its_fingerprint_and_nothing_else_does():
    base = make_plan("a", "b")
    assert base.fingerprint == make_plan("a", "b").fingerprint
    others = [make_plan("a"), make_plan("b", "a"), make_plan("a", "b", alpha=0.1), make_plan("a", "b", annotator="x")]
    assert len({base.fingerprint, *(plan.fingerprint for plan in others)}) == 5


def test_the_same_test_has_one_key_in_all_plans_and_another_judge_makes_another_test():
    assert make_plan("a", "b").test_key("a") == make_plan("a", alpha=0.1).test_key("a")
    assert make_plan("a").test_key("a") != make_plan("a", annotator="x").test_key("a")


def test_controls_and_clusters_make_another_test():
    def plan(controls, cluster_by="author"):
        model = {"task": "regression", "cluster_by": cluster_by, "controls": controls}
        return AnalysisPlan("h0", (), {"model": "lexical"}, model, {"alpha": 0.05})

    plain, week = plan([]), plan(["week"])
    assert plain.fingerprint != week.fingerprint
    assert len({plain.test_key("a"), week.test_key("a"), plan([], "week").test_key("a")}) == 3
    family = corrected(np.array([0.01]), [week.test_key("a")], make_look({plain.test_key("a"): 0.01}, 2), 0.05)
    assert (family.size, family.p_holm[0]) == (2, 0.02)


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
    keys = keys_of(first)
    assert holdout_fingerprint(keys) == holdout_fingerprint(keys_of(first.sample(fraction=1.0, shuffle=True, seed=1)))
    assert holdout_fingerprint(keys) == holdout_fingerprint(keys_of(first.with_columns(cluster_id=pl.lit("d"))))
    moved = first.with_columns(pl.when(pl.int_range(pl.len()) == 3).then(9.0).otherwise("label").alias("label"))
    assert holdout_fingerprint(keys) != holdout_fingerprint(keys_of(moved))


def test_a_grown_or_partly_shared_holdout_is_the_same_and_another_outcome_is_not():
    everything = keys_of(observations(400, split_outcome=True))
    assert one_holdout(everything[:300], everything)
    assert one_holdout(everything[:300], everything[100:])
    assert not one_holdout(everything[:200], everything[200:])
    rng = np.random.default_rng(1)
    shuffled = everything.with_columns(pl.Series("label", rng.permutation(everything["label"].to_numpy())))
    assert not one_holdout(everything, shuffled)


CODINGS = {
    "times 100": lambda y: 100 * y,
    "logarithm": lambda y: np.log(y - y.min() + 1),
    "median split": lambda y: (y > np.median(y)).astype(float),
    "rounded": np.round,
    "winsorised": lambda y: np.clip(y, *np.quantile(y, [0.05, 0.95])),
    "turned round": lambda y: -y,
    "a few corrected": lambda y: np.where(np.arange(len(y)) % 200 == 0, -y, y),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_another_coding_of_the_outcome_is_no_fresh_holdout(coding):
    rows = observations(1500)
    recoded = rows.with_columns(pl.Series("label", CODINGS[coding](rows["label"].to_numpy())))
    assert one_holdout(keys_of(rows), keys_of(recoded, lambda key: f" {key.upper()}!"))


def test_one_class_against_the_rest_and_the_next_are_one_holdout_and_another_outcome_is_not():
    rng = np.random.default_rng(3)
    rows, classes = observations(600), rng.integers(0, 3, 600)
    first, second = (rows.with_columns(pl.Series("label", (classes == k).astype(float))) for k in (0, 1))
    assert one_holdout(keys_of(first), keys_of(second))
    other = rows.with_columns(pl.Series("label", ((classes == 0) ^ (rng.random(600) < 0.3)).astype(float)))
    assert not one_holdout(keys_of(first), keys_of(other))


def sentences(n, first=0, words=40):
    rng = np.random.default_rng(8)
    every = [" ".join(f"w{rng.integers(3000)}" for _ in range(words)) for _ in range(first + n)][first:]
    return pl.DataFrame({"text_id": [f"{first + i:032x}" for i in range(n)], "text": every})


EDITS = {
    "behind a heading": lambda text: f"for immediate release today {text}",
    "shortened": lambda text: " ".join(text.split()[:20]),
    "in chunks": lambda text: [" ".join(text.split()[i : i + 14]) for i in (0, 14, 28)],
    "a word corrected": lambda text: text.replace(text.split()[7], "corrected", 1),
}


@pytest.mark.parametrize("edit", EDITS)
def test_texts_that_were_cut_or_edited_are_no_fresh_holdout(edit):
    texts = sentences(400)
    label = np.random.default_rng(9).normal(size=400)
    keys = holdout_keys(texts.select("text_id", pl.Series("label", label)), texts)
    rows = [
        (part, y) for text, y in zip(texts["text"], label, strict=True) for part in np.atleast_1d(EDITS[edit](text))
    ]
    edited = pl.DataFrame({"text_id": [f"e{i}" for i in range(len(rows))], "text": [str(part) for part, _ in rows]})
    labels = edited.select("text_id", pl.Series("label", [y for _, y in rows]))
    assert one_holdout(keys, holdout_keys(labels, edited))
    others = sentences(400, first=400).with_columns(text="for immediate release today " + pl.col("text"))
    fresh = holdout_keys(others.select("text_id", pl.Series("label", label)), others)
    assert not one_holdout(keys, fresh)
    assert not one_holdout(holdout_keys(labels, edited), fresh)


def test_a_pair_turned_round_is_the_same_pair():
    texts = sentences(300)
    ids, wins = texts["text_id"], (np.random.default_rng(2).random(150) < 0.5).astype(float)
    pairs = pl.DataFrame({"text_id_a": ids[:150], "text_id_b": ids[150:], "label": wins})
    turned = pl.DataFrame({"text_id_a": ids[150:], "text_id_b": ids[:150], "label": 1 - wins})
    assert holdout_fingerprint(holdout_keys(pairs, texts)) == holdout_fingerprint(holdout_keys(turned, texts))


def test_levels_of_all_rounds_add_up_to_alpha_and_a_first_report_may_have_it_all():
    levels = [level(0.05, 0.8, k) for k in range(1, 2000)]
    assert levels[:4] == [0.04, 0.006, 0.0015, 0.00067]
    assert 0.045 < sum(levels) <= 0.05
    assert [level(0.05, 1.0, 1), level(0.05, 1.0, 2)] == [0.05, 0.0]
    # What an earlier report has spent beyond its share is not there for a later one.
    assert level(0.05, 0.8, 2, spent=0.05) == 0
    assert level(0.05, 0.8, 2, spent=0.047) == pytest.approx(0.003)
    # The smallest alpha leaves its first report something, and what has spent more than it leaves nothing.
    assert [level(1e-30, 0.8, 1), level(1e-30, 0.8, 1, spent=0.04)] == [8e-31, 0.0]


def rounds_of_a_null(rng, refreshes, alpha_of, fresh):
    """Whether any report of a growing dataset without any effect confirms a claim: 20 selected of 60, then tested."""
    n, wrong = 150, False
    labels, claims = rng.normal(size=0), np.empty((0, 60))
    held = np.zeros(0, dtype=bool)
    for k in range(1, refreshes + 2):
        new = n if k > 1 else 2 * n
        labels = np.concatenate([labels, rng.normal(size=new)])
        claims = np.vstack([claims, rng.normal(size=(new, 60)) > 1])
        came = np.zeros(len(labels), dtype=bool)
        came[-n:] = True
        held = came if fresh else np.concatenate([held, came[len(held) :]])
        z = [separation_z(claims[rows], labels[rows]) for rows in (~held, held)]
        taken = np.argsort(-np.abs(z[0]))[:20]
        p = stats.t.sf(z[1][taken] * np.sign(z[0][taken]), int(held.sum()) - 2)
        wrong |= bool((corrected(p, [str(i) for i in taken], make_look(), 0.05).p_holm < alpha_of(k)).any())
    return wrong


def separation_z(claims, labels):
    on, n = claims.sum(0), len(labels)
    means = (labels @ claims) / on, (labels.sum() - labels @ claims) / (n - on)
    return (means[0] - means[1]) / (labels.std() * np.sqrt(1 / on + 1 / (n - on)))


def test_repeated_refreshes_of_a_null_confirm_in_at_most_five_per_cent_of_sequences():
    rng = np.random.default_rng(12)
    runs = 500
    spent = sum(rounds_of_a_null(rng, 6, lambda k: level(0.05, 0.8, k), fresh=True) for _ in range(runs)) / runs
    assert spent <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / runs)
    # The same reports at 5 % each, on a holdout that grows or on fresh rows, err in more than a fifth of sequences.
    for fresh in (False, True):
        each = sum(rounds_of_a_null(rng, 6, lambda _: 0.05, fresh=fresh) for _ in range(150)) / 150
        assert each > 0.15


def test_a_few_phrases_that_everybody_writes_do_not_make_two_holdouts_one():
    everything = keys_of(observations(1003))
    assert not one_holdout(everything[:503], everything[500:])


def test_weights_that_training_texts_suggest_keep_the_error_and_find_more():
    rng = np.random.default_rng(4)
    wrong, found, evenly = 0, 0, 0
    for _ in range(1500):
        true = np.arange(20) < 5
        train, z = rng.normal(size=20) + 3 * true, rng.normal(size=20) + 2.4 * true
        p = stats.norm.sf(z * np.sign(train))
        family = corrected(p, [str(i) for i in range(20)], make_look(), 0.05, training_weights(train, 0.8, 0.05))
        wrong += bool((family.p_holm[~true] < 0.05).any())
        found += int((family.p_holm[true] < 0.05).sum())
        evenly += int((holm(p)[true] < 0.05).sum())
    assert wrong / 1500 < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert found > 1.1 * evenly


def test_one_corrected_label_among_many_does_not_make_a_holdout_fresh():
    keys = keys_of(observations(2000))
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


def test_one_sided_p_is_for_the_frozen_direction():
    assert one_sided(0.04, 0.2, 1.0) == 0.02
    assert one_sided(0.04, -0.2, 1.0) == 0.98
    assert one_sided(0.04, -0.2, 0.0) == 0.04
