"""A small project in a folder of its own, and runs of its stages.

Belongs here: tiny labelled texts with obvious topics, a project's folders, materializing and reading what happened.
Does not belong here: fixtures (conftest) or any expectation.
"""

import hashlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import yaml

from hsae_dagster.definitions import STAGES
from hsae_dagster.orchestration.project import DATASETS, KEY_PREFIX, Project
from hsae_dagster.storage.files import unsealed
from hsae_dagster.storage.objects import ObjectStore, StoredObject

NAMES = [stage.key.path[-1] for stage in STAGES]
TOPICS = {
    "cooking": ("soup", "oven", "garlic", "recipe", "flour", "butter"),
    "sailing": ("boat", "harbour", "anchor", "sail", "wave", "captain"),
    "stars": ("planet", "telescope", "galaxy", "comet", "orbit", "moon"),
}
# On the outcome of the tiny texts; stars have nothing to do with it.
EFFECTS = {"cooking": 1.5, "sailing": -1.5, "stars": 0.0}
PATTERNS = (
    "She wrote about the {} and the {} again.",
    "Nobody knows why the {} came with a {}.",
    "A {} and one more {} was all we saw.",
    "There was a {} next to the {}.",
)


def asset_key(asset: str) -> dg.AssetKey:
    """Key of one of our assets in a project that chose no other names."""
    return dg.AssetKey([KEY_PREFIX, asset])


def topic_of(text: str) -> str:
    """The topic whose words a tiny text uses most."""
    words = text.lower().replace(".", "").split()
    return max(TOPICS, key=lambda topic: sum(word in TOPICS[topic] for word in words))


def tiny_texts(n: int = 300, seed: int = 0) -> pl.DataFrame:
    """n distinct two-sentence texts, each on one topic, with its author and a score that follows from the topic."""
    rng = np.random.default_rng(seed)
    rows: dict[str, tuple[str, float, str]] = {}
    while len(rows) < n:
        topic = list(TOPICS)[int(rng.integers(len(TOPICS)))]
        words = [TOPICS[topic][i] for i in rng.permutation(6)[:4]]
        first, second = (PATTERNS[i] for i in rng.permutation(len(PATTERNS))[:2])
        text = f"{first.format(*words[:2])} {second.format(*words[2:])}"
        rows.setdefault(text, (text, EFFECTS[topic] + rng.normal(0, 0.4), f"author {rng.integers(60):02d}"))
    return pl.DataFrame(list(rows.values()), schema=["text", "score", "author"], orient="row")


def tiny_pairs(texts: pl.DataFrame) -> pl.DataFrame:
    """Each text against the author's next one; the text with the higher score wins."""
    pairs = []
    for (author,), group in texts.sort("author", "text").group_by("author", maintain_order=True):
        rows = group.rows(named=True)
        for a, b in zip(rows, [*rows[1:], rows[0]], strict=True):
            pairs.append((a["text"], b["text"], int(a["score"] > b["score"]), author))
    return pl.DataFrame(pairs, schema=["text_a", "text_b", "a_wins", "author"], orient="row")


def declaration(**changes: Any) -> dict[str, Any]:
    """dataset.yaml of the tiny texts (regression); `changes` replace or, where None, remove fields."""
    fields = {
        "task": "regression",
        "files": "texts.parquet",
        "columns": {"text": "text", "label": "score", "cluster_by": "author"},
        "splits": {"holdout": 0.35, "validation": 0.2, "fidelity": 0.15},
        "saes": [{"m": 8, "k": 2, "max_epochs": 30, "batch_size": 32}],
        # Sentences and further seeds are asked for where a test is about them.
        "units": "text",
        "sae_seeds": 1,
        "selection": {"n": 4},
        # A handful of strongly firing texts must be enough to choose and to test.
        "interpretation": {"candidates": 2, "bin": [50, 100]},
        # Three topics and four neurons: two say the same, and each test wants all of them.
        "inference": {"min_positives": 5, "bootstrap": 20, "folds": 3, "same_concept": 1.1},
    } | changes
    return {name: value for name, value in fields.items() if value is not None}


@dataclass(frozen=True)
class Run:
    """What came of materializing some stages of one dataset."""

    dataset: str
    result: dg.ExecuteInProcessResult
    instance: dg.DagsterInstance

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def failures(self) -> dict[str, dg.DagsterEvent]:
        """Failures by stage, of whichever of its steps."""
        return {str(e.step_key).split(".")[0]: e for e in self.result.all_events if e.is_step_failure}

    def sentence(self, step: str) -> str:
        """What the UI shows as the reason of a step's failure, which must be all that it shows."""
        data = self.failures[step].step_failure_data
        assert data.user_failure_data is not None, data.error
        said = data.user_failure_data.description
        assert said
        assert "Traceback" not in said
        assert data.error is not None
        assert data.error.cls_name == "Failure"
        assert data.error.cause is None
        return said

    def skipped(self) -> list[str]:
        """Steps that did not run because something upstream of them failed."""
        return [str(e.step_key) for e in self.result.all_events if e.is_step_skipped]

    def metadata(self, asset: str) -> dict[str, Any]:
        """The values of an asset's metadata."""
        return {name: value.value for name, value in self.event(asset).metadata.items()}

    def event(self, asset: str) -> dg.AssetMaterialization:
        """The materialization of an asset in this run."""
        events = self.result.asset_materializations_for_node(asset)
        (event,) = [event for event in events if event.asset_key == asset_key(asset)]
        return event

    @cached_property
    def checks(self) -> dict[str, dg.AssetCheckEvaluation]:
        """Check results by `asset.check`."""
        found = (e.asset_check_evaluation_data for e in self.result.all_events if e.event_type_value == _CHECKED)
        return {f"{check.asset_key.path[-1]}.{check.check_name}": check for check in found}

    @property
    def cards(self) -> dict[str, dict[str, Any]]:
        """Metadata of the cards this run wrote, by their partition's key."""
        events = self.result.asset_materializations_for_node("evaluation_report")
        cards = [event for event in events if event.asset_key == asset_key("hypothesis_card")]
        return {str(card.partition): {k: v.value for k, v in card.metadata.items()} for card in cards}


_CHECKED = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value


@dataclass(frozen=True)
class Workspace:
    """A project's folders under `root`."""

    root: Path

    @cached_property
    def project(self) -> Project:
        return self.given()

    def given(self, **fields: Any) -> Project:
        """The project with something in it that is not as by default."""
        return Project(data_dir=str(self.root / "data"), results_dir=str(self.root / "results"), **fields)

    @property
    def store(self) -> ObjectStore:
        return self.project.store

    def declare(self, name: str, frame: pl.DataFrame | None, **changes: Any) -> Path:
        """Write a dataset; `changes` are to its declaration. Without a frame only the declaration is written.

        Files appear whole: a live sensor may look at any moment.
        """
        folder = self.root / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        if frame is not None:
            frame.write_parquet(folder / ".texts")
            (folder / ".texts").replace(folder / "texts.parquet")
        (folder / ".declaration").write_text(yaml.safe_dump(declaration(**changes)), encoding="utf-8")
        (folder / ".declaration").replace(folder / "dataset.yaml")
        return folder

    def run(
        self,
        dataset: str,
        *stages: str,
        upto: str | None = None,
        instance: dg.DagsterInstance | None = None,
        **resources: Any,
    ) -> Run:
        """Materialize the named stages (default all, or all up to `upto`) in this process.

        `resources` replace those of the project.
        """
        wanted = stages or NAMES[: NAMES.index(upto) + 1 if upto else None]
        instance = instance or dg.DagsterInstance.ephemeral()
        instance.add_dynamic_partitions(DATASETS, [dataset])
        result = dg.materialize(
            [stage for stage in STAGES if stage.key.path[-1] in wanted],
            partition_key=dataset,
            instance=instance,
            resources={"project": self.given(**resources)},
            raise_on_error=False,
        )
        return Run(dataset, result, instance)

    def current(self, dataset: str, asset: str) -> StoredObject:
        return self.store.current(dataset, asset)

    def copy_to(self, root: Path) -> "Workspace":
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return Workspace(root)

    def bytes_of(self, *folders: str) -> dict[str, str]:
        """Hash of every file under some folders of results/ (default all); `datasets` are the current results."""
        results, store = self.project.results, self.store
        tops = [results / name for name in folders or ("objects", "reports")]
        files = sorted(path for top in tops for path in top.rglob("*") if path.is_file())
        named = store.datasets() if not folders or "datasets" in folders else ()
        current = {f"datasets/{name}/{asset}": v for name in named for asset, v in store.versions(name).items()}
        files_now = {str(path.relative_to(results)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        return current | files_now

    def manifests(self) -> dict[str, dict[str, Any]]:
        """Manifest of every object, by its folder, without the run, the time and the seal on both.

        What a killed run was making is hidden and no object, though it may have its manifest already.
        """
        found = {}
        for path in sorted((self.project.results / "objects").glob("*/[!.]*/manifest.json")):
            manifest = unsealed(path)
            del manifest["run_id"], manifest["created"]
            found[f"{path.parent.parent.name}/{path.parent.name}"] = manifest
        return found
