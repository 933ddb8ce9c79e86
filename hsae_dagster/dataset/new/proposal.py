"""A dataset.yaml proposed from a look at a table, with its reasons as comments."""

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import polars as pl
import yaml

from hsae_dagster.dataset.new import roles
from hsae_dagster.dataset.new.columns import (
    MOST_LEVELS,
    NO_NOTES,
    WHEN,
    ColumnProfile,
    Notes,
    mostly_small_groups,
    profile,
    words_of,
)
from hsae_dagster.dataset.new.roles import ANSWERED, DENIED, NAMES, Choice, Field
from hsae_dagster.dataset.rows import plain_headers
from hsae_dagster.dataset.spec import FEW_ROWS
from hsae_dagster.dataset.values import seconds_of
from hsae_dagster.errors import DatasetError

# (fewer distinct texts than, neurons to select)
SMALL = ((1_500, 10), (4_000, 12))


def _size_fields(frame: pl.DataFrame, texts: list[str], cluster: str | None) -> list[Field]:
    """Fields whose default does not fit so few rows."""
    n = pl.concat([frame[name].cast(pl.String).drop_nulls().rename("text") for name in texts]).n_unique()
    clusters, counted, fields = n, f"{n:,} texts", []
    if cluster:
        # As many of one size as share out the rows as these do: few, where a few hold most of them.
        sizes = roles.cluster_keys(frame, cluster).value_counts()["count"].cast(pl.Float64)
        clusters = round(float(sizes.sum()) ** 2 / float((sizes**2).sum())) if sizes.len() else 0
        unequal = "" if clusters == sizes.len() else f"; unequal, so as good as {clusters:,} equal ones"
        counted = f"{sizes.len():,} clusters (`{cluster}`{unequal})"
    if clusters < 500:
        why = f"A tenth of {counted} would be too few to choose and judge concepts on."
        fields.append(Field("splits.validation", 0.15, why))
    if select := next((select for limit, select in SMALL if n < limit), None):
        why = f"{n:,} distinct texts carry fewer hypotheses than 10,000 (default 20)."
        fields.append(Field("selection.n", select, why))
    return fields


# Function words of English; nearly every English sentence has one.
ENGLISH = r"(?i)\b(the|a|an|and|of|to|in|is|it|for|on|with|this|that|was|you)\b"
# Of these no other language has many; a and in are words of most of Europe's.
ENGLISH_ALONE = r"(?i)\b(the|and|of|with|this|that|you)\b"

HTML = (
    r"(?i)</?(?:p|br|div|span|a|b|i|em|strong|ul|ol|li|h[1-6]|table|td|tr|img)\b[^>]*>|&(?:amp|lt|gt|quot|nbsp|#\d+);"
)
# UTF-8 that was taken for Windows-1252 and written as UTF-8 again.
TWICE_ENCODED = r"Ã[¤¶¼Ÿ©¨ª«¡³±²µ§£]|â€[™œ“”˜¦]|Ð[°-¿]|Â[ £°»«]"
WORDLESS = r"^[^\p{L}]+$"


def remarks(
    frame: pl.DataFrame, columns: Sequence[ColumnProfile], texts: Sequence[str], label: Choice, task: str
) -> list[str]:
    """Sentences on what a person should know of the table before running it."""
    columns_of_texts = [frame[name].cast(pl.String).rename("text") for name in texts]
    said, values = [], _looked_at(columns_of_texts)
    distinct = values.n_unique()
    if task != "pairwise" and values.len() and distinct < 0.8 * values.len():
        said.append(f"Many texts occur more than once ({distinct:,} different among the first {values.len():,}).")
    if label.column.not_numbers and task == "regression":
        n, example = label.column.not_numbers
        said.append(
            f"{n:,} values of `{label.name}` are not numbers (such as “{example}”). Empty or correct those cells; "
            "until then the dataset is refused."
        )
    said += strange_texts(columns_of_texts)
    lost = [f"`{column.name}`" for column in columns if column.lost]
    if lost:
        said.append(
            f"Numbers of {', '.join(lost)} lost their last digits (in a spreadsheet or as decimals), so that different "
            "keys may have become equal. Export them as text."
        )
    for column in columns:
        held = column.rows - column.missing
        if column.name == "" and 0 < held < 0.1 * column.rows and column.words > 1:
            said.append(
                f"A column without a name has words in {held:,} of {column.rows:,} rows: were texts split at a "
                "separator? Check these rows in the file."
            )
    return said


def _looked_at(columns: Sequence[pl.Series]) -> pl.Series:
    return pl.concat([column.drop_nulls().head(2000) for column in columns])


def strange_texts(columns: Sequence[pl.Series], *, bundled: bool = True) -> list[str]:
    """Remarks on texts that hold more, or other things, than English."""
    texts, said = _looked_at(columns), []
    if not texts.len():
        return []
    wordless = int((~texts.str.contains(r"\p{L}")).sum())
    shares = [float(texts.str.contains(words).mean() or 0.0) for words in (ENGLISH, ENGLISH_ALONE)]  # type: ignore[arg-type]
    if bundled and wordless < texts.len() / 2 and (shares[0] < 0.5 or shares[1] < 0.2):
        said.append(
            "Few of the texts have English function words. The bundled embedder knows English; for other languages "
            "name a multilingual one in embedding.model."
        )
    marked = int(texts.str.contains(HTML).sum())
    if marked > 0.05 * texts.len():
        said.append(
            f"About {marked / texts.len():.0%} of the texts hold HTML (“{_first(texts, HTML)}”), which would be words "
            "to every model. Take it out in the data file."
        )
    if wordless > 0.1 * texts.len():
        shown = _first(texts, WORDLESS)[:20]
        unknown = "The bundled embedder does not know pictures and signs, and word" if bundled else "Word"
        said.append(
            f"About {wordless / texts.len():.0%} of the texts have no letter, such as “{shown}”. {unknown} lists "
            "cannot name them: expect few claims or none."
        )
    twice = int(texts.str.contains(TWICE_ENCODED).sum())
    if twice > 0.01 * texts.len():
        shown = _first(texts, TWICE_ENCODED)
        said.append(
            f"About {twice / texts.len():.0%} of the texts hold signs such as “{shown}”, which stand for one letter: "
            "they were read in a wrong encoding before. Export them again."
        )
    return said


def _first(texts: pl.Series, pattern: str) -> str:
    return str(texts.str.extract(f"({pattern})", 1).drop_nulls()[0])


_HALVES = (
    "Few rows, so each half tests what the other found: more is confirmed at the same error. Rows added later are not "
    "tested then; if this file will grow, take `holdout`."
)
# Of a third of the times, held out, blocks are made.
FEWEST_TIMES = 30
# Names of columns that only who made the table understands.
MEANINGLESS = re.compile(r"(?i)(label|target|outcome|y|dv|value|[qvx]_?\d+.*|var_?\d+|column_?\d+)")


@dataclass(frozen=True)
class Wishes:
    """What the user has decided already; None leaves it to the proposal."""

    task: str | None = None
    text: str | None = None
    text_a: str | None = None
    text_b: str | None = None
    label: str | None = None
    positive: str | None = None
    cluster_by: str | None = None
    outcome: str | None = None


@dataclass(frozen=True)
class Proposal:
    """Proposed fields in the order they are written, and remarks on the data as a whole."""

    fields: tuple[Field, ...]
    remarks: tuple[str, ...] = ()

    @property
    def unsure(self) -> list[Field]:
        """Choices that a person should look at."""
        return [field for field in self.fields if field.active and not field.sure]

    def value(self, path: str) -> Any:
        """The value of an active field, or None."""
        return next((field.value for field in self.fields if field.active and field.path == path), None)


def propose(frame: pl.DataFrame, files: Any, wishes: Wishes = Wishes(), notes: Notes = NO_NOTES) -> Proposal:
    """Propose a declaration for a table.

    Raises:
        DatasetError: no column can be the text or the outcome, or a wished column does not exist.
    """
    frame = plain_headers(frame)
    columns = profile(frame, notes.lists)
    # A column of that name is meant first.
    unwanted = (wishes.cluster_by or "").lower() == "none" and wishes.cluster_by not in frame.columns
    if unwanted:
        wishes = replace(wishes, cluster_by=None)
    _check(wishes, frame, columns)
    texts = _texts(columns, wishes)
    taken = [choice.name for choice in texts]
    label = roles.choose_label(columns, taken, wishes.label, pair=len(texts) == 2)
    as_number = wishes.task == "regression" or (label.column.scale and not (wishes.positive or wishes.task))
    positive = None if as_number else roles.choose_positive(label.column, taken, wishes.positive)
    task = _task(texts, label, positive, wishes)
    same = [column.name for column in columns if column.name not in taken and _renames(frame, column, label.column)]
    cluster = roles.choose_cluster(frame, columns, [*taken, label.name, *same], wishes.cluster_by)
    if wishes.cluster_by is None:
        cluster = roles.with_settling(frame, columns, label.column, [*taken, *same], cluster)
    cluster = roles.doubt_large(frame, cluster) if cluster else None
    left_out, cluster = (cluster, None) if unwanted else (None, cluster)
    used = [*taken, label.name, *([cluster.name] if cluster else [])]
    names = " and ".join(taken)
    fields = [
        Field("description", f"{frame.height:,} rows of {names}", "One line for the report; please improve it."),
        _outcome(label.column, positive, wishes.outcome),
        task,
        Field("files", files),
        *[c.field(role) for role, c in zip(("text_a", "text_b") if len(texts) == 2 else ("text",), texts, strict=True)],
        label.field("label"),
    ]
    if positive is not None and task.value != "regression":
        fields.append(replace(positive.field("positive"), value=positive.value))
    if cluster:
        fields.append(cluster.field("cluster_by"))
    else:
        fields.append(_without_cluster(columns, used, left_out, unwanted))
    fields += _time_fields(frame, columns, used)
    if cluster and task.value == "regression" and mostly_small_groups(frame, cluster.name, label.name):
        why = f"`hsae new … --pairs-within {shlex.quote(cluster.name)}` compares only texts that share it."
        fields.append(Field("columns.", None, why, active=False))
    if same and task.value != "pairwise":
        why = (
            f"{', '.join(f'`{name}`' for name in same)} says the same as `{label.name}`. If it says where rows come "
            "from, each outcome comes from one source, and the two cannot be separated."
        )
        fields.append(Field("columns.", None, why, active=False))
    fields += roles.answer_fields(label.column, str(task.value))
    fields += roles.missing_fields(frame, [column for column in columns if column.name in used])
    if frame.height < FEW_ROWS and len(texts) == 1:
        fields.append(Field("splits.design", "auto", _HALVES))
    fields += _size_fields(frame, taken, cluster.name if cluster else None)
    for place, item in enumerate(fields):
        if item.path.startswith("columns.") and isinstance(item.value, str) and item.value in notes.doubts:
            fields[place] = replace(item, sure=False, why=f"{item.why} {notes.doubts[item.value]}")
    return Proposal(tuple(fields), (*notes.remarks, *remarks(frame, columns, taken, label, task.value)))


def _check(wishes: Wishes, frame: pl.DataFrame, columns: Sequence[ColumnProfile]) -> None:
    roles.check_present(columns, (wishes.text, wishes.text_a, wishes.text_b, wishes.label, wishes.cluster_by))
    if bool(wishes.text_a) != bool(wishes.text_b):
        raise DatasetError("A pair needs both of its texts: name text_a and text_b, or neither.")
    if wishes.text and wishes.text_a:
        raise DatasetError("Name one text column, or the two of a pair, not both.")
    if frame.is_empty():
        raise DatasetError("The table has no rows. Give a file with one row per text.")


def _texts(columns: Sequence[ColumnProfile], wishes: Wishes) -> list[Choice]:
    by_name = {column.name: column for column in columns}
    if wishes.text_a and wishes.text_b:
        return [Choice(by_name[name], "As you said.") for name in (wishes.text_a, wishes.text_b)]
    single = wishes.text or wishes.task in ("regression", "classification")
    if not single and (pair := roles.choose_pair(columns, wishes.label)):
        return list(pair)
    if wishes.task == "pairwise":
        raise DatasetError(
            "No two text columns look like the sides of a pair (as `headline_A` and `headline_B`). Name them with "
            f"--text-a and --text-b. The table has:\n{roles.table_of(columns)}"
        )
    return [roles.choose_text(columns, wishes.text)]


def _task(texts: Sequence[Choice], label: Choice, positive: Choice | None, wishes: Wishes) -> Field:
    column = label.column
    if wishes.task:
        return Field("task", wishes.task, "As you said.")
    if len(texts) == 2:
        return Field("task", "pairwise", f"Two texts a row, and `{label.name}` says which one wins.")
    if column.kind == "flag":
        return Field("task", "classification", f"`{label.name}` has two values.")
    if column.scale and wishes.positive is None:
        why = f"`{label.name}` is a scale in words, so it is read as numbers."
        return Field("task", "regression", why, False, (f"classification, with “{column.scale[-1]}” as 1",))
    if column.kind == "number" and positive is None:
        if NAMES["code"] & set(words_of(column.name)) and column.whole and column.distinct <= MOST_LEVELS:
            why = f"`{label.name}` is numbers, but its name says that they stand for classes, not amounts."
            return Field("task", "regression", why, False, ("classification, with --positive NUMBER",))
        why = f"`{label.name}` is a number with {column.distinct:,} different values."
        if column.distinct <= 5:
            why += " If the numbers are names of classes rather than amounts, use classification."
        return Field("task", "regression", why, sure=column.distinct > 4)
    others = ("one dataset per class: copy the folder and change columns.positive",)
    why = f"`{label.name}` has {column.distinct:,} classes; one of them is tested against the rest."
    return Field("task", "classification", why, column.distinct == 2 or wishes.positive is not None, others)


def _outcome(label: ColumnProfile, positive: Choice | None, wish: str | None) -> Field:
    """The outcome in words; unsure where the column's name says nothing that a reader could understand."""
    if wish:
        return Field("outcome", wish, "As you said.")
    phrase = outcome_phrase(label, positive)
    number = positive is None and label.kind == "number"
    why = "The report says “associated with” or “a higher” before it; put it in words, its unit in brackets."
    plain = _meaningless(label) and phrase != str(positive.value if positive else "")
    if plain:
        why += f" `{label.name}` is not self-explanatory: say what it measures (--outcome “…”)."
    elif number and "(" not in phrase and not phrase.startswith("number of "):
        why += f" What is its unit? (--outcome “{phrase} (…)”)"
    return Field("outcome", phrase, why, sure=not plain)


def outcome_phrase(label: ColumnProfile, positive: Choice | None) -> str:
    """The outcome's column as a noun phrase that “a higher” can stand before, with its unit or its positive class.

    `ClickRate` is “click rate”, `likes` “number of likes”, the answers “disagree” to “agree” are “agreement with”.
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\s]+", " ", label.name).split()
    phrase = " ".join(word if word.isupper() else word.lower() for word in words) or label.name
    if label.percent and "%" not in phrase:
        return f"{phrase} (percent)"
    if positive is None:
        phrase = _noun(label, phrase)
        ends = label.ends
        return f"{phrase} ({ends[0]} to {ends[1]})" if ends and "(" not in phrase else phrase
    value = str(positive.value).lower()
    # A 1 beside a 2, or “true” beside “fake”, is one of two names, no yes.
    answered = value in ANSWERED and any(level.lower() in DENIED for level, _ in label.levels)
    if answered or value in phrase.split():
        return phrase
    return str(positive.value) if _meaningless(label) and len(value) > 2 else f"{phrase}: {positive.value}"


def _meaningless(label: ColumnProfile) -> bool:
    return bool(MEANINGLESS.fullmatch(label.name.strip()))


def _noun(label: ColumnProfile, phrase: str) -> str:
    """The phrase as something there can be more of."""
    if label.scale and re.search(r"agree|stimme|trifft", label.scale[-1].lower()):
        return "agreement" if phrase in ("agree", "agreement", "agrees") else f"agreement with “{phrase}”"
    last = phrase.split(" ")[-1] if phrase else ""
    if label.kind != "number" or not label.whole or "(" in phrase or last in ("sales", "news", "stars"):
        return phrase
    counted = re.sub(r"^(?:number of|num|nr|no|n|count of) | counts?$", "", phrase)
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if counted != phrase:
        return f"number of {counted if counted.endswith('s') else counted + 's'}"
    return f"number of {phrase}" if plural else phrase


def _without_cluster(
    columns: Sequence[ColumnProfile], taken: Sequence[str], left_out: Choice | None, unwanted: bool
) -> Field:
    few = roles.few_clusters(columns, taken)
    if unwanted:
        why = (
            "No cluster, as you said. The cost: texts that share an author, a product or an event can lie on "
            "both sides of a split and count as independent, so intervals are too narrow and too much is "
            "confirmed. Equal and nearly equal texts still stay together."
        )
        why += f" `{left_out.name}` would have been chosen: {left_out.why}" if left_out else ""
    else:
        why = (
            "No column names what rows have in common, so every text counts as independent. If some share an author, "
            "a product or an event, add that column: without it intervals are too narrow."
        )
    if few and not left_out:
        named = ", ".join(f"`{column.name}` ({column.distinct:,} different)" for column in few)
        why += f" By its name it could be {named}, but so few make wide intervals and uneven splits."
    return Field("columns.cluster_by", "…", why, active=False)


def _time_fields(frame: pl.DataFrame, columns: Sequence[ColumnProfile], used: Sequence[str]) -> list[Field]:
    for column in columns:
        named = column.kind == "date" or (column.kind == "number" and WHEN & set(words_of(column.name)))
        if column.name in used or not named or column.distinct < FEWEST_TIMES or column.missing:
            continue
        if seconds_of(frame[column.name]).null_count() == 0:
            why = (
                f"`{column.name}` is a time. If topics and the outcome drift, as in news or fashion, use this "
                "line: it trains on earlier rows, holds out later ones, and counts blocks of time as one "
                "observation each."
            )
            return [Field("columns.time", column.name, why, active=False)]
    return []


def _renames(frame: pl.DataFrame, column: ColumnProfile, label: ColumnProfile) -> bool:
    """Whether a column is the outcome, a class each, under another name."""
    if column.name == label.name or not column.levels or not label.levels or column.distinct != label.distinct:
        return False
    pairs = frame.select(roles.plain_values(column.name), roles.plain_values(label.name)).drop_nulls().n_unique()
    return pairs == column.distinct


WIDTH = 100


def render(proposal: Proposal, source: str) -> str:
    """The file's text; reading it as YAML gives the active fields."""
    lines = [f"# Proposed by `hsae new` from a look at {_plain_text(source)}. Every choice is yours to change."]
    for remark in proposal.remarks:
        lines += _comment(f"Note: {remark}", "")
    for section, group in groupby(proposal.fields, key=lambda field: field.path.rpartition(".")[0]):
        fields = list(group)
        if section:
            # A section of suggestions only would be an empty value, which is another thing than no section.
            lines.append(f"{section}:" if any(field.active for field in fields) else f"# {section}:")
        for field in fields:
            lines += _field(field, "  " if section else "")
    return "\n".join(lines) + "\n"


def _field(field: Field, indent: str) -> Iterator[str]:
    said = field.why
    if field.others:
        said += f" It could also be: {', '.join(field.others)}."
    if not field.sure:
        said = f"UNSURE. {said}"
    yield from _comment(said.strip(), indent)
    name = field.path.rpartition(".")[2]
    if name:
        yield f"{indent}{'' if field.active else '# '}{name}: {_value(field.value)}"


def _comment(said: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(_plain_text(said), WIDTH - len(indent), break_on_hyphens=False):
        yield f"{indent}# {line}"


def _value(value: Any) -> str:
    """A value on one line, quoted where YAML would read it otherwise."""
    layout: dict[str, Any] = {"default_flow_style": True, "width": float("inf"), "sort_keys": False}
    text = yaml.safe_dump(value, allow_unicode=True, **layout).removesuffix("\n").removesuffix("\n...")
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump(value, default_style='"', **layout).removesuffix("\n")
    return text


def _plain_text(said: str) -> str:
    """Names and values of a file may hold line breaks, which would end a comment, and what YAML forbids even there."""
    joined = " ".join(said.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in joined)
