import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.core.concepts.words import CAPITALS
from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED, Effect
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.report import wording
from hsae_dagster.report.cards import excerpt, matched_spans
from hsae_dagster_tests.report.make_content import OUTCOMES, make_effect

MISSING = "not estimable"
RATING = make_effect(0.42, 0.11)
POINTS = make_effect(0.12, 0.04)
WINS = make_effect(0.08, 0.04)


def test_effects_are_written_in_the_unit_of_their_task():
    assert wording.effect_figure(RATING, "regression", OUTCOMES["regression"]) == "+0.42 mean rating [0.31, 0.53]"
    assert wording.effect_figure(POINTS, "classification", "recommended") == "+12 points [8, 16]"
    assert (
        wording.effect_figure(WINS, "pairwise", "fresh") == "wins 58 % [54, 62] of the pairs in which only it has this"
    )


@pytest.mark.parametrize(
    ("outcome", "figure", "words", "axis"),
    [
        ("price (EUR)", "+0.42 EUR [", "a higher price: on average 0.42 EUR above texts without", "price, EUR"),
        (
            "click rate (percent)",
            "+0.42 percentage points [",
            "click rate: on average 0.42 percentage points",
            "points",
        ),
        ("the number of likes", "+0.42 likes [", "a higher number of likes: on average 0.42 likes above", "likes"),
        ("waiting time (in minutes)", "+0.42 minutes [", "on average 0.42 minutes above", "waiting time, minutes"),
        (
            "rating (1–5)",
            "+0.42 rating [",
            "on average 0.42 above texts without this, on a scale from 1 to 5",
            "rating",
        ),
        ("satisfaction", "+0.42 satisfaction [", "a higher satisfaction: on average 0.42 above", "satisfaction"),
    ],
)
def test_the_unit_of_an_outcome_is_in_its_effects(outcome: str, figure: str, words: str, axis: str):
    assert wording.effect_figure(RATING, "regression", outcome).startswith(figure)
    assert words in wording.effect_words(RATING, "regression", outcome)
    assert wording.axis_label("regression", outcome).endswith(axis)
    unclear = wording.effect_words(make_effect(0.02, 0.05), "regression", outcome)
    assert f"a difference of +0.02{' ' * bool(unit := wording.outcome_unit(outcome))}{unit}, and" in unclear


def test_effects_are_said_as_associations():
    assert wording.effect_words(RATING, "regression", OUTCOMES["regression"]) == (
        "associated with a higher mean rating: on average 0.42 above texts without this, on a scale from −4 to 4 "
        "(95 % interval 0.31 to 0.53)"
    )
    assert wording.effect_words(make_effect(-0.12, 0.04), "classification", "being a Republican speech") == (
        "associated with “being a Republican speech”, which is 12 percentage points less frequent than in texts "
        "without this (95 % interval 8 to 16)"
    )
    assert wording.effect_words(make_effect(-0.08, 0.04), "pairwise", "fresh") == (
        "associated with losing: of the pairs in which only one text has this, that text wins 42 % "
        "(95 % interval 38 to 46)"
    )


@pytest.mark.parametrize("task", OUTCOMES)
def test_an_interval_over_no_difference_is_no_association(task):
    words = wording.effect_words(make_effect(0.02, 0.05), task, OUTCOMES[task])
    assert words.startswith("no clear association with")
    assert "includes no difference" in words


@pytest.mark.parametrize("task", OUTCOMES)
def test_a_missing_effect_is_said_to_be_missing(task):
    for written in (
        wording.effect_figure(NO_EFFECT_ESTIMATED, task, "y"),
        wording.effect_brief(NO_EFFECT_ESTIMATED, task),
        wording.effect_words(NO_EFFECT_ESTIMATED, task, "y"),
        wording.partial_brief(NO_EFFECT_ESTIMATED, task),
    ):
        assert written.endswith("not estimable")
    half = Effect(0.3, math.nan, math.nan, math.nan, math.nan, "x")
    assert "[interval not estimable]" in wording.effect_figure(half, task, "y")
    assert "nan" not in wording.effect_words(half, task, "y")


def test_partial_effects_of_pairs_are_points_not_shares_won():
    assert wording.partial_brief(WINS, "pairwise") == "+8 pts [4, 12]"
    assert wording.effect_brief(WINS, "pairwise") == "58 % [54, 62]"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.31, 0.53, "[0.31, 0.53]"), (310, 530, "[310, 530]"), (3.1, 5.3, "[3.1, 5.3]"), (0.0031, 0.0053, "0.0053]")],
)
def test_digits_follow_the_width_of_the_interval(low, high, expected):
    effect = Effect((low + high) / 2, 0.1, low, high, 0.01, "x")
    assert wording.effect_brief(effect, "regression").endswith(expected)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.0321, "0.032"), (0.0999, "0.10"), (1.0, "1.00"), (math.nan, MISSING)],
)
def test_p_values(p, expected):
    assert wording.p_value(p) == expected


def test_p_phrases():
    assert [wording.p_phrase("p", p) for p in (1e-9, 0.04, math.nan)] == ["p < 0.001", "p = 0.040", "p not estimable"]


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.034, "3.4 %"),
        (0.05, "5 %"),
        (0.132, "13 %"),
        (1.0, "100 %"),
        (math.nan, MISSING),
    ],
)
def test_percent(share, expected):
    assert wording.percent(share) == expected


def test_numbers():
    assert wording.number(-0.001) == "0.00"
    assert wording.number(-1234.5, 1) == "−1,234.5"
    assert wording.number(0.5, signed=True) == "+0.50"
    assert wording.number(math.inf) == "not estimable"


def test_outcome_and_claims_are_shortened_to_their_names():
    assert wording.short_outcome("the planted outcome") == "planted outcome"
    assert wording.short_outcome("mean rating (−4 to 4)") == "mean rating"
    assert wording.short_outcome("(odd)") == "(odd)"
    assert wording.short_claim("says “a” or “b”") == "“a” or “b”"
    assert wording.short_claim("has a sentence like “I sent it back.” (similarity at least 0.5)") == (
        "like “I sent it back.”"
    )
    assert wording.short_claim("mentions\n the   weather in a long and winding way", 20) == "mentions the…"


@given(st.text(), st.integers(5, 60))
def test_a_shortened_text_is_one_short_line(text, length):
    short = wording.shorten(text, length)
    assert len(short) <= length
    assert short == " ".join(short.split())


def test_clean_leaves_nothing_that_breaks_xml_or_a_terminal():
    assert wording.clean("a\x00\x1b[31m\ud800\u202eb") == "a\ufffd\ufffd[31m\ufffd\ufffdb"
    assert wording.clean("ü 日本 🙂\n") == "ü 日本 🙂\n"


def fits(concepts: float, ceiling: float) -> tuple[Fit, ...]:
    return tuple(
        Fit(name, "R2", value, value - 0.01, value + 0.01, "trained")
        for name, value in (("embeddings", ceiling), ("concepts", concepts))
    )


def test_recovery_is_measured_from_floor_to_ceiling():
    assert wording.recovered_share(fits(0.17, 0.43), (0.0, 0.01)) == pytest.approx(0.17 / 0.43)
    assert "predict 40 % of what the embeddings predict" in wording.recovery_words(fits(0.172, 0.43), (0.0, 0.01))


def test_recovery_of_everything_is_not_a_share_above_one():
    above = wording.recovery_words(fits(0.48, 0.43), (0.0, 0.01))
    assert "at least as well as the embeddings" in above and "between" not in above


def test_recovery_below_the_floor_is_chance_and_without_ceiling_not_estimable():
    assert "no better than chance" in wording.recovery_words(fits(0.005, 0.43), (0.0, 0.01))
    assert math.isnan(wording.recovered_share(fits(0.1, -0.1), (0.0, 0.01)))
    assert "no better than chance" in wording.recovery_words(fits(0.1, -0.1), (0.0, 0.01))
    assert "could not be measured" in wording.recovery_words(fits(math.nan, 0.4), (0.0, 0.01))
    assert "could not be measured" in wording.recovery_words((), (math.nan, math.nan))


def test_what_makes_a_claim_hold_is_found_in_the_text():
    text = "The film’s Script of plot holes? No. It ISN’T good."
    marks = ("script", "script plot", "film", "has a question mark", "absent", "isn't")
    assert [text[a:b] for a, b in matched_spans(text, marks)] == ["film", "Script", "?", "ISN’T"]
    assert [text[a:b] for a, b in matched_spans(text, (CAPITALS,))] == ["ISN"]
    hyphened = "A 5-year-old, one year old, a must-see"
    assert [hyphened[a:b] for a, b in matched_spans(hyphened, ("year old",))] == ["year-old", "year old"]
    assert [hyphened[a:b] for a, b in matched_spans(hyphened, ("year-old", "must see"))][1:] == ["year old", "must-see"]


def test_a_sentence_that_makes_a_claim_hold_is_marked_whole():
    text = "I ordered it in May.  In the end,\nI sent it back! It&#39;s a shame."
    parts = excerpt(text, ("In the end,\nI sent it back!",))
    assert [part.text for part in parts if part.matched] == ["In the end, I sent it back"]
    assert "It's a shame" in "".join(part.text for part in parts)


@given(
    st.text(alphabet="ab .?!\n", max_size=400),
    st.sets(st.sampled_from(["aa", "ab", "ab ba", "has an exclamation mark"])),
)
def test_an_excerpt_is_a_stretch_of_the_text(text, terms):
    parts = excerpt(text, tuple(terms), words=7)
    shown = "".join(part.text for part in parts).strip("…")
    assert shown in wording.one_line(text)
    assert len(shown.split()) <= 7


def test_an_excerpt_goes_to_where_the_terms_are_and_says_what_it_left_out():
    text = " ".join(["filler"] * 100 + ["romance"] + ["filler"] * 100)
    parts = excerpt(text, ("romance",))
    assert [part.text for part in parts if part.matched] == ["romance"]
    assert parts[0].text == parts[-1].text == "…"
    assert sum(len(part.text.split()) for part in parts) <= 62
    assert [part.text for part in excerpt("short text")] == ["short text"]
    assert sum(len(part.text) for part in excerpt("字" * 5000)) < 1000
