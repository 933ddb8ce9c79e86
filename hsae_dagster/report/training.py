"""The course of an autoencoder's training beside its loss: what it explains, how many neurons fire, how many are dead.

Belongs here: that one chart. Does not belong here: the loss (`figures.loss_curves`) or the training itself (core).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hsae_dagster.report.canvas import NEGATIVE, POSITIVE, Figure, draw, inert
from hsae_dagster.report.wording import number, plural, shorten

_SERIES = (POSITIVE, NEGATIVE, "#009E73", "#CC79A7", "#8a6d00", "#56B4E9")
_PANELS = (("explained_variance", "explained variance"), ("l0", "neurons firing (L0)"), ("dead_share", "dead share"))


def training_course(histories: Mapping[str, Sequence[Mapping[str, float | None]]]) -> Figure:
    """Explained variance, L0 and the dead share per epoch of each autoencoder, on validation texts.

    Args:
        histories: by name, the epochs' records as the checkpoint keeps them.
    """
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
