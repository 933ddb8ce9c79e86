"""Sentences about how far a report may be trusted: looks at the holdout, power, families.

Belongs here: the words for what `core.analysis_plan`, `core.power` and their like found. Does not belong here: general
wording (`wording`), whole paragraphs (`prose`) or markup (`page`, `cards`).
"""

import math
from collections.abc import Iterator

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import NOT_ESTIMABLE, number, partial_brief, plural

_ORDINALS = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth"}


def ordinal(n: int) -> str:
    """`first` to `fifth`, then `6th`, `21st`."""
    if n in _ORDINALS:
        return _ORDINALS[n]
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def look_words(content: ReportContent) -> str:
    """Which look at the holdout this is, and what that does to the correction."""
    look = content.look
    if look is None:
        return "How often this holdout has been evaluated is not recorded."
    frozen = (
        f"The plan ({look.plan}) was written down before any held-out text was judged."
        if look.frozen_before
        else f"The plan ({look.plan}) was changed after held-out texts had been judged."
    )
    if look.number == 1:
        return f"This is the first look at these held-out texts. {frozen}"
    own = len(content.hypotheses)
    return (
        f"This is the {ordinal(look.number)} look at these held-out texts: {plural(look.number - 1, 'other plan')} "
        f"had been evaluated on them. The correction for many tests counts everything tested in any of them: "
        f"{plural(content.family, 'test')}, of which this report shows {own}. A hypothesis made after reading an "
        f"earlier report is not tested on unseen texts, and no correction can mend that. {frozen}"
    )


def trust_facts(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """Figures of a card on how far to trust it: (name, value)."""
    yield "With controls held constant", partial_brief(hypothesis.test.adjusted, content.task)
    yield "Smallest effect it could find", detectable_words(hypothesis.detectable, content.task)
    if content.look is not None and content.look.number > 1:
        yield "Look at the holdout", f"{ordinal(content.look.number)} (family of {plural(content.family, 'test')})"


def detectable_words(size: float, task: str) -> str:
    """The minimum detectable effect in the unit in which effects are shown."""
    if not math.isfinite(size):
        return NOT_ESTIMABLE
    if task == "regression":
        return f"±{number(size)} with 80 % probability"
    return f"±{number(100 * size, 1)} points with 80 % probability"
