"""The pages that people read, each one self-contained HTML file: the report, and the pages and lines beside it."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import polars as pl

from hsae_dagster.core.evaluations import FILES, Change, EvaluationRecord, Standing, compare
from hsae_dagster.core.inference.joint_fit import EMBEDDINGS, Reading, read_ladder
from hsae_dagster.core.observations import BLOCKS
from hsae_dagster.core.selection.stability import most_by_chance
from hsae_dagster.errors import HsaeError, MethodError
from hsae_dagster.extensions import Own, Registry
from hsae_dagster.report import prose
from hsae_dagster.report.cards import card_limits, card_view, escape_markdown, hypotheses_table
from hsae_dagster.report.content import ReportContent, SizeChoice
from hsae_dagster.report.figures import Figure, fit_ladder, forest_plot
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    WORDS,
    capitalised,
    change_words,
    clean,
    count,
    error_rate,
    flat_settings,
    grouped,
    metric_name,
    number,
    one_line,
    ordinal,
    percent,
    plural,
    recovery_words,
    rung_name,
    short_claim,
    short_outcome,
    standing_effect,
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
        "percent": percent,
        "ordinal": ordinal,
        "error_rate": error_rate,
        "told": _told,
    }
    environment.globals |= {"plural": plural, "most_by_chance": most_by_chance}
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


def _told(words: str) -> Any:
    """Sentences of a template, escaped already: on one line, figures and their signs together."""
    from markupsafe import Markup

    return Markup(_tie(" ".join(words.split())).replace("'", "&#39;"))


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
    shares = [
        (WORDS["rungs"][name]["name"], percent(max(share, 0.0))) for name, share in reading.kept if name != EMBEDDINGS
    ]
    first, *others = shares
    said = ", ".join([f"{first[0]} keep {first[1]}", *(f"{name} {share}" for name, share in others)])
    yield f"Of what the embeddings predict beyond chance, {said}."
    worst = reading.weakest
    if worst is None:
        yield "No single step loses much."
        return
    rung = WORDS["rungs"][worst.below]
    remedy = rung["left"].format(tried=_tried(sizes)) if sizes and "left" in rung else rung["remedy"]
    yield f"Most is lost {rung['between']} ({percent(worst.lost)} of the whole). {remedy}"


def _tried(sizes: SizeChoice) -> str:
    shapes = ", ".join(f"{m}/{k}" for m, k in sizes.sizes)
    return (
        f"`saes: auto` raced {plural(len(sizes.sizes), 'autoencoder')} (m/k {shapes}) by the fit of their "
        f"claims on validation clusters, and took {sizes.m}/{sizes.k}: {sizes.reason}."
    )


@dataclass(frozen=True)
class Section:
    """A section that is put together from paragraphs (str), figures (`report.figures.draw`) and tables, in this order.

    What is text in them is escaped on the page; the title is also its name in the navigation.
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


def _own_section(own: Own, content: ReportContent) -> Section:
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


OWN_SECTIONS: Registry[Callable[[ReportContent], Section]] = Registry(
    "report.sections",
    {},
    lambda own: partial(_own_section, own),
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
        recovery=recovery_words(content.fits, content.floor),
        strongest=[(h.hypothesis_id, *prose.strong_words(h, content)) for h in prose.strongest(content)],
        drawn=drawn or Drawn.of(content),
        rows=hypotheses_table(content),
        plain=prose.PLAIN if content.controls else "",
        fits=[(title, [_fit_row(fit) for fit in own]) for title, own in grouped(content.fits)],
        reading=[*ladder_sentences(read_ladder(content.fits, content.floor), content.sizes), *_published(content)],
        subgroups=prose.subgroup_rows(content),
        holding=prose.subgroup_counts(content),
        metric=metric_name(metric),
        meanings=[(word, each["class"], each["sign"], each["meaning"]) for word, each in WORDS["badges"].items()],
        cluster_noun=prose.cluster_noun(content),
        outcome_name=short_outcome(content.outcome),
        blocks=BLOCKS,
        doubts=prose.doubts(content),
        size=partial(prose.size_words, task=content.task),
        settings=list(flat_settings(content.settings)),
    )


def _published(content: ReportContent) -> Iterator[str]:
    """What others printed for these texts, as dataset.yaml quotes it; never mixed with what was measured."""
    quoted = content.settings.get("published")
    if quoted:
        yield f"Published, not measured here: {one_line(quoted)}"


def _badge_counts(content: ReportContent) -> list[tuple[str, str, str, int]]:
    badges: list[str] = [h.badge for h in content.hypotheses]
    return [(word, each["class"], each["sign"], badges.count(word)) for word, each in WORDS["badges"].items()]


def _fit_row(fit: Any) -> tuple[str, str, str, str]:
    interval = NOT_ESTIMABLE
    if math.isfinite(fit.low) and math.isfinite(fit.high):
        interval = f"[{number(fit.low)}, {number(fit.high)}]"
    return rung_name(fit.name), number(fit.value), interval, fit.how


REPORTS_PORT = 3001


def link(words: str, address: str) -> str:
    """A link; the words show as themselves."""
    return f"[{escape_markdown(words)}]({address})"


def asset_address(key: str, partition: str, *, outside: bool = False) -> str:
    """The page of an asset (`hsae/corpus`), opened at a partition; `outside`, for a page that is not Dagster's own."""
    query = urlencode({"view": "partitions", "partition": partition}, quote_via=quote)
    return f"{dagster_root() if outside else ui_root()}/assets/{quote(key)}?{query}"


def card_partition(dataset: str, number: int) -> str:
    """Partition key of the card of one hypothesis, by its number everywhere: `reviews|h01` is the report's first."""
    return f"{dataset}|h{number:02d}"


def dataset_of_card(partition: str) -> str:
    """The dataset of a card's partition."""
    return partition.rpartition("|")[0]


def run_address(run_id: str) -> str:
    """A run's page."""
    return f"{ui_root()}/runs/{quote(run_id, safe='')}"


def ui_root() -> str:
    """What every address begins with: HSAE_UI_URL (a path such as `/dagster`, or a whole URL), by default nothing.

    Raises:
        HsaeError: the variable is neither.
    """
    root = os.environ.get("HSAE_UI_URL", "").strip().rstrip("/")
    if root and not root.startswith(("/", "http://", "https://")):
        raise HsaeError(
            f"HSAE_UI_URL is `{root}`. Set it to the path under which Dagster is served, such as /dagster, or to its "
            "whole address, such as https://example.org/dagster; or leave it out."
        )
    return root


def dagster_root() -> str:
    """What an address of Dagster begins with on a page that is not Dagster's own; `hsae ui` sets HSAE_DAGSTER_URL."""
    root, here = ui_root(), os.environ.get("HSAE_DAGSTER_URL", "").rstrip("/") or "http://127.0.0.1:3000"
    return root if root.startswith("http") else f"{here}{root}"


def report_address(dataset: str) -> str:
    """Where `hsae serve`, which `hsae ui` starts beside Dagster, shows a report; HSAE_REPORTS_URL moves it."""
    root = os.environ.get("HSAE_REPORTS_URL", "").strip().rstrip("/") or f"http://127.0.0.1:{REPORTS_PORT}"
    return f"{root}/{quote(dataset)}.html"


# What a record keeps of a text beside a hypothesis: (role, text_id, text).
Quoted = tuple[str, str, str]


def lineage_lines(
    record: EvaluationRecord, hypothesis_id: str, history: Sequence[EvaluationRecord], quoted: Sequence[Quoted]
) -> Iterator[str]:
    """A hypothesis and everything it came from, from the claim down to the files; one line each."""
    row = record.hypothesis(hypothesis_id)
    assert row is not None  # the caller found the record by it
    task = str(record.summary["task"])
    yield f"{hypothesis_id}  {capitalised(one_line(row['claim']))}"
    yield f"  no. {record.hypotheses.index(row) + 1} of the report"
    yield f"  {row['badge']}: {one_line(row['reason'])}"
    yield f"  effect {standing_effect(Standing.of(row), task)}, on {one_line(str(record.summary['outcome']))}"
    yield f"  concept {row['concept_id']}, neuron {row['sae_id']}/{row['sae_column']}"
    yield ""
    yield f"{record.dataset}, evaluation {record.number}, published {when(record.published)}, rests on:"
    for origin in (record.evaluation, *reversed(record.origins)):
        made = ", ".join(origin.upstream) or FILES
        yield (
            f"  {origin.asset:<18} {origin.data_version[:12]}  code {origin.code_version:<3} {when(origin.created)}  "
            f"run {origin.run_id[:8]}  from {made}"
        )
    yield f"  {FILES:<18} {record.files[:12]}"
    for sentence in record.mixed:
        yield f"  beware: {sentence}"
    if quoted:
        yield ""
        yield f"{plural(len(quoted), 'text')} on its card (see them with `hsae text <id>`):"
        for role, text_id, _ in quoted:
            yield f"  {role:<9} {text_id}"
    yield ""
    yield "Its evaluations:"
    for past in history:
        standing = Standing.of(past.hypothesis(hypothesis_id) or row)
        effect = standing_effect(standing, task)
        yield f"  {past.number:>3}  {when(past.published)}  {standing.badge:<13} {effect}  (report {past.key})"


_GROUPS = (
    ("appeared", "Appeared", "Hypotheses that the earlier evaluation did not have."),
    ("moved", "Moved", "The same hypotheses with another verdict, effect or wording."),
    ("vanished", "Vanished", "Hypotheses that the later evaluation does not have."),
    ("unchanged", "Unchanged", "The same words and verdict, and an effect within its earlier interval."),
)


def _page(name: str, title: str, eyebrow: str, **shown: Any) -> str:
    return str(template(f"{name}.html.j2").render(css=style(), title=title, eyebrow=eyebrow, **shown))


def render_index(dataset: str, records: Sequence[EvaluationRecord]) -> str:
    """The evaluations of a dataset as one HTML document, newest first."""
    return _page("index", f"{dataset}: all evaluations", "hsae_dagster", dataset=dataset, records=records[::-1])


def with_places(page: bytes, key: str, dagster: str, folder: str = "") -> bytes:
    """A report's page with links to its tables, to earlier evaluations and to Dagster.

    `folder` leads from the page to the evaluations of its dataset.
    """
    places = template("places.html.j2").render(folder=folder, key=key, dagster=dagster)
    return page.replace(b"<!-- places -->\n", places.encode(), 1)


def render_tables(dataset: str, key: str, number: int, tables: Sequence[tuple[str, int]]) -> str:
    """The list of an evaluation's tables, each with its number of rows, as one HTML document."""
    shown = {"dataset": dataset, "key": key, "number": number, "tables": tables}
    return _page("tables", f"{dataset}: tables", f"evaluation {number}", **shown)


def render_comparison(before: EvaluationRecord, after: EvaluationRecord) -> str:
    """What appeared, moved, vanished between two evaluations of a dataset, as one HTML document."""
    changes = compare(*([Standing.of(row) for row in record.hypotheses] for record in (before, after)))
    task = str(after.summary["task"])
    groups = [
        (kind, title, note, [_row(change, task) for change in changes if change.kind == kind])
        for kind, title, note in _GROUPS
    ]
    return _page(
        "comparison",
        f"{after.dataset}: what changed",
        f"evaluation {before.number} and evaluation {after.number}",
        before=before,
        after=after,
        headline=comparison_headline(changes),
        inputs=inputs_words(before, after),
        groups=groups,
    )


def inputs_words(before: EvaluationRecord, after: EvaluationRecord) -> str:
    """What two evaluations were made from differently, in a sentence."""
    old, new = ({origin.asset: origin.data_version for origin in record.origins} for record in (before, after))
    causes = ", ".join(asset for asset in old | new if old.get(asset) != new.get(asset))
    return f"Their inputs differ in {causes or 'nothing; only settings of the evaluation differ'}."


def comparison_headline(changes: Sequence[Change]) -> str:
    """How many appeared, vanished, moved."""
    kinds: list[str] = [change.kind for change in changes]
    told = [(kinds.count(kind), kind) for kind, _, _ in _GROUPS]
    return f"Of {plural(len(kinds), 'hypothesis')}, {', '.join(f'{n} {kind}' for n, kind in told)}."


def _row(change: Change, task: str) -> dict[str, str]:
    return {
        "key": change.standing.hypothesis_id,
        "claim": one_line(change.standing.claim),
        "before": _standing(change.before, task),
        "after": _standing(change.after, task),
        "words": change_words(change, task),
    }


def _standing(standing: Standing | None, task: str) -> str:
    return f"{standing.badge}, {standing_effect(standing, task)}" if standing else "–"


# From so many on, a page lists its datasets at the top.
LISTED_FROM = 5
_MOST_BEST = 3
# A hypothesis by its number in the report; its effect in words.
Numbered = tuple[int, Standing, str]


@dataclass(frozen=True)
class DatasetLine:
    """One dataset with its last evaluation, if there is any; `usd` is None where it is not known."""

    dataset: str
    record: EvaluationRecord | None
    evaluations: int
    status: str
    calls: int
    usd: float | None

    @cached_property
    def hypotheses(self) -> list[Numbered]:
        """Those of the evaluation, in the report's order."""
        if self.record is None:
            return []
        task, standings = str(self.record.summary["task"]), map(Standing.of, self.record.hypotheses)
        return [(number, each, standing_effect(each, task)) for number, each in enumerate(standings, 1)]

    @property
    def best(self) -> list[Numbered]:
        """The confirmed ones of largest effect."""
        confirmed = [each for each in self.hypotheses if each[1].badge == "confirmed"]
        return sorted(confirmed, key=lambda each: -abs(each[1].estimate))[:_MOST_BEST]

    @property
    def day(self) -> str:
        """When it was evaluated, for people."""
        return when(self.record.published) if self.record else "never"

    @property
    def confirmed(self) -> str:
        """How many of the tested hypotheses are."""
        told = self.record.summary if self.record else {"confirmed": 0, "tested": 0}
        return f"{count(told['confirmed'])} of {count(told['tested'])}"

    @property
    def spent(self) -> str:
        """Calls and their price."""
        if not self.calls:
            return "nothing"
        price = "price not known" if self.usd is None else f"{number(self.usd, 2)} USD"
        return f"{count(self.calls)} calls, {price}"


def render_overview(lines: Sequence[DatasetLine]) -> str:
    """The page: a section per dataset, whose hypotheses unfold; closed ones cost a browser next to nothing."""
    return _page("overview", "All datasets", "hsae_dagster", lines=lines, listed=len(lines) >= LISTED_FROM)


def overview_markdown(lines: Sequence[DatasetLine], evaluation: str) -> str:
    """A table for Dagster, with links to each dataset's evaluation, which is an asset of this key."""
    say = escape_markdown
    rows = ["| dataset | confirmed | evaluated | status | spent |", "|---|---|---|---|---|"]
    for line in lines:
        opened = link(line.dataset, asset_address(evaluation, line.dataset))
        figures = f"{line.confirmed} | {say(line.day)} | {say(line.status)} | {say(line.spent)}"
        rows.append(f"| {opened} | {figures} |")
    return "\n".join(rows)


def best_markdown(lines: Sequence[DatasetLine], cards: str) -> str:
    """The strongest hypotheses of every dataset, with links to their cards, which are an asset of this key."""
    say = escape_markdown
    rows = ["| dataset | hypothesis | effect |", "|---|---|---|"]
    for line in lines:
        for place, best, effect in line.best:
            claim = link(
                capitalised(short_claim(best.claim, 90)), asset_address(cards, card_partition(line.dataset, place))
            )
            rows.append(f"| {say(line.dataset)} | {claim} | {say(effect)} |")
    return "\n".join(rows) if len(rows) > 2 else "No hypothesis of any dataset is confirmed."
