"""One run of the numerical stages at a size that hurts: python benchmarks/scale.py --texts 1000000.

Makes synthetic embeddings from a sparse dictionary whose features partly decide an outcome, trains an autoencoder for a
few epochs, encodes every text, selects neurons, and prints time and peak memory after each stage. What it finds is no
result; whether it fits into memory, and how long it takes, is.
"""

import argparse
import resource
import time

import numpy as np

from hsae_dagster.core.sae.model import SAEConfig, encode
from hsae_dagster.core.sae.training import train_sae
from hsae_dagster.core.selection.methods import select_neurons

FEATURES, ACTIVE, BLOCK = 512, 8, 50_000


def synthetic(texts: int, dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(texts, dimensions) float32 unit vectors of a sparse dictionary, and an outcome of ten of its features."""
    rng = np.random.default_rng(seed)
    dictionary = rng.standard_normal((FEATURES, dimensions)).astype(np.float32)
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    effects = np.zeros(FEATURES, np.float32)
    effects[:10] = np.linspace(-1, 1, 10)
    vectors, outcome = np.empty((texts, dimensions), np.float32), np.empty(texts, np.float32)
    for start in range(0, texts, BLOCK):
        rows = min(BLOCK, texts - start)
        weights = np.zeros((rows, FEATURES), np.float32)
        chosen = rng.integers(0, FEATURES, (rows, ACTIVE))
        np.put_along_axis(weights, chosen, rng.gamma(3.0, 1 / 3, chosen.shape).astype(np.float32), axis=1)
        block = weights @ dictionary + 0.05 * rng.standard_normal((rows, dimensions), dtype=np.float32)
        vectors[start : start + rows] = block / np.linalg.norm(block, axis=1, keepdims=True)
        outcome[start : start + rows] = weights @ effects + rng.standard_normal(rows, dtype=np.float32)
    return vectors, outcome


def peak_megabytes() -> float:
    """Largest resident size of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--m", type=int, default=512)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--select", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    clock = time.monotonic()

    def tell(stage: str, more: str = "") -> None:
        nonlocal clock
        now = time.monotonic()
        print(f"{stage:<22}{now - clock:9.1f} s   peak {peak_megabytes():9,.0f} MB   {more}", flush=True)
        clock = now

    tell("libraries")
    vectors, outcome = synthetic(options.texts, options.dimensions, seed=0)
    tell("synthetic embeddings", f"{vectors.nbytes / 1e6:,.0f} MB of vectors")
    held = options.texts // 50
    config = SAEConfig(m=options.m, k=options.k, max_epochs=options.epochs, batch_size=options.batch_size)
    trained = train_sae(
        vectors[held:],
        vectors[:held],
        config,
        device=options.device,
        on_epoch=lambda e: print(f"  epoch {e.epoch}: explained variance {e.explained_variance:.3f}", flush=True),
    )
    tell("sae_checkpoints", f"m {options.m}, k {options.k}, {options.epochs} epochs")
    codes = encode(trained.sae, vectors, device=options.device)
    stored = codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes
    dense = options.texts * options.m * 4
    tell("activations", f"{codes.nnz:,} stored, {stored / 1e6:,.0f} MB; dense would be {dense / 1e6:,.0f} MB")
    selection = select_neurons(codes, outcome, options.select)
    tell("selected_neurons", f"{len(selection.columns)} of {options.m} by {selection.method}")


if __name__ == "__main__":
    main()
