"""One hypothesis as people read it: on the page, in Dagster, in a terminal, as a picture."""

import base64
import html
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hsae_dagster.core.concepts.words import CAPITALS, SIGN_CUES
from hsae_dagster.core.hypothesis import ActivationHistogram, Example, Hypothesis
from hsae_dagster.report import prose
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.figures import NEGATIVE, POSITIVE
from hsae_dagster.report.prose import PLAIN, beside_effect, cluster_noun, tested_noun, trust_facts
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    WORDS,
    capitalised,
    count,
    effect_brief,
    effect_figure,
    example_outcome,
    number,
    one_line,
    p_phrase,
    p_value,
    partial_brief,
    percent,
    plural,
    shown,
)

_NOTHING = re.compile(r"(?!)")
_MOST_CHARACTERS = 700  # a script without spaces is one endless "word"


@dataclass(frozen=True)
class Segment:
    """A stretch of an excerpt; `matched` when it made the claim hold."""

    text: str
    matched: bool


def excerpt(text: str, terms: Sequence[str] = (), *, words: int = 60) -> tuple[Segment, ...]:
    """At most `words` words of the text where most of the terms stand, with an ellipsis where it was cut.

    Entities such as `&amp;` are shown as what they stand for. Terms are words, phrases, a sentence or names of style
    cues; those not found are ignored.
    """
    text = one_line(html.unescape(text))
    spans = matched_spans(text, terms)
    start, end = _window(text, spans, words)
    segments = [Segment("…", False)] if start > 0 else []
    at = start
    for left, right in spans:
        left, right = max(left, start), min(right, end)
        if left >= right:
            continue
        if left > at:
            segments.append(Segment(text[at:left], False))
        segments.append(Segment(text[left:right], True))
        at = right
    if at < end:
        segments.append(Segment(text[at:end], False))
    if end < len(text):
        segments.append(Segment("…", False))
    return tuple(segments)


def marks_of(example: Example) -> tuple[str, ...]:
    """What to mark in a quoted text: what makes the claim hold, else the sentence that activates the neuron most."""
    return example.because or ((example.unit,) if example.unit else ())


def matched_spans(text: str, marks: Sequence[str]) -> list[tuple[int, int]]:
    """Where the marks stand: (start, end) in characters, ascending, not overlapping."""
    found = [
        match.span()
        for mark in marks
        for match in _pattern(mark).finditer(text)
        if mark != CAPITALS or match.group().isupper()
    ]
    merged: list[tuple[int, int]] = []
    for left, right in sorted(set(found)):
        if merged and left < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(right, merged[-1][1]))
        else:
            merged.append((left, right))
    return merged


def _pattern(mark: str) -> re.Pattern[str]:
    """A style cue's signs; else the mark's words, next to each other, whatever stands between them."""
    if mark in SIGN_CUES:
        return SIGN_CUES[mark]
    words = [re.escape(word).replace("'", "['’]") for word in re.findall(r"\w+(?:['’]\w+)*", mark.replace("’", "'"))]
    return re.compile(r"(?<!\w)" + r"\W+".join(words) + r"(?!\w)", re.IGNORECASE) if words else _NOTHING


def _window(text: str, spans: list[tuple[int, int]], words: int) -> tuple[int, int]:
    """Start and end of the window of `words` words that holds the most matches; the earliest of equals."""
    places = [match.span() for match in re.finditer(r"\S+", text)]
    first = 0
    if len(places) > words and spans:
        hits = [sum(left < end and right > start for left, right in spans) for start, end in places]
        totals = [sum(hits[i : i + words]) for i in range(len(places) - words + 1)]
        best = max(totals)
        # All windows that reach the best total serve; the middle one of the first run leaves air on both sides.
        run = next(i for i, total in enumerate(totals) if total == best)
        last = run
        while last + 1 < len(totals) and totals[last + 1] == best:
            last += 1
        first = 0 if run == 0 else (run + last) // 2
    shown = places[first : first + words]
    if not shown:
        return (0, 0)
    start, end = shown[0][0], shown[-1][1]
    return (start, min(end, start + _MOST_CHARACTERS))


_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"})
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#!|~$:])")
_LEADING = re.compile(r"^(?:([-+=])|(\d+)([.)]))(?=\s|[-=]|$)")
# What a renderer turns into a link by itself; a space of no width after it keeps an address text.
_SELF_LINKING = re.compile(r"https?:(?=//)|www(?=\.)|@", re.IGNORECASE)
FOUND_IN = "found in"
SUPPORTING = "Texts that it holds for"
NEAR_MISSES = "Near misses"
_OTHER = {"a": "b", "b": "a"}


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
        f"{say(capitalised(prose.claim_sentence(hypothesis, content)[1]))}.",
        "\n".join(
            ["| | |", "|---|---|", *(f"| {name} | {say(value)} |" for name, value in facts(hypothesis, content))]
        ),
    ]
    if test.flags:
        lines.append("**Doubts**\n\n" + "\n".join(f"- {say(flag.sentence)}" for flag in test.flags))
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
        f"{p_phrase('p', hypothesis.p_holm)} (uncorrected {p_phrase('p', hypothesis.p_one_sided)})",
    )
    yield "False discovery rate", p_phrase("q", hypothesis.q_value)
    yield beside_effect(hypothesis, content)
    yield "Beside all other claims", partial_brief(test.partial, content.task)
    yield "Source", source_words(hypothesis)
    yield "How much of its neuron it says", coverage_words(hypothesis)
    if hypothesis.other_seeds:
        yield "Neuron found again", f"in {hypothesis.found_in} of {hypothesis.other_seeds} other training seeds"
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
    if ":" in hypothesis.made_from:
        return f"your own source `{hypothesis.made_from}`"
    return str(WORDS["sources"].get(hypothesis.made_from, "a language model that read texts of a neuron"))


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
    weight = content.guidance.get(hypothesis.sae_id, 0.0)
    also = f"from the texts and the outcome of training texts (label weight {weight:g})"
    return also if weight else "from the texts alone"


def hypotheses_table(content: ReportContent) -> list[dict[str, str]]:
    """One row per hypothesis, in the report's order and with its numbers; plain text, one line each.

    Where controls are declared, the effect holds them constant and the plain one has its own column; where
    a verdict needs a word on its rule, all rows have a column for it.
    """
    whys = [why_words(h) for h in content.hypotheses]
    return [
        {
            "no.": str(number),
            "claim": one_line(h.claim),
            "effect": effect_brief(h.test.separation, content.task),
            **({PLAIN: beside_effect(h, content)[1]} if content.controls else {}),
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
    return str(WORDS["why"].get(hypothesis.rule, ""))


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


def card_view(position: int, h: Hypothesis, content: ReportContent, limits: tuple[float, float]) -> dict[str, Any]:
    """What the card at `position` (from 1) shows, by the names of sections/card.html.j2; `limits` as `card_limits`."""
    claim, words = prose.claim_sentence(h, content)
    return {
        "key": f"hypothesis-{position}",
        "hypothesis_id": h.hypothesis_id,
        "number": position,
        "badge": h.badge,
        "badge_class": WORDS["badges"][h.badge]["class"],
        "sign": WORDS["badges"][h.badge]["sign"],
        "claim": claim,
        "reason": capitalised(h.reason),
        "effect": effect_figure(h.test.separation, content.task, content.outcome),
        "words": capitalised(words),
        "strip": _strip(h, content.task, limits),
        "facts": tuple(facts(h, content)),
        "flags": h.test.flags,
        "evidence": _evidence_shown(h, content),
        "asked": h.source == "found" and not h.made_from,
        "firing": _firing(h),
        "origin": (("Hypothesis", h.hypothesis_id), ("Concept", h.concept_id), *_origin(h)),
    }


def _firing(h: Hypothesis) -> tuple[str, str] | None:
    """How strongly the judged texts activate the neuron: a picture (its address, empty where none does), and words."""
    if h.activations is None:
        return None
    words = histogram_words(h.activations)
    if not h.activations.firing:
        return "", words
    return f"data:image/png;base64,{base64.b64encode(histogram_png(h.activations)).decode()}", words


def _origin(h: Hypothesis) -> Iterator[tuple[str, str]]:
    yield "Source", source_words(h)
    if h.source == "yours":
        return
    if h.sae_id:
        yield "Autoencoder", h.sae_id
        yield "Neuron (column)", str(h.sae_column)
    yield ("Place among the claims chosen together" if h.made_from else "Place in selection"), str(h.rank + 1)
    yield "Selection score", number(h.selection_score, 4, signed=True)
    yield "Difference on training texts", number(h.train_separation, 3, signed=True)


def _evidence_shown(h: Hypothesis, content: ReportContent) -> list[tuple[str, str, list[dict[str, Any]]]]:
    order = "; those that activate its neuron most come first" if h.sae_id else ""
    supporting = (
        f"The claim holds for them{order}. What makes it hold is marked. "
        "Their outcomes may lie on either side of the average."
    )
    near = (
        "They activate the neuron strongly, but the claim does not hold for them. The sentence that activates it most "
        "is marked."
    )
    groups = (
        (SUPPORTING, supporting, h.evidence.supporting),
        (NEAR_MISSES, near, h.evidence.near_misses),
        (
            "Against it",
            "The claim holds for them, but their outcome lies on the other side of the average.",
            h.evidence.counterexamples,
        ),
    )

    def quoted(example: Example) -> dict[str, Any]:
        outcome = capitalised(example_outcome(example, content.task, content.outcome))
        return {"segments": excerpt(example.text, marks_of(example)), "outcome": outcome, "text_id": example.text_id}

    return [(title, note, [*map(quoted, examples)]) for title, note, examples in groups]


def card_limits(content: ReportContent) -> tuple[float, float]:
    """The scale that the strips of all cards share."""
    zero = 50.0 if content.task == "pairwise" else 0.0
    ends = [zero]
    for h in content.hypotheses:
        s = shown(h.test.separation, content.task)
        ends += [end for end in (s.low, s.estimate, s.high) if math.isfinite(end)]
    reach = max(abs(end - zero) for end in ends) or 1.0
    return (zero - reach, zero + reach)


def _strip(h: Hypothesis, task: str, limits: tuple[float, float]) -> dict[str, Any] | None:
    """Where the effect lies on the scale that all cards share, in percent of its width."""
    s = shown(h.test.separation, task)
    if not all(math.isfinite(value) for value in (s.low, s.estimate, s.high)):
        return None
    left, right = limits

    def place(value: float) -> float:
        return round(2 + 96 * (value - left) / (right - left), 2)

    places = {name: place(getattr(s, name)) for name in ("zero", "low", "high", "estimate")}
    return places | {"positive": s.estimate >= s.zero}


def card_record(hypothesis: Hypothesis, content: ReportContent) -> dict[str, str]:
    """Texts by name: `card` and `activations` are markdown, the others plain."""
    told = dict(facts(hypothesis, content))
    return {
        "card": card_markdown(hypothesis, content),
        "claim": one_line(hypothesis.claim),
        "reason": one_line(hypothesis.reason),
        "words": f"{capitalised(prose.claim_sentence(hypothesis, content)[1])}.",
        "tested": f"{told['Tested on']}; it holds for {told['Holds for']} of them",
        "source": told["Source"],
        "coverage": told["How much of its neuron it says"],
        "activations": _activations(hypothesis),
    }


def _activations(hypothesis: Hypothesis) -> str:
    firing = _firing(hypothesis)
    if firing is None:
        return "not kept"
    picture, words = firing
    return f"![histogram of activations]({picture})\n\n" * bool(picture) + escape_markdown(words)


_WIDTH, _HEIGHT, _BAR = 264, 48, 11
_PALETTE = ("#ffffff", POSITIVE, "#9fb4c7", NEGATIVE)


def histogram_png(histogram: ActivationHistogram) -> bytes:
    """Bars by activation, at the bottom the texts that the claim holds for; a line where strong activation begins.

    Some 300 bytes: Dagster shows at most 1,000 characters of a card's markdown.
    """
    from PIL import Image, ImageDraw

    sheet = Image.new("P", (_WIDTH, _HEIGHT + 1), 0)
    sheet.putpalette([int(colour[i : i + 2], 16) for colour in _PALETTE for i in (1, 3, 5)])
    pen = ImageDraw.Draw(sheet)
    counts = list(zip(histogram.having, histogram.lacking, strict=True))
    tallest = max((sum(both) for both in counts), default=0)
    for j, both in enumerate(counts):
        left = j * _BAR
        having, lacking = (round(_HEIGHT * n / max(tallest, 1)) for n in both)
        if sum(both) and not having + lacking:
            lacking = 1  # a text that is there is seen
        pen.rectangle((left, _HEIGHT - having - lacking, left + _BAR - 3, _HEIGHT), fill=2)
        if having:
            pen.rectangle((left, _HEIGHT - having, left + _BAR - 3, _HEIGHT), fill=1)
    if histogram.strong is not None and 0 < histogram.strong < histogram.edges[-1]:
        x = round(_WIDTH * histogram.strong / histogram.edges[-1])
        pen.line((x, 0, x, _HEIGHT), fill=3, width=1)
    pen.line((0, _HEIGHT, _WIDTH, _HEIGHT), fill=2)
    packed = io.BytesIO()
    sheet.save(packed, format="PNG", optimize=True, bits=2, transparency=0)
    return packed.getvalue()


def histogram_words(histogram: ActivationHistogram) -> str:
    """What the picture shows, and what it cannot show."""
    if not histogram.firing:
        return f"None of the {count(histogram.texts)} judged texts activates it."
    words = (
        f"{count(histogram.firing)} of {count(histogram.texts)} judged texts activate it "
        f"({percent(histogram.firing / histogram.texts)}), most weakly at the left and with "
        f"{number(histogram.edges[-1])} at the right; blue: the claim holds"
    )
    having = sum(histogram.having)
    words += f" ({percent(having / histogram.firing)})"
    if histogram.strong is not None and histogram.strong < histogram.edges[-1]:
        words += f"; the line: from here on, {number(histogram.strong)}, activation counts as strong"
    silent = histogram.silent_having + histogram.silent_lacking
    also = percent(histogram.silent_having / silent) if silent else "none"
    return f"{words}. It also holds for {also} of the texts that do not activate it."
