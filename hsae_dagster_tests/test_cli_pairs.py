"""`hsae new --pairs-within` as a person types it."""

import shlex
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.new.pairs import PairWishes, pair_up
from hsae_dagster.dataset.new.proposal import Wishes, propose, render
from hsae_dagster_tests.assets.workspace import Workspace
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.test_cli import assert_a_sentence, hsae, settle
from hsae_dagster_tests.test_docs import commands

pytestmark = pytest.mark.usefixtures("environment")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return settle(tmp_path / "project")


def headlines(tests: int = 150) -> pl.DataFrame:
    """Four rows per test, one of which repeats a headline; one row more without a rate; one test of a single text."""
    rng = np.random.default_rng(3)
    rows = []
    for test in range(tests):
        # Words of the test's own: headlines that differ in a number alone would be nearly one text.
        story = " ".join("".join(rng.choice(list("abcdefghij"), 6)) for _ in range(6))
        texts = [f"What the {kind} said of {story}" for kind in ("mayor", "baker", "teacher")]
        rates = [str(round(float(rate), 2)) for rate in rng.permutation(np.arange(1, 400))[:4] / 100]
        rows += [(f"t{test}", text, rate) for text, rate in zip([*texts, texts[0]], rates, strict=True)]
    rows += [("t0", "This one was shown to nobody at all", ""), ("alone", "This is the only one of its test", "1.5")]
    return pl.DataFrame(rows, schema=["Test", "Headline shown", "Rate"], orient="row")


def test_groups_are_the_clusters_that_the_corpus_makes_of_their_column() -> None:
    spelled = ["Anna Weiß", "ANNA WEISS", " anna  weiss ", "Otto Klee"]
    frame = pl.DataFrame(
        {
            "writer": [spelled[i % 4] for i in range(12)],
            "text": [f"What the {kind} said of the {thing}" for kind in ("mayor", "baker", "cook") for thing in "abcd"],
            "score": [float(i) for i in range(12)],
        }
    )
    pairs, _, _ = pair_up(frame, "x.csv", Wishes(text="text", label="score"), PairWishes("writer"))
    # Nine texts of one writer and three of the other, each under one of the spellings of the file.
    assert pairs["writer"].value_counts().sort("count").rows() == [("Otto Klee", 3), ("ANNA WEISS", 36)]
    alike = frame.with_columns(pl.col("writer").str.strip_chars().replace({"anna  weiss": "ANNA WEISS"}))
    again, _, _ = pair_up(alike, "x.csv", Wishes(text="text", label="score"), PairWishes("writer"))
    assert again.equals(pairs)


def bring(root: Path, name: str, frame: pl.DataFrame) -> str:
    path = root / "incoming" / name
    path.parent.mkdir(exist_ok=True)
    frame.write_csv(path, separator=";")
    return str(path)


def test_a_long_table_becomes_pairs_that_every_stage_can_use(root: Path) -> None:
    path = bring(root, "ab tests.csv", headlines())
    done = hsae("new", path, "--pairs-within", "Test")
    assert done.exit_code == 0, done.output
    said = " ".join(line.removeprefix("# ") for line in done.output.splitlines())
    assert "(150 groups) were made of the 602 rows of ab tests.csv" in said
    assert "1 row without `Rate`, 1 group with one text" in said
    assert "Rows with a text that their group has already: 150." in said
    assert "run ab_tests_pairs" in done.output
    dataset = load_dataset(root / "data", "ab_tests_pairs")
    columns = dataset.spec.columns
    assert (dataset.spec.task, columns.text_a, columns.text_b, columns.label, columns.cluster_by) == (
        "pairwise",
        "text_a",
        "text_b",
        "label",
        "Test",
    )
    assert dataset.spec.outcome == "having the higher rate"
    pairs = pl.read_parquet(dataset.folder / "pairs.parquet")
    assert pairs.columns == ["Test", "text_a", "text_b", "label", "outcome_a", "outcome_b", "margin"]
    assert 440 < pairs.height <= 450
    assert sorted(p.name for p in dataset.folder.iterdir()) == [".gitignore", "dataset.yaml", "pairs.parquet"]
    again = hsae("check", "ab_tests_pairs")
    assert again.exit_code == 0, again.output
    assert "observations of 150 clusters" in again.output
    run = Workspace(root).run("ab_tests_pairs", upto="corpus")
    assert run.success, {step: run.sentence(step) for step in run.failures}


def test_the_pages_own_commands_make_the_dataset_it_speaks_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    frame = headlines().rename({"Test": "test", "Headline shown": "headline", "Rate": "clicks_per_view"})
    frame.write_csv("ab-tests.csv")
    lines = [shlex.split(line)[1:] for line in commands(CHECKOUT / "docs" / "pairs.md") if ".venv/bin/hsae" in line]
    assert [words[0] for words in lines] == ["new", "check", "run"]
    for words in lines[:2]:
        done = hsae(*words)
        assert done.exit_code == 0, done.output
    assert load_dataset(root / "data", lines[2][1]).spec.columns.cluster_by == "test"


def test_only_the_extremes_or_only_clear_ones_and_nothing_written_on_trial(root: Path) -> None:
    path = bring(root, "tests.csv", headlines())
    done = hsae("new", path, "--pairs-within", "Test", "--pairs", "extremes", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "150 observations of 150 clusters" in done.output
    done = hsae("new", path, "--pairs-within", "Test", "--least-margin", "1", "--name", "clear", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "with a margin below 1" in done.output.replace("\n# ", " ")
    assert not (root / "data").exists()


def test_a_class_named_as_the_better_one_is_the_outcome(root: Path) -> None:
    frame = headlines().with_columns(pl.when(pl.col("Rate") > "2").then(pl.lit("kept")).otherwise(pl.lit("left")))
    frame = frame.rename({"literal": "Verdict"}).drop("Rate")
    path = bring(root, "verdicts.csv", frame)
    refused = hsae("new", path, "--pairs-within", "Test")
    assert_a_sentence(refused)
    assert "--positive" in refused.output
    done = hsae("new", path, "--pairs-within", "Test", "--positive", "Kept")
    assert done.exit_code == 0, done.output
    pairs = pl.read_parquet(root / "data" / "verdicts_pairs" / "pairs.parquet")
    assert set(pairs["outcome_a"]) | set(pairs["outcome_b"]) == {0.0, 0.5, 1.0}


def test_a_group_column_with_a_name_of_the_pairs_own_gets_another(root: Path) -> None:
    path = bring(root, "tests.csv", headlines().rename({"Test": "margin"}))
    done = hsae("new", path, "--pairs-within", "margin", "--label", "Rate")
    assert done.exit_code == 0, done.output
    assert load_dataset(root / "data", "tests_pairs").spec.columns.cluster_by == "group"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pairs-within", "Trial"), "no column `Trial`"),
        (("--pairs-within", "Test", "--label", "Clicks"), "no column `Clicks`"),
        (("--pairs-within", "Test", "--label", "Test"), "name other columns"),
        (("--pairs-within", "Test", "--label", "Headline shown", "--text", "Headline shown"), "the outcome must be"),
        (("--pairs-within", "Rate", "--label", "Test"), "is not a number"),
        (("--pairs-within", "Headline shown", "--text", "Test"), "No group has two"),
        (("--pairs-within", "Test", "--positive", "good"), "has the value 'good'"),
        (("--pairs-within", "Test", "--text-a", "Test", "--text-b", "Rate"), "with --text"),
        (("--pairs-within", "Test", "--task", "regression"), "leave --task regression"),
        (("--pairs-within", "Test", "--cluster-by", "Rate"), "Leave --cluster-by out"),
        (("--pairs-within", "Test", "--least-margin", "1000"), "differ by less"),
        (("--pairs", "extremes"), "--pairs-within"),
    ],
)
def test_what_cannot_be_paired_is_a_sentence(root: Path, arguments: tuple[str, ...], words: str) -> None:
    done = hsae("new", bring(root, "tests.csv", headlines()), *arguments)
    assert_a_sentence(done)
    assert words in done.output.replace("\n", " ")
    assert not (root / "data").exists()


def test_declared_splits_are_not_mixed_in_silence(root: Path) -> None:
    for split in ("train", "validation", "holdout"):
        path = bring(root, f"{split}.csv", headlines(20))
    done = hsae("new", str(Path(path).parent), "--pairs-within", "Test")
    assert_a_sentence(done)
    assert "Give one file" in done.output


def test_a_proposal_of_a_number_in_small_groups_mentions_pairs() -> None:
    frame = headlines().with_columns(pl.col("Rate").cast(pl.Float64, strict=False))
    said = render(propose(frame, "x.csv"), "x.csv")
    assert "# `hsae new … --pairs-within Test` compares only texts that share it.\n" in said
    assert yaml.safe_load(said)["columns"] == {
        "text": "Headline shown",
        "label": "Rate",
        "cluster_by": "Test",
        "on_missing": "drop",
    }
    assert "--pairs-within" not in render(propose(frame, "x.csv", Wishes(cluster_by="Headline shown")), "x.csv")
