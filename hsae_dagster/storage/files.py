"""Files that appear whole or not at all, with seals and locks, and the object store that several machines share."""

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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


def sealed(record: Mapping[str, Any]) -> bytes:
    """A JSON-like record as UTF-8 JSON with the hash of its content beside it."""
    plain = json.loads(json.dumps(record, allow_nan=False))
    whole = {**plain, SEAL: hash_json(plain)}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")


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

    Yields whether it is held: some file systems have no locks, and there nobody is kept out. `waiting` is called once
    if another process holds it.
    """
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        path.unlink(missing_ok=True)  # before it is free: who waits for it sees that it is gone, and locks another
        lock.release()


# The file of a results folder that names its store.
BINDING = "store.url"
_CHUNK = 2**23


def bind(results: Path, url: str) -> Path:
    """Have a results folder belong to the object store at `url`, for good; returns the folder. Raises as `bound`."""
    return bound(results, BINDING, "HSAE_STORE", url.rstrip("/"), ("records.sqlite", "objects"))


def bound(results: Path, binding: str, variable: str, named: str, own: Sequence[str]) -> Path:
    """Have a results folder belong to what the setting `variable` has `named`, if anything, for good; returns it.

    Its file `binding` says so. A folder that was worked in before has one of `own`: looks in it would be unknown
    elsewhere.

    Raises:
        StorageError: it belongs to another, or was worked in before.
    """
    path = results / binding
    known = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if named and known and known != named:
        raise StorageError(
            f"The results in {results} belong to {known}, and {variable} names {named}. Set {variable} to the former, "
            "or HSAE_RESULTS_DIR to an empty folder."
        )
    if named and not known:
        found = [name for name in own if (results / name).exists()]
        if found:
            raise StorageError(
                f"{variable} is set, but {results} was worked in without it ({', '.join(found)}), and {named} would "
                f"not know of looks at holdouts. Set HSAE_RESULTS_DIR to an empty folder, or unset {variable}."
            )
        write_atomically(path, named.encode())
    return results


@lru_cache(maxsize=4)
def _client(url: str) -> Any:
    try:
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise StorageError(
            f"The store {url} needs {error.name}. Install it with `pip install -e '.[store]'` here and on every worker."
        ) from error
    return from_url(url, mkdir=True) if url.startswith("file:") else from_url(url)


class Shared:
    """The store of one results folder. Names are paths relative to that folder."""

    def __init__(self, root: Path, url: str) -> None:
        self.root, self.url = root, url

    @staticmethod
    def of(root: Path) -> "Shared | None":
        """The store that a results folder is bound to, or None."""
        path = root / BINDING
        return Shared(root, path.read_text(encoding="utf-8").strip()) if path.is_file() else None

    def get(self, name: str) -> bytes | None:
        """What is kept under a name, or None."""
        with self._explained():
            try:
                return bytes(self._store.get(name).bytes())
            except FileNotFoundError:
                return None

    def put(self, name: str, data: bytes) -> None:
        """Keep `data` under a name, in place of what was there."""
        with self._explained():
            self._store.put(name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Keep `data` under a name unless there is something; of several machines at once, one is told True."""
        from obstore.exceptions import AlreadyExistsError

        with self._explained():
            try:
                self._store.put(name, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    def names(self, folder: str) -> list[str]:
        """All names below a folder, sorted."""
        with self._explained():
            return sorted(one["path"] for part in self._store.list(f"{folder}/") for one in part)

    def has(self, folder: str) -> bool:
        """Whether anything is kept below a folder."""
        with self._explained():
            found = self._store.list(f"{folder}/", chunk_size=1)
            return next((True for part in found if part), False)

    def remove(self, name: str) -> None:
        """Forget what is kept under a name."""
        with self._explained():
            self._store.delete(name)

    def upload(self, digest: str, path: Path) -> None:
        """Keep a file by the hash of its content, unless it is there."""
        with self._explained():
            try:
                self._store.head(f"blobs/{digest}")
            except FileNotFoundError:
                self._store.put(f"blobs/{digest}", path)

    def download(self, digest: str, path: Path) -> bool:
        """Write a file that is kept by the hash of its content; whether it is there, and is what was kept.

        A damaged one is forgotten, so that it is kept anew.
        """
        found = hashlib.blake2b()
        with self._explained():
            try:
                chunks = self._store.get(f"blobs/{digest}").stream(min_chunk_size=_CHUNK)
            except FileNotFoundError:
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    found.update(chunk)
        whole = found.hexdigest()[:64] == digest
        if not whole:
            self.remove(f"blobs/{digest}")
        return whole

    @property
    def _store(self) -> Any:
        return _client(self.url)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            said = " ".join(str(error).split("Debug source")[0].split())[:300]
            raise StorageError(
                f"The store {self.url} cannot be used: {said}. Make sure that it can be reached, and that you may "
                "read and write it (AWS_ACCESS_KEY_ID and the like). Then run again; what is finished is kept."
            ) from error
