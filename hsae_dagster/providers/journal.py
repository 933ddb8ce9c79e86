"""What one round of requests intends and is answered, written line by line as it happens.

Belongs here: the file of one round, and reading those of others. Does not belong here: the ledger's table (`ledger`),
into which a journal is folded when its round is over, or, if its process was killed, by whoever comes next.

A line is its checksum and JSON, in one `write` to a file opened for appending: a killed process leaves whole lines. A
live journal is locked by its process; one that nobody locks was left behind.
"""

import errno
import fcntl
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hsae_dagster.keys import hash_bytes

FOLDER = "llm_journal"
# Where there are no locks, a journal that nobody has written to for so long was left behind.
LEFT_BEHIND_SECONDS = 24 * 3600.0


@dataclass
class Record:
    """What a journal says.

    Attributes:
        answers: rows of the ledger, as they were written.
        intents: rows of requests that were sent, or about to be, and of whose end it says nothing, by request.
    """

    answers: list[dict[str, Any]] = field(default_factory=list)
    intents: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, line: Mapping[str, Any]) -> None:
        """One line."""
        row = line["row"]
        if line["is"] == "intent":
            self.intents[row["request_hash"]] = row
            return
        self.intents.pop(row["request_hash"], None)
        if line["is"] == "answer":
            self.answers.append(row)


class Journal:
    """The journal of one round; not to be shared between threads."""

    def __init__(self, root: Path) -> None:
        folder = root / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.jsonl"
        self.record = Record()
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        with suppress(OSError):  # no locks here
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def intend(self, row: Mapping[str, Any]) -> None:
        """A request is about to be sent; `row` is what it counts as if nothing more is heard of it."""
        self._write("intent", row)

    def answered(self, row: Mapping[str, Any]) -> None:
        """It was answered."""
        self._write("answer", row)

    def came_to_nothing(self, request_hash: str) -> None:
        """It failed, and nothing is paid for it."""
        self._write("nothing", {"request_hash": request_hash})

    def close(self, *, keep: bool = False) -> None:
        """Its content is elsewhere (or is to stay for the next to come)."""
        if not keep:
            self.path.unlink(missing_ok=True)
        os.close(self._file)

    def _write(self, kind: str, row: Mapping[str, Any]) -> None:
        line = {"is": kind, "row": dict(row)}
        self.record.take(line)
        data = json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass")
        os.write(self._file, hash_bytes(data).encode() + b" " + data + b"\n")


def read_all(root: Path) -> Iterator[tuple[Path, Record]]:
    """Every journal there is, live or left behind."""
    for path in sorted((root / FOLDER).glob("*.jsonl")):
        with suppress(FileNotFoundError):  # folded meanwhile: it is in the table
            yield path, read(path)


def read(path: Path) -> Record:
    """A journal's whole lines; what is not what was written is left out."""
    record = Record()
    for data in path.read_bytes().split(b"\n"):
        try:
            checksum, _, written = data.partition(b" ")
            if checksum.decode() == hash_bytes(written):
                record.take(json.loads(written.decode("utf-8", "surrogatepass")))
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return record


def left_behind(root: Path) -> Iterator[tuple[Path, Record]]:
    """Journals whose process is gone; each is locked until the next is asked for, so that one process takes it."""
    for path in sorted((root / FOLDER).glob("*.jsonl")):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue
        try:
            if _is_left(file, path):
                yield path, read(path)
        finally:
            os.close(file)


def _is_left(file: int, path: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno == errno.EBADF:
            raise
        return time.time() - os.fstat(file).st_mtime > LEFT_BEHIND_SECONDS
    return path.exists()
