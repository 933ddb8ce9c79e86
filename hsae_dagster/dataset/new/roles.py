"""Which column plays which role, by the look of its values and by its name; clusters."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from hsae_dagster.core.observations import folded_keys
from hsae_dagster.dataset.new.columns import MISSING_MARKS, WHEN, WORDS, ColumnProfile, words_of
from hsae_dagster.dataset.rows import settles
from hsae_dagster.errors import DatasetError

# Words in names of columns, by the role that they hint at.
NAMES: dict[str, frozenset[str]] = {role: frozenset(words.split()) for role, words in WORDS["names"].items()}
SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("x", "y"))
# What says that the outcome is there and nothing more.
ANSWERED = ("1", "1.0", "true", "yes", "y", "t", "ja", "oui", "si", "sí")
DENIED = ("0", "0.0", "false", "no", "n", "f", "nein", "non")
YES = (*ANSWERED, "positive", "pos", "win", "won", "good", "spam", "accepted", "pass")
TWO_ANSWERS = ({"0", "1"}, {"0.0", "1.0"}, {"false", "true"}, {"no", "yes"}, {"n", "y"}, {"ja", "nein"})
FEWEST_CLUSTERS = 30
# A row without its cluster is left out.
MOST_MISSING = 0.05


@dataclass(frozen=True)
class Field:
    """One line of the proposed dataset.yaml.

    Attributes:
        path: the field, dotted (`columns.text`).
        sure: False where something else was nearly as likely.
        active: False for a suggestion that is written as a comment.
    """

    path: str
    value: Any
    why: str = ""
    sure: bool = True
    others: tuple[str, ...] = ()
    active: bool = True


@dataclass(frozen=True)
class Choice:
    """A column (or a value of it) picked for a role."""

    column: ColumnProfile
    why: str
    sure: bool = True
    others: tuple[str, ...] = ()
    value: Any = None

    @property
    def name(self) -> str:
        """The column's name."""
        return self.column.name

    def field(self, role: str) -> Field:
        """The line that names the column for its role, such as `text`."""
        return Field(f"columns.{role}", self.name, self.why, self.sure, self.others)


def table_of(columns: Sequence[ColumnProfile]) -> str:
    """The columns as lines for a person."""
    return "\n".join(f"  {column.name}: {column.said}" for column in columns)


def check_present(columns: Sequence[ColumnProfile], wished: Sequence[str | None]) -> None:
    """Refuse wishes for columns that are not there.

    Raises:
        DatasetError: with the wished column and those of the table.
    """
    known = {column.name for column in columns}
    for wanted in wished:
        if wanted and wanted not in known:
            raise DatasetError(f"There is no column `{wanted}`. The table has:\n{table_of(columns)}")


def choose_text(columns: Sequence[ColumnProfile], wish: str | None) -> Choice:
    """The column with the text.

    Raises:
        DatasetError: no column holds texts.
    """
    if wish:
        return Choice(_named(columns, wish), "As you said.")
    found = sorted((c for c in columns if c.kind == "text"), key=_text_score, reverse=True)
    if not found:
        lists = next((column.name for column in columns if column.kind == "other"), None)
        nested = f"`{lists}` holds lists or records: if they are texts, write each as one. " if lists else ""
        raise DatasetError(
            "No column looks like texts (several words a row, mostly different from row to row). If one is, name it "
            f"with --text. {nested}The table has:\n{table_of(columns)}"
        )
    best, *rest = found
    sure = not rest or _text_score(best) - _text_score(rest[0]) > 1.0
    return Choice(best, f"{best.said[0].upper()}{best.said[1:]}.", sure, tuple(c.name for c in rest))


def _text_score(column: ColumnProfile) -> float:
    hint = 2.0 if NAMES["text"] & set(words_of(column.name)) else 0.0
    return hint + min(column.words, 60.0) / 15.0 + column.distinct / max(column.rows, 1)


def choose_pair(columns: Sequence[ColumnProfile], label: str | None) -> tuple[Choice, Choice] | None:
    """Two text columns whose names differ only by side, where a two-valued column can say which one wins."""
    texts = [column for column in columns if column.kind == "text"]
    flags = [column for column in columns if column.kind == "flag" and (label is None or column.name == label)]
    if not flags:
        return None
    for first in texts:
        for second in texts:
            if side := _side(first.name, second.name):
                why = f"`{first.name}` and `{second.name}` differ only by {side[0]}/{side[1]}: the sides of a pair."
                return Choice(first, why), Choice(second, "")
    return None


def _side(first: str, second: str) -> tuple[str, str] | None:
    one, two = words_of(first), words_of(second)
    if len(one) != len(two):
        return None
    differing = [(x, y) for x, y in zip(one, two, strict=True) if x != y]
    if len(differing) != 1:
        return None
    x, y = differing[0]
    for a, b in SIDES:
        if (x, y) == (a, b) or (x.endswith(a) and y.endswith(b) and x[: -len(a)] == y[: -len(b)] != ""):
            return a, b
    return None


def choose_label(columns: Sequence[ColumnProfile], taken: Sequence[str], wish: str | None, *, pair: bool) -> Choice:
    """The column with the outcome.

    Raises:
        DatasetError: no column can be one.
    """
    if wish:
        if wish in taken:
            raise DatasetError(f"`{wish}` is the text; the outcome must be another column. Name it with --label.")
        return Choice(_named(columns, wish), "As you said.")
    kinds = ("flag",) if pair else ("flag", "number", "category")
    found = [c for c in columns if c.kind in kinds and c.name not in taken and c.distinct > 1]
    if not found:
        raise DatasetError(
            "No column looks like an outcome (a number, or a few classes). Every row needs one: what is to be "
            f"predicted from the text? If there is one, name it with --label. The table has:\n{table_of(columns)}"
        )
    best, *rest = sorted(found, key=_label_score, reverse=True)
    near = [c for c in rest if _label_score(c) > 0 and _label_score(best) - _label_score(c) < 1.5]
    named = bool((NAMES["label"] | NAMES["weak_label"] | NAMES["rate"]) & set(words_of(best.name))) or _asks(best)
    why = f"{best.said[0].upper()}{best.said[1:]}{'; its name says so' if named else ''}."
    if is_rate(best) and any(c.kind == "number" and not is_rate(c) for c in near):
        why += " A rate or share was preferred to counts."
    sure = not near and (named or len(found) == 1)
    return Choice(best, why, sure, tuple(c.name for c in near[:6]))


def _asks(column: ColumnProfile) -> bool:
    first = words_of(column.name)[:1]
    return column.kind == "flag" and (column.name.rstrip().endswith("?") or bool(set(first) & NAMES["asking"]))


def is_rate(column: ColumnProfile) -> bool:
    """Whether a column of numbers is relative to something: in percent, or named a rate or share."""
    named = "%" in column.name or bool(NAMES["rate"] & set(words_of(column.name)))
    return column.kind == "number" and (column.percent or named)


def _label_score(column: ColumnProfile) -> float:
    words = set(words_of(column.name))
    score = {"flag": 1.0, "number": 0.5, "category": 0.3}.get(column.kind, 0.0)
    score += 2.0 * bool(words & NAMES["label"]) + 0.8 * (bool(words & NAMES["weak_label"]) or _asks(column))
    score += 0.3 * ({value.lower() for value, _ in column.levels} in TWO_ANSWERS)
    score += 1.2 * is_rate(column) - 1.5 * bool(words & NAMES["calendar"])
    score -= 2.0 * bool(words & NAMES["key"]) + 1.0 * bool(words & NAMES["cluster"])
    score -= 1.0 * (column.kind == "category" and column.distinct > 20) + 1.5 * bool(words & NAMES["beside"])
    return score - 2.0 * column.missing / max(column.rows, 1)


def choose_positive(label: ColumnProfile, sides: Sequence[str], wish: str | None) -> Choice | None:
    """The class counted as 1; None where the label is a number or 0/1 already."""
    values = [value for value, _ in label.levels]
    if wish is not None:
        if label.levels and wish.lower() not in [value.lower() for value in values]:
            raise DatasetError(f"No row has the value `{wish}` in `{label.name}` (it has {', '.join(values[:10])}).")
        return Choice(label, "As you said.", value=wish)
    if label.kind not in ("flag", "category") or {v.lower() for v in values} in ({"0", "1"}, {"0.0", "1.0"}):
        return None
    if label.kind == "flag" and {v.lower() for v in values} == {"false", "true"}:
        return Choice(label, "true counts as 1.", value=True)
    if len(sides) == 2:
        return _winner(label, sides)
    yes = next((value for value in values if value.lower() in YES), None)
    if yes is not None:
        rest = tuple(value for value in values[:8] if value != yes)
        # Beside anything but 0, a 1 may be the first of several codes.
        return Choice(label, f"“{yes}” counts as 1.", yes not in ("1", "1.0"), rest, yes)
    # The top of a scale, the rarer of two, the most frequent of many.
    value = label.scale[-1] if label.scale else values[-1] if label.kind == "flag" else values[0]
    counted = ", ".join(f"{v} ({n:,})" for v, n in label.levels[:8])
    order = f" They are a scale, in this order: {', '.join(label.scale)}." if label.scale else ""
    why = f"The class counted as 1. The classes: {counted}{', …' if len(values) > 8 else ''}.{order}"
    return Choice(label, why, sure=False, others=tuple(v for v in values[:8] if v != value), value=value)


def _winner(label: ColumnProfile, sides: Sequence[str]) -> Choice:
    """The value by which a label says that the first text wins."""
    side = _side(*sides) or ("a", "b")
    first = [v for v, _ in label.levels if v == sides[0] or (words_of(v) or [""])[-1] == side[0]]
    value = first[0] if first else sorted(v for v, _ in label.levels)[0]
    why = f"The value that says that `{sides[0]}` wins."
    return Choice(label, why, bool(first), tuple(v for v, _ in label.levels if v != value), value)


def choose_cluster(
    frame: pl.DataFrame, columns: Sequence[ColumnProfile], taken: Sequence[str], wish: str | None
) -> Choice | None:
    """The column of what rows have in common, if one shows."""
    if wish:
        return Choice(_named(columns, wish), "As you said.")
    found = [c for c in columns if c.name not in taken and _cluster_score(c) >= 1.0]
    if not found:
        return None
    # Of two that fit, the coarser is the safe one: what belongs together stays together.
    best, *rest = sorted(found, key=lambda c: (-_cluster_score(c), c.distinct))
    keys = cluster_keys(frame, best.name)
    size = keys.len() / max(keys.n_unique(), 1)
    named = "its name says so, and it" if _cluster_score(best) >= 2.0 else "it"
    why = f"{keys.n_unique():,} different, {size:.1f} rows each: {named} repeats. Kept on one side of every split."
    return Choice(best, why, _cluster_score(best) >= 2.0 and not rest, tuple(c.name for c in rest))


def _cluster_score(column: ColumnProfile) -> float:
    """Below 1 a column cannot be what rows have in common."""
    words = set(words_of(column.name))
    usable = column.kind in ("key", "category", "text") or (column.kind == "number" and column.whole)
    # What happened at one time, rates alike or lists the same has no more in common than other rows.
    usable = usable and not words & WHEN and not column.scale and column.separator is None
    repeats = FEWEST_CLUSTERS <= column.distinct <= 0.9 * max(column.rows - column.missing, 1)
    # Keys that were rounded join rows that share nothing.
    if not usable or column.lost or not repeats or column.missing > MOST_MISSING * column.rows:
        return 0.0
    return 2.0 * bool(words & NAMES["cluster"]) + 1.0 * bool(words & NAMES["key"]) + 1.0 * (column.kind == "key")


def few_clusters(columns: Sequence[ColumnProfile], taken: Sequence[str]) -> list[ColumnProfile]:
    """Columns named like a cluster or a key that have too few values to be proposed as one."""
    return [
        c
        for c in columns
        if c.name not in taken
        and _named_clusters(c)
        and (c.kind == "category" or (c.kind == "number" and c.whole))
        and 2 < c.distinct < min(FEWEST_CLUSTERS, c.rows / 3)
    ]


def _named(columns: Sequence[ColumnProfile], name: str) -> ColumnProfile:
    return next(column for column in columns if column.name == name)


def answer_fields(label: ColumnProfile, task: str) -> list[Field]:
    """Fields on how the outcome's words become numbers or classes."""
    fields = []
    if label.scale and task == "regression":
        top, below = label.scale[-1], label.scale[-2]
        why = (
            f"Its words have an order: read as 1 to {len(label.scale)}. For one class against the rest instead: --task "
            f"classification --positive {top!r} (or {below!r})."
        )
        others = (f"classification with “{top}” as 1",)
        fields.append(Field("columns.scale", list(label.scale), why, sure=False, others=others))
    if label.separator is not None and task == "classification":
        why = f"Cells of `{label.name}` list several classes: 1 where the list holds the positive one."
        fields.append(Field("columns.listed", label.separator, why, sure=False))
    return fields


def missing_fields(frame: pl.DataFrame, needed: Sequence[ColumnProfile]) -> list[Field]:
    """Which values of the columns that every row needs mean none, and what becomes of rows without one."""
    fields = []
    marks = {mark.lower(): mark for column in needed for mark, _ in column.marks}
    codes = {code for column in needed for code, _ in column.codes}
    if marks or codes:
        said = [f"`{c.name}` is {_counted(c.marks)}" for c in needed if c.marks]
        why = f"{'; '.join(said)}: read as missing. Remove those that are answers." if said else ""
        if codes:
            outside = "; ".join(f"`{c.name}` is {_counted(c.codes)}" for c in needed if c.codes)
            why = (
                f"{why} {outside}, far from all other values: a code for a missing answer? If it is a number, "
                "remove this line."
            )
        fields.append(Field("columns.missing", [*marks.values(), *sorted(codes)], why.strip(), sure=not codes))
    n = int(frame.select(pl.any_horizontal(*[_empty(c, marks, codes) for c in needed]).sum()).item())
    if n:
        names = ", ".join(f"`{column.name}`" for column in needed)
        why = f"{n:,} of {frame.height:,} rows lack one of {names}; they are left out and counted in the report."
        fields.append(Field("columns.on_missing", "drop", why))
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


LARGE = 0.5


def with_settling(
    frame: pl.DataFrame,
    columns: Sequence[ColumnProfile],
    label: ColumnProfile,
    taken: Sequence[str],
    found: Choice | None,
) -> Choice | None:
    """The cluster: if need be a column within whose levels the outcome does not differ, however few these are.

    Rows that share such a level are one observation of the outcome, however many texts they have. `found` is the
    cluster that was chosen by name, `taken` are columns that are used otherwise or say the same as the outcome.
    """
    settling = [c for c in columns if c.name not in taken and c.name != label.name and _settles(frame, c, label)]
    if not settling or (found and found.name in {c.name for c in settling}):
        return found
    # The coarsest: what is finer is settled through it.
    best = min(settling, key=lambda c: c.distinct)
    n = cluster_keys(frame, best.name).n_unique()
    why = (
        f"Rows that share `{best.name}` ({n:,} different) do not differ in `{label.name}`, so they are one "
        "observation of it. Kept on one side of every split."
    )
    if best.distinct < FEWEST_CLUSTERS and not _named_clusters(best):
        why += f" If `{best.name}` is the outcome in other words, leave it out (--cluster-by none)."
    others = [c.name for c in settling if c is not best] + ([found.name] if found else [])
    return Choice(best, why, False, tuple(others))


def _settles(frame: pl.DataFrame, column: ColumnProfile, label: ColumnProfile) -> bool:
    """Whether the outcome is the same wherever the column is, and no cut or grade of the column."""
    usable = column.kind in ("key", "category", "text", "flag", "date", "number") and not column.scale
    usable = usable and not (column.kind == "number" and WHEN & set(words_of(column.name)))
    # What is asked after one outcome alone, such as the reason for a complaint, is no cluster.
    usable = usable and column.missing <= MOST_MISSING * column.rows
    if not usable or column.separator is not None or not label.distinct < column.distinct < 0.95 * column.rows:
        return False
    level, outcome = (frame.select(plain_values(name)).to_series() for name in (column.name, label.name))
    if not settles(level, outcome):
        return False
    return column.kind != "number" or _named_clusters(column) or not _in_order(level, outcome)


def _named_clusters(column: ColumnProfile) -> bool:
    return bool((NAMES["cluster"] | NAMES["key"]) & set(words_of(column.name)))


def _in_order(level: pl.Series, outcome: pl.Series) -> bool:
    """Whether each outcome has a range of the numbers of its own, so that the outcome was cut from them."""
    rows = pl.DataFrame({"level": level.cast(pl.Float64, strict=False), "outcome": outcome}).drop_nulls()
    runs = rows.sort("level")["outcome"].rle_id().n_unique()
    return runs <= 2 * rows["outcome"].n_unique()


def plain_values(name: str) -> pl.Expr:
    """Values of a column as they are compared; null where there is none."""
    value = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    return pl.when(value.is_in(["", *MISSING_MARKS])).then(None).otherwise(value).alias(name)


def cluster_keys(frame: pl.DataFrame, name: str) -> pl.Series:
    """Keys of a column as the corpus folds them, of the rows that have one: as many differ as there are clusters."""
    return folded_keys(frame.select(plain_values(name).alias("level")).to_series().drop_nulls())


def doubt_large(frame: pl.DataFrame, cluster: Choice) -> Choice:
    """The choice with a doubt where one cluster holds half of the rows: it lands in one split, whole."""
    values = cluster_keys(frame, cluster.name)
    if not values.len():
        return cluster
    largest, n = values.value_counts(sort=True).row(0)
    if n / values.len() < LARGE:
        return cluster
    why = (
        f"{cluster.why} One of them, “{str(largest)[:40]}”, has {n / values.len():.0%} of the rows, all in one split; "
        "the rest may be too little to train or test on."
    )
    return replace(cluster, why=why, sure=False)
