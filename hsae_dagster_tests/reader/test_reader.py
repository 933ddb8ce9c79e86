import ast
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hsae_dagster_tests.reader.annotate import annotate
from hsae_dagster_tests.reader.claim import Exemplars, Listed, Named, NotUnderstoodError, parse
from hsae_dagster_tests.reader.cues import CUES, shows
from hsae_dagster_tests.reader.words import occurring, stretches


def holds(claim: str, text: str) -> bool:
    return bool(annotate([claim], [text])[0, 0])


def test_the_reader_knows_nothing_of_the_product() -> None:
    for path in Path(__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        named |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not [name for name in named if re.match(r"hsae_dagster(\.|$)", name)], path.name
        assert all(n.level == 0 for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)), path.name


def test_word_groups_are_taken_apart() -> None:
    assert parse("says “return”, “returned” or “sending it back”") == Listed(
        "says", ("return", "returned", "sending it back")
    )
    assert parse("says “wait”").terms == ("wait",)
    assert parse("says “a, b” or “c: d”").terms == ("a, b", "c: d")


def test_closed_classes_are_taken_apart_though_their_name_has_quotes() -> None:
    read = parse("speaks of “I”: “I”, “me”, “I'm”")
    assert read == Listed("speaks of “I”", ("I", "me", "I'm"))


def test_exemplars_are_taken_apart() -> None:
    assert parse("has a sentence like “I sent it back.” (similarity at least 0.55)") == Exemplars(
        ("I sent it back.",), 0.55
    )
    claim = "has a sentence like “One: two.” or “She said “no” (twice).” (similarity at least 0.6)"
    assert parse(claim) == Exemplars(("One: two.", "She said “no” (twice)."), 0.6)
    three = "has a sentence like “A.”, “B.” or “C.” (similarity at least 1)"
    assert parse(three) == Exemplars(("A.", "B.", "C."), 1.0)


def test_other_claims_are_names() -> None:
    assert parse("has a question mark") == Named("has a question mark")


@pytest.mark.parametrize(
    "claim",
    [
        "says the fit",
        'says "fit" or "fits"',
        "says “fit”; “fits”",
        "says “fit”, “fits” and more",
        "has a sentence like “I sent it back.”",
        "has a sentence like “I sent it back.” (similarity at least .55)",
        "speaks of “I”: “I”, …",
        "  ",
    ],
)
def test_a_claim_printed_otherwise_is_refused_and_not_guessed_at(claim: str) -> None:
    with pytest.raises(NotUnderstoodError, match="does not read as"):
        parse(claim)


def test_words_and_stretches() -> None:
    said = stretches("The dress's hem: too long!\nI don’t like it, really; the ladies' one (size 12) is half-price…")
    assert said == [
        ["the", "dress", "hem"],
        ["too", "long"],
        ["i", "don't", "like", "it", "really"],
        ["the", "ladies", "one", "size", "12", "is", "half", "price"],
    ]
    assert stretches(" … \n") == []


FIT = "says “fit”, “fits well” or “runs small”"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The fit is good.", True),
        ("A good FIT", True),
        ("Fitting room, outfit, fits", False),  # no form is folded that is not listed
        ("It fits well", True),
        ("It fits, well", True),  # a comma ends nothing
        ("It fits. Well then.", False),
        ("It fits\nwell", False),
        ("it fits; well", False),
        ("well fits", False),
        ("It fits very well", False),
        ("runs  small", True),
        ("runs\tsmall", True),
        ("runs&nbsp;small", True),
        ("runs (small)", True),
        ("The fit's off", True),
        ("The fit’s off", True),
        ("“fit”", True),
        ("'fit'", True),
        ("tight-fit trousers", True),
        ("runs-small", True),
        ("", False),
        ("🙂🙂", False),
    ],
)
def test_word_groups(text: str, expected: bool) -> None:
    assert holds(FIT, text) is expected


@pytest.mark.parametrize("claim", ["says “year old”", "says “year-old”"])
def test_a_hyphen_counts_as_a_space(claim: str) -> None:
    assert holds(claim, "a 5-year-old")
    assert holds(claim, "one year old")
    assert not holds(claim, "a year. Old news; year-olds")


def test_apostrophes_belong_to_words() -> None:
    claim = "speaks of “I”: “I”, “I'm”, “don’t”"
    assert holds(claim, "i’m glad")
    assert holds(claim, "We DON'T")
    assert holds(claim, "So do I.")
    assert not holds(claim, "I’ll come; we do n't")
    assert not holds("says “don”", "don't")


def test_which_terms_occur() -> None:
    assert occurring(["b c", "c", "d a"], stretches("A b, c. D? A")) == ["b c", "c"]
    with pytest.raises(ValueError, match="no word"):
        occurring(["…"], [["text"]])


@pytest.mark.parametrize("letters", ["Größe", "été", "e\u0301te\u0301", "ΩΜΕΓΑ", "宽松"])
def test_words_of_other_alphabets(letters: str) -> None:
    assert holds(f"says “{letters.lower()}”", f"– {letters} –")


@pytest.mark.parametrize(
    ("cue", "has", "lacks"),
    [
        ("has a question mark", ["Why?", "Why?!", "&#63;"], ["Why.", ""]),
        ("has an exclamation mark", ["Ah!", "no!!"], ["Ah.", "?"]),
        ("has a number in digits", ["size 8", "3rd", "£5.50"], ["eight", "IV", "²"]),
        (
            "has words in quotation marks",
            ['He said "no".', "a “fine” one", "«oui»", "„ja“", "&quot;no&quot;"],
            ["don't", "5'4\"", "'no'"],
        ),
        ("has a word in capitals", ["I LOVE it", "the US", "ÄRGER"], ["I am A.", "McDonald", "Aa", "B2B"]),
    ],
)
def test_cues(cue: str, has: list[str], lacks: list[str]) -> None:
    assert [text for text in has if not shows(cue, text)] == []
    assert [text for text in lacks if shows(cue, text)] == []


def test_an_unknown_cue_is_refused_with_the_known_ones() -> None:
    with pytest.raises(NotUnderstoodError, match=r"`rhymes`.*has an exclamation mark"):
        annotate(["rhymes"], ["text"])
    assert "has a question mark" in CUES


def embedder(vectors: dict[str, list[float]]) -> Callable[[list[str]], np.ndarray]:
    return lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)


def test_exemplars_hold_where_one_unit_is_close_enough_to_one_of_them() -> None:
    # Lengths differ on purpose: likeness is a cosine.
    vectors = {
        "S1": [2.0, 0.0, 0.0],
        "S2": [0.0, 1.0, 0.0],
        "near S1": [3.0, 0.0, 4.0],  # cosine 0.6
        "between": [1.0, 1.0, 1.0],  # 0.577 with either
        "far": [0.0, 0.0, 5.0],
        "against": [-1.0, 0.0, 0.0],
    }
    units = [["far", "near S1"], ["between"], ["far", "against"], [], ["S2"]]
    texts = [" ".join(own) for own in units]
    claims = [
        "has a sentence like “S1” or “S2” (similarity at least 0.59)",
        "has a sentence like “S1” (similarity at least 0.55)",
        "has a sentence like “S2” (similarity at least 0.99)",
    ]
    found = annotate(claims, texts, units, embedder(vectors))
    assert found.dtype == bool
    assert found.tolist() == [
        [True, True, False],
        [False, True, False],
        [False, False, False],
        [False, False, False],
        [True, False, True],
    ]


def test_exemplars_without_units_or_embedder_are_refused() -> None:
    claim = "has a sentence like “S1” (similarity at least 0.55)"
    with pytest.raises(ValueError, match="units"):
        annotate([claim], ["S1"])
    with pytest.raises(ValueError, match="1 texts and units of 2"):
        annotate([claim], ["S1"], [["S1"], []], embedder({"S1": [1.0]}))


def test_columns_are_in_the_order_of_the_claims() -> None:
    claims = ["has an exclamation mark", "says “a”", "has an exclamation mark"]
    assert annotate(claims, ["b!", "a"]).tolist() == [[True, False, True], [False, True, False]]
