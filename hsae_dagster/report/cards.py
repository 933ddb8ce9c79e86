"""Hypotheses for Dagster and the terminal: a card as markdown, all of them as rows.

Belongs here: markdown and its escaping. Does not belong here: HTML (`page`) or how figures are written (`wording`).
"""

import math
import re
from collections.abc import Iterator, Sequence

from hsae_dagster.core.hypothesis import Example, Hypothesis
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.excerpts import excerpt, marks_of
from hsae_dagster.report.prose import cluster_noun, held_constant, tested_noun
from hsae_dagster.report.trust import trust_facts
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    count,
    effect_brief,
    effect_figure,
    effect_words,
    example_outcome,
    number,
    one_line,
    p_phrase,
    p_value,
    partial_brief,
    percent,
    plural,
)

_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$:])")
_LEADING = re.compile(r"^(?:([-+=])|(\d+)([.)]))(?=\s|[-=]|$)")
# What a renderer turns into a link by itself; a space of no width after it keeps an address text.
_SELF_LINKING = re.compile(r"https?:(?=//)|www(?=\.)|@", re.IGNORECASE)
CONTROLLED = "controls held constant"
FOUND_IN = "found in"
SUPPORTING = "Texts that it holds for"
NEAR_MISSES = "Near misses"
_SOURCES = {
    "neuron": "a neuron of the autoencoder",
    "terms": "words of the training texts that go with the outcome",
    "style": "the list of style cues",
}
_OTHER = {"a": "b", "b": "a"}
_WHY = {
    "controls": "changes sign under controls",
    "false discovery rate": "by q, not by Holm",
    "missing answers": "missing answers could overturn it",
    "judge unchecked": "no labels of people checked the judge",
    "direction": "against its direction",
    "not testable": "not testable",
}


def escape_markdown(text: str) -> str:
    r"""Text that shows as itself inside one line of markdown: no markup, no HTML, no image, no table cell ends.

    Examples:
        >>> escape_markdown("![x](javascript:alert)")
        '\\!\\[x\\]\\(javascript\\:alert\\)'
    """
    escaped = _MARKDOWN.sub(r"\\\1", _SELF_LINKING.sub("\\g<0>\u200b", one_line(text))).translate(_HTML)
    return _LEADING.sub(lambda m: f"\\{m[1]}" if m[1] else f"{m[2]}\\{m[3]}", escaped)


def card_markdown(hypothesis: Hypothesis, content: ReportContent) -> str:
    """One hypothesis as markdown; every text from data or models is escaped."""
    test, task = hypothesis.test, content.task
    say = escape_markdown
    lines = [
        f"### {say(capitalised(hypothesis.claim))}",
        f"**{hypothesis.badge}**: {say(hypothesis.reason)}",
        f"**{say(effect_figure(test.separation, task, content.outcome))}**",
        f"{say(capitalised(effect_words(test.separation, task, content.outcome)))}.",
        "\n".join(
            ["| | |", "|---|---|", *(f"| {name} | {say(value)} |" for name, value in facts(hypothesis, content))]
        ),
    ]
    if test.flags:
        lines.append("**Doubts**\n\n" + "\n".join(f"- {say(flag)}" for flag in test.flags))
    lines += _evidence(hypothesis, content)
    neuron = f"neuron `{_code(hypothesis.sae_id)}` column {hypothesis.sae_column}"
    origin = neuron if hypothesis.sae_id else "no neuron"
    lines.append(
        f"Hypothesis `{_code(hypothesis.hypothesis_id)}`, concept `{_code(hypothesis.concept_id)}`, {origin}. "
        "An association on held-out texts, not a cause."
    )
    return "\n\n".join(lines) + "\n"


def facts(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """The figures of a card, in reading order: (name, value)."""
    test = hypothesis.test
    noun = tested_noun(content)
    on = f"{_half(_OTHER[hypothesis.half])}: " if hypothesis.half else ""
    yield "Tested on", f"{on}{plural(test.n, noun)}, {plural(test.n_clusters, f'{cluster_noun(content)} cluster')}"
    yield from _found_in(hypothesis, content)
    yield "Holds for", f"{count(test.n_with)} ({percent(test.prevalence)})"
    yield (
        "Corrected for all tests (Holm)",
        f"{p_phrase('p', hypothesis.p_holm)} (uncorrected {p_phrase('p', test.separation.p_value)})",
    )
    yield "False discovery rate", p_phrase("q", hypothesis.q_value)
    yield f"With {held_constant(content)} held constant", partial_brief(test.adjusted, content.task)
    yield "Beside all other claims", partial_brief(test.partial, content.task)
    yield "Source", source_words(hypothesis)
    yield "How much of its neuron it says", coverage_words(hypothesis)
    if hypothesis.other_seeds:
        yield "Neuron found again", f"in {hypothesis.found_in} of {hypothesis.other_seeds} other starts of training"
    if hypothesis.sae_id:
        yield "Neuron learned", guidance_words(hypothesis, content)
    yield from trust_facts(hypothesis, content)


def _half(half: str) -> str:
    return f"half {half.upper()}"


def _found_in(hypothesis: Hypothesis, content: ReportContent) -> Iterator[tuple[str, str]]:
    """The half that a claim was found in, and what came of the same claim of the other half."""
    if not hypothesis.half:
        return
    twin = hypothesis.twin
    if twin is None:
        yield "Found in", _half(hypothesis.half)
        return
    alike = "the same claim" if twin.concept_id == hypothesis.concept_id else f"“{one_line(twin.claim)}”"
    found = "twice, in both halves" if twin.agrees else "in both halves, with opposite directions"
    yield "Found", found
    yield (
        f"The other test, on {_half(hypothesis.half)}",
        f"of {alike} (φ {number(twin.phi)}), found in {_half(twin.half)}: "
        f"{effect_brief(twin.effect, content.task)}, Holm {p_phrase('p', twin.p_holm)}; {twin.badge}",
    )


def source_words(hypothesis: Hypothesis) -> str:
    """Where a claim comes from, in words."""
    if hypothesis.source == "yours":
        return "you, in dataset.yaml"
    return _SOURCES.get(hypothesis.made_from, "a language model that read texts of a neuron")


def coverage_words(hypothesis: Hypothesis) -> str:
    """How much of its neuron a claim says: precision, recall and correlation, each said as what it counts."""
    if not hypothesis.sae_id:
        return "no neuron"
    fidelity = hypothesis.fidelity
    shares = (fidelity.natural_precision, fidelity.natural_recall, fidelity.correlation)
    if not fidelity.n_firing or not all(map(math.isfinite, shares)):
        return NOT_ESTIMABLE
    return (
        f"{percent(shares[0])} of the texts that it holds for activate the neuron (precision); it holds for "
        f"{percent(shares[1])} of the texts that activate the neuron (recall); r {number(shares[2])}"
    )


def guidance_words(hypothesis: Hypothesis, content: ReportContent) -> str:
    """Whether a neuron was learned from the texts alone or from the outcome of training texts as well."""
    guided = content.guidance.get(hypothesis.sae_id)
    if guided is None or not guided.weight:
        return "from the texts alone"
    both = f"from the texts and the outcome of training texts (label weight {guided.weight:g})"
    if not guided.by_few:
        return both
    few = f"{guided.neurons} of {guided.m} neurons"
    if hypothesis.sae_column < guided.neurons:
        return f"{both}, as {few} were"
    return f"from the texts alone; {few} also from the outcome (label weight {guided.weight:g})"


def hypotheses_table(content: ReportContent) -> list[dict[str, str]]:
    """One row per hypothesis, in the report's order and with its numbers; plain text, one line each.

    Where controls are declared, the effect beside them has a column of its own; where a verdict needs a word on its
    rule, all rows have a column for it.
    """
    whys = [why_words(h) for h in content.hypotheses]
    return [
        {
            "no.": str(number),
            "claim": one_line(h.claim),
            "effect": effect_brief(h.test.separation, content.task),
            **({CONTROLLED: partial_brief(h.test.adjusted, content.task)} if content.controls else {}),
            "p": p_value(h.p_holm),
            "holds for": percent(h.test.prevalence),
            **({FOUND_IN: _found_brief(h)} if content.halves else {}),
            "badge": h.badge,
            **({"why": why} if any(whys) else {}),
        }
        for number, (h, why) in enumerate(zip(content.hypotheses, whys, strict=True), 1)
    ]


def _found_brief(hypothesis: Hypothesis) -> str:
    if hypothesis.twin is not None and hypothesis.twin.agrees:
        return "A and B"
    return hypothesis.half.upper() or "neither"


def why_words(hypothesis: Hypothesis) -> str:
    """In a word or two, the rule behind a verdict that the p-value beside it does not explain; empty otherwise."""
    return _WHY.get(hypothesis.rule, "")


def _evidence(hypothesis: Hypothesis, content: ReportContent) -> list[str]:
    evidence = hypothesis.evidence
    groups: tuple[tuple[str, Sequence[Example]], ...] = (
        (SUPPORTING, evidence.supporting),
        (f"{NEAR_MISSES}: they activate the neuron, the claim does not hold", evidence.near_misses),
        ("Against it: the claim holds, the outcome lies on the other side of the average", evidence.counterexamples),
    )
    return [
        f"**{title}**\n\n" + "\n".join(_quote(example, content) for example in examples)
        for title, examples in groups
        if examples
    ]


def _quote(example: Example, content: ReportContent) -> str:
    parts = []
    for segment in excerpt(example.text, marks_of(example)):
        text = escape_markdown(segment.text)
        # `**` beside a punctuation mark would not be read as bold but shown.
        if segment.matched and segment.text[0].isalnum() and segment.text[-1].isalnum():
            parts.append(f"**{text}**")
        else:
            parts.append(" " * segment.text[:1].isspace() + text + " " * segment.text[-1:].isspace())
    outcome = escape_markdown(example_outcome(example, content.task, content.outcome))
    return f"- “{''.join(parts)}” ({outcome}; text `{_code(example.text_id)[:12]}`)"


def _code(key: str) -> str:
    return re.sub(r"[^\w.-]", "", key)
