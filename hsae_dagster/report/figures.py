"""One function per chart, from plain arrays and records.

Belongs here: what each chart shows and its description in words. Does not belong here: style and files (`canvas`),
computing what is shown (core).

Text from data or models is never put into a chart's description as it stands: the description travels inside markdown.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.joint_fit import Fit
from hsae_dagster.report.canvas import FAINT, INK, MUTED, NEGATIVE, POSITIVE, Figure, draw
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    axis_label,
    count,
    effect_brief,
    metric_name,
    number,
    one_line,
    percent,
    plural,
    short_claim,
    short_outcome,
    shorten,
    shown,
)

_SERIES = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
_ROW = 0.26  # inches a line of text and its mark need
_MOST_BARS = 60


def forest_plot(
    hypotheses: Sequence[Hypothesis], outcome: str, alpha: float, task: str = "regression", *, narrow: bool = False
) -> Figure:
    """Effect of every hypothesis with its 95 % interval, largest first; hollow when not confirmed.

    Args:
        hypotheses: any order; those that could not be estimated come last, without a mark.
        outcome: in words.
        alpha: family-wise error rate, for the legend.
        task: regression, classification or pairwise; decides the unit.
        narrow: labels above the marks instead of beside them, for a telephone's width.
    """
    rows = sorted(hypotheses, key=_by_effect)
    confirmed = sum(h.badge == "confirmed" for h in rows)
    n = max((h.test.n for h in rows), default=0)
    alt = (
        f"Effects of {plural(len(rows), 'hypothesis')} on {_inert(short_outcome(outcome))} with 95 percent intervals, "
        f"sorted from highest to lowest; {confirmed} confirmed. "
    )
    alt += "; ".join(f"{k}: {_inert(effect_brief(h.test.separation, task))}" for k, h in enumerate(rows[:20], 1))
    step = 0.46 if narrow else _ROW
    size = (3.9 if narrow else 8.2, step * max(len(rows), 1) + (1.25 if narrow else 1.0))

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        axes.set_ylim(max(len(rows), 1) - 0.3, -0.95 if narrow else -0.7)
        axes.set_xlim(*_effect_limits(rows, task))
        axes.axvline(_zero(task), color=MUTED, linewidth=0.8)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        for y, hypothesis in enumerate(rows):
            _effect_row(axes, y, hypothesis, task)
            label = short_claim(hypothesis.claim, 40 if narrow else 52)
            effect = f"{effect_brief(hypothesis.test.separation, task)}   n {count(hypothesis.test.n_with)}"
            if narrow:
                axes.text(0, y - 0.38, label, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
                axes.text(
                    1, y + 0.30, effect, transform=axes.get_yaxis_transform(), va="center", ha="right", fontsize=7.5,
                    color=MUTED,
                )  # fmt: skip
            else:
                axes.text(1.02, y, effect, transform=axes.get_yaxis_transform(), va="center", fontsize=8.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks(
            [] if narrow else range(len(rows)), [] if narrow else [short_claim(h.claim, 52) for h in rows]
        )
        axes.set_xlabel(axis_label(task, outcome), fontsize=8.5)
        _note(sheet, f"{count(n)} holdout observations; n: with the concept\nfilled: confirmed (Holm, α = {alpha:g})")
        if not rows:
            _empty(axes, "no hypothesis was tested")

    return draw("forest-narrow" if narrow else "forest", alt, size, paint)


def fit_ladder(fits: Sequence[Fit], floor: tuple[float, float], metric: str) -> Figure:
    """Joint fit of every set of predictors with its interval, above what shuffled outcomes give."""
    metric = metric_name(metric)
    parts = [f"{_inert(fit.name)} {number(fit.value)}" for fit in fits]
    alt = f"{metric} on the holdout: {'; '.join(parts)}; shuffled outcomes {number(floor[0])}."
    start = 0.5 if metric == "AUC" else 0.0

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        for y, fit in enumerate(fits):
            concepts = "concept" in fit.name.lower()
            if math.isfinite(fit.value):
                axes.barh(y, fit.value - start, left=start, height=0.62, color=POSITIVE if concepts else "#9fb4c7")
            if math.isfinite(fit.low) and math.isfinite(fit.high):
                axes.plot([fit.low, fit.high], [y, y], color=INK, linewidth=1.1)
            right = np.nanmax([fit.value, fit.high, start]) if math.isfinite(fit.value) else start
            axes.annotate(
                number(fit.value), (right, y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
        if math.isfinite(floor[1]):
            axes.axvline(floor[1], color=NEGATIVE, linewidth=1, linestyle=(0, (4, 2)))
            axes.text(
                floor[1], -0.62, " 95 % of shuffled outcomes stay below", color="#a34400", fontsize=7.5, va="bottom"
            )
        axes.set_yticks(range(len(fits)), [shorten(fit.name, 34) for fit in fits])
        axes.set_ylim(max(len(fits), 1) - 0.4, -1.0)
        axes.margins(x=0.12)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{metric} on held-out texts, 95 % interval", fontsize=8.5)
        if not fits:
            _empty(axes, "no fit was measured")

    return draw("ladder", alt, (5.2, 0.3 * max(len(fits), 1) + 0.95), paint)


def label_histogram(values: np.ndarray, task: str, outcome: str) -> Figure:
    """Distribution of the outcome: a histogram, or two bars for outcomes of 0 and 1."""
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values)]
    mean = number(float(values.mean())) if values.size else NOT_ESTIMABLE
    alt = f"Distribution of {_inert(short_outcome(outcome))} over {count(values.size)} observations; mean {mean}."

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
        _note(sheet, f"n = {count(values.size)}, mean {mean}")

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
        _note(sheet, "solid: validation; dashed: training; dot: lowest validation loss")

    return draw("loss", alt, (5.6, 3.0), paint)


def firing_rates(rates: np.ndarray, k_over_m: float) -> Figure:
    """How often neurons fire: histogram over neurons on a logarithmic axis, with the average k/m.

    Args:
        rates: (neurons,) share of texts on which each fires.
        k_over_m: share expected if all fired equally often.
    """
    rates = np.asarray(rates, dtype=np.float64)
    alive = rates[rates > 0]
    dead = int((rates == 0).sum())
    alt = f"Firing rates of {plural(rates.size, 'neuron')}; {dead} never fire; average {percent(k_over_m)}."

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
        axes.set_xlabel("share of texts on which a neuron fires")
        axes.set_ylabel("neurons")
        _note(sheet, f"n = {plural(rates.size, 'neuron')}; never firing: {count(dead)}")

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


def fidelity_bars(
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
) -> Figure:
    """Fidelity F1 of every concept to its neuron, best first, with intervals where given."""
    middle = number(float(np.nanmedian(values))) if len(values) and np.isfinite(values).any() else NOT_ESTIMABLE
    alt = f"Fidelity F1 of {plural(len(labels), 'concept')} on unseen texts; median {middle}."
    whiskers = None if low is None or high is None else list(zip(low, high, strict=True))
    return _bars("fidelity", alt, labels, values, "fidelity F1 on unseen texts", number, whiskers, f"median {middle}")


def prevalence_bars(labels: Sequence[str], prevalence: Sequence[float]) -> Figure:
    """Share of texts that have each concept, most common first."""
    alt = f"Prevalence of {plural(len(labels), 'concept')}."
    return _bars("prevalence", alt, labels, prevalence, "share of texts with the concept", percent, None, "")


def _bars(
    name: str,
    alt: str,
    labels: Sequence[str],
    values: Sequence[float],
    axis: str,
    write: Callable[[float], str],
    whiskers: list[tuple[float, float]] | None,
    note: str,
) -> Figure:
    finite = [value if math.isfinite(value) else -1.0 for value in values]
    order = sorted(range(len(labels)), key=lambda i: (-finite[i], i))[:_MOST_BARS]
    left_out = len(labels) - len(order)

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        for y, i in enumerate(order):
            axes.barh(y, max(finite[i], 0.0), height=0.66, color=POSITIVE)
            end = finite[i]
            if whiskers and np.isfinite(whiskers[i]).all():
                axes.plot(whiskers[i], [y, y], color=INK, linewidth=1.1)
                end = max(end, whiskers[i][1])
            axes.annotate(
                write(values[i]), (max(end, 0), y), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8
            )
        axes.set_yticks(range(len(order)), [short_claim(labels[i]) for i in order])
        axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
        axes.set_xlim(0, max([0.05, *(1.15 * value for value in finite)]))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(axis, fontsize=8.5)
        notes = (f"n = {len(labels)}", note, f"{left_out} not shown" if left_out else "")
        _note(sheet, "; ".join(part for part in notes if part))

    return draw(name, alt, (6.4, 0.24 * max(len(order), 1) + 1.0), paint)


def _by_effect(hypothesis: Hypothesis) -> tuple[bool, float, int]:
    estimate = hypothesis.test.separation.estimate
    return (not math.isfinite(estimate), -estimate if math.isfinite(estimate) else 0.0, hypothesis.rank)


def _zero(task: str) -> float:
    return 50.0 if task == "pairwise" else 0.0


def _effect_limits(rows: Sequence[Hypothesis], task: str) -> tuple[float, float]:
    """Room for every estimate and most intervals: one wide interval must not squash the others."""
    zero = _zero(task)
    effects = [shown(h.test.separation, task) for h in rows if math.isfinite(h.test.separation.estimate)]
    if not effects:
        return (zero - 1, zero + 1)
    ends = np.array([[s.low, s.high] for s in effects])
    estimates = np.array([s.estimate for s in effects])
    ends = np.where(np.isfinite(ends), ends, estimates[:, None])
    low = min(zero, estimates.min(), np.percentile(ends[:, 0], 5))
    high = max(zero, estimates.max(), np.percentile(ends[:, 1], 95))
    room = 0.06 * max(high - low, 1e-9)
    return (float(low - room), float(high + room))


def _effect_row(axes: Any, y: int, hypothesis: Hypothesis, task: str) -> None:
    s = shown(hypothesis.test.separation, task)
    if not math.isfinite(s.estimate):
        return
    colour = POSITIVE if s.estimate >= s.zero else NEGATIVE
    left, right = axes.get_xlim()
    if math.isfinite(s.low) and math.isfinite(s.high):
        axes.plot([max(s.low, left), min(s.high, right)], [y, y], color=colour, linewidth=1.5)
        for beyond, edge, marker in ((s.low < left, left, "<"), (s.high > right, right, ">")):
            if beyond:  # the interval goes on outside the frame
                axes.plot(edge, y, marker, color=colour, clip_on=False)
    face = colour if hypothesis.badge == "confirmed" else "white"
    axes.plot(s.estimate, y, "o", markersize=6, markerfacecolor=face, markeredgecolor=colour, markeredgewidth=1.5)


def _note(sheet: Any, text: str) -> None:
    sheet.suptitle(text, x=0.995, ha="right", fontsize=7.5, color=MUTED)


def _empty(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def _inert(text: str) -> str:
    """Without the characters that mean something to markdown or HTML."""
    return re.sub(r"\s+", " ", re.sub(r"[][()<>{}!`*_\\|$#~&\"]", " ", one_line(text))).strip()
