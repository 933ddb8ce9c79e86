"""What has been found out about a server and a model: kept for this process, and for later runs.

Belongs here: the small file per server and model. Does not belong here: finding out (`openai_client`), or what may be
put otherwise (`openai_dialect`).
"""

from dataclasses import replace
from pathlib import Path

from hsae_dagster.keys import hash_json
from hsae_dagster.providers.openai_dialect import PLAIN, Dialect
from hsae_dagster.whole_files import sealed, unsealed, write_atomically

FOLDER = "servers"
_KNOWN: dict[tuple[str, str, str], Dialect] = {}
# Servers and models that have answered this process: they need not be tried out with one request alone.
_ANSWERED: set[tuple[str, str, str]] = set()


class KnownServer:
    """One server and model, as seen from one results folder (None: this process only)."""

    def __init__(self, root: Path | None, endpoint: str, model: str) -> None:
        self._key = (str(root), endpoint, model)
        self._path = root / FOLDER / f"{hash_json([endpoint, model])}.json" if root else None

    @property
    def dialect(self) -> Dialect:
        """How requests are put for it."""
        if self._key not in _KNOWN:
            _KNOWN[self._key] = self._read()
        return _KNOWN[self._key]

    @property
    def has_answered(self) -> bool:
        """Whether it has answered this process."""
        return self._key in _ANSWERED

    def answered(self, dialect: Dialect) -> bool:
        """Note an answer to a request put so; whether that is news."""
        _ANSWERED.add(self._key)
        if replace(dialect, inputs=self.dialect.inputs) == self.dialect:
            return False
        self._keep(replace(dialect, inputs=self.dialect.inputs))
        return True

    def learn_inputs(self, most: int) -> None:
        """Note how many texts it takes at once."""
        self._keep(replace(self.dialect, inputs=most))

    def _keep(self, dialect: Dialect) -> None:
        _KNOWN[self._key] = dialect
        if self._path:
            record = {"server": self._key[1], "model": self._key[2], "dialect": dialect.record()}
            write_atomically(self._path, sealed(record))

    def forget(self) -> None:
        """Find out anew."""
        _KNOWN.pop(self._key, None)
        _ANSWERED.discard(self._key)
        if self._path:
            self._path.unlink(missing_ok=True)

    def _read(self) -> Dialect:
        try:
            return Dialect.of(unsealed(self._path)["dialect"]) if self._path else PLAIN
        # No such file, or one that says nothing: found out anew.
        except (OSError, ValueError, KeyError, TypeError):
            return PLAIN


def forget_all(root: Path) -> None:
    """Forget every server that was seen from a results folder."""
    for key in [key for key in _KNOWN if key[0] == str(root)]:
        _KNOWN.pop(key)
        _ANSWERED.discard(key)
    for path in (root / FOLDER).glob("*.json"):
        path.unlink(missing_ok=True)
