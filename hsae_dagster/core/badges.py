"""The verdict on a hypothesis, and the rule that gave it.

Belongs here: the one rule that turns figures into a word. Does not belong here: the figures.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Badge = Literal["confirmed", "confirmed, judge unchecked", "suggestive", "not supported", "invalid"]
# How the answers behind a test were checked: by words that cannot err, by people's labels, or not at all.
Judge = Literal["exact", "gold", "unchecked"]

Rule = Literal[
    "Holm",
    "judge unchecked",
    "missing answers",
    "false discovery rate",
    "controls",
    "direction",
    "not testable",
    "no evidence",
]


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
    p_against: float = 1.0,
    overturned: bool = False,
    judge: Judge = "exact",
    first_look: bool = True,
    halves: bool = False,
) -> Verdict:
    """Decide; the first rule that applies gives the verdict.

    not testable         invalid: it could not be tested.
    direction            invalid: it holds against the direction that it was selected or declared for.
    controls             suggestive: Holm's p is below alpha, but the effect changes sign under controls.
    missing answers      suggestive: Holm's p is below alpha, but the missing answers could overturn it.
    judge unchecked      confirmed, judge unchecked: as below, judged by a model that no labels of people checked.
    Holm                 confirmed: Holm's p is below alpha.
    false discovery rate suggestive: q is below alpha, in the expected direction.
    no evidence          not supported.

    Args:
        p_holm: Holm-corrected one-sided p over the whole family, looks included.
        q_value: Benjamini-Hochberg q over the same.
        alpha: family-wise error.
        estimate: the separation.
        expected_sign: direction on training texts, or declared; 0 for none.
        untestable: why it could not be tested, or None.
        reversed_by_controls: whether the effect beyond doubt changes sign with controls held constant.
        p_against: Holm-corrected p of the opposite direction.
        overturned: whether the corrected p is not below alpha if missing answers are those that speak most against it.
        judge: how the answers were checked.
        first_look: whether the holdout was never used before.
        halves: whether the holdout is a half of the texts, which found other claims.
    """
    if untestable or not np.isfinite(p_holm):
        return Verdict("invalid", untestable or "its effect could not be estimated", "not testable")
    against = expected_sign != 0 and np.sign(estimate) != np.sign(expected_sign)
    if p_against < alpha or (p_holm < alpha and against):
        return Verdict(
            "invalid", "its effect on the holdout runs against the direction it was selected for", "direction"
        )
    if p_holm < alpha:
        doubt = _doubt(p_holm, reversed_by_controls, overturned)
        return doubt or _confirmed(f"Holm-corrected {_p(p_holm)} is below {alpha:g}", judge, first_look, halves)
    if q_value < alpha and not against:
        reason = f"false discovery rate {_p(q_value, 'q')} is below {alpha:g}, Holm's p is not"
        return Verdict("suggestive", reason, "false discovery rate")
    return Verdict("not supported", f"Holm-corrected {_p(p_holm)} is not below {alpha:g}", "no evidence")


def _doubt(p_holm: float, reversed_by_controls: bool, overturned: bool) -> Verdict | None:
    """What keeps a test that holds from confirming, or None."""
    holds = f"the test holds (Holm-corrected {_p(p_holm)}) but"
    if reversed_by_controls:
        turned = f"{holds} the effect changes sign when text length and controls are held constant"
        return Verdict("suggestive", turned, "controls")
    if overturned:
        return Verdict("suggestive", f"{holds} the missing answers could overturn it", "missing answers")
    return None


def _confirmed(holds: str, judge: Judge, first_look: bool, halves: bool) -> Verdict:
    held_out = "on texts never tested on before" if first_look else "on held-out texts that an earlier look has used"
    if halves:
        held_out = "on the half of the texts that it was not found in"
        held_out += "" if first_look else ", which an earlier look has used"
    if judge == "unchecked":
        return Verdict(
            "confirmed, judge unchecked",
            f"{holds} {held_out}; no labels of people have checked the model that judged them",
            "judge unchecked",
        )
    labelled = ", corrected by labels of people" if judge == "gold" else ""
    return Verdict("confirmed", f"{holds} {held_out}{labelled}", "Holm")


def _p(value: float, symbol: str = "p") -> str:
    """`p = 0.012`, or `p < 0.001` where three decimals would show a zero."""
    return f"{symbol} = {value:.3f}" if value >= 0.001 else f"{symbol} < 0.001"
