"""What differs between two evaluations, in words.

Belongs here: sentences about a `Change`. Does not belong here: finding it (`core.comparison`) or markup.
"""

import math

from hsae_dagster.core.cluster_robust import Effect
from hsae_dagster.core.comparison import Change, Standing
from hsae_dagster.report.wording import NOT_ESTIMABLE, effect_brief, one_line, p_phrase


def standing_effect(standing: Standing, task: str) -> str:
    """The effect with its interval."""
    if not math.isfinite(standing.estimate):
        return NOT_ESTIMABLE
    return effect_brief(Effect(standing.estimate, math.nan, standing.low, standing.high, math.nan, ""), task)


def side_words(standing: Standing | None, p_holm: float | None, task: str) -> str:
    """One side of a comparison between datasets: verdict, effect and corrected p, or that there is none.

    Args:
        standing: None where the dataset has no such concept.
        p_holm: None where it was not tested.
        task: of the dataset.
    """
    if standing is None:
        return "no such concept"
    p = p_phrase("p", math.nan if p_holm is None else p_holm)
    return f"{standing.badge}, {standing_effect(standing, task)}, Holm {p}"


def change_words(change: Change, task: str) -> str:
    """One hypothesis: what became of it, as a sentence without its claim."""
    if change.before is None:
        return "New: the evaluation before had no such hypothesis."
    if change.after is None:
        return f"Gone: the later evaluation has no such hypothesis (it was {change.before.badge})."
    if change.kind == "unchanged":
        return "Unchanged: words, verdict, effect and rank are as before."
    parts = []
    if change.verdict:
        parts.append(f"{change.before.badge} before, {change.after.badge} now")
    before, after = (standing_effect(side, task) for side in (change.before, change.after))
    if before != after:
        beyond = ", outside the earlier interval" if change.effect else ""
        parts.append(f"effect {before} before, {after} now{beyond}")
    if change.words:
        parts.append(f"said as “{one_line(change.before.claim)}” before")
    if change.rank:
        parts.append(f"rank {change.before.rank + 1} before, {change.after.rank + 1} now")
    return f"Moved: {'; '.join(parts)}."
