"""A sample judged and the rest by a probe: the effect is the judge's own, and intervals cover it."""

import sys

import numpy as np
import pytest

from hsae_dagster.core.inference.annotation_error import Corrected, distilled_separation, draw_sample, probe_labels

DIMENSIONS = 16
EFFECT = 0.3


def world(
    rng: np.random.Generator, prevalence: float, n: int = 10_000, clustered: bool = True
) -> tuple[np.ndarray, ...]:
    """Unit vectors, the judge's answers on all texts, outcome, clusters, and the activation of a neuron near it.

    The outcome also depends on the vectors: whoever mistakes vectors for the concept is wrong about the effect.
    """
    cluster = np.repeat(np.arange(n // 8), 8) if clustered else np.arange(n)
    vectors = rng.normal(size=(n, DIMENSIONS)) + 0.5 * rng.normal(size=(n, DIMENSIONS))[cluster]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    leaning = 16.0 * vectors[:, 0] + rng.logistic(size=n)
    answers = (leaning > np.quantile(leaning, 1 - prevalence)).astype(float)
    activation = np.maximum(vectors[:, 0] + 0.2 * rng.normal(size=n), 0.0)
    noise = rng.normal(size=n) * 0.5 + rng.normal(size=n)[cluster] * 0.2
    return vectors, answers, EFFECT * answers + 0.5 * vectors[:, 0] + noise, cluster, activation


def once(rng: np.random.Generator, prevalence: float, size: int, others: int = 0) -> tuple[Corrected, float]:
    """The corrected effect, and the one that the judge's answers on all texts would show on average.

    The sample is shared with so many other concepts, whose neurons fire for other texts.
    """
    vectors, answers, outcome, cluster, activation = world(rng, prevalence)
    firing = np.maximum(vectors[:, 1 : 1 + others] + 0.2 * rng.normal(size=(len(answers), others)), 0.0)
    sample = draw_sample(np.column_stack([activation, firing]), size, rng)
    labels = probe_labels(vectors, cluster, sample, answers[sample.rows], rng)
    judged, chance = np.full(len(answers), np.nan), np.full(len(answers), np.nan)
    judged[sample.rows], chance[sample.rows] = answers[sample.rows], sample.probability
    found = distilled_separation(labels, outcome, cluster, judged, chance)
    # The outcome without its noise.
    mean = EFFECT * answers + 0.5 * vectors[:, 0]
    return found, float(mean[answers == 1].mean() - mean[answers == 0].mean())


@pytest.mark.slow
@pytest.mark.parametrize("prevalence", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_intervals_cover_what_judging_every_text_would_find(prevalence: float) -> None:
    """With a tenth of the calls, shared by ten concepts, and a probe that is far from perfect."""
    rng = np.random.default_rng(int(1000 * prevalence))
    results = [once(rng, prevalence, 1000, others=9) for _ in range(1000)]
    kept = [(found, true) for found, true in results if not found.note]
    assert len(kept) >= 950
    covered = np.mean([found.corrected.low <= true <= found.corrected.high for found, true in kept])
    bias = np.mean([found.corrected.estimate - true for found, true in kept])
    width = np.median([found.corrected.high - found.corrected.low for found, _ in kept])
    sys.stderr.write(f"prevalence {prevalence:.0%}: {covered:.1%} covered, bias {bias:.4f}, width {width:.2f}\n")
    assert 0.93 <= covered <= 0.97
    assert abs(bias) < 0.01


def test_the_correction_is_surer_than_the_sample_alone_and_never_far_off() -> None:
    rng = np.random.default_rng(3)
    results = [once(rng, 0.1, 400) for _ in range(40)]
    widths = np.array([[f.gold_only.standard_error, f.corrected.standard_error] for f, _ in results])
    assert np.median(widths[:, 1] / widths[:, 0]) < 0.95
    assert abs(np.mean([f.corrected.estimate - true for f, true in results])) < 0.05


def test_a_sample_has_the_chances_it_says() -> None:
    scores = np.r_[np.zeros(900), np.linspace(1, 2, 100)]
    counts = np.zeros(1000)
    for seed in range(400):
        sample = draw_sample(scores[:, None], 100, np.random.default_rng(seed))
        counts[sample.rows] += 1.0 / sample.probability
        assert len(sample.rows) == len(set(sample.rows)) == 100
        assert list(sample.rows) == sorted(sample.rows)
    assert counts[900:].mean() / 400 == pytest.approx(1.0, abs=0.05)
    assert counts[:900].mean() / 400 == pytest.approx(1.0, abs=0.05)
    whole = draw_sample(scores[:, None], 5000, np.random.default_rng(0))
    assert (len(whole.rows), whole.probability.min()) == (1000, 1.0)


def test_a_probe_labels_no_text_of_a_cluster_it_learned_from() -> None:
    """Answers that follow from the cluster alone cannot be guessed."""
    rng = np.random.default_rng(0)
    cluster = np.repeat(np.arange(100), 10)
    vectors = rng.normal(size=(100, 64))[cluster] + 0.01 * rng.normal(size=(1000, 64))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    answers = (rng.random(100) < 0.5).astype(float)[cluster]
    sample = draw_sample(np.zeros((1000, 1)), 1000, rng)
    labels = probe_labels(vectors, cluster, sample, answers, rng)
    assert abs((labels == answers).mean() - 0.5) < 0.15


def test_answers_that_are_all_alike_are_every_texts_label_and_no_effect() -> None:
    rng = np.random.default_rng(0)
    vectors, _, outcome, cluster, activation = world(rng, 0.1, n=400)
    sample = draw_sample(activation[:, None], 100, rng)
    labels = probe_labels(vectors, cluster, sample, np.zeros(100), rng)
    judged, chance = np.full(400, np.nan), np.full(400, np.nan)
    judged[sample.rows], chance[sample.rows] = 0.0, sample.probability
    found = distilled_separation(labels, outcome, cluster, judged, chance)
    assert not labels.any()
    assert found.note.startswith("0 labelled texts have the concept and 100 lack it")
    assert np.isnan(found.corrected.p_value)


def test_concepts_share_a_sample_in_which_each_has_its_firing_texts() -> None:
    rng = np.random.default_rng(0)
    scores = np.maximum(rng.normal(size=(20_000, 10)) - 2, 0)
    sample = draw_sample(scores, 1000, rng)
    assert len(sample.rows) == len(set(sample.rows)) == 1000
    assert (1 / sample.probability).sum() == pytest.approx(20_000)
    strongest = np.argsort(-scores, axis=0)[:100]
    assert (np.isin(strongest, sample.rows).mean(axis=0) > 0.3).all()
    nothing = draw_sample(np.zeros((1000, 0)), 100, rng)
    assert set(nothing.probability) == {0.1}
