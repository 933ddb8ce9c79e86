"""Texts with a true concept, an outcome that follows from it, and a judge that is sometimes wrong."""

import numpy as np

from hsae_dagster.core.inference.annotation_error import Corrected, corrected_separation, draw_gold


def judged_texts(rng, prevalence, n=5000, effect=0.2, sensitivity=0.85, fpr=0.05, clustered=False):
    """Truth, judge's labels, outcome and clusters; if `clustered`, concept and outcome have habits by author."""
    cluster = np.repeat(np.arange(n // 10), 10) if clustered else np.arange(n)
    chance = rng.beta(2 * prevalence, 2 * (1 - prevalence), n)[cluster] if clustered else prevalence
    truth = (rng.random(n) < chance).astype(float)
    judged = np.where(rng.random(n) < np.where(truth == 1, sensitivity, fpr), 1.0, 0.0)
    noise = (rng.normal(size=n)[cluster] * 0.3 + rng.normal(size=n) * 0.4) if clustered else rng.normal(size=n) * 0.5
    return truth, judged, effect * truth + noise, cluster


def corrected_once(rng, prevalence, n_gold=400, **kwargs) -> tuple[Corrected, float]:
    """The corrected effect from a drawn gold sample, and the naive one."""
    truth, judged, outcome, cluster = judged_texts(rng, prevalence, **kwargs)
    rows, chance = draw_gold(judged.astype(np.int8), n_gold, rng)
    gold, probability = np.full(len(truth), np.nan), np.full(len(truth), np.nan)
    gold[rows], probability[rows] = truth[rows], chance
    naive = outcome[judged == 1].mean() - outcome[judged == 0].mean()
    return corrected_separation(judged, outcome, cluster, gold, probability), float(naive)
