"""The ladder: what each step from embeddings to concepts keeps of what can be predicted, and where most is lost.

Belongs here: the names and the order of the rungs, measuring those that are fitted elsewhere and scored on held-out
rows, and finding the weakest step. Does not belong here: the measure of fit (`core.joint_fit`) or sentences about it
(`report.ladder`).

What a rung keeps is its distance from chance over the ceiling's. Chance is the mean fit to permuted outcomes, so that
an AUC of 0.6 below a ceiling of 0.7 keeps a half.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from hsae_dagster.core.joint_fit import Fit, Matrix, Score, floor, trained

EMBEDDINGS = "embeddings (ceiling)"
WORDS = "words (TF-IDF)"
ALL_NEURONS = "all neurons"
SELECTED = "selected neurons"
FIRED = "selected neurons, fired or not"
CONCEPTS = "concepts"
CONTROLS = "length and controls alone"
# From the ceiling down; words and controls stand beside the ladder.
RUNGS = (EMBEDDINGS, ALL_NEURONS, SELECTED, FIRED, CONCEPTS)
# Least share of the ceiling that a loss must have to be worth a remedy.
_WORTH_NAMING = 0.05

State = Literal["read", "no signal", "not measured"]


@dataclass(frozen=True)
class Step:
    """One step down the ladder.

    Attributes:
        above: rung it leaves.
        below: rung it reaches.
        lost: share of the ceiling's distance from chance that is lost on it; negative where the lower rung does better.
    """

    above: str
    below: str
    lost: float


@dataclass(frozen=True)
class Reading:
    """What the ladder of one dataset says.

    Attributes:
        state: `read`; `no signal` when the embeddings predict no better than chance might; `not measured` when a
            value of the ceiling or of every rung below it is missing.
        kept: (rung, share of the ceiling kept), from the ceiling down.
        steps: between neighbouring rungs that were measured.
        weakest: the step that loses most, or None when none loses 5 % of the ceiling.
    """

    state: State
    kept: tuple[tuple[str, float], ...]
    steps: tuple[Step, ...]
    weakest: Step | None


def read_ladder(fits: Sequence[Fit], chance: tuple[float, float]) -> Reading:
    """Find where the signal is lost.

    Args:
        fits: measured rungs in any order; others are ignored.
        chance: mean and 95th percentile of the fit to permuted outcomes.
    """
    values = {fit.name: fit.value for fit in fits}
    measured = [(name, values[name]) for name in RUNGS if math.isfinite(values.get(name, math.nan))]
    if len(measured) < 2 or measured[0][0] != EMBEDDINGS or not math.isfinite(chance[0]):
        return Reading("not measured", (), (), None)
    ceiling = measured[0][1]
    if not ceiling > max(chance):
        return Reading("no signal", (), (), None)
    kept = tuple((name, (value - chance[0]) / (ceiling - chance[0])) for name, value in measured)
    steps = tuple(Step(above, below, high - low) for (above, high), (below, low) in pairwise(kept))
    worst = max(steps, key=lambda step: step.lost)
    return Reading("read", kept, steps, worst if worst.lost >= _WORTH_NAMING else None)


@dataclass(frozen=True)
class Rows:
    """Observations that models are fitted to or scored on.

    Attributes:
        features: rung -> (n, columns), dense or CSR.
        outcome: (n,) float64.
        clusters: (n,) cluster keys.
    """

    features: Mapping[str, Matrix]
    outcome: np.ndarray
    clusters: np.ndarray


def measure_rungs(learn: Rows, held_out: Rows, scorer: Score, tell: Callable[[str], None]) -> tuple[Fit, ...]:
    """Fit every rung of `learn` with a penalty chosen within it, and score it on rows of other clusters.

    Args:
        learn: what the models see.
        held_out: what they are scored on; the clusters of `scorer`.
        scorer: task, bootstrap and seed. Rungs share its draws of clusters, so their intervals move together.
        tell: is told each rung's name before it is measured.
    """
    fits = []
    for name, features in learn.features.items():
        tell(name)
        predicted = trained(features, learn.outcome, learn.clusters, held_out.features[name], scorer.task)
        fits.append(scorer.fit(name, "trained", held_out.outcome, predicted))
    return tuple(fits)


def chance_level(predictors: np.ndarray, rows: Rows, task: str, *, folds: int, seed: int) -> tuple[float, float]:
    """Mean and 95th percentile of the cross-fitted fit of (n, columns) predictors to permuted outcomes of `rows`."""
    found = floor(predictors, rows.outcome, rows.clusters, task, folds=folds, seed=seed)
    return float(np.mean(found)), float(np.percentile(found, 95))
