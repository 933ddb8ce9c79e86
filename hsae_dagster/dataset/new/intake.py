"""Bringing somebody's files in as a dataset: which they are, what they become, where they are put."""

import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hsae_dagster.dataset.discovery import DATASET_NAME
from hsae_dagster.dataset.new import formats
from hsae_dagster.dataset.new.columns import NO_NOTES, Notes, ReadTable
from hsae_dagster.dataset.new.delimited import read_delimited
from hsae_dagster.dataset.rows import READERS, READING_FAULTS, reading_fault
from hsae_dagster.errors import DatasetError

DELIMITED = (".csv", ".tsv", ".tab", ".txt")
JSON = (".json", ".jsonl", ".ndjson")
KNOWN = "CSV, TSV, Parquet, JSON or JSON-lines file, workbook, Stata, SPSS or SAS file"
# What lies in a dataset's folder may be private, and `git add .` would publish it.
PRIVATE = "# Written by `hsae new`: texts of yours enter no repository. Remove this file to commit them.\n*\n"
# Names of files that say nothing of the data; the folder's says more.
GENERIC = ("data", "dataset", "train", "test", "table", "file", "export", "texts", "output")
SPLIT_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "holdout": ("holdout", "test", "testing", "heldout"),
}


@dataclass(frozen=True)
class Rewritten:
    """A file that has to be written in a plain form: its new name, half a sentence on why, and what is written."""

    path: Path
    name: str
    unusual: str
    plain: pl.DataFrame


@dataclass(frozen=True)
class Intake:
    """Files to become a dataset.

    Attributes:
        frame: the rows of all of them.
        files: the value of `files` in dataset.yaml, by the names they will have.
        rewritten: those that have to be written in a plain form.
    """

    frame: pl.DataFrame
    paths: tuple[Path, ...]
    files: str | list[str] | dict[str, str]
    rewritten: tuple[Rewritten, ...] = ()
    notes: Notes = NO_NOTES


def take_in(source: Path, *, encoding: str | None = None, sheet: str | None = None) -> Intake:
    """Read a file, or the data files of a folder.

    Raises:
        DatasetError: nothing there can be read as a table, or the files do not go together.
    """
    if not source.exists():
        raise DatasetError(f"There is no {source}. Give a {KNOWN}, or a folder.")
    paths = _data_files(source) if source.is_dir() else [source]
    read = [(path, read_leniently(path, encoding, sheet)) for path in paths]
    columns = set(read[0][1].frame.columns)
    for path, table in read[1:]:
        if set(table.frame.columns) != columns:
            raise DatasetError(
                f"{paths[0].name} and {path.name} have different columns, so they are not one dataset. Give one of "
                f"the files instead of the folder {source}."
            )
    rewritten = tuple(
        Rewritten(path, _plain_name(path), " and ".join(table.unusual), table.plain)
        for path, table in read
        if table.unusual
    )
    new_names = {made.path: made.name for made in rewritten}
    names = [new_names.get(path, path.name) for path in paths]
    if len(set(names)) < len(names):
        raise DatasetError(f"Two files of {source} would get the name {names[0]}. Rename one.")
    notes = sum((table.notes for _, table in read), NO_NOTES)
    return Intake(_together([table.frame for _, table in read]), tuple(paths), _declared(names), rewritten, notes)


def _together(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """All rows; a column that is of numbers in one file and of words in another becomes one of words."""
    order = frames[0].columns
    try:
        return pl.concat([frame.select(order) for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError:
        flat = [frame.select(pl.col(order).exclude(pl.List, pl.Struct, pl.Array).cast(pl.String)) for frame in frames]
        shared = [name for name in order if all(name in frame.columns for frame in flat)]
        return pl.concat([frame.select(shared) for frame in flat])


def _plain_name(path: Path) -> str:
    """Another name than the file's own, so that it can lie beside it; text stays text, the rest keeps its types."""
    ending = ".csv" if path.suffix.lower() in DELIMITED else ".parquet"
    return f"{path.stem}{ending}" if path.suffix.lower() != ending else f"{path.stem}_plain{ending}"


def _data_files(folder: Path) -> list[Path]:
    known = {*READERS, *DELIMITED, *JSON, *formats.WORKBOOKS, *formats.STATISTICS}
    present = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    found = [p for p in present if p.suffix.lower() in known and p.stem.lower() not in ("readme", "license")]
    if not found:
        others = ", ".join(path.name for path in present[:8]) or "nothing"
        raise DatasetError(f"{folder} holds no {KNOWN} (it holds {others}).")
    return found


def _declared(names: Sequence[str]) -> str | list[str] | dict[str, str]:
    """One file, one file per split if the names say so, or a list."""
    if len(names) == 1:
        return names[0]
    by_split: dict[str, str] = {}
    for name in names:
        words = re.split(r"[^a-z]+", name.lower())
        splits = [split for split, said in SPLIT_WORDS.items() if set(words) & set(said)]
        if len(splits) != 1 or splits[0] in by_split:
            return list(names)
        by_split[splits[0]] = name
    # Without one of the three the project's own split by hash has to serve.
    return by_split if len(by_split) == 3 else list(names)


def read_leniently(path: Path, encoding: str | None = None, sheet: str | None = None) -> ReadTable:
    """The table in a file, and what about it the strict reader would not accept.

    Raises:
        DatasetError: it is no table, with what to do instead.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in DELIMITED:
            return read_delimited(path, encoding)
        if suffix in JSON:
            return formats.read_json(path, encoding, READERS[".jsonl" if suffix != ".json" else ".json"])
        if suffix in formats.WORKBOOKS:
            return formats.read_workbook(path, sheet)
        if suffix in formats.STATISTICS:
            return formats.read_statistics(path)
        if suffix == ".parquet":
            return formats.read_parquet(path)
    except READING_FAULTS as error:
        raise DatasetError(
            f"{path} cannot be read as {suffix[1:]}: {reading_fault(error)} Check its format."
        ) from error
    raise DatasetError(f"{path.name} cannot be read. Unpack or export it, and give a {KNOWN}.")


def name_for(source: Path) -> str:
    """A dataset's name from a file's or folder's.

    Raises:
        DatasetError: nothing usable is left of it.
    """
    stem = source.resolve().name if source.is_dir() else source.stem
    if stem.lower() in GENERIC and not source.is_dir():
        stem = source.resolve().parent.name
    name = re.sub(r"[^a-z0-9_\-]+", "_", stem.lower()).strip("_-")[:64]
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(f"No dataset name can be made of `{stem}`. Give one with --name.")
    return name


def exists_already(source: Path, target: Path) -> str:
    """A sentence on a dataset that is there, with what to do about it."""
    # A folder that may hold the only copy of the files must not be removed.
    only = not source.exists() or source.resolve().is_relative_to(target.resolve())
    remove = f"the file {target / 'dataset.yaml'}" if only else f"the folder {target}"
    other = next(name for n in range(2, 10_000) if not (target.parent / (name := f"{target.name}_{n}")).exists())
    return (
        f"The dataset `{target.name}` exists already and is left as it is. Give the new one another name (--name "
        f"{other}), or remove {remove} and try again; or keep it, edit {target / 'dataset.yaml'} and run `hsae check "
        f"{target.name}`."
    )


def write_plain(intake: Intake, folder: Path) -> None:
    """Write the rewritten files into `folder`: as CSV in UTF-8 with commas, or as Parquet."""
    for made in intake.rewritten:
        write = made.plain.write_csv if made.name.endswith(".csv") else made.plain.write_parquet
        write(folder / made.name)


def publish(intake: Intake, plain: Path, declaration: str, target: Path) -> None:
    """Make the folder `target` from the files and the text of dataset.yaml, whole or not at all.

    `plain` is where `write_plain` put the rewritten ones. `target` must not exist, or is the folder of the files.

    Raises:
        DatasetError: there is a dataset, or anything else, of that name.
    """
    in_place = all(path.resolve().parent == target.resolve() for path in intake.paths)
    if (target / "dataset.yaml").exists() or (target.exists() and not in_place):
        raise DatasetError(
            f"{target} exists already and is left as it is. Choose another name with --name, or remove that folder."
        )
    new_names = {made.path: made.name for made in intake.rewritten}
    if in_place:
        for name in new_names.values():
            if (target / name).exists():
                raise DatasetError(f"{target / name} exists already and is left as it is. Rename or remove it first.")
            shutil.copyfile(plain / name, target / name)
        _write_new(target / "dataset.yaml", declaration)
        if not (target / ".gitignore").exists():
            _write_new(target / ".gitignore", PRIVATE)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        for path in intake.paths:
            made = plain / new_names[path] if path in new_names else path
            shutil.copyfile(made, aside / made.name)
        _write_new(aside / "dataset.yaml", declaration)
        _write_new(aside / ".gitignore", PRIVATE)
        aside.chmod(0o755)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_new(path: Path, text: str) -> None:
    with path.open("x", encoding="utf-8") as stream:
        stream.write(text)
