"""Pages and lines beside the report.

All datasets, a dataset's evaluations, what changed, where a hypothesis comes from.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hsae_dagster.core.evaluations import FILES, Change, EvaluationRecord, Standing, compare
from hsae_dagster.errors import HsaeError
from hsae_dagster.report.cards import escape_markdown
from hsae_dagster.report.page import style, template
from hsae_dagster.report.wording import (
    capitalised,
    change_words,
    count,
    number,
    one_line,
    plural,
    short_claim,
    standing_effect,
    when,
)

REPORTS_PORT = 3001


def link(words: str, address: str) -> str:
    """A link; the words show as themselves."""
    return f"[{escape_markdown(words)}]({address})"


def asset_address(key: str, partition: str | None = None) -> str:
    """The page of an asset (`hsae/corpus`), opened at a partition."""
    query = f"?{urlencode({'view': 'partitions', 'partition': partition}, quote_via=quote)}" if partition else ""
    return f"{ui_root()}/assets/{quote(key)}{query}"


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
    yield f"  {row['badge']}: {one_line(row['reason'])}"
    yield f"  effect {standing_effect(Standing.of(row), task)}, on {one_line(str(record.summary['outcome']))}"
    yield f"  concept {row['concept_id']}, neuron {row['sae_id']}/{row['sae_column']}, rank {row['rank'] + 1}"
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
    ("moved", "Moved", "The same hypotheses with another verdict, effect, rank or wording."),
    ("vanished", "Vanished", "Hypotheses that the later evaluation does not have."),
    ("unchanged", "Unchanged", "The same in every respect."),
)


def _page(name: str, title: str, eyebrow: str, **shown: Any) -> str:
    """A page of the common frame as one HTML document."""
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
    old, new = ({origin.asset: origin.data_version for origin in record.origins} for record in (before, after))
    return _page(
        "comparison",
        f"{after.dataset}: what changed",
        f"evaluation {before.number} and evaluation {after.number}",
        before=before,
        after=after,
        headline=comparison_headline(changes),
        causes=", ".join(asset for asset in old | new if old.get(asset) != new.get(asset)),
        groups=groups,
    )


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


# From here on, a page lists its datasets at the top.
LISTED_FROM = 5


@dataclass(frozen=True)
class HypothesisLine:
    """One of a dataset's hypotheses, by its number in the report; its effect is written out."""

    hypothesis_id: str
    claim: str
    effect: str
    number: int
    badge: str


@dataclass(frozen=True)
class DatasetLine:
    """One dataset; hypotheses in the report's order, `published` in ISO 8601, `usd` None where it is not known."""

    dataset: str
    outcome: str
    tested: int
    confirmed: int
    hypotheses: tuple[HypothesisLine, ...]
    best: tuple[HypothesisLine, ...]
    published: str | None
    evaluations: int
    status: str
    calls: int
    usd: float | None

    @property
    def day(self) -> str:
        """When it was evaluated, for people."""
        return when(self.published) if self.published else "never"

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
        figures = f"{line.confirmed} of {line.tested} | {say(line.day)} | {say(line.status)} | {say(line.spent)}"
        rows.append(f"| {opened} | {figures} |")
    return "\n".join(rows)


def best_markdown(lines: Sequence[DatasetLine], cards: str) -> str:
    """The strongest hypotheses of every dataset, with links to their cards, which are an asset of this key."""
    say = escape_markdown
    rows = ["| dataset | hypothesis | effect |", "|---|---|---|"]
    for line in lines:
        for best in line.best:
            card = asset_address(cards, card_partition(line.dataset, best.number))
            rows.append(
                f"| {say(line.dataset)} | {link(capitalised(short_claim(best.claim, 90)), card)} | {say(best.effect)} |"
            )
    return "\n".join(rows) if len(rows) > 2 else "No hypothesis of any dataset is confirmed."
