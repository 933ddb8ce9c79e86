"""The seed experiments: what they declare, how they wait for their files, and whole runs on files of their formats.

The runs extend each preset, as a user would, by sizes that fit a few hundred texts; task, files, columns, splits,
models and sampling are the preset's own.
"""

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from hsae_dagster.assets.catalog import scan, waiting
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster_tests.assets import scripted
from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.providers.loopback import Loopback, shown_concepts

pytestmark = pytest.mark.usefixtures("environment")
PRESETS = ("headlines", "yelp", "yelp_top", "congress", "congress_top")
SMALL = {
    "embedding": {"dimensions": scripted.DIMENSIONS},
    "saes": [{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}],
    "selection": {"n": 4},
    "interpretation": {"bin": [50, 100], "scoring_texts": 40, "examples": 10},
    "inference": {"min_positives": 5, "bootstrap": 20, "folds": 3, "negative_controls": 0},
    # The scripted judge knows its own topics only.
    "judge": scripted.MODELS["judge"],
}
LAST_AUTHOR = {"train": "author 34", "validation": "author 46", "holdout": "author 99"}


@pytest.fixture
def presets(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path / "project")
    for name in PRESETS:
        folder = workspace.root / "data" / name
        folder.mkdir(parents=True)
        shutil.copy(CHECKOUT / "data" / name / "dataset.yaml", folder)
    return workspace


def spec_of(name: str) -> DatasetSpec:
    return load_dataset(CHECKOUT / "data", name).spec


def test_the_settings_are_those_of_the_notebook() -> None:
    expected: dict[str, Any] = {
        "headlines": ("pairwise", [(256, 8), (32, 4)], 5, (80, 100), None),
        "yelp": ("regression", [(1024, 32)], 3, (90, 100), 10_000),
        "congress": ("classification", [(4096, 32)], 3, (90, 100), None),
    }
    for name, (task, saes, candidates, bounds, sample) in expected.items():
        spec = spec_of(name)
        assert (spec.task, [(sae.m, sae.k) for sae in spec.saes]) == (task, saes)
        assert spec.embedding.model == "openai:text-embedding-3-small"
        assert (spec.selection.method, spec.selection.n) == ("lasso", 20)
        told = spec.interpretation
        assert (told.model, told.candidates, told.bin, told.sampling) == (
            "openai:gpt-4o",
            candidates,
            bounds,
            "percentile",
        )
        assert (told.examples, told.scoring_texts, told.metric, told.max_words) == (20, 200, "f1", 256)
        assert (spec.annotation.model, spec.annotation.holdout_sample) == ("openai:gpt-4o-mini", sample)
        assert spec.annotation.seed == (42 if sample else 0)
        for sae in spec.saes:
            assert (sae.learning_rate, sae.batch_size, sae.max_epochs, sae.patience) == (5e-4, 512, 200, 5)


@pytest.mark.parametrize("name", ["yelp", "congress"])
def test_the_top_variant_differs_in_sampling_alone(name: str) -> None:
    top, base = (spec_of(each).model_dump() for each in (f"{name}_top", name))
    assert top["interpretation"].pop("sampling") == "top"
    assert base["interpretation"].pop("sampling") == "percentile"
    assert top.pop("extends") == name
    assert top.pop("published") != base.pop("published")
    del base["extends"]
    assert top == base


def test_without_their_files_they_wait_and_disturb_nobody(presets: Workspace) -> None:
    presets.declare("mine", tiny_texts(50))
    found, problems = scan(presets.project)
    assert [dataset.name for dataset, _ in found] == ["mine"]
    assert not problems
    told = list(waiting(presets.project).values())
    assert len(told) == len(PRESETS)
    for name, sentence in zip(sorted(PRESETS), told, strict=True):
        assert f"`{name}`" in sentence
        assert f"hsae fetch {name.removesuffix('_top')}" in sentence
    run = presets.run("yelp_top", upto="corpus")
    assert "To get it: hsae fetch yelp" in run.sentence("corpus")


def published_rows(name: str) -> pl.DataFrame:
    """Tiny rows with the published columns, and `author`, which the files do not have."""
    texts = tiny_texts(600)
    if name == "headlines":
        # Every text in one pair, as the published rows do not say which of them belong together.
        first, second = (texts.gather_every(2, start).sort("author") for start in (0, 1))
        return pl.DataFrame(
            {
                "headline_A": first["text"],
                "headline_B": second["text"],
                "label_pairwise": (first["score"] > second["score"]).cast(pl.Int64),
                "author": first["author"],
            }
        )
    if name == "yelp":
        return texts.select("text", (pl.col("score").round() + 3).clip(1, 5).cast(pl.Int64).alias("stars"), "author")
    return texts.select(
        pl.col("text").alias("speech_text"), (pl.col("score") > 0).cast(pl.Int64).alias("republican"), "author"
    )


def publish(workspace: Workspace, name: str) -> None:
    """Write the files that the preset names: one object a line, under names that end in .json."""
    rows, before = published_rows(name), ""
    for split, path in spec_of(name).files.items():  # type: ignore[union-attr]
        part = rows.filter((pl.col("author") > before) & (pl.col("author") <= LAST_AUTHOR[split]))
        part.drop("author").write_ndjson(workspace.root / "data" / name / path)
        before = LAST_AUTHOR[split]


def extend(workspace: Workspace, name: str, variant: str, **more: Any) -> None:
    folder = workspace.root / "data" / variant
    folder.mkdir()
    (folder / "dataset.yaml").write_text(yaml.safe_dump({"extends": name, **SMALL, **more}), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["headlines", "yelp", "congress"])
def test_every_asset_from_the_published_formats(presets: Workspace, name: str) -> None:
    publish(presets, name)
    extend(presets, name, "small")
    with Loopback(scripted.chat, scripted.embed) as server:
        scripted.use(server)
        run = presets.run("small")
        assert run.success, {step: run.sentence(step) for step in run.failures}
        for asset in NAMES:
            assert presets.current("small", asset), asset
        asked = {body["model"] for body in server.bodies()}
        assert asked == {"text-embedding-3-small", "gpt-4o", "gpt-4o-mini"}
        judged = [body for body in server.bodies() if "messages" in body and shown_concepts(body)]
        assert {len(shown_concepts(body)) for body in judged} == {1}
        page = (presets.root / "results" / "reports" / "small.html").read_text(encoding="utf-8")
        assert "Published, not measured here:" in page
        if name == "headlines":
            splits = {
                row["split"]: row["observations"]
                for row in presets.current("small", "corpus").json("summary.json")["splits"]
            }
            assert min(splits.values()) > 0
            return
        calls, embedded = len(server.calls), sum("input" in body for body in server.bodies())
        extend(presets, name, "small_top", interpretation={**SMALL["interpretation"], "sampling": "top"})
        top = presets.run("small_top")
        assert top.success, {step: top.sentence(step) for step in top.failures}
        assert sum("input" in body for body in server.bodies()) == embedded
        assert len(server.calls) > calls
    for asset in ("corpus", "embeddings", "sae_checkpoints", "activations", "selected_neurons"):
        assert presets.current("small_top", asset).folder == presets.current("small", asset).folder, asset
