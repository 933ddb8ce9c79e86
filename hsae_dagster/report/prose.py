"""The sentences of a report: what was found and how, and how far it may be trusted."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis, NearCopy
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.joint_fit import WORDS
from hsae_dagster.core.inference.subgroups import SubgroupEffect
from hsae_dagster.core.observations import BLOCKS
from hsae_dagster.core.selection.stability import NegativeControl, most_by_chance
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    concepts_fit,
    count,
    effect_brief,
    effect_words,
    error_rate,
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
    recovery_words,
    short_outcome,
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
        yield f"Each of the {own} keeps its direction with all other claims held constant, by its 95 % interval."
        return
    keeps, intervals = ("keeps its", "its 95 % interval") if own == 1 else ("keep their", "their 95 % intervals")
    yield (
        f"Of the {len(confirmed)}, {own or 'none'} {keeps} direction with all other claims held constant, by "
        f"{intervals}."
    )


BADGE_MEANINGS = (
    ("confirmed", "the test holds after Holm's correction for all tests, in the expected direction."),
    ("confirmed, judge unchecked", "the same, but a language model judged the texts and no human labels checked it."),
    (
        "suggestive",
        "only a weaker test holds (false discovery rate), the effect changes sign under controls, or missing answers "
        "could overturn it.",
    ),
    ("not supported", "the held-out texts do not show it. That is not proof that it is untrue."),
    ("invalid", "it could not be tested, or its effect runs against the direction it was selected for."),
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
    """How many different findings there are, on what, how many stand beside the others, and whether words beat them."""
    if not content.hypotheses:
        return (
            "Nothing found. No claim about the training texts was associated with the outcome clearly enough "
            "to be tested. That is a result, too."
        )
    return " ".join([_found(content), *own_effect_words(content), *_beaten_by_words(content)])


def _found(content: ReportContent) -> str:
    """Findings among the tested claims; they are different by how claims are chosen, but for the user's own."""
    tested, confirmed = len(content.hypotheses), content.confirmed
    own = sum(h.badge == "confirmed" and h.source == "yours" for h in content.hypotheses)
    verb = _be(tested)[1]
    look = content.look.number if content.look else 1
    read = "whose outcomes no earlier step had read" if look == 1 else f"at the {ordinal(look)} look at them"
    tested_on = f"{_tested_on(content)} {read}"
    what = f"{plural(tested, 'claim')} {verb} tested on {tested_on}"
    if content.halves:
        twice = sum(h.twin is not None and h.twin.agrees for h in content.hypotheses)
        what = (
            f"{plural(tested, 'claim')} {verb} tested on {_tested_on(content)}, each on the half that it was not found "
            f"in; {count(twice) if twice else 'none'} of them {_be(twice)[1]} found in both halves"
        )
    unchecked = sum(h.badge == "confirmed, judge unchecked" for h in content.hypotheses)
    if unchecked:
        what += f"; the test of {count(unchecked)} holds by a judge that no labels of people have checked"
    if not confirmed:
        return f"No finding: {what}; {'it' if tested == 1 else 'none of them'} is {'not ' * (tested == 1)}confirmed."
    found = confirmed - own
    counted = [f"{plural(found, 'different finding') if found > 1 else plural(found, 'finding')}"] if found else []
    counted += [f"{plural(own, 'claim')} of your own"] if own else []
    return f"{' and '.join(counted)} confirmed: {what}."


def _tested_on(content: ReportContent) -> str:
    holdout, noun = content.tested_on(""), tested_noun(content)
    if holdout is None:
        return "held-out texts"
    where = plural(holdout.observations, noun)
    if noun == "observation":
        where += f" of {plural(holdout.texts, 'text')}"
    if content.cluster:
        where += f" ({plural(holdout.clusters, f'{cluster_noun(content)} cluster')})"
    return where


def _be(n: int) -> tuple[str, str]:
    return ("is", "was") if n == 1 else ("are", "were")


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


def _controls_paragraph(content: ReportContent) -> str:
    """What declared controls do to the figures."""
    names = ", ".join(one_line(name) for name in content.controls)
    return (
        f"Controls ({names}): effects, intervals, p-values, q and verdicts are with these and text length held "
        "constant, as far as straight lines and categories can. The plain effect, without controls, is shown beside "
        "each."
    )


def summary(content: ReportContent) -> tuple[str, ...]:
    """The paragraphs under the headline."""
    out = []
    if content.controls and content.hypotheses:
        out.append(_controls_paragraph(content))
    if content.confirmed:
        out.append(
            "Confirmed means: if no claim were associated with the outcome, a report like this should confirm any in "
            f"at most {error_rate(content.alpha)} of cases (docs/inference.md: how nearly it does). It is an "
            "association found in some texts and seen again in others, not a cause. A claim is tested as it reads: "
            "its words are its whole meaning."
        )
    if content.fits and content.hypotheses:
        out.append(recovery_words(content.fits, content.floor))
    return tuple(out)


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


def method(content: ReportContent) -> Iterator[tuple[str, str]]:
    """How the figures came about: (what, how)."""
    by = f" Texts of one {cluster_noun(content)} are always in the same split." if content.cluster else ""
    how = "Claims are found on the training and validation texts and tested once on the held-out texts (the holdout)."
    if content.halves:
        by = by.replace("split", "half")
        how = (
            "Two halves. What each half of the texts suggests (neurons, words, thresholds, directions, the "
            "size of the autoencoder) is tested once, on the other half, which is held out from all of that. "
            "Autoencoders do not see the outcome and learn from the texts of both. Claims of both halves that "
            "say the same are one line, found twice: it shows the more significant of the two tests, so its effect "
            "is slightly optimistic, and the card shows both."
        )
    yield "Splits", how + by
    yield (
        "From text to claim",
        "Texts become embeddings: lists of numbers that represent their meaning. A sparse autoencoder breaks "
        "these into neurons. Each neuron is zero for most texts; the others activate it (“fire”). Neurons "
        "that predict the outcome on training texts are selected (the method of HypotheSAEs, arXiv "
        "2502.04382). Claims come from texts that activate them, from words associated with the outcome and "
        "from a list of style cues, and are chosen together. Each claim is then judged on held-out texts "
        "without looking at any neuron or the outcome.",
    )
    yield ("What the neurons learned from", _guidance(content))
    yield ("Effect", _effect_method(content) + _with_controls(content))
    within = f"each {cluster_noun(content)}" if content.cluster else f"clusters (here every {unit(content)} is its own)"
    yield (
        "Interval and test",
        f"95 % intervals and p-values come from standard errors robust to dependence within {within}: the larger of "
        "the bias-reduced sandwich (CR2) and a model-based error (Moulton's, as far as a claim belongs to whole "
        "clusters or outcomes are few; for pairs the classical one), with Student's t at the degrees of freedom of "
        "Imbens and Kolesár. Where clusters are few or unequal, a wild cluster bootstrap counts if it is more cautious."
        + (
            f" Rows of one of {BLOCKS} blocks of time count as dependent too; slower drifts are not allowed for."
            if (content.settings.get("columns") or {}).get("time")
            else ""
        )
        + (
            " The p-value of a share won comes from random sign flips of clusters (mid-p) or, where texts "
            "recur in several pairs, from assigning the claim to other texts."
            if content.task == "pairwise"
            else ""
        ),
    )
    tests = sum(1 + (h.twin is not None) for h in content.hypotheses)
    yield (
        "Many tests",
        "Holm's correction is meant to keep the chance of any false confirmation below "
        f"{error_rate(content.alpha)}; the simulations in docs/inference.md show how well it does, and where it "
        "fails. Dependence that no column and no equal text reveals is not accounted for. q is the false "
        f"discovery rate of Benjamini and Hochberg. Plain Bonferroni would keep {content.bonferroni} of {tests}."
        + (" Each half has half of that chance, for its own tests (less what your own claims take)." * content.halves),
    )
    yield (
        "Beside all other claims",
        "The same difference with all other claims, text length and the declared controls held constant "
        + ("(least squares)." if content.task == "regression" else "(average marginal effect of a logit).")
        + " A claim can lose its effect here if another claim says nearly the same.",
    )
    yield (
        "Claim and neuron",
        "A claim is tested as it reads. How much of its neuron it says does not affect the verdict. Precision: "
        "of the texts for which the claim holds, the share that activate the neuron. Recall: of the texts that "
        "activate the neuron, the share for which the claim holds. r: their correlation. Claims made from "
        "words or style may have no neuron.",
    )
    yield (
        "Joint fit",
        "Models of embeddings, words and neurons are trained on the other splits. Claims are judged on the "
        "holdout only, so their model is cross-fitted over its clusters, and an AUC compares texts within one "
        "fold only. No model is scored on texts it has seen. The floor is the model of the claims on shuffled "
        "outcomes." + (" With two halves, each value is the mean over both sides." * content.halves),
    )


def _guidance(content: ReportContent) -> str:
    weights = sorted({guided.weight for guided in content.guidance.values()})
    if not any(weights):
        return (
            "The texts alone, including held-out ones if `saes: auto` chose the size: the autoencoder learned "
            "to reconstruct the embeddings and never saw the outcome. Its neurons represent what is frequent "
            "in the texts, whether or not it is associated with the outcome."
        )
    named = " and ".join(f"{weight:g}" for weight in weights if weight)
    some = "The autoencoder" if all(weights) else "One or more of the autoencoders (each card says whether its own)"
    few = [f"{guided.neurons} of {guided.m}" for guided in content.guidance.values() if guided.by_few]
    source = (
        f" from {' and '.join(few)} neurons, while the others only reconstruct (each card says which)" if few else ""
    )
    return (
        f"{some} learned to reconstruct the embeddings and, with weight {named}, to predict the outcome of the "
        f"training texts{source}. Such neurons favour what predicts the outcome and are not a neutral inventory "
        "of the texts. The outcomes of the holdout were not used, so tests, intervals and corrections remain "
        "valid."
    )


def _with_controls(content: ReportContent) -> str:
    if not content.controls:
        return ""
    return " The declared controls and the text's length are held constant, by least squares."


def _effect_method(content: ReportContent) -> str:
    if content.task == "pairwise":
        return (
            "Among pairs in which the claim holds for one text only, the share that this text wins; one half is no "
            "association. It does not matter which text is called A."
        )
    if content.task == "classification":
        return (
            f"Share of “{short_outcome(content.outcome)}” among the texts that the claim holds for minus that "
            "among the others."
        )
    return (
        f"The average of the outcome ({short_outcome(content.outcome)}) over the texts that the claim holds for minus "
        "its average over the others."
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
