"""Negative controls of one evaluation: permuted labels and random neurons through the path of the real ones.

Belongs here: lining up codes and observations for `core.negative_controls`. Does not belong here: any formula.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_sides, read_text_codes
from hsae_dagster.core.cross_fitting import of_half
from hsae_dagster.core.inference import HoldoutDesign
from hsae_dagster.core.negative_controls import (
    NegativeControl,
    Rows,
    Rule,
    permuted_concepts,
    permuted_labels,
    random_neurons,
    together,
)
from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject


def run_negative_controls(
    stage: Stage,
    upstream: dict[str, StoredObject],
    tests: Sequence[tuple[str, float, pl.DataFrame, HoldoutDesign]],
    alpha: float,
) -> tuple[NegativeControl, ...]:
    """All controls, or none where `inference.negative_controls` is 0; of halves, a run is one of both.

    Args:
        stage: of the dataset.
        upstream: current results.
        tests: half that found the claims, share of alpha, tested observations and design of each set of tests.
        alpha: family-wise error of this report.
    """
    spec = stage.dataset.spec
    runs = spec.inference.negative_controls
    if runs == 0:
        return ()
    stage.report("negative controls: permuted labels and random neurons")
    rng = np.random.default_rng([spec.inference.seed, 1])
    neurons = read_frame(upstream["selected_neurons"].file("neurons.parquet"))
    of_side = {side.half: side for side in read_sides(upstream["corpus"])}
    found: list[list[NegativeControl]] = []
    for half, share, holdout, design in tests:
        selected = of_half(neurons, half)["column"].to_list()
        rule = Rule(
            task=spec.task,
            method=spec.selection.method,
            n_select=len(selected) or spec.selection.n,
            alpha=share * alpha,
            min_positives=spec.inference.min_positives,
        )
        if half not in of_side:  # nothing was learned for the user's own claims
            found.append([permuted_concepts(design, rule, 4 * runs, rng)])
            continue
        codes, ids = read_text_codes(upstream["activations"], half)
        train = _rows(codes, ids, of_side[half].observations.filter(pl.col("split") == "train"))
        tested = _rows(codes, ids, holdout)
        found.append(
            [
                permuted_labels(train, tested, rule, runs, rng),
                permuted_concepts(design, rule, 4 * runs, rng),
                random_neurons(train, tested, selected, rule, rng),
            ]
        )
    names = dict.fromkeys(control.name for own in found for control in own)
    return tuple(together([c for own in found for c in own if c.name == name]) for name in names)


def _rows(codes: sp.csr_matrix, ids: pl.Series, observations: pl.DataFrame) -> Rows:
    fires = codes.copy()
    fires.data = np.ones(len(codes.data))
    return Rows(
        codes=sp.csr_matrix(observation_matrix(codes, ids, observations)),
        fires=sp.csr_matrix(observation_matrix(fires, ids, observations)),
        outcome=observations["label"].to_numpy(),
        clusters=observations["cluster_id"].to_numpy(),
    )
