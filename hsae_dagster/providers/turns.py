"""One at a time where money is counted: runs of one dataset that share a budget ask one after the other.

Belongs here: the lock that makes a run wait for its turn. Does not belong here: what may be spent (`account`).

Each run knows what the ledger held when it began to ask. Two that ask at once would each spend what is left. Waiting
costs nothing, for runs of one dataset mostly ask the same: what the first was answered, the second finds in the ledger.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hsae_dagster.errors import ProviderError

_LOOK_SECONDS = 0.5


@contextmanager
def turn(folder: Path, dataset: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the dataset's turn, after waiting for whoever has it. A process that dies gives it back.

    Args:
        folder: where the locks lie, seen by every process that spends on the dataset.
        dataset: whose budget it is.
        report: told once if there is a wait.

    Raises:
        ProviderError: the lock cannot be made.
    """
    name = hashlib.blake2b(dataset.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = path.open("a", encoding="utf-8")
    except OSError as error:
        raise ProviderError(
            f"Dataset `{dataset}` has a budget, but its lock {path} cannot be written: {error.strerror}. Make the "
            "folder writable and run again."
        ) from error
    with stream:
        told = False
        while not _taken(stream.fileno()):
            if not told:
                report(f"another run of `{dataset}` asks on the same budget; this one goes on when that has ended")
                told = True
            time.sleep(_LOOK_SECONDS)
        yield  # closing the file gives the turn back


def _taken(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
