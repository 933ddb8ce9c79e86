"""The forest plot: every effect with its interval, the figure that people look at first.

Belongs here: this one chart. Does not belong here: the other charts (`figures`), style and files (`canvas`).
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference import Effect
from hsae_dagster.report.canvas import FAINT, MUTED, NEGATIVE, POSITIVE, Figure, draw, empty, inert, note
from hsae_dagster.report.wording import axis_label, count, effect_brief, plural, short_claim, short_outcome, shown


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
        f"Effects of {plural(len(rows), 'claim')} on {inert(short_outcome(outcome))} with 95 percent intervals, "
        f"sorted from highest to lowest; {confirmed} confirmed."
    )
    known = [_said(h.test.separation, task) for h in rows if math.isfinite(h.test.separation.estimate)]
    if known:
        alt += f" Highest {known[0]}, lowest {known[-1]}."
    step = 0.56 if narrow else 0.26
    size = (3.9 if narrow else 8.2, step * max(len(rows), 1) + (1.25 if narrow else 1.0))

    longest = max((len(effect_brief(h.test.separation, task)) for h in rows), default=0)

    def write(axes: Any, x: float, y: float, text: str, shift: float = 0.0, **style: Any) -> None:
        place = {"xycoords": axes.get_yaxis_transform(), "xytext": (shift, 0), "textcoords": "offset points"}
        axes.annotate(text, (x, y), va="center", **place, **({"fontsize": 8.5} | style))

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        axes.set_ylim(max(len(rows), 1) - 0.3, -0.95 if narrow else -0.7)
        axes.set_xlim(*_effect_limits(rows, task))
        axes.axvline(_zero(task), color=MUTED, linewidth=0.8)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)
        for y, hypothesis in enumerate(rows):
            _effect_row(axes, y, hypothesis, task)
            label = short_claim(hypothesis.claim, 46 if narrow else 52)
            effect, n_with = effect_brief(hypothesis.test.separation, task), f"n {count(hypothesis.test.n_with)}"
            if narrow:
                write(axes, 0, y - 0.62, label, fontsize=9.5)
                write(axes, 0, y - 0.30, f"{effect}, {n_with}", fontsize=8.5, color=MUTED)
            else:
                write(axes, 1, y, effect, shift=8)
                write(axes, 1, y, n_with, shift=8 + 5.7 * longest, color=MUTED)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_yticks([] if narrow else range(len(rows)), [] if narrow else [short_claim(h.claim, 52) for h in rows])
        axes.set_xlabel(axis_label(task, outcome), fontsize=8.5)
        reading = f"n: texts that the claim holds for\nfilled: confirmed (Holm, α = {alpha:g})"
        note(sheet, f"{count(n)} held-out observations; {reading}")
        if not rows:
            empty(axes, "no claim was tested")

    return draw("forest-narrow" if narrow else "forest", alt, size, paint)


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
    estimates = np.array([s.estimate for s in effects])
    ends = np.array([[s.low, s.high] for s in effects])
    ends = np.where(np.isfinite(ends), ends, estimates[:, None])
    reach = max(2 * np.abs(estimates - zero).max(), 1.5 * float(np.median(ends[:, 1] - ends[:, 0])))
    low = min(zero, max(ends[:, 0].min(), zero - reach))
    high = max(zero, min(ends[:, 1].max(), zero + reach))
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


def _said(effect: Effect, task: str) -> str:
    return re.sub(r"\[(.*), (.*)\]", r"from \1 to \2", effect_brief(effect, task))
