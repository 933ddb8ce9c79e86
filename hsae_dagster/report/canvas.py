"""Ink and paper for every chart: style, size limits, deterministic bytes; small charts."""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hsae_dagster.core.hypothesis import ActivationHistogram
from hsae_dagster.report.wording import count, number, one_line, percent

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
    """A finished chart. Each file is written when it is first asked for: metadata takes one, a page the other.

    Attributes:
        name: prefix of the SVG's ids.
        alt: the chart in words.
        sheet: the `matplotlib.figure.Figure`, painted and laid out.
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
    """Draw one chart.

    Args:
        name: prefix of the SVG's ids; charts of one page need different names.
        alt: the chart in words.
        size: width and height in inches.
        paint: draws on the `matplotlib.figure.Figure` it is given.
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


_WIDTH, _HEIGHT, _BAR = 264, 48, 11
_PALETTE = ("#ffffff", POSITIVE, "#9fb4c7", NEGATIVE)


@dataclass(frozen=True)
class Bar:
    """One bar in percent of the picture: from the left, how wide, and how high its two parts are."""

    left: float
    width: float
    having: float
    lacking: float


def histogram_bars(histogram: ActivationHistogram) -> tuple[tuple[Bar, ...], float | None]:
    """Bars, texts that the claim holds for at the bottom; and where strong activation begins, in percent."""
    bins = len(histogram.having)
    tallest = max((a + b for a, b in zip(histogram.having, histogram.lacking, strict=True)), default=0)
    if not tallest:
        return (), None
    width = 100 / bins
    bars = tuple(
        Bar(round(j * width, 2), round(width, 2), round(100 * a / tallest, 2), round(100 * b / tallest, 2))
        for j, (a, b) in enumerate(zip(histogram.having, histogram.lacking, strict=True))
    )
    strong, top = histogram.strong, histogram.edges[-1]
    return bars, round(100 * strong / top, 2) if strong is not None and 0 < strong < top else None


def histogram_png(histogram: ActivationHistogram) -> bytes:
    """The same as a PNG of some 300 bytes."""
    from PIL import Image, ImageDraw

    sheet = Image.new("P", (_WIDTH, _HEIGHT + 1), 0)
    sheet.putpalette([int(colour[i : i + 2], 16) for colour in _PALETTE for i in (1, 3, 5)])
    pen = ImageDraw.Draw(sheet)
    bars, strong = histogram_bars(histogram)
    for j, bar in enumerate(bars):
        left = j * _BAR
        having, lacking = (round(part * _HEIGHT / 100) for part in (bar.having, bar.lacking))
        if bar.having + bar.lacking and not having + lacking:
            lacking = 1  # a text that is there is seen
        pen.rectangle((left, _HEIGHT - having - lacking, left + _BAR - 3, _HEIGHT), fill=2)
        if having:
            pen.rectangle((left, _HEIGHT - having, left + _BAR - 3, _HEIGHT), fill=1)
    if strong is not None:
        x = round(strong * _WIDTH / 100)
        pen.line((x, 0, x, _HEIGHT), fill=3, width=1)
    pen.line((0, _HEIGHT, _WIDTH, _HEIGHT), fill=2)
    packed = io.BytesIO()
    sheet.save(packed, format="PNG", optimize=True, bits=2)
    return packed.getvalue()


def histogram_words(histogram: ActivationHistogram) -> str:
    """What the picture shows, and what it cannot show."""
    if not histogram.firing:
        return f"None of the {count(histogram.texts)} judged texts activates it."
    words = (
        f"{count(histogram.firing)} of {count(histogram.texts)} judged texts activate it "
        f"({percent(histogram.firing / histogram.texts)}), most weakly at the left and with "
        f"{number(histogram.edges[-1])} at the right; blue: the claim holds"
    )
    having = sum(histogram.having)
    words += f" ({percent(having / histogram.firing)})"
    if histogram.strong is not None and histogram.strong < histogram.edges[-1]:
        words += f"; the line: from here on, {number(histogram.strong)}, activation counts as strong"
    return f"{words}. It also holds for {_silent(histogram)} of the texts that do not activate it."


def _silent(histogram: ActivationHistogram) -> str:
    silent = histogram.silent_having + histogram.silent_lacking
    return percent(histogram.silent_having / silent) if silent else "none"
