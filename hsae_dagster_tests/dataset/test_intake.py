"""Files as people have them: what is read, what is rewritten, and that nothing is ever overwritten."""

from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.dataset.new.intake import name_for, publish, read_leniently, take_in, write_plain
from hsae_dagster.errors import DatasetError


def read(path: Path) -> tuple[pl.DataFrame, str | None]:
    """The table as it will be written, typed, and what was unusual."""
    table = read_leniently(path)
    return table.frame, " and ".join(table.unusual) or None


TABLE = "text;stars\nKäse, gut;5\n„schlecht“;1\n"


@pytest.mark.parametrize(
    ("name", "data", "unusual"),
    [
        ("a.csv", TABLE.replace(";", "|").encode(), "bars"),
        ("a.csv", TABLE.encode(), "semicolons"),
        ("a.csv", TABLE.replace(";", "\t").encode("utf-16"), "UTF-16, not UTF-8 and its fields were separated by tabs"),
        ("a.txt", TABLE.replace("„", "").replace("“", "").encode("latin-1"), "cp1252 judging by its content"),
        ("a.tsv", TABLE.replace(";", "\t").encode(), None),
        ("a.csv", b"\xef\xbb\xbf" + 'text,stars\n"Käse, gut",5\n'.encode(), None),
        ("a.csv", b'"text; and more",stars\nx,5\n', None),
        # What Excel and survey tools put above the table.
        (
            "a.csv",
            b"sep=;\r\n" + TABLE.encode(),
            "its first line was sep=; and its fields were separated by semicolons",
        ),
        ("a.csv", b"Export of 3 March\n\n" + TABLE.encode(), "stood on line 3, below a title"),
        ("a.csv", b"Survey, wave 2, Bonn;;\n;;\n" + TABLE.replace("\n", ";\n").encode(), "stood on line 3"),
        ("a.csv", b'Survey, 3 March\n\ntext,stars,n\n"K\xc3\xa4se, gut",5,1\nx,1,2\n', "stood on line 3"),
    ],
)
def test_delimited_files_are_read_whatever_their_form(
    tmp_path: Path, name: str, data: bytes, unusual: str | None
) -> None:
    (tmp_path / name).write_bytes(data)
    frame, said = read(tmp_path / name)
    assert frame.columns[:2] in (["text", "stars"], ["text; and more", "stars"])
    assert frame["stars"][0] == 5
    assert (unusual in (said or "")) if unusual else said is None
    if name != "a.csv" or unusual:
        assert frame[frame.columns[0]][0] == "Käse, gut"


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xlsx", b"PK", "save the sheet as CSV"),
        ("a.zip", b"PK", "Unpack or export it"),
        ("a.md", b"# x", "give a CSV"),
        ("a.csv", b"  \n", "is empty"),
        ("a.csv", b"\x00\x01\xff\x00", "no text file"),
        ("a.csv", b'a,b\n"x, y,1\n', "opens on line 2 is never closed.*double quotes"),
        ("a.csv", b'text,stars\n"well,\nwell",2\none, two, three,4\n', "line 4 has 4 fields, but .* has 2 names"),
        ("a.csv", b'"It arrived late, and it was broken",2\n"Lovely",5\n', "looks like a row"),
        ("a.parquet", b"nonsense", "cannot be read as parquet"),
        ("a.json", b'{"rows": [{"text": "x"}], "more": [{"a": 1}]}', "one object per row"),
    ],
)
def test_what_is_no_table_is_explained(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=words):
        take_in(tmp_path / name)


def fill(folder: Path, *names: str, header: str = "text,stars") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        (folder / name).write_text(f"{header}\ntext {number},{number}\n", encoding="utf-8")
    return folder


def test_files_of_a_folder_named_by_split_are_declared_so(tmp_path: Path) -> None:
    folder = fill(tmp_path / "x", "reviews_train.csv", "reviews-dev.csv", "test.csv")
    (folder / "README.txt").write_text("about", encoding="utf-8")
    intake = take_in(folder)
    assert intake.files == {"train": "reviews_train.csv", "validation": "reviews-dev.csv", "holdout": "test.csv"}
    assert intake.frame.height == 3


def test_other_files_of_a_folder_are_listed_and_must_agree(tmp_path: Path) -> None:
    assert take_in(fill(tmp_path / "x", "2023.csv", "2024.csv")).files == ["2023.csv", "2024.csv"]
    assert take_in(fill(tmp_path / "y", "train.csv", "test.csv")).files == ["test.csv", "train.csv"]
    fill(tmp_path / "x", "2025.csv", header="text,score")
    with pytest.raises(DatasetError, match="different columns"):
        take_in(tmp_path / "x")
    with pytest.raises(DatasetError, match="holds no CSV"):
        take_in(fill(tmp_path / "z", "notes.md"))
    with pytest.raises(DatasetError, match="There is no"):
        take_in(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    ("path", "name"),
    [("My Reviews (2024).csv", "my_reviews_2024"), ("Upworthy/train.parquet", "upworthy"), ("ü.csv", None)],
)
def test_a_name_is_made_of_the_files(tmp_path: Path, path: str, name: str | None) -> None:
    if name:
        assert name_for(tmp_path / path) == name
    else:
        with pytest.raises(DatasetError, match="--name"):
            name_for(tmp_path / path)


def test_publishing_copies_and_never_overwrites(tmp_path: Path) -> None:
    source = fill(tmp_path / "in", "a.csv") / "a.csv"
    intake, target = take_in(source), tmp_path / "data" / "mine"
    publish(intake, tmp_path, "task: x\n", target)
    assert sorted(path.name for path in target.iterdir()) == [".gitignore", "a.csv", "dataset.yaml"]
    assert source.exists()
    before = {path: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(DatasetError, match="left as it is"):
        publish(intake, tmp_path, "task: y\n", target)
    assert before == {path: path.read_bytes() for path in target.iterdir()}
    assert source.exists()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine"]


def test_files_that_lie_there_already_get_their_declaration_beside_them(tmp_path: Path) -> None:
    target = tmp_path / "data" / "mine"
    target.mkdir(parents=True)
    (target / "a.csv").write_text(TABLE, encoding="utf-8")
    intake = take_in(target)
    write_plain(intake, tmp_path)
    publish(intake, tmp_path, "task: x\n", target)
    assert intake.files == "a_plain.csv"
    assert (target / "a.csv").read_text(encoding="utf-8") == TABLE
    assert pl.read_csv(target / "a_plain.csv").rows() == [("Käse, gut", 5), ("„schlecht“", 1)]


def test_utf16_that_breaks_off_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "half.csv"
    path.write_bytes("text,score\nä,1\n".encode("utf-16")[:-1])
    with pytest.raises(DatasetError, match=r"half\.csv begins as UTF-16 and breaks off.*export it again"):
        take_in(path)


def test_decimal_commas_become_points_where_commas_separate_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "text;Note;who\n1,5 stars;3,5;a\ngood;-1,25;b\n" + "ok;4;c\n" * 20 + "bad;k.A.;d\n", encoding="utf-8"
    )
    frame, said = read(path)
    assert frame["Note"].to_list() == ["3.5", "-1.25", *["4"] * 20, "k.A."]
    assert frame["text"][0] == "1,5 stars"
    assert said == "its fields were separated by semicolons and the numbers of `Note` had decimal commas"
    path.write_text('text,Note\n"a","3,5"\n"b","4,5"\n', encoding="utf-8")
    assert read(path)[0]["Note"].to_list() == ["3,5", "4,5"]


def test_a_column_without_a_name_is_no_title(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,\nfirst,1\nsecond,2\n", encoding="utf-8")
    assert read(path)[0].height == 2
