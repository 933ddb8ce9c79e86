import io
import math
import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.report import figures
from hsae_dagster.report.figures import MAX_PNG_BYTES, NEGATIVE, POSITIVE
from hsae_dagster_tests.report.make_content import make_effect, make_fits, make_hypotheses, make_hypothesis

EVIL = "![x](javascript:y) <script>alert(1)</script> $\\frac{1}{ 日本 🙂 | `q` \x00\x1b \ud800"


def history(n):
    return [{"epoch": k, "train_loss": 1 / (k + 1), "validation_loss": 1.1 / (k + 1)} for k in range(n)]


CHARTS = {
    "forest": lambda text: figures.forest_plot(make_hypotheses(7), text, 0.05),
    "forest of pairs": lambda text: figures.forest_plot(
        [make_hypothesis(k, task="pairwise", claim=text) for k in range(3)], text, 0.05, "pairwise", narrow=True
    ),
    "forest of classes": lambda text: figures.forest_plot([make_hypothesis(claim=text)], text, 0.05, "classification"),
    "ladder": lambda text: figures.fit_ladder(
        [*make_fits(), Fit(text, "R2", *[math.nan] * 3, "trained")], (0.0, 0.01), "R2"
    ),
    "labels": lambda text: figures.label_histogram(np.linspace(-4, 4, 99), "regression", text),
    "classes": lambda text: figures.label_histogram(np.array([0.0, 1.0, 1.0]), "classification", text),
    "loss": lambda text: figures.loss_curves({text: history(9), "b": []}),
    "firing": lambda text: figures.firing_rates(np.array([0.0, 0.01, 0.2, 0.5, 1.0]), 0.25),
    "path": lambda text: figures.selection_path([(0.1, 0), (0.05, 3), (0.01, 9)], 0.05),
    "prevalence": lambda text: figures.prevalence_bars([text, "b"], [0.2, math.nan]),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_any_text_is_drawn_as_it_stands_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = CHARTS[name](EVIL)
    root = ElementTree.fromstring(figure.svg)
    assert root.tag.endswith("svg") and root.get("role") == "img" and root.get("aria-label") == figure.alt
    assert "<script" not in figure.svg
    assert not set(figure.alt) & set("[]<>`!|$\\"), "a description must be inert inside markdown"
    assert "nan" not in figure.alt.split()


def files(figure):
    return figure.png, figure.svg, figure.alt


@pytest.mark.parametrize("name", ["forest", "prevalence", "firing"])
def test_the_same_input_gives_the_same_bytes(name):
    first, second = CHARTS[name]("outcome"), CHARTS[name]("outcome")
    assert files(first) == files(second)
    assert CHARTS[name]("outcome").svg == first.svg, "whichever file is written first"
    assert not re.search(r"20\d\d-\d\d-\d\d", first.svg)


def test_a_chart_does_not_depend_on_the_callers_style():
    import matplotlib

    plain = files(CHARTS["prevalence"]("outcome"))
    with matplotlib.rc_context({"font.size": 30, "text.usetex": False, "savefig.dpi": 500, "svg.fonttype": "path"}):
        assert files(CHARTS["prevalence"]("outcome")) == plain
        assert matplotlib.rcParams["font.size"] == 30


def test_a_chart_is_drawn_once_to_be_laid_out_and_once_for_each_file_that_is_asked_for(monkeypatch):
    from matplotlib.figure import Figure as Sheet

    drawn, draw = [], Sheet.draw
    monkeypatch.setattr(Sheet, "draw", lambda sheet, renderer: drawn.append(sheet) or draw(sheet, renderer))
    chart = CHARTS["prevalence"]("outcome")
    assert len(drawn) == 1
    assert chart.svg is chart.svg
    assert len(drawn) == 2
    assert chart.png is chart.png
    assert len(drawn) == 3


def test_pngs_stay_small_with_many_hypotheses():
    rng = np.random.default_rng(0)
    many = [make_hypothesis(k, effect=make_effect(float(rng.normal()), 0.3)) for k in range(100)]
    figure = figures.forest_plot(many, "rating", 0.05)
    assert len(figure.png) < MAX_PNG_BYTES
    assert Image.open(io.BytesIO(figure.png)).width > 200


def test_forest_rows_run_from_highest_to_lowest_and_show_what_is_confirmed():
    rows = [
        make_hypothesis(0, claim="low", effect=make_effect(-1, 0.2)),
        make_hypothesis(1, claim="absent", effect=NO_EFFECT_ESTIMATED, badge="invalid"),
        make_hypothesis(2, claim="high", effect=make_effect(1, 0.2)),
        make_hypothesis(3, claim="middle", effect=make_effect(0.1, 0.2), badge="suggestive"),
    ]
    figure = figures.forest_plot(rows, "rating", 0.05)
    texts = re.findall(r">([^<>]+)</text>", figure.svg)
    assert [text for text in texts if text in {"low", "absent", "high", "middle"}] == [
        "high",
        "middle",
        "low",
        "absent",
    ]
    assert "+1.00 [0.80, 1.20]" in texts and "not estimable" in texts and "n 402" in texts
    assert figure.svg.lower().count(f"fill: {POSITIVE.lower()}; stroke: {POSITIVE.lower()}") == 1  # one filled dot
    assert f"fill: {NEGATIVE.lower()}" in figure.svg.lower()
    assert figure.alt.startswith("Effects of 4 claims on rating") and "2 confirmed" in figure.alt


def test_pairs_are_drawn_around_one_half():
    figure = figures.forest_plot([make_hypothesis(effect=make_effect(0.08, 0.04))], "y", 0.05, "pairwise")
    assert "58 % [54, 62]" in figure.svg and "pairs won" in figure.svg


def test_empty_inputs_are_drawn_and_say_so():
    assert "no claim was tested" in figures.forest_plot([], "y", 0.05).svg
    assert "no fit was measured" in figures.fit_ladder([], (math.nan, math.nan), "AUC").svg
    for figure in (
        figures.label_histogram(np.array([]), "regression", "y"),
        figures.label_histogram(np.array([]), "pairwise", "y"),
        figures.loss_curves({}),
        figures.firing_rates(np.array([]), 0.0),
        figures.selection_path([], None),
        figures.prevalence_bars([], []),
    ):
        assert figure.png.startswith(b"\x89PNG")


def test_ids_of_two_charts_never_meet():
    charts = [
        CHARTS["forest"]("y"),
        figures.forest_plot(make_hypotheses(3), "y", 0.05, narrow=True),
        CHARTS["ladder"]("y"),
    ]
    ids = [set(re.findall(r' id="([^"]+)"', chart.svg)) for chart in charts]
    assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2])
    for chart, own in zip(charts, ids, strict=True):
        used = set(re.findall(r'(?:href="|url\()#([^")]+)', chart.svg))
        assert used <= own


def test_the_ladder_is_one_picture_in_three_groups_and_a_comparison():
    figure = figures.fit_ladder(make_fits(), (0.0, 0.01), "R2")
    texts = re.findall(r">([^<>]+)</text>", figure.svg)
    titles = ["What embeddings know", "What the neurons keep", "What the claims say", "For comparison"]
    assert [text for text in texts if text in titles] == titles
    shown = [text for text in texts if text in {"claims", "plain words (TF-IDF)", "selected, active or not"}]
    assert shown == ["selected, active or not", "claims", "plain words (TF-IDF)"]
    assert "What the claims say: claims 0.17; For comparison: plain words TF-IDF 0.40" in figure.alt
    assert figure.svg.lower().count(f"fill: {POSITIVE.lower()}") == 1, "the claims stand out"
