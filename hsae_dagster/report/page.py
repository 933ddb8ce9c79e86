"""The page that people read: one self-contained HTML file.

Belongs here: putting words, figures and evidence of a `ReportContent` into the template: report.html.j2 is the frame,
every section is a file under sections/. Does not belong here: what one hypothesis shows (`card_view`), how figures are
written (`wording`, `prose`), drawn (`figures`) or put into markdown (`cards`).

The page has no script, asks for nothing from anywhere, and holds no time: the same content gives the same bytes.
Everything that comes from data or models passes the template's escaping.
"""

import math
from collections.abc import Iterator
from typing import Any

from hsae_dagster.core.ladder import read_ladder
from hsae_dagster.report import prose
from hsae_dagster.report.card_view import BADGE_CLASS, BADGE_SIGN, card_limits, card_view
from hsae_dagster.report.cards import CONTROLLED, card_markdown, hypotheses_table
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.figures import fit_ladder, forest_plot
from hsae_dagster.report.ladder import ladder_sentences
from hsae_dagster.report.rungs import grouped, rung_name
from hsae_dagster.report.settings import flat_settings
from hsae_dagster.report.subgroups import subgroup_view
from hsae_dagster.report.templates import style, template
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    metric_name,
    metric_words,
    number,
    one_line,
)

__all__ = ["card_markdown", "hypotheses_table", "render_report"]

# In reading order: key (its template is sections/<key>.html.j2) and title in the navigation.
SECTIONS = (
    ("summary", "Summary"),
    ("effects", "Effects"),
    ("hypotheses", "Hypotheses"),
    ("fit", "How much is explained"),
    ("method", "Method"),
    ("threats", "Reasons to doubt"),
    ("cite", "Cite and rerun"),
)


def render_report(content: ReportContent) -> str:
    """The report of one evaluation as one HTML document."""
    limits = card_limits(content)
    cards = [card_view(position, h, content, limits) for position, h in enumerate(content.hypotheses, 1)]
    forest = {
        width: forest_plot(content.hypotheses, content.outcome, content.alpha, content.task, narrow=width == "narrow")
        for width in ("wide", "narrow")
    }
    metric = content.fits[0].metric if content.fits else ("R2" if content.task == "regression" else "AUC")
    return template("report.html.j2").render(
        content=content,
        sections=SECTIONS,
        css=style(),
        cards=cards,
        anchors={h.hypothesis_id: card.key for h, card in zip(content.hypotheses, cards, strict=True)},
        counts=_badge_counts(content),
        headline=prose.headline(content),
        outcome=prose.outcome_sentence(content),
        paragraphs=prose.summary(content),
        strongest=[(h.hypothesis_id, *prose.strong_words(h, content)) for h in prose.strongest(content)],
        forest=forest,
        rows=hypotheses_table(content),
        controlled=CONTROLLED if content.controls else "",
        ladder=fit_ladder(content.fits, content.floor, metric),
        fits=[(title, [_fit_row(fit) for fit in own]) for title, own in grouped(content.fits)],
        reading=[*ladder_sentences(read_ladder(content.fits, content.floor), content.sizes), *_published(content)],
        subgroups=subgroup_view(content),
        metric=metric_name(metric),
        metric_words=metric_words(metric),
        meanings=[(word, BADGE_CLASS[word], BADGE_SIGN[word], text) for word, text in prose.BADGE_MEANINGS],
        method=list(prose.method(content)),
        threats=list(prose.threats(content)),
        settings=list(flat_settings(content.settings)),
    )


def _published(content: ReportContent) -> Iterator[str]:
    """What others printed for these texts, as dataset.yaml quotes it; never mixed with what was measured."""
    quoted = content.settings.get("published")
    if quoted:
        yield f"Published, not measured here: {one_line(quoted)}"


def _badge_counts(content: ReportContent) -> list[tuple[str, str, str, int]]:
    badges: list[str] = [h.badge for h in content.hypotheses]
    return [(word, BADGE_CLASS[word], BADGE_SIGN[word], badges.count(word)) for word in BADGE_CLASS]


def _fit_row(fit: Any) -> tuple[str, str, str, str]:
    interval = NOT_ESTIMABLE
    if math.isfinite(fit.low) and math.isfinite(fit.high):
        interval = f"[{number(fit.low)}, {number(fit.high)}]"
    return rung_name(fit.name), number(fit.value), interval, fit.how
