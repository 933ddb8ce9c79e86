"""Where the neurons of an autoencoder start: centroids of what they will have to say.

Belongs here: directions of centroids. Does not belong here: random directions (`sae`), training (`sae_training`).

From random directions, seeds settle on different dictionaries that reconstruct equally well. From centroids they start
close to each other and to the data, and more of their neurons are found again (the idea of archetypal autoencoders:
Fel et al. 2025, arXiv 2502.12892; that clusters are sparse codes of one atom is in Aharon, Elad and Bruckstein 2006).
"""

import numpy as np
import torch
from torch import Tensor

# Embeddings looked at for each centroid, at most, and rounds of Lloyd's algorithm: a start needs no more.
_PER_CENTROID, _ROUNDS = 64, 5


def centroids(centred: Tensor, m: int, generator: torch.Generator) -> Tensor:
    """Directions of m centroids, by k-means on the sphere from k-means++ seeds (Arthur and Vassilvitskii 2007).

    Args:
        centred: (n, d) embeddings less their medians, n >= m, on the CPU.
        m: directions wanted.
        generator: source of the sample and of the seeds.

    Returns:
        (m, d) of unit length.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus
    from threadpoolctl import threadpool_limits

    rows = torch.randperm(len(centred), generator=generator)[: _PER_CENTROID * m]
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    sample = torch.nn.functional.normalize(centred[rows], dim=1).numpy()
    # Of several threads each would add up its own part, so that sums would depend on how many there are.
    with threadpool_limits(1):
        seeds, _ = kmeans_plusplus(sample, m, random_state=seed, n_local_trials=1)
        found = KMeans(m, init=seeds, n_init=1, max_iter=_ROUNDS).fit(sample).cluster_centers_
    directions = torch.from_numpy(found.astype(np.float32))
    # A centroid of opposites, or of embeddings that are the medians, has no direction: a random one serves.
    lost = torch.linalg.vector_norm(directions, dim=1, keepdim=True) < 1e-6
    drawn = torch.randn(directions.shape, generator=generator)
    return torch.nn.functional.normalize(torch.where(lost, drawn, directions), dim=1)
