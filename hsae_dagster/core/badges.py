"""The verdict on a hypothesis, and the rule that gave it.

Belongs here: the one rule that turns figures into a word. Does not belong here: the figures.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Badge = Literal["confirmed", "suggestive", "not supported", "invalid"]


Rule = Literal["Holm", "false discovery rate", "controls", "direction", "not testable", "no evidence"]


@dataclass(frozen=True)
class Verdict:
    """A badge, the sentence that explains it, and the name of the rule that decided."""

    badge: Badge
    reason: str
    rule: Rule


def verdict(
    *,
    p_holm: float,
    q_value: float,
    alpha: float,
    estimate: float,
    expected_sign: float,
    untestable: str | None,
    reversed_by_controls: bool = False,
) -> Verdict:
    """Decide; the first rule that applies gives the verdict.

    not testable         invalid: it could not be tested.
    direction            invalid: Holm's p is below alpha, against the direction it was selected or declared for.
    controls             suggestive: Holm's p is below alpha, but the effect changes sign under controls.
    Holm                 confirmed: Holm's p is below alpha.
    false discovery rate suggestive: q is below alpha, in the expected direction.
    no evidence          not supported.

    Args:
        p_holm: Holm-corrected p over the whole family, looks included.
        q_value: Benjamini-Hochberg q over the same.
        alpha: family-wise error.
        estimate: the separation.
        expected_sign: direction on training texts, or declared; 0 for none.
        untestable: why it could not be tested, or None.
        reversed_by_controls: whether the effect beyond doubt changes sign with controls held constant.
    """
    if untestable or not np.isfinite(p_holm):
        return Verdict("invalid", untestable or "its effect could not be estimated", "not testable")
    against = expected_sign != 0 and np.sign(estimate) != np.sign(expected_sign)
    if p_holm < alpha:
        return _holds(p_holm, alpha, against, reversed_by_controls)
    if q_value < alpha and not against:
        reason = f"false discovery rate {_p(q_value, 'q')} is below {alpha:g}, Holm's p is not"
        return Verdict("suggestive", reason, "false discovery rate")
    return Verdict("not supported", f"Holm-corrected {_p(p_holm)} is not below {alpha:g}", "no evidence")


def _holds(p_holm: float, alpha: float, against: bool, reversed_by_controls: bool) -> Verdict:
    """The verdict where Holm's p is below alpha."""
    if against:
        return Verdict(
            "invalid", "its effect on the holdout runs against the direction it was selected for", "direction"
        )
    holds = f"the test holds (Holm-corrected {_p(p_holm)}) but"
    if reversed_by_controls:
        turned = f"{holds} the effect changes sign when text length and controls are held constant"
        return Verdict("suggestive", turned, "controls")
    return Verdict("confirmed", f"Holm-corrected {_p(p_holm)} is below {alpha:g} on texts never used before", "Holm")


def _p(value: float, symbol: str = "p") -> str:
    """`p = 0.012`, or `p < 0.001` where three decimals would show a zero."""
    return f"{symbol} = {value:.3f}" if value >= 0.001 else f"{symbol} < 0.001"
