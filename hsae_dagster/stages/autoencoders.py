"""Training one autoencoder of a dataset, finding it trained, or taking one that was trained elsewhere."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits
from hsae_dagster.dataset.discovery import Dataset, file_digest
from hsae_dagster.dataset.sections import SAE
from hsae_dagster.dataset.spec import guidance_needs_texts
from hsae_dagster.errors import DatasetError, MethodError, StorageError
from hsae_dagster.keys import hash_bytes, set_fingerprint
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.storage.artifacts import save_sae
from hsae_dagster.storage.objects import StageInputs
from hsae_dagster.storage.outputs import StoredCorpus, StoredEmbeddings, StoredSAE

if TYPE_CHECKING:
    from hsae_dagster.core.sae.model import SparseAutoencoder
    from hsae_dagster.core.sae.training import TrainedSAE

VERSION = "1"


def declaration(dataset: Dataset, sae: SAE) -> dict[str, Any]:
    """What identifies a declared autoencoder: its settings, or the bytes of its checkpoint wherever it is called so.

    Raises:
        DatasetError: the checkpoint lies outside the dataset's folder or is missing.
    """
    settings = sae.model_dump(mode="json", exclude={"checkpoint"})
    if sae.checkpoint is None:
        return settings
    return settings | {"checkpoint": file_digest(dataset.checkpoint_path(sae.checkpoint))}


def import_one(lessons: "Lessons", sae: SAE) -> StoredSAE:
    """Load one checkpoint, check it against the declaration and measure it on this dataset's texts.

    Raises:
        DatasetError: the file cannot be used, or is not what dataset.yaml says.
    """
    stage = lessons.stage
    path = stage.dataset.checkpoint_path(sae.checkpoint or "")
    inputs = StageInputs("sae", f"import {VERSION}", declaration(stage.dataset, sae), lessons.texts_fingerprint)

    def make(folder: Path) -> None:
        train, validation = (lessons.vectors[split] for split in SPLITS)
        loaded = _load(stage.dataset.name, path, sae, train.shape[1])
        imported = _measured(loaded, path.name, train, validation)
        seen = imported.history[0]
        stage.report(
            f"SAE {sae.m}/{sae.k}: imported from {path.name}, explained variance {seen.explained_variance:.3f}"
        )
        save_sae(folder, imported, "none: imported")

    return StoredSAE(stage.project.store.build(inputs, stage.context.run.run_id, make))


def _load(dataset: str, path: Path, declared: SAE, input_dim: int) -> "SparseAutoencoder":
    from hsae_dagster.storage.artifacts import load_legacy_checkpoint

    where = f"Dataset `{dataset}`, `saes.checkpoint`"
    try:
        sae = load_legacy_checkpoint(path, input_dim=input_dim)
    except StorageError as error:
        raise DatasetError(f"{where}: {error}") from error
    for name in ("m", "k", "prefixes", "batch_topk"):
        found, said = getattr(sae.config, name), getattr(declared, name)
        if found != said:
            raise DatasetError(
                f"{where}: {path.name} has {name} = {_shown(found)}, but dataset.yaml says {_shown(said)}. "
                "Declare it as it is in the file, beside the checkpoint."
            )
    return sae


def _measured(sae: "SparseAutoencoder", file: str, train: np.ndarray, validation: np.ndarray) -> "TrainedSAE":
    """The imported model with one record, epoch 0, of what it does at inference.

    Losses are plain normalised squared errors; dead are the neurons that fire on no training text.
    """
    from hsae_dagster.core.sae.model import encode
    from hsae_dagster.core.sae.training import EpochRecord, TrainedSAE

    decoder, bias = (weights.detach().numpy() for weights in (sae.decoder, sae.input_bias))

    def unexplained(codes: sp.csr_matrix, texts: np.ndarray) -> float:
        spread = float(np.square(texts - texts.mean(axis=0)).sum())
        return float(np.square(codes @ decoder + bias - texts).sum()) / spread if spread else 0.0

    on_train = encode(sae, train)
    held_out = validation if len(validation) > 1 else train
    codes = encode(sae, held_out)
    nmse = unexplained(codes, held_out)
    record = EpochRecord(
        epoch=0,
        train_loss=unexplained(on_train, train),
        validation_loss=nmse,
        validation_nmse=nmse,
        explained_variance=1.0 - nmse,
        l0=codes.nnz / len(held_out),
        dead_share=float((on_train.getnnz(axis=0) == 0).mean()),
        seconds=0.0,
    )
    return TrainedSAE(sae, sae.config, (record,), 0, f"imported from {file}, not trained here")


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value).lower()


# Of one trained autoencoder, which several datasets may share; the choice among them has its own.
CODE_VERSION = "5"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Lessons:
    """What the autoencoders of a dataset learn from: units of texts, and of validation texts to tell the end.

    Those of a size that is chosen see no outcome, so they learn from every text but those of validation. Listed ones
    may be guided, and are compared with the reference's: they learn from training texts. `texts` are the keys of those
    that are learned from (`train`) and that tell the end (`validation`), ascending.
    """

    stage: Stage
    corpus: StoredCorpus
    embeddings: StoredEmbeddings
    texts: dict[str, pl.Series]
    observations: dict[str, pl.DataFrame]

    @staticmethod
    def read(stage: Stage, corpus: StoredCorpus, embeddings: StoredEmbeddings, *, every_text: bool) -> "Lessons":
        """Take what may be learned from; outcomes of holdout and fidelity texts are never looked at."""
        observed = {split: corpus.observations.filter(pl.col("split") == split) for split in SPLITS}
        validation = pl.col("split") == "validation"
        learned = ~validation if every_text else pl.col("split") == "train"
        ids = {
            split: corpus.texts.filter(of)["text_id"] for split, of in zip(SPLITS, (learned, validation), strict=True)
        }
        return Lessons(stage, corpus, embeddings, ids, observed)

    @cached_property
    def of_texts(self) -> dict[str, TextUnits]:
        """The units of each split's texts."""
        return {split: self.corpus.places.of_texts(self.texts[split]) for split in SPLITS}

    @cached_property
    def ids(self) -> dict[str, pl.Series]:
        """Keys of the distinct units of each split, ascending; of validation texts, those that training lacks."""
        train, validation = (self.of_texts[split].unit_ids for split in SPLITS)
        return {"train": train, "validation": validation.filter(~validation.is_in(train.implode()))}

    @cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """(units, d) embeddings of each split, rows as `ids`: read once, when first asked for."""
        return {split: self.embeddings.read(self.ids[split]) for split in SPLITS}

    @property
    def task(self) -> str:
        """The dataset's task."""
        return self.stage.dataset.spec.task

    @cached_property
    def texts_fingerprint(self) -> dict[str, str]:
        """What an unguided autoencoder depends on."""
        set_id = self.embeddings.family.set_id
        return {f"{split} texts": set_fingerprint(self.ids[split], set_id) for split in SPLITS}

    @cached_property
    def labels_fingerprint(self) -> dict[str, str]:
        """What a guided one depends on besides: labels, texts they belong to, controls, task."""
        found = {"task": self.task}
        for split, frame in self.observations.items():
            content = frame.drop("obs_id", "split", "cluster_id", strict=False).write_csv()
            found[f"{split} labels"] = hash_bytes(content.encode("utf-8", "surrogatepass"))
        return found


def train_one(lessons: Lessons, sae: SAE, *, quiet: bool = False) -> StoredSAE:
    """Train one autoencoder, or find it: a dataset with the same texts and settings may have trained it already."""
    stage, n_train, kind = lessons.stage, len(lessons.ids["train"]), lessons.corpus.unit_kind
    if n_train < sae.m:
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: an autoencoder of m = {sae.m} neurons cannot be trained on {n_train} "
            f"training {kind}s. Lower `saes.m` to a tenth of them or less, or bring more texts."
        )
    if sae.label_weight > 0 and kind != "text":
        raise MethodError(f"Dataset `{stage.dataset.name}`: {guidance_needs_texts(kind)}.")
    inputs = inputs_of(lessons, sae, trained_on(lessons, sae) or choose_device())
    return StoredSAE(
        stage.project.store.build(inputs, stage.context.run.run_id, lambda folder: _train(lessons, sae, folder, quiet))
    )


def devices() -> tuple[str, ...]:
    """Devices whose results this process takes: its own; without a GPU also those of workers that have one.

    The steps that list and gather may run where there is no GPU, and take what a worker has trained.
    """
    own = choose_device()
    return ("cpu", "cuda", "mps") if own == "cpu" else (own,)


def trained_on(lessons: Lessons, sae: SAE) -> str | None:
    """The device on which it has been trained; None where it is still to be trained."""
    finished = lessons.stage.project.store.finished
    return next((device for device in devices() if finished(inputs_of(lessons, sae, device))), None)


def inputs_of(lessons: Lessons, sae: SAE, device: str) -> StageInputs:
    """What one trained autoencoder is a function of; of a CPU, the usual device, the key says nothing."""
    upstream = dict(lessons.texts_fingerprint) | ({} if device == "cpu" else {"device": device})
    if sae.label_weight > 0:
        upstream |= lessons.labels_fingerprint
    return StageInputs("sae", CODE_VERSION, declaration(lessons.stage.dataset, sae), upstream)


def _train(lessons: Lessons, sae: SAE, folder: Path, quiet: bool) -> None:
    from hsae_dagster.core.sae.config import SAEConfig
    from hsae_dagster.core.sae.training import train_sae

    config = SAEConfig(**sae.model_dump(exclude={"checkpoint"}))
    stage, device, name = lessons.stage, choose_device(), describe(sae)
    train, validation = (lessons.vectors[split] for split in SPLITS)
    held_out = validation if len(validation) > 1 else None
    report: Callable[[str], None] = (lambda _: None) if quiet else stage.report
    report(f"{name}: training on {len(train):,} {lessons.corpus.unit_kind}s, device {device}")

    def tell(record: Any) -> None:
        if record.epoch % 20 == 0:
            report(f"{name}: epoch {record.epoch}, explained variance {record.explained_variance:.3f}")

    extra, head = None, None
    if sae.label_weight > 0:
        from hsae_dagster.core.sae.guidance import guidance, labelled_rows, side_by_side

        pairs = [(lessons.texts[split], lessons.observations[split]) for split in SPLITS]
        learned, judged = labelled_rows(lessons.task, pairs[0], pairs[1])
        order, judged = side_by_side(judged)
        held_out = None if held_out is None else held_out[order]
        extra, head = guidance(config, lessons.task, learned, None if held_out is None else judged, device)
    trained = train_sae(train, held_out, config, device=device, on_epoch=tell, extra_loss=extra)
    report(f"{name}: best epoch {trained.best_epoch}; {trained.stop_reason}")
    save_sae(folder, trained, device, head.arrays() if head else None)


def describe(sae: SAE) -> str:
    """An autoencoder in a few words."""
    return f"SAE {sae.m}/{sae.k}" + (f", label weight {sae.label_weight:g}" if sae.label_weight else "")


def choose_device() -> str:
    """cuda, mps or cpu: chosen when the step runs, where it runs."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
