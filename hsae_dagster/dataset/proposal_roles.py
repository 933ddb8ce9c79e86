"""Which column plays which role, by the look of its values and by its name.

Belongs here: the rules by which a text, a pair, an outcome, a positive class and a cluster are picked out, each with
its reason and the runners-up. Does not belong here: the declaration as a whole (`proposal`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hsae_dagster.dataset.column_profile import WHEN, ColumnProfile, words_of
from hsae_dagster.errors import DatasetError


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


TEXT_NAMES = _names(
    "text texts review body content comment message headline title tweet post speech abstract document sentence "
    "description answer response story transcript caption question"
)
LABEL_NAMES = _names(
    "label labels target outcome y score rating ratings stars star grade sentiment polarity winner win won ctr "
    "clicked engagement accepted result dependent"
)
WEAK_LABEL_NAMES = _names(
    "class category topic type like likes click clicks vote votes view views retweet retweets upvotes reactions "
    "downloads sales price value recommended"
)
# Parts of a date say when, and hardly ever what is to be explained.
CALENDAR = _names("year month week day weekday hour minute date published created updated posted jahr monat tag stunde")
# How sure somebody was of an outcome, or a second look at it, is another thing than the outcome.
BESIDE_NAMES = _names("confidence certainty probability prob gold sd std se error agreement")
# Of two numbers the relative one is the likelier outcome: a count grows with how many looked.
RATE_NAMES = _names("rate share ratio percent percentage pct proportion ctr")
CLUSTER_NAMES = _names(
    "cluster group author user username speaker person participant respondent patient student senator member writer "
    "product item film movie book song business store restaurant hotel company school test experiment session thread "
    "conversation document doc article source site domain outlet url account channel subreddit coder annotator rater "
    "autor auteur autore benutzer kunde kundin produkt compte utilisateur client usuario cuenta"
)
# A name that asks, with or without its question mark.
ASKING = _names("is are was were has have had did does do can will should ist hat wird")
# A whole number is a key only if its name says so; these words do.
KEY_WORDS = _names("id ids uid uuid key code nr no number")
# Numbers of such a name stand for classes.
CODE_NAMES = _names("topic topics class category cat code type kind genre group cluster segment theme region party")
SIDES = (("a", "b"), ("1", "2"), ("0", "1"), ("left", "right"), ("first", "second"), ("x", "y"))
# What says that the outcome is there and nothing more.
ANSWERED = ("1", "1.0", "true", "yes", "y", "t", "ja", "oui", "si", "sí")
YES = (*ANSWERED, "positive", "pos", "win", "won", "good", "spam", "accepted", "pass")
TWO_ANSWERS = ({"0", "1"}, {"0.0", "1.0"}, {"false", "true"}, {"no", "yes"}, {"n", "y"}, {"ja", "nein"})
FEWEST_CLUSTERS = 30


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
        raise DatasetError(
            "No column looks like texts (several words a row, mostly different from row to row). If one is, name it "
            f"with --text. The table has:\n{table_of(columns)}"
        )
    best, *rest = found
    sure = not rest or _text_score(best) - _text_score(rest[0]) > 1.0
    return Choice(best, f"{best.said[0].upper()}{best.said[1:]}.", sure, tuple(c.name for c in rest))


def _text_score(column: ColumnProfile) -> float:
    hint = 2.0 if TEXT_NAMES & set(words_of(column.name)) else 0.0
    return hint + min(column.words, 60.0) / 15.0 + column.distinct / max(column.rows, 1)


def choose_pair(columns: Sequence[ColumnProfile], label: str | None) -> tuple[Choice, Choice] | None:
    """Two text columns whose names differ only by side, where a two-valued column can say which one wins."""
    texts = [column for column in columns if column.kind == "text"]
    flags = [column for column in columns if column.kind == "flag" and (label is None or column.name == label)]
    if not flags:
        return None
    for first in texts:
        for second in texts:
            side = _side(first.name, second.name)
            if side:
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
    found = sorted(found, key=_label_score, reverse=True)
    if not found:
        raise DatasetError(
            "No column looks like an outcome (a number, or a few classes). Every row needs one: what is to be "
            f"predicted from the text? If there is one, name it with --label. The table has:\n{table_of(columns)}"
        )
    best, *rest = found
    near = [c for c in rest if _label_score(c) > 0 and _label_score(best) - _label_score(c) < 1.5]
    named = bool((LABEL_NAMES | WEAK_LABEL_NAMES | RATE_NAMES) & set(words_of(best.name))) or _asks(best)
    why = f"{best.said[0].upper()}{best.said[1:]}{'; its name says so' if named else ''}."
    if is_rate(best) and any(c.kind == "number" and not is_rate(c) for c in near):
        why += " A rate or share was preferred to counts."
    sure = not near and (named or len(found) == 1)
    return Choice(best, why, sure, tuple(c.name for c in near[:6]))


def _asks(column: ColumnProfile) -> bool:
    """Whether the name is a question that the column answers."""
    first = words_of(column.name)[:1]
    return column.kind == "flag" and (column.name.rstrip().endswith("?") or bool(set(first) & ASKING))


def is_rate(column: ColumnProfile) -> bool:
    """Whether a column of numbers is relative to something: in percent, or named a rate or share."""
    named = "%" in column.name or bool(RATE_NAMES & set(words_of(column.name)))
    return column.kind == "number" and (column.percent or named)


def _label_score(column: ColumnProfile) -> float:
    words = set(words_of(column.name))
    score = {"flag": 1.0, "number": 0.5, "category": 0.3}.get(column.kind, 0.0)
    score += 2.0 * bool(words & LABEL_NAMES) + 0.8 * (bool(words & WEAK_LABEL_NAMES) or _asks(column))
    score += 0.3 * ({value.lower() for value, _ in column.levels} in TWO_ANSWERS)
    score += 1.2 * is_rate(column) - 1.5 * bool(words & CALENDAR)
    score -= 2.0 * bool(words & KEY_WORDS) + 1.0 * bool(words & CLUSTER_NAMES)
    score -= 1.0 * (column.kind == "category" and column.distinct > 20) + 1.5 * bool(words & BESIDE_NAMES)
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


def choose_cluster(columns: Sequence[ColumnProfile], taken: Sequence[str], wish: str | None) -> Choice | None:
    """The column of what rows have in common, if one shows."""
    if wish:
        return Choice(_named(columns, wish), "As you said.")
    found = [c for c in columns if c.name not in taken and _cluster_score(c) >= 1.0]
    # Of two that fit, the coarser is the safe one: what belongs together stays together.
    found = sorted(found, key=lambda c: (-_cluster_score(c), c.distinct))
    if not found:
        return None
    best, *rest = found
    size = (best.rows - best.missing) / best.distinct
    named = "its name says so, and it" if _cluster_score(best) >= 2.0 else "it"
    why = f"{best.distinct:,} different, {size:.1f} rows each: {named} repeats. Kept on one side of every split."
    return Choice(best, why, _cluster_score(best) >= 2.0 and not rest, tuple(c.name for c in rest))


def _cluster_score(column: ColumnProfile) -> float:
    """Below 1 a column cannot be what rows have in common."""
    words = set(words_of(column.name))
    key = bool(words & KEY_WORDS)
    usable = column.kind in ("key", "category", "text") or (column.kind == "number" and column.whole)
    # What happened at one time, rates alike or lists the same has no more in common than other rows.
    usable = usable and not words & WHEN and not column.scale and column.separator is None
    repeats = FEWEST_CLUSTERS <= column.distinct <= 0.9 * max(column.rows - column.missing, 1)
    # Keys that were rounded join rows that share nothing.
    if not usable or column.lost or not repeats or column.missing > 0.05 * column.rows:
        return 0.0
    score = 2.0 * bool(words & CLUSTER_NAMES) + 1.0 * key
    if column.kind == "text":
        return score if score else 0.0
    return score + (1.0 if column.kind == "key" else 0.0)


def few_clusters(columns: Sequence[ColumnProfile], taken: Sequence[str]) -> list[ColumnProfile]:
    """Columns named like a cluster or a key that have too few values to be proposed as one."""
    return [
        c
        for c in columns
        if c.name not in taken
        and (CLUSTER_NAMES | KEY_WORDS) & set(words_of(c.name))
        and (c.kind == "category" or (c.kind == "number" and c.whole))
        and 2 < c.distinct < min(FEWEST_CLUSTERS, c.rows / 3)
    ]


def _named(columns: Sequence[ColumnProfile], name: str) -> ColumnProfile:
    return next(column for column in columns if column.name == name)
