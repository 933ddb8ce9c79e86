"""Every chart: ink and paper, size limits, deterministic bytes; and a function per chart, from arrays and records."""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.inference.cluster_robust import Effect
from hsae_dagster.core.inference.joint_fit import CONCEPTS, Fit
from hsae_dagster.report.wording import (
    NOT_ESTIMABLE,
    axis_label,
    count,
    effect_brief,
    grouped,
    metric_name,
    number,
    one_line,
    percent,
    plural,
    rung_name,
    short_claim,
    short_outcome,
    shorten,
    shown,
)

POSITIVE, NEGATIVE = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermilion: told apart by every kind of sight
INK, MUTED, FAINT = "#1f2328", "#59636e", "#d5dae0"
MAX_PNG_BYTES = 100_000  # metadata lives in Dagster's event log, which is a database
_MOST_DOTS = 2_500_000
SVG_NAMESPACE, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"

_STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "text.parse_math": False,  # a dollar sign in a text is a dollar sign
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "svg.fonttype": "none",  # letters stay letters: smaller, selectable, and a browser has fonts for every script
    "svg.hashsalt": "hsae_dagster",
}


@dataclass(frozen=True)
class Figure:
    """A finished chart: prefix of its SVG's ids, the chart in words, and the painted `matplotlib.figure.Figure`.

    Each file is written when it is first asked for: metadata takes one, a page the other.
    """

    name: str
    alt: str
    sheet: Any

    @cached_property
    def png(self) -> bytes:
        """For Dagster's metadata; below 100 kB."""
        with _style():
            return _png(self.sheet)

    @cached_property
    def svg(self) -> str:
        """One `<svg>` element to put into an HTML page, ids unique to the chart."""
        with _style():
            return _svg(self.sheet, self.name, self.alt)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change a report
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def draw(name: str, alt: str, size: tuple[float, float], paint: Callable[[Any], None]) -> Figure:
    """Draw one chart of a width and height in inches; charts of one page need different names.

    `alt` is the chart in words, and `paint` draws on the `matplotlib.figure.Figure` that it is given.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    with _style():
        sheet = Sheet(figsize=size, layout="constrained")
        FigureCanvasAgg(sheet)
        paint(sheet)
        sheet.draw_without_rendering()
        # Laid out once. With "none" a stand-in would stay, for whose sake each file is drawn twice.
        sheet.set_layout_engine(None)
    return Figure(name, alt, sheet)


def _png(sheet: Any) -> bytes:
    """PNG as sharp as the limit allows: few colours, then fewer dots."""
    from PIL import Image

    width, height = sheet.get_size_inches()
    for dpi in (144, 110, 84, 64, 48, 32):
        if dpi > 32 and width * height * dpi**2 > _MOST_DOTS:
            continue  # would be thrown away after seconds of work
        raw, packed = io.BytesIO(), io.BytesIO()
        sheet.savefig(raw, format="rgba", dpi=dpi, facecolor="white")
        dots = Image.frombytes("RGBA", (int(width * dpi), int(height * dpi)), raw.getvalue())
        image = dots.convert("RGB").quantize(64, dither=Image.Dither.NONE)
        image.save(packed, format="png", optimize=True)
        if packed.tell() < MAX_PNG_BYTES:
            break
    return packed.getvalue()


def _svg(sheet: Any, name: str, alt: str) -> str:
    """One `<svg>` element without the wrapping of a file, fit to stand beside others on a page."""
    from xml.etree import ElementTree

    raw = io.BytesIO()
    sheet.savefig(raw, format="svg", facecolor="none", metadata={"Date": None, "Creator": None})
    ElementTree.register_namespace("", SVG_NAMESPACE)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(raw.getvalue())
    tag = f"{{{SVG_NAMESPACE}}}"
    for part in root.findall(f"{tag}metadata"):
        root.remove(part)
    for parent in list(root.iter()):
        # matplotlib's `* {...}` would style the page around the chart too.
        for style in parent.findall(f"{tag}style"):
            parent.remove(style)
    for element in root.iter():
        _prefix_ids(element, name)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {
        "stroke-linejoin": "round",
        "role": "img",
        "aria-label": alt,
        "class": "chart",
        "preserveAspectRatio": "xMinYMin meet",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _prefix_ids(element: Any, name: str) -> None:
    for key, value in element.attrib.items():
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
            element.set(key, f"#{name}-{value[1:]}")
        elif "url(#" in value:
            element.set(key, value.replace("url(#", f"url(#{name}-"))


def note(sheet: Any, text: str) -> None:
    """Small print at the top right: n, and how to read the marks."""
    sheet.suptitle(text, x=0.995, ha="right", fontsize=7.5, color=MUTED)


def empty(axes: Any, text: str) -> None:
    """Say why a chart has nothing to show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def inert(text: str) -> str:
    """Without the characters that mean something to markdown or HTML: a description travels inside both."""
    return re.sub(r"\s+", " ", re.sub(r"[][()<>{}!`*_\\|$#~&\"]", " ", one_line(text))).strip()


def forest_plot(
    hypotheses: Sequence[Hypothesis], outcome: str, alpha: float, task: str = "regression", *, narrow: bool = False
) -> Figure:
    """Effect of every hypothesis with its 95 % interval, largest first; hollow when not confirmed.

    Those that could not be estimated come last, without a mark. `narrow`, for a telephone's width, puts labels above
    the marks instead of beside them.
    """
    rows = sorted(hypotheses, key=_by_effect)
    confirmed = sum(h.badge == "confirmed" for h in rows)
    tested = sorted({h.test.n for h in rows})
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
        on = " to ".join(count(n) for n in dict.fromkeys(tested[:1] + tested[-1:]))
        note(sheet, f"{on} held-out observations; {reading}" if rows else "")
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


def sizes_figure(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Fit of the claims (`R2` or `AUC`) on validation clusters by size, with its standard error; the chosen one ringed.

    Rows are those of `StoredCheckpoints.grid`.
    """
    rows = [row for row in rows if row["said"] is not None and math.isfinite(row["said"])]
    name = metric_name(metric)
    taken = [row for row in rows if row["chosen"]]
    said = "".join(f" Chosen: {row['m']}/{row['k']}, {name} {number(row['said'])}." for row in taken)
    alt = f"{len(rows)} autoencoders by size and {name} of their claims.{said}"

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


_SERIES = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
_PANELS = (("explained_variance", "explained variance"), ("l0", "neurons firing (L0)"), ("dead_share", "dead share"))


def training_course(histories: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """Explained variance, L0 and the dead share per epoch of each autoencoder, on validation texts."""
    ends = [
        f"{inert(name)}: {', '.join(f'{words} {number(_value(rows[-1], key))}' for key, words in _PANELS)}"
        for name, rows in histories.items()
        if rows
    ]
    alt = f"Course of training of {plural(len(histories), 'autoencoder')}; at the end {'; '.join(ends) or 'nothing'}."

    def paint(sheet: Any) -> None:
        for axes, (key, words) in zip(sheet.subplots(1, len(_PANELS)), _PANELS, strict=True):
            for k, (name, rows) in enumerate(histories.items()):
                epochs, values = [row["epoch"] for row in rows], [_value(row, key) for row in rows]
                # A single record, as of an imported autoencoder, is no line.
                marker = "o" if len(rows) == 1 else None
                colour = _SERIES[k % len(_SERIES)]
                axes.plot(epochs, values, color=colour, linewidth=1.4, marker=marker, label=shorten(name, 40))
            axes.set_title(words, fontsize=9)
            axes.set_xlabel("epoch")
            axes.set_ylim(bottom=0.0 if key != "explained_variance" else None)
        if histories:
            axes.legend(frameon=False, fontsize=8)

    return draw("course", alt, (7.6, 2.6), paint)


def _value(row: Mapping[str, float | None], key: str) -> float:
    value = row.get(key)
    return math.nan if value is None else float(value)


_MOST_BARS = 60


def fit_ladder(fits: Sequence[Fit], floor: tuple[float, float], metric: str) -> Figure:
    """Joint fit of every set of predictors with its interval, above what shuffled outcomes give.

    One picture in groups: what embeddings know, what the neurons keep, what the claims say, and what is compared.
    """
    metric = metric_name(metric)
    groups = grouped(fits)
    values = {title: [f"{inert(rung_name(f.name))} {number(f.value)}" for f in own] for title, own in groups}
    told = [f"{title}: {', '.join(each)}" for title, each in values.items()]
    alt = f"{metric} on held-out texts. {'; '.join([*told, f'shuffled outcomes {number(floor[0])}'])}."
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
        axes.set_xlabel(f"{metric} on held-out texts, 95 % interval", fontsize=8.5)
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
    """Histogram of the share of texts that activate each neuron (neurons,), on a logarithmic axis; and the mean k/m."""
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
    """Neurons with a coefficient by penalty along the lasso path, and the penalty chosen."""
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


def prevalence_bars(labels: Sequence[str], values: Sequence[float]) -> Figure:
    """Share of texts that each claim holds for, most common first."""
    alt = f"Share of texts that each of {plural(len(labels), 'claim')} holds for."
    finite = [value if math.isfinite(value) else -1.0 for value in values]
    order = sorted(range(len(labels)), key=lambda i: (-finite[i], i))[:_MOST_BARS]
    left_out = len(labels) - len(order)

    def paint(sheet: Any) -> None:
        axes = sheet.subplots()
        for y, i in enumerate(order):
            axes.barh(y, max(finite[i], 0.0), height=0.66, color=POSITIVE)
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(percent(values[i]), (max(finite[i], 0), y), fontsize=8, **place)
        axes.set_yticks(range(len(order)), [short_claim(labels[i]) for i in order])
        axes.set_ylim(max(len(order), 1) - 0.4, -0.6)
        axes.set_xlim(0, max([0.05, *(1.15 * value for value in finite)]))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of texts that the claim holds for", fontsize=8.5)
        note(sheet, f"n = {len(labels)}{f'; {left_out} not shown' if left_out else ''}")

    return draw("prevalence", alt, (6.4, 0.24 * max(len(order), 1) + 1.0), paint)
