"""Bad input: one sentence that says what, where and the remedy; what was finished before stays as it was."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import NAMES, Run, Workspace, tiny_texts

Change = Callable[[Workspace], Any]


@dataclass(frozen=True)
class Case:
    """A change to the finished dataset `ratings`, the step that must stop, and words of its sentence."""

    change: Change
    step: str
    said: tuple[str, ...]
    whole: bool = False


def redeclare(**changes: Any) -> Change:
    return lambda workspace: workspace.declare("ratings", None, **changes)


def columns(**changes: Any) -> Change:
    return redeclare(columns={"text": "text", "label": "score", "cluster_by": "author"} | changes)


def rewrite(make: Callable[[pl.DataFrame], pl.DataFrame], **changes: Any) -> Change:
    return lambda workspace: workspace.declare("ratings", make(tiny_texts()), **changes)


def set_value(column: str, row: int, value: Any) -> Change:
    here = pl.int_range(pl.len()) == row
    return rewrite(lambda frame: frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(column).alias(column)))


def write(name: str, content: str) -> Change:
    return lambda workspace: (workspace.root / "data" / "ratings" / name).write_text(content, encoding="utf-8")


def remove(name: str) -> Change:
    return lambda workspace: (workspace.root / "data" / "ratings" / name).unlink()


CASES = {
    "missing file": Case(remove("texts.parquet"), "corpus", ("ratings", "texts.parquet", "does not exist")),
    "missing declaration": Case(remove("dataset.yaml"), "corpus", ("ratings", "dataset.yaml", "duels, parties")),
    "a damaged file": Case(write("texts.parquet", "no parquet"), "corpus", ("texts.parquet", "cannot be read")),
    "a file of an unknown kind": Case(redeclare(files="texts.xlsx"), "corpus", ("texts.xlsx",)),
    "a file elsewhere": Case(redeclare(files="../duels/texts.parquet"), "corpus", ("../duels", "outside")),
    "missing text column": Case(columns(text="body"), "corpus", ("texts.parquet", "`body`", "text, score, author")),
    "missing label column": Case(columns(label="stars"), "corpus", ("no column `stars`", "dataset.yaml")),
    "missing cluster column": Case(columns(cluster_by="writer"), "corpus", ("no column `writer`",)),
    "a label that is NaN": Case(set_value("score", 3, float("nan")), "corpus", ("`score`", "row 4", "on_missing")),
    "a label that is absent": Case(set_value("score", 0, None), "corpus", ("`score`", "row 1", "on_missing")),
    "an infinite label": Case(set_value("score", 9, float("inf")), "corpus", ("`score`", "row 10")),
    "a label that is a word": Case(
        rewrite(lambda f: f.with_columns(pl.lit("fine").alias("score"))), "corpus", ("`score`", "'fine'", "number")
    ),
    "one class": Case(
        rewrite(lambda f: f.with_columns(pl.lit(1).alias("score")), task="classification"),
        "corpus",
        ("`score`", "every label is 1"),
    ),
    "one value": Case(
        rewrite(lambda f: f.with_columns(pl.lit(2.5).alias("score"))), "corpus", ("`score`", "every label is 2.5")
    ),
    "classes that are not 0 and 1": Case(
        rewrite(lambda f: f.with_columns(pl.int_range(pl.len()).mod(3).alias("score")), task="classification"),
        "corpus",
        ("'0' (100 rows)", "'2' (100 rows)", "columns.positive", "regression"),
    ),
    "classes that are words": Case(
        rewrite(lambda f: f.with_columns(pl.Series("score", ["red", "green", "blue"] * 100)), task="classification"),
        "corpus",
        ("`score`", "'blue' (100 rows), 'green' (100 rows), 'red' (100 rows)", "columns.positive"),
    ),
    "more neurons per text than neurons": Case(redeclare(saes=[{"m": 8, "k": 9}]), "corpus", ("k is 9", "at most m")),
    "prefixes that end early": Case(
        redeclare(saes=[{"m": 8, "k": 2, "prefixes": [2, 4]}]), "corpus", ("[2, 4]", "end at m = 8")
    ),
    "bins that overlap": Case(
        redeclare(interpretation={"low_bin": [0, 90]}), "corpus", ("low_bin [0.0, 90.0]", "80 or below")
    ),
    "an empty text": Case(set_value("text", 5, ""), "corpus", ("`text`", "row 6", "on_missing")),
    "a blank text": Case(set_value("text", 5, " \n\t "), "corpus", ("`text`", "row 6")),
    "no row at all": Case(rewrite(lambda f: f.head(0)), "corpus", ("no rows",)),
    "too few rows": Case(rewrite(lambda f: f.head(20)), "corpus", ("split", "20 observations", "more data")),
    "one cluster": Case(
        rewrite(lambda f: f.with_columns(pl.lit("me").alias("author"))), "corpus", ("of 1 clusters", "more clusters")
    ),
    "an unknown field": Case(redeclare(sae=[{"m": 8}]), "corpus", ("dataset.yaml", "`sae` is not a field")),
    "an unknown nested field": Case(redeclare(selection={"number": 3}), "corpus", ("`selection.number`",)),
    "a value out of range": Case(redeclare(selection={"n": 0}), "corpus", ("`selection.n` is 0",)),
    "not YAML": Case(write("dataset.yaml", "task: [regression"), "corpus", ("dataset.yaml", "not valid YAML")),
    "an unknown embedder": Case(
        redeclare(embedding={"model": "minilmm"}), "corpus", ("`embedding.model`", "`minilmm`", "`minilm`")
    ),
    "an unknown interpreter": Case(
        redeclare(interpretation={"model": "claude"}, annotation={"model": "openai:m"}),
        "corpus",
        ("`interpretation.model`", "`claude`", "`lexical`"),
    ),
    "fewer training texts than neurons": Case(
        redeclare(saes=[{"m": 8, "k": 2}, {"m": 400, "k": 4}]),
        "sae_checkpoints",
        ("m = 400", "training texts", "`saes.m`"),
    ),
    "fewer live neurons than asked for": Case(
        redeclare(selection={"n": 9, "across_clusters": False}),
        "selected_neurons",
        ("9 neurons were asked for", "of 8", "wider SAE"),
    ),
    "an unknown selection method": Case(
        redeclare(selection={"n": 4, "method": "magic"}), "corpus", ("`selection.method` is `magic`", "`lasso`")
    ),
    "no text to choose on": Case(
        # Claims found offline are chosen by cross-validation; a language model's are chosen on texts set aside.
        redeclare(splits={"validation": 0.0}, interpretation={"model": "openai:m"}, annotation={"model": "openai:m"}),
        "interpretations",
        ("validation split", "splits.validation"),
        whole=True,
    ),
}


def expect_stop(workspace: Workspace, run: Run, dataset: str, step: str, before: dict[str, str]) -> str:
    """The sentence of the step that stopped, after checking that nothing finished has changed."""
    assert list(run.failures) == [step]
    after = workspace.bytes_of()
    results = {path: digest for path, digest in before.items() if not path.startswith("datasets/")}
    assert {path: after.get(path) for path in results} == results
    for name in NAMES[NAMES.index(step) :]:
        pointer = f"datasets/{dataset}/{name}"
        assert after.get(pointer) == before.get(pointer)
    others = {path for path in before if path.startswith("datasets/") and not path.startswith(f"datasets/{dataset}/")}
    assert all(after[path] == before[path] for path in others)
    # Nothing half-made lies about.
    assert not list(workspace.project.results.rglob(".making-*"))
    return run.sentence(step)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_clear_sentence(copied: Workspace, name: str) -> None:
    case = CASES[name]
    before = copied.bytes_of()
    case.change(copied)
    # Where the splits change, what is upstream has to follow; else it is finished.
    run = copied.run("ratings", upto=case.step) if case.whole else copied.run("ratings", case.step)
    said = expect_stop(copied, run, "ratings", case.step, before)
    for words in case.said:
        assert words in said
    assert said.endswith((".", ")"))
    assert "\n" not in said


@pytest.mark.parametrize("name", ["a/b", "../ratings", "Ratings", "with space", "ratings."])
def test_a_name_that_cannot_be_a_folder_is_refused(copied: Workspace, name: str) -> None:
    before = copied.bytes_of()
    run = copied.run(name, "corpus")
    said = expect_stop(copied, run, name, "corpus", before)
    assert f"`{name}` cannot name a dataset" in said
    assert "a-z" in said
    assert copied.bytes_of() == before


def test_a_stage_without_what_is_upstream_says_what_to_materialize(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts())
    run = workspace.run("ratings", "activations")
    assert "`corpus`" in run.sentence("activations")
    assert "Materialize" in run.sentence("activations")


def test_repeats_are_left_out_only_where_an_id_tells_them(tmp_path: Path) -> None:
    # No report has looked yet, or the repeats would be new rows that wait.
    workspace, texts = Workspace(tmp_path), tiny_texts().with_row_index("number")
    read_twice = pl.concat([texts, texts[:13]])
    workspace.declare("ratings", read_twice)
    told = workspace.run("ratings", "corpus").metadata("corpus")
    assert (told["rows left out"], told["observations"], told["dagster/row_count"]) == ("none", 313, 300)
    columns(id="number")(workspace)
    told = workspace.run("ratings", "corpus").metadata("corpus")
    assert [record.data for record in told["rows left out"].records] == [
        {"reason": "repeating a row of the same id", "rows": 13}
    ]
    assert (told["rows read"], told["observations"], told["dagster/row_count"]) == (313, 300, 300)


def test_many_rows_left_out_are_a_warning_not_a_stop(copied: Workspace) -> None:
    texts = tiny_texts().with_row_index("number")
    copied.declare("ratings", pl.concat([texts, texts[:150]]))
    columns(id="number")(copied)
    run = copied.run("ratings", "corpus")
    assert run.success
    assert not run.checks["corpus.few_rows_dropped"].passed


def test_rows_without_label_may_be_dropped_and_are_counted(copied: Workspace) -> None:
    set_value("score", 3, float("nan"))(copied)
    columns(on_missing="drop")(copied)
    run = copied.run("ratings", "corpus")
    assert run.success
    told = run.metadata("corpus")
    assert [record.data for record in told["rows left out"].records] == [{"reason": "no usable label", "rows": 1}]
    assert told["observations"] == 299


def test_a_label_that_is_constant_on_one_side_stops_before_anything_is_learned(copied: Workspace) -> None:
    corpus = copied.current("ratings", "corpus")
    holdout = read_frame(corpus.file("texts.parquet")).filter(pl.col("split") == "holdout")["text"].to_list()
    is_holdout = pl.col("text").is_in(holdout)
    rewrite(lambda f: f.with_columns(pl.when(is_holdout).then(1.0).otherwise("score").alias("score")))(copied)
    before = copied.bytes_of("datasets")
    run = copied.run("ratings", "corpus", "embeddings")
    assert not run.success
    assert not run.checks["corpus.labels_vary"].passed
    assert not run.result.asset_materializations_for_node("embeddings")
    assert copied.bytes_of("datasets") == before


@pytest.mark.parametrize(
    ("field", "step", "changes"),
    [
        ("embedding.model", "embeddings", {"embedding": {"model": "openai:text-embedding-3-small"}}),
        (
            "interpretation.model",
            "interpretations",
            {"interpretation": {"model": "openai:m"}, "annotation": {"model": "openai:m"}},
        ),
        ("annotation.model", "annotation_matrix", {"annotation": {"model": "openai:m"}}),
    ],
)
def test_a_provider_without_key_names_its_field_and_the_variable(
    copied: Workspace, field: str, step: str, changes: dict[str, Any]
) -> None:
    before = copied.bytes_of()
    copied.declare("ratings", None, **changes)
    run = copied.run("ratings", step)
    said = expect_stop(copied, run, "ratings", step, before)
    assert f"`{field}: openai:" in said
    assert "OPENAI_API_KEY" in said
    assert "offline" in said


def test_a_corrected_dataset_goes_on_as_if_nothing_had_been(copied: Workspace, tmp_path: Path) -> None:
    before = copied.bytes_of()
    good = (copied.root / "data" / "ratings" / "dataset.yaml").read_text(encoding="utf-8")
    redeclare(selection={"n": 9, "across_clusters": False})(copied)
    assert not copied.run("ratings").success
    write("dataset.yaml", good)(copied)
    run = copied.run("ratings")
    assert run.success
    assert all(run.metadata(asset)["reused"] for asset in NAMES)
    after = copied.bytes_of()
    assert {path: after[path] for path in before} == before
