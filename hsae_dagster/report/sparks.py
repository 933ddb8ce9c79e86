"""The activation histogram of a card: small enough for Dagster to show it beside the claim.

Belongs here: an `ActivationHistogram` as a picture, as bars of a page, and in words. Does not belong here: counting
(`core.histogram`). Dagster shows markdown below 1,000 characters at once and hides the rest behind a link; a few
colours and no letters keep the picture below that.
"""

import io
from dataclasses import dataclass

from hsae_dagster.core.histogram import ActivationHistogram
from hsae_dagster.report.canvas import NEGATIVE, POSITIVE
from hsae_dagster.report.wording import count, number, percent

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
