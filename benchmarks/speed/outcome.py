"""What a row found, its goal, and the table of all rows.

Belongs here: the record of one row and how it is shown. Does not belong here: measuring.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what was measured, with its size.
        ours: our figure.
        theirs: the figure it is held against; None where there is none.
        unit: of both ("s", "ms", "MB", "x").
        goal: what the figure should be: the least ratio theirs / ours, or with `at_most` the largest ours (or ours /
            theirs where there is a theirs).
        at_most: the goal bounds from above.
        agreed: what was asserted equal, in words; the assertion has held when the row exists.
        peak_ours: most megabytes of our process beyond data and libraries; None where it was not looked at.
        peak_theirs: the same of the other side.
        roofline: the least that this machine needs for such work, measured beside the row, in words.
        extra: anything else worth keeping in the JSON.
    """

    name: str
    ours: float
    theirs: float | None
    unit: str
    goal: float | None
    at_most: bool = False
    agreed: str = ""
    peak_ours: float | None = None
    peak_theirs: float | None = None
    roofline: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Theirs / ours, or ours / theirs where the goal is an upper bound; ours alone where there is no theirs."""
        if self.theirs is None:
            return self.ours if self.at_most else None
        return self.ours / self.theirs if self.at_most else self.theirs / self.ours

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "ratio": self.ratio, "met": self.met}


HEADER = (
    "row",
    "reference",
    "ours",
    "ratio",
    "goal",
    "met",
    "peak MB, reference",
    "peak MB, ours",
    "agreement",
    "roofline",
)


def table(rows: Iterable[Row]) -> Iterable[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + "---|" * len(HEADER)
    for row in rows:
        cells = (
            row.name,
            _figure(row.theirs, row.unit),
            _figure(row.ours, row.unit),
            "" if row.theirs is None else f"{row.ratio:.3g}x",
            _goal(row),
            {True: "yes", False: "NO", None: ""}[row.met],
            "" if row.peak_theirs is None else f"{row.peak_theirs:,.0f}",
            "" if row.peak_ours is None else f"{row.peak_ours:,.0f}",
            row.agreed,
            row.roofline,
        )
        yield "| " + " | ".join(cells) + " |"


def _figure(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:,.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _goal(row: Row) -> str:
    if row.goal is None:
        return ""
    unit = f" {row.unit}" if row.theirs is None else "x"
    return f"{'≤' if row.at_most else '≥'} {row.goal:g}{unit}"
