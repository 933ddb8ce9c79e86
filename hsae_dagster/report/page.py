"""The page that people read: one self-contained HTML file.

Belongs here: putting words, figures and evidence of a `ReportContent` into the template. Does not belong here: how
figures are written (`wording`, `prose`), drawn (`figures`) or put into markdown (`cards`).

The page has no script, asks for nothing from anywhere, and holds no time: the same content gives the same bytes.
Everything that comes from data or models passes the template's escaping.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsae_dagster.core.hypothesis import Example, Hypothesis
from hsae_dagster.report import prose
from hsae_dagster.report.cards import card_markdown, facts, hypotheses_table
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.excerpts import Segment, excerpt
from hsae_dagster.report.figures import fit_ladder, forest_plot
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    clean,
    count,
    effect_figure,
    example_outcome,
    metric_name,
    metric_words,
    number,
    one_line,
    plural,
    shown,
    term_name,
)

__all__ = ["card_markdown", "hypotheses_table", "render_report"]

_HERE = Path(__file__).parent
_BADGE_CLASS = {
    "confirmed": "confirmed",
    "suggestive": "suggestive",
    "not supported": "unsupported",
    "invalid": "invalid",
}
_BADGE_SIGN = {"confirmed": "●", "suggestive": "◐", "not supported": "○", "invalid": "×"}


@dataclass(frozen=True)
class _Quote:
    """A text shown as evidence."""

    segments: tuple[Segment, ...]
    outcome: str


@dataclass(frozen=True)
class _Strip:
    """Where an effect lies on the scale that all cards share, in percent of its width."""

    zero: float
    low: float
    high: float
    estimate: float
    positive: bool


@dataclass(frozen=True)
class _Card:
    """One hypothesis, in words."""

    key: str
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
    terms_for: tuple[tuple[str, str], ...]
    terms_against: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, str], ...]


def render_report(content: ReportContent) -> str:
    """The report of one evaluation as one HTML document."""
    limits = _limits(content)
    cards = [_card(position, h, content, limits) for position, h in enumerate(content.hypotheses, 1)]
    forest = {
        width: forest_plot(content.hypotheses, content.outcome, content.alpha, content.task, narrow=width == "narrow")
        for width in ("wide", "narrow")
    }
    metric = content.fits[0].metric if content.fits else ("R2" if content.task == "regression" else "AUC")
    return _template().render(
        content=content,
        css=(_HERE / "report.css").read_text(encoding="utf-8"),
        cards=cards,
        anchors={h.hypothesis_id: card.key for h, card in zip(content.hypotheses, cards, strict=True)},
        counts=_badge_counts(content),
        headline=prose.headline(content),
        outcome=prose.outcome_sentence(content),
        paragraphs=prose.summary(content),
        strongest=[(h.hypothesis_id, *prose.claim_sentence(h, content)) for h in prose.strongest(content)],
        forest=forest,
        rows=hypotheses_table(content),
        ladder=fit_ladder(content.fits, content.floor, metric),
        fits=[_fit_row(fit) for fit in content.fits],
        metric=metric_name(metric),
        metric_words=metric_words(metric),
        meanings=[(word, _BADGE_CLASS[word], _BADGE_SIGN[word], text) for word, text in prose.BADGE_MEANINGS],
        method=list(prose.method(content)),
        threats=list(prose.threats(content)),
        settings=list(prose.flat_settings(content.settings)),
    )


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "one_line": one_line,
        "capitalised": capitalised,
        "tie": _tie,
    }
    environment.globals |= {"plural": plural}
    return environment.get_template("report.html.j2")


def _finalize(value: Any) -> Any:
    """Last guard before escaping: no `nan`, no control characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_ESTIMABLE
    return clean(value) if type(value) is str else value  # Markup, a subclass, is our own SVG and CSS


def _tie(words: str) -> str:
    """Our own words with figures and their signs kept on one line."""
    for loose in (" %", " < ", " = "):
        words = words.replace(loose, loose.replace(" ", "\u00a0"))
    return words


def _card(position: int, h: Hypothesis, content: ReportContent, limits: tuple[float, float]) -> _Card:
    claim, words = prose.claim_sentence(h, content)
    for_it = [(term_name(term), number(weight, 2, signed=True)) for term, weight in h.lexicon if weight > 0]
    against_it = [(term_name(term), number(weight, 2, signed=True)) for term, weight in h.lexicon if weight <= 0]
    return _Card(
        key=f"hypothesis-{position}",
        number=position,
        badge=h.badge,
        badge_class=_BADGE_CLASS[h.badge],
        sign=_BADGE_SIGN[h.badge],
        claim=claim,
        reason=capitalised(h.reason),
        effect=effect_figure(h.test.separation, content.task, content.outcome),
        words=capitalised(words),
        strip=_strip(h, content.task, limits),
        facts=tuple(facts(h, content)),
        flags=h.test.flags,
        evidence=_evidence(h, content),
        terms_for=tuple(for_it),
        terms_against=tuple(against_it),
        keys=(
            ("Hypothesis", h.hypothesis_id),
            ("Concept", h.concept_id),
            ("Autoencoder", h.sae_id),
            ("Neuron (column)", str(h.sae_column)),
            ("Rank in selection", str(h.rank + 1)),
            ("Selection score", number(h.selection_score, 4, signed=True)),
            ("Difference on training texts", number(h.train_separation, 3, signed=True)),
        ),
    )


def _evidence(h: Hypothesis, content: ReportContent) -> tuple[tuple[str, str, tuple[_Quote, ...]], ...]:
    groups = (
        ("For it", "They have the concept and fire the neuron, strongest first.", h.evidence.supporting),
        ("Near misses", "They fire the neuron, but the words do not apply.", h.evidence.near_misses),
        (
            "Against it",
            "They have the concept, yet their outcome lies on the other side of the average.",
            h.evidence.counterexamples,
        ),
    )
    return tuple((title, note, tuple(_quote(e, content) for e in examples)) for title, note, examples in groups)


def _quote(example: Example, content: ReportContent) -> _Quote:
    return _Quote(
        excerpt(example.text, example.because), capitalised(example_outcome(example, content.task, content.outcome))
    )


def _limits(content: ReportContent) -> tuple[float, float]:
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


def _badge_counts(content: ReportContent) -> list[tuple[str, str, str, int]]:
    badges: list[str] = [h.badge for h in content.hypotheses]
    return [(word, _BADGE_CLASS[word], _BADGE_SIGN[word], badges.count(word)) for word in _BADGE_CLASS]


def _fit_row(fit: Any) -> tuple[str, str, str, str]:
    interval = NOT_ESTIMABLE
    if math.isfinite(fit.low) and math.isfinite(fit.high):
        interval = f"[{number(fit.low)}, {number(fit.high)}]"
    return fit.name, number(fit.value), interval, fit.how
