"""The page that people read: one self-contained HTML file."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.inference.joint_fit import (
    ALL_NEURONS,
    CONCEPTS,
    EMBEDDINGS,
    FIRED,
    SELECTED,
    Reading,
    read_ladder,
)
from hsae_dagster.errors import MethodError
from hsae_dagster.extensions import Own, Registry
from hsae_dagster.report import prose, trust
from hsae_dagster.report.cards import BADGE_CLASS, BADGE_SIGN, card_limits, card_view, hypotheses_table
from hsae_dagster.report.content import ReportContent, SizeChoice
from hsae_dagster.report.figures import Figure, fit_ladder, forest_plot
from hsae_dagster.report.trust import subgroup_view
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    capitalised,
    clean,
    count,
    flat_settings,
    grouped,
    metric_name,
    metric_words,
    number,
    one_line,
    percent,
    plural,
    rung_name,
    when,
)

_HERE = Path(__file__).parent


def style() -> str:
    """The CSS of every page, to be put into it."""
    return (_HERE / "report.css").read_text(encoding="utf-8")


def template(name: str) -> Any:
    """The template of this name."""
    return _environment().get_template(name)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "one_line": one_line,
        "capitalised": capitalised,
        "tie": _tie,
        "when": when,
    }
    environment.globals |= {"plural": plural}
    return environment


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


_NAMES = {
    ALL_NEURONS: "all neurons",
    SELECTED: "the selected neurons",
    FIRED: "the selected neurons as active or not",
    CONCEPTS: "the claims",
}
_BETWEEN = {
    ALL_NEURONS: "between the embeddings and the neurons",
    SELECTED: "between all neurons and the selected ones",
    FIRED: "between how active neurons are and whether they are active",
    CONCEPTS: "between the neurons and the claims",
}
_REMEDIES = {
    ALL_NEURONS: "The autoencoder reconstructs texts without keeping what predicts the outcome. Let the size be chosen "
    "(`saes: auto`), guide it by the label (`label_weight`, 0.1 to begin with), or try a smaller m with a larger k.",
    SELECTED: "The signal is spread over more neurons than were selected. Raise `selection.n`, use a smaller m, or "
    "guide the autoencoder by the label (`label_weight`), which concentrates it in fewer neurons.",
    FIRED: "How strongly a neuron fires carries information that firing alone does not. Lower k, so that neurons fire "
    "on fewer texts, or use more and narrower neurons (a larger m).",
    CONCEPTS: "A few short claims cannot express what the neurons carry. Let more claims be chosen (`selection.n`), "
    "let a language model write and judge them (`interpretation.model`, `annotation.model`), or bring more texts.",
}
# The same where the size was chosen by measurement, so that advice to do so would lead nowhere.
_LEFT = {
    ALL_NEURONS: "The autoencoder reconstructs texts without keeping what predicts the outcome. {tried} You can still "
    "try more texts, or other sizes, listed in `saes`.",
    SELECTED: "The signal is spread over more neurons than were selected. Raise `selection.n`. {tried}",
    FIRED: "How strongly a neuron fires carries information that firing alone does not. {tried} You can still try "
    "sizes with a lower k or a larger m than these, listed in `saes`.",
}


def ladder_sentences(reading: Reading, sizes: SizeChoice | None = None) -> Iterator[str]:
    """What the ladder says, most important first; never empty."""
    if reading.state == "not measured":
        yield "What each step keeps of the embeddings' fit could not be measured."
        return
    if reading.state == "no signal":
        yield (
            "The embeddings themselves predict the outcome no better than chance, so there is nothing for "
            "neurons and claims to keep. Another embedding model or more texts may help, or the texts do not "
            "predict this outcome."
        )
        return
    shares = [(_NAMES[name], percent(max(share, 0.0))) for name, share in reading.kept if name != EMBEDDINGS]
    first, *others = shares
    said = ", ".join([f"{first[0]} keep {first[1]}", *(f"{name} {share}" for name, share in others)])
    yield f"Of what the embeddings predict beyond chance, {said}."
    worst = reading.weakest
    if worst is None:
        yield "No single step loses much."
        return
    yield f"Most is lost {_BETWEEN[worst.below]} ({percent(worst.lost)} of the whole). {_remedy(worst.below, sizes)}"


def _remedy(rung: str, sizes: SizeChoice | None) -> str:
    if sizes is None or rung not in _LEFT:
        return _REMEDIES[rung]
    return _LEFT[rung].format(tried=_tried(sizes))


def _tried(sizes: SizeChoice) -> str:
    """What was measured and taken, as a sentence."""
    shapes = ", ".join(f"{m}/{k}" for m, k in sizes.sizes)
    return (
        f"`saes: auto` raced {plural(len(sizes.sizes), 'autoencoder')} (m/k {shapes}) by the fit of their "
        f"claims on validation clusters, and took {sizes.m}/{sizes.k}: {sizes.reason}."
    )


@dataclass(frozen=True)
class Section:
    """A section that is put together from parts; what is text in them is escaped on the page.

    Attributes:
        title: its heading, and its name in the navigation.
        parts: paragraphs (str), figures (`report.figures.draw`) and tables, in reading order.
    """

    title: str
    parts: Sequence[str | Figure | pl.DataFrame]


# In reading order, by key: the title of a section with a template of its own (sections/<key>.html.j2), or the function
# that puts one together.
SECTIONS: dict[str, str | Callable[[ReportContent], Section]] = {
    "summary": "Summary",
    "effects": "Effects",
    "hypotheses": "Hypotheses",
    "fit": "How much is explained",
    "method": "Method",
    "threats": "Reasons to doubt",
    "cite": "Cite and rerun",
}
# Sections of the user's own stand before this one.
_AFTER_OWN = "method"


def _own_section(own: Own) -> Callable[[ReportContent], Section]:
    def make(content: ReportContent) -> Section:
        found = own(content)
        if not isinstance(found, Section):
            raise own.wrong(type(found).__name__)
        if not isinstance(found.title, str) or not isinstance(found.parts, list | tuple):
            raise own.wrong(
                f"a Section whose title is of type {type(found.title).__name__} and whose parts are of type "
                f"{type(found.parts).__name__}, not a str and a list"
            )
        for part in found.parts:
            if not isinstance(part, str | Figure | pl.DataFrame):
                raise own.wrong(f"a Section that holds {type(part).__name__}")
        return found

    return make


OWN_SECTIONS: Registry[Callable[[ReportContent], Section]] = Registry(
    "report.sections",
    {},
    _own_section,
    "fn(content: ReportContent) -> Section(title, parts: str, Figure or polars.DataFrame) of hsae_dagster.report.page",
    MethodError,
)


@dataclass(frozen=True)
class _Placed:
    """A section on its page: anchor, title, template, and the parts of one that is put together from them."""

    key: str
    title: str
    template: str
    parts: Sequence[tuple[str, Any]] = ()


def _sections(content: ReportContent) -> list[_Placed]:
    placed = []
    for key, known in SECTIONS.items():
        if key == _AFTER_OWN:
            names = (content.settings.get("report") or {}).get("sections") or ()
            placed += [_assembled(f"own-{n}", OWN_SECTIONS.find(name)(content)) for n, name in enumerate(names, 1)]
        own_template = f"sections/{key}.html.j2"
        placed.append(_Placed(key, known, own_template) if isinstance(known, str) else _assembled(key, known(content)))
    return placed


def _assembled(key: str, section: Section) -> _Placed:
    kinds = {str: "paragraph", Figure: "figure", pl.DataFrame: "table"}
    parts = [(next(kind for of, kind in kinds.items() if isinstance(part, of)), part) for part in section.parts]
    return _Placed(key, section.title, "sections/own.html.j2", parts)


@dataclass(frozen=True)
class Drawn:
    """The figures of one report: effects for a wide and a narrow screen, and the fit ladder."""

    forest: Figure
    narrow: Figure
    ladder: Figure

    @staticmethod
    def of(content: ReportContent) -> "Drawn":
        """Draw them."""
        effects = (content.hypotheses, content.outcome, content.alpha, content.task)
        ladder = fit_ladder(content.fits, content.floor, _metric(content))
        return Drawn(forest_plot(*effects), forest_plot(*effects, narrow=True), ladder)


def _metric(content: ReportContent) -> str:
    return content.fits[0].metric if content.fits else ("R2" if content.task == "regression" else "AUC")


def render_report(content: ReportContent, drawn: Drawn | None = None) -> str:
    """The report of one evaluation as one HTML document; its figures are drawn where they are not given."""
    limits = card_limits(content)
    cards = [card_view(position, h, content, limits) for position, h in enumerate(content.hypotheses, 1)]
    metric = _metric(content)
    return template("report.html.j2").render(
        content=content,
        sections=_sections(content),
        css=style(),
        cards=cards,
        anchors={h.hypothesis_id: card["key"] for h, card in zip(content.hypotheses, cards, strict=True)},
        counts=_badge_counts(content),
        headline=prose.headline(content),
        outcome=prose.outcome_sentence(content),
        paragraphs=prose.summary(content),
        strongest=[(h.hypothesis_id, *prose.strong_words(h, content)) for h in prose.strongest(content)],
        drawn=drawn or Drawn.of(content),
        rows=hypotheses_table(content),
        plain=prose.PLAIN if content.controls else "",
        fits=[(title, [_fit_row(fit) for fit in own]) for title, own in grouped(content.fits)],
        reading=[*ladder_sentences(read_ladder(content.fits, content.floor), content.sizes), *_published(content)],
        subgroups=subgroup_view(content),
        metric=metric_name(metric),
        metric_words=metric_words(metric),
        meanings=[(word, BADGE_CLASS[word], BADGE_SIGN[word], text) for word, text in prose.BADGE_MEANINGS],
        method=list(prose.method(content)),
        threats=list(trust.threats(content)),
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
