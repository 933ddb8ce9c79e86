"""The verdict on a hypothesis, and the rule that gave it.

Belongs here: the one rule that turns figures into a word. Does not belong here: the figures.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Badge = Literal["confirmed", "suggestive", "not supported", "invalid"]


@dataclass(frozen=True)
class Verdict:
    """A badge and the sentence that explains it."""

    badge: Badge
    reason: str


def verdict(
    *,
    p_holm: float,
    q_value: float,
    alpha: float,
    estimate: float,
    expected_sign: float,
    fidelity: float,
    min_fidelity: float,
    untestable: str | None,
) -> Verdict:
    """Decide.

    confirmed: Holm-corrected p below alpha, in the direction the neuron had on training texts, with a faithful concept.
    suggestive: the false discovery rate q is below alpha, or only fidelity stands in the way of confirmed.
    invalid: it could not be tested, or the effect runs against the direction it was selected for.
    """
    if untestable or not np.isfinite(p_holm):
        return Verdict("invalid", untestable or "its effect could not be estimated")
    against = expected_sign != 0 and np.sign(estimate) != np.sign(expected_sign)
    if p_holm < alpha and against:
        return Verdict("invalid", "its effect on the holdout runs against the direction it was selected for")
    if p_holm < alpha and fidelity >= min_fidelity:
        return Verdict("confirmed", f"Holm-corrected {_p(p_holm)} is below {alpha:g} on texts never used before")
    if p_holm < alpha:
        return Verdict(
            "suggestive",
            f"the test holds (Holm-corrected {_p(p_holm)}) but the words fit the neuron too loosely: fidelity F1 "
            f"{fidelity:.2f} is below {min_fidelity:g}",
        )
    if q_value < alpha and not against:
        return Verdict("suggestive", f"false discovery rate {_p(q_value, 'q')} is below {alpha:g}, Holm's p is not")
    return Verdict("not supported", f"Holm-corrected {_p(p_holm)} is not below {alpha:g}")


def _p(value: float, symbol: str = "p") -> str:
    """`p = 0.012`, or `p < 0.001` where three decimals would show a zero."""
    return f"{symbol} = {value:.3f}" if value >= 0.001 else f"{symbol} < 0.001"
