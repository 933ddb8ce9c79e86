"""Does a concept go with the outcome? Tests on the holdout, once per hypothesis.

Belongs here: effects of single hypotheses with cluster-robust intervals, partial effects, corrections for many tests.
Does not belong here: how well all hypotheses predict together (`core.joint_fit`), what is called confirmed
(`core.badges`), how a standard error is computed (`core.cluster_robust`), the joint model behind partial effects
(`core.partial_effects`).

Separation is the difference in mean outcome between texts with and without the concept: ordinary least squares on the
concept. For pairs it is the share of pairs won by the text that has the concept, among pairs where just one text has
it, minus one half: least squares of label - 1/2 on the signed design h_A - h_B without intercept, so it does not
matter which text is called A. Both have cluster-robust standard errors (`cluster_robust.cluster_ols`).
"""

from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.cluster_robust import NO_EFFECT_ESTIMATED, Effect, cluster_ols
from hsae_dagster.core.partial_effects import partial_effects
from hsae_dagster.errors import MethodError

__all__ = [
    "NO_EFFECT_ESTIMATED",
    "Effect",
    "HoldoutDesign",
    "HypothesisTest",
    "benjamini_hochberg",
    "bonferroni_count",
    "cluster_ols",
    "holm",
    "partial_effects",
    "separation",
    "test_hypotheses",
]

# A t with fewer degrees of freedom rests on so few clusters that a reader should know.
_FEW_DEGREES = 10
_MANY_MISSING = 0.1


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
    for j, reason in enumerate(reasons):
        judged = np.isfinite(design.concepts[:, j])
        n, n_with = int(judged.sum()), int((design.concepts[judged, j] != 0).sum())
        effect = NO_EFFECT_ESTIMATED if reason else separation(design, j)
        beside = partial.get(j, NO_EFFECT_ESTIMATED)
        doubts = [reason] if reason else [*_doubts(effect, beside, n / len(judged)), *partial_flags[j]]
        tests.append(
            HypothesisTest(
                separation=effect,
                partial=beside,
                n=n,
                n_with=n_with,
                n_clusters=len(np.unique(design.clusters[judged])),
                prevalence=n_with / n if n else 0.0,
                flags=tuple(doubts),
            )
        )
    return tests


test_hypotheses.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def separation(design: HoldoutDesign, column: int) -> Effect:
    """Difference in mean outcome with and without the concept (pairs: win share minus 1/2), cluster-robust."""
    judged = np.isfinite(design.concepts[:, column])
    h, y, clusters = design.concepts[judged, column], design.outcome[judged], design.clusters[judged]
    if design.task == "pairwise":
        return cluster_ols(h[:, None], y - 0.5, clusters, "signed pairs", exchangeable=False)[0]
    return cluster_ols(np.column_stack([h, np.ones_like(h)]), y, clusters, "difference in means")[0]


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p-values (Holm 1979); NaN stays NaN and does not count into the family."""
    order = _ascending(p_values)
    stepped = p_values[order] * np.arange(len(order), 0, -1)
    return _placed(order, np.maximum.accumulate(stepped), len(p_values))


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's q-values (1995); NaN stays NaN and does not count into the family."""
    order = _ascending(p_values)
    stepped = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    return _placed(order, np.minimum.accumulate(stepped[::-1])[::-1], len(p_values))


def bonferroni_count(p_values: np.ndarray, alpha: float) -> int:
    """How many of the H tested p-values lie below alpha / H."""
    tested = p_values[np.isfinite(p_values)]
    return int((tested < alpha / max(len(tested), 1)).sum())


def _ascending(p_values: np.ndarray) -> np.ndarray:
    """Positions of the tested p-values, smallest first."""
    order = np.argsort(p_values, kind="stable")
    return order[np.isfinite(p_values[order])]


def _placed(order: np.ndarray, adjusted: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[order] = np.minimum(adjusted, 1.0)
    return out


def _untestable(design: HoldoutDesign, column: int, min_positives: int) -> str | None:
    """Why a concept cannot be tested, or None."""
    judged = np.isfinite(design.concepts[:, column])
    h = design.concepts[judged, column]
    with_it, without = int((h != 0).sum()), int((h == 0).sum())
    least = f"(at least {min_positives} are needed)"
    if with_it < min_positives:
        return f"only {with_it} holdout observations have the concept {least}"
    if design.task != "pairwise" and without < min_positives:
        return f"only {without} holdout observations lack the concept {least}"
    if design.task != "pairwise" and np.ptp(design.outcome[judged]) == 0:
        return "all holdout observations have the same outcome"
    if len(np.unique(design.clusters[judged])) < 2:
        return "all holdout observations belong to one cluster, so nothing can be said about others"
    return None


def _doubts(effect: Effect, beside: Effect, judged: float) -> list[str]:
    """Flags of a tested hypothesis that do not come from the joint model; `judged` is the share with an annotation."""
    doubts = []
    if 1 - judged > _MANY_MISSING:
        doubts.append(f"{1 - judged:.0%} of its annotations are missing")
    if effect.standard_error == 0:
        doubts.append("it tells the outcome without a single error; check that the texts do not contain the label")
    elif effect.degrees_of_freedom < _FEW_DEGREES:
        doubts.append(f"few clusters tell with from without: {effect.degrees_of_freedom:.1f} degrees of freedom")
    if effect.estimate * beside.estimate < 0:
        doubts.append("separation and partial effect have opposite signs")
    return doubts
