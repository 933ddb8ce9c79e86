"""What is kept for good: plans and looks at holdouts, and where a dataset's splits end."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.inference.plan import AnalysisPlan, Look, holdout_fingerprint, one_holdout
from hsae_dagster.core.observations import Cuts
from hsae_dagster.keys import hash_json
from hsae_dagster.storage.records import Document, Records, Transaction

_PLAN, _LOOK, _FOUND, _KEYS = "plan", "look", "p-values of the look", "holdout"


@dataclass(frozen=True)
class HoldoutRegister:
    """Looks at holdouts: counted in one transaction each, so that no process or machine knows fewer than there are.

    Raises:
        StorageError: from every method, where the records are damaged or cannot be written.
    """

    root: Path

    def freeze(self, plan: AnalysisPlan, keys: pl.DataFrame) -> None:
        """Write a plan down, unless it is there already: the first writing is the one that counts.

        Raises:
            ValueError: the keys are not those of the plan's holdout (`core.inference.plan.holdout_keys`).
        """
        if holdout_fingerprint(keys) != plan.holdout:
            raise ValueError("these are not the keys of the plan's holdout")
        with Records(self.root).writing() as records:
            # In place of what is there, which may be damaged; they are what the holdout is named by.
            records.put(Document(_KEYS, plan.holdout, "keys", {}, _parquet(keys)))
            records.add(Document(_PLAN, plan.holdout, plan.fingerprint, {**plan.record, "frozen": _now()}))

    def look(self, plan: AnalysisPlan, *, dataset: str, judged_under: str | None) -> Look:
        """Count an evaluation of a frozen plan, before it is made. A plan looks once, however often it is evaluated.

        `dataset` is for the record; `judged_under` is the plan that was frozen when the holdout's texts were judged.
        """
        # Two evaluations at once are two looks, of which one is the later.
        with Records(self.root).writing() as records:
            known = records.get(_LOOK, plan.holdout, plan.fingerprint)
            if known is None:
                records.check()
                before = _looks_at(records, plan)
                opened = {
                    "number": len(before) + 1,
                    "earlier": [[one.subject, one.name] for one in before],
                    "frozen_before": judged_under == plan.fingerprint,
                    "dataset": dataset,
                    "opened": _now(),
                }
                known = Document(_LOOK, plan.holdout, plan.fingerprint, opened)
                records.add(known)
            earlier: dict[str, float] = {}
            for holdout, fingerprint in known.body["earlier"]:
                earlier |= _p_values(records, holdout, fingerprint)
        return Look(
            number=known.body["number"],
            plan=plan.fingerprint,
            frozen_before=known.body["frozen_before"],
            earlier=earlier,
        )

    def keep(self, plan: AnalysisPlan, p_values: Mapping[str, float]) -> None:
        """Record what a look found (p by test key), for the family of later looks; the first record stays."""
        finite = {key: p if p == p else None for key, p in p_values.items()}
        with Records(self.root).writing() as records:
            records.add(Document(_FOUND, plan.holdout, plan.fingerprint, finite))

    def spent(self, holdout: str) -> float | None:
        """Largest level (family-wise error) of a plan evaluated on a holdout; None before the first look."""
        with Records(self.root).reading() as records:
            plans = [_plan(records, holdout, one.name) for one in records.all(_LOOK, holdout)]
        return max((float(plan["gates"]["level"]) for plan in plans), default=None)


def _looks_at(records: Transaction, plan: AnalysisPlan) -> list[Document]:
    """All looks at this holdout or at one that shares texts and outcomes with it, oldest first."""
    keys = _keys(records, plan.holdout)
    found = []
    for holdout in records.subjects(_LOOK):
        looks = records.all(_LOOK, holdout)
        column = any(_classes_of_one_column(_plan(records, holdout, one.name)["model"], plan) for one in looks)
        if holdout == plan.holdout or one_holdout(keys, _keys(records, holdout), same_column=column):
            found += looks
    return sorted(found, key=lambda one: (one.body["opened"], one.body["number"], one.name))


def _p_values(records: Transaction, holdout: str, plan: str) -> dict[str, float]:
    """What a look tested: its p-values, or NaN for each planned test where it broke off before it had any."""
    found = records.get(_FOUND, holdout, plan)
    if found is not None:
        return {key: float("nan") if p is None else float(p) for key, p in found.body.items()}
    return {f"{plan}:{i}": float("nan") for i in range(len(_plan(records, holdout, plan)["tests"]))}


def _plan(records: Transaction, holdout: str, fingerprint: str) -> dict[str, Any]:
    return records.need(_PLAN, holdout, fingerprint).body


def _keys(records: Transaction, holdout: str) -> pl.DataFrame:
    return pl.read_parquet(io.BytesIO(records.need(_KEYS, holdout, "keys").data or b""))


def _classes_of_one_column(model: Mapping[str, Any], plan: AnalysisPlan) -> bool:
    """Whether both outcomes are a class against the rest, and the column of the classes has one name."""
    both = (model, plan.model)
    return all(one.get("positive") is not None for one in both) and model.get("label") == plan.model.get("label")


def _parquet(frame: pl.DataFrame) -> bytes:
    stream = io.BytesIO()
    frame.write_parquet(stream)
    return stream.getvalue()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


_SPLITS = "ends of the splits"
ROUNDS_SCHEMA = {"key": pl.String, "round": pl.Int64}


@dataclass(frozen=True)
class Holdout:
    """What a round (1 for the first) was tested on, or will be: observations, and how many clusters of them.

    The fingerprint is of its texts and labels (`core.inference.plan.holdout_fingerprint`).
    """

    round: int
    fingerprint: str
    rows: int
    clusters: int


@dataclass(frozen=True)
class Placed:
    """The record of one dataset.

    Attributes:
        cuts, rounds: where its splits end; the rows that have been admitted, columns `ROUNDS_SCHEMA` (keys by
            `core.corpus.row_keys`).
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
    """The record of one dataset, under all that is declared of what a component is and what share each split gets.

    Raises:
        StorageError: from every method, where the records are damaged or cannot be written.
    """

    results: Path
    dataset: str
    declared: Mapping[str, Any]

    def read(self) -> Placed | None:
        """The record, or None before the first corpus."""
        with Records(self.results).reading() as records:
            return self._read(records)

    def keep(self, cuts: Cuts, rounds: pl.DataFrame, holdout: Holdout, made: Mapping[str, str | None]) -> None:
        """Add what a corpus was made of; what was recorded before stays.

        Args:
            cuts: of the corpus; those recorded first count.
            rounds: of its rows, columns `ROUNDS_SCHEMA`.
            holdout: of the corpus.
            made: its files, as in `Placed.made`; empty where rows wait.
        """
        with Records(self.results).writing() as records:
            known = self._read(records)
            if known is not None:
                cuts = known.cuts
                rounds = pl.concat([known.rounds, rounds.join(known.rounds, on="key", how="anti")])
                made = {**made, **known.made}
            before = known.holdouts if known else ()
            holdouts = before if holdout in before else (*before, holdout)
            body = {"cuts": asdict(cuts), "holdouts": [asdict(one) for one in holdouts], "made": dict(made)}
            records.put(Document(_SPLITS, self.dataset, self._name, body, _parquet(rounds.sort("round", "key"))))

    def _read(self, records: Transaction) -> Placed | None:
        found = records.get(_SPLITS, self.dataset, self._name)
        if found is None:
            return None
        return Placed(
            cuts=Cuts(**found.body["cuts"]),
            rounds=pl.read_parquet(io.BytesIO(found.data or b""), columns=list(ROUNDS_SCHEMA)),
            holdouts=tuple(Holdout(**one) for one in found.body["holdouts"]),
            made=found.body["made"],
        )

    @property
    def _name(self) -> str:
        return hash_json(dict(self.declared))[:16]
