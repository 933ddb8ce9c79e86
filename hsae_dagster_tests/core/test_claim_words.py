"""Words, terms, cues and lengths are read as the independent reader reads them, on whatever texts there are."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hsae_dagster.core.concepts.claims import Cue, Length, WordGroup, because, judge
from hsae_dagster.core.concepts.words import (
    SIGN_CUES,
    WORD_CUES,
    as_written,
    meanings,
    occurrences,
    supported_terms,
    words_of,
)
from hsae_dagster_tests.reader.annotate import annotate
from hsae_dagster_tests.reader.words import stretches

# What real texts trip over: apostrophes, entities, tags, marks of several scripts, decomposed letters, line ends.
WORDS = """wait waits WAIT Waited minutes fit's fit’s ladies' don’t DON'T I'm 'twas it's 3 2nd ² B2B US É E\u0301TE été
&amp; &#63; &quot;no&quot; &lt;br&gt; &nbsp; <br> <br/> </p> <B> < > <3 <film> 宽松 。 ？ ！ 「好」 Größe İ ß Ω
. ... … ! ? ; : , - – — ( ) (so) [x] " “a” „b“ «c» ' ` ´ _ _5 5_ * • 🙂 \u200b"""
PIECES = [
    *WORDS.split(),
    *("\t", "\n", "\r", "\u2028", "\u00a0", "\x0b"),
    '<a href="film.html">',
    "<p class='x'>",
    "a < b and c > d",
    " ",
    " ",
    " ",
]
texts = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))


def stretched(text: str) -> list[list[str]]:
    """The words that the product finds, cut where it lets no term reach across."""
    found: list[list[str]] = [[]]
    for word in words_of(text):
        if word is None:
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


@settings(max_examples=400, deadline=None)
@given(texts)
def test_words_are_those_that_a_reader_sees(text: str) -> None:
    assert stretched(text) == stretches(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.data())
def test_word_groups_hold_where_a_reader_finds_one_of_their_terms(some: list[str], data: st.DataObject) -> None:
    said = [words for text in some for words in stretches(text)]
    runs = [" ".join(words[i : i + n]) for words in said for n in (1, 2, 3) for i in range(len(words) - n + 1)]
    terms = data.draw(st.lists(st.sampled_from([*runs, "wait", "minutes", "wait minutes"]), min_size=1, unique=True))
    groups = [WordGroup(tuple(terms)), WordGroup((terms[0],))]
    groups.append(WordGroup(tuple(term.replace(" ", "-") for term in terms)))
    judged = judge(groups, some)
    assert judged.astype(bool).tolist() == annotate([group.claim for group in groups], some).tolist()
    for i, text in enumerate(some):
        for j, group in enumerate(groups):
            assert bool(because(group, text)) == bool(judged[i, j]), "what holds says why, and nothing else does"


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.integers(0, 12))
@example(["。`"], 0)
def test_cues_and_lengths_hold_where_a_reader_would_say_so(some: list[str], n_words: int) -> None:
    claims = [Cue(name) for name in (*WORD_CUES, *SIGN_CUES)]
    claims += [Length(n_words, most=True), Length(n_words, most=False)]
    judged = judge(claims, some).astype(bool)
    read = annotate([claim.claim for claim in claims], some)
    assert [claims[j].claim for j in np.flatnonzero((judged != read).any(axis=0))] == []


def test_a_term_is_printed_with_the_hyphen_that_texts_mostly_write() -> None:
    some = ["A 5-year-old and two Year‑Olds", "one year old", "of year-olds.", "well made, well-made, well. Made"]
    assert as_written(["year old", "year olds", "well made", "old"], some) == (
        "year old",
        "year-olds",
        "well made",
        "old",
    )
    group = WordGroup(("year-olds",))
    assert group.claim == "says “year-olds”"
    assert judge([group], [*some, "his year olds"])[:, 0].tolist() == [1, 0, 1, 0, 1]
    assert because(group, some[0]) == ("year-olds",)


def test_every_word_of_a_cue_is_a_word_that_texts_can_have() -> None:
    for name, words in WORD_CUES.items():
        assert [words_of(word) for word in words] == [[word] for word in words], name
        assert len(set(words)) == len(words), name


@pytest.mark.parametrize("mark", [".", "!", "?", ";", ":", "…", "\n", "。", "？", "！", "<br />", "</p>"])
def test_no_term_reaches_across_the_end_of_a_sentence_or_line(mark: str) -> None:
    table = supported_terms([f"the long{mark} wait was cold {i % 7}" for i in range(40)], np.arange(40))
    names = [family.name for family in table.families]
    assert names == []  # everything is in all texts
    some = [f"the long{mark} wait" if i % 2 else "nothing" for i in range(40)]
    assert [family.name for family in supported_terms(some, np.arange(40)).families] == ["long", "wait"]
    assert occurrences(some, ["long wait"]).nnz == 0
    assert occurrences(["a long, (cold) wait"], ["long cold", "cold wait"]).nnz == 2


def test_a_supported_term_occurs_in_enough_texts_of_enough_clusters() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 5)
    some = [
        ". ".join(
            [
                *(["spread"] if rng.random() < 0.2 else []),
                *(["owned"] if clusters[i] < 4 else []),
                *(["rare"] if i < 4 else []),
                *(["too small"] if i % 11 == 0 else []),
                *(["of it", "2023", "x"] if i % 3 == 0 else []),
                "always",
                "there",
            ]
        )
        for i in range(300)
    ]
    table = supported_terms(some, clusters)
    # Not: a word of four clusters, of four texts, of all texts; function words, numbers, single letters.
    assert [family.name for family in table.families] == ["small", "spread", "too small"]
    taken = supported_terms(some, clusters, taken=frozenset({"spread", "too small"}))
    assert [family.name for family in taken.families] == ["small"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join), min_size=6, max_size=25))
def test_a_family_is_in_the_texts_that_hold_one_of_its_listed_forms(some: list[str]) -> None:
    table = supported_terms(some, np.arange(len(some)), min_texts=2, min_clusters=1)
    for j, family in enumerate(table.families):
        holds = table.matrix[:, [j]].toarray().ravel() > 0
        assert holds.tolist() == annotate([WordGroup(family.forms).claim], some)[:, 0].tolist()
        counts = [int(annotate([WordGroup((form,)).claim], some).sum()) for form in family.forms]
        assert counts == sorted(counts, reverse=True), "commonest first"


def test_terms_are_close_by_name_and_by_the_sentences_that_hold_them() -> None:
    rng = np.random.default_rng(0)
    sentences = [f"the {a} dish was {b}" for a in ("soup", "stew") for b in ("hot", "warm", "good")] * 4
    sentences += [f"a {a} was {b}" for a in ("train", "hotel") for b in ("late", "loud", "full")] * 4
    table = supported_terms(sentences, np.arange(len(sentences)))
    place = {family.name: j for j, family in enumerate(table.families)}
    about_food = np.array(["dish" in sentence for sentence in sentences])
    vectors = np.where(about_food[:, None], [1.0, 0.0, 0.2], [0.0, 1.0, 0.2]) + 0.01 * rng.normal(size=(48, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = np.tile([[1.0, 0.0]], (len(table.families), 1))
    names[place["hot"]] = names[place["hotel"]] = [0.6, 0.8]  # alike in form only
    found = meanings(table, names.astype(np.float32), sentences, vectors.astype(np.float32))
    assert found.dtype == np.float32
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-5)
    cosines = found @ found.T
    assert cosines[place["soup"], place["stew"]] > 0.9
    assert cosines[place["soup"], place["train"]] < 0.1
    assert cosines[place["hot"], place["hotel"]] < cosines[place["soup"], place["stew"]]


def test_a_family_is_the_regular_inflections_of_one_word() -> None:
    """Stems alone fold "busy" and "business", lemmas alone "good" and "better"; "gooding" is a name."""
    counts = {"busy": 20, "business": 20, "good": 200, "better": 20, "gooding": 3, "return": 20, "returned": 20}
    texts = [f"{word} {'xyz'[i % 3]}stuff" for word, n in counts.items() for i in range(n)]
    table = supported_terms(texts, np.arange(len(texts)), min_texts=3, min_clusters=3)
    families = {family.forms for family in table.families if len(family.forms[0].split()) == 1}
    assert {("busy",), ("business",), ("good",), ("better",), ("return", "returned")} <= families
    assert not any("gooding" in form for family in table.families for form in family.forms)
