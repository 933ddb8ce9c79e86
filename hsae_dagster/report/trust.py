"""Sentences about how far a report may be trusted: looks at the holdout, power, near-copies.

Belongs here: the words for what `core.analysis_plan`, `core.power` and their like found. Does not belong here: general
wording (`wording`), whole paragraphs (`prose`) or markup (`page`, `cards`).
"""

import math
from collections.abc import Iterator, Sequence

from hsae_dagster.core.annotation_error import AnnotationError
from hsae_dagster.core.hypothesis import Hypothesis, NearCopy
from hsae_dagster.core.negative_controls import NegativeControl, most_by_chance
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.subgroups import difference_words, subgroup_name
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    count,
    effect_brief,
    error_rate,
    number,
    one_line,
    partial_brief,
    percent,
    plural,
)

_SHOWN_COPIES = 5
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
        first = "This is the first look at these held-out texts: nothing had been tested on them before."
        return " ".join(filter(None, (first, _spending_words(content), frozen)))
    own = len(content.hypotheses)
    return (
        f"This is the {ordinal(look.number)} look at these held-out texts: {plural(look.number - 1, 'other plan')} "
        f"had been evaluated on them. The correction for many tests counts everything tested in any of them, once: "
        f"{plural(content.family, 'test')}, of which this report shows {own}. A hypothesis made after reading an "
        f"earlier report is not tested on unseen texts, and no correction can mend that. {_spending_words(content)} "
        f"{frozen}"
    ).replace("  ", " ")


def _spending_words(content: ReportContent) -> str:
    """What of alpha this report may spend, where there may be others; empty where it has all of it."""
    whole = float((content.settings.get("inference") or {}).get("alpha", content.alpha))
    own = error_rate(content.alpha)
    if content.round == 1 and content.alpha >= whole:
        return ""
    if content.round == 1:
        return (
            f"It may err in {own} of cases; what that leaves of {error_rate(whole)} is kept for refreshes, which test "
            "rows that come later."
        )
    return (
        f"This is the {ordinal(content.round - 1)} refresh: its held-out texts came after an earlier report, and share "
        f"nothing with texts whose outcomes were learned from. It may err in {own} of cases, and all reports on this "
        f"dataset together in {error_rate(whole)}."
    )


def own_effect_words(content: ReportContent) -> Iterator[str]:
    """How many of several confirmed claims keep their direction beside all others."""
    confirmed = [h.test for h in content.hypotheses if h.badge == "confirmed"]
    if len(confirmed) < 2:
        return
    own = sum(
        test.partial.low > 0 if test.separation.estimate > 0 else test.partial.high < 0  # never, where it is NaN
        for test in confirmed
    )
    if own == len(confirmed):
        yield f"Each of the {own} keeps its direction beyond doubt beside all other claims."
        return
    keeps = "keeps its" if own == 1 else "keep their"
    yield f"Of the {len(confirmed)}, {own or 'none'} {keeps} direction beyond doubt beside all other claims."


def trust_facts(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """Figures of a card on how far to trust it: (name, value)."""
    yield "Power of the test", detectable_words(hypothesis.detectable, content.task)
    if math.isfinite(hypothesis.stability):
        yield "Neuron selected again", f"from {percent(hypothesis.stability)} of random halves of the training clusters"
    if hypothesis.duplicates:
        near = "; ".join(f"{one_line(d.claim)} (φ {number(d.phi)})" for d in hypothesis.duplicates)
        yield "Stands for near-duplicates", near
    if hypothesis.near_copies:
        yield "Stands for near-copies", near_copy_words(hypothesis.near_copies)
    for one in hypothesis.subgroups:
        yield (
            f"Where {subgroup_name(one)}",
            f"{effect_brief(one.effect, content.task)}; {difference_words(one, content)}",
        )
    if hypothesis.annotation_error is not None:
        yield from error_facts(hypothesis.annotation_error, content.task)
    if content.look is not None and content.look.number > 1:
        counted = plural(content.family, "test")
        yield (
            "Look at the held-out texts",
            f"the {ordinal(content.look.number)}; the correction counts {counted} in all",
        )


def near_copy_words(copies: Sequence[NearCopy]) -> str:
    """Near-copies of a neuron that were left out so that other neurons could be selected."""
    named = [f"{c.sae_id[:8]}/{c.sae_column} (r {number(c.correlation)}, cosine {number(c.cosine)})" for c in copies]
    more = f" and {len(named) - _SHOWN_COPIES} more" if len(named) > _SHOWN_COPIES else ""
    return "; ".join(named[:_SHOWN_COPIES]) + more


def error_facts(error: AnnotationError, task: str) -> Iterator[tuple[str, str]]:
    """What labels by people, or the judge's stated accuracy, make of an effect."""
    if error.distilled is not None:
        probe = error.distilled
        yield (
            "Judged by a probe",
            f"the model judged {count(probe.n_gold)} of the held-out observations, a probe on their vectors the rest. "
            f"It finds {percent(probe.sensitivity)} of those that the model says yes to, says yes to "
            f"{percent(probe.false_positive_rate)} of the others; κ {number(probe.kappa)}. The effect is corrected for "
            "these errors",
        )
    found = error.corrected
    if found is not None and found.note:
        yield "Corrected by gold labels", found.note
    elif found is not None:
        yield "Corrected by gold labels", f"{partial_brief(found.corrected, task)} ({plural(found.n_gold, 'label')})"
        yield (
            "The judge against people",
            f"finds {percent(found.sensitivity)} of the texts that it holds for, says yes to "
            f"{percent(found.false_positive_rate)} of the others; κ {number(found.kappa)}",
        )
    if math.isfinite(error.human_kappa):
        yield "Two people", f"κ {number(error.human_kappa)}"
    low, high = error.band
    if math.isfinite(low):
        yield "With the judge's stated accuracy", f"a true effect from {_signed(low, task)} to {_signed(high, task)}"


def _signed(value: float, task: str) -> str:
    return number(value, signed=True) if task == "regression" else f"{number(100 * value, 1, signed=True)} points"


def control_words(content: ReportContent) -> Iterator[str]:
    """What the negative controls gave, one sentence each."""
    for control in content.negative_controls:
        if not control.tested:
            yield f"{capitalised(control.name)}: nothing could be tested."
        elif control.name == "random neurons":
            yield (
                f"Of {plural(control.tested, 'neuron')} drawn at random from those not selected, {control.discoveries} "
                f"would be confirmed if tested by whether texts activate them, with a typical effect of "
                f"{_size(control.typical_effect, content.task)} (the hypotheses here: {_typical(content)}). Random "
                "neurons are no nulls: the more there are, the less it means to be merely significant."
            )
        else:
            what = "neurons selected for" if control.name == "permuted labels" else "the claims of this report against"
            yield (
                f"{capitalised(what)} permuted outcomes: {plural(control.discoveries, 'false confirmation')} among "
                f"{plural(control.tested, 'test')} ({control.runs_with_any} of {plural(control.runs, 'permutation')}"
                f"{_chance_words(control, content.alpha)})."
            )


def _chance_words(control: NegativeControl, alpha: float) -> str:
    """Whether as many permutations with a false confirmation are what chance gives at alpha."""
    if not control.runs_with_any:
        return ""
    most = most_by_chance(control.runs, alpha)
    at = f"at a family-wise error of {error_rate(alpha)}"
    if control.runs_with_any <= most:
        return f"; chance gives up to {most} {at}"
    return f"; chance gives no more than {most} {at}, so on these rows the test may be too generous"


def _typical(content: ReportContent) -> str:
    sizes = [abs(h.test.separation.estimate) for h in content.hypotheses]
    known = sorted(size for size in sizes if math.isfinite(size))
    return _size(known[len(known) // 2], content.task) if known else NOT_ESTIMABLE


def _size(value: float, task: str) -> str:
    return number(value) if task == "regression" else f"{number(100 * value, 1)} points"


def detectable_words(size: float, task: str) -> str:
    """The minimum detectable effect, in the unit in which effects are shown, and what it is not: a lower limit."""
    if not math.isfinite(size):
        return NOT_ESTIMABLE
    written = number(size) if task == "regression" else f"{number(100 * size, 1)} points"
    return f"an effect of ±{written} would have been found with 80 % probability, a smaller one with less"
