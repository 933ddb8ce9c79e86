"""Long documents as chunks that inherit their document's outcome, cluster and controls.

Belongs here: where a text is cut. Does not belong here: what a chunk is worth: chunks of one document are not
independent, so where no cluster is declared the document is the cluster, and splits and errors respect it.

A document is cut into parts of nearly equal length, so that no short rest is left at its end. Sentences end at `.`,
`!`, `?` or `…` before white space and a capital letter, a digit or a quotation mark, and at blank lines; an
abbreviation before a name can look like an end, which makes a chunk shorter and harms nothing else.
"""

import math
import re
from itertools import pairwise

import polars as pl

from hsae_dagster.dataset.spec import Chunk
from hsae_dagster.keys import text_id

_WORD = re.compile(r"\S+")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\W_a-zß-öø-ÿ])|\n\s*\n\s*")


def chunk_rows(rows: pl.DataFrame, chunk: Chunk | None) -> pl.DataFrame:
    """Rows (columns as in `dataset.rows`) with each text cut into its chunks, in order.

    Args:
        rows: with a column `text`; never of pairs.
        chunk: how texts are cut; None leaves the rows as they are.
    """
    if chunk is None:
        return rows
    cut = {text: chunks(text, chunk) for text in rows["text"].unique()}
    keys = {text: f"document {text_id(text)}" for text in cut}
    documents = rows["text"].replace_strict(keys, return_dtype=pl.String)
    return rows.with_columns(
        pl.coalesce("cluster", documents).alias("cluster"),
        rows["text"].replace_strict(cut, return_dtype=pl.List(pl.String)).alias("text"),
    ).explode("text")


def chunks(text: str, chunk: Chunk) -> list[str]:
    """The parts of a text, each as it stands in the text; at least one.

    No part has more than `chunk.words` words or `chunk.sentences` sentences.
    """
    if chunk.words is not None:
        units = [(found.start(), found.end()) for found in _WORD.finditer(text)]
        most = chunk.words
    else:
        units, most = _sentences(text), chunk.sentences or 1
    n = math.ceil(len(units) / most)
    if n <= 1:
        return [text]
    bounds = [round(i * len(units) / n) for i in range(n + 1)]
    return [text[units[a][0] : units[b - 1][1]] for a, b in pairwise(bounds)]


def _sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence."""
    found, start = [], len(text) - len(text.lstrip())
    for gap in _SENTENCE_END.finditer(text):
        end = gap.start() + len(gap.group().rstrip())
        if text[start:end].strip():
            found.append((start, end))
        start = gap.end()
    if text[start:].strip():
        found.append((start, len(text.rstrip())))
    return found
