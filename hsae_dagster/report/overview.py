"""All datasets on one page: what was found, how fresh it is, what it cost.

Belongs here: lines into HTML and markdown. Does not belong here: gathering them (`assets.overview`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hsae_dagster.report.cards import escape_markdown
from hsae_dagster.report.links import asset_address, card_partition, link, when
from hsae_dagster.report.templates import style, template
from hsae_dagster.report.wording import capitalised, count, number, short_claim

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
    """One dataset.

    Attributes:
        dataset: its name.
        outcome: in words; empty before the first evaluation.
        tested: hypotheses.
        confirmed: of them.
        hypotheses: all of them, in the report's order.
        best: the strongest confirmed ones.
        published: when the last evaluation became current (ISO 8601), or None.
        evaluations: how many there were.
        status: `current`, `stale: …`, or why there is no evaluation.
        calls: paid calls that the current results took.
        usd: their price, or None where it is not known.
    """

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
    listed = len(lines) >= LISTED_FROM
    return str(
        template("overview.html.j2").render(
            css=style(), title="All datasets", eyebrow="hsae_dagster", lines=lines, listed=listed
        )
    )


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
