"""Sparse codes of a corpus.

Belongs here: encoding embeddings into compressed sparse rows and placing several autoencoders side by side. Does not
belong here: training. A dense texts × neurons matrix exists only for one batch at a time.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from hsae_dagster.core.sae import SparseAutoencoder


@torch.no_grad()
def encode(
    sae: SparseAutoencoder, embeddings: np.ndarray, *, batch_size: int = 4096, device: str = "cpu"
) -> sp.csr_matrix:
    """Activations of every text: (n, m) float32 CSR, columns ascending in each row, zeros left out.

    Args:
        sae: trained, in evaluation mode; it is left as it was.
        embeddings: (n, d) float32.
        batch_size: texts encoded at once.
        device: where to compute.
    """
    sae = sae.to(device)
    data, indices, lengths = [], [], []
    for start in range(0, len(embeddings), batch_size):
        x = torch.as_tensor(np.ascontiguousarray(embeddings[start : start + batch_size]), device=device)
        product, _ = sae.pre_activations(x)
        entries = sae.firing_entries(product, training=False)
        order = torch.argsort(entries.rows * entries.n_neurons + entries.columns)
        rows, columns = entries.rows[order], entries.columns[order]
        values = product[rows, columns]
        fires = values > 0
        data.append(values[fires].cpu().numpy())
        indices.append(columns[fires].cpu().numpy().astype(np.int32))
        lengths.append(torch.bincount(rows[fires], minlength=len(x)).cpu().numpy())
    row_starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if lengths else np.zeros(1, np.int64)
    parts = (np.concatenate(data or [np.empty(0, np.float32)]), np.concatenate(indices or [np.empty(0, np.int32)]))
    return sp.csr_matrix((*parts, row_starts), shape=(len(embeddings), sae.config.m))


def concatenate_codes(parts: Sequence[tuple[str, sp.csr_matrix]]) -> tuple[sp.csr_matrix, list[tuple[str, int]]]:
    """Several autoencoders' codes side by side.

    Args:
        parts: (sae_id, codes) of each autoencoder, all with the same rows.

    Returns:
        (n, sum of m) float32 CSR, and (sae_id, column in it) of each column.
    """
    codes = sp.hstack([matrix for _, matrix in parts], format="csr", dtype=np.float32)
    sources = [(sae_id, column) for sae_id, matrix in parts for column in range(matrix.shape[1])]
    return codes, sources
