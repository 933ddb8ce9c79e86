"""Where a dataset's splits end, kept from its first corpus on.

Belongs here: one small file per dataset under `splits/` of the results folder. Does not belong here: how cuts are made
(`core.placing`).

Cuts that follow the rows depend on the rows there are. Were they made anew when rows are added, an old component could
move from the holdout to training; so the first corpus records them and later ones read them. The record is history:
nothing in the project deletes it. A change of the declared shares, the salt or what joins rows makes other cuts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsae_dagster.core.placing import Cuts
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.whole_files import sealed, unsealed, write_atomically


@dataclass(frozen=True)
class SplitCuts:
    """Recorded cuts of one dataset.

    Attributes:
        results: the results folder.
        dataset: its name.
        declared: everything that decides what a component is and what share each split gets.
        files: fingerprints of the files as they are now.
    """

    results: Path
    dataset: str
    declared: Mapping[str, Any]
    files: Any

    def earlier(self) -> Cuts | None:
        """Cuts made from other files than now; None where there are none, or these very files gave them.

        Raises:
            StorageError: the record cannot be read.
        """
        if not self._path.is_file():
            return None
        try:
            record = unsealed(self._path)
            if record["files"] == hash_json(self.files):
                return None
            return Cuts(**record["cuts"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"The record {self._path} of where the splits end cannot be read ({error}). Restore it from a copy of "
                "the results folder; without it, texts that were held out could be learned from."
            ) from error

    def keep(self, cuts: Cuts) -> None:
        """Record the cuts of the first corpus."""
        if not self._path.is_file():
            write_atomically(self._path, sealed({"files": hash_json(self.files), "cuts": cuts.record}))

    @property
    def _path(self) -> Path:
        return self.results / "splits" / self.dataset / f"{hash_json(dict(self.declared))[:16]}.json"
