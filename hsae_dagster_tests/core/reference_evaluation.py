"""The reference's evaluation table (hypothesaes 2.0.1)."""

import contextlib
import io
import warnings
from typing import Any

import numpy as np

from hsae_dagster_tests.core.reference import load_reference_module


def reference_scores(concepts: np.ndarray, outcome: np.ndarray, task: str, alpha: float = 0.1) -> tuple[dict, Any]:
    """Its metrics and its table with one row per column of `concepts` (index: the column's number)."""
    annotations = {j: concepts[:, j] for j in range(concepts.shape[1])}
    module = load_reference_module("evaluation")
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        metrics, frame = module.score_hypotheses(
            annotations, outcome, classification=task != "regression", corrected_pval_threshold=alpha
        )
    return metrics, frame.set_index("hypothesis")
