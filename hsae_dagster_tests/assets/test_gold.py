"""Labels by people in whole runs: the sheet, corrected effects, mistakes in gold.csv; hypotheses of one's own."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from hsae_dagster.cli import main
from hsae_dagster.dataset.discovery import Dataset, load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.stages.gold import _unseen, draw_sheet
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts


def hypotheses(workspace: Workspace, dataset: str) -> pl.DataFrame:
    return read_frame(workspace.current(dataset, "evaluation_report").file("hypotheses.parquet")).sort("rank")


def as_judged_by_a_model(dataset: Dataset) -> Dataset:
    """The same, as if a language model had judged its claims, which alone have sheets."""
    model = dataset.spec.annotation.model_copy(update={"model": "openai:judge"})
    return replace(dataset, spec=dataset.spec.model_copy(update={"annotation": model}))


def filled_sheet(workspace: Workspace, dataset: str) -> pl.DataFrame:
    """The drawn sheet with the label that the first concept's people would give: its annotation, mostly."""
    declared = as_judged_by_a_model(load_dataset(workspace.project.data, dataset))
    path, _ = draw_sheet(workspace.project, declared, 60)
    sheet = pl.read_csv(path, infer_schema=False)
    matrix = read_frame(workspace.current(dataset, "annotation_matrix").file("annotations.parquet"))
    rng, labels = np.random.default_rng(0), []
    for row in sheet.iter_rows(named=True):
        said = matrix.filter(pl.col("text_id") == row["text_id"])[row["concept"]][0]
        labels.append("yes" if said != (rng.random() < 0.1) else "no")
    return sheet.with_columns(pl.Series("label", labels), pl.lit("first").alias("annotator"))


def test_a_sheet_is_drawn_blind_and_its_labels_correct_the_effects(copied: Workspace) -> None:
    sheet = filled_sheet(copied, "ratings")
    assert sheet.columns == ["concept", "claim", "text_id", "text", "probability", "annotator", "label"]
    second = sheet.with_columns(pl.lit("second").alias("annotator"))[:40]
    pl.concat([sheet, second]).write_csv(copied.root / "data" / "ratings" / "gold.csv")
    before = hypotheses(copied, "ratings")
    assert before["corrected_estimate"].null_count() == before.height
    run = copied.run("ratings", "evaluation_report")
    assert run.success
    assert not run.metadata("evaluation_report")["reused"]
    after = hypotheses(copied, "ratings")
    assert after["effect_estimate"].to_list() == before["effect_estimate"].to_list()
    corrected = after.filter(pl.col("corrected_estimate").is_not_nan())
    assert corrected.height >= 2
    # People disagree with the judge at random in a tenth of texts: what people mean has the smaller difference.
    assert (corrected["corrected_estimate"].abs() < corrected["effect_estimate"].abs()).all()
    assert corrected["gold_sensitivity"].is_between(0.5, 1).all()
    page = (copied.project.results / "reports" / "ratings.html").read_text(encoding="utf-8")
    for words in ("Corrected by gold labels", "The judge against people", "Two people"):
        assert words in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sheet: sheet.drop("label"), "no column `label`"),
        (lambda sheet: sheet.with_columns(pl.lit("maybe").alias("label")), "row 2: label is `maybe`"),
        (lambda sheet: sheet.with_columns(pl.lit("7").alias("probability")), "row 2: probability is `7`"),
        (lambda sheet: sheet.with_columns(pl.lit("0" * 32).alias("text_id")), "none of the"),
    ],
)
def test_mistakes_in_gold_are_sentences_and_stop_nothing_upstream(copied: Workspace, change, words: str) -> None:
    change(filled_sheet(copied, "ratings")).write_csv(copied.root / "data" / "ratings" / "gold.csv")
    run = copied.run("ratings", "evaluation_report")
    assert words in run.sentence("evaluation_report")


def test_stated_accuracy_gives_a_band_and_pairs_have_neither(copied: Workspace) -> None:
    inference = {"min_positives": 5, "bootstrap": 20, "folds": 3, "same_concept": 1.1}
    inference |= {"judge_sensitivity": [0.9, 1.0], "judge_specificity": [0.95, 1.0]}
    copied.declare("ratings", None, inference=inference)
    assert copied.run("ratings").success
    found = hypotheses(copied, "ratings").filter(pl.col("band_low").is_not_nan())
    assert found.height >= 2
    inner, outer = (
        found.select(pl.min_horizontal(pl.col("band_low").abs(), pl.col("band_high").abs())),
        found.select(pl.max_horizontal(pl.col("band_low").abs(), pl.col("band_high").abs())),
    )
    effect = found["effect_estimate"].abs()
    assert (inner.to_series() <= effect + 1e-9).all()
    assert (outer.to_series() >= effect).all()
    assert (
        hypotheses(copied, "duels")["band_low"].is_nan().all()
        or hypotheses(copied, "duels")["band_low"].is_null().all()
    )


def test_a_sheet_can_be_drawn_before_anything_is_judged_and_its_labels_correct_the_effects(
    workspace: Workspace, environment, monkeypatch
) -> None:
    workspace.declare("ratings", tiny_texts(400), hypotheses=OWN[1:2])
    dataset = load_dataset(workspace.project.data, "ratings")
    with pytest.raises(DatasetError, match=r"has no claims yet.*--until interpretations"):
        draw_sheet(workspace.project, dataset, 60)
    first = workspace.run("ratings", upto="interpretations")
    assert first.success, {step: first.sentence(step) for step in first.failures}
    path, rows = draw_sheet(workspace.project, as_judged_by_a_model(dataset), 60)
    sheet = pl.read_csv(path, infer_schema=False)
    assert 60 < rows == sheet.height
    held_out = read_frame(workspace.current("ratings", "corpus").file("texts.parquet"))
    assert set(sheet["text_id"]) <= set(held_out.filter(pl.col("split") == "holdout")["text_id"])
    assert sheet["probability"].cast(pl.Float64).is_between(0, 1, closed="right").all()
    # Texts that fire the neuron of a claim are drawn more often than others.
    assert sheet.filter(pl.col("claim") != OWN[1]["claim"])["probability"].n_unique() > 1
    # Found claims are read literally; what the user means by terms people can judge better.
    sheet = pl.read_csv(draw_sheet(workspace.project, dataset, 60)[0], infer_schema=False)
    assert set(sheet["claim"]) == {OWN[1]["claim"]}
    about_sky = ("planet", "telescope", "galaxy")
    labels = ["yes" if any(word in text for word in about_sky) else "no" for text in sheet["text"]]
    filled = sheet.with_columns(pl.Series("label", labels))
    filled.write_csv(workspace.root / "data" / "ratings" / "gold.csv")
    assert workspace.run("ratings", instance=first.instance).success
    own = hypotheses(workspace, "ratings").filter(pl.col("source") == "yours")
    assert own["corrected_estimate"].is_not_nan().all()
    assert own["decided_by"].to_list() == ["plain, gold"]


def test_labels_that_the_judge_has_seen_check_nothing_and_the_others_stand_for_all() -> None:
    """40 of 80 yes and 40 of 400 no were labelled; 5 and 10 of them were shown."""
    gold = np.r_[np.ones(40), np.zeros(40), np.full(400, np.nan)]
    probability = np.r_[np.full(40, 0.5), np.full(40, 0.1), np.full(400, np.nan)]
    shown = np.isin(np.arange(480), [*range(5), *range(40, 50)])
    unseen, left = _unseen(gold, probability, shown)
    for said, texts in ((1.0, 80), (0.0, 400)):
        assert (1 / left[unseen == said]).sum() == pytest.approx(texts)
    assert np.isnan(unseen[shown]).all()
    assert np.isfinite(unseen).sum() == 65


def test_gold_about_nothing_that_is_tested_is_refused_before_anything_is_judged(workspace: Workspace) -> None:
    workspace.declare("ratings", tiny_texts(400))
    first = workspace.run("ratings", upto="interpretations")
    sheet = pl.DataFrame({"text_id": ["0" * 32], "concept": ["is about nothing"], "label": ["yes"]})
    sheet.write_csv(workspace.root / "data" / "ratings" / "gold.csv")
    refused = workspace.run("ratings", "annotation_matrix", instance=first.instance)
    assert "none of the 1 labels in gold.csv is about a concept" in refused.sentence("annotation_matrix")


def test_the_command_says_what_to_do_with_the_sheet(copied: Workspace, environment, monkeypatch) -> None:
    (copied.root / ".env.example").write_text("", encoding="utf-8")
    monkeypatch.setenv("HSAE_HOME", str(copied.root))
    monkeypatch.setenv("HSAE_DATA_DIR", str(copied.root / "data"))
    monkeypatch.setenv("HSAE_RESULTS_DIR", copied.project.results_dir)
    done = CliRunner().invoke(main, ["gold", "ratings", "--per-concept", "20"])
    assert "no claim that labels could correct: each is read literally" in done.output
    copied.declare("ratings", None, hypotheses=OWN[:1])
    done = CliRunner().invoke(main, ["gold", "ratings", "--per-concept", "20"])
    assert done.exit_code == 0, done.output
    assert "gold.csv" in done.output
    assert (copied.project.results / "gold" / "ratings.csv").is_file()


OWN = [
    {"claim": "is about sailing", "terms": ["boat", "harbour", "anchor", "sail"], "direction": "negative"},
    {"claim": "is about the sky", "terms": ["planet", "telescope", "galaxy"]},
    {"claim": "cooks, for the worse", "terms": ["soup", "oven"], "direction": "negative"},
]


def test_own_hypotheses_are_judged_and_tested_beside_the_found_ones_and_labelled(copied: Workspace) -> None:
    copied.declare("ratings", None, hypotheses=OWN)
    run = copied.run("ratings")
    assert run.success, {step: run.sentence(step) for step in run.failures}
    found = hypotheses(copied, "ratings")
    own = {row["claim"]: row for row in found.filter(pl.col("source") == "yours").iter_rows(named=True)}
    assert set(own) == {one["claim"] for one in OWN}
    assert own["is about sailing"]["badge"] == "confirmed"
    assert own["is about sailing"]["effect_estimate"] < -1
    assert own["cooks, for the worse"]["badge"] == "invalid"  # its effect is positive, against what was declared
    assert own["is about the sky"]["badge"] != "invalid"
    assert found.filter(pl.col("source") == "found").height >= 2
    family = copied.current("ratings", "evaluation_report").json("evaluation.json")["family"]
    assert family >= found.height
    card = next(card for card in run.cards.values() if card["claim"] == "is about sailing")
    assert card["neuron"] == "none"
    assert card["source"] == "you, in dataset.yaml"
    assert card["source"] in card["card"]


def test_a_term_that_cannot_be_looked_for_is_a_sentence(copied: Workspace) -> None:
    for terms, words in (
        (["boat", "!?"], "`!?` has no word"),
        (["the end. The start"], "reaches across a sentence's end"),
        (["boat", "has a question mark"], "cue `has a question mark` stands beside other terms"),
    ):
        copied.declare("ratings", None, hypotheses=[{"claim": "says something", "terms": terms}])
        assert words in copied.run("ratings", "annotation_matrix").sentence("annotation_matrix")
    for bad, words in (
        (["asks something"], "has no terms"),
        ([{"claim": "x y z", "terms": ["a"]}, {"claim": "X y z", "terms": ["b"]}], "same claim"),
    ):
        copied.declare("ratings", None, hypotheses=bad)
        with pytest.raises(DatasetError, match=words):
            load_dataset(copied.project.data, "ratings")
