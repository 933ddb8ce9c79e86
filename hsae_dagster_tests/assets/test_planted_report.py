"""The report of a real run (`planted` as declared): what lets a reader judge it is there, with this run's figures."""

import html
import math
import re

import polars as pl
import pytest

from hsae_dagster.core.inference.cluster_robust import Effect
from hsae_dagster.report.wording import WORDS, effect_brief, number, p_value, percent, rung_name
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.objects import StoredObject
from hsae_dagster_tests.assets.workspace import Workspace

pytestmark = pytest.mark.slow


def words_of(markup: str) -> str:
    """What one reads: without tags, spaces of any kind alike."""
    body = re.sub(r"<(style|svg).*?</\1>", " ", markup, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


@pytest.fixture(scope="module")
def page(planted: Workspace) -> str:
    return (planted.project.results / "reports" / "planted.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def report(planted: Workspace) -> StoredObject:
    return planted.current("planted", "evaluation_report")


def cards_of(page: str) -> list[str]:
    return re.findall(r'<article class="card.*?</article>', page, flags=re.DOTALL)


def hypotheses_of(report: StoredObject) -> list[dict[str, object]]:
    return list(read_frame(report.file("hypotheses.parquet")).iter_rows(named=True))


def test_every_card_has_its_badge_its_rule_its_interval_and_its_stability(page: str, report: StoredObject) -> None:
    cards, rows = cards_of(page), hypotheses_of(report)
    assert len(cards) == len(rows) >= 5
    for card, row in zip(cards, rows, strict=True):
        read = words_of(card)
        assert f"{WORDS['badges'][row['badge']]['sign']} {row['badge']}" in read
        assert str(row["reason"])[1:] in read
        names = ("estimate", "standard_error", "low", "high", "p_value", "estimator", "degrees_of_freedom")
        effect = Effect(*(row[f"effect_{name}"] for name in names))
        assert re.search(rf"{re.escape(number(effect.low, 2))}|{re.escape(number(effect.high, 2))}", read)
        assert effect_brief(effect, "regression") in words_of(page)
        if row["stability"] is not None and math.isfinite(row["stability"]):
            assert f"in {percent(row['stability'])} of random halves of the training clusters" in read
        assert p_value(row["p_holm"]) in read
        assert "with 80 % probability" in read, "the smallest effect it could find"


def test_badges_are_counted_as_they_were_given(page: str, report: StoredObject) -> None:
    counts = pl.Series([row["badge"] for row in hypotheses_of(report)]).value_counts().rows()
    summary = words_of(page.split('id="summary"')[1].split("</ul>")[0])
    for badge, n in counts:
        sign = re.escape(WORDS["badges"][badge]["sign"])
        assert re.search(rf"\b{n} {sign} {badge}", summary), (badge, n, summary)


def test_ceiling_and_floor_stand_beside_the_fit_of_the_concepts(page: str, report: StoredObject) -> None:
    fits = {row["name"]: row for row in read_frame(report.file("fits.parquet")).iter_rows(named=True)}
    ceiling, concepts = fits["embeddings (ceiling)"], fits["concepts"]
    floor = report.json("evaluation.json")["floor"]
    read = words_of(page.split('<section id="fit"')[1].split("</section>")[0])
    for fit in (ceiling, concepts):
        shown = f"{rung_name(str(fit['name']))} {number(fit['value'])} [{number(fit['low'])}, {number(fit['high'])}]"
        assert shown in read
    assert f"shuffled outcomes (floor) {number(floor[0])} 95 % below {number(floor[1])}" in read
    assert floor[1] < min(concepts["value"], ceiling["value"]), "planted effects are no chance"


def test_negative_controls_and_the_look_are_told_with_their_numbers(page: str, report: StoredObject) -> None:
    summary = report.json("evaluation.json")
    threats = words_of(page.split('<section id="threats"')[1].split("</section>")[0])
    assert summary["look"] == 1
    assert "This is the first look at these held-out texts that the results folder records." in threats
    assert "The plan" in threats
    assert summary["plan"] in threats
    assert {control["name"] for control in summary["negative_controls"]} == {
        "permuted labels",
        "permuted labels, own concepts",
        "random neurons",
    }
    for control in summary["negative_controls"]:
        assert control["tested"] > 0
        if control["name"] == "random neurons":
            assert f"Of {control['tested']} neurons drawn at random" in threats
            assert f"{control['discoveries']} would be confirmed" in threats
        else:
            false = "1 false confirmation" if control["discoveries"] == 1 else None
            told = false or f"{control['discoveries']} false confirmations"
            assert (
                f"{told} among {control['tested']} tests ({control['runs_with_any']} of {control['runs']} " in threats
            )
