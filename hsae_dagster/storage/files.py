"""Files that appear whole or not at all, with a seal on their content, and locks on them."""

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
