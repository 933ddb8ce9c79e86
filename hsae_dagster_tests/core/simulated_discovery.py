"""Discovery and confirmation as one procedure: how much is found, and how often something false."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import stats

from hsae_dagster.core.inference.effects import holm
from hsae_dagster.core.inference.plan import Look, corrected, one_sided, training_weights
from hsae_dagster_tests.core.simulated_rates import ALPHA, Scenario

Generator = np.random.Generator
FEATURES, TRUE, CHOSEN = 200, 10, 20
FIRST_LOOK = Look(number=1, plan="", frozen_before=True, earlier={})


def z_values(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Student's t of each 0/1 column of x, close to a normal z."""
    centred, outcome = x - x.mean(axis=0), y - y.mean()
    r = centred.T @ outcome / np.sqrt(np.maximum((centred**2).sum(axis=0), 1e-12) * (outcome @ outcome))
    return r * np.sqrt((len(y) - 2) / (1 - r**2))


def simulated(rng: Generator, n: int, effect: float, clusters: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, outcome and component: ten of 200 features matter; clusters have an outcome of their own."""
    component = np.arange(n) if clusters is None else rng.integers(0, clusters, n)
    component = np.unique(component, return_inverse=True)[1]
    x = (rng.random((n, FEATURES)) < 0.1).astype(float)
    own = 0.0 if clusters is None else rng.normal(size=component.max() + 1)[component] * 0.5
    return x, effect * x[:, :TRUE].sum(axis=1) + own + rng.normal(size=n), component


def found_before(rng: Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Features confirmed by 60 / 10 / 30 and two-sided Holm."""
    place = rng.random(len(y))
    train, test = place < 0.6, place >= 0.7
    z = z_values(x[train], y[train])
    best = np.argsort(-np.abs(z))[:CHOSEN]
    p = 2 * stats.norm.sf(np.abs(z_values(x[test][:, best], y[test])))
    return best[holm(p) < ALPHA]


def found_now(rng: Generator, x: np.ndarray, y: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Features confirmed by two halves of whole components, each of which tests what the other found."""
    half = (rng.permutation(component.max() + 1) % 2)[component]
    found = [np.empty(0, dtype=int)]
    for tested_on in (0, 1):
        learned, other = half != tested_on, half == tested_on
        z = z_values(x[learned], y[learned])
        best = np.argsort(-np.abs(z))[:CHOSEN]
        weights = training_weights(z[best], 1.0, ALPHA / 2)
        again = z_values(x[other][:, best], y[other])
        two_sided = 2 * stats.norm.sf(np.abs(again))
        p = np.array([one_sided(*each) for each in zip(two_sided, again, z[best], strict=True)])
        family = corrected(p, [str(j) for j in best], FIRST_LOOK, ALPHA, weights, share=0.5)
        found.append(best[family.p_holm < ALPHA])
    return np.unique(np.concatenate(found)).astype(int)


def _true_ones(n: int, rng: Generator) -> tuple[float, float]:
    x, y, component = simulated(rng, n, 0.3, None)
    return float((found_now(rng, x, y, component) < TRUE).sum()), float((found_before(rng, x, y) < TRUE).sum())


def _false_ones(n: int, effect: float, rng: Generator) -> tuple[float, float]:
    x, y, component = simulated(rng, n, effect, None)
    first = 0 if effect == 0 else TRUE
    return float((found_now(rng, x, y, component) >= first).any()), float((found_before(rng, x, y) >= first).any())


DISCOVERY: Sequence[Scenario] = (
    *(Scenario(f"10 of 200 true, n = {n:,}", "true discoveries", TRUE, partial(_true_ones, n)) for n in (1500, 3000)),
    *(
        Scenario(f"10 of 200 true, n = {n:,}", "family-wise error", ALPHA, partial(_false_ones, n, 0.3))
        for n in (1500, 3000)
    ),
    Scenario("none of 200 true, n = 1,500", "family-wise error", ALPHA, partial(_false_ones, 1500, 0.0)),
)
