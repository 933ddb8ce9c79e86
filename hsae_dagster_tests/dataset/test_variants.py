"""A variant takes over another dataset's files and settings; every wrong use is a sentence."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hsae_dagster.dataset.discovery import Dataset, file_versions, files_fingerprint, load_dataset, merge
from hsae_dagster.errors import DatasetError, FilesMissingError

BASE = {
    "task": "regression",
    "files": "texts.csv",
    "columns": {"text": "text", "label": "score", "cluster_by": "author"},
    "saes": [{"m": 8, "k": 2}, {"m": 4, "k": 1}],
    "interpretation": {"candidates": 2, "bin": [50, 100]},
}


def declare(data: Path, name: str, fields: dict[str, Any]) -> None:
    (data / name).mkdir(parents=True, exist_ok=True)
    (data / name / "dataset.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")


def variant(data: Path, own: dict[str, Any], base: dict[str, Any] = BASE) -> Dataset:
    declare(data, "base", base)
    (data / "base" / "texts.csv").write_text("text,score,author\na,1,x\n", encoding="utf-8")
    declare(data, "mine", {"extends": "base", **own})
    return load_dataset(data, "mine")


def test_what_is_not_said_is_taken_over_and_the_files_stay_where_they_are(tmp_path: Path) -> None:
    made = variant(
        tmp_path, {"interpretation": {"candidates": 5}, "columns": {"cluster_by": None}, "saes": [{"m": 16}]}
    )
    assert (made.name, made.origin) == ("mine", "base")
    assert (made.spec.interpretation.candidates, made.spec.interpretation.bin) == (5, (50, 100))
    assert (made.spec.columns.label, made.spec.columns.cluster_by) == ("score", None)
    assert [sae.m for sae in made.spec.saes] == [16]
    assert made.file_paths() == [(None, tmp_path / "base" / "texts.csv")]
    base = load_dataset(tmp_path, "base")
    assert base.origin == "base"
    assert file_versions(made) == file_versions(base)
    assert files_fingerprint(made) != files_fingerprint(base)


def test_a_change_of_the_base_changes_the_variant(tmp_path: Path) -> None:
    before = files_fingerprint(variant(tmp_path, {}))
    (tmp_path / "base" / "texts.csv").write_text("text,score,author\nb,1,x\n", encoding="utf-8")
    assert files_fingerprint(load_dataset(tmp_path, "mine")) != before


def test_a_checkpoint_may_lie_beside_the_variant_or_the_base(tmp_path: Path) -> None:
    made = variant(tmp_path, {})
    (tmp_path / "base" / "a.pt").write_bytes(b"a")
    (tmp_path / "mine" / "b.pt").write_bytes(b"b")
    assert made.checkpoint_path("a.pt").parent.name == "base"
    assert made.checkpoint_path("b.pt").parent.name == "mine"
    with pytest.raises(DatasetError, match="lies outside"):
        made.checkpoint_path("../base/a.pt")


@pytest.mark.parametrize(
    ("own", "base", "words"),
    [
        ({"extends": "mine"}, BASE, "extends itself"),
        ({"extends": "nosuch"}, BASE, "There is no .*nosuch"),
        ({"extends": "../base"}, BASE, "cannot name a dataset"),
        ({"files": "other.csv"}, BASE, "take out `files`"),
        ({}, {"extends": "mine"}, "itself extends `mine`"),
        ({"selection": {"m": 3}}, BASE, r"mine/dataset\.yaml.*`selection\.m` is not a field"),
        ({"columns": "text"}, BASE, "`columns`"),
    ],
)
def test_wrong_uses_are_explained(tmp_path: Path, own: dict[str, Any], base: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        variant(tmp_path, own, base)


def test_missing_files_are_told_with_how_to_get_them(tmp_path: Path) -> None:
    declare(tmp_path, "base", BASE | {"obtain": "hsae fetch base"})
    declare(tmp_path, "mine", {"extends": "base"})
    with pytest.raises(FilesMissingError, match=r"`mine`: the file .*base/texts\.csv .*To get it: hsae fetch base"):
        load_dataset(tmp_path, "mine").file_paths()


TREES = st.recursive(
    st.none() | st.integers() | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
SECTIONS = st.dictionaries(st.sampled_from("abc"), TREES, max_size=3)


@given(base=SECTIONS, own=SECTIONS)
def test_merging_takes_every_own_value_and_keeps_the_rest(base: dict[str, Any], own: dict[str, Any]) -> None:
    merged = merge(base, own)
    assert merged.keys() == base.keys() | own.keys()
    for field, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(field), dict):
            assert merged[field] == merge(base[field], value)
        else:
            assert merged[field] == value
    assert all(merged[field] == base[field] for field in base.keys() - own.keys())
    assert merge(merged, own) == merged
    assert merge(base, {}) == base
