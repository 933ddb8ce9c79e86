"""The tables of a report, for people who compute on: as Parquet and as CSV.

Belongs here: which tables there are beside the hypotheses and fits, and how a table becomes CSV. Does not belong here:
where the files go.
"""

import io
import json
from collections.abc import Sequence

import polars as pl

from hsae_dagster.report.content import ReportContent
from hsae_dagster.report.settings import flat_settings
from hsae_dagster.report.subgroups import SUBGROUP_SCHEMA, subgroup_records

# A spreadsheet runs a cell that begins so (https://owasp.org/www-community/attacks/CSV_Injection).
_FORMULA = r"^([=+\-@\t\r])"


def report_tables(content: ReportContent) -> dict[str, pl.DataFrame]:
    """Every table of the page that is no figure's: by name."""
    text = pl.String
    evidence = [
        (h.hypothesis_id, role, place, e.text_id, e.outcome, e.activation, list(e.because), e.unit, e.text)
        for h in content.hypotheses
        for role, examples in (
            ("for", h.evidence.supporting),
            ("near miss", h.evidence.near_misses),
            ("against", h.evidence.counterexamples),
        )
        for place, e in enumerate(examples, 1)
    ]
    splits = [(s.split, s.observations, s.texts, s.clusters) for s in content.splits]
    return {
        "evidence": _frame(
            evidence,
            {
                "hypothesis_id": text,
                "role": text,
                "place": pl.Int64,
                "text_id": text,
                "outcome": pl.Float64,
                "activation": pl.Float64,
                "because": pl.List(text),
                "unit": text,
                "text": text,
            },
        ),
        "splits": _frame(splits, {"split": text, "observations": pl.Int64, "texts": pl.Int64, "clusters": pl.Int64}),
        "rows_left_out": _frame(list(content.dropped.items()), {"reason": text, "rows": pl.Int64}),
        "unreadable_neurons": _frame(
            list(content.unreadable), {"rank": pl.Int64, "sae_id": text, "sae_column": pl.Int64, "reason": text}
        ),
        "subgroups": _frame(subgroup_records(content), SUBGROUP_SCHEMA),
        "settings": _frame(list(flat_settings(content.settings)), {"setting": text, "value": text}),
        "versions": _frame(list(content.versions.items()), {"asset": text, "data_version": text}),
    }


def csv_bytes(frame: pl.DataFrame) -> bytes:
    """CSV in UTF-8 that a spreadsheet shows and does not run: a text that looks like a formula gets an apostrophe.

    Lists become their JSON; missing values are empty. The Parquet beside it holds everything as it is.
    """
    columns = []
    for name, kind in frame.schema.items():
        column = frame[name]
        if kind.is_nested():
            column = pl.Series(name, [json.dumps(value, ensure_ascii=False) for value in column.to_list()], pl.String)
            kind = pl.String()
        columns.append(column.str.replace(_FORMULA, "'${1}") if kind == pl.String else column)
    packed = io.BytesIO()
    pl.DataFrame(columns).write_csv(packed)
    return packed.getvalue()


def _frame(rows: Sequence[tuple[object, ...]], schema: dict[str, pl.DataType | type[pl.DataType]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")
