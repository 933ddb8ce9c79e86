"""The course of training: every quantity of the history is in the chart, and in words beside it."""

import math
import warnings
from xml.etree import ElementTree

import pytest

from hsae_dagster.report.figures import MAX_PNG_BYTES, training_course


def history(epochs: int) -> list[dict[str, float | None]]:
    return [
        {"epoch": n, "explained_variance": 1 - 1 / n, "l0": 8.0, "dead_share": 0.5 / n} for n in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("histories", [{}, {"64/16": history(200)}, {"256/8": history(9), "32/4": history(1)}])
def test_all_three_quantities_are_drawn(histories: dict[str, list[dict[str, float | None]]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = training_course(histories)
    text = "".join(ElementTree.fromstring(figure.svg).itertext())
    for words in ("explained variance", "neurons firing (L0)", "dead share"):
        assert words in text
    for name in histories:
        assert name in text
    assert len(figure.png) < MAX_PNG_BYTES


def test_the_description_has_the_last_figures_and_no_markup() -> None:
    alt = training_course({"a [b](c) | 2": history(10)}).alt
    assert "explained variance 0.90, neurons firing (L0) 8.00, dead share 0.05" in alt.replace("\\", "")
    assert not set(alt) & set("[]<>`!|$\\")


def test_gaps_and_values_that_are_not_finite_are_gaps() -> None:
    rows = [*history(3), {"epoch": 4, "explained_variance": None, "l0": math.nan}]
    assert "not estimable" in training_course({"a": rows}).alt
