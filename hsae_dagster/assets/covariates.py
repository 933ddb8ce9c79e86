"""Covariates of observations for selection within strata and for effects by subgroup.

Belongs here: declared columns as levels. Does not belong here: selection or effects (`core.covariates`).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.covariates import select_within, subgroup_effects
from hsae_dagster.core.inference import Effect, HoldoutDesign
from hsae_dagster.core.selection import SelectedNeuron, Selection
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import MethodError

_MOST_LEVELS = 30


def covariate_selection(
    spec: DatasetSpec, observed: sp.csr_matrix, label: np.ndarray, train: pl.DataFrame
) -> Selection:
    """Neurons selected within strata and by interactions, as `select_neurons` would report them."""
    strata = _joined(train, spec.selection.within)
    covariates = [_levels(train, name) for name in spec.selection.interactions]
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
    spec: DatasetSpec, holdout: pl.DataFrame, design: HoldoutDesign, column: int
) -> tuple[tuple[str, Effect], ...]:
    """Effects of one concept at each level of the declared interactions, with their own intervals."""
    found: list[tuple[str, Effect]] = []
    for name in spec.selection.interactions:
        found += subgroup_effects(design, column, _levels(holdout, name), spec.inference.min_positives).items()
    return tuple(found)


def _levels(observations: pl.DataFrame, name: str) -> np.ndarray:
    values = observations[f"control:{name}"].cast(pl.String).fill_null("(none)")
    if values.n_unique() > _MOST_LEVELS:
        raise MethodError(
            f"The column `{name}` has {values.n_unique()} levels; strata and subgroups need a category with at most "
            f"{_MOST_LEVELS}. Group its values in the data file."
        )
    return np.array([f"{name} = {value}" for value in values])


def _joined(observations: pl.DataFrame, names: Sequence[str]) -> np.ndarray:
    """One key per combination of levels; one key throughout without names."""
    parts = [_levels(observations, name) for name in names]
    return np.array([" and ".join(row) for row in zip(*parts, strict=True)]) if parts else np.zeros(observations.height)
