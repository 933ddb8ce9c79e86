"""Remarks on a table as a whole, beside the proposal.

Belongs here: what is unusual about the texts or the outcome. Does not belong here: choices (`proposal_roles`).
"""

from collections.abc import Sequence

import polars as pl

from hsae_dagster.dataset.column_profile import ColumnProfile
from hsae_dagster.dataset.proposal_roles import Choice

# Function words of English; nearly every English sentence has one.
ENGLISH = r"(?i)\b(the|a|an|and|of|to|in|is|it|for|on|with|this|that|was|you)\b"

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
                f"A column without a name has words in {held:,} of {column.rows:,} rows: what was cut off from a text "
                "at its separators? Look at these rows in the file."
            )
    empty = [column.name for column in columns if column.kind == "empty"]
    if empty:
        said.append(f"Empty columns: {', '.join(name or '(without a name)' for name in empty)}.")
    return said


def _looked_at(columns: Sequence[pl.Series]) -> pl.Series:
    return pl.concat([column.drop_nulls().head(2000) for column in columns])


def strange_texts(columns: Sequence[pl.Series], *, bundled: bool = True) -> list[str]:
    """Remarks on texts that hold more, or other things, than English.

    Args:
        columns: of texts, str; one, or the two of pairs.
        bundled: whether the bundled embedder is to read them.
    """
    texts, said = _looked_at(columns), []
    if not texts.len():
        return []
    wordless = int((~texts.str.contains(r"\p{L}")).sum())
    if bundled and wordless < texts.len() / 2 and texts.str.contains(ENGLISH).mean() < 0.5:  # type: ignore[operator]
        said.append(
            "Fewer than half of the texts have an English function word. The bundled embedder knows English; for other "
            "languages name a multilingual one in embedding.model."
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
