"""The sentences of a report: what was found and how, and how far it may be trusted."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.joint_fit import WORDS
from hsae_dagster.core.inference.subgroups import SubgroupEffect
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    concepts_fit,
    count,
    effect_brief,
    effect_words,
    left_out_words,
    metric_name,
    number,
    one_line,
    ordinal,
    p_phrase,
    p_value,
    partial_brief,
    percent,
    plural,
)


def unit(content: ReportContent) -> str:
    """What one observation is."""
    return "pair" if content.task == "pairwise" else "text"


def tested_noun(content: ReportContent) -> str:
    """What the tests count: pairs, texts, or observations where several rows share a text."""
    holdout = content.tested_on("")
    repeated = holdout is not None and content.task != "pairwise" and holdout.observations != holdout.texts
    return "observation" if repeated else unit(content)


def cluster_noun(content: ReportContent) -> str:
    """What clusters are called: the column's name."""
    return one_line(content.cluster) if content.cluster else unit(content)


# What the effect that no control changed is called, where controls are declared.
PLAIN = "without controls"


def beside_effect(hypothesis: Hypothesis, content: ReportContent) -> tuple[str, str]:
    """What stands beside the effect that decides: the plain one where controls are declared, else one for length."""
    if content.controls:
        return capitalised(PLAIN), effect_brief(hypothesis.test.plain, content.task)
    return "With text length held constant", partial_brief(hypothesis.test.adjusted, content.task)


def claim_sentence(hypothesis: Hypothesis, content: ReportContent) -> tuple[str, str]:
    """The claim, and what it is associated with, as two halves of one sentence."""
    words = effect_words(hypothesis.test.separation, content.task, content.outcome)
    if content.controls and math.isfinite(hypothesis.test.separation.estimate):
        words += ", controls held constant"
    return capitalised(one_line(hypothesis.claim)), words


def headline(content: ReportContent) -> str:
    """How many different findings there are, on what, and whether plain words predict more than the claims do."""
    if not content.hypotheses:
        return (
            "Nothing found. No claim about the training texts was associated with the outcome clearly enough "
            "to be tested. That is a result, too."
        )
    return " ".join([_found(content), *_beaten_by_words(content)])


def _found(content: ReportContent) -> str:
    """Findings among the tested claims; claims of two halves that overlap are one, and the user's own stand beside."""
    tested, confirmed = len(content.hypotheses), content.confirmed
    own = sum(h.badge == "confirmed" and h.source == "yours" for h in content.hypotheses)
    verb, look = _were(tested), content.look.number
    read = "whose outcomes no earlier step had read" if look == 1 else f"at the {ordinal(look)} look at them"
    tested_on = f"{_tested_on(content)} {read}"
    what = f"{plural(tested, 'claim')} {verb} tested on {tested_on}"
    if content.halves:
        twice = sum(h.twin is not None and h.twin.agrees for h in content.hypotheses)
        what = (
            f"{plural(tested, 'claim')} {verb} tested on {_tested_on(content)}, each on the half that it was not found "
            f"in; {count(twice) if twice else 'none'} of them {_were(twice)} found in both halves"
        )
    unchecked = sum(h.badge == "confirmed, judge unchecked" for h in content.hypotheses)
    if unchecked:
        what += f"; the test of {count(unchecked)} holds by a judge that no labels of people have checked"
    if not confirmed:
        return f"No finding: {what}; {'it' if tested == 1 else 'none of them'} is {'not ' * (tested == 1)}confirmed."
    found, claims = content.different, confirmed - own
    counted = [plural(found, "different finding" if found > 1 else "finding")] if found else []
    overlap = f", in {plural(claims, 'claim')} of which some overlap" if claims > found else ""
    counted += [f"{plural(own, 'claim')} of your own"] if own else []
    return f"{' and '.join(counted)} confirmed{overlap}: {what}."


def _tested_on(content: ReportContent) -> str:
    holdout, noun = content.tested_on(""), tested_noun(content)
    if holdout is None:
        return "held-out texts"
    where = plural(holdout.observations, noun)
    if noun == "observation":
        where += f" of {plural(holdout.texts, 'text')}"
    if content.cluster:
        where += f" ({plural(holdout.clusters, f'{cluster_noun(content)} cluster')})"
    elif content.joined:
        where += f" ({plural(holdout.clusters, 'cluster')} of equal or nearly equal texts)"
    return where


def _were(n: int) -> str:
    return "was" if n == 1 else "were"


def strongest(content: ReportContent, limit: int = 5) -> tuple[Hypothesis, ...]:
    """The confirmed hypotheses with the largest effects."""
    confirmed = [h for h in content.hypotheses if h.badge == "confirmed"]
    return tuple(sorted(confirmed, key=lambda h: -abs(h.test.separation.estimate))[:limit])


def strong_words(hypothesis: Hypothesis, content: ReportContent) -> tuple[str, str]:
    """`claim_sentence` for the summary: where controls are declared, with the plain effect beside it."""
    claim, words = claim_sentence(hypothesis, content)
    if not content.controls:
        return claim, words
    return claim, f"{words}; {PLAIN} {beside_effect(hypothesis, content)[1]}"


def _beaten_by_words(content: ReportContent) -> Iterator[str]:
    """A sentence where a linear model of plain words predicts more than the claims do."""
    concepts, words = concepts_fit(content.fits), next((fit for fit in content.fits if fit.name == WORDS), None)
    if concepts and words and words.value > concepts.value:
        figures = f"{metric_name(words.metric)} {number(words.value)} against {number(concepts.value)}"
        yield (f"Plain words predict more than the claims do ({figures}): the claims leave something out.")


def outcome_sentence(content: ReportContent) -> str:
    """What the outcome is and where its average lies."""
    name, noun = one_line(content.outcome), f"{tested_noun(content)}s"
    if content.task == "pairwise":
        return f"Which text of a pair wins: {name}."
    if content.task == "classification":
        return f"Whether a text has the outcome: {name} ({percent(content.outcome_mean)} of the held-out {noun})."
    return f"A number: {name} (average {number(content.outcome_mean)} over the held-out {noun})."


def subgroup_rows(content: ReportContent) -> list[tuple[str, str, str, tuple[str, ...]]]:
    """The table of the page: (hypothesis id, claim, subgroup, figures in words); may be empty."""
    return [
        (h.hypothesis_id, h.claim, subgroup_name(one), _figures(one, content.task))
        for h in content.hypotheses
        for one in h.subgroups
    ]


def _figures(one: SubgroupEffect, task: str) -> tuple[str, ...]:
    tests = (one.effect, one.p_holm, effect_brief), (one.difference, one.difference_p_holm, partial_brief)
    told = [words for effect, p, brief in tests for words in (brief(effect, task), p_value(p))]
    return (*told, count(one.n), count(one.n_with))


def subgroup_counts(content: ReportContent) -> tuple[int, int]:
    """How many effects within subgroups differ from zero, and how many hypotheses' between subgroups, corrected."""
    holding = sum(one.p_holm < content.alpha for h in content.hypotheses for one in h.subgroups)
    return holding, sum(any(s.difference_p_holm < content.alpha for s in h.subgroups) for h in content.hypotheses)


def subgroup_name(one: SubgroupEffect) -> str:
    """`side = north`."""
    return f"{one_line(one.covariate)} = {one_line(one.level)}"


def difference_words(one: SubgroupEffect, content: ReportContent) -> str:
    """How the effect in a subgroup compares with that elsewhere."""
    if not math.isfinite(one.difference.estimate):
        return "too few texts elsewhere to compare"
    corrected = p_phrase("Holm's p", one.difference_p_holm)
    return f"{partial_brief(one.difference, content.task)} against elsewhere ({corrected})"


def trust_facts(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """Figures of a card on how far to trust it: (name, value)."""
    yield "Power of the test", detectable_words(hypothesis.detectable, content.task)
    if math.isfinite(hypothesis.stability):
        yield "Neuron selected again", f"in {percent(hypothesis.stability)} of random halves of the training clusters"
    if hypothesis.duplicates:
        near = "; ".join(f"{one_line(d.claim)} (φ {number(d.phi)})" for d in hypothesis.duplicates)
        yield "Stands for near-duplicates", near
    for one in hypothesis.subgroups:
        yield (
            f"Where {subgroup_name(one)}",
            f"{effect_brief(one.effect, content.task)}; {difference_words(one, content)}",
        )
    if hypothesis.annotation_error is not None:
        yield from error_facts(hypothesis.annotation_error, content.task)
    if content.look.number > 1:
        counted = plural(content.family, "test")
        yield (
            "Look at the held-out texts",
            f"the {ordinal(content.look.number)}; the correction counts {counted} in all",
        )


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
        least, most = (size_words(end, task, signed=True) for end in (low, high))
        yield "With the judge's stated accuracy", f"a true effect from {least} to {most}"


def _typical(content: ReportContent) -> str:
    sizes = [abs(h.test.separation.estimate) for h in content.hypotheses]
    known = sorted(size for size in sizes if math.isfinite(size))
    return size_words(known[len(known) // 2], content.task) if known else NOT_ESTIMABLE


def size_words(value: float, task: str, *, signed: bool = False) -> str:
    """The size of an effect in the unit in which effects are shown."""
    return number(value, signed=signed) if task == "regression" else f"{number(100 * value, 1, signed=signed)} points"


def detectable_words(size: float, task: str) -> str:
    """The minimum detectable effect, in the unit in which effects are shown, and what it is not: a lower limit."""
    if not math.isfinite(size):
        return NOT_ESTIMABLE
    return (
        f"an effect of ±{size_words(size, task)} would have been found with 80 % probability, a smaller one with less"
    )


_FEW_CLUSTERS = 40  # below it a reader should know (Cameron, Gelbach and Miller 2008)


def doubts(content: ReportContent) -> dict[str, Any]:
    """What the page's reasons to doubt rest on, by the names of sections/threats.html.j2; empty where there is none."""
    tests = [h.test for h in content.hypotheses]
    clusters = min((test.n_clusters for test in tests), default=_FEW_CLUSTERS)
    recall = [h.fidelity.natural_recall for h in content.hypotheses if h.sae_id and h.fidelity.n_firing]
    return {
        "probe": _probe(content),
        "few_clusters": clusters if clusters < _FEW_CLUSTERS else None,
        "recall": float(np.median(recall)) if recall else None,
        "missing": max((_missing(h, content) for h in content.hypotheses), default=0),
        "opposite": sum(flag.name == "sign conflict" for test in tests for flag in test.flags),
        "left_out": "; ".join(f"{left_out_words(reason)}: {count(n)}" for reason, n in content.dropped.items() if n),
        "typical": _typical(content),
    }


def _probe(content: ReportContent) -> dict[str, Any] | None:
    """Of how many observations the model judged some, and the median and lowest κ of the probe that judged the rest."""
    probes = [(h.test, h.annotation_error.distilled) for h in content.hypotheses if h.annotation_error]
    found = [(test, probe) for test, probe in probes if probe is not None]
    if not found:
        return None
    kappas = [probe.kappa for _, probe in found if math.isfinite(probe.kappa)]
    agreement = (float(np.median(kappas)), min(kappas)) if kappas else None
    return {"asked": found[0][1].n_gold, "seen": found[0][0].n, "kappas": agreement}


def _missing(hypothesis: Hypothesis, content: ReportContent) -> int:
    holdout = content.tested_on(hypothesis.half)
    return max(0, holdout.observations - hypothesis.test.n) if holdout else 0
