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
from hsae_dagster.core.sae import SparseAutoencoder, sae_from_arrays, state_to_arrays


def store(folder: Path, made: Made) -> dict[str, str]:
    """Embeddings, outcome and weights as files that both sides read."""
    embeddings, rest = folder / "embeddings.npy", folder / "autoencoder.npz"
    np.save(embeddings, made.embeddings)
    config = made.sae.config
    np.savez(rest, outcome=made.outcome, m=config.m, k=config.k, **state_to_arrays(made.sae))
    return {"embeddings": str(embeddings), "rest": str(rest)}


def rows(size: str, paths: dict[str, str], goal: float | None) -> list[Row]:
    """The logistic selection, and the memory of encode and select around it."""
    first = in_child("memory:ours", **paths)
    theirs = in_child("memory:reference", **paths)
    last = in_child("memory:ours", **paths)
    agreed = agree(first["selection"], theirs["selection"], "lasso")
    apart = np.abs(np.subtract(first["row_sums"], theirs["row_sums"])).max()
    assert apart < 1e-4, f"activations of a text differ by {apart:.1e} in sum"
    seconds = first["selection"]["seconds"] + last["selection"]["seconds"]
    selection = Row(
        f"L1-logistic, {size}",
        float(np.median(seconds)),
        theirs["selection"]["seconds"][0],
        "s",
        goal,
        agreed=agreed,
        extra={"ours": seconds, "alpha": first["selection"]["alpha"]},
    )
    grown, grown_theirs = ((side["peak"] - side["base"]) / 1e6 for side in (first, theirs))
    memory = Row(
        f"memory of encode + select, {size}",
        grown,
        grown_theirs,
        "MB",
        20,
        agreed=f"activations' sums by text to {apart:.0e}",
        peak_ours=first["peak"] / 1e6,
        peak_theirs=theirs["peak"] / 1e6,
        extra={
            "encode_s": [first["encode_s"], theirs["encode_s"]],
            "base_mb": [first["base"] / 1e6, theirs["base"] / 1e6],
        },
    )
    return [selection, memory]


def _loaded(embeddings: str, rest: str) -> tuple[np.ndarray, np.ndarray, SparseAutoencoder]:
    from hsae_dagster.core.sae import SAEConfig

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

    from hsae_dagster.core.codes import encode

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
