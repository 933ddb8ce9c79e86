"""Covariates of observations for selection within strata and for effects by subgroup.

Belongs here: declared columns as levels. Does not belong here: selection (`core.covariates`) or effects
(`core.subgroups`).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.covariates import select_within
from hsae_dagster.core.flags import REVERSED_BETWEEN_SUBGROUPS, Flag
from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference import HoldoutDesign
from hsae_dagster.core.selection import SelectedNeuron, Selection
from hsae_dagster.core.subgroups import SubgroupEffect, correct, subgroup_effects, turns_round
from hsae_dagster.dataset.controls import levels_of
from hsae_dagster.dataset.spec import DatasetSpec


def covariate_selection(
    spec: DatasetSpec, observed: sp.csr_matrix, label: np.ndarray, train: pl.DataFrame
) -> Selection:
    """Neurons selected within strata and by interactions, as `select_neurons` would report them."""
    strata = _joined(train, spec.selection.within)
    covariates = [
        np.array([f"{name} = {level}" for level in levels_of(train, name)]) for name in spec.selection.interactions
    ]
    terms = select_within(observed, label, strata, covariates, spec.selection.n)
    notes = [f"neuron {term.column} by its product with {term.level}" for term in terms if term.level]
    return Selection(
        method="lasso:covariates",
        task="regression" if spec.task == "regression" else "classification",
        neurons=tuple(SelectedNeuron(rank, term.column, term.score) for rank, term in enumerate(terms, 1)),
        alpha=None,
        path=(),
        notes=tuple(notes),
        dead=(),
        duplicates=(),
    )


def effects_by_subgroup(
    spec: DatasetSpec, holdout: pl.DataFrame, design: HoldoutDesign, share: float = 1.0
) -> list[tuple[SubgroupEffect, ...]]:
    """Effects of every concept at each level of the declared `within` and `interactions`, corrected over all."""
    levels = {name: levels_of(holdout, name) for name in (*spec.selection.within, *spec.selection.interactions)}
    least = spec.inference.min_positives
    return correct(
        [
            [effect for name, of in levels.items() for effect in subgroup_effects(design, column, name, of, least)]
            for column in range(design.concepts.shape[1])
        ],
        share,
    )


def with_subgroups(hypothesis: Hypothesis, effects: tuple[SubgroupEffect, ...], alpha: float) -> Hypothesis:
    """The hypothesis with its effects by subgroup, flagged where they point in opposite directions."""
    turned = turns_round(effects, alpha)
    if turned is None:
        return replace(hypothesis, subgroups=effects)
    up, down = (f"{one.covariate} = {one.level}" for one in turned)
    doubt = Flag(REVERSED_BETWEEN_SUBGROUPS, f"its effect is positive where {up} and negative where {down}")
    test = replace(hypothesis.test, flags=(*hypothesis.test.flags, doubt))
    return replace(hypothesis, subgroups=effects, test=test)


def _joined(observations: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """One key per combination of levels; one key throughout without names."""
    parts = [[f"{name} = {level}" for level in levels_of(observations, name)] for name in names]
    return np.array([" and ".join(row) for row in zip(*parts, strict=True)]) if parts else np.zeros(observations.height)
