"""What the rows work on: synthetic embeddings with an autoencoder that fits them, or a project's own.

Belongs here: making and loading data. Does not belong here: measuring.

Synthetic texts are sums of a few directions of a dictionary whose frequencies fall off as a power law; the
autoencoder's weights are that dictionary, so that codes have K non-zeros a text and are correlated as real ones are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from hsae_dagster.core.sae.model import SAEConfig, SparseAutoencoder, encode, sae_from_arrays

_BLOCK = 8192


@dataclass(frozen=True)
class Made:
    """Embeddings (n, d) float32 of unit length, an outcome (n,) float64, and an autoencoder."""

    embeddings: np.ndarray
    outcome: np.ndarray
    sae: SparseAutoencoder


def synthetic(
    texts: int,
    dimensions: int,
    config: SAEConfig,
    *,
    seed: int = 0,
    skew: float = 0.6,
    dead: float = 0.01,
    predictive: int = 30,
) -> Made:
    """Texts, outcome and autoencoder.

    Args:
        texts: n.
        dimensions: d.
        config: m directions, of which about k make a text.
        seed: of everything.
        skew: exponent of the power law of the directions' frequencies.
        dead: share of neurons that never fire.
        predictive: directions that the outcome depends on.
    """
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((config.m, dimensions), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequency = rng.permutation(np.arange(1, config.m + 1) ** -skew)
    cumulative = np.cumsum(frequency / frequency.sum())
    effects = np.zeros(config.m, np.float32)
    effects[rng.choice(config.m, predictive, replace=False)] = rng.uniform(0.3, 1.0, predictive) * rng.choice(
        [-1, 1], predictive
    )
    embeddings, outcome = np.empty((texts, dimensions), np.float32), np.empty(texts)
    per_text = max(2, config.k // 2)
    for start in range(0, texts, _BLOCK):
        rows = min(_BLOCK, texts - start)
        chosen = np.searchsorted(cumulative, rng.random((rows, per_text)), side="right").clip(max=config.m - 1)
        weights = rng.gamma(3.0, 1 / 3, chosen.shape).astype(np.float32)
        index = np.arange(0, rows * per_text + 1, per_text)
        mixed = sparse.csr_matrix((weights.ravel(), chosen.ravel(), index), shape=(rows, config.m))
        block = mixed @ directions + 0.02 * rng.standard_normal((rows, dimensions), dtype=np.float32)
        embeddings[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
        outcome[start : start + rows] = mixed @ effects + 1.5 * rng.standard_normal(rows)
    silent = rng.choice(config.m, round(dead * config.m), replace=False)
    neuron_bias = np.zeros(config.m, np.float32)
    neuron_bias[silent] = -10.0
    arrays = {
        "encoder": directions,
        "decoder": directions,
        "input_bias": np.zeros(dimensions, np.float32),
        "neuron_bias": neuron_bias,
    }
    return Made(embeddings, outcome, sae_from_arrays(config, arrays))


def classes(outcome: np.ndarray) -> np.ndarray:
    """1.0 where the outcome is above its median, else 0.0."""
    return (outcome > np.median(outcome)).astype(np.float64)


def save_codes(folder: Path, name: str, made: Made) -> Path:
    """Codes and outcome of the texts, in one .npz that children read."""
    codes = encode(made.sae, made.embeddings)
    path = folder / f"{name}.npz"
    np.savez(path, data=codes.data, indices=codes.indices, indptr=codes.indptr, shape=codes.shape, outcome=made.outcome)
    return path


def load_codes(path: str | Path) -> tuple[sparse.csr_matrix, np.ndarray]:
    """What `save_codes` wrote: (n, m) float32 CSR and (n,) outcome."""
    with np.load(path) as held:
        parts = held["data"], held["indices"], held["indptr"]
        return sparse.csr_matrix(parts, shape=tuple(held["shape"])), held["outcome"]


def real(results: Path, dataset: str, config: SAEConfig, epochs: int = 5) -> Made:
    """A materialized dataset's training texts and labels (not pairs), and an autoencoder trained on them.

    Raises:
        ValueError: its observations are pairs.
    """
    import polars as pl

    from hsae_dagster.core.sae.training import train_sae
    from hsae_dagster.storage.artifacts import read_frame
    from hsae_dagster.storage.objects import ObjectStore
    from hsae_dagster.storage.outputs import StoredEmbeddings

    store = ObjectStore(results)
    rows = read_frame(store.current(dataset, "corpus").file("observations.parquet")).filter(pl.col("split") == "train")
    if "text_id" not in rows.columns:
        raise ValueError(f"`{dataset}` has pairs; name a dataset whose observations are single texts.")
    embeddings = StoredEmbeddings.current(store, dataset).read(rows["text_id"])
    trained = train_sae(embeddings, None, config.model_copy(update={"max_epochs": epochs}))
    return Made(embeddings, rows["label"].to_numpy().astype(np.float64), trained.sae)
