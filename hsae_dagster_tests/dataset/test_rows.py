"""Files to rows: formats, cleaning, and errors that name file, row and column."""

import json
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import Rows, read_rows
from hsae_dagster.errors import DatasetError

ROWS = {"text": ["one", "two", "three"], "score": [1.0, 2.0, 3.5], "who": ["a", "a", "b"], "age": [1, 2, 3]}


def read(folder: Path, frame: pl.DataFrame, columns: str = "{text: text, label: score}", more: str = "") -> Rows:
    home = folder / "mine"
    home.mkdir(exist_ok=True)
    frame.write_parquet(home / "texts.parquet")
    task = "" if "task:" in more else "task: regression\n"
    (home / "dataset.yaml").write_text(f"{task}files: texts.parquet\ncolumns: {columns}\n{more}")
    return read_rows(load_dataset(folder, "mine"))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "json", "lines.json"])
def test_each_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    frame, home = pl.DataFrame(ROWS), tmp_path / "mine"
    home.mkdir()
    path = home / f"texts.{suffix}"
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "csv":
        frame.write_csv(path)
    elif suffix == "json":
        path.write_text(json.dumps(frame.to_dicts()))
    else:
        frame.write_ndjson(path)
    (home / "dataset.yaml").write_text(
        f"task: regression\nfiles: {path.name}\n"
        "columns: {text: text, label: score, cluster_by: who, controls: [age]}\n"
    )
    rows = read_rows(load_dataset(tmp_path, "mine"))
    assert rows.frame.select("text", "label", "cluster", "control:age").rows() == [
        ("one", 1.0, "a", 1.0),
        ("two", 2.0, "a", 2.0),
        ("three", 3.5, "b", 3.0),
    ]
    assert rows.dropped == {}


def test_a_missing_column_is_named_with_those_present(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no column `body` \(it has text, score, who, age\)"):
        read(tmp_path, pl.DataFrame(ROWS), "{text: body, label: score}")


@pytest.mark.parametrize(
    ("column", "values", "shown"),
    [
        ("text", ["one", "  ", "three"], "`text`"),
        ("text", ["one", None, "three"], "`text`"),
        ("score", [1.0, float("nan"), 2.0], "`score`"),
        ("score", [1.0, None, 2.0], "`score`"),
        ("score", [1.0, float("inf"), 2.0], "`score`"),
    ],
)
def test_rows_without_text_or_label_stop_or_are_dropped_as_declared(
    tmp_path: Path, column: str, values: list, shown: str
) -> None:
    frame = pl.DataFrame({**ROWS, column: values})
    with pytest.raises(DatasetError, match=rf"1 of 3 rows .* {shown} .*texts\.parquet row 2.*on_missing"):
        read(tmp_path, frame)
    rows = read(tmp_path, frame, "{text: text, label: score, on_missing: drop}")
    assert rows.frame["row"].to_list() == [1, 3]
    assert list(rows.dropped.values()) == [1]


def test_one_class_and_more_than_two_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="every label is 1"):
        read(tmp_path, pl.DataFrame({**ROWS, "score": [1.0, 1.0, 1.0]}))
    with pytest.raises(DatasetError, match=r"must be 0 or 1; found '1' \(1 row\), '2' .*, '3\.5' .*columns\.positive"):
        read(tmp_path, pl.DataFrame(ROWS), more="task: classification\n")


def test_words_as_classes_need_the_positive_one(tmp_path: Path) -> None:
    frame = pl.DataFrame({**ROWS, "score": ["yes", "no", "yes"]})
    with pytest.raises(
        DatasetError, match=r"row 1.*'yes' is neither.*'yes' \(2 rows\), 'no' \(1 row\).*columns\.positive"
    ):
        read(tmp_path, frame, more="task: classification\n")
    rows = read(tmp_path, frame, "{text: text, label: score, positive: 'yes'}", "task: classification\n")
    assert rows.frame["label"].to_list() == [1.0, 0.0, 1.0]
    assert rows.classes == {"yes": 2, "no": 1}
    with pytest.raises(DatasetError, match=r"no row .* has the value 'maybe' .*it has 'yes' \(2 rows\)"):
        read(tmp_path, frame, "{text: text, label: score, positive: maybe}", "task: classification\n")


def test_classes_that_differ_in_case_alone_are_one(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": list("abcdef"), "score": ["yes", "Yes ", "no", "YES", "No", "no"]})
    rows = read(tmp_path, frame, "{text: text, label: score, positive: 'Yes'}", "task: classification\n")
    assert rows.frame["label"].to_list() == [1.0, 1.0, 0.0, 1.0, 0.0, 0.0]
    assert rows.classes == {"no": 3, "YES": 3}


def test_marks_of_missing_values_are_empty_cells(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "text": ["one", "two", " N/A", "four", "five"],
            "score": ["2.5", "n/a", "1", "3", "4"],
            "who": ["a", "b", "c", "-99", "d"],
        }
    )
    columns = "{text: text, label: score, cluster_by: who, on_missing: drop"
    with pytest.raises(DatasetError, match=r"row 2.*'n/a' is not a number"):
        read(tmp_path, frame, f"{columns}}}")
    rows = read(tmp_path, frame, f"{columns}, missing: [N/A, -99]}}")
    assert rows.frame.select("text", "label").rows() == [("one", 2.5), ("five", 4.0)]
    assert rows.dropped == {"no usable text": 1, "no usable label": 1, "no usable cluster": 1}
    coded = pl.DataFrame({**ROWS, "score": [1.0, -99.0, 3.5]})
    rows = read(tmp_path, coded, "{text: text, label: score, missing: [-99], on_missing: drop}")
    assert rows.frame["label"].to_list() == [1.0, 3.5]


def test_a_mark_of_missing_values_is_no_class(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": list("abcd"), "score": ["yes", "no", "?", "no"]})
    columns = "{text: text, label: score, positive: 'yes', missing: ['?'], on_missing: drop}"
    rows = read(tmp_path, frame, columns, "task: classification\n")
    assert (rows.frame["label"].to_list(), rows.classes) == ([1.0, 0.0, 0.0], {"no": 2, "yes": 1})


@pytest.mark.parametrize(
    ("values", "positive"),
    [([True, False, True], "true"), (["true", "False", "TRUE"], "true"), ([1.0, 2.0, 1.0], "1"), ([1, 2, 1], "1")],
)
def test_the_positive_class_may_be_of_any_type(tmp_path: Path, values: list, positive: str) -> None:
    frame = pl.DataFrame({**ROWS, "score": values})
    rows = read(tmp_path, frame, f"{{text: text, label: score, positive: {positive}}}", "task: classification\n")
    assert rows.frame["label"].to_list() == [1.0, 0.0, 1.0]


def test_one_of_many_classes_stands_against_the_rest(tmp_path: Path) -> None:
    classes = [f"c{number % 8}" for number in range(20)]
    frame = pl.DataFrame({"text": [f"text {n}" for n in range(20)], "score": classes})
    with pytest.raises(DatasetError, match=r"'c0' \(3 rows\), .* and 2 more\. .*one against the rest"):
        read(tmp_path, frame, more="task: classification\n")
    rows = read(tmp_path, frame, "{text: text, label: score, positive: c3}", "task: classification\n")
    assert rows.frame["label"].to_list() == [float(name == "c3") for name in classes]
    assert list(rows.classes.values()) == [3] * 4 + [2] * 4


def test_classes_that_are_large_numbers_stay_apart(tmp_path: Path) -> None:
    frame = pl.DataFrame({**ROWS, "score": [20230101, 20230102, 20230103]})
    rows = read(tmp_path, frame, "{text: text, label: score, positive: 20230102}", "task: classification\n")
    assert rows.frame["label"].to_list() == [0.0, 1.0, 0.0]
    assert list(rows.classes) == ["20230101", "20230102", "20230103"]


def test_excluded_rows_are_counted(tmp_path: Path) -> None:
    frame = pl.DataFrame({**ROWS, "bad": [False, True, False]})
    rows = read(tmp_path, frame, "{text: text, label: score, exclude: bad}")
    assert rows.frame["text"].to_list() == ["one", "three"]
    assert rows.dropped == {"excluded by columns.exclude": 1}


def test_files_per_split_carry_their_split(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    pl.DataFrame(ROWS).write_csv(home / "a.csv")
    pl.DataFrame(ROWS).write_csv(home / "b.csv")
    (home / "dataset.yaml").write_text(
        "task: regression\nfiles: {train: a.csv, holdout: b.csv}\ncolumns: {text: text, label: score}\n"
    )
    assert (
        read_rows(load_dataset(tmp_path, "mine")).frame["declared_split"].to_list() == ["train"] * 3 + ["holdout"] * 3
    )


def test_an_unreadable_file_says_which_and_what_to_check(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    (home / "t.csv").write_bytes(b"text,score\n\xff\xfe\x00bad,1\n")
    (home / "dataset.yaml").write_text("task: regression\nfiles: t.csv\ncolumns: {text: text, label: score}\n")
    with pytest.raises(DatasetError, match=r"t\.csv"):
        read_rows(load_dataset(tmp_path, "mine"))
    (home / "dataset.yaml").write_text("task: regression\nfiles: t.xlsx\ncolumns: {text: text, label: score}\n")
    (home / "t.xlsx").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"parquet, csv, tsv, jsonl or json"):
        read_rows(load_dataset(tmp_path, "mine"))


def test_headers_that_differ_in_spaces_alone_keep_them(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["a", "b"], " text": ["c", "d"], " score ": [1.0, 2.0]})
    assert read(tmp_path, frame).frame["text"].to_list() == ["a", "b"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"text": [["a"], ["b"]]}, "holds lists"),
        ({"text": [{"a": 1}, {"a": 2}]}, "holds records"),
        ({"text": [b"\xff", b"b"]}, "holds bytes"),
        ({"text": [timedelta(1), timedelta(2)]}, "holds spans of time"),
        ({"score": [[1.0], [2.0]]}, "holds lists"),
        ({"score": [date(2020, 1, 1), date(2020, 1, 2)]}, "holds dates or times.*days since"),
    ],
)
def test_a_column_of_another_kind_is_named_with_the_remedy(tmp_path: Path, values: dict, words: str) -> None:
    frame = pl.DataFrame({"text": ["a", "b"], "score": [1.0, 2.0], **values}, strict=False)
    column = next(iter(values))
    with pytest.raises(DatasetError, match=rf"`{column}` of texts\.parquet {words}"):
        read(tmp_path, frame)


def test_categories_are_words(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["a", "b", "c"], "score": ["1.5", "2", "3"], "out": ["yes", "no", "no"]})
    frame = frame.with_columns(pl.all().cast(pl.Categorical))
    rows = read(tmp_path, frame, "{text: text, label: score, exclude: out}")
    assert (rows.frame["text"].to_list(), rows.frame["label"].to_list()) == (["b", "c"], [2.0, 3.0])


def test_a_control_that_is_a_number_in_one_file_only_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    for name, ages in (("one", [1, 2]), ("two", ["old", "young"])):
        pl.DataFrame({"text": ["a", "b"], "score": [1.0, 2.0], "age": ages}).write_parquet(home / f"{name}.parquet")
    (home / "dataset.yaml").write_text(
        "task: regression\nfiles: [one.parquet, two.parquet]\ncolumns: {text: text, label: score, controls: [age]}\n"
    )
    with pytest.raises(DatasetError, match=r"`age` is numeric in one of one\.parquet and two\.parquet"):
        read_rows(load_dataset(tmp_path, "mine"))


def test_the_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    (home / "t.csv").write_bytes(b"text,score\nfine,1\nb\xe4d,2\n")
    (home / "dataset.yaml").write_text("task: regression\nfiles: t.csv\ncolumns: {text: text, label: score}\n")
    with pytest.raises(DatasetError, match=r"t\.csv.* Line 3 is the first that is not UTF-8"):
        read_rows(load_dataset(tmp_path, "mine"))


@pytest.mark.parametrize(
    ("written", "numbers"),
    [
        (["1.97%", "12%", "0.5 %"], [1.97, 12.0, 0.5]),
        (["1,97 %", "12\u00a0%", "\u22120,5\u202f%"], [1.97, 12.0, -0.5]),
        ([" +.5%", "1e%", "3%"], None),
        (["1,97%", "2.5%", "3%"], None),
        (["1,250%", "300%", "20%"], None),
        (["0,250%", "300%", "20%"], [0.25, 300.0, 20.0]),
    ],
)
def test_percents_are_the_numbers_before_the_sign(tmp_path: Path, written: list, numbers: list | None) -> None:
    frame = pl.DataFrame({"text": ["a", "b", "c"], "score": written, "rate": written})
    columns = "{text: text, label: score, controls: [rate]}"
    if numbers is None:
        with pytest.raises(DatasetError, match=r"row [12]: '.*%' is not a number\. Write percents as 1\.97%"):
            read(tmp_path, frame, columns)
    else:
        rows = read(tmp_path, frame, columns)
        assert rows.frame["label"].to_list() == rows.frame["control:rate"].to_list() == numbers
        assert rows.percents == ("score", "rate")


def test_a_gap_among_percents_is_a_gap(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": list("abcd"), "score": ["1%", None, " ", "n/a"], "rate": ["1%", None, " ", "3%"]})
    columns = "{text: text, label: score, controls: [rate], missing: [n/a], on_missing: drop}"
    frame = frame.vstack(pl.DataFrame({"text": ["e"], "score": ["2%"], "rate": [None]}, schema=frame.schema))
    rows = read(tmp_path, frame, columns)
    assert rows.frame.select("label", "control:rate").rows() == [(1.0, 1.0), (2.0, None)]


def test_a_label_in_percent_only_in_part_names_a_row_of_each(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": list("abc"), "score": ["0.02", "1.97%", "12%"]})
    with pytest.raises(DatasetError, match=r"`score`: row 2 is '1\.97%' and row 1 is '0\.02'.*every value.* or none"):
        read(tmp_path, frame)
    control = read(tmp_path, frame.with_columns(age=pl.lit(1.0) * pl.int_range(3)), "{text: text, label: age}")
    assert control.percents == ()


def test_percents_in_one_file_only_are_refused(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    for name, scores in (("one", ["1%", "2%"]), ("two", [0.01, 0.02])):
        pl.DataFrame({"text": ["a", "b"], "score": scores}).write_parquet(home / f"{name}.parquet")
    (home / "dataset.yaml").write_text(
        "task: regression\nfiles: [one.parquet, two.parquet]\ncolumns: {text: text, label: score}\n"
    )
    with pytest.raises(DatasetError, match=r"`score` is in percent in one of one\.parquet and two\.parquet"):
        read_rows(load_dataset(tmp_path, "mine"))


def test_amounts_that_are_no_numbers_are_not_sent_to_classification(tmp_path: Path) -> None:
    amounts = pl.DataFrame({"text": [f"t{n}" for n in range(60)], "score": [f"${n}.50" for n in range(60)]})
    with pytest.raises(DatasetError, match=r"row 1: '\$0\.50' is not a number.*60 different values") as error:
        read(tmp_path, amounts)
    assert "classification" not in str(error.value)
    words = pl.DataFrame({"text": ["a", "b"], "score": ["good", "bad"]})
    with pytest.raises(DatasetError, match="set task to `classification` if it holds classes"):
        read(tmp_path, words)


@pytest.mark.parametrize(("written", "values"), [("Yes", ["Yes", "No"]), ("NO", ["NO", "SE"]), ("on", ["on", "off"])])
def test_a_class_called_yes_or_no_needs_no_quotes(tmp_path: Path, written: str, values: list[str]) -> None:
    frame = pl.DataFrame({"text": list("abcd"), "score": values * 2})
    rows = read(tmp_path, frame, f"{{text: text, label: score, positive: {written}}}", "task: classification\n")
    assert rows.frame["label"].to_list() == [1.0, 0.0] * 2


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (["1970-01-02", "1970-01-03", " 1970-01-01 "], [86_400.0, 172_800.0, 0.0]),
        (["1970-01-01T00:00:30Z", "1970-01-01T01:00:00.5+01:00", "1970-01-01T00:00:00Z"], [30.0, 0.5, 0.0]),
        (["01.02.1970", "02.01.1970", "01.01.1970"], [31 * 86_400.0, 86_400.0, 0.0]),
        (["1970-02", "1970-01", "1970-01"], [31 * 86_400.0, 0.0, 0.0]),
        (["2015", "2016", "2017"], [2015.0, 2016.0, 2017.0]),
        ([3, 1, 2], [3.0, 1.0, 2.0]),
        ([date(1970, 1, 2), date(1970, 1, 1), date(1970, 1, 3)], [86_400.0, 0.0, 172_800.0]),
    ],
)
def test_times_become_one_number(tmp_path: Path, values: list[object], seconds: list[float]) -> None:
    frame = pl.DataFrame({**ROWS, "when": values})
    assert read(tmp_path, frame, "{text: text, label: score, time: when}").frame["time"].to_list() == seconds


def test_a_date_that_reads_in_two_ways_is_refused_with_its_row(tmp_path: Path) -> None:
    frame = pl.DataFrame({**ROWS, "when": ["01/02/2026", "03/04/2026", "05/06/2026"]})
    with pytest.raises(DatasetError, match=r"row 1, column `when`: '01/02/2026'.*2026-01-31"):
        read(tmp_path, frame, "{text: text, label: score, time: when}")
    frame = pl.DataFrame({**ROWS, "when": ["2026-01-01", "soon", "2026-01-03"]})
    with pytest.raises(DatasetError, match=r"row 2, column `when`: 'soon'"):
        read(tmp_path, frame, "{text: text, label: score, time: when}")
    frame = pl.DataFrame({**ROWS, "when": ["2026-01-01", None, "2026-01-03"]})
    with pytest.raises(DatasetError, match=r"1 of 3 rows have no usable value in column `when`"):
        read(tmp_path, frame, "{text: text, label: score, time: when}")


def test_a_forward_split_without_a_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"columns\.time"):
        read(tmp_path, pl.DataFrame(ROWS), more="splits: {forward: true}\n")
