"""One function per chart, from plain arrays and records.

Belongs here: what each chart shows and its description in words. Does not belong here: style and files (`canvas`),
computing what is shown (core).

Text from data or models is never put into a chart's description as it stands: the description travels inside markdown.
The forest plot has a file of its own (`forest`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hsae_dagster.core.joint_fit import Fit
from hsae_dagster.core.ladder import CONCEPTS
from hsae_dagster.report.canvas import INK, NEGATIVE, POSITIVE, Figure, draw, empty, inert, note
from hsae_dagster.report.forest import forest_plot
from hsae_dagster.report.rungs import grouped, rung_name
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    count,
    metric_name,
    number,
    percent,
    plural,
    short_claim,
    short_outcome,
    shorten,
)

__all__ = [
    "fidelity_bars",
    "firing_rates",
    "fit_ladder",
    "forest_plot",
    "label_histogram",
    "loss_curves",
    "prevalence_bars",
    "selection_path",
]

_SERIES = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
_MOST_BARS = 60


def fit_ladder(fits: Sequence[Fit], floor: tuple[float, float], metric: str, texts: str = "held-out texts") -> Figure:
    """Joint fit of every set of predictors with its interval, above what shuffled outcomes give.

    One picture in groups: what embeddings know, what the neurons keep, what the claims say, and what is compared.
    """
    metric = metric_name(metric)
    groups = grouped(fits)
    values = {title: [f"{inert(rung_name(f.name))} {number(f.value)}" for f in own] for title, own in groups}
    told = [f"{title}: {', '.join(each)}" for title, each in values.items()]
    alt = f"{metric} on {texts}. {'; '.join([*told, f'shuffled outcomes {number(floor[0])}'])}."
    start = 0.5 if metric == "AUC" else 0.0
    rows = [(title, fit) for title, own in groups for fit in (None, *own)]

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        axes.set_ylim(max(len(rows), 1) - 0.4, -1.0)
        for y, (_, fit) in enumerate(rows):
            if fit is not None:
                _ladder_row(axes, y, fit, start, POSITIVE if fit.name == CONCEPTS else "#9fb4c7")
        if math.isfinite(floor[1]):
            axes.axvline(floor[1], color=NEGATIVE, linewidth=1, linestyle=(0, (4, 2)))
            words, style = "95 % of shuffled outcomes stay below", {"color": "#a34400", "fontsize": 7.5}
            axes.annotate(words, (floor[1], -0.62), xytext=(4, 0), textcoords="offset points", va="bottom", **style)
        axes.set_yticks(range(len(rows)), [shorten(rung_name(f.name), 34) if f else title for title, f in rows])
        for label, (_, fit) in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("normal" if fit else "bold")
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{metric} on {texts}, 95 % interval", fontsize=8.5)
        if not fits:
            empty(axes, "no fit was measured")

    return draw("ladder", alt, (5.6, 0.27 * max(len(rows), 1) + 0.95), paint)


def _ladder_row(axes: Any, y: int, fit: Fit, start: float, colour: str) -> None:
    if math.isfinite(fit.value):
        axes.barh(y, fit.value - start, left=start, height=0.62, color=colour)
    if math.isfinite(fit.low) and math.isfinite(fit.high):
        axes.plot([fit.low, fit.high], [y, y], color=INK, linewidth=1.1)
    right = np.nanmax([fit.value, fit.high, start]) if math.isfinite(fit.value) else start
    axes.annotate(number(fit.value), (right, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5)


def label_histogram(values: np.ndarray, task: str, outcome: str) -> Figure:
    """Distribution of the outcome: a histogram, or two bars for outcomes of 0 and 1."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    mean = number(float(values.mean())) if values.size else NOT_ESTIMABLE
    alt = f"Distribution of {inert(short_outcome(outcome))} over {count(values.size)} observations; mean {mean}."

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        if task == "regression":
            axes.hist(values, bins=min(40, max(8, int(math.sqrt(values.size)))), color=POSITIVE, edgecolor="white")
        else:
            ones = int((values == 1).sum())
            names = ("A wins", "B wins") if task == "pairwise" else ("yes", "no")
            for x, size in enumerate((ones, values.size - ones)):
                axes.bar(x, size, color=(POSITIVE, "#9fb4c7")[x], width=0.6)
                share = percent(size / values.size) if values.size else ""
                axes.annotate(
                    f"{count(size)}  {share}", (x, size), xytext=(0, 3), textcoords="offset points", ha="center"
                )
            axes.set_xticks((0, 1), names)
            axes.margins(y=0.15)
        axes.set_xlabel(shorten(outcome, 70))
        axes.set_ylabel("observations")
        note(sheet, f"n = {count(values.size)}, mean {mean}")

    return draw("labels", alt, (5.2, 2.7), paint)


def loss_curves(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Training and validation loss per epoch of each autoencoder; a dot at the epoch whose weights were kept."""
    alt = f"Loss by epoch of {plural(len(histories), 'autoencoder')}."

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        for k, (name, history) in enumerate(histories.items()):
            colour = _SERIES[k % len(_SERIES)]
            epochs = [row["epoch"] for row in history]
            checked = [row.get("validation_loss", math.nan) for row in history]
            checked = [math.nan if value is None else value for value in checked]
            axes.plot(epochs, [row["train_loss"] for row in history], color=colour, linewidth=1, linestyle=(0, (3, 2)))
            axes.plot(epochs, checked, color=colour, linewidth=1.6, label=shorten(name, 40))
            if np.isfinite(checked).any():
                best = int(np.nanargmin(checked))
                axes.plot(epochs[best], checked[best], marker="o", color=colour, markersize=5)
        axes.set_xlabel("epoch")
        axes.set_ylabel("reconstruction loss")
        if histories:
            axes.legend(frameon=False, fontsize=8)
        note(sheet, "solid: validation; dashed: training; dot: lowest validation loss")

    return draw("loss", alt, (5.6, 3.0), paint)


def firing_rates(rates: np.ndarray, k_over_m: float) -> Figure:
    """On how many texts neurons are active: histogram over neurons on a logarithmic axis, with the average k/m.

    Args:
        rates: (neurons,) share of texts that activate each.
        k_over_m: share expected if all were active equally often.
    """
    rates = np.asarray(rates, dtype=np.float64)
    alive = rates[rates > 0]
    dead = int((rates == 0).sum())
    share = f"never active: {dead}; average {percent(k_over_m)}"
    alt = f"Share of texts that activate {plural(rates.size, 'neuron')}; {share}."

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        if alive.size:
            low = min(alive.min(), k_over_m if k_over_m > 0 else 1.0) / 1.5
            axes.hist(alive, bins=np.geomspace(low, 1.0, 30), color=POSITIVE, edgecolor="white")
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: percent(value))
            axes.minorticks_off()
        if k_over_m > 0:
            axes.axvline(k_over_m, color=NEGATIVE, linewidth=1.2, label=f"average, k/m = {percent(k_over_m)}")
            axes.legend(frameon=False, fontsize=8)
        axes.set_xlabel("share of texts that activate a neuron")
        axes.set_ylabel("neurons")
        note(sheet, f"n = {plural(rates.size, 'neuron')}; never active: {count(dead)}")

    return draw("firing", alt, (5.2, 2.7), paint)


def selection_path(path: Sequence[tuple[float, int]], alpha: float | None) -> Figure:
    """Neurons kept along the lasso path, and the penalty chosen.

    Args:
        path: (penalty, neurons with a coefficient).
        alpha: the penalty chosen, or None.
    """
    points = sorted((float(penalty), int(active)) for penalty, active in path)
    chosen = "none chosen" if alpha is None else f"chosen {alpha:.3g}"
    alt = f"Neurons kept against the lasso penalty at {plural(len(points), 'point')}; {chosen}."

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        axes.step([p for p, _ in points], [a for _, a in points], where="post", color=POSITIVE, linewidth=1.4)
        if points and points[0][0] > 0:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
            axes.xaxis.set_minor_formatter(lambda _value, _: "")
        if alpha is not None:
            axes.axvline(alpha, color=NEGATIVE, linewidth=1.2, label=f"chosen: {alpha:.3g}")
            axes.legend(frameon=False, fontsize=8)
        axes.invert_xaxis()
        axes.set_xlabel("lasso penalty (weaker to the right)")
        axes.set_ylabel("neurons kept")

    return draw("path", alt, (5.2, 2.7), paint)


def fidelity_bars(labels: Sequence[str], values: Sequence[float]) -> Figure:
    """How much of its neuron each claim says (F1 of `metric`, on validation texts), most first."""
    middle = number(float(np.nanmedian(values))) if len(values) and np.isfinite(values).any() else NOT_ESTIMABLE
    alt = f"How much of its neuron each of {plural(len(labels), 'claim')} says; median {middle}."
    return _bars("fidelity", alt, labels, values, "F1 of claim and neuron", number, f"median {middle}")


def prevalence_bars(labels: Sequence[str], prevalence: Sequence[float]) -> Figure:
    """Share of texts that each claim holds for, most common first."""
    alt = f"Share of texts that each of {plural(len(labels), 'claim')} holds for."
    return _bars("prevalence", alt, labels, prevalence, "share of texts that the claim holds for", percent, "")


def _bars(
    name: str,
    alt: str,
    labels: Sequence[str],
    values: Sequence[float],
    axis: str,
    write: Callable[[float], str],
    remark: str,
) -> Figure:
    finite = [value if math.isfinite(value) else -1.0 for value in values]
    order = sorted(range(len(labels)), key=lambda i: (-finite[i], i))[:_MOST_BARS]
    left_out = len(labels) - len(order)

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        for y, i in enumerate(order):
            axes.barh(y, max(finite[i], 0.0), height=0.66, color=POSITIVE)
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(write(values[i]), (max(finite[i], 0), y), fontsize=8, **place)
        axes.set_yticks(range(len(order)), [short_claim(labels[i]) for i in order])
        axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
        axes.set_xlim(0, max([0.05, *(1.15 * value for value in finite)]))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(axis, fontsize=8.5)
        notes = (f"n = {len(labels)}", remark, f"{left_out} not shown" if left_out else "")
        note(sheet, "; ".join(part for part in notes if part))

    return draw(name, alt, (6.4, 0.24 * max(len(order), 1) + 1.0), paint)
