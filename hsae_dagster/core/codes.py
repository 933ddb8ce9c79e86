"""Sparse codes of a corpus.

Belongs here: encoding embeddings into compressed sparse rows and placing several autoencoders side by side. Does not
belong here: training. A dense texts × neurons matrix exists only for one block of texts at a time.
"""

import copy
from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from hsae_dagster.core.sae import SparseAutoencoder
from hsae_dagster.errors import MethodError

# Pre-activations held at once: 8 MB of float32. Larger blocks are slower: they leave the cache.
_BLOCK_ELEMENTS = 2**21


@torch.no_grad()
def encode(
    sae: SparseAutoencoder, embeddings: np.ndarray, *, batch_size: int = 8192, device: str = "cpu"
) -> sp.csr_matrix:
    """Activations of every text: (n, m) CSR in the autoencoder's precision (float32), columns ascending in each row.

    Only activations > 0 are stored. The autoencoder is left as it was, and where it was.

    Args:
        sae: trained.
        embeddings: (n, d) float32.
        batch_size: most texts encoded at once; fewer where m is large.
        device: where to compute.

    Raises:
        MethodError: the dimension is not the autoencoder's, or an embedding is not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != sae.input_dim:
        raise MethodError(
            f"The embeddings have shape {embeddings.shape}, but the autoencoder was trained on {sae.input_dim} "
            "dimensions; use the embedding model that it was trained with."
        )
    m, dtype = sae.config.m, sae.encoder.dtype
    if sae.encoder.device != torch.device(device):
        sae = copy.deepcopy(sae).to(device)
    size = max(1, min(batch_size, _BLOCK_ELEMENTS // m))
    blocks = []
    for start in range(0, len(embeddings), size):
        block = embeddings[start : start + size]
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise MethodError(f"The embedding of row {row} is not finite. Embed the texts again.")
        blocks.append(_encode_block(sae, torch.tensor(block, dtype=dtype, device=device)))
    if not blocks:
        return sp.csr_matrix((0, m), dtype=torch.empty(0, dtype=dtype).numpy().dtype)
    data, columns, counts = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    row_starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    # Index arrays of 32 bits wherever they suffice, as scipy itself chooses them.
    index_type = np.int32 if len(data) < 2**31 else np.int64
    codes = sp.csr_matrix((data, columns.astype(index_type), row_starts.astype(index_type)), shape=(len(embeddings), m))
    codes.has_sorted_indices = True
    return codes


def _encode_block(sae: SparseAutoencoder, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, columns and number of the positive activations of a block, by row and then by column."""
    codes = sae.encode(x)
    fires = codes.values > 0
    rows, columns, values = codes.entries.rows[fires], codes.entries.columns[fires], codes.values[fires]
    order = torch.argsort(rows * sae.config.m + columns)
    counts = torch.bincount(rows, minlength=len(x))
    return values[order].cpu().numpy(), columns[order].int().cpu().numpy(), counts.cpu().numpy()


def concatenate_codes(parts: Sequence[tuple[str, sp.csr_matrix]]) -> tuple[sp.csr_matrix, list[tuple[str, int]]]:
    """Several autoencoders' codes side by side.

    Args:
        parts: (sae_id, codes) of each autoencoder, all with the same rows.

    Returns:
        (n, sum of m) float32 CSR, and (sae_id, column in it) of each column.

    Raises:
        MethodError: no part, or parts with different numbers of rows.
    """
    heights = {sae_id: matrix.shape[0] for sae_id, matrix in parts}
    if len(set(heights.values())) != 1:
        counts = ", ".join(f"{sae_id}: {n}" for sae_id, n in heights.items()) or "none given"
        raise MethodError(f"Codes can stand side by side only over the same texts ({counts}); encode them all again.")
    codes = sp.hstack([matrix for _, matrix in parts], format="csr", dtype=np.float32)
    sources = [(sae_id, column) for sae_id, matrix in parts for column in range(matrix.shape[1])]
    return codes, sources
