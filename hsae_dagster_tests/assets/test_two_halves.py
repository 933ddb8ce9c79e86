"""Two halves from files to cards: what each found is tested on the other, and nothing of the other had a part in it."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hsae_dagster.cli.new import describe
from hsae_dagster.core.selection.stability import HALVES
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.errors import MethodError
from hsae_dagster.report.page import card_partition
from hsae_dagster.stages.evaluation import different_findings
from hsae_dagster.stages.gold import draw_sheet
from hsae_dagster.stages.publishing import text_trail, try_claims
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.test_gold import as_judged_by_a_model
from hsae_dagster_tests.assets.workspace import Run, Workspace, tiny_texts
from hsae_dagster_tests.report.make_content import make_hypotheses

SPLITS = {"design": "two_halves", "validation": 0.2}
OWN = [{"claim": "mentions the moon", "terms": ["moon"]}]
INFERENCE = {"min_positives": 5, "bootstrap": 20, "folds": 3}
OTHER = {"a": "b", "b": "a"}


def texts() -> pl.DataFrame:
    """The tiny texts and neutral ones, so that two topics are not each other's opposite."""
    rng = np.random.default_rng(5)
    plain = ["garden", "letter", "window", "ticket", "pencil", "bridge", "carpet", "mirror", "basket", "ladder"]
    rows = [
        (f"A {a} and a {b} lay near the {c}.", float(rng.normal(0, 0.4)), f"author {rng.integers(60):02d}")
        for a, b, c in rng.permutation(list(itertools.permutations(plain, 3)))[:200]
    ]
    return pl.concat([tiny_texts(400), pl.DataFrame(rows, schema=["text", "score", "author"], orient="row")])


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Run]:
    """The tiny texts, each half testing what the other found; not to be written to."""
    workspace = Workspace(tmp_path_factory.mktemp("halved"))
    workspace.declare("tiny", texts(), splits=SPLITS, hypotheses=OWN, inference=INFERENCE)
    run = workspace.run("tiny")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    return workspace, run


def hypotheses(workspace: Workspace) -> pl.DataFrame:
    return read_frame(workspace.current("tiny", "evaluation_report").file("hypotheses.parquet"))


def table(workspace: Workspace, asset: str, name: str) -> pl.DataFrame:
    return read_frame(workspace.current("tiny", asset).file(f"{name}.parquet"))


def test_every_structural_check_passes_and_both_halves_find(halved: tuple[Workspace, Run]) -> None:
    workspace, run = halved
    assert all(check.passed for check in run.checks.values() if check.blocking)
    neurons = table(workspace, "selected_neurons", "neurons")
    assert set(neurons["half"]) == set(HALVES)
    assert neurons["rank"].to_list() == list(range(neurons.height))
    found = hypotheses(workspace)
    assert {*found["half"], *found["twin_half"]} >= set(HALVES)
    assert found.filter(pl.col("badge") == "confirmed").height >= 2, "the tiny texts' topics are found"


def test_each_effect_is_that_of_the_half_that_did_not_find_the_claim(halved: tuple[Workspace, Run]) -> None:
    workspace, _ = halved
    matrix = table(workspace, "annotation_matrix", "annotations")
    rows = table(workspace, "annotation_matrix", "observations").join(matrix, on="text_id")
    assert rows.height == 600, "both halves test"

    def effect(concept: str, half: str) -> float:
        side = rows.filter(pl.col("half") == OTHER[half]) if half else rows
        means = side.group_by(concept).agg(pl.col("label").mean())
        return dict(means.iter_rows())[True] - dict(means.iter_rows())[False]

    found = hypotheses(workspace)
    for row in found.iter_rows(named=True):
        assert row["effect_estimate"] == pytest.approx(effect(row["concept_id"], row["half"])), row["claim"]
        assert row["n"] == (rows["half"] == OTHER[row["half"]]).sum() if row["half"] else 600
        if row["twin_half"]:
            assert row["twin_half"] == OTHER[row["half"]]
            assert row["twin_effect_estimate"] == pytest.approx(effect(row["twin_concept_id"], row["twin_half"]))
    assert found.filter(pl.col("half") == "")["claim"].to_list() == ["mentions the moon"]


def test_claims_that_both_halves_found_are_one_line_and_the_register_keeps_both_tests(
    halved: tuple[Workspace, Run],
) -> None:
    workspace, run = halved
    found = hypotheses(workspace)
    assert found["concept_id"].is_unique().all()
    twice = found.filter(pl.col("twin_agrees"))
    assert twice.height >= 1, "what the words of a topic do shows in both halves"
    with workspace.store.records.reading() as records:
        (kept,) = (found.body for found in records.all("p-values of the look"))
    assert all(key in kept for key in [*found["test_key"], *twice["twin_test_key"]])
    page = Path(run.metadata("evaluation_report")["report"]).read_text(encoding="utf-8")
    assert "twice, in both halves" in page
    assert "each on the half that it was not found in" in page
    assert "half B" in page
    card = run.cards[card_partition("tiny", found["concept_id"].to_list().index(twice["concept_id"][0]) + 1)]
    assert f"half {OTHER[twice['half'][0]].upper()}" in card["tested on"]


def test_claims_of_two_halves_that_overlap_are_one_finding() -> None:
    first, again, opposite, apart, own, weak = (
        replace(h, badge="confirmed", concept_id=str(i)) for i, h in enumerate(make_hypotheses(6))
    )
    own, weak = replace(own, source="yours"), replace(weak, badge="suggestive")
    holds = np.arange(100) < 40
    annotations = pl.DataFrame(
        {
            "0": holds,
            "1": np.arange(100) < 30,
            "2": ~holds,
            "3": np.arange(100) % 2 == 0,
            "4": np.arange(100) % 5 == 0,
            "5": np.arange(100) % 7 == 0,
        }
    ).with_columns(pl.when(pl.int_range(pl.len()) < 99).then(pl.col("3")).alias("3"))  # one answer is missing
    assert different_findings([first, again, opposite, apart, own, weak], annotations) == 2
    assert different_findings([first], annotations) == 1
    assert different_findings([own, weak], annotations) == 0


def test_labels_of_one_half_have_no_part_in_what_the_other_finds(halved: tuple[Workspace, Run], tmp_path: Path) -> None:
    workspace = halved[0].copy_to(tmp_path)
    before = _found(workspace)
    placed = table(workspace, "corpus", "observations").join(
        table(workspace, "corpus", "texts")["text_id", "text"], "text_id"
    )
    of_b = placed.filter(pl.col("half") == "b")["text"]
    file = workspace.root / "data" / "tiny" / "texts.parquet"
    rows = pl.read_parquet(file)
    inside = rows["text"].is_in(of_b.to_list()).to_numpy()
    score = rows["score"].to_numpy().copy()
    score[inside] = np.random.default_rng(1).permutation(score[inside])
    rows.with_columns(pl.Series("score", score)).write_parquet(file)
    assert workspace.run("tiny", upto="interpretations").success
    after = _found(workspace)
    again = table(workspace, "corpus", "observations")
    assert dict(again["text_id", "half"].iter_rows()) == dict(placed["text_id", "half"].iter_rows())
    assert after["a"] == before["a"]
    assert after["b"] != before["b"], "what half B finds does follow its labels"


def _found(workspace: Workspace) -> dict[str, list[Any]]:
    """Neurons and claims of each half, without their places in the common list."""
    neurons = table(workspace, "selected_neurons", "neurons").drop("rank", "other_seeds")
    records = workspace.current("tiny", "interpretations").json("concepts.json")
    return {
        half: [
            neurons.filter(pl.col("half") == half).fill_nan(None).rows(),
            [{k: v for k, v in record.items() if k != "rank"} for record in records if record["half"] == half],
        ]
        for half in HALVES
    }


def test_what_people_read_of_a_text_is_what_it_tested(halved: tuple[Workspace, Run]) -> None:
    workspace, _ = halved
    found = {row["hypothesis_id"]: row["half"] for row in hypotheses(workspace).iter_rows(named=True)}
    texts = table(workspace, "corpus", "texts")
    for half in HALVES:
        trail = text_trail(workspace.project, "tiny", texts.filter(pl.col("half") == half)["text_id"][0])
        assert trail.split == f"half {half.upper()}"
        assert {found[support.hypothesis_id] for support in trail.supports} == {OTHER[half], ""}
    exported = pl.read_parquet(workspace.project.results / "reports" / "tiny" / "annotations.parquet")
    assert exported["half"].value_counts().height == 2
    tried = try_claims(workspace.project, "tiny", "There was a moon next to the oven.")[1]
    assert len(tried) == len(found)
    sheet, n_rows = draw_sheet(
        workspace.project, as_judged_by_a_model(load_dataset(workspace.project.data, "tiny")), 20
    )
    asked = pl.read_csv(sheet).join(texts["text_id", "half"], on="text_id")
    assert asked.height == n_rows
    once = hypotheses(workspace).filter((pl.col("half") != "") & (pl.col("twin_half") == ""))
    for row in once.iter_rows(named=True):
        assert set(asked.filter(pl.col("concept") == row["concept_id"])["half"]) == {OTHER[row["half"]]}


def test_a_second_plan_on_the_same_texts_is_a_second_look_whatever_the_halves(
    halved: tuple[Workspace, Run], tmp_path: Path
) -> None:
    workspace = halved[0].copy_to(tmp_path)
    n_first = hypotheses(workspace).height + hypotheses(workspace)["twin_agrees"].is_not_null().sum()
    changed = {"splits": {**SPLITS, "salt": "another"}, "hypotheses": OWN, "inference": INFERENCE}
    workspace.declare("tiny", None, **changed)
    run = workspace.run("tiny")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    summary = workspace.current("tiny", "evaluation_report").json("evaluation.json")
    assert summary["look"] == 2
    assert summary["family"] > n_first
    assert "which an earlier look has used" in " ".join(hypotheses(workspace)["reason"])


def test_a_small_dataset_keeps_its_halves_when_it_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hsae_dagster.dataset.spec.FEW_ROWS", 350)
    workspace, rows = Workspace(tmp_path), tiny_texts(400)
    workspace.declare("tiny", rows.head(300), splits={"design": "auto"})
    assert workspace.run("tiny", upto="corpus").success
    before = dict(table(workspace, "corpus", "observations")["text_id", "half"].iter_rows())
    workspace.declare("tiny", rows, splits={"design": "auto"})
    assert workspace.run("tiny", upto="corpus").success
    after = dict(table(workspace, "corpus", "observations")["text_id", "half"].iter_rows())
    assert len(after) == 400
    assert {key: after[key] for key in before} == before
    workspace.declare("tiny", rows, splits={"design": "auto", "salt": "another"})
    assert workspace.run("tiny", upto="corpus").success
    assert "half" not in table(workspace, "corpus", "observations").columns, "what was never split is counted anew"


def test_where_halves_cannot_be_made_auto_keeps_a_holdout_and_says_why(tmp_path: Path) -> None:
    workspace, rows = Workspace(tmp_path), tiny_texts(300)
    # Twelve authors of the rarer class: some salts deal fewer than five of them to a half, but enough to a holdout.
    rare = pl.col("author").is_in(rows["author"].unique().sort().head(12).to_list())
    rows = rows.with_columns(rare.cast(pl.Int64).alias("rare"))
    columns = {"text": "text", "label": "rare", "cluster_by": "author"}

    def said(design: str, salt: str) -> str:
        splits = {"design": design, "salt": salt}
        workspace.declare("tiny", rows, task="classification", columns=columns, splits=splits)
        return describe(load_dataset(workspace.project.data, "tiny"))

    def refused(design: str, salt: str) -> bool:
        try:
            said(design, salt)
        except MethodError:
            return True
        return False

    salt = next(s for s in map(str, range(99)) if refused("two_halves", s) and not refused("holdout", s))
    assert "One holdout, as two halves cannot be made (Only " in said("auto", salt)
    run = workspace.run("tiny", upto="corpus")
    assert run.success
    assert run.metadata("corpus")["design"].startswith("one holdout: two halves cannot be made (Only ")
    assert "half" not in table(workspace, "corpus", "observations").columns
