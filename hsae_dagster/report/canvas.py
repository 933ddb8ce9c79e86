"""Ink and paper for every chart: style, size limits, deterministic bytes.

Belongs here: how a drawing becomes PNG and SVG, and the colours. Does not belong here: what is drawn (`figures`).
"""

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hsae_dagster.report.wording import one_line

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
    """A finished chart.

    Attributes:
        png: for Dagster's metadata; below 100 kB.
        svg: one `<svg>` element to put into an HTML page, ids unique to the chart.
        alt: the chart in words.
    """

    png: bytes
    svg: str
    alt: str


def draw(name: str, alt: str, size: tuple[float, float], paint: Callable[[Any], None]) -> Figure:
    """Draw one chart.

    Args:
        name: prefix of the SVG's ids; charts of one page need different names.
        alt: the chart in words.
        size: width and height in inches.
        paint: draws on the `matplotlib.figure.Figure` it is given.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Sheet

    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()  # a user's own matplotlibrc must not change a report
        matplotlib.rcParams.update(_STYLE)
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        sheet = Sheet(figsize=size, layout="constrained")
        FigureCanvasAgg(sheet)
        paint(sheet)
        sheet.draw_without_rendering()
        sheet.set_layout_engine("none")  # laid out once, not again for each file
        return Figure(png=_png(sheet), svg=_svg(sheet, name, alt), alt=alt)


def _png(sheet: Any) -> bytes:
    """PNG as sharp as the limit allows: few colours, then fewer dots."""
    from PIL import Image

    width, height = sheet.get_size_inches()
    for dpi in (144, 110, 84, 64, 48, 32):
        if dpi > 32 and width * height * dpi**2 > _MOST_DOTS:
            continue  # would be thrown away after seconds of work
        raw, packed = io.BytesIO(), io.BytesIO()
        sheet.savefig(raw, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        image = Image.open(raw).convert("RGB").quantize(64, dither=Image.Dither.NONE)
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
