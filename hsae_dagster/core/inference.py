"""Does a concept go with the outcome? Tests on the holdout, once per hypothesis.

Belongs here: effects of single hypotheses with cluster-robust intervals, partial effects, corrections for many tests.
Does not belong here: how well all hypotheses predict together (`core.joint_fit`) or what is called confirmed
(`core.badges`).

Separation is the difference in mean outcome between texts with and without the concept: ordinary least squares on the
concept, standard errors by cluster (Liang and Zeger 1986; CR1 with t on clusters - 1). For pairs it is the share of
pairs won by the text that has the concept, among pairs where just one text has it, minus one half: least squares of
label - 1/2 on the signed design h_A - h_B without intercept, so it does not matter which text is called A.
"""

from dataclasses import dataclass

import numpy as np

from hsae_dagster.errors import MethodError


@dataclass(frozen=True)
class HoldoutDesign:
    """Everything a test reads.

    Attributes:
        concepts: (n, h) float64; 1 or 0 per text, -1, 0 or 1 per pair, NaN where the annotation is missing.
        outcome: (n,) float64; 0 or 1 for classification and pairs.
        clusters: (n,) keys of the unit that observations share.
        controls: (n, c) float64, to hold constant in partial effects; for pairs, A minus B.
        task: regression, classification or pairwise.
    """

    concepts: np.ndarray
    outcome: np.ndarray
    clusters: np.ndarray
    controls: np.ndarray
    task: str

    def __post_init__(self) -> None:
        """Refuse designs whose parts do not fit together."""
        n = len(self.outcome)
        if not len(self.concepts) == len(self.clusters) == len(self.controls) == n:
            raise MethodError("The holdout's annotations, outcomes, clusters and controls differ in length.")
        if not np.isfinite(self.outcome).all():
            raise MethodError("An outcome of the holdout is missing or not finite; the corpus should not hold it.")


@dataclass(frozen=True)
class Effect:
    """An estimate in units of the outcome with its cluster-robust uncertainty; NaN where it cannot be estimated."""

    estimate: float
    standard_error: float
    low: float
    high: float
    p_value: float
    estimator: str


NO_EFFECT_ESTIMATED = Effect(np.nan, np.nan, np.nan, np.nan, np.nan, "none")


@dataclass(frozen=True)
class HypothesisTest:
    """What the holdout says about one hypothesis.

    Attributes:
        separation: marginal effect (see the module's docstring).
        partial: effect with all other hypotheses and the controls held constant (outcome units; average marginal
            effect of a logit for 0/1 outcomes).
        n: observations with an annotation.
        n_with: of them, with the concept (for pairs: pairs where just one text has it).
        n_clusters: clusters among the n.
        prevalence: n_with / n.
        flags: named doubts, in words.
    """

    separation: Effect
    partial: Effect
    n: int
    n_with: int
    n_clusters: int
    prevalence: float
    flags: tuple[str, ...]


def test_hypotheses(design: HoldoutDesign, *, min_positives: int = 20) -> list[HypothesisTest]:
    """Test each concept column on its own and beside the others.

    Args:
        design: the holdout.
        min_positives: fewest observations on each side of a concept; below it the concept is not tested.
    """
    n_hypotheses = design.concepts.shape[1]
    reasons = [_untestable(design, j, min_positives) for j in range(n_hypotheses)]
    partial, partial_flags = partial_effects(design, [j for j in range(n_hypotheses) if reasons[j] is None])
    tests = []
    for j in range(n_hypotheses):
        judged = np.isfinite(design.concepts[:, j])
        n, n_with = int(judged.sum()), int((design.concepts[judged, j] != 0).sum())
        flags = [reasons[j]] if reasons[j] else list(partial_flags.get(j, ()))
        effect = NO_EFFECT_ESTIMATED if reasons[j] else separation(design, j)
        beside = partial.get(j, NO_EFFECT_ESTIMATED)
        if effect.estimate * beside.estimate < 0:
            flags.append("separation and partial effect have opposite signs")
        tests.append(
            HypothesisTest(
                separation=effect,
                partial=beside,
                n=n,
                n_with=n_with,
                n_clusters=len(np.unique(design.clusters[judged])),
                prevalence=n_with / n if n else 0.0,
                flags=tuple(flag for flag in flags if flag),
            )
        )
    return tests


test_hypotheses.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def separation(design: HoldoutDesign, column: int) -> Effect:
    """Difference in mean outcome with and without the concept (pairs: win share minus 1/2), cluster-robust."""
    judged = np.isfinite(design.concepts[:, column])
    h, y = design.concepts[judged, column], design.outcome[judged]
    if design.task == "pairwise":
        return cluster_ols(h[:, None], y - 0.5, design.clusters[judged], "signed pairs")[0]
    return cluster_ols(np.column_stack([h, np.ones_like(h)]), y, design.clusters[judged], "difference in means")[0]


def cluster_ols(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, name: str) -> list[Effect]:
    """Least squares with standard errors robust to dependence within clusters (CR1, t on clusters - 1).

    Args:
        x: (n, p) float64, with its constant column if there is one.
        y: (n,) float64.
        clusters: (n,) keys.
        name: estimator's name for the record.

    Returns:
        One effect per column of x.
    """
    import statsmodels.api as sm

    groups = np.unique(clusters, return_inverse=True)[1]
    if groups.max() < 1:
        return [NO_EFFECT_ESTIMATED] * x.shape[1]
    fit = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
    intervals = fit.conf_int()
    return [
        Effect(float(fit.params[j]), float(fit.bse[j]), float(intervals[j, 0]), float(intervals[j, 1]), p, name)
        for j, p in enumerate(map(float, fit.pvalues))
    ]


def partial_effects(design: HoldoutDesign, columns: list[int]) -> tuple[dict[int, Effect], dict[int, list[str]]]:
    """Effects of the given concepts beside each other and the controls.

    A concept whose annotation equals an earlier one's is left out and flagged, since the two cannot be told apart. A
    logit that does not converge, or separates the classes, is replaced by the linear probability model and every
    hypothesis is flagged with it.
    """
    flags: dict[int, list[str]] = {j: [] for j in columns}
    complete = np.isfinite(design.concepts[:, columns]).all(axis=1)
    kept: list[int] = []
    for j in columns:
        twin = next(
            (i for i in kept if np.array_equal(design.concepts[complete, i], design.concepts[complete, j])), None
        )
        if twin is None:
            kept.append(j)
        else:
            flags[j].append(f"same annotation as hypothesis {twin + 1}, so no partial effect of its own")
    x = np.column_stack([design.concepts[complete][:, kept], _varying(design.controls[complete])])
    y, clusters = design.outcome[complete], design.clusters[complete]
    if len(y) <= x.shape[1] + 2 or not kept:
        return {}, {j: [*flags[j], "too few complete observations for partial effects"] for j in columns}
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return {}, {
            j: [*flags[j], "concepts are linearly dependent, so partial effects are not defined"] for j in columns
        }
    if design.task == "regression":
        effects = cluster_ols(np.column_stack([x, np.ones(len(y))]), y, clusters, "least squares")
        return dict(zip(kept, effects, strict=False)), flags
    logit = _logit_margins(x, y, clusters, intercept=design.task == "classification")
    if logit is None:
        for j in columns:
            flags[j].append("logit did not converge; partial effect from a linear probability model")
        centred = y - 0.5 if design.task == "pairwise" else y
        constant = [] if design.task == "pairwise" else [np.ones(len(y))]
        logit = cluster_ols(np.column_stack([x, *constant]), centred, clusters, "linear probability model")
    return dict(zip(kept, logit, strict=False)), flags


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values (Holm 1979); NaN stays NaN and does not count into the family."""
    return _adjust(p_values, "holm")


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's q-values (1995); NaN stays NaN and does not count into the family."""
    return _adjust(p_values, "fdr_bh")


def bonferroni_count(p_values: np.ndarray, alpha: float) -> int:
    """How many of the H tested p-values lie below alpha / H."""
    tested = p_values[np.isfinite(p_values)]
    return int((tested < alpha / max(len(tested), 1)).sum())


def _adjust(p_values: np.ndarray, method: str) -> np.ndarray:
    from statsmodels.stats.multitest import multipletests

    out = np.full(len(p_values), np.nan)
    tested = np.isfinite(p_values)
    if tested.any():
        out[tested] = multipletests(p_values[tested], method=method)[1]
    return out


def _untestable(design: HoldoutDesign, column: int, min_positives: int) -> str | None:
    h = design.concepts[np.isfinite(design.concepts[:, column]), column]
    with_it, without = int((h != 0).sum()), int((h == 0).sum())
    if with_it < min_positives:
        return f"only {with_it} holdout observations have the concept (at least {min_positives} are needed)"
    if design.task != "pairwise" and without < min_positives:
        return f"only {without} holdout observations lack the concept (at least {min_positives} are needed)"
    return None


def _varying(controls: np.ndarray) -> np.ndarray:
    """Controls in units of their standard deviation, constant ones left out."""
    scale = controls.std(axis=0)
    return controls[:, scale > 0] / scale[scale > 0]


def _logit_margins(x: np.ndarray, y: np.ndarray, clusters: np.ndarray, *, intercept: bool) -> list[Effect] | None:
    """Average marginal effects of a logit, cluster-robust; None when it does not converge or separates."""
    import warnings

    import statsmodels.api as sm
    from statsmodels.tools.sm_exceptions import PerfectSeparationError, PerfectSeparationWarning

    groups = np.unique(clusters, return_inverse=True)[1]
    design = np.column_stack([x, np.ones(len(y))]) if intercept else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", PerfectSeparationWarning)
        try:
            fit = sm.Logit(y, design).fit(disp=0, maxiter=100, cov_type="cluster", cov_kwds={"groups": groups})
        except (PerfectSeparationError, PerfectSeparationWarning, np.linalg.LinAlgError):
            return None
        if not fit.mle_retvals["converged"] or not np.isfinite(fit.bse).all() or np.abs(fit.params).max() > 20:
            return None
        margins = fit.get_margeff(at="overall")
    table = np.column_stack([margins.margeff, margins.margeff_se, margins.conf_int(), margins.pvalues])
    return [Effect(*map(float, row), "logit average marginal effect") for row in table[: x.shape[1]]]
