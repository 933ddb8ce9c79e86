"""From embeddings to selected neurons in one process on each side: the memory of encode and select.

Belongs here: activations and an L1-logistic selection beside the reference's, with peak memory. Does not belong here:
selection by itself (`selection`).
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.speed.children import in_child, measured
from benchmarks.speed.made import Made
from benchmarks.speed.outcome import Row
from benchmarks.speed.selection import _ours, _reference, agree
from hsae_dagster.core.sae.model import SparseAutoencoder, sae_from_arrays, state_to_arrays


def store(folder: Path, made: Made) -> dict[str, str]:
    """Embeddings, outcome and weights as files that both sides read."""
    embeddings, rest = folder / "embeddings.npy", folder / "autoencoder.npz"
    np.save(embeddings, made.embeddings)
    config = made.sae.config
    np.savez(rest, outcome=made.outcome, m=config.m, k=config.k, **state_to_arrays(made.sae))
    return {"embeddings": str(embeddings), "rest": str(rest)}


def rows(size: str, paths: dict[str, str], goal: float | None, rounds: int = 7) -> list[Row]:
    """The logistic selection, and the memory of encode and select around it; ours as medians over a few processes."""
    # Around the reference's one, which takes minutes.
    ours_found = [in_child("memory:ours", **paths) for _ in range(rounds // 2)]
    theirs = in_child("memory:reference", **paths)
    ours_found += [in_child("memory:ours", **paths) for _ in range(rounds - rounds // 2)]
    first = ours_found[0]
    agreed = agree(first["selection"], theirs["selection"], "lasso")
    apart = np.abs(np.subtract(first["row_sums"], theirs["row_sums"])).max()
    assert apart < 1e-4, f"activations of a text differ by {apart:.1e} in sum"
    seconds = [second for one in ours_found for second in one["selection"]["seconds"]]
    selection = Row(
        f"L1-logistic, {size}",
        float(np.median(seconds)),
        theirs["selection"]["seconds"][0],
        "s",
        goal,
        agreed=agreed,
        extra={"ours": seconds, "alpha": first["selection"]["alpha"]},
    )
    # What the allocator keeps of a block that it got back differs from process to process.
    grown = [(one["peak"] - one["base"]) / 1e6 for one in ours_found]
    memory = Row(
        f"memory of encode + select, {size}",
        float(np.median(grown)),
        (theirs["peak"] - theirs["base"]) / 1e6,
        "MB",
        20,
        agreed=f"activations' sums by text to {apart:.0e}",
        peak_ours=float(np.median([one["peak"] for one in ours_found])) / 1e6,
        peak_theirs=theirs["peak"] / 1e6,
        extra={
            "encode_s": [first["encode_s"], theirs["encode_s"]],
            "ours": grown,
            "base_mb": [first["base"] / 1e6, theirs["base"] / 1e6],
        },
    )
    return [selection, memory]


def _loaded(embeddings: str, rest: str) -> tuple[np.ndarray, np.ndarray, SparseAutoencoder]:
    from hsae_dagster.core.sae.model import SAEConfig

    with np.load(rest) as held:
        arrays = {name: held[name] for name in ("encoder", "decoder", "input_bias", "neuron_bias")}
        sae = sae_from_arrays(SAEConfig(m=int(held["m"]), k=int(held["k"])), arrays)
        return np.load(embeddings), held["outcome"], sae


def _peaked(whole: Any, encoding: Any, selection: dict[str, Any], row_sums: np.ndarray) -> dict[str, Any]:
    peak = max(encoding.peak, selection["measured"].peak)
    return {
        "selection": selection,
        "row_sums": row_sums,
        "base": encoding.base,
        "peak": peak,
        "encode_s": encoding.seconds,
    }


def ours(embeddings: str, rest: str) -> dict[str, Any]:
    """In a child: encode, select."""
    import sklearn.linear_model  # noqa: F401  (libraries belong to the base of both sides)

    from hsae_dagster.core.sae.model import encode

    vectors, outcome, sae = _loaded(embeddings, rest)
    with measured() as encoding:
        codes = encode(sae, vectors)
    selection = _ours(codes, outcome, "lasso", "classification", rounds=1)
    return _peaked(None, encoding, selection, np.asarray(codes.sum(axis=1)).ravel())


def reference(embeddings: str, rest: str) -> dict[str, Any]:
    """In a child: the reference's `get_activations`, then its selection."""
    import sklearn.linear_model  # noqa: F401

    from hsae_dagster_tests.core.reference_sae import twin

    vectors, outcome, sae = _loaded(embeddings, rest)
    model = twin(sae, sae.config).float()
    with measured() as encoding:
        dense = model.get_activations(vectors, show_progress=False)
    codes = sparse.csr_matrix(dense)
    selection = _reference(dense, codes, outcome, "lasso", "classification")
    return _peaked(None, encoding, selection, dense.sum(axis=1, dtype=np.float64))
