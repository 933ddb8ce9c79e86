"""`hsae try` as a person types it: which claims hold for a text, and why; the table beside the report says the same."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from hsae_dagster import cli
from hsae_dagster.report.content import column_names
from hsae_dagster.stages.publishing import try_claims
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.lineage import LineageLog
from hsae_dagster_tests.conftest import Finished
from hsae_dagster_tests.test_cli import assert_a_sentence, settle

pytestmark = pytest.mark.usefixtures("environment")
Hsae = Callable[..., Result]


@pytest.fixture
def hsae(finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hsae:
    settle(tmp_path / "home")
    monkeypatch.setenv("HSAE_DATA_DIR", finished.workspace.project.data_dir)
    monkeypatch.setenv("HSAE_RESULTS_DIR", finished.workspace.project.results_dir)
    return lambda *arguments: CliRunner().invoke(cli.main, list(arguments))


def table(finished: Finished, dataset: str) -> pl.DataFrame:
    return read_frame(finished.workspace.project.results / "reports" / dataset / "annotations.parquet")


def names_of(finished: Finished, dataset: str) -> list[tuple[str, str]]:
    """(column, claim) in the report's order."""
    stored = finished.workspace.current(dataset, "evaluation_report")
    claims = read_frame(stored.file("hypotheses.parquet"))["claim"].to_list()
    columns = [c for c in table(finished, dataset).columns if not c.endswith("_because")]
    return list(zip([c for c in columns if c not in ("text_id", "cluster", "outcome")], claims, strict=True))


def test_every_held_out_text_is_a_row_and_every_claim_a_readable_column(finished: Finished) -> None:
    frame = table(finished, "ratings")
    matrix = finished.workspace.current("ratings", "annotation_matrix")
    judged = read_frame(matrix.file("annotations.parquet"))
    observed = read_frame(matrix.file("observations.parquet"))
    assert frame["text_id"].to_list() == observed["text_id"].to_list()
    assert frame["outcome"].to_list() == observed["label"].to_list()
    hypotheses = read_frame(finished.workspace.current("ratings", "evaluation_report").file("hypotheses.parquet"))
    rows = judged.join(frame, on="text_id", how="inner")
    assert rows.height == frame.height
    for (name, _), concept in zip(names_of(finished, "ratings"), hypotheses["concept_id"], strict=True):
        assert rows[name].cast(pl.Boolean).to_list() == rows[concept].to_list()
        assert ((rows[name] == 1) == (rows[f"{name}_because"] != "")).all(), name


def test_pairs_are_rows_with_both_sides(finished: Finished) -> None:
    frame = table(finished, "duels")
    assert frame.columns[:4] == ["text_id_a", "text_id_b", "cluster", "outcome"]
    sides = {name.removesuffix("_because")[-2:] for name in frame.columns[4:]}
    assert sides == {"_a", "_b"}
    read = pl.read_csv(finished.workspace.project.results / "reports" / "duels" / "annotations.csv")
    assert read.columns == frame.columns and read.height == frame.height


def test_a_text_is_tried_as_the_evaluation_judged_it(finished: Finished, hsae: Hsae) -> None:
    texts = read_frame(finished.workspace.current("ratings", "corpus").file("texts.parquet"))
    frame = table(finished, "ratings").join(texts.select("text_id", "text"), on="text_id")
    columns = [name for name, _ in names_of(finished, "ratings")]
    for row in frame.head(5).iter_rows(named=True):
        _, tried = try_claims(finished.workspace.project, "ratings", row["text"])
        order = {each.standing.hypothesis_id: each for each in tried}
        stored = finished.workspace.current("ratings", "evaluation_report")
        ids = read_frame(stored.file("hypotheses.parquet"))["hypothesis_id"]
        for name, key in zip(columns, ids, strict=True):
            assert bool(order[key].because) == (row[name] == 1)
            assert " | ".join(order[key].because or ()) == row[f"{name}_because"]
        done = hsae("try", row["text"], "--dataset", "ratings")
        assert done.exit_code == 0, done.output
        held = sum(row[name] == 1 for name in columns)
        assert done.output.startswith(f"{held} of {len(columns)} claims hold")
        assert done.output.count("because: “") + done.output.count("has at ") >= min(held, 1)


def test_a_file_is_a_text_and_what_cannot_be_tried_is_said(finished: Finished, hsae: Hsae, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Nothing of the kind.", encoding="utf-8")
    assert hsae("try", "--file", str(text), "--dataset", "parties").exit_code == 0
    text.write_bytes(b"\xff\xfe\xff")
    for arguments, said in (
        (("--file", str(text), "--dataset", "ratings"), "UTF-8"),
        (("--dataset", "ratings"), "Give one text"),
        ((" ", "--dataset", "ratings"), "The text is empty"),
        (("x", "--dataset", "nothing"), "Dataset `nothing` has no evaluation"),
    ):
        done = hsae("try", *arguments)
        assert_a_sentence(done)
        assert said in done.output
    assert LineageLog(finished.workspace.store).latest("ratings") is not None


def test_columns_are_named_readably_and_only_once() -> None:
    claims = [
        ("says “boring” or “dull”", "boring"),
        ("says “boring” or “flat”", "boring"),
        ("has a sentence like “I’ve decided …”", "I’ve decided to return it, and that was that, in the end."),
        ("has a question mark", "has a question mark"),
        ("has at most 9 words", "has at most 9 words"),
        ("says “退货”", "退货"),
        ("outcome", "outcome"),
        ("says “café”", "café"),
    ]
    assert column_names(claims) == [
        "says_boring",
        "says_boring_2",
        "like_ive_decided_to_return_it_and_that",
        "has_a_question_mark",
        "has_at_most_9_words",
        "claim_6",
        "outcome_2",
        "says_cafe",
    ]
