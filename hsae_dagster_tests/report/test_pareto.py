"""The chart of the grid of autoencoders."""

import pytest

from hsae_dagster.report.pareto import grid_figure, pareto_front


def row(m: int, weight: float, nmse: float, score: float | None, chosen: bool = False) -> dict:
    return {"m": m, "k": m // 4, "label_weight": weight, "nmse": nmse, "score": score, "chosen": chosen}


def test_the_front_holds_what_nothing_beats() -> None:
    points = [(0.6, 0.2), (0.7, 0.3), (0.65, 0.1), (0.8, 0.3), (0.5, 0.1)]
    assert pareto_front(points) == [(0.5, 0.1), (0.6, 0.2), (0.7, 0.3)]


def test_the_chart_says_what_was_chosen() -> None:
    figure = grid_figure([row(24, 0.1, 0.7, 0.41, chosen=True), row(64, 0.0, 0.6, 0.3)], "R2")
    assert figure.png.startswith(b"\x89PNG")
    assert figure.alt.startswith("2 autoencoders")
    assert "Chosen: 24/6, label weight 0.1, R² 0.41" in figure.alt
    apart = grid_figure([{**row(24, 0.1, 0.7, 0.41, chosen=True), "distinct_weight": 1.0}], "R2")
    assert "Chosen: 24/6, label weight 0.1, neurons kept apart, R² 0.41" in apart.alt


@pytest.mark.parametrize("rows", [[], [row(24, 0.0, 0.7, None)], [row(24, 0.0, 0.7, float("nan"))]])
def test_nothing_judged_is_drawn_too(rows: list[dict]) -> None:
    assert grid_figure(rows, "AUC").alt.startswith("0 autoencoders")
