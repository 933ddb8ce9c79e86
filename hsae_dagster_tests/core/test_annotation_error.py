"""Annotation error: the drawn sample, the correction against its parts, bounds without gold, agreement."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from hsae_dagster.core.inference.annotation_error import (
    attenuation_band,
    corrected_separation,
    draw_gold,
    kappa,
    post_stratified,
    without_attenuation,
)
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.simulated_judges import corrected_once, judged_texts


def drawn(seed, n=4000, n_gold=400, **kwargs):
    rng = np.random.default_rng(seed)
    truth, judged, outcome, cluster = judged_texts(rng, 0.2, n=n, **kwargs)
    rows, chance = draw_gold(judged.astype(np.int8), n_gold, rng)
    gold, probability = np.full(n, np.nan), np.full(n, np.nan)
    gold[rows], probability[rows] = truth[rows], chance
    return truth, judged, outcome, cluster, gold, probability


def test_half_of_the_sample_is_judged_yes_and_the_chances_add_up():
    answers = np.r_[np.ones(300), np.zeros(700), -np.ones(50)].astype(np.int8)
    rows, chance = draw_gold(answers, 200, np.random.default_rng(0))
    assert (len(rows), (answers[rows] == 1).sum(), (answers[rows] < 0).sum()) == (200, 100, 0)
    assert len(set(rows)) == 200
    assert (1 / chance).sum() == pytest.approx(1000)
    few, chance = draw_gold(answers[280:], 200, np.random.default_rng(0))
    assert (len(few), (answers[280:][few] == 1).sum()) == (200, 20)
    assert len(draw_gold(answers[:5], 200, np.random.default_rng(0))[0]) == 5


def test_all_labelled_is_the_truth_itself():
    truth, judged, outcome, cluster = judged_texts(np.random.default_rng(1), 0.2, n=3000)
    found = corrected_separation(judged, outcome, cluster, truth, np.ones(3000))
    expected = outcome[truth == 1].mean() - outcome[truth == 0].mean()
    assert found.gold_only.estimate == pytest.approx(expected)
    assert found.corrected.estimate == pytest.approx(expected)


def test_a_perfect_judge_needs_hardly_any_gold():
    _, judged, outcome, cluster, gold, probability = drawn(2, sensitivity=1.0, fpr=0.0)
    found = corrected_separation(judged, outcome, cluster, gold, probability)
    everyone = outcome[judged == 1].mean() - outcome[judged == 0].mean()
    # People agree with the judge everywhere, so nearly all the weight is on the judge.
    assert found.omega > 0.85
    assert abs(found.corrected.estimate - everyone) < 0.3 * abs(found.gold_only.estimate - everyone) + 1e-12
    assert (found.sensitivity, found.false_positive_rate, found.kappa) == pytest.approx((1.0, 0.0, 1.0))


def test_a_judge_that_guesses_is_ignored():
    _, judged, outcome, cluster, gold, probability = drawn(3, sensitivity=0.5, fpr=0.5)
    found = corrected_separation(judged, outcome, cluster, gold, probability)
    assert abs(found.omega) < 0.3
    assert found.corrected.standard_error == pytest.approx(found.gold_only.standard_error, rel=0.1)


def test_the_correction_undoes_attenuation_and_is_surer_than_gold_alone():
    rng = np.random.default_rng(4)
    found = [corrected_once(rng, 0.1) for _ in range(60)]
    assert np.mean([naive for _, naive in found]) < 0.14
    assert np.mean([one.corrected.estimate for one, _ in found]) == pytest.approx(0.2, abs=0.02)
    widths = [(o.corrected.high - o.corrected.low) / (o.gold_only.high - o.gold_only.low) for o, _ in found]
    assert 0.6 < np.mean(widths) < 0.9
    assert np.mean([one.sensitivity for one, _ in found]) == pytest.approx(0.85, abs=0.03)


def test_errors_that_go_with_the_outcome_are_corrected_too():
    # The judge says yes more readily where the outcome is high: the naive effect is too large, and gold knows.
    rng, corrected, naive = np.random.default_rng(5), [], []
    for _ in range(40):
        truth, _, outcome, cluster = judged_texts(rng, 0.2, n=4000)
        judged = np.where(rng.random(4000) < np.where(truth == 1, 0.8, 0.02 + 0.4 * (outcome > 0.5)), 1.0, 0.0)
        rows, chance = draw_gold(judged.astype(np.int8), 400, rng)
        gold, probability = np.full(4000, np.nan), np.full(4000, np.nan)
        gold[rows], probability[rows] = truth[rows], chance
        corrected.append(corrected_separation(judged, outcome, cluster, gold, probability).corrected.estimate)
        naive.append(outcome[judged == 1].mean() - outcome[judged == 0].mean())
    assert np.mean(naive) > 0.27
    assert np.mean(corrected) == pytest.approx(0.2, abs=0.03)


def test_clusters_widen_the_interval():
    truth, judged, outcome, _, gold, probability = drawn(6)
    few = np.random.default_rng(0).integers(0, 40, len(truth))
    shifted = outcome + np.random.default_rng(1).normal(size=40)[few] * 0.5 * (1 + judged)
    alone = corrected_separation(judged, shifted, np.arange(len(truth)), gold, probability)
    together = corrected_separation(judged, shifted, few, gold, probability)
    assert together.corrected.estimate == pytest.approx(alone.corrected.estimate, abs=0.05)
    rarer = min(len(np.unique(few[gold == side])) for side in (0, 1))
    assert together.corrected.degrees_of_freedom == rarer - 1


def test_too_few_labels_give_a_reason_and_wrong_probabilities_an_error():
    _, judged, outcome, cluster, gold, probability = drawn(7)
    gold[np.flatnonzero(gold == 1)[5:]] = np.nan
    found = corrected_separation(judged, outcome, cluster, gold, probability)
    assert "5 labelled texts have the concept" in found.note
    assert np.isnan(found.corrected.estimate)
    with pytest.raises(MethodError, match="sampling probability"):
        corrected_separation(judged, outcome, cluster, gold, np.zeros(len(gold)))


def test_post_stratified_probabilities_are_those_of_the_draw():
    _, judged, _, _, gold, probability = drawn(8)
    again = post_stratified(judged.astype(np.int8), np.isfinite(gold))
    known = np.isfinite(gold)
    np.testing.assert_allclose(again[known], probability[known])


@pytest.mark.parametrize(("prevalence", "seen"), [(0.02, 0.05), (0.1, 0.13)])
def test_attenuation_is_that_of_the_evidence(prevalence, seen):
    # Sensitivity 0.85 and false-positive rate 0.05 show a separation of 0.20 as 0.05 and 0.13.
    observed = 0.85 * prevalence + 0.05 * (1 - prevalence)
    assert without_attenuation(seen, observed, 0.85, 0.95) == pytest.approx(0.2, abs=0.02)


def test_the_band_holds_the_truth_and_impossible_judges_are_left_out():
    _, judged, outcome, _ = judged_texts(np.random.default_rng(9), 0.2, n=200_000)
    naive = outcome[judged == 1].mean() - outcome[judged == 0].mean()
    low, high = attenuation_band(naive, judged.mean(), (0.75, 0.95), (0.92, 0.98))
    assert naive < low < 0.2 < high < 0.35
    assert np.isnan(without_attenuation(0.1, 0.03, 0.9, 0.95))  # fewer yes than false positives alone
    assert np.isnan(attenuation_band(0.1, 0.03, (0.8, 0.9), (0.9, 0.95))).all()
    assert attenuation_band(0.1, 0.3, (1.0, 1.0), (1.0, 1.0)) == pytest.approx((0.1, 0.1))


def test_kappa_is_cohens():
    rng = np.random.default_rng(10)
    a = rng.random(400) < 0.3
    b = np.where(rng.random(400) < 0.2, ~a, a)
    assert kappa(a.astype(float), b.astype(float)) == pytest.approx(cohen_kappa_score(a, b))
    weight = rng.integers(0, 4, 400)
    repeated = cohen_kappa_score(np.repeat(a, weight), np.repeat(b, weight))
    assert kappa(a.astype(float), b.astype(float), weight.astype(float)) == pytest.approx(repeated)
    assert np.isnan(kappa(np.ones(5), np.ones(5)))
    # Labels of a probe are booleans.
    assert kappa(a, b) == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(kappa(np.ones(5, dtype=bool), np.ones(5, dtype=bool)))


def test_labels_of_one_cluster_say_why_they_correct_nothing():
    rng = np.random.default_rng(8)
    truth, judged = rng.random(400) < 0.4, rng.random(400) < 0.4
    gold = np.where(np.arange(400) < 100, truth, np.nan)
    clusters = np.where(np.arange(400) < 100, 0, np.arange(400))
    found = corrected_separation(judged.astype(float), rng.normal(size=400), clusters, gold, np.full(400, 0.25))
    assert "one cluster" in found.note
    assert np.isnan(found.corrected.estimate)


def test_a_label_that_weighs_a_third_of_its_kind_has_the_error_that_labels_have():
    # 30 texts with the concept among the judged yes, one missed text that stands for 70: its residual is near 0.
    rng = np.random.default_rng(9)
    judged = np.r_[np.ones(100), np.zeros(3900)]
    gold, probability = np.full(4000, np.nan), np.full(4000, np.nan)
    gold[:100], probability[:100] = np.arange(100) < 30, 1.0
    gold[100:155], probability[100:155] = np.arange(55) == 0, 1 / 70
    outcome = rng.normal(size=4000)
    outcome[100] = outcome[:30].mean()  # by its residual it were known exactly
    found = corrected_separation(judged, outcome, np.arange(4000), gold, probability).gold_only
    least = np.sqrt(((70 / 100) ** 2 + 30 * (1 / 100) ** 2) * outcome[:30].var())
    assert found.standard_error > 0.95 * least
