"""Holdouts with a known truth, for the tests of inference. Every function takes its generator."""

from collections.abc import Callable

import numpy as np

from hsae_dagster.core.inference.effects import holm, separation
from hsae_dagster.core.observations import HoldoutDesign

Simulate = Callable[[np.random.Generator], HoldoutDesign]


def make_design(concepts, outcome, clusters=None, controls=None, task="classification") -> HoldoutDesign:
    n = len(outcome)
    return HoldoutDesign(
        concepts=np.asarray(concepts, dtype=float).reshape(n, -1),
        outcome=np.asarray(outcome, dtype=float),
        clusters=np.arange(n) if clusters is None else np.asarray(clusters),
        controls=np.empty((n, 0)) if controls is None else np.asarray(controls, dtype=float).reshape(n, -1),
        task=task,
    )


def independent_texts(rng, n=1000, prevalence=0.1, base=0.5, h=20, gaussian=False) -> HoldoutDesign:
    outcome = rng.normal(size=n) if gaussian else rng.random(n) < base
    task = "regression" if gaussian else "classification"
    return make_design(rng.random((n, h)) < prevalence, outcome, task=task)


def authors_with_labels(
    rng, authors=100, texts=10, prevalence=0.2, habit=1.0, base=0.5, h=20, gaussian=False
) -> HoldoutDesign:
    """Labels belong to authors; so do habits (beta, the smaller `habit` the more so). Nothing goes with the label."""
    author = np.repeat(np.arange(authors), rng.poisson(texts - 1, authors) + 1)
    label = rng.normal(size=authors) if gaussian else rng.random(authors) < base
    habits = rng.beta(prevalence * habit, (1 - prevalence) * habit, size=(authors, h))
    outcome = label[author] + 0.5 * rng.normal(size=len(author)) if gaussian else label[author]
    task = "regression" if gaussian else "classification"
    return make_design(rng.random((len(author), h)) < habits[author], outcome, author, task=task)


def pairs_within_tests(rng, tests=200, arms=4, prevalence=0.2, h=20, effect=0.0) -> HoldoutDesign:
    """All pairs of the arms of each test, in random orientation; the arm with the higher score wins."""
    has = rng.random((tests, arms, h)) < prevalence
    score = rng.normal(size=(tests, arms)) + effect * has[:, :, 0]
    concepts, outcome, cluster = [], [], []
    for a in range(arms):
        for b in range(a + 1, arms):
            sign = np.where(rng.random(tests) < 0.5, 1.0, -1.0)
            concepts.append(sign[:, None] * (has[:, a].astype(float) - has[:, b]))
            outcome.append((sign * (score[:, a] - score[:, b]) > 0).astype(float))
            cluster.append(np.arange(tests))
    return make_design(np.concatenate(concepts), np.concatenate(outcome), np.concatenate(cluster), task="pairwise")


def turn_round(design: HoldoutDesign, which: np.ndarray) -> HoldoutDesign:
    """Call B what was A in `which` pairs (bool)."""
    sign = np.where(which, -1.0, 1.0)
    return HoldoutDesign(
        concepts=design.concepts * sign[:, None],
        outcome=np.where(which, 1 - design.outcome, design.outcome),
        clusters=design.clusters,
        controls=design.controls * sign[:, None],
        task=design.task,
    )


def p_values(design: HoldoutDesign, min_positives: int = 20) -> np.ndarray:
    """Separation p of every concept with enough texts; NaN for the others."""
    enough = (np.nan_to_num(design.concepts) != 0).sum(axis=0) >= min_positives
    return np.array([separation(design, j).p_value if enough[j] else np.nan for j in range(design.concepts.shape[1])])


def family_wise_error(simulate: Simulate, repetitions: int, seed: int, alpha: float = 0.05) -> float:
    """Share of repetitions in which Holm confirms anything."""
    rng = np.random.default_rng(seed)
    return float(np.mean([np.nanmin(holm(p_values(simulate(rng)))) < alpha for _ in range(repetitions)]))


def rejection(simulate: Simulate, repetitions: int, seed: int, alpha: float = 0.05) -> float:
    """Share of single tests below alpha."""
    rng = np.random.default_rng(seed)
    found = np.concatenate([p_values(simulate(rng)) for _ in range(repetitions)])
    return float(np.mean(found[np.isfinite(found)] < alpha))


def at_most(nominal: float, repetitions: int) -> float:
    """Nominal plus three Monte-Carlo standard errors."""
    return nominal + 3 * float(np.sqrt(nominal * (1 - nominal) / repetitions))


def small_design(seed=0, n=600, task="classification", h=4):
    rng = np.random.default_rng(seed)
    concepts = (rng.random((n, h)) < 0.3).astype(float)
    if task == "pairwise":
        concepts -= rng.random((n, h)) < 0.3
    drive = 1.0 * concepts[:, 0] - 0.7 * concepts[:, 1]
    outcome = drive + rng.normal(size=n)
    if task != "regression":
        outcome = rng.random(n) < 1 / (1 + np.exp(-drive))
    return make_design(concepts, outcome, rng.integers(0, n // 4, n), rng.normal(size=(n, 1)), task)


def numbers(effect):
    return [effect.estimate, effect.standard_error, effect.low, effect.high, effect.p_value]


def with_column(design: HoldoutDesign, column) -> HoldoutDesign:
    return make_design(
        np.column_stack([column, design.concepts]), design.outcome, design.clusters, design.controls, design.task
    )
