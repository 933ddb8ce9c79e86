"""Declarations that cannot be read, and files that lead elsewhere."""

from pathlib import Path

import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import DatasetError

GOOD = "task: regression\nfiles: t.csv\ncolumns: {text: text, label: score}\n"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    (folder / "t.csv").write_text("text,score\na,1\nb,2\n", encoding="utf-8")
    (folder / "dataset.yaml").write_text(GOOD, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "text",
    [
        "task: 2020-13-45",
        "task: !!int 0x",
        "task: " + "9" * 5000 + "\n",
        "[" * 5000,
        "a: &a [*a]",
        "task: !!python/object/apply:os.system [true]",
        "",
    ],
)
def test_what_is_no_declaration_is_a_sentence(mine: Path, text: str) -> None:
    (mine / "dataset.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"dataset\.yaml"):
        load_dataset(mine.parent, "mine")


@pytest.mark.parametrize("file", ["\\0", "a" * 5000, "../elsewhere.csv", "/etc/passwd", "out.csv", "folder/t.csv"])
def test_no_file_leads_out_of_the_folder(mine: Path, file: str) -> None:
    (mine.parent.parent / "elsewhere.csv").write_text("text,score\n", encoding="utf-8")
    (mine / "out.csv").symlink_to("../../elsewhere.csv")
    (mine / "folder").symlink_to(mine.parent.parent)
    (mine / "dataset.yaml").write_text(GOOD.replace("t.csv", f'"{file}"'), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"outside its folder|names no file"):
        load_dataset(mine.parent, "mine").file_paths()


def test_neither_a_folder_nor_a_declaration_may_be_a_link_out_of_data(mine: Path) -> None:
    elsewhere = mine.parent.parent / "elsewhere"
    mine.rename(elsewhere)
    mine.symlink_to(elsewhere)
    with pytest.raises(DatasetError, match=r"leads outside .*HSAE_DATA_DIR"):
        load_dataset(mine.parent, "mine")
    mine.unlink()
    mine.mkdir()
    (mine / "dataset.yaml").symlink_to(elsewhere / "dataset.yaml")
    with pytest.raises(DatasetError, match="leads outside"):
        load_dataset(mine.parent, "mine")


def test_a_link_within_data_and_a_linked_data_folder_are_fine(mine: Path) -> None:
    (mine.parent / "other").symlink_to(mine)
    (mine.parent.parent / "linked").symlink_to(mine.parent)
    for folder, name in ((mine.parent, "other"), (mine.parent.parent / "linked", "mine")):
        assert load_dataset(folder, name).file_paths()
