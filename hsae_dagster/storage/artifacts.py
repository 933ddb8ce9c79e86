"""Tables, sparse codes and weights as files; autoencoders at rest, ours and those that HypotheSAEs saved."""

import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.errors import MethodError, StorageError
from hsae_dagster.keys import hash_bytes, hash_json

if TYPE_CHECKING:
    import torch

    from hsae_dagster.core.sae.model import SAEConfig, SparseAutoencoder
    from hsae_dagster.core.sae.training import TrainedSAE


def write_json(path: Path, value: Any) -> None:
    """JSON in the order given (columns of tables keep theirs); NaN and infinity become null."""
    path.write_text(json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def same_file(there: Path, also: Path) -> None:
    """The same content under a second name: a link, or a copy where a file system has none."""
    try:
        os.link(there, also)
    except OSError:
        shutil.copyfile(there, also)


def write_frame(path: Path, frame: pl.DataFrame) -> None:
    """Parquet; equal frames give equal bytes."""
    # To the file from here: on a full disk the libraries raise what is no OSError.
    packed = io.BytesIO()
    frame.write_parquet(packed, compression="zstd", statistics=False)
    path.write_bytes(packed.getbuffer())


def read_frame(path: Path) -> pl.DataFrame:
    """The frame of a Parquet file."""
    return pl.read_parquet(path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Named arrays as safetensors."""
    from safetensors.numpy import save

    path.write_bytes(save({name: np.ascontiguousarray(a) for name, a in sorted(arrays.items())}, dict(metadata or {})))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Named arrays of a safetensors file."""
    from safetensors.numpy import load_file

    return load_file(path)


def write_codes(path: Path, codes: sp.csr_matrix) -> None:
    """Sparse codes (texts, neurons) float32 as safetensors."""
    arrays = {
        "data": codes.data.astype(np.float32),
        "indices": codes.indices.astype(np.int32),
        "indptr": codes.indptr.astype(np.int64),
        "shape": np.array(codes.shape, dtype=np.int64),
    }
    write_arrays(path, arrays)


def read_codes(path: Path) -> sp.csr_matrix:
    """Sparse codes as written by `write_codes`."""
    arrays = read_arrays(path)
    parts = (arrays["data"], arrays["indices"], arrays["indptr"])
    return sp.csr_matrix(parts, shape=tuple(arrays["shape"].tolist()))


def finite(value: Any) -> Any:
    """The value as JSON can hold it: plain numbers, and null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def save_sae(folder: Path, trained: "TrainedSAE", device: str, head: Mapping[str, np.ndarray] | None = None) -> None:
    """Write `<sae_id>.safetensors` and sae.json; the id is a hash of configuration and weights.

    The head that predicted the label while a guided autoencoder was trained lies beside it as
    `<sae_id>.head.safetensors`, for the record: nothing reads it.
    """
    from hsae_dagster.core.sae.model import state_to_arrays

    arrays = state_to_arrays(trained.sae)
    weights = {name: hash_bytes(array.tobytes()) for name, array in arrays.items()}
    sae_id = hash_json({"config": trained.config.model_dump(mode="json"), "weights": weights})
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
        "config": trained.config.model_dump(mode="json"),
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
    from hsae_dagster.core.sae.model import SAEConfig, sae_from_arrays

    return sae_from_arrays(SAEConfig(**record["config"]), read_arrays(folder / record["file"]))


# The reference's tensors by our names; its decoder has a column per neuron, ours a row.
_WEIGHTS = {
    "encoder": "encoder.weight",
    "decoder": "decoder.weight",
    "input_bias": "input_bias",
    "neuron_bias": "neuron_bias",
}
# Bookkeeping of its training, of no use afterwards; older versions may have saved it.
_IGNORED = {"steps_since_activation"}


def load_legacy_checkpoint(path: Path, *, input_dim: int | None = None) -> "SparseAutoencoder":
    """The autoencoder of a checkpoint (.pt) of hypothesaes, any version up to 2.0.1, on the CPU in float32.

    Its file says nothing of how it was trained, so the configuration's learning rate, seed and the like are our
    defaults. Files from before version 1.0 lack the threshold that only batch top-k needs; they load all the same.

    Raises:
        StorageError: no such file, not a checkpoint of this kind, unsafe or inconsistent content, or made for
            embeddings of another dimension than `input_dim`.
    """
    content = _content(path)
    try:
        return _autoencoder(content, path.name, input_dim)
    except MethodError as error:
        raise StorageError(f"{path.name}: {error} Use one that hypothesaes saved, whole and unchanged.") from error


def _content(path: Path) -> Any:
    import torch

    if not path.is_file():
        raise StorageError(f"There is no checkpoint {path}; check the path.")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # A file of unknown origin may make the reader raise anything at all.
        raise StorageError(
            f"{path.name} cannot be read as weights only ({type(error).__name__}). It is damaged, not a PyTorch "
            "checkpoint, or holds objects that could run code; nothing in it was run. Use one that hypothesaes saved."
        ) from error


def _autoencoder(content: Any, name: str, input_dim: int | None) -> "SparseAutoencoder":
    import torch

    from hsae_dagster.core.sae.model import sae_from_arrays

    config, state = (content.get(key) if isinstance(content, dict) else None for key in ("config", "state_dict"))
    if not isinstance(config, Mapping) or not isinstance(state, Mapping):
        raise MethodError("it has no `config` and `state_dict`, so hypothesaes did not save it.")
    foreign = sorted(str(key) for key in state if key not in {*_WEIGHTS.values(), "threshold", *_IGNORED})
    if foreign:
        raise MethodError(f"it holds weights of another kind of model: {', '.join(foreign[:5])}.")
    dimension = _integer(config, "input_dim")
    if input_dim is not None and dimension != input_dim:
        raise StorageError(
            f"{name} was trained on {dimension} dimensions, but the embeddings have {input_dim}; use the "
            "embedding model that it was trained with."
        )
    settings = _settings(config)
    if settings.batch_topk and "threshold" not in state:
        raise MethodError("it uses batch top-k but holds no threshold, so its activations are undefined.")
    shapes: dict[str, tuple[int, ...]] = {"encoder": (settings.m, dimension), "decoder": (dimension, settings.m)}
    shapes |= {"input_bias": (dimension,), "neuron_bias": (settings.m,)}
    arrays = {ours: _tensor(state, theirs, shapes[ours]).numpy() for ours, theirs in _WEIGHTS.items()}
    arrays["decoder"] = arrays["decoder"].T
    arrays["threshold"] = _tensor({"threshold": torch.tensor(0.0), **state}, "threshold", ()).reshape(1).numpy()
    return sae_from_arrays(settings, arrays)


def _settings(config: Mapping[str, Any]) -> "SAEConfig":
    from hsae_dagster.core.sae.model import SAEConfig

    prefixes = config.get("prefix_lengths")
    if prefixes is not None and not (isinstance(prefixes, list | tuple) and all(type(end) is int for end in prefixes)):
        raise MethodError(f"prefix_lengths is {_shown(prefixes)}, not a list of whole numbers.")
    batch_topk = config.get("use_batch_topk", False)
    if not isinstance(batch_topk, bool):
        raise MethodError(f"use_batch_topk is {_shown(batch_topk)}, not true or false.")
    aux_k, multi_k = (None if config.get(name) is None else _integer(config, name) for name in ("aux_k", "multi_k"))
    return SAEConfig(
        m=_integer(config, "m_total_neurons"),
        k=_integer(config, "k_active_neurons"),
        prefixes=tuple(prefixes) if prefixes else None,
        batch_topk=batch_topk,
        dead_after_steps=_integer({"dead_neuron_threshold_steps": 256, **config}, "dead_neuron_threshold_steps"),
        aux_k=aux_k,
        multi_k=multi_k,
    )


def _tensor(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> "torch.Tensor":
    import torch

    if name not in state:
        raise MethodError(f"it lacks the weights `{name}`.")
    tensor = state[name]
    plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and tensor.is_floating_point()
    if not plain or tuple(tensor.shape) != shape:
        found = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise MethodError(
            f"`{name}` must be floating-point weights of shape {shape} by its own configuration, and is {found}."
        )
    # A view that repeats a few stored numbers could claim any size at no cost to the file.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise MethodError(f"`{name}` claims more numbers than the file holds.")
    return tensor.detach().to(torch.float32)


def _integer(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MethodError(f"{name} is {_shown(value)}, not a whole number above 0.")
    return value


def _shown(value: Any) -> str:
    return "missing" if value is None else repr(value)[:40]
