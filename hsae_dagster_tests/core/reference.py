"""The installed reference (hypothesaes 2.0.1): its modules without its package init, and what was compared with it.

The init would pull in far more than any comparison needs. `load_reference_module("evaluation")` runs evaluation.py as
part of a stand-in package whose client of language models and tokeniser are empty: nothing here may ask a model.
"""

import importlib
import importlib.util
import sys
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType
from typing import Any

import numpy as np
import pytest

VERSION = "2.0.1"
_PACKAGE = "reference_hypothesaes"
# Largest difference of each comparison of this session, by what was compared; `conftest` prints their summary.
COMPARED: dict[str, list[float]] = defaultdict(list)


def record(what: str, ours: Any, theirs: Any) -> None:
    """Remember the largest absolute difference of one comparison (whose test asserts what it may be)."""
    ours, theirs = (np.asarray(value, dtype=np.float64) for value in (ours, theirs))
    assert ours.shape == theirs.shape
    COMPARED[what].append(float(np.abs(ours - theirs).max(initial=0.0)))


def summary() -> list[str]:
    """One line per kind of comparison, and one for all."""
    lines = [
        f"{what}: {len(found):,} comparisons, largest difference {max(found):.1e}"
        for what, found in sorted(COMPARED.items())
    ]
    return lines and [*lines, f"in all: {sum(map(len, COMPARED.values())):,} comparisons"]


def load_reference_module(name: str) -> ModuleType:
    """A module of the installed reference; skips the test where it is not installed."""
    try:
        found = distribution("hypothesaes")
    except PackageNotFoundError:
        pytest.skip(f"hypothesaes is not installed (pip install --no-deps hypothesaes=={VERSION})")
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
