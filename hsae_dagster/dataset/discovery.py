"""Finding datasets under data/, and reading their declarations, also of one that extends another."""

import hashlib
import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import DatasetError, FilesMissingError
from hsae_dagster.keys import hash_json


class _OnceEach(yaml.SafeLoader):
    """Safe; two equal keys are an error with both places; `yes`, `No` and `on` are words, as in YAML 1.2.

    Classes are called so, and NO is Norway.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML looks there
        first: [
            (tag, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$") if tag.endswith(":bool") else pattern)
            for tag, pattern in resolvers
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[str, Any] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            mark: Any = first.setdefault(key.value, key.start_mark)
            if mark is not key.start_mark:
                said = f"`{key.value}` stands here and in line {mark.line + 1}; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Any:
    """The value of one YAML document; None where it is empty.

    Raises:
        yaml.YAMLError: it is not YAML, asks for an object of code, or gives a key of a mapping twice.
        ValueError: an impossible date or number.
        RecursionError: brackets without end.
    """
    return yaml.load(text, _OnceEach)  # noqa: S506 - a safe loader


def inherit(name: str, own: dict[str, Any], base: Any) -> dict[str, Any]:
    """The declaration of a variant: `own` merged into `base`.

    Raises:
        DatasetError: the variant extends itself or another variant, or names files.
    """
    if own["extends"] == name:
        raise DatasetError(f"Dataset `{name}` extends itself. Name another dataset in `extends`, or leave it out.")
    why = None
    if not isinstance(base, dict):
        why = ", whose dataset.yaml holds no fields. Correct that one."
    elif "extends" in base:
        why = f", which itself extends `{base['extends']}`. Extend a dataset that has files of its own, and repeat the "
        why += "settings that differ."
    elif "files" in own:
        why = " and so reads its files; take out `files`, or `extends` to declare a dataset of its own."
    if why:
        raise DatasetError(f"Dataset `{name}` extends `{own['extends']}`{why}")
    return merge(base, own)


def merge(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own`: sections are merged field by field, everything else (lists too) is replaced."""
    merged = dict(base)
    for field, value in own.items():
        below = merged.get(field)
        merged[field] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


_LONGEST_NAME = 1000
# Fields that name a file with a prompt.
PROMPTS = (("interpretation", "prompt"), ("interpretation", "revision_prompt"), ("annotation", "prompt"))
DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9_\-]{0,63}")


@dataclass(frozen=True)
class Dataset:
    """A declared dataset: its name (the partition key), folder and declaration (of a variant, the merged one)."""

    name: str
    folder: Path
    spec: DatasetSpec

    @property
    def origin(self) -> str:
        """The dataset whose files this one reads: itself, or the one it extends."""
        return self.spec.extends or self.name

    @property
    def named_files(self) -> list[tuple[str | None, str]]:
        """(declared split or None, name) of each file, in declared order."""
        files = self.spec.files
        if isinstance(files, dict):
            return [(split, file) for split, file in files.items()]
        return [(None, file) for file in ([files] if isinstance(files, str) else files)]

    def file_paths(self) -> list[tuple[str | None, Path]]:
        """(declared split or None, path) of each file, in declared order.

        Raises:
            DatasetError: a file lies outside the folder or is missing.
        """
        return [(split, self.resolve(file)) for split, file in self.named_files]

    def checkpoint_path(self, file: str) -> Path:
        """Path of a checkpoint that `saes` names.

        Raises:
            DatasetError: it lies outside the folder or is missing.
        """
        return self.resolve(file, "saes.checkpoint")

    def resolve(self, file: str, field: str = "files") -> Path:
        """Path of a file that a field names.

        Raises:
            DatasetError: it lies outside the folder or is missing.
        """
        folder = self.folder.with_name(self.spec.extends) if self.spec.extends else self.folder
        # A variant may bring a checkpoint or a prompt of its own, never files.
        if field != "files" and "\0" not in file and (self.folder / file).is_file():
            folder = self.folder
        path = folder / file
        if "\0" in file or len(file) > _LONGEST_NAME:
            raise DatasetError(f"Dataset `{self.name}`: `{field}` names no file: {file[:80]!r}. Correct it.")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DatasetError(
                f"Dataset `{self.name}`: the file `{file}` lies outside its folder {folder}. "
                "Move it there and name it without `..` or links."
            )
        if not path.is_file():
            said = f"Dataset `{self.name}`: the file {path} named in dataset.yaml does not exist."
            if field == "files" and self.spec.obtain:
                raise FilesMissingError(f"{said} To get it: {self.spec.obtain}")
            raise DatasetError(f"{said} Put it there, or correct `{field}`.")
        return path


def check_name(name: str) -> str:
    """Return `name` if it can be a dataset (a partition key and a folder name); raise DatasetError if not."""
    if not DATASET_NAME.fullmatch(name):
        raise DatasetError(
            f"`{name}` cannot name a dataset. Use 1 to 64 of a-z, 0-9, `_` and `-`, beginning with a letter or "
            "digit: the name is a folder and a partition key."
        )
    return name


def dataset_names(data_dir: Path) -> list[str]:
    """Names of the folders under `data_dir` that hold a dataset.yaml, sorted. Bad names are left out."""
    found = (p.parent.name for p in data_dir.glob("*/dataset.yaml"))
    return sorted(name for name in found if DATASET_NAME.fullmatch(name))


def badly_named_folders(data_dir: Path) -> list[str]:
    """Folders with a dataset.yaml whose name cannot be a partition key, sorted."""
    found = (p.parent.name for p in data_dir.glob("*/dataset.yaml"))
    return sorted(name for name in found if not DATASET_NAME.fullmatch(name))


def load_dataset(data_dir: Path, name: str) -> Dataset:
    """Read and validate data/<name>/dataset.yaml, merged into the one it extends if it extends one.

    Where it names files with prompts, their text takes the place of the names: what depends on a prompt is then made
    anew when the file changes.

    Raises:
        DatasetError: no such file, not YAML, a field is unknown, missing or out of range, or what it extends cannot be.
    """
    folder = data_dir / check_name(name)
    raw = _read_yaml(data_dir, name)
    if isinstance(raw, dict) and "extends" in raw:
        base = raw["extends"] = check_name(str(raw["extends"]))
        raw = inherit(name, raw, {} if base == name else _read_yaml(data_dir, base))
    return _with_prompts(Dataset(name=name, folder=folder, spec=parse_declaration(raw, folder / "dataset.yaml")))


def _with_prompts(dataset: Dataset) -> Dataset:
    spec = dataset.spec
    for section, name in PROMPTS:
        declared = getattr(spec, section)
        if (file := getattr(declared, name)) is not None:
            path = dataset.resolve(file, f"{section}.{name}")
            try:
                read = declared.model_copy(update={name: path.read_text(encoding="utf-8")})
            except (UnicodeDecodeError, OSError) as error:
                raise DatasetError(
                    f"Dataset `{dataset.name}`: `{section}.{name}`: {path} cannot be read as UTF-8 ({error}). Save it "
                    "as UTF-8."
                ) from error
            spec = spec.model_copy(update={section: read})
    return replace(dataset, spec=spec)


def _read_yaml(data_dir: Path, name: str) -> Any:
    path = data_dir / name / "dataset.yaml"
    # A link would have what lies elsewhere read, and sent to whatever model the declaration names.
    if not path.resolve().is_relative_to(data_dir.resolve()):
        raise DatasetError(
            f"Dataset `{name}`: {path} leads outside {data_dir}. Move the folder there, or set HSAE_DATA_DIR to where "
            "it lies; links out of it are not followed."
        )
    try:
        return load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(dataset_names(data_dir)) or "none"
        raise DatasetError(f"There is no {path}. Create it; datasets present: {known}.") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}. Make it readable, and run again.") from error
    # PyYAML itself stumbles over an impossible date, a number of a million digits, or brackets without end.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = " ".join(str(error).split())
        raise DatasetError(f"{path} is not valid YAML in UTF-8: {why}. Correct that place.") from error


def parse_declaration(raw: Any, path: Path) -> DatasetSpec:
    """What was read from the YAML file `path`, as a validated declaration.

    Raises:
        DatasetError: a field is unknown, missing or out of range.
    """
    if not isinstance(raw, dict):
        raise DatasetError(
            f"{path} must hold fields such as `task:`, `files:` and `columns:`; found {repr(raw)[:80]}. Write them; "
            "docs/dataset-yaml.md lists all."
        )
    try:
        return DatasetSpec.model_validate(raw)
    except ValidationError as error:
        raise DatasetError(_explain(path, error)) from None


def files_fingerprint(dataset: Dataset) -> str:
    """Hash of dataset.yaml's meaning and of the bytes of every file it names (the data version of the dataset)."""
    named = [dataset.checkpoint_path(sae.checkpoint) for sae in dataset.spec.listed_saes if sae.checkpoint]
    checkpoints = [["checkpoint", path.name, file_digest(path)] for path in named]
    return hash_json([dataset.spec.model_dump(mode="json"), *file_versions(dataset), *checkpoints])


def file_versions(dataset: Dataset) -> list[list[str | None]]:
    """[declared split, name, SHA-256] of each data file; equal for a dataset and its variants."""
    return [[split, path.name, file_digest(path)] for split, path in dataset.file_paths()]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_stamp(dataset: Dataset) -> str:
    """Hash of the declaration and of each file's size and time of change: equal stamps need no second reading.

    Cheap where `files_fingerprint` reads every byte, so that looking for changes costs nothing however large the
    files are.
    """
    stats = [(split, path.name, path.stat()) for split, path in dataset.file_paths()]
    stamps = [[split, name, stat.st_size, stat.st_mtime_ns, stat.st_ino] for split, name, stat in stats]
    return hash_json([dataset.spec.model_dump(mode="json"), *stamps])


def _explain(path: Path, error: ValidationError) -> str:
    """Turn pydantic's findings into sentences: field, value, what is wrong, what to do."""
    lines = []
    for item in error.errors(include_url=False):
        field = ".".join(str(part) for part in item["loc"] if not str(part).startswith("=")) or "the whole file"
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            lines.append(f"`{field}` is not a field of dataset.yaml. Remove it or correct its spelling.")
        elif item["type"] == "missing":
            lines.append(f"`{field}` is required and missing. Add it.")
        elif item["type"] == "value_error":
            lines.append(f"`{field}`: {message}.")
        else:
            lines.append(f"`{field}` is {item['input']!r}: {message}. Correct the value.")
    return f"{path} cannot be used: " + " ".join(lines)
