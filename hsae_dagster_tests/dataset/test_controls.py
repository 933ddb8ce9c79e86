"""A control whose categories cannot all be held constant is refused, not lumped."""

from pathlib import Path

import polars as pl
import pytest

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import check_levels, levels_of, most_categories, read_rows
from hsae_dagster.dataset.spec import Selection
from hsae_dagster.errors import DatasetError, MethodError


def read(folder: Path, values: list[str | None], cluster_by: str = "") -> pl.DataFrame:
    home = folder / "mine"
    home.mkdir()
    n = len(values)
    frame = pl.DataFrame(
        {"text": [f"text {i}" for i in range(n)], "score": [float(i % 7) for i in range(n)], "at": values}
    )
    frame.write_parquet(home / "texts.parquet")
    (home / "dataset.yaml").write_text(
        f"task: regression\nfiles: texts.parquet\ncolumns: {{text: text, label: score, controls: [at]{cluster_by}}}\n"
    )
    return read_rows(load_dataset(folder, "mine")).frame


@pytest.mark.parametrize(("rows", "most"), [(0, 31), (1549, 31), (1600, 32), (3000, 60), (3050, 61), (10**6, 61)])
def test_categories_that_can_be_held_constant(rows: int, most: int) -> None:
    assert most_categories(rows) == most


def test_a_missing_value_is_a_category(tmp_path: Path) -> None:
    assert read(tmp_path, [None, *(f"w{i % 30}" for i in range(620))])["control:at"].n_unique() == 31


def test_too_many_categories_are_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"`at` has 32 categories; with 640 rows at most 31 .* Group its values"):
        read(tmp_path, [f"w{i % 32}" for i in range(640)])


@pytest.mark.parametrize("cluster_by", ["", ", cluster_by: at"])
def test_what_groups_a_few_rows_is_compared_by_pairs(tmp_path: Path, cluster_by: str) -> None:
    with pytest.raises(DatasetError, match=r"`at` has 200 categories; .* make pairs of them"):
        read(tmp_path, [f"test {i // 3}" for i in range(600)], cluster_by)


def test_numbers_are_no_categories(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    home.mkdir()
    pl.DataFrame(
        {"text": [f"t{i}" for i in range(90)], "score": [float(i % 5) for i in range(90)], "at": list(range(90))}
    ).write_parquet(home / "texts.parquet")
    (home / "dataset.yaml").write_text(
        "task: regression\nfiles: texts.parquet\ncolumns: {text: text, label: score, controls: [at]}\n"
    )
    assert read_rows(load_dataset(tmp_path, "mine")).frame.height == 90


@pytest.mark.parametrize("field", ["within", "interactions"])
@pytest.mark.parametrize("split", ["train", "holdout"])
def test_strata_and_subgroups_have_at_most_30_levels(field: str, split: str) -> None:
    levels = [None, *range(29)]
    frame = pl.DataFrame({"split": [split] * 30, "control:week": levels})
    assert len(set(levels_of(frame, "week"))) == 30
    check_levels(Selection(**{field: ("week",)}), frame)
    more = frame.vstack(pl.DataFrame({"split": [split], "control:week": [29]}))
    check_levels(Selection(), more)
    elsewhere = frame.vstack(pl.DataFrame({"split": ["validation"], "control:week": [29]}))
    check_levels(Selection(**{field: ("week",)}), elsewhere)
    with pytest.raises(MethodError, match=r"`week` has 31 levels; strata and subgroups .* at most 30"):
        check_levels(Selection(**{field: ("week",)}), more)


@pytest.mark.parametrize(
    "values",
    [
        [str(i % 7 + 1) for i in range(700)],  # the outcome in other numbers
        [f"writer {i % 14}" for i in range(700)],  # each of one outcome
        [f"writer {i % 14}" if i % 90 else "writer 3" for i in range(700)],  # but for a few errors
    ],
)
def test_a_control_that_is_or_settles_the_outcome_is_refused(tmp_path: Path, values: list[str | None]) -> None:
    with pytest.raises(DatasetError, match=r"the control `at` determines the outcome `score`.*Leave `at` out"):
        read(tmp_path, values)


def test_a_control_that_says_much_of_the_outcome_is_held_constant(tmp_path: Path) -> None:
    values = [str(i % 7 + (i * 7919) % 3) for i in range(700)]
    assert read(tmp_path, values)["control:at"].n_unique() == 9
