"""A proposal names the right columns of tables nobody prepared, says when it is unsure, and is valid as it stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.dataset.discovery import parse_declaration
from hsae_dagster.dataset.new.columns import profile
from hsae_dagster.dataset.new.proposal import Proposal, Wishes, propose, render
from hsae_dagster.dataset.rows import plain_headers
from hsae_dagster.errors import DatasetError

WORDS = "the shirt was small and it fell apart after one wash but my sister likes the colour of this one"


def sentences(n: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{' '.join(rng.choice(WORDS.split(), 9))} {i}x" for i in range(n)]


def reviews(n: int = 600, **more: Any) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    columns = {
        "Unnamed: 0": range(n),
        "Review Text": sentences(n),
        "Star Rating": rng.integers(1, 6, n),
        "User Name": [f"user {i % 90}" for i in range(n)],
        "age": rng.integers(18, 80, n),
    }
    return pl.DataFrame(columns | more)


def declaration(proposal: Proposal) -> dict[str, Any]:
    """The active fields as dataset.yaml nests them."""
    made: dict[str, Any] = {}
    for item in proposal.fields:
        if item.active:
            *sections, last = item.path.split(".")
            place = made
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = item.value
    return made


def picked(proposal: Proposal) -> dict[str, Any]:
    return {"task": proposal.value("task")} | declaration(proposal)["columns"]


def test_messy_names_are_understood() -> None:
    found = propose(reviews(), "r.csv")
    assert picked(found) == {
        "task": "regression",
        "text": "Review Text",
        "label": "Star Rating",
        "cluster_by": "User Name",
    }
    assert not found.unsure
    # What to hold constant is a causal decision, which no table shows.
    assert "controls" not in render(found, "r.csv")


def test_two_classes_that_are_no_numbers_get_a_positive_one_and_doubt() -> None:
    frame = reviews().drop("Star Rating").with_columns(pl.Series("verdict", ["keep", "return", "keep"] * 200))
    found = propose(frame, "r.csv")
    assert (picked(found)["task"], picked(found)["label"], picked(found)["positive"]) == (
        "classification",
        "verdict",
        "return",
    )
    assert "columns.positive" in [field.path for field in found.unsure]
    said = next(field for field in found.fields if field.path == "columns.positive")
    assert said.others == ("keep",)


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        ([0, 1], None),
        ([0.0, 1.0], None),
        (["0", "1"], None),
        (["no", "yes"], "yes"),
        ([False, True], True),
        ([1, 2], "1"),
    ],
)
def test_the_positive_class_follows_from_the_values(values: list[Any], positive: Any) -> None:
    frame = reviews().drop("Star Rating").with_columns(pl.Series("label", [values[i % 3 == 0] for i in range(600)]))
    assert picked(propose(frame, "r.csv")).get("positive") == positive


def test_a_pair_is_recognised_by_its_names_and_the_winner_by_its_values() -> None:
    frame = pl.DataFrame(
        {
            "test_id": [f"t{i % 80}" for i in range(400)],
            "headlineA": sentences(400, 1),
            "headlineB": sentences(400, 2),
            "winner": ["headlineA", "headlineB"] * 200,
            "clicks_a": range(400),
        }
    )
    assert picked(propose(frame, "p.csv")) == {
        "task": "pairwise",
        "text_a": "headlineA",
        "text_b": "headlineB",
        "label": "winner",
        "positive": "headlineA",
        "cluster_by": "test_id",
    }


def test_a_column_that_is_the_outcome_again_is_no_cluster() -> None:
    topics = [f"topic number {i % 40}" for i in range(800)]
    frame = pl.DataFrame({"text": sentences(800), "topic": topics, "topic_code": [i % 40 for i in range(800)]})
    found = propose(frame, "t.csv", Wishes(label="topic"))
    assert found.value("columns.cluster_by") is None
    assert "`topic_code` says the same as `topic`" in render(found, "t.csv")
    assert found.value("task") == "classification"
    assert "task" in [field.path for field in found.unsure]


def test_near_choices_are_told() -> None:
    frame = reviews().with_columns(pl.Series("Overall score", np.arange(600) % 7))
    label = next(field for field in propose(frame, "r.csv").fields if field.path == "columns.label")
    assert not label.sure
    assert {label.value, *label.others} == {"Overall score", "Star Rating"}


def test_what_the_user_says_is_taken() -> None:
    found = propose(reviews(), "r.csv", Wishes(label="age", cluster_by="Star Rating"))
    assert (picked(found)["label"], picked(found)["cluster_by"]) == ("age", "Star Rating")
    assert not found.unsure


@pytest.mark.parametrize(
    ("frame", "wishes", "words"),
    [
        (pl.DataFrame({"a": [1, 2], "b": [3, 4]}), Wishes(), ["No column looks like texts", "--text", "a: ", "b: "]),
        (pl.DataFrame({"words": [["a", "b"], ["c"]], "b": [3, 4]}), Wishes(), ["`words` holds lists or records"]),
        (pl.DataFrame({"text": sentences(50)}), Wishes(), ["No column looks like an outcome", "--label"]),
        (reviews(), Wishes(label="stars"), ["no column `stars`", "Star Rating: number"]),
        (reviews(), Wishes(text_a="Review Text"), ["both of its texts"]),
        (reviews(), Wishes(task="pairwise"), ["--text-a and --text-b"]),
        (reviews(), Wishes(label="Review Text"), ["is the text"]),
        (
            reviews().with_columns(label=pl.Series(["up", "down"] * 300)),
            Wishes(label="label", positive="yes"),
            ["`yes`"],
        ),
    ],
)
def test_errors_teach(frame: pl.DataFrame, wishes: Wishes, words: list[str]) -> None:
    with pytest.raises(DatasetError) as error:
        propose(frame, "x.csv", wishes)
    for word in words:
        assert word in str(error.value)


def test_missing_values_are_dropped_and_counted() -> None:
    frame = reviews().with_columns(pl.when(pl.col("age") < 20).then(None).otherwise("Star Rating").alias("Star Rating"))
    missing = frame["Star Rating"].null_count()
    assert missing
    found = propose(frame, "r.csv")
    assert found.value("columns.on_missing") == "drop"
    assert f"{missing} of 600 rows" in render(found, "r.csv")


def test_answers_in_many_spellings_are_two_and_marks_of_missing_ones_none() -> None:
    rng = np.random.default_rng(2)
    answers = rng.choice(["yes", "Yes", "no", "NO", "n/a", "?", ""], 600, p=[0.4, 0.05, 0.4, 0.05, 0.05, 0.03, 0.02])
    frame = pl.DataFrame(
        {
            "Nr.": rng.permutation(600),
            "Tïtel": sentences(600),
            "Is it fun?": answers,
            "Coder": [f"c{i % 4}" for i in range(600)],
        }
    )
    found = propose(frame, "x.csv")
    assert picked(found) == {
        "task": "classification",
        "text": "Tïtel",
        "label": "Is it fun?",
        "positive": "yes",
        "missing": ["n/a", "?"],
        "on_missing": "drop",
    }
    said = {item.path: item.why for item in found.fields}
    assert f"“n/a” in {(answers == 'n/a').sum()} rows" in said["columns.missing"]
    left_out = np.isin(answers, ["n/a", "?", ""]).sum()
    assert said["columns.on_missing"].startswith(f"{left_out} of 600 rows")
    assert not found.unsure


def test_a_class_called_none_is_a_class() -> None:
    frame = pl.DataFrame({"text": sentences(600), "category": ["none", "some", "many"] * 200})
    found = propose(frame, "x.csv")
    assert found.value("columns.missing") is None
    assert "none (200)" in next(item.why for item in found.fields if item.path == "columns.positive")


def test_numbers_spoilt_by_words_are_pointed_out() -> None:
    values = [str(i % 5) for i in range(599)] + ["broken"]
    found = propose(reviews().with_columns(pl.Series("Star Rating", values)), "r.csv")
    assert found.value("task") == "regression"
    assert "1 values of `Star Rating` are not numbers (such as “broken”)" in " ".join(found.remarks)


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("Das Hemd war leider zu klein und ging nach der ersten Wäsche kaputt", True),
        ("A camisa ficou pequena e a loja demorou a responder, mas a cor é bonita", True),
        ("Was in dem Paket war, hat an den Ecken gelitten", True),
        ("The shirt was a bit small, and the shop took a while", False),
        ("Shop of the year: nice shirts", False),
    ],
)
def test_other_languages_are_remarked(text: str, foreign: bool) -> None:
    texts = [f"{text} {i}" for i in range(600)]
    remarks = propose(reviews(**{"Review Text": texts}), "r.csv").remarks
    assert any("multilingual" in remark for remark in remarks) is foreign


@pytest.mark.parametrize(("n", "select"), [(600, 10), (3_000, 12), (9_000, None)])
def test_sizes_follow_the_number_of_texts(n: int, select: int | None) -> None:
    assert propose(reviews(n), "r.csv").value("selection.n") == select
    assert propose(reviews(n), "r.csv").value("saes") is None, "the autoencoder's size is measured"
    # Of few rows each half tests what the other found; the line says what that costs.
    design = [field for field in propose(reviews(n), "r.csv").fields if field.path == "splits.design"]
    assert [field.value for field in design] == (["auto"] if n < 5000 else [])
    assert all("Rows added later are not tested" in field.why for field in design)


def test_kinds_of_columns() -> None:
    frame = pl.DataFrame(
        {
            "row": range(100),
            "date": [f"2024-01-{i % 28 + 1:02d}" for i in range(100)],
            "empty": [None] * 100,
            "nested": [[1]] * 100,
            "film": [f"The Return of the King {i % 12}" for i in range(100)],
            "price": [f"{i}.5" for i in range(100)],
            "text": sentences(100),
        }
    )
    kinds = {column.name: column.kind for column in profile(frame)}
    assert kinds == {
        "row": "row number",
        "date": "date",
        "empty": "empty",
        "nested": "other",
        "film": "category",
        "price": "number",
        "text": "text",
    }


@given(
    names=st.lists(st.text(min_size=1, max_size=12).map(str.strip).filter(bool), min_size=3, max_size=3, unique=True),
    label=st.sampled_from([["a: b", "# c"], ["yes", "no"], ["null", "~"], ["1e3", "0x1"], [1, 0], [1.5, 2.5]]),
    source=st.text(max_size=20),
)
def test_the_yaml_reads_back_as_what_was_proposed_whatever_the_names(
    names: list[str], label: list[Any], source: str
) -> None:
    names = list(plain_headers(pl.DataFrame({name: [""] for name in names})).columns)
    text, outcome, cluster = names
    columns = {
        text: sentences(60),
        outcome: [label[i % 2] for i in range(60)],
        cluster: [f"k{i % 30}" for i in range(60)],
    }
    found = propose(pl.DataFrame(columns), "x.csv", Wishes(text=text, label=outcome, cluster_by=cluster))
    read = yaml.safe_load(render(found, source))
    assert read == declaration(found)
    spec = parse_declaration(read, Path("x"))
    assert (spec.columns.text, spec.columns.label, spec.columns.cluster_by) == (text, outcome, cluster)


def test_names_that_polars_takes_for_patterns_are_names() -> None:
    frame = pl.DataFrame({"^.*$": sentences(60), "*": [i % 2 for i in range(60)]})
    found = propose(frame, "x.csv")
    assert picked(found)["text"] == "(^.*$)" and picked(found)["label"] == "(*)"


def test_no_cluster_is_proposed_where_none_is_wanted_and_what_that_gives_up_is_said() -> None:
    usual, none = propose(reviews(), "r.csv"), propose(reviews(), "r.csv", Wishes(cluster_by="none"))
    assert usual.value("columns.cluster_by") == "User Name" and none.value("columns.cluster_by") is None
    said = next(item.why for item in none.fields if item.path == "columns.cluster_by")
    assert "The cost: texts that share" in said and "`User Name` would have been chosen" in said
    named = reviews().rename({"User Name": "none"})
    assert propose(named, "r.csv", Wishes(cluster_by="none")).value("columns.cluster_by") == "none"


def test_clusters_are_counted_as_the_corpus_will_fold_them() -> None:
    writers = [("Weiß {}", "WEISS {}")[i % 2].format(i // 2 % 150) for i in range(600)]
    said = {item.path: item.why for item in propose(reviews(**{"User Name": writers}), "r.csv").fields}
    assert said["columns.cluster_by"].startswith("150 different, 4.0 rows each")
    assert "A tenth of 150 clusters (`User Name`) would" in said["splits.validation"]
    # 102 rows of one writer, two of each of the others, a spelling each.
    unequal = [writer if i < 300 else "weiss 0" for i, writer in enumerate(writers)][:400]
    told = {item.path: item.why for item in propose(reviews(400, **{"User Name": unequal}), "r.csv").fields}
    equal = round(400**2 / (102**2 + 149 * 2**2))
    assert (
        f"A tenth of 150 clusters (`User Name`; unequal, so as good as {equal} equal ones)" in told["splits.validation"]
    )


def test_keys_of_few_values_are_named_though_not_proposed() -> None:
    frame = reviews().drop("User Name").with_columns(id_compte=pl.int_range(pl.len()) % 18)
    found = propose(frame, "r.csv")
    assert found.value("columns.cluster_by") is None
    assert "`id_compte` (18 different)" in next(i.why for i in found.fields if i.path == "columns.cluster_by")


@pytest.mark.parametrize(
    ("name", "values", "phrase"),
    [
        ("likes", lambda i: i * 3 + i % 7, "number of likes"),
        ("retweet_count", lambda i: i * 3 + i % 7, "number of retweets"),
        ("viewCount", lambda i: i * 3 + i % 7, "number of views"),
        ("price", lambda i: i * 1.5, "price"),
        ("stars", lambda i: i % 5 + 1, "stars (1 to 5)"),
        ("agree", lambda i: ("Disagree", "Neutral", "Agree", "Strongly agree")[i % 4], "agreement (1 to 4)"),
        (
            "Trust",
            lambda i: ("Disagree", "Neutral", "Agree", "Strongly agree")[i % 4],
            "agreement with “trust” (1 to 4)",
        ),
        ("airline_sentiment", lambda i: ("positive", "negative")[i % 2], "airline sentiment: positive"),
        ("label", lambda i: ("spam", "ham")[i % 2], "spam"),
        ("recommended", lambda i: ("yes", "no")[i % 2], "recommended"),
        ("recommended", lambda i: ("yes", "no", "unsure")[i % 3], "recommended"),
        ("vote", lambda i: i % 2 + 1, "vote: 1"),
        ("vote", lambda i: ("1", "2")[i % 2], "vote: 1"),
        ("news", lambda i: ("true", "fake")[i % 2], "news: true"),
        ("arm", lambda i: ("t", "c")[i % 2], "arm: t"),
    ],
)
def test_a_higher_reads_well_before_the_outcome(name: str, values: Callable[[int], object], phrase: str) -> None:
    frame = pl.DataFrame({"text": sentences(80), name: [values(i) for i in range(80)]})
    found = propose(frame, "x.csv", Wishes(label=name))
    assert found.value("outcome") == phrase
    asked = next(item.why for item in found.fields if item.path == "outcome")
    assert ("What is its unit" in asked) == (phrase == "price")


def test_parts_of_a_date_and_spans_of_time_are_neither_outcome_nor_cluster() -> None:
    frame = pl.DataFrame(
        {
            "title": sentences(200),
            "publishedYear": [2010 + i % 11 for i in range(200)],
            "duration": [f"PT{i % 50}M{i % 9}S" for i in range(200)],
            "viewCount": [i * 37 % 991 for i in range(200)],
        }
    )
    found = propose(frame, "v.csv")
    assert picked(found)["label"] == "viewCount" and found.value("columns.cluster_by") is None


def test_words_in_a_column_without_a_name_are_remarked_on() -> None:
    frame = reviews().with_columns(pl.Series("", ["the rest of it"] * 5 + [None] * (reviews().height - 5)))
    assert any("has words in 5 of" in said for said in propose(frame, "r.csv").remarks)


def test_a_column_that_says_the_same_number_in_words_throughout_is_a_number() -> None:
    frame = pl.DataFrame({"constant": ["1"] * 4})
    assert [column.kind for column in profile(frame)] == ["number"]


def test_percents_are_an_outcome_and_no_cluster() -> None:
    rates = [f"{i % 200 / 100:.2f}%" for i in range(600)]
    frame = reviews().drop("Star Rating").with_columns(pl.Series("Test rate", rates), whole=pl.lit("12%"))
    column = next(column for column in profile(frame) if column.name == "Test rate")
    assert (column.kind, column.percent, column.said) == ("number", True, "number in percent, 200 different")
    found = propose(frame, "r.csv")
    assert picked(found)["label"] == "Test rate"
    assert found.value("task") == "regression"
    other = propose(frame, "r.csv", Wishes(label="age"))
    assert picked(other)["cluster_by"] == "User Name"
    assert "Test rate" not in next(item for item in other.fields if item.path == "columns.cluster_by").others


def test_percents_spoilt_by_words_are_pointed_out() -> None:
    rates = [f"{i % 200 / 100:.2f} %" for i in range(599)] + ["broken"]
    found = propose(reviews().with_columns(pl.Series("Star Rating", rates)), "r.csv")
    assert found.value("task") == "regression"
    assert "1 values of `Star Rating` are not numbers (such as “broken”)" in " ".join(found.remarks)


def test_a_rate_is_preferred_to_counts_which_are_told() -> None:
    rng = np.random.default_rng(3)
    shown = rng.integers(1000, 5000, 600)
    clicks = rng.binomial(shown, 0.02)
    counts = {"Impressions": shown, "Clicks": clicks}
    for rate in (
        {"Click rate": clicks / shown},
        {"Result": [f"{c / s:.2%}" for c, s in zip(clicks, shown, strict=True)]},
    ):
        found = propose(reviews(**counts, **rate).drop("Star Rating"), "r.csv")
        label = next(field for field in found.fields if field.path == "columns.label")
        assert (label.value, found.value("task")) == (next(iter(rate)), "regression")
    found = propose(reviews(**counts, **{"Click rate": clicks / shown}).drop("Star Rating"), "r.csv")
    label = next(field for field in found.fields if field.path == "columns.label")
    assert "Clicks" in label.others
    assert "preferred to counts" in label.why


def test_remarks_leave_one_section_of_columns() -> None:
    frame = reviews().with_columns(
        pl.when(pl.col("age") < 20).then(None).otherwise("Star Rating").alias("Star Rating"),
        again=pl.when(pl.col("age") < 20).then(None).otherwise("Star Rating") * 10,
    )
    found = propose(frame, "r.csv")
    text = render(found, "r.csv")
    assert "`again` says the same" in text
    assert text.count("\ncolumns:") == 1
    assert yaml.safe_load(text)["columns"]["on_missing"] == "drop"


@pytest.mark.parametrize(
    ("name", "values", "phrase"),
    [
        ("ClickRate", ["1%", "2%", "3.5%"], "click rate (percent)"),
        ("Discount %", ["1%", "2%", "3.5%"], "discount %"),
        ("mean_CTR", [0.1, 0.2, 0.3], "mean CTR"),
        ("verdict", ["keep", "keep", "return"], "verdict: return"),
        ("Recommended", ["no", "no", "yes"], "recommended"),
        ("__", [1, 2, 3], "__ (1 to 3)"),
        ("Job satisfaction", [1, 2, 5], "job satisfaction"),
    ],
)
def test_the_outcome_is_said_in_words(name: str, values: list[Any], phrase: str) -> None:
    frame = reviews().drop("Star Rating").with_columns(pl.Series(name, values * 200))
    found = propose(frame, "r.csv", Wishes(label=name))
    assert found.value("outcome") == phrase
    assert parse_declaration(yaml.safe_load(render(found, "r.csv")), Path("x")).outcome_name == phrase


def test_a_column_that_settles_the_outcome_is_the_cluster() -> None:
    rng = np.random.default_rng(4)
    school = rng.integers(0, 12, 600)
    chosen = {"passed": [("no", "yes")[n % 2] for n in school], "school": [f"s{n}" for n in school]}
    frame = reviews(**chosen).drop("Star Rating", "User Name")
    found = propose(frame, "r.csv", Wishes(label="passed"))
    cluster = next(field for field in found.fields if field.path == "columns.cluster_by")
    assert (cluster.value, cluster.active, cluster.sure) == ("school", True, False)
    assert "12 different) do not differ in `passed`" in cluster.why


def test_a_column_of_few_levels_that_settles_the_outcome_is_the_cluster_too_and_can_be_declined() -> None:
    words = ["awful", "poor", "mixed", "fine", "great"]
    columns = {"mood": [words[i % 5] for i in range(600)], "liked": [("no", "yes")[i % 5 > 2] for i in range(600)]}
    frame = reviews(**columns).drop("Star Rating", "User Name")
    found = propose(frame, "r.csv", Wishes(label="liked"))
    (cluster,) = (field for field in found.fields if field.path == "columns.cluster_by")
    assert (cluster.value, cluster.sure) == ("mood", False)
    assert "--cluster-by none" in cluster.why
    assert propose(frame, "r.csv", Wishes(label="liked", cluster_by="none")).value("columns.cluster_by") is None


@pytest.mark.parametrize("wrong", [0, 5])
def test_a_number_that_names_who_wrote_settles_and_one_that_the_outcome_was_cut_from_does_not(wrong: int) -> None:
    rng = np.random.default_rng(5)
    writer, grade = rng.integers(1, 13, 600), rng.integers(1, 11, 600)
    of_writer = np.random.default_rng(6).permutation(np.arange(12) % 2)
    liked = of_writer[writer - 1]
    liked[:wrong] = 1 - liked[:wrong]
    plain = reviews(w=writer, liked=liked).drop("Star Rating", "User Name")
    assert propose(plain, "r.csv", Wishes(label="liked")).value("columns.cluster_by") == "w"
    graded = reviews(w=grade, liked=(grade > 6).astype(int)).drop("Star Rating", "User Name")
    assert propose(graded, "r.csv", Wishes(label="liked")).value("columns.cluster_by") is None


def test_the_reason_that_goes_with_one_outcome_is_no_cluster() -> None:
    rows = 400
    reason = ["late" if n % 4 else "rude" for n in range(rows // 2)] + [None] * (rows // 2 - 6) + ["glad"] * 6
    sentiment = ["negative"] * (rows // 2) + ["positive"] * (rows // 2)
    frame = pl.DataFrame(
        {"text": [f"we waited {n} minutes for the bus" for n in range(rows)], "reason": reason, "sentiment": sentiment}
    )
    proposal = propose(frame, "r.csv", Wishes(label="sentiment"))
    assert proposal.value("columns.cluster_by") is None
    whole = frame.with_columns(pl.col("reason").fill_null("nothing of the kind"))
    assert propose(whole, "r.csv", Wishes(label="sentiment")).value("columns.cluster_by") == "reason"


def test_agreement_by_chance_settles_nothing() -> None:
    rng = np.random.default_rng(4)
    keys = [f"k{n}" for n in range(560)] + [f"k{n}" for n in range(40)]
    stars = rng.integers(1, 3, 600)
    stars[560:] = stars[:40]
    stars[599] = 3 - stars[39]
    frame = reviews(**{"Star Rating": stars, "code": keys}).drop("User Name")
    found = propose(frame, "r.csv", Wishes(label="Star Rating"))
    assert found.value("columns.cluster_by") != "code" or "do not differ" not in render(found, "r.csv")


def test_one_cluster_with_half_of_the_rows_is_doubted() -> None:
    users = ["anonymous" if i % 5 < 3 else f"user {i % 90}" for i in range(600)]
    found = propose(reviews(**{"User Name": users}), "r.csv")
    cluster = next(field for field in found.fields if field.path == "columns.cluster_by")
    assert (cluster.value, cluster.sure) == ("User Name", False)
    assert "“anonymous”, has 60% of the rows" in cluster.why


def test_shares_follow_the_rows_that_clusters_hold() -> None:
    def validation(users: list[str]) -> Any:
        return propose(reviews(6000, **{"User Name": users}), "r.csv").value("splits.validation")

    assert validation([f"user {i % 1000}" for i in range(6000)]) is None
    assert propose(reviews(), "r.csv").value("splits.fidelity") is None, "only phrases of a language model need one"
    # As many clusters, but ten of them hold most rows.
    assert validation([f"user {i % 10 if i < 5000 else i % 1000}" for i in range(6000)]) == 0.15


def test_a_column_that_says_when_is_suggested_and_only_that_can_be_read() -> None:
    days = [f"2025-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(600)]
    text = render(propose(reviews(posted=days), "r.csv"), "r.csv")
    assert "# time: posted" in text
    text = render(propose(reviews(posted=[f"{1 + i % 12}/{1 + i % 28}/2025" for i in range(600)]), "r.csv"), "r.csv")
    assert "# time:" not in text
