"""Sample tables on disk, and the record by which an intact one is known.

Belongs here: writing a table whole, and telling whether a folder still holds what was written. Does not belong here:
what is in a table.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from hsae_dagster.whole_files import write_atomically

if TYPE_CHECKING:
    import polars as pl

# Beside the tables; hidden, because it is no data file of the dataset.
RECORD = ".sample.json"


def write_table(path: Path, frame: "pl.DataFrame") -> None:
    """Write a frame as Parquet: equal frames give equal bytes, and a reader sees all of it or none."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    write_atomically(path, buffer.getvalue())


def record(folder: Path, files: tuple[str, ...], recipe: str) -> None:
    """Note what was written under `folder`, and by which recipe."""
    content = {"files": {name: _sha256(folder / name) for name in files}, "recipe": recipe}
    write_atomically(folder / RECORD, json.dumps(content, indent=1, sort_keys=True).encode())


def is_intact(folder: Path, files: tuple[str, ...], recipe: str) -> bool:
    """Whether `folder` holds `files` as they were recorded, by the same recipe."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        written = content["files"] == {name: _sha256(folder / name) for name in files}
        return bool(written and content["recipe"] == recipe)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
