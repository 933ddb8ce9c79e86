"""The chart of the raced sizes of autoencoders: what can be said with each, and how much of it is found again.

Belongs here: this one chart. Does not belong here: measuring (`assets.sae_sizes`) or choosing (`core.sae_choice`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hsae_dagster.report.canvas import INK, POSITIVE, Figure, draw, empty
from hsae_dagster.report.wording import metric_name, number, percent


def sizes_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Fit of the claims on validation clusters by size; the chosen one ringed.

    Args:
        rows: m, k, said, standard_error (of the difference to the best), agreement, chosen of each candidate.
        metric: `R2` or `AUC`.
    """
    rows = [row for row in rows if row["said"] is not None and math.isfinite(row["said"])]
    name = metric_name(metric)
    taken = [row for row in rows if row["chosen"]]
    said = "".join(f" Chosen: {row['m']}/{row['k']}, {name} {number(row['said'])}." for row in taken)
    alt = f"{len(rows)} autoencoders by size and {name} of what can be said with them.{said}"

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        places, values = range(len(rows)), [row["said"] for row in rows]
        axes.errorbar(places, values, yerr=[row["standard_error"] for row in rows], fmt="o", color=POSITIVE, zorder=3)
        for place, row in enumerate(rows):
            if row["chosen"]:
                axes.scatter(place, row["said"], s=130, facecolors="none", edgecolors=INK, linewidth=1.3, zorder=4)
            if row["agreement"] is not None:
                again = f"{percent(row['agreement'])} found again"
                axes.annotate(again, (place, row["said"]), xytext=(7, 4), textcoords="offset points", fontsize=7.5)
        axes.set_xticks(list(places), [f"{row['m']}/{row['k']}" for row in rows])
        axes.set_xlabel("neurons / of them firing per unit", fontsize=8.5)
        axes.set_ylabel(f"{name} of claims on validation clusters", fontsize=8.5)
        axes.margins(0.25, 0.2)

    def blank(sheet: Any) -> None:
        empty(sheet.subplots(), "no candidate could be judged")

    return draw("sizes", alt, (5.2, 3.2), paint if rows else blank)
