"""Runs of the pipeline apart from a project's own results, for the benchmarks beside this file.

Belongs here: a scratch project that reuses a project's embeddings and autoencoders, running stages in it, reading what
came out. Does not belong here: which runs to make (`permuted_labels`, `units`).

A run apart has its own results folder, so it neither moves what is current for a dataset nor counts as a look at its
holdout. Vectors and single autoencoders are reached by links, so they are computed once whatever the labels.
"""

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import yaml

from hsae_dagster.core.inference.joint_fit import without_relation
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import READERS
from hsae_dagster.definitions import STAGES
from hsae_dagster.orchestration.project import DATASETS, Project
from hsae_dagster.storage.objects import ObjectStore, StoredObject

STAGE_NAMES = [stage.key.path[-1] for stage in STAGES]
# (rows of a file, label column) -> rows.
Edit = Callable[[pl.DataFrame, str], pl.DataFrame]
# Results of texts alone, or of one autoencoder's own settings.
_REUSED = ("embeddings", "sae")


@dataclass(frozen=True)
class Shared:
    """The project whose files are read and whose embeddings and autoencoders are reused and added to.

    Attributes:
        data: one folder per dataset.
        results: its results folder.
    """

    data: Path
    results: Path

    @contextmanager
    def apart(self, dataset: str, changes: Mapping[str, Any], edit: Edit | None = None) -> Iterator[Project]:
        """A scratch project with one dataset, removed afterwards.

        Args:
            dataset: to copy.
            changes: fields of dataset.yaml to replace; sections are merged.
            edit: what becomes of the rows of each file, given the declared label column; they stay when None.
        """
        self.results.mkdir(parents=True, exist_ok=True)
        root = Path(tempfile.mkdtemp(prefix=".apart-", dir=self.results))
        try:
            self._copy(dataset, changes, edit, root / "data" / dataset)
            results = root / "results"
            (results / "objects").mkdir(parents=True)
            # Locks as well: two scratch projects may want to make the same autoencoder at a time.
            for name in ("lancedb", "locks", *(f"objects/{asset}" for asset in _REUSED)):
                (self.results / name).mkdir(parents=True, exist_ok=True)
                (results / name).symlink_to((self.results / name).resolve(), target_is_directory=True)
            yield Project(data_dir=str(root / "data"), results_dir=str(results))
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _copy(self, dataset: str, changes: Mapping[str, Any], edit: Edit | None, target: Path) -> None:
        source = load_dataset(self.data, dataset)
        target.mkdir(parents=True)
        for _, path in source.file_paths():
            if edit is None:
                shutil.copyfile(path, target / path.name)
            else:
                edited = edit(READERS[path.suffix.lower()](path), source.spec.columns.label)
                edited.write_parquet((target / path.name).with_suffix(".parquet"))
        declared = yaml.safe_load((source.folder / "dataset.yaml").read_text(encoding="utf-8"))
        if edit is not None:
            declared["files"] = _as_parquet(declared["files"])
        for field, value in changes.items():
            old = declared.get(field)
            declared[field] = {**old, **value} if isinstance(value, Mapping) and isinstance(old, dict) else value
        (target / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")


def permuted(
    frame: pl.DataFrame, label: str, rng: np.random.Generator, *, cluster: str | None = None, task: str = "regression"
) -> pl.DataFrame:
    """The frame with its labels dealt anew, to whole clusters where one is named, as the negative controls deal them.

    Rows without a label stay without one. A row without a cluster is one by itself. Labels of pairs are turned.
    """
    known = frame.with_row_index("row").filter(pl.col(label).is_not_null())
    levels = known[label].unique().sort()
    codes = np.searchsorted(levels.to_numpy(), known[label].to_numpy()).astype(np.float64)
    alone = pl.format("row {}", "row")
    keys = known.select(alone if cluster is None else pl.coalesce(pl.col(cluster).cast(pl.String), alone))
    groups = np.unique(keys.to_series().to_numpy(), return_inverse=True)[1]
    dealt = levels.gather(without_relation(codes, groups, task, rng).astype(np.int64))
    values = pl.DataFrame({"row": known["row"], label: dealt})
    return (
        frame.with_row_index("row").drop(label).join(values, "row", "left", maintain_order="left").select(frame.columns)
    )


def _as_parquet(files: Any) -> Any:
    if isinstance(files, str):
        return str(Path(files).with_suffix(".parquet"))
    if isinstance(files, dict):
        return {split: _as_parquet(file) for split, file in files.items()}
    return [_as_parquet(file) for file in files]


def salt(seed: int) -> str:
    """The split of a seed; the first is the default of every dataset."""
    return "hsae" if seed == 0 else f"hsae-{seed + 1}"


def run_stages(project: Project, dataset: str, upto: str = STAGE_NAMES[-1]) -> None:
    """Materialize every stage up to one of them, in this process.

    Raises:
        RuntimeError: a stage failed, with its own sentence.
    """
    wanted = STAGE_NAMES[: STAGE_NAMES.index(upto) + 1]
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(DATASETS, [dataset])
    result = dg.materialize(
        [stage for stage in STAGES if stage.key.path[-1] in wanted],
        partition_key=dataset,
        instance=instance,
        resources={"project": project},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if not result.success:
        said = [str(e.step_failure_data.user_failure_data or e.message) for e in result.all_events if e.is_step_failure]
        raise RuntimeError(f"{dataset}: {' '.join(said)[:500]}")


def result(project: Project, dataset: str, asset: str) -> StoredObject:
    """Current result of an asset in a scratch project."""
    return ObjectStore(project.results).current(dataset, asset)


def finished(path: Path, *keys: str) -> set[tuple[Any, ...]]:
    """Which cells a file of JSON lines holds already, by the values under `keys`; a torn last line does not count."""
    return {tuple(line[key] for key in keys) for line in lines(path)}


def lines(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a file of JSON lines; none when there is no file."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the run that wrote it was stopped
            continue
    return found


def append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line at once, so that what is finished stays finished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record, ensure_ascii=False) + "\n")


def present(shared: Shared, names: Sequence[str]) -> list[str]:
    """Datasets of these names that lie in the data folder."""
    return [name for name in names if (shared.data / name / "dataset.yaml").is_file()]


def arguments(about: str, name: str) -> argparse.ArgumentParser:
    """What every benchmark of cells is told; `name` is that of its file of JSON lines."""
    parser = argparse.ArgumentParser(description=about.split("\n", 1)[0])
    parser.add_argument("datasets", nargs="*", help="default: all of the benchmark that are present")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--results", type=Path, default=Path("results"), help="project whose embeddings are reused")
    parser.add_argument("--out", type=Path, default=Path(f"results/benchmarks/{name}.jsonl"))
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    return parser


def show(rows: Sequence[str], file: Path | None) -> None:
    """Print a table, and write it where a file is named."""
    print("\n".join(rows))
    if file:
        file.write_text("\n".join(rows) + "\n", encoding="utf-8")
