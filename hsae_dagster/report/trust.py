"""How far a report may be trusted: looks, controls, power, errors of annotation, subgroups, reasons to doubt."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis, NearCopy
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.subgroups import SubgroupEffect
from hsae_dagster.core.selection.stability import NegativeControl, most_by_chance
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    count,
    effect_brief,
    error_rate,
    left_out_words,
    number,
    one_line,
    ordinal,
    p_phrase,
    p_value,
    partial_brief,
    percent,
    plural,
)


@dataclass(frozen=True)
class SubgroupView:
    """The table of the page: (hypothesis id, claim, subgroup, figures in words) per row, and what holds in words."""

    rows: tuple[tuple[str, str, str, tuple[str, ...]], ...]
    reading: str


def subgroup_view(content: ReportContent) -> SubgroupView | None:
    """What the page shows; None where no subgroup was asked for, or none has enough texts."""
    rows = [
        (h.hypothesis_id, h.claim, subgroup_name(one), _figures(one, content.task))
        for h in content.hypotheses
        for one in h.subgroups
    ]
    return SubgroupView(tuple(rows), _reading(content)) if rows else None


def _figures(one: SubgroupEffect, task: str) -> tuple[str, ...]:
    return (
        effect_brief(one.effect, task),
        p_value(one.p_holm),
        partial_brief(one.difference, task),
        p_value(one.difference_p_holm),
        count(one.n),
        count(one.n_with),
    )


def _reading(content: ReportContent) -> str:
    alpha = content.alpha
    every = [(h, one) for h in content.hypotheses for one in h.subgroups]
    holding = sum(one.p_holm < alpha for _, one in every)
    differing = [h for h in content.hypotheses if any(one.difference_p_holm < alpha for one in h.subgroups)]
    return (
        f"Of {plural(len(every), 'effect')} within subgroups, {holding} "
        f"{'differs' if holding == 1 else 'differ'} from zero after Holm's correction over all of them; the "
        f"effect of {plural(len(differing), 'hypothesis')} differs between subgroups after a correction of its "
        "own. Verdicts rest on all held-out texts together and do not use this table."
    )


def subgroup_name(one: SubgroupEffect) -> str:
    """`side = north`."""
    return f"{one_line(one.covariate)} = {one_line(one.level)}"


def difference_words(one: SubgroupEffect, content: ReportContent) -> str:
    """How the effect in a subgroup compares with that elsewhere."""
    if not math.isfinite(one.difference.estimate):
        return "too few texts elsewhere to compare"
    corrected = p_phrase("Holm's p", one.difference_p_holm)
    return f"{partial_brief(one.difference, content.task)} against elsewhere ({corrected})"


_SHOWN_COPIES = 5


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
        first = "This is the first look at these held-out texts that the results folder records."
        return " ".join(filter(None, (first, _spending_words(content), frozen)))
    own = len(content.hypotheses)
    return (
        f"This is the {ordinal(look.number)} look at these held-out texts: "
        f"{plural(look.number - 1, 'other plan')} had been evaluated on them. The correction covers everything "
        f"that any look tested, each test once: {plural(content.family, 'test')}, of which this report shows "
        f"{own}. A hypothesis made after reading an earlier report is not tested on unseen texts, and no "
        f"correction can fix that. {_spending_words(content)} {frozen}"
    ).replace("  ", " ")


def _spending_words(content: ReportContent) -> str:
    """What of alpha this report may spend, where there may be others; empty where it has all of it."""
    whole = float((content.settings.get("inference") or {}).get("alpha", content.alpha))
    own = error_rate(content.alpha)
    if content.round == 1 and content.alpha >= whole:
        return ""
    if content.round == 1:
        return (
            f"Its family-wise error is {own}; the rest of {error_rate(whole)} is reserved for refreshes, which "
            "test rows that arrive later."
        )
    return (
        f"This is the {ordinal(content.round - 1)} refresh: its held-out texts arrived after an earlier report "
        f"and share nothing with texts whose outcomes were learned from. Its family-wise error is {own}, that "
        f"of all reports on this dataset together {error_rate(whole)}."
    )


def trust_facts(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """Figures of a card on how far to trust it: (name, value)."""
    yield "Power of the test", detectable_words(hypothesis.detectable, content.task)
    if math.isfinite(hypothesis.stability):
        yield "Neuron selected again", f"in {percent(hypothesis.stability)} of random halves of the training clusters"
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
            f"the model judged {count(probe.n_gold)} of the held-out observations, and a probe on their vectors "
            f"the rest. The probe finds {percent(probe.sensitivity)} of the model's yes answers and says yes to "
            f"{percent(probe.false_positive_rate)} of the others; κ {number(probe.kappa)}. The effect is "
            "corrected for these errors",
        )
    found = error.corrected
    if found is not None and found.note:
        yield "Corrected by gold labels", found.note
    elif found is not None:
        yield "Corrected by gold labels", f"{partial_brief(found.corrected, task)} ({plural(found.n_gold, 'label')})"
        yield (
            "The judge against people",
            f"finds {percent(found.sensitivity)} of the texts for which it holds and says yes to "
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
                f"Of {plural(control.tested, 'neuron')} drawn at random from those not selected, "
                f"{control.discoveries} would be confirmed if tested by whether texts activate them, with a "
                f"typical effect of {_size(control.typical_effect, content.task)} (the hypotheses here: "
                f"{_typical(content)}). Random neurons are not nulls: the more of them are significant, the "
                "less significance alone means."
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
        return f"; chance alone gives up to {most} {at}"
    return f"; chance alone gives at most {most} {at}, so the test may be too liberal on these rows"


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


_FEW_CLUSTERS = 40  # below it a reader should know (Cameron, Gelbach and Miller 2008)


def threats(content: ReportContent) -> Iterator[str]:
    """What speaks against trusting the figures, most general first."""
    yield (
        "These are associations in observed texts. A claim can be associated with the outcome because of a "
        "confounder, such as topic, author or time; nothing here shows what would happen if a text were "
        "changed."
    )
    yield from _probe_words(content)
    if content.task != "pairwise" and not content.controls:
        yield "No controls are declared, so effects beside all other claims hold only these and text length constant."
    if not content.cluster:
        yield (
            "No cluster column is declared: every text counts as independent. If texts share an author, a thread or an "
            "object, the intervals are too narrow."
        )
    yield from _figure_threats(content)
    yield look_words(content)
    controls = " ".join(control_words(content))
    if controls:
        yield f"Negative controls. {controls}"


def _probe_words(content: ReportContent) -> Iterator[str]:
    """That most cells are a probe's, and how good it is."""
    probes = [(h.test, h.annotation_error.distilled) for h in content.hypotheses if h.annotation_error]
    found = [(test, probe) for test, probe in probes if probe is not None]
    if not found:
        return
    asked, seen = found[0][1].n_gold, found[0][0].n
    kappas = np.array([probe.kappa for _, probe in found])
    agreement = "could not be compared with it"
    if np.isfinite(kappas).any():
        agreement = (
            f"agrees with it beyond chance by κ {number(float(np.nanmedian(kappas)))} (the median claim; lowest "
            f"{number(float(np.nanmin(kappas)))})"
        )
    yield (
        f"The language model judged {count(asked)} of {count(seen)} held-out observations; the other "
        f"{percent(1 - asked / seen)} were judged by a probe on their vectors, which {agreement}. Effects, "
        "intervals and tests of single claims are corrected for its errors; how often a claim holds, effects "
        "beside the other claims and the joint fit use its labels uncorrected."
    )


def _figure_threats(content: ReportContent) -> Iterator[str]:
    tests = [h.test for h in content.hypotheses]
    clusters = min((test.n_clusters for test in tests), default=_FEW_CLUSTERS)
    if clusters < _FEW_CLUSTERS:
        yield (
            f"At least one claim rests on only {plural(clusters, 'cluster')}. Its interval allows for that, but "
            "these clusters must be representative."
        )
    recall = [h.fidelity.natural_recall for h in content.hypotheses if h.sae_id and h.fidelity.n_firing]
    if recall:
        yield (
            "A claim says only a part of its neuron: the median claim holds for "
            f"{percent(float(np.median(recall)))} of the texts that activate its neuron. The rest of the "
            "neuron's information was not tested."
        )
    if (content.settings.get("annotation") or {}).get("model") == "lexical":
        yield (
            "Claims about words and signs are read literally: irony, negation (“not good”) and quotation count "
            "like any other use. A claim that quotes a sentence holds wherever the embedder finds that "
            "similarity, even if a person would not."
        )
    missing = max((_missing(h, content) for h in content.hypotheses), default=0)
    if missing:
        yield f"Up to {plural(missing, 'held-out observation')} of a claim could not be judged and were left out."
    if content.confirmed > 1:
        yield (
            "The strongest claims are those with the largest effects on these texts; on other texts these "
            "effects tend to be a little smaller."
        )
    opposite = sum("opposite signs" in flag for test in tests for flag in test.flags)
    if opposite:
        yield (
            f"{plural(opposite, 'claim')} {'changes' if opposite == 1 else 'change'} direction once the others "
            "are held constant (flagged on the card)."
        )
    if content.dropped:
        reasons = "; ".join(f"{left_out_words(reason)}: {count(n)}" for reason, n in content.dropped.items() if n)
        if reasons:
            yield f"Rows were left out at the start ({reasons})."
    if content.unreadable:
        yield (
            f"No claim covers {plural(len(content.unreadable), 'selected neuron')}. What "
            f"{'it predicts' if len(content.unreadable) == 1 else 'they predict'} about the outcome is missing "
            "here."
        )


def _missing(hypothesis: Hypothesis, content: ReportContent) -> int:
    holdout = content.tested_on(hypothesis.half)
    return max(0, holdout.observations - hypothesis.test.n) if holdout else 0
