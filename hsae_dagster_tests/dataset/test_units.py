"""Texts cut into units: nothing is lost, offsets are right, and what a reader calls a sentence is one."""

import time

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.dataset.units import LONGEST, Kind, make_units, split_text
from hsae_dagster.keys import normalise_text, text_id

PIECES = [
    "a",
    "word",
    "Dr.",
    "U.S.",
    "3.50",
    " ",
    "\n",
    "\n\n",
    "\r\n",
    ". ",
    "! ",
    "…",
    "。",
    "，",
    "语",
    "ก็",
    "😀",
    "- ",
]
PIECES += [
    "<p>",
    "</p>",
    "<b>",
    "<br/>",
    "&amp;",
    "&nbsp;",
    "&#39;",
    "<",
    "&",
    "<3",
    "\u00a0",
    "\u2028",
    "\ud800",
    "“",
    "1. ",
]
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=60).map("".join)
texts = texts.filter(lambda text: bool(text.strip()))


def sentences(text: str) -> list[str]:
    return [unit.text for unit in split_text(text, "sentence")]


@settings(max_examples=400, deadline=None)
@given(texts, st.sampled_from(["sentence", "paragraph", "text"]))
def test_spans_hold_every_character_once_and_in_order(text: str, kind: Kind) -> None:
    units = split_text(text, kind)
    covered = [False] * len(text)
    last = 0
    for unit in units:
        assert last <= unit.start < unit.end <= len(text)
        assert unit.text.strip()
        last = unit.end
        covered[unit.start : unit.end] = [True] * (unit.end - unit.start)
    assert all(inside or character.isspace() for inside, character in zip(covered, text, strict=True))


@settings(max_examples=200, deadline=None)
@given(texts.map(lambda text: text.replace("<", "").replace("&", "")).filter(lambda text: bool(text.strip())))
def test_without_markup_a_unit_reads_as_its_span(text: str) -> None:
    for unit in split_text(text, "sentence"):
        assert unit.text == normalise_text(text[unit.start : unit.end])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Lee met J. K. Ray at 5 p.m. It cost $3.50.", ["Dr. Lee met J. K. Ray at 5 p.m.", "It cost $3.50."]),
        ("I waited... and waited. So sad… but true.", ["I waited... and waited.", "So sad… but true."]),
        ('He said "I am going. You stay." Then he left.', ['He said "I am going. You stay."', "Then he left."]),
        ("We need:\n- a horse\n- two carts\n1. one thing", ["We need:", "- a horse", "- two carts", "1. one thing"]),
        ("We offer good pay\nFlexible hours\nNight shifts", ["We offer good pay", "Flexible hours", "Night shifts"]),
        ("我喜欢这件衣服。它很舒服！你觉得呢？", ["我喜欢这件衣服。", "它很舒服！", "你觉得呢？"]),
        ("i love this dress it fits great", ["i love this dress it fits great"]),
        ("I LOVE IT. MR. X DOES NOT!! BUY IT NOW", ["I LOVE IT.", "MR. X DOES NOT!!", "BUY IT NOW"]),
        ("It fits well. Great! Skills: be kind to them.", ["It fits well. Great!", "Skills: be kind to them."]),
        ("Wow! It fits so well.", ["Wow! It fits so well."]),
        ("<p>You &amp; me.</p><ul><li>Free lunch</li><li>Good tea</li></ul>", ["You & me.", "Free lunch", "Good tea"]),
        ("5 < 6 and I <3 you & me. That is so.", ["5 < 6 and I <3 you & me.", "That is so."]),
        ("word", ["word"]),
        ("😀😀 🎉", ["😀😀 🎉"]),
        ("<br/>", ["<br/>"]),
    ],
)  # fmt: skip
def test_what_a_reader_calls_a_unit(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_lines_of_a_wrapped_letter_go_on() -> None:
    letter = (
        "This letter was wrapped at some width by a mail program and so\nits lines go on in lower case. It says that\n"
        "it wants to be read as a whole, which takes some care.\n\nYours truly, Ann"
    )
    assert len(sentences(letter)) == 3
    assert sentences(letter)[-1] == "Yours truly, Ann"
    assert len(split_text(letter, "paragraph")) == 2


def test_a_run_on_is_cut_at_clauses() -> None:
    cut = sentences("we went to the old shop by the sea, " * 40)
    assert len(cut) > 5
    assert all(unit.startswith("we went") and len(unit.split()) <= LONGEST["sentence"] for unit in cut)
    assert max(len(unit) for unit in sentences("我喜欢这件衣服" * 300)) <= 2 * LONGEST["sentence"]
    assert max(len(unit.split()) for unit in sentences("word " * 1000)) <= LONGEST["sentence"]


LONG = {
    "no stop": "word " * 100_000,
    "no space": "语" * 100_000,
    "lines": "a\n" * 100_000,
    "lines without words": "😀\n" * 50_000,
    "open tag": "<a =" + " " * 100_000,
    "open comment": "<!--" * 25_000,
    "ampersands": "&" * 100_000,
    "sentences": "A b. " * 30_000,
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_time_grows_with_length_only(text: str) -> None:
    started = time.process_time()
    assert split_text(text, "sentence")
    assert time.process_time() - started < 8


def corpus(*texts: str) -> pl.DataFrame:
    rows = sorted((text_id(text), text, len(text.split())) for text in texts)
    return pl.DataFrame(rows, schema={"text_id": pl.String, "text": pl.String, "n_words": pl.Int32}, orient="row")


def test_tables_hold_distinct_units_once_and_their_places() -> None:
    frame = corpus("It is  good. I like it.", "I like it. It is good. I like it.", "Only one here")
    made = make_units(frame, "sentence")
    assert sorted(made.units["unit"]) == ["I like it.", "It is good.", "Only one here"]
    assert made.units["unit_id"].to_list() == sorted(map(text_id, made.units["unit"]))
    assert made.units["n_words"].to_list() == [3, 3, 3]
    joined = made.text_units.join(made.units, on="unit_id").join(frame, on="text_id")
    for row in joined.iter_rows(named=True):
        assert normalise_text(row["text"][row["start"] : row["end"]]) == row["unit"]
    assert made.text_units.equals(made.text_units.sort("text_id", "position"))
    assert made.counts() == {
        "kind": "sentence", "units": 6, "distinct": 3, "longest": 3, "shortest": 3, "median per text": 2.0,
        "most per text": 3,
    }  # fmt: skip


def test_auto_takes_sentences_where_the_median_text_has_two() -> None:
    assert (
        make_units(corpus("It is so. I like it.", "One thing only", "Two are here. Yes they are."), "auto").kind
        == "sentence"
    )
    whole = make_units(corpus("It is so. I like it.", "One thing only", "Another one alone"), "auto")
    assert whole.kind == "text"
    assert whole.units["unit_id"].to_list() == whole.text_units["text_id"].to_list()
    assert whole.text_units["end"].to_list() == [len(text) for text in whole.units["unit"]]
    assert make_units(corpus("One two. Three four."), "paragraph").units["unit"].to_list() == ["One two. Three four."]
