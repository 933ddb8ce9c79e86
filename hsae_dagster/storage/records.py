"""What is kept for good: plans and looks at holdouts, and where a dataset's splits end."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.inference.plan import AnalysisPlan, Look, holdout_fingerprint, one_holdout
from hsae_dagster.core.observations import Cuts
from hsae_dagster.errors import StorageError
from hsae_dagster.keys import hash_json
from hsae_dagster.storage.files import locked, sealed, unsealed, write_atomically
from hsae_dagster.storage.shared import Shared, write_once


@dataclass(frozen=True)
class HoldoutRegister:
    """The register under one results folder, and in the store that it belongs to.

    Looks of several machines have one order in a store: each claims the next number in `looks/`, which one machine
    alone can, after it has read all earlier ones.
    """

    root: Path

    def freeze(self, plan: AnalysisPlan, keys: pl.DataFrame) -> None:
        """Write a plan down, unless it is there already: the first writing is the one that counts.

        Args:
            plan: the plan.
            keys: of its holdout, as `core.inference.plan.holdout_keys` gives them.

        Raises:
            ValueError: the keys are not those of the plan's holdout.
        """
        if holdout_fingerprint(keys) != plan.holdout:
            raise ValueError("these are not the keys of the plan's holdout")
        folder = self._folder(plan.holdout)
        if not _keys_are_there(folder):
            stream = io.BytesIO()
            keys.write_parquet(stream)
            # In place of a damaged one at a stroke: others may be reading.
            write_once(folder / "keys.parquet", stream.getvalue(), self._shared, anew=True)
        self._write_once(folder / "plans" / f"{plan.fingerprint}.json", {**plan.record, "frozen": _now()})

    def look(self, plan: AnalysisPlan, *, dataset: str, judged_under: str | None) -> Look:
        """Count an evaluation of a frozen plan, before it is made. A plan looks once, however often it is evaluated.

        Args:
            plan: frozen (`freeze`).
            dataset: whose report it is for, for the record.
            judged_under: fingerprint of the plan that was frozen when the holdout's texts were judged.
        """
        path = self._folder(plan.holdout) / "looks" / f"{plan.fingerprint}.json"
        # Two evaluations at once are two looks, of which one is the later.
        with locked(self.root / "locks" / "looks"):
            next_number = self._pulled()
            while not path.is_file():
                before = self._looks_at(plan)
                opened: dict[str, Any] = {
                    "plan": plan.fingerprint,
                    "number": len(before) + 1,
                    "earlier": [[one["holdout"], one["plan"]] for one in before],
                    "frozen_before": judged_under == plan.fingerprint,
                    "dataset": dataset,
                    "opened": _now(),
                }
                claim = sealed({"holdout": plan.holdout, "look": opened})
                if self._shared is None or self._shared.create(f"looks/{next_number:08d}.json", claim):
                    self._write_once(path, opened)
                else:
                    next_number = self._pulled()
        record = _read_plan(path)
        earlier: dict[str, float] = {}
        for holdout, fingerprint in record["earlier"]:
            earlier |= self._p_values(holdout, fingerprint)
        return Look(
            number=record["number"],
            plan=plan.fingerprint,
            frozen_before=record["frozen_before"],
            earlier=earlier,
            earlier_plans=tuple(fingerprint for _, fingerprint in record["earlier"]),
        )

    def keep(self, plan: AnalysisPlan, p_values: Mapping[str, float]) -> None:
        """Record what a look found (p by test key), for the family of later looks; the first record stays."""
        finite = {key: p if p == p else None for key, p in p_values.items()}
        self._write_once(self._folder(plan.holdout) / "looks" / f"{plan.fingerprint}.p.json", finite)

    def spent(self, holdout: str) -> float | None:
        """Largest level (family-wise error) of a plan that was evaluated on a holdout; None before the first look.

        Args:
            holdout: its fingerprint.
        """
        self._pulled()
        folder = self._folder(holdout)
        looked = [path for path in sorted((folder / "looks").glob("*.json")) if ".p." not in path.name]
        levels = [_read_plan(folder / "plans" / path.name)["gates"] for path in looked]
        return max((float(gates.get("level", gates["alpha"])) for gates in levels), default=None)

    @property
    def _shared(self) -> Shared | None:
        return Shared.of(self.root)

    def _pulled(self) -> int:
        """Bring what other machines have written down; the number of the next look of all."""
        if self._shared is None:
            return 1
        claims = self._shared.pull("looks")
        self._shared.pull("holdouts")  # plans and keys were there before their looks
        for name in claims:
            found = _read_plan(self.root / name)
            holdout, look = found["holdout"], found["look"]
            self._write_once(self._folder(holdout) / "looks" / f"{look['plan']}.json", look)
        return len(claims) + 1

    def _looks_at(self, plan: AnalysisPlan) -> list[dict[str, Any]]:
        """Records of all looks at this holdout or at one that shares texts and outcomes with it, oldest first."""
        keys = _read_keys(self._folder(plan.holdout))
        found = []
        for folder in sorted(path for path in self.root.glob("holdouts/*") if (path / "looks").is_dir()):
            looks = sorted(path for path in (folder / "looks").glob("*.json") if ".p." not in path.name)
            column = any(
                _classes_of_one_column(_read_plan(folder / "plans" / path.name)["model"], plan) for path in looks
            )
            if folder.name == plan.holdout or one_holdout(keys, _read_keys(folder), same_column=column):
                found += [{**_read_plan(path), "holdout": folder.name} for path in looks]
        return sorted(found, key=lambda one: (one["opened"], one["number"], one["plan"]))

    def _p_values(self, holdout: str, plan: str) -> dict[str, float]:
        """What a look tested: its p-values, or NaN for each planned test where it broke off before it had any."""
        folder = self._folder(holdout)
        found = folder / "looks" / f"{plan}.p.json"
        if found.is_file():
            return {key: float("nan") if p is None else float(p) for key, p in _read_plan(found).items()}
        return {f"{plan}:{i}": float("nan") for i in range(len(_read_plan(folder / "plans" / f"{plan}.json")["tests"]))}

    def _folder(self, holdout: str) -> Path:
        return self.root / "holdouts" / holdout

    def _write_once(self, path: Path, record: Mapping[str, Any]) -> None:
        write_once(path, sealed(record), self._shared)


def _classes_of_one_column(model: Mapping[str, Any], plan: AnalysisPlan) -> bool:
    """Whether both outcomes are a class against the rest, and the column of the classes has one name."""
    both = (model, plan.model)
    return all(one.get("positive") is not None for one in both) and model.get("label") == plan.model.get("label")


def _keys_are_there(folder: Path) -> bool:
    """Whether the keys of the holdout are kept, and are those that it is named by; others are written anew."""
    try:
        return holdout_fingerprint(_read_keys(folder)) == folder.name
    except StorageError:
        return False


def _read_keys(folder: Path) -> pl.DataFrame:
    path = folder / "keys.parquet"
    try:
        keys = pl.read_parquet(path)
        if holdout_fingerprint(keys) == folder.name:
            return keys
        cause = "it holds other keys than were written"
    except (OSError, ValueError, TypeError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        cause = " ".join(str(error).split())[:200]
    raise _unreadable(path, cause)


def _read_plan(path: Path) -> dict[str, Any]:
    try:
        return unsealed(path)
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, cause: str) -> StorageError:
    return StorageError(
        f"The record {path} of an earlier evaluation cannot be read ({cause}), so looks at this holdout cannot be "
        "counted. Restore it from a copy of the results folder."
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


ROUNDS_SCHEMA = {"key": pl.String, "round": pl.Int64}


@dataclass(frozen=True)
class Holdout:
    """What a round was tested on, or will be.

    Attributes:
        round: 1 for the first.
        fingerprint: of its texts and labels (`core.inference.plan.holdout_fingerprint`).
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
    """Where the record of one dataset lies: here, and in a store one after the other, the last of which counts.

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
        self._pull()
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
            while not self._keep(self._pull(), cuts, rounds, holdout, made):
                pass  # another machine has kept its own meanwhile, which counts first

    def _keep(
        self, kept: int, cuts: Cuts, rounds: pl.DataFrame, holdout: Holdout, made: Mapping[str, str | None]
    ) -> bool:
        """Add to the record that was the `kept`th of the store; False where that is not the last any more."""
        known = self.read()
        if known is not None:
            cuts = known.cuts
            rounds = pl.concat([known.rounds, rounds.join(known.rounds, on="key", how="anti")])
            made = {**made, **known.made}
        before = known.holdouts if known else ()
        holdouts = before if holdout in before else (*before, holdout)
        stream = io.BytesIO()
        rounds.sort("round", "key").write_parquet(stream)
        record = sealed({"cuts": cuts.record, "holdouts": [asdict(one) for one in holdouts], "made": made})
        shared = Shared.of(self.results)
        if shared is not None:
            both = json.dumps({"record": record.decode(), "rows": base64.b64encode(stream.getvalue()).decode()})
            if not shared.create(f"{self._name}/{kept + 1:08d}.json", both.encode()):
                return False
        # Rows first: a record without its rows could not be read, rows without a record are made again.
        write_atomically(self._path.with_suffix(".parquet"), stream.getvalue())
        write_atomically(self._path, record)
        return True

    def _pull(self) -> int:
        """Have the record be the last that any machine has kept; how many there were."""
        shared = Shared.of(self.results)
        names = shared.names(self._name) if shared else []
        if shared is None or not names or (self.results / names[-1]).is_file():
            return len(names)
        data = shared.get(names[-1]) or b""
        both = json.loads(data)
        write_atomically(self._path.with_suffix(".parquet"), base64.b64decode(both["rows"]))
        write_atomically(self._path, both["record"].encode())
        write_atomically(self.results / names[-1], data)  # last: what it stands for is here
        return len(names)

    @property
    def _name(self) -> str:
        return self._path.with_suffix("").relative_to(self.results).as_posix()

    @property
    def _path(self) -> Path:
        return self.results / "splits" / self.dataset / f"{hash_json(dict(self.declared))[:16]}.json"
