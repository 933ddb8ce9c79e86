"""One hypothesis as the page shows it: every figure in words, every text cut to what matters.

Belongs here: the record behind sections/card.html.j2. Does not belong here: markup, the same in markdown (`cards`), how
single figures are written (`wording`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hsae_dagster.core.hypothesis import Example, Hypothesis
from hsae_dagster.report import prose
from hsae_dagster.report.cards import NEAR_MISSES, SUPPORTING, facts, source_words
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.excerpts import Segment, excerpt, marks_of
from hsae_dagster.report.sparks import Bar, histogram_bars, histogram_words
from hsae_dagster.report.wording import capitalised, effect_figure, example_outcome, number, shown

BADGE_CLASS = {
    "confirmed": "confirmed",
    "confirmed, judge unchecked": "suggestive",
    "suggestive": "suggestive",
    "not supported": "unsupported",
    "invalid": "invalid",
}
NEAR_MISSES_NOTE = (
    "They activate the neuron strongly, but the claim does not hold for them. The sentence that activates it most is "
    "marked."
)
BADGE_SIGN = {
    "confirmed": "●",
    "confirmed, judge unchecked": "◍",
    "suggestive": "◐",
    "not supported": "○",
    "invalid": "×",
}


@dataclass(frozen=True)
class _Quote:
    """A text shown as evidence."""

    segments: tuple[Segment, ...]
    outcome: str
    text_id: str


@dataclass(frozen=True)
class _Strip:
    """Where an effect lies on the scale that all cards share, in percent of its width."""

    zero: float
    low: float
    high: float
    estimate: float
    positive: bool


@dataclass(frozen=True)
class _Firing:
    """How strongly the judged texts activate the neuron: bars in percent, where strong activation begins, words."""

    bars: tuple[Bar, ...]
    strong: float | None
    words: str


@dataclass(frozen=True)
class Card:
    """One hypothesis, in words."""

    key: str
    hypothesis_id: str
    number: int
    badge: str
    badge_class: str
    sign: str
    claim: str
    reason: str
    effect: str
    words: str
    strip: _Strip | None
    facts: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    evidence: tuple[tuple[str, str, tuple[_Quote, ...]], ...]
    asked: bool
    firing: _Firing | None
    keys: tuple[tuple[str, str], ...]


def card_view(position: int, h: Hypothesis, content: ReportContent, limits: tuple[float, float]) -> Card:
    """What the card at `position` (from 1) shows; `limits` are the scale of the strips, from `card_limits`."""
    claim, words = prose.claim_sentence(h, content)
    return Card(
        key=f"hypothesis-{position}",
        hypothesis_id=h.hypothesis_id,
        number=position,
        badge=h.badge,
        badge_class=BADGE_CLASS[h.badge],
        sign=BADGE_SIGN[h.badge],
        claim=claim,
        reason=capitalised(h.reason),
        effect=effect_figure(h.test.separation, content.task, content.outcome),
        words=capitalised(words),
        strip=_strip(h, content.task, limits),
        facts=tuple(facts(h, content)),
        flags=h.test.flags,
        evidence=_evidence(h, content),
        asked=h.source == "found" and not h.made_from,
        firing=_firing(h),
        keys=(
            ("Hypothesis", h.hypothesis_id),
            ("Concept", h.concept_id),
            *_origin(h),
        ),
    )


def _firing(h: Hypothesis) -> _Firing | None:
    if h.activations is None:
        return None
    bars, strong = histogram_bars(h.activations)
    return _Firing(bars, strong, histogram_words(h.activations))


def _origin(h: Hypothesis) -> Iterator[tuple[str, str]]:
    """Where a hypothesis comes from, and the keys of its neuron, if there is one."""
    yield "Source", source_words(h)
    if h.source == "yours":
        return
    if h.sae_id:
        yield "Autoencoder", h.sae_id
        yield "Neuron (column)", str(h.sae_column)
    yield "Rank in selection", str(h.rank + 1)
    yield "Selection score", number(h.selection_score, 4, signed=True)
    yield "Difference on training texts", number(h.train_separation, 3, signed=True)


def _evidence(h: Hypothesis, content: ReportContent) -> tuple[tuple[str, str, tuple[_Quote, ...]], ...]:
    groups = (
        _supporting(h),
        (NEAR_MISSES, NEAR_MISSES_NOTE, h.evidence.near_misses),
        (
            "Against it",
            "The claim holds for them, but their outcome lies on the other side of the average.",
            h.evidence.counterexamples,
        ),
    )
    return tuple((title, note, tuple(_quote(e, content) for e in examples)) for title, note, examples in groups)


def _supporting(h: Hypothesis) -> tuple[str, str, tuple[Example, ...]]:
    order = "; those that activate its neuron most come first" if h.sae_id else ""
    note = (
        f"The claim holds for them{order}. What makes it hold is marked. "
        "Their outcomes may lie on either side of the average."
    )
    return SUPPORTING, note, h.evidence.supporting


def _quote(example: Example, content: ReportContent) -> _Quote:
    outcome = capitalised(example_outcome(example, content.task, content.outcome))
    return _Quote(excerpt(example.text, marks_of(example)), outcome, example.text_id)


def card_limits(content: ReportContent) -> tuple[float, float]:
    """The scale that the strips of all cards share."""
    zero = 50.0 if content.task == "pairwise" else 0.0
    ends = [zero]
    for h in content.hypotheses:
        s = shown(h.test.separation, content.task)
        ends += [end for end in (s.low, s.estimate, s.high) if math.isfinite(end)]
    reach = max(abs(end - zero) for end in ends) or 1.0
    return (zero - reach, zero + reach)


def _strip(h: Hypothesis, task: str, limits: tuple[float, float]) -> _Strip | None:
    s = shown(h.test.separation, task)
    if not all(math.isfinite(value) for value in (s.low, s.estimate, s.high)):
        return None
    left, right = limits

    def place(value: float) -> float:
        return round(2 + 96 * (value - left) / (right - left), 2)

    return _Strip(place(s.zero), place(s.low), place(s.high), place(s.estimate), s.estimate >= s.zero)
