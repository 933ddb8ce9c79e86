"""Which autoencoders a dataset gets: those it lists, the rule of thumb, or the best of a measured grid."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import Pool, Units, text_pools
from hsae_dagster.core.concepts.choice import Chooser, Learned, Limits, Vocabulary, fit, predicted
from hsae_dagster.core.observations import pool_codes, sample_clusters, text_keys
from hsae_dagster.core.sae.sizes import (
    ENOUGH_OBSERVATIONS,
    Candidate,
    Size,
    batch_size,
    choose,
    compare,
    grid,
    passes,
    reference_size,
)
from hsae_dagster.core.selection.stability import FOUND, Side, found_again
from hsae_dagster.dataset.sections import SAE, Auto, AutoSizes
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.providers.minilm import one_thread
from hsae_dagster.report.content import SizeChoice
from hsae_dagster.report.wording import plural
from hsae_dagster.stages import claims
from hsae_dagster.stages.autoencoders import SPLITS, Lessons, choose_device, describe, inputs_of, train_one, trained_on
from hsae_dagster.storage.outputs import StoredCheckpoints, StoredSAE


def read_choice(checkpoints: StoredCheckpoints) -> SizeChoice | None:
    """The measured choice behind the autoencoders; None where they were declared or nothing was measured."""
    grid = checkpoints.grid
    if grid is None:
        return None
    # Of two halves both were offered the same sizes; the reason says what each took.
    grid = grid.filter(pl.col("half") == grid["half"][0])
    if grid["said"].is_null().all():
        return None
    taken = grid.filter(pl.col("chosen")).row(0, named=True)
    return SizeChoice(tuple(grid.select("m", "k").iter_rows()), taken["m"], taken["k"], checkpoints.choice["reason"])


# Quickstart settings of hypothesaes 2.0.1.
_REFERENCE = {"learning_rate": 5e-4, "max_epochs": 100, "patience": 3}
# Observations that claims are chosen on to judge a size, at most: which size says most shows in fewer than are tested.
_MOST_OBSERVATIONS = 10_000
# What a claim must be worth, in squared t statistics: the middle one of those that the claims of a dataset try.
_PRICE = 2.0


def reference_sae(n_texts: int) -> SAE:
    """The autoencoder that HypotheSAEs' rule of thumb names for so many texts, trained as its quickstart does."""
    size = reference_size(n_texts)
    return SAE(m=size.m, k=size.k, **_REFERENCE)


def choose_saes(lessons: Lessons, auto: Auto) -> tuple[dict[str, StoredSAE], dict[str, Any]]:
    """Race the grid, train what is taken to the end; of halves, each takes its own.

    Returns:
        What is taken, by the half whose outcomes chose it (empty without halves); `grid` and `choice` for the record.
    """
    taken, grids, reasons = {}, [], []
    for side in lessons.corpus.sides:
        observed = {split: side.observations.filter(pl.col("split") == split) for split in SPLITS}
        rows, reason, taken[side.half] = _choose(replace(lessons, observations=observed), side, auto)
        grids.append(pl.DataFrame(rows, schema=_COLUMNS).with_columns(pl.lit(side.half).alias("half")))
        reasons.append(f"half {side.half.upper()}: {reason}" if side.half else reason)
    metric = "R2" if lessons.task == "regression" else "AUC"
    return taken, {"grid": pl.concat(grids), "choice": {"metric": metric, "reason": "; ".join(reasons)}}


def _choose(lessons: Lessons, side: Side, auto: Auto) -> tuple[list[dict[str, Any]], str, StoredSAE]:
    """A row of the record for each size, why one was taken, and that one."""
    stage, n_units = lessons.stage, len(lessons.ids["train"])
    sizes = grid(n_units, stage.dataset.spec.selection.n)
    nobody = _why_nobody_can_judge(lessons, sizes)
    with one_thread():
        rows, place, reason = [_row(size) for size in sizes], 0, nobody or ""
        if not nobody:
            rows, place, reason = _raced(sizes, auto, _Judge.of(lessons, side))
        rows[place]["chosen"] = True
        taken = _declared(sizes[place], auto, n_units, auto.max_epochs, auto.seed)
        stage.report(f"{describe(taken)} is taken: {reason}")
        trained = train_one(lessons, taken)
    return rows, reason, trained


_COLUMNS = {
    "m": pl.Int64,
    "k": pl.Int64,
    "said": pl.Float64,
    "standard_error": pl.Float64,
    "claims": pl.Int64,
    "agreement": pl.Float64,
    "chosen": pl.Boolean,
}


def _row(size: Size, *measured: float | int | None) -> dict[str, Any]:
    """Of `_COLUMNS`; what was measured is said, its standard error, claims and agreement, or nothing."""
    return dict(zip(_COLUMNS, (size.m, size.k, *(measured or [None] * 4), False), strict=True))


def _why_nobody_can_judge(lessons: Lessons, sizes: list[Size]) -> str | None:
    train, validation = (frame["label"] for frame in lessons.observations.values())
    if len(sizes) == 1:
        return f"the only size that {len(lessons.ids['train']):,} distinct training units allow"
    if train.n_unique() < 2 or validation.n_unique() < 2:
        return "the smallest; there are no labels of training and validation texts that differ, to choose by"
    if len(validation) < ENOUGH_OBSERVATIONS:
        return (
            f"the smallest; {len(validation)} validation observations are too few to choose by "
            f"({ENOUGH_OBSERVATIONS} are enough)"
        )
    return None


def _declared(size: Size, auto: Auto, n_units: int, epochs: int, seed: int) -> SAE:
    return SAE(
        m=size.m,
        k=size.k,
        learning_rate=auto.learning_rate,
        batch_size=batch_size(n_units),
        max_epochs=passes(epochs, n_units),
        patience=auto.patience,
        seed=seed,
        start="centroids",
    )


def _raced(sizes: list[Size], auto: Auto, judge: "_Judge") -> tuple[list[dict[str, Any]], int, str]:
    """Candidates trained for a few epochs: a row of the record for each size, the place of the one taken, and why."""
    lessons, report = judge.lessons, judge.lessons.stage.report

    def race(size: Size, further: int = 0) -> _Coded:
        sae = _declared(size, auto, len(lessons.ids["train"]), auto.race_epochs, auto.seed + further)
        return judge.coded(train_one(lessons, sae, quiet=True))

    coded, candidates = [], []
    for size in sizes:
        coded.append(race(size))
        candidates.append(judge.judged(size, coded[-1]))
        judged = candidates[-1]
        said = fit(lessons.task, judged.outcome, judged.predicted)
        report(f"raced {size.m}/{size.k}: {plural(judged.claims, 'claim')} reach {said:.3f} on validation clusters")
    standing = compare(candidates, judge.unseen.clusters, lessons.task)
    agreement: dict[int, float] = {}
    for near in standing.near if len(standing.near) > 1 else ():
        agreement[near] = judge.agreement(coded[near], race(sizes[near], 1))
        report(f"raced {sizes[near].m}/{sizes[near].k} again: {agreement[near]:.0%} of its neurons are found again")
    place, reason = choose(standing, agreement)
    rows = [
        _row(each.size, float(said), float(error), each.claims, agreement.get(j))
        for j, (each, said, error) in enumerate(zip(candidates, standing.said, standing.standard_errors, strict=True))
    ]
    return rows, place, reason


@dataclass(frozen=True)
class _Coded:
    """What a candidate does: codes (units, m) CSC, and where neurons fire (texts, m), float32 CSC of ones."""

    units: sp.csc_matrix
    fires: sp.csc_matrix


@dataclass(frozen=True)
class _Judge:
    """What candidates are judged by, the same for all of them: labelled observations of training and validation.

    `learned` are these as the choice of claims reads them, `ready` candidates of texts alone, by their source. The
    outcome of validation observations had no part in the vocabulary.
    """

    lessons: Lessons
    observations: pl.DataFrame
    learned: Learned
    units: Units
    ready: dict[str, Pool]
    vocabulary: Vocabulary
    limits: Limits

    @staticmethod
    def of(lessons: Lessons, side: Side) -> "_Judge":
        """Read what is needed, or a sample of its clusters."""
        stage = lessons.stage
        spec = stage.dataset.spec
        seed = spec.interpretation.seed
        observations = pl.concat(
            [sample_clusters(lessons.observations[split], _MOST_OBSERVATIONS, seed) for split in SPLITS]
        )
        texts = side.texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))
        learned = claims.learned_of(texts["text_id"], observations, lessons.task)
        part = learned.rows(np.flatnonzero((observations["split"] == "train").to_numpy()))
        limits = Limits(spec.selection.n, claims.least_texts(spec, side, texts.height))
        units = claims.units_of(stage, lessons.corpus, texts["text_id"])
        return _Judge(
            lessons,
            observations,
            learned,
            units,
            text_pools(spec.interpretation.sources, texts["text"].to_list()),
            claims.vocabulary_of(stage, texts, observations, part, units),
            limits.share(len(part.outcome) / len(learned.outcome)),
        )

    @cached_property
    def part(self) -> Learned:
        """Training observations."""
        return self.learned.rows(np.flatnonzero((self.observations["split"] == "train").to_numpy()))

    @cached_property
    def unseen(self) -> Learned:
        """Validation observations."""
        return self.learned.rows(np.flatnonzero((self.observations["split"] != "train").to_numpy()))

    def coded(self, trained: StoredSAE) -> _Coded:
        """What a trained candidate does on the units and texts."""
        from hsae_dagster.core.sae.model import encode

        codes = encode(trained.sae, self.units.vectors)
        per_text = pool_codes(codes, self.units.places, self.lessons.stage.dataset.spec.pool).codes
        return _Coded(codes.tocsc(), sp.csc_matrix(per_text > 0, dtype=np.float32))

    def judged(self, size: Size, coded: _Coded) -> Candidate:
        """What can be said with a candidate: claims chosen on training clusters, read on validation clusters."""
        neurons = claims.strongest(self.part, coded.fires)[: claims.NEURONS_PER_CLAIM * self.limits.n]
        units = replace(self.units, codes=coded.units)
        spec = self.lessons.stage.dataset.spec
        pool = claims.pool_of(spec, self.ready, neurons, coded.fires, self.vocabulary, units)
        picks = Chooser(self.part, pool.columns, self.vocabulary, self.limits).choose(_PRICE)
        return Candidate(size, len(picks), *predicted(self.part, self.unseen, picks))

    def agreement(self, first: _Coded, second: _Coded) -> float:
        """Share of the neurons that go most with the outcome that another seed finds again, by the texts they fire on.

        0 where no neuron goes with the outcome.
        """
        top = claims.strongest(self.part, first.fires)[: self.limits.n]
        if not top:
            return 0.0
        return float((found_again(first.fires[:, top].tocsr(), second.fires.tocsr()) >= FOUND).mean())


# The step that trains and judges all sizes of the grid: they share one read of the embeddings, and each takes seconds.
GRID = "grid"


@dataclass(frozen=True)
class Training:
    """One autoencoder to be trained, by the key of its step: letters, digits and underscores."""

    key: str
    sae: SAE


def declared(spec: DatasetSpec, n_texts: int) -> list[SAE]:
    """The autoencoders that are named beforehand, imported ones included; none where the size is measured."""
    if isinstance(spec.saes, AutoSizes):
        return []
    return [reference_sae(n_texts)] if isinstance(spec.saes, str) else list(spec.saes)


def twins(spec: DatasetSpec, sae: SAE) -> list[SAE]:
    """The same autoencoder from each further seed that `sae_seeds` asks for."""
    return [sae.model_copy(update={"seed": sae.seed + further}) for further in range(1, spec.sae_seeds)]


def trainings(spec: DatasetSpec, n_texts: int) -> list[Training]:
    """Every autoencoder that is named beforehand and has to be trained, further seeds included."""
    found = []
    for place, sae in enumerate(declared(spec, n_texts), start=1):
        if sae.checkpoint:
            continue
        name = f"sae{place}_m{sae.m}_k{sae.k}"
        found.append(Training(name, sae))
        found += [Training(f"{name}_seed{twin.seed}", twin) for twin in twins(spec, sae)]
    return found


def unfinished(lessons: Lessons) -> list[Training]:
    """Those of which no result is stored, from this dataset or another one; of equal ones the first."""
    left: dict[str, Training] = {}
    for training in trainings(lessons.stage.dataset.spec, lessons.corpus.texts.height):
        if trained_on(lessons, training.sae) is None:
            left.setdefault(inputs_of(lessons, training.sae, choose_device()).key, training)
    return list(left.values())
