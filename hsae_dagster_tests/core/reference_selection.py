"""The reference's neuron selection (hypothesaes 2.0.1), and codes to select from."""

import contextlib
import io
import re
import warnings
from dataclasses import dataclass

import numpy as np

from hsae_dagster_tests.core.reference import load_reference_module


@dataclass(frozen=True)
class ReferenceSelection:
    columns: list[int]
    scores: list[float]
    alphas: list[float]
    counts: list[int]
    hit: bool


def reference_lasso(
    dense: np.ndarray,
    target: np.ndarray,
    n_select: int,
    *,
    classification: bool,
    tol: float | None = None,
    max_iter: int = 1000,
) -> ReferenceSelection:
    """Run its lasso search, recording what each probe found.

    `tol` tightens the stopping rule of its two estimators (their default, 1e-4, moves coefficients by more than the
    1e-5 that we compare to); nothing else of the reference is touched.
    """
    module = load_reference_module("select_neurons")
    alphas: list[float] = []
    counts: list[int] = []
    originals = module.Lasso, module.LogisticRegression

    def recording(base: type, alpha_of: str) -> type:
        class Recording(base):  # type: ignore[misc, valid-type]
            def fit(self, X, y):
                if tol is not None:
                    self.tol = tol
                super().fit(X, y)
                value = getattr(self, alpha_of)
                alphas.append(1 / value if alpha_of == "C" else value)
                counts.append(int(np.count_nonzero(self.coef_)))
                return self

        return Recording

    module.Lasso, module.LogisticRegression = recording(originals[0], "alpha"), recording(originals[1], "C")
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as out:
            warnings.simplefilter("ignore")
            columns, scores = module.select_neurons(
                dense, target, n_select, method="lasso", classification=classification, max_iter=max_iter
            )
    finally:
        module.Lasso, module.LogisticRegression = originals
    return ReferenceSelection(columns, scores, alphas, counts, not re.search("Warning", out.getvalue()))


def topk_codes(seed: int, n: int, m: int, k: int, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Codes like those of a top-k SAE (k positive entries a row, power-law frequencies) and a target they predict."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 12))
    pre = latent @ rng.standard_normal((12, m)) * 0.5 + rng.standard_normal((n, m))
    pre -= 0.7 * np.log(np.arange(1, m + 1))
    kept = np.argpartition(-pre, k - 1, axis=1)[:, :k]
    values = np.take_along_axis(pre, kept, axis=1)
    dense = np.zeros((n, m))
    np.put_along_axis(dense, kept, values - values.min() + 0.1, axis=1)
    first = dense[:, :8]
    target = latent @ rng.standard_normal(12) * 0.4 + first @ rng.standard_normal(first.shape[1]) * 0.3
    return dense, target + noise * rng.standard_normal(n)
