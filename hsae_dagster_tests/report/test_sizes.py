"""The chart of the raced sizes."""

from typing import Any

import pytest

from hsae_dagster.report.figures import sizes_figure


def row(m: int, said: float | None, agreement: float | None = None, chosen: bool = False) -> dict[str, Any]:
    return {"m": m, "k": 4, "said": said, "standard_error": 0.01, "agreement": agreement, "chosen": chosen}


def test_the_chart_says_what_was_chosen() -> None:
    figure = sizes_figure([row(64, 0.41, 0.8, chosen=True), row(128, 0.42, 0.5), row(256, 0.3)], "R2")
    assert figure.png.startswith(b"\x89PNG")
    assert figure.alt == ("3 autoencoders by size and R² of their claims. Chosen: 64/4, R² 0.41.")


@pytest.mark.parametrize("rows", [[], [row(64, None, chosen=True)], [row(64, float("nan"))]])
def test_nothing_judged_is_drawn_too(rows: list[dict[str, Any]]) -> None:
    assert sizes_figure(rows, "AUC").alt.startswith("0 autoencoders")
