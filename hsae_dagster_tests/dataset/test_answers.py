"""Scales in words, lists in cells, codes and marks of no answer, dates, keys and texts of other scripts."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hsae_dagster.dataset.discovery import Dataset, load_yaml, parse_declaration
from hsae_dagster.dataset.new.columns import DATE, profile
from hsae_dagster.dataset.new.intake import take_in, write_plain
from hsae_dagster.dataset.new.proposal import Proposal, Wishes, propose, render
from hsae_dagster.dataset.new.roles import Field
from hsae_dagster.dataset.rows import Rows, read_rows
from hsae_dagster.dataset.values import list_separator, missing_codes, scale_of
from hsae_dagster.errors import DatasetError

AGREEMENT = ["Strongly disagree", "Disagree", "Neither agree nor disagree", "Agree", "Strongly agree"]


def texts(n: int) -> list[str]:
    return [f"the shirt was small and it fell apart after {i} washes of the week" for i in range(n)]


def frame(**columns: Any) -> pl.DataFrame:
    n = len(next(iter(columns.values())))
    return pl.DataFrame({"comment": texts(n), **columns})


def field_of(found: Proposal, path: str) -> Field:
    return next(item for item in found.fields if item.path == path)


def as_new(
    folder: Path, table: pl.DataFrame, wishes: Wishes | None = None, ending: str = "csv"
) -> tuple[Proposal, Rows]:
    """What `hsae new` proposes for a table, and the rows that follow from it."""
    path = folder / f"table.{ending}"
    table.write_parquet(path) if ending == "parquet" else table.write_csv(path)
    intake = take_in(path)
    found = propose(intake.frame, intake.files, wishes or Wishes(), intake.notes)
    aside = folder / "aside"
    aside.mkdir(exist_ok=True)
    write_plain(intake, aside)
    spec = parse_declaration(load_yaml(render(found, path.name)), Path("dataset.yaml"))
    return found, read_rows(Dataset("d", aside if intake.rewritten else folder, spec))


def test_agreement_in_words_is_offered_as_numbers_and_as_a_class(tmp_path: Path) -> None:
    answers = [AGREEMENT[i % 5] for i in (2, 2, 0, 1, 2, 3, 4) * 20]
    found, rows = as_new(tmp_path, frame(agree=answers))
    assert (found.value("task"), found.value("columns.scale")) == ("regression", AGREEMENT)
    assert {"task", "columns.scale"} <= {item.path for item in found.unsure}
    assert "--positive 'Strongly agree' (or 'Agree')" in field_of(found, "columns.scale").why
    assert found.value("outcome") == "agreement (1 to 5)"
    assert rows.frame["label"].to_list() == [AGREEMENT.index(answer) + 1.0 for answer in answers]
    as_class, rows = as_new(tmp_path, frame(agree=answers), Wishes(positive="Agree"))
    assert (as_class.value("task"), as_class.value("columns.positive")) == ("classification", "Agree")
    assert rows.frame["label"].sum() == answers.count("Agree")
    top = propose(frame(agree=answers), "a.csv", Wishes(task="classification"))
    assert top.value("columns.positive") == "Strongly agree"


@pytest.mark.parametrize(
    "words",
    [
        ["1 - Strongly disagree", "2 - Disagree", "4 - Agree", "5 - Strongly agree"],
        ["never", "sometimes", "often", "always"],
        ["Poor", "Fair", "Good", "Excellent"],
        ["stimme nicht zu", "stimme eher nicht zu", "stimme eher zu", "stimme zu"],
        ["Very dissatisfied", "Dissatisfied", "Neutral", "Satisfied", "Very satisfied"],
    ],
)
def test_words_of_a_scale_are_put_in_order(words: list[str]) -> None:
    assert list(scale_of(words[1::2] + words[::2])) == words


@pytest.mark.parametrize(
    "words",
    [
        ["negative", "neutral", "positive"],
        ["red", "green", "blue", "Agree"],
        ["Agree", "mostly agree", "No", "Neutral"],
    ],
)
def test_other_words_are_no_scale(words: list[str]) -> None:
    assert scale_of(words) == ()


def test_a_word_that_is_not_on_the_scale_is_named(tmp_path: Path) -> None:
    frame(agree=["low", "high", "perhaps"] * 5).write_csv(tmp_path / "a.csv")
    declared = {"text": "comment", "label": "agree", "scale": ["low", "high"]}
    spec = parse_declaration({"task": "regression", "files": "a.csv", "columns": declared}, Path("dataset.yaml"))
    with pytest.raises(
        DatasetError, match=r"a\.csv row 3, column `agree`: 'perhaps' is not on the scale \(low, high\)"
    ):
        read_rows(Dataset("d", tmp_path, spec))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_list_counts_as_one_where_it_holds_the_class(tmp_path: Path, ending: str) -> None:
    lists = [["joy"], ["joy", "anger"], ["fear"], ["Joy", "fear"], ["anger"], ["fear", "anger"]] * 20
    cells: list[Any] = lists if ending == "parquet" else [",".join(cell) for cell in lists]
    found, rows = as_new(tmp_path, frame(emotions=cells), Wishes(positive="joy"), ending)
    assert found.value("columns.listed") == ("|" if ending == "parquet" else ",")
    assert "columns.listed" in {item.path for item in found.unsure}
    assert rows.frame["label"].to_list() == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0] * 20
    assert rows.classes == {"anger": 60, "fear": 60, "joy": 60}


def test_an_empty_list_holds_no_class(tmp_path: Path) -> None:
    _, rows = as_new(
        tmp_path, frame(emotions=[["joy"], [], ["fear", "joy"], ["fear"]] * 20), Wishes(positive="joy"), "parquet"
    )
    assert rows.frame["label"].to_list() == [1.0, 0.0, 1.0, 0.0] * 20


def test_lists_as_python_prints_them_are_lists(tmp_path: Path) -> None:
    cells = ["['joy']", "['joy', 'fear']", "['anger']", "['fear']", "['fear', 'anger']"] * 20
    _, rows = as_new(tmp_path, frame(emotions=cells), Wishes(positive="fear"))
    assert rows.frame["label"].to_list() == [0.0, 1.0, 0.0, 1.0, 1.0] * 20


def test_names_with_a_comma_are_no_lists() -> None:
    assert list_separator(pl.Series(["Bonn, Germany", "Graz, Austria", "Paris, France"] * 30)) is None
    assert list_separator(pl.Series(["a", "b", "c"] * 30)) is None


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        ([1, 2, 3, 4, 5, -99, -98], (-99, -98)),
        ([1, 2, 9], (9,)),
        ([1, 2, 3, 4, 5, 9], (9,)),
        ([1, 2, 3, 4, 5, 6, 7, 99], (99,)),
        ([0.5, 2.25, 7.125, -999], (-999,)),
        ([-3, -2, -1, 0, 1, 2, 3], ()),
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], ()),
        ([12, 99, 45, 3], ()),
        ([12, 99, float("inf"), 3], ()),
        ([-5.5, -9, -20], ()),
        ([0, 1], ()),
    ],
)
def test_codes_for_no_answer_stand_outside(values: list[float], codes: tuple[int, ...]) -> None:
    assert missing_codes(pl.Series(values, dtype=pl.Float64)) == codes


def test_codes_are_doubted_and_left_out(tmp_path: Path) -> None:
    scores = [1, 2, 3, 4, 5, -99, 3, 2, 4, 5] * 20
    found, rows = as_new(tmp_path, frame(satisfaction=scores))
    assert found.value("columns.missing") == [-99]
    assert not field_of(found, "columns.missing").sure
    assert rows.frame["label"].to_list() == [float(score) for score in scores if score > 0]
    votes = [1, 2, 2, 1, 9, 2] * 20
    found, rows = as_new(tmp_path, frame(vote=votes))
    assert (found.value("task"), found.value("columns.missing")) == ("classification", [9])
    assert rows.frame["label"].to_list() == [float(vote == 1) for vote in votes if vote < 9]


@pytest.mark.parametrize("mark", ["\\N", "NULL", "n/a", "#N/A", "<NA>", "."])
def test_marks_of_no_value_are_left_out_of_numbers(tmp_path: Path, mark: str) -> None:
    scores = ["1", "2", mark, "3", "2"] * 20
    found, rows = as_new(tmp_path, frame(score=scores))
    assert found.value("columns.missing") == [mark]
    assert rows.frame["label"].to_list() == [1.0, 2.0, 3.0, 2.0] * 20


@pytest.mark.parametrize(
    "value",
    [
        *("2024-03-01", "2024-03-01 10:00:00", "2024-03-01T10:00:00Z", "2024-03-01T10:00:00.123+01:00", "2024-03"),
        *("1.3.2024", "01.03.2024 10:00", "3/1/24", "03/01/2024 10:00 AM", "1. 3. 2024", "20:15", "8:05 pm"),
        *("March 3, 2024", "3 March 2024", "Mar 2024", "Sunday, March 3, 2024", "3. März 2024", "03-Mar-24"),
        *(
            "Sun, 03 Mar 2024 10:00:00 +0000",
            "Wed Oct 10 20:19:24 +0000 2018",
            "March 3rd, 2024 at 10:00",
            "2024/03/1 9:05:10 AM GMT+1",
        ),
    ],
)
def test_dates_are_dates(value: str) -> None:
    assert DATE.fullmatch(value), value


def test_times_are_no_clusters() -> None:
    days = [f"March {i % 31 + 1}, 2024" for i in range(400)]
    stamps = [1_700_000_000 + i % 90 for i in range(400)]
    found = propose(frame(stars=np.arange(400) % 5, posted_on=days, timestamp=stamps), "a.csv")
    assert found.value("columns.cluster_by") is None


def test_numbers_that_are_names_are_doubted() -> None:
    found = propose(frame(topic=np.arange(400) % 12), "a.csv")
    assert not field_of(found, "task").sure
    assert "stand for classes" in field_of(found, "task").why


@pytest.mark.parametrize(
    "keys", [[f"1.2345{i % 90:02d}E+17" for i in range(400)], [(10**17 + 1000 * (i % 90)) for i in range(400)]]
)
def test_keys_that_lost_digits_are_remarked(keys: list[Any]) -> None:
    found = propose(frame(stars=np.arange(400) % 5, user_id=keys), "a.csv")
    assert any("`user_id` lost their last digits" in remark for remark in found.remarks)
    chosen = [item for item in found.fields if item.path == "columns.cluster_by" and item.active]
    assert not [item for item in chosen if item.sure]


@pytest.mark.parametrize("text", ["酒店非常干净服务员态度很好早餐也不错", "โรงแรมสะอาดมากพนักงานบริการดี", "🎉😂👍😍🎉"])
def test_texts_without_spaces_are_texts(text: str) -> None:
    found = pl.DataFrame({"a": [f"{text}{i}" for i in range(60)], "b": [0, 1] * 30})
    assert {column.name: column.kind for column in profile(found)} == {"a": "text", "b": "flag"}


def test_html_and_texts_without_letters_are_remarked() -> None:
    tagged = pl.DataFrame({"text": [f"<p>It was &amp; remains {i}</p>" for i in range(60)], "stars": [1, 2, 3] * 20})
    assert any("hold HTML (“<p>”)" in remark for remark in propose(tagged, "a.csv").remarks)
    twice = pl.DataFrame({"text": [f"The food was sÃ¼ÃŸ and good {i}" for i in range(60)], "stars": [1, 2, 3] * 20})
    assert any("“Ã¼”" in remark for remark in propose(twice, "a.csv").remarks)
    pictures = pl.DataFrame({"text": [f"🎉😂👍😍{i}" for i in range(60)], "stars": [1, 2, 3] * 20})
    assert any("have no letter" in remark for remark in propose(pictures, "a.csv").remarks)


def test_spans_of_time_are_no_values_that_a_dataset_can_name() -> None:
    table = frame(lasted=pl.Series([1000, 2000] * 30, dtype=pl.Duration("ms")))
    assert {column.name: column.kind for column in profile(table)}["lasted"] == "other"


@pytest.mark.parametrize(("name", "sure"), [("Q4", False), ("label", False), ("y", False), ("Star rating", True)])
def test_an_outcome_that_no_reader_understands_is_asked_for(name: str, sure: bool) -> None:
    table = frame(**{name: [1, 2, 3, 4, 5] * 20})
    assert field_of(propose(table, "a.csv", Wishes(label=name)), "outcome").sure is sure
    assert propose(table, "a.csv", Wishes(label=name, outcome="joy (points)")).value("outcome") == "joy (points)"


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"listed": ","}, "listed needs positive"),
        ({"scale": ["low", "high"], "positive": "high"}, "leave one of them out"),
        ({"scale": ["low", "Low"]}, "names a word twice"),
    ],
)
def test_readings_that_contradict_each_other_are_refused(columns: dict[str, Any], words: str) -> None:
    declared = {"task": "classification", "files": "a.csv", "columns": {"text": "t", "label": "y", **columns}}
    with pytest.raises(DatasetError, match=words):
        parse_declaration(declared, Path("dataset.yaml"))


def test_how_sure_somebody_was_is_not_the_outcome() -> None:
    sure = [0.3 + (i * 37 % 70) / 100 for i in range(400)]
    table = frame(sentiment=["negative", "neutral", "positive", "negative"] * 100, sentiment_confidence=sure)
    assert propose(table, "a.csv").value("columns.label") == "sentiment"


def test_rounded_keys_are_no_clusters() -> None:
    keys = [f"5.703{i % 90:02d}E+17" for i in range(400)]
    found = propose(frame(stars=np.arange(400) % 5, tweet_id=keys, name=[f"n{i % 80}" for i in range(400)]), "a.csv")
    assert found.value("columns.cluster_by") == "name"


@pytest.mark.parametrize(
    ("given", "scale"),
    [
        (["★★★", "★", "★★★★★", "★★★★"], ["★", "★★", "★★★", "★★★★", "★★★★★"]),
        (["★★☆☆☆", "★☆☆☆☆", "★★★☆☆", "★★★★☆"], ["★☆☆☆☆", "★★☆☆☆", "★★★☆☆", "★★★★☆"]),
        (["5/5", "3/5", "1/5", "2/5"], ["1/5", "2/5", "3/5", "4/5", "5/5"]),
        (["1 star", "4 stars", "2 stars", "5 stars"], ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]),
        (["1 out of 5 stars", "4 out of 5 stars", "2 out of 5 stars", "3 out of 5 stars"], None),
        (["1/5", "2/5", "3/4", "4/5"], []),
        (["3/25", "4/25", "12/25", "1/25"], []),
        (["1/5", "2/5", "3/5", "good"], []),
    ],
)
def test_points_that_are_drawn_or_counted_are_a_scale(given: list[str], scale: list[str] | None) -> None:
    assert list(scale_of(given)) == (sorted(given) if scale is None else scale)


def test_stars_are_read_as_numbers(tmp_path: Path) -> None:
    found, rows = as_new(tmp_path, frame(rating=["★" * (n % 5 + 1) for n in range(60)]))
    assert (found.value("task"), found.value("outcome")) == ("regression", "rating (1 to 5)")
    assert rows.frame["label"].to_list() == [n % 5 + 1 for n in range(60)]


def test_an_infinite_number_is_no_traceback() -> None:
    found = propose(frame(y=["inf" if n == 7 else str(n % 4) for n in range(60)]), "x.csv")
    assert found.value("columns.label") == "y"
