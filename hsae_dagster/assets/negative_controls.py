"""Negative controls of one evaluation: permuted labels and random neurons through the path of the real ones.

Belongs here: lining up codes and observations for `core.negative_controls`. Does not belong here: any formula.
"""

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.inference import HoldoutDesign
from hsae_dagster.core.negative_controls import (
    NegativeControl,
    Rows,
    Rule,
    permuted_concepts,
    permuted_labels,
    random_neurons,
)
from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.storage.frames import read_codes, read_frame
from hsae_dagster.storage.objects import StoredObject


def run_negative_controls(
    stage: Stage, upstream: dict[str, StoredObject], holdout: pl.DataFrame, design: HoldoutDesign, alpha: float
) -> tuple[NegativeControl, ...]:
    """All controls, or none where `inference.negative_controls` is 0.

    Args:
        stage: of the dataset.
        upstream: current results.
        holdout: tested observations.
        design: of the tests.
        alpha: family-wise error of this report.
    """
    spec = stage.dataset.spec
    runs = spec.inference.negative_controls
    if runs == 0:
        return ()
    stage.report("negative controls: permuted labels and random neurons")
    rng = np.random.default_rng([spec.inference.seed, 1])
    ids = read_frame(upstream["activations"].file("texts.parquet"))["text_id"]
    codes = read_codes(upstream["activations"].file("codes.safetensors"))
    observed = read_frame(upstream["corpus"].file("observations.parquet"))
    train = _rows(codes, ids, observed.filter(pl.col("split") == "train"))
    tested = _rows(codes, ids, holdout)
    selected = read_frame(upstream["selected_neurons"].file("neurons.parquet"))["column"].to_list()
    rule = Rule(
        task=spec.task,
        method=spec.selection.method,
        n_select=len(selected),
        alpha=alpha,
        min_positives=spec.inference.min_positives,
    )
    return (
        permuted_labels(train, tested, rule, runs, rng),
        permuted_concepts(design, rule, 4 * runs, rng),
        random_neurons(train, tested, selected, rule, rng),
    )


def _rows(codes: sp.csr_matrix, ids: pl.Series, observations: pl.DataFrame) -> Rows:
    fires = codes.copy()
    fires.data = np.ones(len(codes.data))
    return Rows(
        codes=sp.csr_matrix(observation_matrix(codes, ids, observations)),
        fires=sp.csr_matrix(observation_matrix(fires, ids, observations)),
        outcome=observations["label"].to_numpy(),
        clusters=observations["cluster_id"].to_numpy(),
    )
