"""Autoencoders trained elsewhere: a checkpoint of HypotheSAEs in the dataset's folder, taken as it is.

Belongs here: the part of `sae_checkpoints` that loads instead of training, and what identifies a declared autoencoder.
Does not belong here: reading such a file safely (`storage.legacy_checkpoint`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.stage import Stage
from hsae_dagster.dataset.discovery import Dataset, file_digest
from hsae_dagster.dataset.saes import SAE
from hsae_dagster.errors import DatasetError, StorageError
from hsae_dagster.keys import set_fingerprint
from hsae_dagster.storage.checkpoints import save_sae
from hsae_dagster.storage.objects import StageInputs, StoredObject

if TYPE_CHECKING:
    from hsae_dagster.core.sae import SparseAutoencoder
    from hsae_dagster.core.sae_training import TrainedSAE

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


def import_one(
    stage: Stage,
    sae: SAE,
    vectors_record: StoredObject,
    split_ids: dict[str, pl.Series],
    train: np.ndarray,
    validation: np.ndarray,
) -> StoredObject:
    """Load one checkpoint, check it against the declaration and measure it on this dataset's texts.

    Raises:
        DatasetError: the file cannot be used, or is not what dataset.yaml says.
    """
    path = stage.dataset.checkpoint_path(sae.checkpoint or "")
    family = vectors_record.json("embeddings.json")["set_id"]
    upstream = {f"{split} texts": set_fingerprint(ids, family) for split, ids in split_ids.items()}
    inputs = StageInputs("sae", f"import {VERSION}", declaration(stage.dataset, sae), upstream)

    def make(folder: Path) -> None:
        loaded = _load(stage.dataset.name, path, sae, train.shape[1])
        imported = _measured(loaded, path.name, train, validation)
        seen = imported.history[0]
        stage.report(
            f"SAE {sae.m}/{sae.k}: imported from {path.name}, explained variance {seen.explained_variance:.3f}"
        )
        save_sae(folder, imported, "none: imported")

    return stage.project.store.build(inputs, stage.context.run.run_id, make)


def _load(dataset: str, path: Path, declared: SAE, input_dim: int) -> "SparseAutoencoder":
    from hsae_dagster.storage.legacy_checkpoint import load_legacy_checkpoint

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
    from hsae_dagster.core.codes import encode
    from hsae_dagster.core.sae_training import EpochRecord, TrainedSAE

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
