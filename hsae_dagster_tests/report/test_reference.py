"""The table of HypotheSAEs on the page and as a file: its figures under its names, never mistaken for the verdicts."""

import math

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.reference_table import ReferenceTable, reference_table
from hsae_dagster.report.content import ReferenceEvaluation, ReportContent
from hsae_dagster.report.page import render_report
from hsae_dagster.report.reference import REFERENCE_SCHEMA, reference_summary, reference_view
from hsae_dagster.report.tables import report_tables
from hsae_dagster_tests.report.make_content import make_content, make_hypotheses
from hsae_dagster_tests.report.test_page import EVIL, Page


def made(task: str = "regression", **changes: object) -> tuple[ReportContent, ReferenceTable]:
    """A report of six hypotheses and their table; the third concept is true of every observation."""
    rng = np.random.default_rng(0)
    concepts = (rng.random((400, 6)) < 0.3).astype(float)
    concepts[:, 2] = 1.0
    signal = concepts[:, 0] - concepts[:, 1] + rng.standard_normal(400)
    table = reference_table(concepts, signal if task == "regression" else (signal > 0).astype(float), task)
    hypotheses = make_hypotheses(6, task)
    keys = tuple(h.hypothesis_id for h in hypotheses)
    content = make_content(task, hypotheses, reference=ReferenceEvaluation(keys, table), **changes)
    return content, table


@pytest.mark.parametrize("task", ["regression", "classification"])
def test_the_page_has_every_column_and_metric_by_the_references_name(task: str) -> None:
    content, table = made(task)
    page = render_report(content)
    text = " ".join(Page(page).text)
    for column in ("separation_score", "regression_pval", "feature_prevalence", "f1", "legacy_f1"):
        assert column in text
    view = reference_view(content)
    assert view is not None
    assert [key for key, *_ in view.rows] == [content.hypotheses[place].hypothesis_id for place in table.ranking]
    assert f"{table.significant} of 6 have" in text
    assert f"R² {table.r2:.3f}" in text
    assert ("average precision" in text) == (task == "classification")
    assert "nan" not in text.lower().replace("finance", "")
    # The constant concept keeps its row.
    (constant,) = [figures for key, _, figures in view.rows if key == content.hypotheses[2].hypothesis_id]
    assert constant[:5] == ("not estimable",) * 4 + ("100 %",)


def test_the_stored_table_has_the_figures_in_the_references_order() -> None:
    content, table = made()
    frame = report_tables(content)["reference_table"]
    assert frame.schema == pl.Schema(REFERENCE_SCHEMA)
    rows = [table.rows[place] for place in table.ranking]
    for name in ("separation_score", "separation_pval", "regression_coef", "regression_pval", "feature_prevalence"):
        np.testing.assert_array_equal(frame[name].to_numpy(), [getattr(row, name) for row in rows])
    assert frame["legacy_f1"].to_list() == [0.87] * 6


def test_the_summary_is_json_without_nan() -> None:
    summary = reference_summary(made()[0])
    assert summary["estimator"] == "least squares"
    assert summary["hypotheses"] == 6
    assert "auroc" not in summary
    assert all(math.isfinite(value) for value in summary.values() if isinstance(value, float))


def test_a_table_that_cannot_be_made_says_why_and_one_not_made_says_nothing() -> None:
    content = make_content(
        reference=ReferenceEvaluation((), None, "12 complete observations cannot carry 20 concepts.")
    )
    assert "It could not be made: 12 complete observations" in render_report(content)
    assert reference_summary(content) == {"reason": "12 complete observations cannot carry 20 concepts."}
    assert report_tables(content)["reference_table"].is_empty()
    assert "As HypotheSAEs would print it" not in render_report(make_content())


def test_claims_in_the_table_are_escaped() -> None:
    content, _ = made()
    from dataclasses import replace

    hypotheses = tuple(replace(h, claim=EVIL) for h in content.hypotheses)
    page = Page(render_report(replace(content, hypotheses=hypotheses)))
    assert not page.named("script")
    assert not page.named("img")


def test_published_figures_are_marked_and_only_there_where_declared() -> None:
    assert not any("Published" in note for note in reference_view(made()[0]).notes)  # type: ignore[union-attr]
    quoted = reference_view(made(settings={"published": "AUC 0.695,\n14 of 20."})[0])
    assert quoted is not None
    assert quoted.notes[-1] == "Published, not measured here: AUC 0.695, 14 of 20."
    assert quoted.rows
