"""The chart of a measured grid of autoencoders: what each keeps of the signal, and at what cost in reconstruction.

Belongs here: this one chart. Does not belong here: measuring (`core.sae_grid`) or choosing (`core.sae_choice`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hsae_dagster.report.canvas import INK, NEGATIVE, POSITIVE, Figure, draw, empty
from hsae_dagster.report.wording import metric_name, number

_COLOURS = ("#9fb4c7", POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#8a6d00")


def grid_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Score against reconstruction error, one dot per candidate; the front joined, the chosen one ringed.

    Args:
        rows: m, k, label_weight, distinct_weight, score, nmse, standard_error, chosen of each candidate.
        metric: `R2` or `AUC`.
    """
    rows = [row for row in rows if row["score"] is not None and math.isfinite(row["score"])]
    name = metric_name(metric)
    taken = [row for row in rows if row["chosen"]]
    said = "".join(f" Chosen: {label(row)}, {name} {number(row['score'])}." for row in taken)
    alt = f"{len(rows)} autoencoders by reconstruction error and {name} kept by the selected neurons.{said}"

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        weights = sorted({row["label_weight"] for row in rows})
        for place, weight in enumerate(weights):
            some = [row for row in rows if row["label_weight"] == weight]
            called = f"label weight {weight:g}" if weight else "unguided"
            colour = _COLOURS[place % len(_COLOURS)]
            axes.scatter(
                [r["nmse"] for r in some], [r["score"] for r in some], s=26, color=colour, label=called, zorder=3
            )
        front = pareto_front([(row["nmse"], row["score"]) for row in rows])
        axes.plot(*zip(*front, strict=True), color=INK, linewidth=0.8, linestyle=(0, (3, 2)), zorder=2)
        for row in rows:
            axes.annotate(
                f"{row['m']}/{row['k']}",
                (row["nmse"], row["score"]),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
            )
        for row in taken:
            axes.scatter(
                [row["nmse"]], [row["score"]], s=110, facecolors="none", edgecolors=INK, linewidth=1.3, zorder=4
            )
        axes.set_xlabel("reconstruction error on validation texts (share of variance)", fontsize=8.5)
        axes.set_ylabel(f"{name} on validation clusters", fontsize=8.5)
        axes.legend(fontsize=7.5, frameon=False)
        axes.margins(0.12)

    def blank(sheet: Any) -> None:
        empty(sheet.subplots(), "no candidate could be judged")

    return draw("grid", alt, (5.2, 3.4), paint if rows else blank)


def label(row: Mapping[str, Any]) -> str:
    """A candidate in a few words."""
    guided = f", label weight {row['label_weight']:g}" if row["label_weight"] else ", unguided"
    # Grids from before there was a weight on distinctness have no such column.
    return f"{row['m']}/{row['k']}{guided}" + (", neurons kept apart" if row.get("distinct_weight") else "")


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The (cost, gain) points that no other one beats on both counts, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, gain in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or gain > front[-1][1]:
            front.append((cost, gain))
    return front
