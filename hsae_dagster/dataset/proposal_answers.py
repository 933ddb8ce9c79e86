"""How the values of chosen columns are to be read: scales, lists of classes, marks and codes of no value.

Belongs here: the fields of dataset.yaml that say so, with their reasons. Does not belong here: which columns are chosen
(`proposal_roles`), or how values are told (`column_profile`, `scales`).
"""

from collections.abc import Sequence
from typing import Any

import polars as pl

from hsae_dagster.dataset.column_profile import ColumnProfile

# path, value, reason, sure, other choices, active
AnswerField = tuple[str, Any, str, bool, tuple[str, ...], bool]


def answer_fields(label: ColumnProfile, task: str) -> list[AnswerField]:
    """Fields on how the outcome's words become numbers or classes."""
    fields: list[AnswerField] = []
    if label.scale and task == "regression":
        top, below = label.scale[-1], label.scale[-2]
        why = (
            f"Its words have an order: read as 1 to {len(label.scale)}. For one class against the rest instead: --task "
            f"classification --positive {top!r} (or {below!r})."
        )
        fields.append(("columns.scale", list(label.scale), why, False, (f"classification with “{top}” as 1",), True))
    if label.separator is not None and task == "classification":
        why = f"Cells of `{label.name}` list several classes: 1 where the list holds the positive one."
        fields.append(("columns.listed", label.separator, why, False, (), True))
    return fields


def missing_fields(frame: pl.DataFrame, needed: Sequence[ColumnProfile]) -> list[AnswerField]:
    """Which values of the columns that every row needs mean none, and what becomes of rows without one."""
    fields: list[AnswerField] = []
    marks = {mark.lower(): mark for column in needed for mark, _ in column.marks}
    codes = {code for column in needed for code, _ in column.codes}
    if marks or codes:
        said = [f"`{c.name}` is {_counted(c.marks)}" for c in needed if c.marks]
        why = f"{'; '.join(said)}: taken for no value. Leave out what is an answer." if said else ""
        if codes:
            outside = "; ".join(f"`{c.name}` is {_counted(c.codes)}" for c in needed if c.codes)
            why = f"{why} {outside}, far from all other values: a code for no answer? If it is a number, leave it out."
        fields.append(("columns.missing", [*marks.values(), *sorted(codes)], why.strip(), not codes, (), True))
    n = int(frame.select(pl.any_horizontal(*[_empty(c, marks, codes) for c in needed]).sum()).item())
    if n:
        names = ", ".join(f"`{column.name}`" for column in needed)
        why = f"{n:,} of {frame.height:,} rows lack one of {names}; they are left out and counted in the report."
        fields.append(("columns.on_missing", "drop", why, True, (), True))
    return fields


def _empty(column: ColumnProfile, marks: dict[str, str], codes: set[int]) -> pl.Expr:
    """Whether a cell of a column holds nothing, a mark or a code."""
    cell = pl.col(column.name).cast(pl.String).str.strip_chars().str.to_lowercase()
    empty = cell.is_null() | cell.is_in(["", *marks])
    if codes:
        number = pl.col(column.name).cast(pl.Float64, strict=False)
        empty = empty | number.is_in([float(code) for code in codes]).fill_null(False)
    return empty


def _counted(marks: Sequence[tuple[Any, int]]) -> str:
    return ", ".join(f"“{mark}” in {n:,} row{'s' * (n != 1)}" for mark, n in marks)
