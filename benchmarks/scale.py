"""Texts of several sentences through the stages up to selection, at sizes that hurt.

    python benchmarks/scale.py --texts 50000 100000 200000

Texts of six sentences are made, nearly all of them distinct; a sentence is about one of 64 topics, and eight topics
decide an outcome beside noise. Vectors are the sum of a sentence's words, each with a random vector, so that embedding
costs little. Each stage runs in a process of its own with one thread: its seconds, processor seconds and peak memory
are printed. What is found is no result; whether it fits, and how long it
takes, is. What a stage writes goes below `--folder` and is removed.
"""

import argparse
import os
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import STAGE_NAMES, result
from benchmarks.rehearsal import CHECKOUT, of_stage, stage
from hsae_dagster.orchestration.project import Project

DATASET, DIMENSIONS = "made", 384
STAGES = STAGE_NAMES[: STAGE_NAMES.index("selected_neurons") + 1]
_TOPICS, _WORDS_OF_TOPIC, _VOCABULARY = 64, 40, 20_000
_SENTENCES, _WORDS, _ABOUT = 6, 11, 4
_EFFECTS = np.linspace(-1, 1, 8)


def made_up(texts: int, seed: int = 0) -> pl.DataFrame:
    """Texts, their authors (20 texts each) and an outcome: text str, author i64, y f64."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(_TOPICS, size=(texts, _SENTENCES))
    # Common words are common, as in any language.
    words = (_VOCABULARY * rng.random((texts, _SENTENCES, _WORDS)) ** 3).astype(np.int64)
    about = topic[..., None] * _WORDS_OF_TOPIC + rng.integers(_WORDS_OF_TOPIC, size=(texts, _SENTENCES, _ABOUT))
    words[..., :_ABOUT] = _VOCABULARY + about
    names = np.array([_spelled(number) for number in range(_VOCABULARY + _TOPICS * _WORDS_OF_TOPIC)], dtype=object)
    told = [" ".join(f"{' '.join(sentence).capitalize()}." for sentence in names[text]) for text in words]
    said = np.stack([(topic == which).any(axis=1) for which in range(len(_EFFECTS))], axis=1)
    outcome = said @ _EFFECTS + rng.standard_normal(texts)
    return pl.DataFrame({"text": told, "author": np.arange(texts) // 20, "y": outcome})


def _spelled(number: int) -> str:
    """A word of syllables, another one for each number."""
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    word = ""
    for _ in range(3):
        number, last = divmod(number, len(syllables))
        word += syllables[last]
    return word


@cache
def _projection() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2**15, DIMENSIONS)).astype(np.float32)


def bag_of_words(texts: list[str]) -> np.ndarray:
    """(n, 384) float32: the sum of the vectors of a text's words."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counted = HashingVectorizer(n_features=2**15, alternate_sign=False, norm=None, dtype=np.float32).transform(texts)
    vectors: np.ndarray = counted @ _projection()
    return vectors


def declare(project: Project, texts: int, m: int, k: int) -> None:
    """The dataset's folder."""
    folder = project.data / DATASET
    folder.mkdir(parents=True)
    made_up(texts).write_parquet(folder / "rows.parquet")
    declared = {
        "files": "rows.parquet",
        "task": "regression",
        "columns": {"text": "text", "label": "y", "cluster_by": "author"},
        "units": "sentence",
        "embedding": {"model": "benchmarks.scale:bag_of_words", "batch_size": 2048},
        # As many passes as `saes: auto` makes over so many units.
        "saes": [{"m": m, "k": k, "max_epochs": 5, "batch_size": 512, "learning_rate": 2e-3, "start": "centroids"}],
        "sae_seeds": 1,
        "inference": {"bootstrap": 0},
    }
    (folder / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")


def measured(root: Path, texts: int, m: int, k: int) -> dict[str, dict[str, float]]:
    """What each stage took at one size, by its name; `units` of all of them beside."""
    shutil.rmtree(root, ignore_errors=True)
    project = Project(data_dir=str(root / "data"), results_dir=str(root / "results"))
    environment = os.environ | {"DAGSTER_HOME": "", "PYTHONPATH": str(CHECKOUT)}
    environment |= {f"{name}_NUM_THREADS": "1" for name in ("OMP", "POLARS_MAX", "RAYON", "OPENBLAS")}
    found = {}
    try:
        declare(project, texts, m, k)
        for name in STAGES:
            found[name] = of_stage([__file__, "--stage", name, "--folder", str(root)], environment)
        units = result(project, DATASET, "corpus").json("summary.json")["units"]
        return found | {"units": units}
    finally:
        shutil.rmtree(root, ignore_errors=True)


def main() -> None:
    """Measure, or run the one stage that a measurement asks this process for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--m", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("results/scale"))
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder.resolve()
    if options.stage:
        stage(Project(data_dir=str(root / "data"), results_dir=str(root / "results")), DATASET, options.stage)
        return
    head = ("texts", "distinct units", "stage", "seconds", "CPU s", "most memory, GB", "without mapped files, GB")
    print(f"| {' | '.join(head)} | CPU s per 1,000 units |")
    print("|---:|---:|---|" + "---:|" * 5)
    for texts in options.texts:
        found = measured(root, texts, options.m, options.k)
        units = int(found.pop("units")["distinct"])
        for name, took in found.items():
            shown = [f"{texts:,}", f"{units:,}", name, *(f"{took[key]:.0f}" for key in ("seconds", "cpu"))]
            shown += [f"{took['peak_gb']:.2f}", f"{took['own_gb']:.2f}", f"{1000 * took['cpu'] / units:.3f}"]
            print(f"| {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
