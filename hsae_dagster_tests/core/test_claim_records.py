"""A claim's sentence, its record and its judgement are one thing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsae_dagster.core.concepts.claims import (
    MOST_SENTENCES,
    Cue,
    Length,
    Meaning,
    Sentences,
    WordGroup,
    because,
    definition_of,
    judge,
    least_similarity,
    meaning_of,
    strongest_units,
    typical_units,
)
from hsae_dagster.core.concepts.words import CAPITALS, SIGN_CUES, WORD_CUES
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.reader.claim import Exemplars, Listed, Named, parse

words = st.text("abcdefg' ", min_size=1, max_size=12).filter(lambda word: word.strip() != "")
sentences = st.text(min_size=1, max_size=30).filter(lambda text: "“" not in text and "”" not in text)
meanings = st.one_of(
    st.builds(WordGroup, st.lists(words, min_size=1, max_size=12, unique=True).map(tuple)),
    st.builds(
        Sentences,
        st.lists(sentences, min_size=1, max_size=3, unique=True).map(tuple),
        st.sampled_from([0.5, 0.55, 0.6, 0.65, 0.7]),
        st.text("0123456789abcdef", min_size=8, max_size=8),
    ),
    st.builds(Cue, st.sampled_from([*WORD_CUES, *SIGN_CUES])),
    st.builds(Length, st.integers(0, 500), st.booleans()),
)


@settings(max_examples=200, deadline=None)
@given(meanings)
def test_a_record_makes_the_same_claim_again(meaning: Meaning) -> None:
    again = meaning_of(definition_of(meaning))
    assert again == meaning
    assert (again.claim, again.title) == (meaning.claim, meaning.title)


@settings(max_examples=200, deadline=None)
@given(meanings)
def test_the_printed_claim_holds_all_that_is_meant(meaning: Meaning) -> None:
    read = parse(meaning.claim)
    if isinstance(meaning, WordGroup):
        assert read == Listed("says", meaning.terms)
    elif isinstance(meaning, Sentences):
        assert read == Exemplars(meaning.sentences, meaning.similarity)
    elif isinstance(meaning, Cue) and meaning.words:
        assert read == Listed(meaning.name, meaning.words)
    else:
        assert read == Named(meaning.claim)


@pytest.mark.parametrize(
    ("meaning", "claim", "title"),
    [
        (WordGroup(("return",)), "says “return”", "return"),
        (WordGroup(("return", "returned", "send back")), "says “return”, “returned” or “send back”", "return"),
        (
            Sentences(("I sent it back.", "It went back."), 0.6, "s"),
            "has a sentence like “I sent it back.” or “It went back.” (similarity at least 0.6)",
            "I sent it back.",
        ),
        (Cue("has a question mark"), "has a question mark", "has a question mark"),
        (Cue("gives a reason"), "gives a reason: “because”, “therefore”, “thus”, “hence”", "gives a reason"),
        (Length(30, most=True), "has at most 30 words", "has at most 30 words"),
        (Length(9, most=False), "has at least 9 words", "has at least 9 words"),
    ],
)
def test_claims_are_sentences_that_a_person_would_say(meaning: Meaning, claim: str, title: str) -> None:
    assert (meaning.claim, meaning.title) == (claim, title)


@pytest.mark.parametrize(
    "definition", [None, {}, {"kind": "lexicon", "terms": ["a"]}, {"kind": "cue", "name": "rhymes"}, {"terms": ["a"]}]
)
def test_what_cannot_be_executed_is_refused_with_the_remedy(definition: dict | None) -> None:
    with pytest.raises(MethodError, match=r"annotation\.model"):
        meaning_of(definition)


@pytest.mark.parametrize(
    ("meaning", "text", "why"),
    [
        (WordGroup(("wait", "minutes", "too long")), "Ten minutes’ WAIT, too long", ("wait", "minutes", "too long")),
        (WordGroup(("wait",)), "waiting", ()),
        (Cue("speaks of oneself"), "I’m here, and it is mine", ("mine", "i'm")),
        (Cue("has an exclamation mark"), "Ah!", ("has an exclamation mark",)),
        (Cue("has an exclamation mark"), "Ah.", ()),
        (Cue(CAPITALS), "it was GOOD", (CAPITALS,)),
        (Length(2, most=True), "two words", ("has at most 2 words",)),
        (Length(2, most=True), "some three words", ()),
    ],
)
def test_what_makes_a_claim_hold(meaning: Meaning, text: str, why: tuple[str, ...]) -> None:
    assert because(meaning, text) == why
    assert judge([meaning], [text]).tolist() == [[int(bool(why))]]


def likeness(texts: list[str], quoted: list[str]) -> tuple[np.ndarray, list[list[str]]]:
    """A text is as close to a sentence as its digits say; the unit is made up."""
    return np.array([[int(text) / 100 for _ in quoted] for text in texts]), [[f"unit {t}"] * len(quoted) for t in texts]


def test_quoted_sentences_hold_from_their_similarity_on() -> None:
    claim = Sentences(("A.", "B."), 0.55, "set")
    assert judge([claim, Length(1, most=True)], ["54", "55", "99"], likeness).tolist() == [[0, 1], [1, 1], [1, 1]]
    assert because(claim, "55", likeness) == ("unit 55",)
    assert because(claim, "54", likeness) == ()
    with pytest.raises(MethodError, match="embedder"):
        judge([claim], ["55"])


def test_no_texts_and_no_claims_are_empty_answers() -> None:
    assert judge([], ["a", "b"]).shape == (2, 0)
    assert judge([WordGroup(("a",)), Cue("has an exclamation mark"), Length(1, most=True)], []).shape == (0, 3)


def test_exemplars_are_short_typical_and_alike() -> None:
    # Two things that the neuron fires on, ten units each, and an odd one that fires it most.
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(16)[:2], 10, axis=0)
    vectors = np.vstack([centres + rng.normal(size=(20, 16)) * 0.12, np.eye(16)[[5]]]).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    activation, rows = np.append(np.full(20, 1.0), 1.5), np.arange(21)
    n_words = np.full(21, 8)
    n_words[[0, 1, 10]] = [2, 17, 400]
    found = typical_units(*strongest_units(activation, rows, n_words, rows), vectors, coherent=0.5)
    assert {0, 1, 10} & {unit for each in found for unit in each} == set()
    assert [len(each) for each in found] == [1, MOST_SENTENCES, 1, MOST_SENTENCES]
    for each in found:
        assert (vectors[list(each)] @ vectors[list(each)].T).min() >= 0.5
    assert {each[0] // 10 for each in found} == {0, 1}, "one set for each of the two things"
    assert typical_units(*strongest_units(activation, rows, np.full(21, 2), rows), vectors, coherent=0.5) == []
    strict = typical_units(*strongest_units(activation, rows, n_words, rows), vectors, coherent=0.999)
    assert [len(each) for each in strict] == [1, 1], "what is not coherent does not stand together"
    same = typical_units(*strongest_units(activation, rows, n_words, rows // 10), vectors, coherent=0.5)
    assert [len(each) for each in same] == [1, 1], "of one wording one is quoted"


def test_boilerplate_makes_sentences_alike_by_chance() -> None:
    rng = np.random.default_rng(0)

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    apart = unit(rng.normal(size=(500, 64)))
    shared = unit(apart + np.eye(64)[[0]])
    assert least_similarity(apart, np.random.default_rng(1)) == pytest.approx(3 / 8, abs=0.02)
    assert least_similarity(shared, np.random.default_rng(1)) > 0.55
    assert least_similarity(np.eye(10), np.random.default_rng(1)) == 0.0, "a unit is not compared with itself"
