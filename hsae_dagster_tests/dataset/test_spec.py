"""dataset.yaml: every error names file, field, value and remedy."""

from pathlib import Path

import pytest

from hsae_dagster.dataset.discovery import check_name, dataset_names, files_fingerprint, load_dataset
from hsae_dagster.dataset.sections import AutoSizes
from hsae_dagster.dataset.spec import FEW_ROWS, DatasetSpec
from hsae_dagster.errors import DatasetError

GOOD = "task: regression\nfiles: texts.csv\ncolumns: {text: text, label: score}\n"
DISTILLED = "annotation: {model: 'openai:x', distil: {sample: 500}}\n"


def declare(folder: Path, yaml: str, name: str = "mine") -> Path:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "dataset.yaml").write_text(yaml, encoding="utf-8")
    return folder


def test_defaults_fill_everything_but_three_fields(tmp_path: Path) -> None:
    spec = load_dataset(declare(tmp_path, GOOD), "mine").spec
    assert (spec.embedding.model, spec.selection.n, spec.inference.alpha) == ("minilm", 20, 0.05)
    assert spec.saes == AutoSizes()
    assert spec.listed_saes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("sae: [{m: 8}]\n", ["`sae`", "not a field"]),
        ("saes: [{m: 8, k: 9}]\n", ["`saes.0`", "k is 9", "m is 8"]),
        ("saes: [{m: 8, k: 2, prefixes: [2, 4]}]\n", ["saes.0", "must rise strictly and end at m = 8"]),
        ("selection: {n: 0}\n", ["`selection.n`", "is 0", "greater than or equal to 1"]),
        ("splits: {holdout: 0.8, validation: 0.2}\n", ["splits.holdout", "1.00", "leave at least 0.1"]),
        (
            "splits: {holdout: 0.8}\nannotation: {model: 'openai:x'}\ninterpretation: {model: 'openai:x'}\n",
            ["splits.fidelity", "1.00", "leave at least 0.1"],
        ),
        ("splits: {design: two_halves, holdout: 0.3}\n", ["no holdout beside the halves", "leave splits.holdout out"]),
        (
            "splits: {design: two_halves}\nsaes: [{m: 8, k: 2, label_weight: 0.1}]\n",
            ["both halves share their autoencoders", "leave label_weight out"],
        ),
        (
            "splits: {design: two_halves}\nannotation: {model: 'openai:x'}\ninterpretation: {model: 'openai:x'}\n",
            ["finds claims offline", "set interpretation.model to `lexical`"],
        ),
        ("interpretation: {sampling: best}\n", ["`interpretation.sampling`", "'best'", "'percentile' or 'top'"]),
        (
            "interpretation: {bin: [100, 80]}\n",
            ["`interpretation`", "bin [100.0, 80.0] must rise", "write the lower percentile first"],
        ),
        ("interpretation: {low_bin: [0, 90]}\n", ["low_bin [0.0, 90.0] reaches into bin", "80 or below"]),
        ("interpretation: {low_bin: [0, 20], sampling: top}\n", ["low_bin belongs to sampling `percentile`"]),
        ("inference: {alpha: often}\n", ["`inference.alpha`", "'often'"]),
        ("annotation: {model: lexical}\ninterpretation: {model: 'openai:x'}\n", ["claims that execute"]),
        ("annotation: {distil: {sample: 500}}\n", ["`lexical` judges every text for free"]),
        ("annotation: {model: 'openai:x', distil: {sample: 50}}\n", ["`annotation.distil.sample`", "is 50"]),
        (f"{DISTILLED}inference: {{test: rank}}\n", ["annotation.distil", "inference.test `rank`", "leave one"]),
    ],
)
def test_a_wrong_field_is_named_with_its_remedy(tmp_path: Path, change: str, words: list[str]) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset(declare(tmp_path, GOOD + change), "mine")
    assert "mine/dataset.yaml" in str(error.value)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("files: a.csv\ncolumns: {text: t, label: l}\n", ["`task` is required"]),
        ("task: pairwise\nfiles: a.csv\ncolumns: {text: t, label: l}\n", ["text_a and columns.text_b"]),
        ("task: regression\nfiles: a.csv\ncolumns: {text_a: t, text_b: u, label: l}\n", ["needs columns.text"]),
        (f"task: pairwise\nfiles: a\ncolumns: {{text_a: t, text_b: u, label: l}}\n{DISTILLED}", ["a pairwise dataset"]),
        (
            f"task: regression\nfiles: a\ncolumns: {{text: t, label: l, controls: [c]}}\n{DISTILLED}",
            ["columns.controls"],
        ),
        ("task: ranking\nfiles: a.csv\ncolumns: {text: t, label: l}\n", ["`task`", "'ranking'"]),
        ("task: [regression\n", ["not valid YAML"]),
        (GOOD + "task: pairwise\n", ["not valid YAML", "`task` stands here and in line 1", "keep one"]),
        (GOOD + "selection: {n: 5, method: lasso, n: 7}\n", ["`n` stands here"]),
        ("just words\n", ["must hold fields"]),
        (GOOD.replace("texts.csv", "''"), ["`files`", "at least one file"]),
    ],
)
def test_a_broken_declaration_is_explained(tmp_path: Path, yaml: str, words: list[str]) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset(declare(tmp_path, yaml), "mine")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("yaml", "why"),
    [
        ("splits: {design: auto, validation: 0.15}\n", ""),
        ("splits: {design: auto, holdout: 0.4}\n", "leave splits.holdout out"),
        ("splits: {design: auto, reserve: 100}\n", "leave splits.reserve out"),
        ("splits: {design: auto}\nsaes: [{m: 8, k: 2, label_weight: 0.1}]\n", "leave label_weight out"),
        ("splits: {design: auto}\nannotation: {model: 'openai:x'}\n", "annotation.model is paid for"),
    ],
)
def test_auto_takes_halves_of_few_rows_and_says_of_anything_else_why_not(tmp_path: Path, yaml: str, why: str) -> None:
    spec = load_dataset(declare(tmp_path, GOOD + yaml), "mine").spec
    assert spec.splits.design == "auto"
    assert spec.design == ("holdout" if why else "auto")
    assert why in (spec.why_one_holdout(FEW_ROWS - 1) or "")
    assert bool(spec.why_one_holdout(FEW_ROWS - 1)) == bool(why)
    assert spec.why_one_holdout(FEW_ROWS), "of many rows a part that only tests is enough"


@pytest.mark.parametrize("name", ["a/b", "../up", "Upper", "", ".hidden", "a" * 65, "with space"])
def test_names_that_cannot_be_partitions_are_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="cannot name a dataset"):
        check_name(name)


def test_an_absent_dataset_lists_the_present_ones(tmp_path: Path) -> None:
    declare(tmp_path, GOOD)
    with pytest.raises(DatasetError, match="datasets present: mine"):
        load_dataset(tmp_path, "yours")


def test_folders_are_found_by_their_declaration(tmp_path: Path) -> None:
    declare(declare(tmp_path, GOOD, "b"), GOOD, "a")
    (tmp_path / "no_declaration").mkdir()
    declare(tmp_path, GOOD, "Bad Name")
    assert dataset_names(tmp_path) == ["a", "b"]


def test_files_outside_the_folder_are_refused_also_through_links(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("text,score\nx,1\n")
    declare(tmp_path, GOOD.replace("texts.csv", "../secret.csv"))
    with pytest.raises(DatasetError, match="outside its folder"):
        load_dataset(tmp_path, "mine").file_paths()
    declare(tmp_path, GOOD)
    (tmp_path / "mine" / "texts.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(DatasetError, match="outside its folder"):
        load_dataset(tmp_path, "mine").file_paths()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"texts\.csv.*does not exist"):
        load_dataset(declare(tmp_path, GOOD), "mine").file_paths()


def test_the_fingerprint_follows_contents_and_meaning_not_spelling(tmp_path: Path) -> None:
    declare(tmp_path, GOOD)
    (tmp_path / "mine" / "texts.csv").write_text("text,score\nx,1\n")
    first = files_fingerprint(load_dataset(tmp_path, "mine"))
    declare(tmp_path, "# a comment\n" + GOOD)
    assert files_fingerprint(load_dataset(tmp_path, "mine")) == first
    declare(tmp_path, GOOD + "selection: {n: 5}\n")
    second = files_fingerprint(load_dataset(tmp_path, "mine"))
    (tmp_path / "mine" / "texts.csv").write_text("text,score\nx,2\n")
    assert len({first, second, files_fingerprint(load_dataset(tmp_path, "mine"))}) == 3


def test_a_single_name_needs_no_brackets() -> None:
    spec = DatasetSpec.model_validate(
        {
            "task": "regression",
            "files": "a.csv",
            "columns": {"text": "t", "label": "y", "controls": "Job title", "missing": -99},
            "selection": {"within": "Job title"},
        }
    )
    assert spec.selection.within == spec.columns.controls == ("Job title",)
    assert spec.columns.missing == (-99,)
