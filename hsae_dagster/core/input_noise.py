"""Noise on the embeddings that an autoencoder is trained on.

Belongs here: drawing the noise and adding it to batches. Does not belong here: how much of it is good (`sae_grid`), the
training step (`sae_training`).

Training on inputs with Gaussian noise is to first order a ridge penalty (Bishop 1995, "Training with noise is
equivalent to Tikhonov regularization", Neural Computation 7(1)). Guidance by the label needs one: a few thousand labels
are far fewer than the weights of the encoder, and what it learns of them by heart is of no use on other clusters.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hsae_dagster.core.sae_loss import squares_about_means


class InputNoise:
    """Gaussian noise whose standard deviation is `level` times the spread of the training embeddings.

    The spread is the root mean squared distance of their numbers from the column means, one for all columns: what
    varies little over texts is drowned, as by ridge.
    """

    def __init__(self, x: Tensor, level: float, batch_size: int) -> None:
        self.deviation = level * math.sqrt(squares_about_means(x) / x.numel())
        self.batch_size = batch_size

    def reader(self, x: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """For one epoch: rows (n,) of x (texts, d) -> those rows with noise (n, d), n at most one above a batch.

        Noise is drawn for two batches and each takes a stretch of it, from a random start: drawing it anew for every
        batch would take half as long as a training step does.
        """
        drawn = torch.randn(2 * self.batch_size, x.shape[1], generator=generator, dtype=x.dtype)
        bank = drawn.mul_(self.deviation).to(x.device)

        def read(rows: Tensor) -> Tensor:
            start = int(torch.randint(self.batch_size, (1,), generator=generator))
            return x[rows] + bank[start : start + len(rows)]

        return read
