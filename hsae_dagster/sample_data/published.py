"""The published texts of HypotheSAEs, from the Hugging Face dataset that its authors keep.

Belongs here: which files an experiment needs, getting them, their licence and checksums. Does not belong here: how they
are read (`dataset.rows` reads them as they are) or analysed (data/<experiment>/dataset.yaml).

The repository's layout is not taken for granted: files are found by their name, wherever in it they lie.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hsae_dagster.dataset.discovery import file_digest, load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.sample_data.declared import declare
from hsae_dagster.whole_files import write_atomically

REPOSITORY = "rmovva/HypotheSAEs"
PAGE = f"https://huggingface.co/datasets/{REPOSITORY}"
EXPERIMENTS = ("headlines", "yelp", "congress")
# Beside the files; hidden, because it is no data file of the dataset.
RECORD = ".published.json"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Published:
    """One file as the repository describes it.

    Attributes:
        path: inside the repository.
        size: bytes, or None if it does not say.
        sha256: hexadecimal, or None for small files, of which it does not say one.
    """

    path: str
    size: int | None
    sha256: str | None


@dataclass(frozen=True)
class Snapshot:
    """The repository at one commit."""

    commit: str
    licence: str
    files: tuple[Published, ...]


def fetch_published(name: str, data_dir: Path, log: Log) -> list[Path]:
    """Get the files of an experiment into its folder, unless they are there.

    A file that somebody put there is kept. What is downloaded is checked against the repository's checksum before it
    appears under its name, and recorded with repository, commit, licence and SHA-256.

    Raises:
        DatasetError: there is no such experiment, the extra is not installed, the repository cannot be reached or
            lacks a file, or a file is not what the repository says.
    """
    if name not in EXPERIMENTS:
        raise DatasetError(f"There is nothing published for `{name}`. Use one of {', '.join(EXPERIMENTS)}.")
    declare(name, data_dir)
    folder = data_dir / name
    wanted = load_dataset(data_dir, name).spec.files
    names = list(wanted.values()) if isinstance(wanted, dict) else [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [file for file in names if not (folder / file).is_file()]
    for file in set(names) - set(missing):
        log(f"{name}: {folder / file} is there and is kept.")
    if missing:
        snapshot = _look(folder)
        log(f"{name}: {PAGE} at {snapshot.commit[:12]}; licence: {snapshot.licence}")
        for file in missing:
            _get(folder, file, snapshot, log)
    return [folder / file for file in names]


def _hub() -> tuple[Any, tuple[type[Exception], ...]]:
    """The client, and what it raises when the repository cannot be read."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HTTPError
    except ImportError:
        raise DatasetError(
            "Fetching from Hugging Face needs an extra. Install it with `.venv/bin/pip install -e '.[hub]'`, or put "
            f"the files from {PAGE} into the dataset's folder yourself."
        ) from None
    return huggingface_hub, (OSError, HTTPError)


def _endpoint() -> str | None:
    """HF_ENDPOINT, by which mirrors are named; None for Hugging Face itself."""
    return os.environ.get("HF_ENDPOINT") or None


def _look(folder: Path) -> Snapshot:
    hub, failures = _hub()
    try:
        # The texts are public, so nobody's token is sent.
        api = hub.HfApi(endpoint=_endpoint(), token=False)
        info = api.dataset_info(REPOSITORY, files_metadata=True, timeout=30)
    except failures as error:
        raise DatasetError(_unreachable(folder, error)) from None
    card = info.card_data.to_dict() if info.card_data else {}
    files = tuple(
        Published(item.rfilename, item.size, item.lfs.sha256 if item.lfs else None) for item in info.siblings or []
    )
    return Snapshot(info.sha or "main", str(card.get("license") or "not stated; ask the authors"), files)


def _get(folder: Path, file: str, snapshot: Snapshot, log: Log) -> None:
    found = [item for item in snapshot.files if PurePosixPath(item.path).name == file]
    if len(found) != 1:
        raise DatasetError(
            f"{PAGE} holds {len(found)} files called {file} at {snapshot.commit[:12]}; one was expected. Get "
            f"the right one by hand and put it into {folder}."
        )
    (hub, failures), (item,) = _hub(), found
    log(f"  {item.path} ({item.size or 0:,} bytes)")
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as aside:
        try:
            got = hub.hf_hub_download(
                REPOSITORY,
                item.path,
                repo_type="dataset",
                revision=snapshot.commit,
                local_dir=aside,
                endpoint=_endpoint(),
                token=False,
            )
        except failures as error:
            raise DatasetError(_unreachable(folder, error)) from None
        digest = file_digest(Path(got))
        if item.sha256 and digest != item.sha256:
            raise DatasetError(
                f"{item.path} arrived with sha256 {digest}, but {PAGE} says {item.sha256}. It was not kept; try again."
            )
        shutil.move(got, folder / file)
    _record(folder, file, item, digest, snapshot)


def _record(folder: Path, file: str, item: Published, digest: str, snapshot: Snapshot) -> None:
    path = folder / RECORD
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known[file] = {
        **asdict(item),
        "sha256": digest,
        "repository": REPOSITORY,
        "commit": snapshot.commit,
        "licence": snapshot.licence,
    }
    write_atomically(path, json.dumps(known, indent=1, sort_keys=True).encode())


def _unreachable(folder: Path, error: Exception) -> str:
    why = " ".join(str(error).split())[:200] or type(error).__name__
    return (
        f"{PAGE} could not be read: {why} Check the network, or get the files in a browser and put them into {folder}."
    )
