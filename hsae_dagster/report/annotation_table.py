"""The table of annotations that people compute on: a row per held-out observation, readably named columns per claim.

Belongs here: the names of its columns, putting it together. Does not belong here: judging, or finding what made a claim
hold (`core.concepts.reasons`).

A column is named after its claim's title: `says_boring`, `like_i_sent_it_back`, `asks_a_question`; beside it stands
`<name>_because`, the words or the sentence that made the claim hold. Names are ASCII, unique, and no column's prefix
depends on the order of rows, so a script that reads one evaluation reads the next as long as the claims stay.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

BECAUSE = "_because"
_MOST_CHARACTERS = 40
_SAYS, _LIKE = "says “", "has a sentence like “"
_BETWEEN = " | "


@dataclass(frozen=True)
class Answers:
    """What was judged of the held-out texts.

    Attributes:
        text_ids: (n,) keys.
        holds: (n, claims) int8: 1 yes, 0 no, -1 no answer.
        because: (n, claims) words or sentences that made a claim hold.
    """

    text_ids: Sequence[str]
    holds: np.ndarray
    because: Sequence[Sequence[Sequence[str]]]


def column_names(claims: Sequence[tuple[str, str]]) -> list[str]:
    """A readable, unique name for each (claim, title).

    Examples:
        >>> column_names([("says “boring” or “dull”", "boring"), ("asks a question", "asks a question")])
        ['says_boring', 'asks_a_question']
    """
    names: list[str] = []
    taken = {"text_id", "text_id_a", "text_id_b", "cluster", "outcome", "half"}
    for place, (claim, title) in enumerate(claims, 1):
        opening = "says " if claim.startswith(_SAYS) else "like " if claim.startswith(_LIKE) else ""
        base = _slug(opening + title) or f"claim_{place}"
        name, number = base, 2
        while {name, name + BECAUSE} & taken:
            name, number = f"{base}_{number}", number + 1
        taken |= {name, name + BECAUSE}
        names.append(name)
    return names


def _slug(words: str) -> str:
    """ASCII letters, digits and single underscores, beginning with a letter, cut between words."""
    plain = unicodedata.normalize("NFKD", words.lower()).encode("ascii", "ignore").decode()
    parts = re.findall(r"[a-z0-9]+", plain.replace("'", ""))
    kept = parts[:1]
    for part in parts[1:]:
        if len("_".join([*kept, part])) > _MOST_CHARACTERS:
            break
        kept.append(part)
    slug = "_".join(kept)[:_MOST_CHARACTERS]
    # What is left of words in another script says nothing.
    return slug if slug[:1].isalpha() and slug not in ("says", "like") else ""


def annotation_table(observations: pl.DataFrame, answers: Answers, claims: Sequence[tuple[str, str]]) -> pl.DataFrame:
    """One row per held-out observation, which is a text (`text_id`) or a pair (`text_id_a`, `text_id_b`).

    Args:
        observations: of the holdout: text_id, or text_id_a and text_id_b, cluster_id, label; of two halves, which.
        answers: of their texts.
        claims: (claim, title) of each column of the answers.

    Returns:
        keys, cluster, outcome, half if there are two; per claim 1, 0 or null (no answer) and what made it hold (empty
        where it does not). For pairs both columns once for each side, as `says_boring_a`, `says_boring_a_because`, …
    """
    rows = {key: row for row, key in enumerate(answers.text_ids)}
    pairs = "text_id_a" in observations.columns
    sides = {"_a": "text_id_a", "_b": "text_id_b"} if pairs else {"": "text_id"}
    columns: dict[str, pl.Series] = {key: observations[key] for key in sides.values()}
    columns |= {"cluster": observations["cluster_id"], "outcome": observations["label"]}
    columns |= {"half": observations["half"]} if "half" in observations.columns else {}
    places = {ending: [rows[key] for key in observations[side].to_list()] for ending, side in sides.items()}
    for j, name in enumerate(column_names(claims)):
        for ending, own in places.items():
            columns |= _of_claim(f"{name}{ending}", j, own, answers)
    return pl.DataFrame([series.alias(name) for name, series in columns.items()])


def _of_claim(name: str, j: int, rows: Sequence[int], answers: Answers) -> Mapping[str, pl.Series]:
    values = [int(answers.holds[row, j]) for row in rows]
    return {
        name: pl.Series([value if value >= 0 else None for value in values], dtype=pl.Int8),
        f"{name}{BECAUSE}": pl.Series([_BETWEEN.join(answers.because[row][j]) for row in rows], dtype=pl.String),
    }
