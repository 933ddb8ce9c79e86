"""Finished results, addressed by what they were made from; files that appear whole or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json

SEAL = "seal"
# A file system without locks (some mounted buckets): files still appear whole, only two makers may both make one.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that a reader sees the old file or the new one, never half of it, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, aside = tempfile.mkstemp(prefix=".writing-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have the disk hold what a file or folder holds."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(record: Mapping[str, Any], *, sort_keys: bool = True) -> bytes:
    """A JSON-like record as UTF-8 JSON with the hash of its content beside it."""
    plain = json.loads(json.dumps(record, allow_nan=False))
    whole = {**plain, SEAL: hash_json(plain)}
    return json.dumps(whole, indent=1, sort_keys=sort_keys, ensure_ascii=False).encode("utf-8", "surrogatepass")


def unsealed(path: Path) -> dict[str, Any]:
    """A record as it was sealed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a JSON object, or not what was written.
    """
    record = json.loads(path.read_bytes().decode("utf-8", "surrogatepass"))
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    if record.pop(SEAL, None) != hash_json(record):
        raise ValueError("its content is not what was written")
    return record


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Hold the lock file `path`, which no other process does meanwhile; the lock of a killed process is free.

    Yields whether it is held: some file systems have no locks, and there nobody is kept out.

    Args:
        path: the lock file; removed afterwards.
        waiting: called once if another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, held = _acquire(path, waiting)
    try:
        yield held
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, waiting: Callable[[], None]) -> tuple[int, bool]:
    """The open lock file, and whether it is locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Whoever held it before has removed it: a later comer would lock another file of the same name.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor, True
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return descriptor, False
            os.close(descriptor)
            raise
        os.close(descriptor)


MANIFEST = "manifest.json"
# A result that holds this file lacks something that making it again may bring (answers of a server that failed).
INCOMPLETE = "_incomplete.json"


@dataclass(frozen=True)
class StageInputs:
    """What a stage's result is a function of; equal inputs mean equal results.

    Attributes:
        asset: the stage's name.
        code_version: version of the stage's code.
        config: the part of the declaration that the stage reads (JSON-like).
        upstream: data version of each upstream asset.
    """

    asset: str
    code_version: str
    config: Mapping[str, Any]
    upstream: Mapping[str, str]

    @property
    def key(self) -> str:
        """Hash of all of it."""
        return hash_json(
            {
                "asset": self.asset,
                "code_version": self.code_version,
                "config": dict(self.config),
                "upstream": dict(self.upstream),
            }
        )


@dataclass(frozen=True)
class StoredObject:
    """A verified result.

    Attributes:
        asset: the stage that made it.
        folder: where its files lie.
        data_version: fingerprint of its content files.
        inputs: what it was made from.
        run_id: the run that made it.
        created: when (ISO 8601, UTC).
        reused: whether this call found it finished instead of making it.
    """

    asset: str
    folder: Path
    data_version: str
    inputs: StageInputs
    run_id: str
    created: str
    reused: bool = field(default=False, compare=False)

    def file(self, name: str) -> Path:
        """Path of one of its files."""
        return self.folder / name

    def json(self, name: str) -> Any:
        """Content of one of its JSON files."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


class ObjectStore:
    """Results under one folder. Safe for several processes: objects and pointers appear whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def build(
        self,
        inputs: StageInputs,
        run_id: str,
        make: Callable[[Path], None],
        waiting: Callable[[], None] = lambda: None,
    ) -> StoredObject:
        """Return the object made from `inputs`, calling `make(folder)` to write its files unless it exists.

        Files whose name begins with `_` (figures, timings) travel with the object but are not part of its data
        version. A stored object whose files no longer match their hashes is made again; one that is incomplete is
        replaced once it could be made again, and stays until then. While another process makes it, this one waits and
        takes what it made, after calling `waiting`: nothing is asked, or paid, twice.
        """
        with locked(self.root / "locks" / f"{inputs.asset}-{inputs.key}", waiting) as alone:
            return self._build(inputs, run_id, make, alone)

    def _build(self, inputs: StageInputs, run_id: str, make: Callable[[Path], None], alone: bool) -> StoredObject:
        target = self._folder(inputs)
        if target.exists():
            try:
                found = self._load(target, inputs, reused=True)
            except StorageError:
                shutil.rmtree(target, ignore_errors=True)
            else:
                if not found.file(INCOMPLETE).exists():
                    return found
        parent = target.parent
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = f".making-{inputs.key}-"
        if alone:  # what is there was left by runs that were killed, and not by one that is at it
            for left in parent.glob(f"{unfinished}*"):
                shutil.rmtree(left, ignore_errors=True)
        aside = Path(tempfile.mkdtemp(prefix=unfinished, dir=parent))
        try:
            make(aside)
            _write_manifest(aside, inputs, run_id)
            _publish(aside, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return self._load(target, inputs, reused=False)

    def finished(self, inputs: StageInputs) -> bool:
        """Whether `build` would find the result of these inputs, complete."""
        folder = self._folder(inputs)
        return (folder / MANIFEST).is_file() and not (folder / INCOMPLETE).exists()

    def point(self, dataset: str, stored: StoredObject) -> None:
        """Make `stored` the current result of its asset for `dataset`."""
        path = self._pointer(dataset, stored.asset)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"object": self.place(stored), "data_version": stored.data_version}
        write_atomically(path, sealed(record))

    def current(self, dataset: str, asset: str) -> StoredObject:
        """The current result of `asset` for `dataset`, verified.

        Raises:
            StorageError: it was never materialized, or its files are damaged.
        """
        return self._current(dataset, asset, verify=True)

    def datasets(self) -> list[str]:
        """Datasets that have a current result of anything."""
        return sorted(path.name for path in (self.root / "datasets").glob("*") if path.is_dir())

    def has(self, dataset: str, asset: str) -> bool:
        """Whether `asset` was materialized for `dataset`."""
        return self._pointer(dataset, asset).is_file()

    def versions(self, dataset: str) -> dict[str, str]:
        """Data version of every current result of a dataset by asset, from the pointers alone."""
        found = {}
        for path in sorted((self.root / "datasets" / dataset).glob("*.json")):
            try:
                found[path.stem] = str(unsealed(path)["data_version"])
            except (OSError, ValueError, KeyError):  # a pointer that cannot be read points to nothing
                continue
        return found

    def pointed(self, dataset: str, asset: str) -> StoredObject:
        """The current result of `asset` for `dataset`, known by its manifest but with its files unread.

        For whoever needs to know which result is current, not what is in it; `verified` makes it fit to be read.

        Raises:
            StorageError: it was never materialized, or has no manifest.
        """
        return self._current(dataset, asset, verify=False)

    def verified(self, dataset: str, stored: StoredObject) -> StoredObject:
        """The same object after its files were compared with their hashes.

        Raises:
            StorageError: its files are damaged.
        """
        return self._explained(dataset, stored.asset, stored.folder, verify=True)

    def find(self, asset: str, data_version: str) -> StoredObject | None:
        """The newest object of `asset` with this data version, its files unread, or None."""
        found = []
        for path in sorted((self.root / "objects" / asset).glob(f"*/{MANIFEST}")):
            try:
                stored = self._load(path.parent, None, reused=True, verify=False)
            except StorageError:
                continue
            if stored.data_version == data_version:
                found.append(stored)
        return max(found, key=lambda stored: stored.created, default=None)

    def at(self, place: str) -> StoredObject:
        """The object whose folder is `place`, relative to the results folder; its files unread.

        Raises:
            StorageError: there is none.
        """
        return self._load(self.root / place, None, reused=True, verify=False)

    def place(self, stored: StoredObject) -> str:
        """Where an object lies, relative to the results folder."""
        return stored.folder.relative_to(self.root).as_posix()

    def _current(self, dataset: str, asset: str, *, verify: bool) -> StoredObject:
        path = self._pointer(dataset, asset)
        if not path.is_file():
            raise StorageError(
                f"Dataset `{dataset}` has no `{asset}` yet. Materialize `{asset}` (and what is upstream of it) first."
            )
        try:
            record = unsealed(path)
            folder, version = self.root / record["object"], record["data_version"]
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(
                f"Dataset `{dataset}`: {path}, which says which result is current, cannot be read ({error}). "
                f"Materialize `{asset}` again; a finished result is found and kept."
            ) from error
        stored = self._explained(dataset, asset, folder, verify=verify)
        if stored.data_version != version:
            raise StorageError(f"Dataset `{dataset}`: {path} names another result. Materialize `{asset}` again.")
        return stored

    def _explained(self, dataset: str, asset: str, folder: Path, *, verify: bool) -> StoredObject:
        try:
            return self._load(folder, None, reused=True, verify=verify)
        except StorageError as error:
            raise StorageError(f"Dataset `{dataset}`: {error} Materialize `{asset}` again.") from error

    def _folder(self, inputs: StageInputs) -> Path:
        return self.root / "objects" / inputs.asset / inputs.key

    def _pointer(self, dataset: str, asset: str) -> Path:
        return self.root / "datasets" / dataset / f"{asset}.json"

    def _load(self, folder: Path, inputs: StageInputs | None, *, reused: bool, verify: bool = True) -> StoredObject:
        try:
            manifest = unsealed(folder / MANIFEST)
            stored = StoredObject(
                asset=manifest["inputs"]["asset"],
                folder=folder,
                data_version=manifest["data_version"],
                inputs=inputs or StageInputs(**manifest["inputs"]),
                run_id=manifest["run_id"],
                created=manifest["created"],
                reused=reused,
            )
            files = dict(manifest["files"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(f"the stored result {folder} has no readable manifest.") from error
        for name, digest in files.items() if verify else ():
            if not (folder / name).is_file() or _digest(folder / name) != digest:
                raise StorageError(f"the stored file {folder / name} is missing or not what was written.")
        return stored


def _write_manifest(folder: Path, inputs: StageInputs, run_id: str) -> None:
    files = {str(p.relative_to(folder)): _digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {name: digest for name, digest in files.items() if not Path(name).name.startswith("_")}
    manifest = {
        "inputs": {
            "asset": inputs.asset,
            "code_version": inputs.code_version,
            "config": dict(inputs.config),
            "upstream": dict(inputs.upstream),
        },
        "files": files,
        "data_version": hash_json(content),
        "run_id": run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    (folder / MANIFEST).write_bytes(sealed(manifest))


def _publish(aside: Path, target: Path) -> None:
    for path in aside.rglob("*"):
        sync(path)
    aside.chmod(0o755)
    if (target / INCOMPLETE).exists():
        _set_aside(target)
    try:
        aside.rename(target)
    except OSError:
        # Another process published the same inputs first; equal inputs mean equal results.
        if not (target / MANIFEST).is_file():
            raise
    sync(target.parent)


def _set_aside(target: Path) -> None:
    """Take an incomplete result away, whole, so that its successor can take its place."""
    old = Path(tempfile.mkdtemp(prefix=".replaced-", dir=target.parent))
    target.rename(old / target.name)
    shutil.rmtree(old, ignore_errors=True)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:64]
