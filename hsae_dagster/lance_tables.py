"""What every Lance table needs: knowing whether it was ever committed, and a sentence when it is damaged.

Belongs here: that alone. Does not belong here: what is in a table (`storage.vectors`, `providers.ledger`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def has_version(folder: Path) -> bool:
    """Whether a Lance table was ever committed; a process that was killed before leaves a folder without."""
    return next((folder / "_versions").glob("*.manifest"), None) is not None


@contextmanager
def lance_explained(sentence: Callable[[str], Exception]) -> Iterator[None]:
    """Turn whatever Lance raises of a damaged or unwritable table into the error that `sentence` makes of its words."""
    import polars as pl

    try:
        yield
    # Lance's own code panics on some damaged files, which Python sees as no Exception at all.
    except (OSError, RuntimeError, ValueError, MemoryError, pl.exceptions.PanicException) as error:
        raise sentence(" ".join(str(error).split())[:300]) from error
