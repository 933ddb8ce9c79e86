"""Which rows of files that grew are admitted, which wait, and when they are tested."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.corpus import Corpus, Joining, build_corpus, row_keys
from hsae_dagster.core.inference.plan import holdout_fingerprint, holdout_keys, level
from hsae_dagster.core.observations import Cuts, SplitShares
from hsae_dagster.core.selection.stability import rows_that_test, views
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.rows import Rows, check_labels, check_levels
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import MethodError
from hsae_dagster.keys import hash_json, set_fingerprint
from hsae_dagster.storage.holdouts import Holdout, HoldoutRegister, Placed, SplitCuts


@dataclass(frozen=True)
class Admitted:
    """Rows that a corpus is made of.

    Attributes:
        rows: as read, those that wait left out, with their `round`.
        rounds: their keys and rounds (`storage.holdouts.ROUNDS_SCHEMA`).
        cuts: of an earlier corpus; None for the first.
        key: what the corpus depends on beside files and declaration; None for the first.
        waiting: rows that wait.
        said: what they wait for, in a sentence; empty where none does.
    """

    rows: Rows
    rounds: pl.DataFrame
    cuts: Cuts | None
    key: str | None
    waiting: int = 0
    said: str = ""

    def corpus(self, dataset: Dataset) -> Corpus:
        """The corpus of these rows; `auto` says why where it is not of two halves."""
        spec = dataset.spec
        if self.cuts:  # rows that are added do not change the design
            return self._placed(dataset, halves=self.cuts.two_halves)
        if spec.splits.design != "auto":
            return self._placed(dataset, halves=spec.splits.design == "two_halves")
        why = spec.why_one_holdout(self.rows.frame.height)
        if why is None:
            try:
                made = self._placed(dataset, halves=True)
                for view in views(made.observations):
                    check_levels(spec.selection, view)
                    check_labels(dataset, view)
                return made
            except MethodError as error:
                why = f"two halves cannot be made ({error})"
        return replace(self._placed(dataset, halves=False), one_holdout=why)

    def _placed(self, dataset: Dataset, *, halves: bool) -> Corpus:
        spec, splits = dataset.spec, dataset.spec.splits
        shares = SplitShares(
            splits.validation, spec.fidelity_share, splits.holdout, splits.salt, two_halves=halves, forward=spec.forward
        )
        joining = Joining(splits.near_texts, splits.shared_texts)
        return build_corpus(self.rows.frame, shares, self.rows.dropped, joining=joining, cuts=self.cuts)


def record_of(results: Path, dataset: Dataset) -> SplitCuts:
    """Where the dataset's record of rows and rounds lies."""
    spec = dataset.spec
    declared = {"columns": spec.columns.model_dump(mode="json"), "splits": placing_of(spec)}
    return SplitCuts(results, dataset.name, declared)


def placing_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of `splits` decides where rows land; the design that all corpora once had goes without saying."""
    declared = spec.splits.model_dump(mode="json", exclude={"reserve", "design"}) | {"fidelity": spec.fidelity_share}
    return declared if spec.design == "holdout" else declared | {"design": spec.design}


def admit(results: Path | None, dataset: Dataset, rows: Rows) -> Admitted:
    """Decide which rows are admitted, and in which round each came. Nothing is written.

    Args:
        results: the results folder; None for a dataset that is not there yet.
        dataset: as declared.
        rows: as read from its files.
    """
    frame = rows.frame.with_columns(row_keys(rows.frame))
    record = record_of(results, dataset).read() if results else None
    if record is None or results is None:
        return _admitted(rows, frame.with_columns(pl.lit(1, pl.Int64).alias("round")), None)
    frame = frame.join(record.rounds, on="key", how="left", maintain_order="left")
    new = int(frame["round"].null_count())
    now = int(frame["round"].max() or 1)  # type: ignore[arg-type]
    gone = record.rounds.filter(pl.col("round") <= now).height - (frame.height - new)
    # As many rows gone as came: texts were edited, or others put in their place. The register knows them again.
    edited = gone >= new or new == frame.height
    latest = record.latest(now)
    looked = latest is not None and HoldoutRegister(results).spent(latest.fingerprint) is not None
    if edited or not looked or rows.frame["declared_split"].null_count() == 0:
        return _admitted(rows, frame.with_columns(pl.col("round").fill_null(now)), record)
    opened = _admitted(rows, frame.with_columns(pl.col("round").fill_null(now + 1)), record)
    said = _not_yet(results, dataset, record, opened, new)
    if not said:
        return opened
    return _admitted(rows, frame.filter(pl.col("round").is_not_null()), record, new, said)


def level_of(results: Path, dataset: Dataset, round_: int) -> float:
    """Family-wise error that the report of a round may spend.

    Raises:
        MethodError: earlier reports have spent all of alpha.
    """
    settings = dataset.spec.inference
    found = level(
        settings.alpha, settings.first_report, round_, _spent(results, record_of(results, dataset).read(), round_)
    )
    if found > 0:
        return found
    raise MethodError(f"Dataset `{dataset.name}`: {_no_alpha(dataset)}")


def kept(holdout_round: int, observations: pl.DataFrame, texts: pl.DataFrame) -> Holdout:
    """The holdout of a corpus, for the record.

    Args:
        holdout_round: of the corpus.
        observations: of the corpus.
        texts: of the corpus.
    """
    held = rows_that_test(observations)
    keys = holdout_keys(held, texts.select("text_id", "text"))
    return Holdout(holdout_round, holdout_fingerprint(keys), held.height, held["cluster_id"].n_unique())


def _admitted(rows: Rows, frame: pl.DataFrame, record: Placed | None, waiting: int = 0, said: str = "") -> Admitted:
    rounds = frame.select("key", "round")
    key = None
    if record is not None:
        parts = [f"{key}{number:04x}" for key, number in rounds.iter_rows()]
        key = hash_json([record.cuts.record, set_fingerprint(parts, "rounds")])[:16]
    made = Rows(frame.drop("key"), rows.dropped, rows.classes, rows.percents)
    return Admitted(made, rounds, record.cuts if record else None, key, waiting, said)


def _not_yet(results: Path, dataset: Dataset, record: Placed, opened: Admitted, new: int) -> str:
    """Why the next round cannot be opened, in a sentence; empty where it can."""
    first, settings = record.latest(1), dataset.spec.inference
    now = int(opened.rounds["round"].max())  # type: ignore[arg-type]
    wait = f"{new:,} new rows wait and are not tested yet"
    if record.cuts.two_halves:
        return (
            f"{wait}: two halves test every row there was, and have no fresh reserve. Make a dataset of its own of the "
            "new rows; for the next dataset that grows, set splits.design to `holdout`."
        )
    if level(settings.alpha, settings.first_report, now, _spent(results, record, now)) <= 0:
        return f"{wait}: {_no_alpha(dataset)}"
    rows, clusters = _enough(dataset, first)
    wanted = f"{rows:,} of them" + (f", of {clusters:,} clusters," if clusters else "")
    wait += (
        f". When {wanted} share nothing with earlier rows they are tested together (splits.reserve sets another number)"
    )
    try:
        held = opened.corpus(dataset).observations.filter(pl.col("split") == "holdout")
    except MethodError as error:
        return f"{wait}. So far: {error}"
    found = held["cluster_id"].n_unique()
    so_far = f"{held.height:,} rows of {found:,} clusters do"
    return "" if held.height >= rows and found >= clusters else f"{wait}; so far {so_far}."


def _enough(dataset: Dataset, first: Holdout | None) -> tuple[int, int]:
    """Rows and clusters that a reserve needs."""
    if dataset.spec.splits.reserve is not None or first is None:
        return dataset.spec.splits.reserve or 1, 0
    sample = dataset.spec.annotation.holdout_sample or first.rows
    share = min(1.0, sample / first.rows)
    return min(first.rows, sample), int(first.clusters * share)


def _spent(results: Path, record: Placed | None, round_: int) -> float:
    """What reports of earlier rounds have spent."""
    register = HoldoutRegister(results)
    rounds: dict[int, float] = {}
    for one in record.holdouts if record else ():
        if one.round < round_:
            rounds[one.round] = max(rounds.get(one.round, 0.0), register.spent(one.fingerprint) or 0.0)
    return sum(rounds.values())


def _no_alpha(dataset: Dataset) -> str:
    return (
        f"earlier reports have spent all of alpha ({dataset.spec.inference.alpha:g}), so a further one could confirm "
        "nothing. Make a dataset of its own of the new rows; for the next dataset that grows, leave something for "
        "refreshes (inference.first_report below 1)."
    )
