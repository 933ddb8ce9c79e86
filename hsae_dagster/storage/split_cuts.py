"""Where a dataset's splits end and in which round each of its rows came, kept from its first corpus on.

Belongs here: two small files per dataset under `splits/` of the results folder. Does not belong here: how cuts are made
(`core.placing`), what a round is (`core.corpus`), when one begins (`assets.refresh`).

Cuts that follow the rows depend on the rows there are. Were they made anew when rows are added, an old component could
move from the holdout to training; so the first corpus records them and later ones read them. And rows that come after
a holdout was looked at must be told from those that were there. The record is history: nothing in the project deletes
it. A change of the declared shares, the salt or what joins rows makes another one.
"""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.placing import Cuts
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.whole_files import locked, sealed, unsealed, write_atomically

ROUNDS_SCHEMA = {"key": pl.String, "round": pl.Int64}


@dataclass(frozen=True)
class Holdout:
    """What a round was tested on, or will be.

    Attributes:
        round: 1 for the first.
        fingerprint: of its texts and labels (`core.analysis_plan.holdout_fingerprint`).
        rows: observations.
        clusters: independent ones.
    """

    round: int
    fingerprint: str
    rows: int
    clusters: int


@dataclass(frozen=True)
class Placed:
    """The record of one dataset.

    Attributes:
        cuts: where its splits end.
        rounds: the rows that have been admitted, columns `ROUNDS_SCHEMA` (keys by `core.corpus.row_keys`).
        holdouts: of every corpus that was made, oldest first.
        made: by fingerprint of the files, the key of the admitted rows, or None for those that made the cuts; only
            files of which every row was admitted.
    """

    cuts: Cuts
    rounds: pl.DataFrame
    holdouts: tuple[Holdout, ...]
    made: Mapping[str, str | None]

    def latest(self, round_: int) -> Holdout | None:
        """The last holdout of a round."""
        return next((one for one in reversed(self.holdouts) if one.round == round_), None)


@dataclass(frozen=True)
class SplitCuts:
    """Where the record of one dataset lies.

    Attributes:
        results: the results folder.
        dataset: its name.
        declared: everything that decides what a component is and what share each split gets.
    """

    results: Path
    dataset: str
    declared: Mapping[str, Any]

    def read(self) -> Placed | None:
        """The record, or None before the first corpus.

        Raises:
            StorageError: it cannot be read.
        """
        if not self._path.is_file():
            return None
        try:
            record = unsealed(self._path)
            return Placed(
                cuts=Cuts(**record["cuts"]),
                rounds=pl.read_parquet(self._path.with_suffix(".parquet"), columns=list(ROUNDS_SCHEMA)),
                holdouts=tuple(Holdout(**one) for one in record["holdouts"]),
                made=record["made"],
            )
        except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                f"The record {self._path} of where the splits end cannot be read ({error}). Restore it, with the "
                ".parquet beside it, from a copy of the results folder; without them, texts that were held out could "
                "be learned from."
            ) from error

    def keep(self, cuts: Cuts, rounds: pl.DataFrame, holdout: Holdout, made: Mapping[str, str | None]) -> None:
        """Add what a corpus was made of; what was recorded before stays.

        Args:
            cuts: of the corpus; those recorded first count.
            rounds: of its rows, columns `ROUNDS_SCHEMA`.
            holdout: of the corpus.
            made: its files, as in `Placed.made`; empty where rows wait.
        """
        with locked(self.results / "locks" / "splits"):
            known = self.read()
            if known is not None:
                cuts = known.cuts
                rounds = pl.concat([known.rounds, rounds.join(known.rounds, on="key", how="anti")])
                made = {**made, **known.made}
            before = known.holdouts if known else ()
            holdouts = before if holdout in before else (*before, holdout)
            stream = io.BytesIO()
            rounds.sort("round", "key").write_parquet(stream)
            # Rows first: a record without its rows could not be read, rows without a record are made again.
            write_atomically(self._path.with_suffix(".parquet"), stream.getvalue())
            record = {"cuts": cuts.record, "holdouts": [asdict(one) for one in holdouts], "made": made}
            write_atomically(self._path, sealed(record))

    @property
    def _path(self) -> Path:
        return self.results / "splits" / self.dataset / f"{hash_json(dict(self.declared))[:16]}.json"
