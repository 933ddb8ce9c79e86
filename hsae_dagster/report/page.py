"""The page that people read: one self-contained HTML file."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hsae_dagster.core.inference.joint_fit import (
    ALL_NEURONS,
    CONCEPTS,
    EMBEDDINGS,
    FIRED,
    SELECTED,
    Reading,
    read_ladder,
)
from hsae_dagster.report import prose
from hsae_dagster.report.cards import BADGE_CLASS, BADGE_SIGN, UNCONTROLLED, card_limits, card_view, hypotheses_table
from hsae_dagster.report.content import ReportContent, SizeChoice
from hsae_dagster.report.figures import fit_ladder, forest_plot
from hsae_dagster.report.prose import subgroup_view
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
)

_HERE = Path(__file__).parent


def style() -> str:
    """The CSS of every page, to be put into it."""
    return (_HERE / "report.css").read_text(encoding="utf-8")


def template(name: str) -> Any:
    """The template of this name."""
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
    }
    environment.globals |= {"plural": plural}
    return environment.get_template(name)


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
    SELECTED: "What predicts is spread over more neurons than were selected. Raise `selection.n`, use a smaller m, or "
    "guide the autoencoder by the label (`label_weight`), which gathers it in fewer neurons.",
    FIRED: "How strongly a neuron fires says much that firing alone does not. Lower k, so that neurons fire only where "
    "they have something to say, or use more and narrower neurons (a larger m).",
    CONCEPTS: "What the neurons know cannot be said in a few short claims. Let more claims be chosen (`selection.n`), "
    "let a language model write and judge them (`interpretation.model`, `annotation.model`), or bring more texts.",
}
# The same where the size was chosen by measurement, so that advice to do so would lead nowhere.
_LEFT = {
    ALL_NEURONS: "The autoencoder reconstructs texts without keeping what predicts the outcome. {tried} What is left "
    "to try are more texts, or sizes that were not among these, listed in `saes`.",
    SELECTED: "What predicts is spread over more neurons than were selected. Raise `selection.n`. {tried}",
    FIRED: "How strongly a neuron fires says much that firing alone does not. {tried} What is left to try are sizes "
    "with a lower k or a larger m than these, listed in `saes`.",
}


def ladder_sentences(reading: Reading, sizes: SizeChoice | None = None) -> Iterator[str]:
    """What the ladder says, most important first; never empty.

    Args:
        reading: of the ladder.
        sizes: what was chosen by measurement, if sizes were.
    """
    if reading.state == "not measured":
        yield "How much each step keeps of what the embeddings predict could not be measured."
        return
    if reading.state == "no signal":
        yield (
            "The embeddings themselves predict the outcome no better than chance might, so there is nothing for "
            "neurons and claims to keep. Another embedding model or more texts may help; or the texts do not tell."
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
        f"`saes: auto` raced {plural(len(sizes.sizes), 'autoencoder')} (m/k {shapes}) by what can be said with them on "
        f"validation clusters, and took {sizes.m}/{sizes.k}: {sizes.reason}."
    )


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
        uncontrolled=UNCONTROLLED if content.controls else "",
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
