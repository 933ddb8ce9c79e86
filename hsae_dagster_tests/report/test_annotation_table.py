"""Annotations as a table to compute on: what made a claim hold stands beside it, and the docs' own lines read it."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from hsae_dagster.core.concepts.claims import Cue, Length, Sentences, WordGroup, because, judge, reasons
from hsae_dagster.report.content import annotation_table, csv_bytes
from hsae_dagster_tests.conftest import CHECKOUT

TEXTS = ("A boring film. It’s dull!", "I sent it back.", "Not boring? =1+1", "It went back to the shop. Fine.")
MEANINGS = (
    WordGroup(("boring", "dull")),
    Sentences(("I returned it", "It went back"), 0.5, "set"),
    Cue("has a question mark"),
    Cue("negates"),
    Length(4, most=True),
)
CLAIMS = [(meaning.claim, meaning.title) for meaning in MEANINGS]
NAMES = ["says_boring", "like_i_returned_it", "has_a_question_mark", "negates", "has_at_most_4_words"]


def closeness(texts, sentences):
    """A sentence with `back` is close, the first of a text's sentences is its unit."""
    likeness = np.array([[0.9 * ("back" in text), 0.8 * ("back" in text)] for text in texts], dtype=np.float32)
    return likeness[:, : len(sentences)], [[text.split(".")[0] + "."] * len(sentences) for text in texts]


def table(observations: pl.DataFrame) -> pl.DataFrame:
    holds = judge(MEANINGS, TEXTS, closeness)
    holds[3, 0] = -1
    keys = [f"t{i}" for i in range(len(TEXTS))]
    return annotation_table(observations, keys, holds, reasons(MEANINGS, TEXTS, holds == 1, closeness), CLAIMS)


SINGLE = pl.DataFrame({"text_id": ["t0", "t1", "t2", "t3"], "cluster_id": list("aabb"), "label": [1.0, 2.0, 3.0, 5.0]})
PAIRS = pl.DataFrame(
    {"text_id_a": ["t0", "t3"], "text_id_b": ["t1", "t2"], "cluster_id": ["a", "b"], "label": [1.0, 0]}
)


def test_reasons_of_many_texts_are_those_of_each() -> None:
    holds = judge(MEANINGS, TEXTS, closeness)
    found = reasons(MEANINGS, TEXTS, holds == 1, closeness)
    for i, text in enumerate(TEXTS):
        for j, meaning in enumerate(MEANINGS):
            assert found[i][j] == because(meaning, text, closeness), (text, meaning.claim)
    assert reasons([None, *MEANINGS], TEXTS, np.ones((4, 6), dtype=bool))[0][:3] == [(), ("boring", "dull"), ()]
    assert reasons((), TEXTS, np.ones((4, 0), dtype=bool)) == [[]] * 4


def test_a_row_per_text_and_two_readable_columns_per_claim() -> None:
    frame = table(SINGLE)
    assert frame.columns == [
        *("text_id", "cluster", "outcome"),
        *(column for name in NAMES for column in (name, f"{name}_because")),
    ]
    assert frame["says_boring"].to_list() == [1, 0, 1, None]
    assert frame["says_boring_because"].to_list() == ["boring | dull", "", "boring", ""]
    assert frame["like_i_returned_it_because"].to_list() == [
        *("", "I sent it back.", ""),
        "It went back to the shop.",
    ]
    assert frame["has_a_question_mark_because"].to_list() == ["", "", "has a question mark", ""]


def test_pairs_have_each_claim_for_both_sides() -> None:
    frame = table(PAIRS)
    assert frame.columns[:6] == [
        *("text_id_a", "text_id_b", "cluster", "outcome"),
        *("says_boring_a", "says_boring_a_because"),
    ]
    assert frame.select("says_boring_a", "says_boring_b").rows() == [(1, 0), (None, 1)]


def test_nothing_found_is_a_table_without_claims() -> None:
    frame = annotation_table(SINGLE, SINGLE["text_id"].to_list(), np.empty((4, 0), np.int8), [[]] * 4, [])
    assert frame.columns == ["text_id", "cluster", "outcome"] and frame.height == 4


def block(language: str) -> str:
    """The lines of the docs in a language."""
    page = (CHECKOUT / "docs" / "reading-a-report.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len([line for line in found.splitlines() if line.strip()]) == 3
    return str(found)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the file that the docs' lines read."""
    folder = tmp_path / "results" / "reports" / "movie_reviews"
    folder.mkdir(parents=True)
    (folder / "annotations.csv").write_bytes(csv_bytes(table(SINGLE)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("published")
def test_the_docs_lines_of_pandas_read_it(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    names: dict[str, object] = {}
    exec(block("python"), names)
    by_claim = names["held_out"].groupby("says_boring")["outcome"].mean()  # type: ignore[attr-defined]
    assert by_claim.to_dict() == {0.0: 2.0, 1.0: 2.0}
    assert "mean" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_the_docs_lines_of_r_read_it(published: Path) -> None:
    done = subprocess.run(["Rscript", "-e", block("r")], cwd=published, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "says_boring" in done.stdout
