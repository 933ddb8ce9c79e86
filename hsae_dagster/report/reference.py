"""The evaluation table of HypotheSAEs as a report shows and stores it.

Belongs here: its columns under their own names, its joint metrics, and what to bear in mind when reading them. Does not
belong here: the figures (`core.reference_table`).
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from hsae_dagster.core.hypothesis import Hypothesis
from hsae_dagster.core.reference_table import ReferenceRow, ReferenceTable
from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.wording import count, number, one_line, p_value, percent

REFERENCE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "hypothesis_id": pl.String,
    "hypothesis": pl.String,
    "separation_score": pl.Float64,
    "separation_pval": pl.Float64,
    "regression_coef": pl.Float64,
    "regression_pval": pl.Float64,
    "feature_prevalence": pl.Float64,
    "vif": pl.Float64,
    "f1": pl.Float64,
    "legacy_f1": pl.Float64,
    "flags": pl.String,
}
_METRICS = {"r2": "R²", "auroc": "AUC", "auprc": "average precision"}


@dataclass(frozen=True)
class ReferenceView:
    """The folded table of the page: (hypothesis id, claim, figures in words) per row; sentences about all of them."""

    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    notes: tuple[str, ...]


def reference_records(content: ReportContent) -> list[tuple[object, ...]]:
    """Rows of `REFERENCE_SCHEMA`, in the reference's order: by falling separation score."""
    return [
        (
            h.hypothesis_id,
            h.claim,
            *(getattr(row, name) for name in list(REFERENCE_SCHEMA)[2:8]),
            h.fidelity.f1,
            h.fidelity.legacy_f1,
            "; ".join(row.flags),
        )
        for h, row in _ranked(content)
    ]


def reference_summary(content: ReportContent) -> dict[str, Any]:
    """Its joint metrics by their own names, JSON-like; only the reason where there is no table."""
    made = content.reference
    if made is None or made.table is None:
        return {"reason": made.reason if made else "not made"}
    figures = {name: value for name, value in asdict(made.table).items() if name not in ("rows", "notes")}
    kept = {name: value for name, value in figures.items() if not isinstance(value, float) or math.isfinite(value)}
    return kept | {"hypotheses": len(made.table.rows), "notes": list(made.table.notes)}


def reference_view(content: ReportContent) -> ReferenceView | None:
    """What the page shows; None where the comparison was not made."""
    made = content.reference
    if made is None:
        return None
    if made.table is None:
        return ReferenceView((), (f"It could not be made: {made.reason}", *_published(content)))
    notes = (*_notes(made.table), *_published(content))
    return ReferenceView(tuple(_row(h, row) for h, row in _ranked(content)), notes)


def _published(content: ReportContent) -> Iterator[str]:
    """What others printed for these texts, as dataset.yaml quotes it; never mixed with what was measured."""
    quoted = content.settings.get("published")
    if quoted:
        yield f"Published, not measured here: {one_line(quoted)}"


def _ranked(content: ReportContent) -> Iterator[tuple[Hypothesis, ReferenceRow]]:
    made = content.reference
    if made is None or made.table is None:
        return
    by_id = {h.hypothesis_id: h for h in content.hypotheses}
    for place in made.table.ranking:
        yield by_id[made.hypothesis_ids[place]], made.table.rows[place]


def _row(h: Hypothesis, row: ReferenceRow) -> tuple[str, str, tuple[str, ...]]:
    figures = (
        number(row.separation_score, 3, signed=True),
        p_value(row.separation_pval),
        number(row.regression_coef, 3, signed=True),
        p_value(row.regression_pval),
        percent(row.feature_prevalence),
        number(h.fidelity.f1),
        number(h.fidelity.legacy_f1),
    )
    return h.hypothesis_id, h.claim, figures


def _notes(table: ReferenceTable) -> Iterator[str]:
    figures = ((word, getattr(table, name)) for name, word in _METRICS.items())
    shown = ", ".join(f"{word} {number(value, 3)}" for word, value in figures if math.isfinite(value))
    yield (
        f"All hypotheses together, by {table.estimator} on {count(table.n)} held-out observations: {shown}. These are "
        "fitted and scored on the same observations, so they flatter."
    )
    yield (
        f"{table.significant} of {len(table.rows)} have a regression p-value below {table.threshold:.2g} (Bonferroni). "
        "None of these p-values allows for clusters, controls or earlier looks; the verdicts of this report rest on "
        "others."
    )
    for note in table.notes:
        yield f"{note[:1].upper()}{note[1:]}."
