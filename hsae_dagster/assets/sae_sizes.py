"""Which autoencoders a dataset gets: those it lists, the reference's rule of thumb, or the best of a measured grid.

Belongs here: training every candidate of the grid on one read of the embeddings, judging it, the record of the choice.
Does not belong here: the grid and the figures (`core.sae_grid`), the rule (`core.sae_choice`),
training one (`assets.autoencoders`). Holdout and fidelity texts are never read.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.autoencoders import Lessons, describe, train_one
from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.core.pooling import pool_codes
from hsae_dagster.core.sae_choice import ENOUGH_OBSERVATIONS, Caps, Choice, Trial, choose, contenders, kept_apart
from hsae_dagster.core.sae_grid import (
    Judged,
    Labels,
    Size,
    WordReader,
    balanced_f1,
    batch_size,
    fit_of,
    fit_within,
    grid,
    head_neurons,
    redundancy,
    reference_size,
)
from hsae_dagster.dataset.saes import SAE, Auto
from hsae_dagster.errors import MethodError
from hsae_dagster.storage.checkpoints import load_sae
from hsae_dagster.storage.frames import write_frame, write_json
from hsae_dagster.storage.objects import StoredObject

# Quickstart settings of hypothesaes 2.0.1.
_REFERENCE = {"learning_rate": 5e-4, "max_epochs": 100, "patience": 3}
# What is tried where units are parts of texts: sparse, unguided, with so many training units for each neuron at least.
_UNIT_SIZES, _UNITS_PER_NEURON = ((64, 4), (128, 4), (256, 8)), 5
# Texts whose words are read at most; the stand-in for lexicons needs no more.
_MOST_TEXTS = 20_000


def reference_sae(n_texts: int) -> SAE:
    """The autoencoder that HypotheSAEs' rule of thumb names for so many texts, trained as its quickstart does."""
    size = reference_size(n_texts)
    return SAE(m=size.m, k=size.k, **_REFERENCE)


def choose_sae(lessons: Lessons, texts: pl.DataFrame, auto: Auto, folder: Path) -> StoredObject:
    """Train the grid, write grid.parquet and choice.json, and return the chosen autoencoder."""
    stage, sizes = lessons.stage, _sizes(lessons, auto)
    judge, batch = _Judge(lessons, texts), batch_size(len(lessons.ids["train"]))
    if not judge.possible:
        stage.report("no labelled validation texts to choose a size by; the smallest of the grid is taken")
        return train_one(lessons, _declared(sizes[0], auto, batch))
    caps = Caps(auto.reconstruction, auto.redundancy, auto.dead_share)
    with one_thread():
        trained, judged = _measure([_declared(size, auto, batch) for size in sizes], judge)
        if again := kept_apart(judged, caps, auto.head_share):
            stage.report(f"{len(again)} guided ones with neurons too alike are trained again with neurons kept apart")
            more = _measure([_declared(size, auto, batch) for size in again], judge)
            trained, judged = trained + more[0], judged + more[1]
        trials = [Trial(dict(enumerate(judged)), judge.labels)]
        trials += _elsewhere(trials, lessons, caps, lambda size: _declared(size, auto, batch), auto.parts)
    choice = choose(trials, caps)
    stage.report(f"{describe(_declared(judged[choice.chosen].size, auto, batch))} is taken: {choice.reason}")
    ids = [part.json("sae.json")["sae_id"] for part in trained]
    write_frame(folder / "grid.parquet", _grid_frame(judged, choice, ids))
    said = {"metric": judge.metric, "reason": choice.reason, "caps": asdict(caps), "head_share": auto.head_share}
    write_json(folder / "choice.json", said)
    return trained[choice.chosen]


def _sizes(lessons: Lessons, auto: Auto) -> list[Size]:
    """What is tried. A unit that is part of a text has no label of its own, so there nothing is guided."""
    n, n_select = len(lessons.ids["train"]), lessons.stage.dataset.spec.selection.n
    if lessons.kind == "text":
        return grid(n, n_select, auto.label_weights if auto.guided else ())
    return [Size(m, k) for m, k in _UNIT_SIZES if m * _UNITS_PER_NEURON <= n] or grid(n, n_select, ())


def _elsewhere(
    trials: list[Trial], lessons: Lessons, caps: Caps, declare: Callable[[Size], SAE], parts: int
) -> list[Trial]:
    """Trials of close candidates on other clusters: until one is left, or observations or parts are enough."""
    found: list[Trial] = []
    for part in range(1, parts):
        if sum(len(trial.labels.validation) for trial in (*trials, *found)) >= ENOUGH_OBSERVATIONS:
            break
        close, other = contenders([*trials, *found], caps), lessons.on_other_clusters(part)
        if len(close) < 2 or other is None:
            break
        judge = _Judge(other)
        if not judge.possible:
            continue
        lessons.stage.report(
            f"{len(close)} that are close are compared on other clusters, part {part + 1} of at most {parts}"
        )
        _, judged = _measure([declare(trials[0].judged[place].size) for place in close], judge)
        found.append(Trial(dict(zip(close, judged, strict=True)), judge.labels))
    return found


def _measure(saes: list[SAE], judge: "_Judge") -> tuple[list[StoredObject], list[Judged]]:
    """Train and judge every candidate, telling how far that is."""
    trained, judged = [], []
    started = time.monotonic()
    for number, sae in enumerate(saes, start=1):
        trained.append(train_one(judge.lessons, sae, quiet=True))
        judged.append(judge.judge(Size(sae.m, sae.k, sae.label_weight, sae.distinct_weight), trained[-1]))
        left = (time.monotonic() - started) / number * (len(saes) - number)
        judge.lessons.stage.report(
            f"{number} of {len(saes)}: {describe(sae)}: {judge.metric} {judged[-1].signal:.3f}, fired or not "
            f"{judged[-1].fired:.3f}, correlation {judged[-1].redundancy:.2f}; {left:,.0f} s left"
        )
    return trained, judged


@contextmanager
def one_thread() -> Iterator[None]:
    """Batches of small autoencoders gain nothing from several threads, and wait for each other on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _declared(size: Size, auto: Auto, batch: int) -> SAE:
    training: dict[str, Any] = {
        "learning_rate": auto.learning_rate,
        "max_epochs": auto.max_epochs,
        "batch_size": batch,
        "seed": auto.seed,
    }
    if size.label_weight > 0:
        few = {"head_neurons": head_neurons(size.m, auto.head_share)} if auto.head_share < 1 else {}
        training |= {"input_noise": auto.input_noise, "distinct_weight": size.distinct_weight, **few}
    return SAE(m=size.m, k=size.k, label_weight=size.label_weight, **training)


@dataclass(frozen=True)
class _Judge:
    """What candidates are judged by: labels of training and validation texts, and their words where texts are given."""

    lessons: Lessons
    texts: pl.DataFrame | None = None

    @property
    def possible(self) -> bool:
        """Whether there is anything to judge by."""
        train, validation = (frame["label"] for frame in self.lessons.observations.values())
        return validation.n_unique() > 1 and train.n_unique() > 1

    @property
    def metric(self) -> str:
        """Name of the fit."""
        return "R2" if self.lessons.task == "regression" else "AUC"

    @cached_property
    def labels(self) -> Labels:
        """Labels and clusters of both splits."""
        train, validation = self.lessons.observations.values()
        columns = [frame[name].to_numpy() for frame in (train, validation) for name in ("label", "cluster_id")]
        return Labels(self.lessons.task, *columns)

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """(units, d) vectors of all units of each split's texts; validation texts have units that training has, too."""
        train, validation = self.lessons.vectors.values()
        everything = self.lessons.of_texts["validation"].unit_ids
        if len(everything) > len(validation):
            validation = self.lessons.table.read(everything)
        return {"train": train, "validation": validation}

    @cached_property
    def read_rows(self) -> np.ndarray:
        """Training texts whose words are read: all, or a seeded sample."""
        n = len(self.lessons.texts["train"])
        if n <= _MOST_TEXTS:
            return np.arange(n)
        return np.sort(np.random.default_rng(0).choice(n, _MOST_TEXTS, replace=False))

    @cached_property
    def words(self) -> WordReader | None:
        """What words say; None without texts, or where no word is shared by several clusters."""
        if self.texts is None:
            return None
        return None

    def judge(self, size: Size, stored: StoredObject) -> Judged:
        """The figures of one candidate; without a score where it has too few neurons to select from."""
        from hsae_dagster.core.codes import encode

        record = stored.json("sae.json")
        sae = load_sae(stored.folder, record)
        pool = self.lessons.stage.dataset.spec.pool
        codes = {
            split: pool_codes(encode(sae, vectors), self.lessons.of_texts[split], pool).codes
            for split, vectors in self.vectors.items()
        }
        nmse, dead = 1 - record["explained_variance"], record["dead_share"]
        try:
            chosen = self._selected(codes["train"], sae.decoder.detach().numpy())
        except MethodError:
            nothing = np.zeros((2, len(self.labels.validation)))
            return Judged(size, np.nan, np.nan, np.nan, np.nan, np.nan, nmse, dead, nothing)
        train, validation = (codes[split][:, chosen].toarray().astype(np.float64) for split in codes)
        fires, unseen = train > 0, validation > 0
        signal, by_strength = fit_of(
            self._observed(train, "train"), self._observed(validation, "validation"), self.labels
        )
        fired, by_firing = fit_of(
            self._observed(fires.astype(float), "train"),
            self._observed(unseen.astype(float), "validation"),
            self.labels,
        )
        fidelity, words = float("nan"), float("nan")
        if self.words is not None:
            said = self.words.read(fires[self.read_rows])
            words = fit_within(self._observed(said.astype(float), "validation"), self.labels)
            f1 = [balanced_f1(said[:, j], unseen[:, j]) for j in range(said.shape[1])]
            fidelity = float(np.median([value for value in f1 if np.isfinite(value)] or [np.nan]))
        predictions = np.stack([by_strength, by_firing])
        return Judged(size, signal, fired, words, fidelity, redundancy(train), nmse, dead, predictions)

    def _selected(self, codes: sp.csr_matrix, directions: np.ndarray) -> list[int]:
        from hsae_dagster.core.distinct import Limits, select_distinct
        from hsae_dagster.core.selection import select_neurons

        selection = self.lessons.stage.dataset.spec.selection
        observed, labels = self._observed(codes, "train"), self.labels.train
        task = "regression" if self.lessons.task == "regression" else "classification"
        if selection.distinct is None:
            return select_neurons(observed, labels, selection.n, method=selection.method, task=task).columns
        return select_distinct(
            observed,
            labels,
            selection.n,
            activations=codes,
            directions=directions,
            limits=Limits(**selection.distinct.model_dump()),
            method=selection.method,
            task=task,
        ).selection.columns

    def _observed(self, per_text: Any, split: str) -> Any:
        return observation_matrix(per_text, self.lessons.texts[split], self.lessons.observations[split])


def _grid_frame(judged: list[Judged], choice: Choice, ids: list[str]) -> pl.DataFrame:
    columns = ("signal", "fired", "words", "fidelity", "redundancy", "nmse", "dead_share")
    rows = []
    for place, candidate in enumerate(judged):
        figures = {name: float(getattr(candidate, name)) for name in columns}
        rows.append(
            {
                **asdict(candidate.size),
                **figures,
                "score": float(choice.scores[place]),
                "parts": int(choice.parts[place]),
                "standard_error": float(choice.standard_errors[place]),
                "within_caps": bool(choice.within_caps[place]),
                "chosen": place == choice.chosen,
                "sae_id": ids[place],
            }
        )
    return pl.DataFrame(rows)
