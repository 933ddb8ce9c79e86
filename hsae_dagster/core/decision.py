"""Which figure decides about each hypothesis, and the family that they are corrected in.

Belongs here: choosing among the plain effect, the one with controls, the one on ranks and the one that people's labels
correct; one-sided p-values; what missing answers could do. Does not belong here: any of these effects
(`core.inference`, `core.annotation_error`), the word that follows (`core.badges`).

Declared controls decide: `HypothesisTest.separation` is then the effect with them held constant. A rank test decides
where it is declared. Labels of people decide where there are enough of them: alone against a plain effect, and together
with the test that holds controls constant or reads ranks, which they cannot replace; the larger p-value counts.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.analysis_plan import Family, Look, PlannedTest, corrected
from hsae_dagster.core.annotation_error import AnnotationError
from hsae_dagster.core.inference import HypothesisTest
from hsae_dagster.core.multiple_tests import one_sided


@dataclass(frozen=True)
class Decision:
    """What decides, for h hypotheses.

    Attributes:
        p_one_sided: (h,) for the frozen direction, two-sided where there is none; NaN where nothing could be tested.
        basis: what gave them: `plain`, `controls` or `distilled`, with `, ranks` and `, gold` where those decided too.
        checked: (h,) bool, whether labels of people corrected the judge.
        family: the correction of `p_one_sided`.
        p_against: (h,) corrected p of the opposite direction; 1 where none was frozen.
        p_worst: (h,) corrected p if the missing answers are those that speak most against the claim.
    """

    p_one_sided: np.ndarray
    basis: tuple[str, ...]
    checked: np.ndarray
    family: Family
    p_against: np.ndarray
    p_worst: np.ndarray


def decide(
    tests: Sequence[HypothesisTest],
    errors: Sequence[AnnotationError],
    planned: Sequence[PlannedTest],
    keys: Sequence[str],
    look: Look,
    alpha: float,
    *,
    ranks: bool,
    share: float = 1.0,
    plan: Collection[str] = (),
) -> Decision:
    """Choose and correct the p-values.

    Args:
        tests: of the h hypotheses.
        errors: what is known about the judge of each.
        planned: each as it was frozen.
        keys: h test keys.
        look: at the holdout.
        alpha: family-wise error.
        ranks: whether the rank test decides.
        share: of alpha that these hypotheses have.
        plan: test keys of the whole plan.
    """

    def family(p: np.ndarray, weights: np.ndarray | None) -> Family:
        return corrected(p, keys, look, alpha, weights, share=share, planned=plan)

    found = [_one(test, error, plan, ranks=ranks) for test, error, plan in zip(tests, errors, planned, strict=True)]
    p, worst = (np.array([one[k] for one in found], dtype=np.float64) for k in (0, 1))
    weights = np.array([plan.weight for plan in planned], dtype=np.float64)
    frozen = np.array([plan.direction != 0 for plan in planned])
    against = family(np.where(frozen, 1.0 - p, 1.0), None).p_holm
    return Decision(
        p_one_sided=p,
        basis=tuple(one[2] for one in found),
        checked=np.array([one[3] for one in found], dtype=bool),
        family=family(p, weights),
        p_against=against,
        p_worst=family(worst, weights).p_holm,
    )


def _one(
    test: HypothesisTest, error: AnnotationError, plan: PlannedTest, *, ranks: bool
) -> tuple[float, float, str, bool]:
    """(p, p with the worst answers, basis, whether people's labels count) of one hypothesis."""
    p, basis, checked = one_sided(test.separation.p_value, test.separation.estimate, plan.direction), test.basis, False
    if ranks and np.isfinite(test.rank.p_value):
        p, basis = one_sided(test.rank.p_value, test.rank.estimate, plan.direction), f"{basis}, ranks"
    gold = error.corrected.corrected if error.corrected else None
    if gold is not None and np.isfinite(gold.p_value) and np.isfinite(p):
        by_people = one_sided(gold.p_value, gold.estimate, plan.direction)
        p = by_people if basis == "plain" else max(p, by_people)
        basis, checked = f"{basis}, gold", True
    if not np.isfinite(test.worst.p_value):
        return p, p, basis, checked
    return p, max(p, one_sided(test.worst.p_value, test.worst.estimate, plan.direction)), basis, checked
