from pathlib import Path

import pytest

from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data import registry as speeches
from hsae_dagster_tests.sample_data.archives import speeches_archive


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Mr. Smith met Dr. No. They left.", ["Mr. Smith met Dr. No.", "They left."]),
        ("The U.S. Senate met J. Doe. It voted.", ["The U.S. Senate met J. Doe.", "It voted."]),
        ('He said "Go." She went.', ['He said "Go."', "She went."]),
        ('He spoke. "Go," she said.', ["He spoke.", '"Go," she said.']),
        ("It costs 3.5 per cent. and more.", ["It costs 3.5 per cent. and more."]),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert speeches.sentences(text) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("We won. (APPLAUSE) Again.", "We won. Again."),
        ("We won. (Cheers, applause.Four more!", "We won. Four more!"),
        ("We won. [laughter] Again.", "We won. Again."),
        ("A plan (in three parts) helps.", "A plan (in three parts) helps."),
        ("\nJANE O'DOE: Hello.\nnJOHN ROE: Good evening.", "Hello. Good evening."),
        ("It lasts.At home we \u2014 \u2014 we know.", "It lasts. At home we \u2014 we know."),
        ("The U.S. is here.\u00a0Now.", "The U.S. is here. Now."),
    ],
)
def test_what_is_not_spoken_is_cleaned_away(raw: str, expected: str) -> None:
    assert speeches.clean(raw) == expected


def spoken(count: int, word: str) -> str:
    return " ".join(f"The {word} number {i}." for i in range(count))


def test_excerpts_are_whole_tens_after_the_greeting() -> None:
    assert speeches.excerpts(spoken(10, "day")) == []
    first, second = speeches.excerpts(spoken(29, "day"))
    assert first.startswith("The day number 1. ")
    assert first.endswith("The day number 10.")
    assert second.startswith("The day number 11. ")


def test_table(tmp_path: Path) -> None:
    archive = speeches_archive(
        tmp_path,
        [
            ("democrat", "Jane Doe", spoken(21, "hope")),
            ("republican", "JOHN  ROE", spoken(11, "debt")),
            ("republican", "", "\nMARY MOE: " + spoken(11, "tax")),
            ("democrat", "", spoken(11, "school")),
            ("democrat", "", spoken(11, "health")),
        ],
    )
    frame = speeches.convention_speeches(archive)
    assert frame.columns == ["text", "republican", "speaker"]
    by_speaker = {(s, r) for _, r, s in frame.rows()}
    assert {("JANE DOE", 0), ("JOHN ROE", 1), ("MARY MOE", 1)} < by_speaker
    assert len(by_speaker) == 5  # two unnamed speakers are two clusters
    assert frame.filter(frame["speaker"] == "JANE DOE").height == 2
    assert frame.height == 6
    assert all(len(speeches.sentences(text)) == 10 for text in frame["text"])
    assert frame.equals(speeches.convention_speeches(archive))


def test_other_columns_are_an_error() -> None:
    with pytest.raises(DatasetError, match="party, speaker, text"):
        speeches.read_speeches(b"party,words\ndemocrat,hello\n")
