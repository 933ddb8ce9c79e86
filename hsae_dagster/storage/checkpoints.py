"""Autoencoders at rest: weights as safetensors, everything else as JSON.

Belongs here: writing and reading one autoencoder's files. Does not belong here: training (`core.sae_training`).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hsae_dagster.keys import hash_bytes, hash_json
from hsae_dagster.storage.frames import read_arrays, write_arrays, write_json

if TYPE_CHECKING:
    from hsae_dagster.core.sae import SparseAutoencoder
    from hsae_dagster.core.sae_training import TrainedSAE


def save_sae(folder: Path, trained: "TrainedSAE", device: str, head: Mapping[str, np.ndarray] | None = None) -> None:
    """Write `<sae_id>.safetensors` and sae.json; the id is a hash of configuration and weights.

    The head that predicted the label while a guided autoencoder was trained lies beside it as
    `<sae_id>.head.safetensors`, for the record: nothing reads it.
    """
    from hsae_dagster.core.sae import state_to_arrays

    arrays = state_to_arrays(trained.sae)
    weights = {name: hash_bytes(array.tobytes()) for name, array in arrays.items()}
    sae_id = hash_json({"config": asdict(trained.config), "weights": weights})
    file = f"{sae_id}.safetensors"
    write_arrays(folder / file, arrays, {"sae_id": sae_id})
    if head is not None:
        write_arrays(folder / f"{sae_id}.head.safetensors", head, {"sae_id": sae_id})
    best = trained.history[trained.best_epoch - trained.history[0].epoch]
    # How long an epoch took is true of one run only; the record must be the same for every run.
    history = [{k: v for k, v in asdict(record).items() if k != "seconds"} for record in trained.history]
    record = {
        "sae_id": sae_id,
        "file": file,
        "head": None if head is None else f"{sae_id}.head.safetensors",
        "config": asdict(trained.config),
        "best_epoch": trained.best_epoch,
        "stop_reason": trained.stop_reason,
        "explained_variance": best.explained_variance,
        "l0": best.l0,
        "dead_share": best.dead_share,
        "history": history,
        "device": device,
    }
    write_json(folder / "sae.json", record)


def load_sae(folder: Path, record: dict[str, Any]) -> "SparseAutoencoder":
    """The autoencoder of one record of sae.json or saes.json, on the CPU."""
    from hsae_dagster.core.sae import SAEConfig, sae_from_arrays

    config = dict(record["config"])
    config["prefixes"] = tuple(config["prefixes"]) if config.get("prefixes") else None
    return sae_from_arrays(SAEConfig(**config), read_arrays(folder / record["file"]))
