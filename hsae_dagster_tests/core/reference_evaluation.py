"""The reference's modules that lean on each other (hypothesaes 2.0.1), without its package init.

`load_reference_module("evaluation")` runs evaluation.py as part of a stand-in package whose client of language models
and tokeniser are empty: nothing here may ask a model.
"""

import contextlib
import importlib
import io
import sys
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any

import numpy as np
import pytest

VERSION = "2.0.1"
_PACKAGE = "reference_hypothesaes"


def load_reference_module(name: str) -> ModuleType:
    """A module of the installed reference; skips the test where it is not installed."""
    try:
        found = distribution("hypothesaes")
    except PackageNotFoundError:
        pytest.skip("hypothesaes is not installed (pip install --no-deps hypothesaes==2.0.1)")
    if found.version != VERSION:
        pytest.skip(f"hypothesaes {found.version} is installed; the comparison is against {VERSION}")
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(found.locate_file("hypothesaes"))]
        client = ModuleType(f"{_PACKAGE}.llm_api")
        client.get_completion = client.normalize_llm_kwargs = None  # type: ignore[attr-defined]
        sys.modules |= {_PACKAGE: package, client.__name__: client}
    missing = "tiktoken" not in sys.modules and importlib.util.find_spec("tiktoken") is None
    if missing:
        sys.modules["tiktoken"] = ModuleType("tiktoken")
    try:
        return importlib.import_module(f"{_PACKAGE}.{name}")
    finally:
        if missing:
            del sys.modules["tiktoken"]


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
