"""What an autoencoder's training minimises, and how its reconstruction is judged.

Belongs here: the normalised mean squared error, the terms of the training loss, the pooled evaluation of a data set.
Does not belong here: the optimiser, epochs, early stopping (`sae_training`), which neurons fire (`sae`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hsae_dagster.core.sae import EncodedBatch, SparseAutoencoder
from hsae_dagster.core.sparse_decode import BatchCodes

_EVALUATION_BATCH = 2048
# Below this share of the squares about the bias, the squares about the mean are computed afresh.
_CANCELLATION = 0.1

RowLoss = Callable[[BatchCodes, Tensor], Tensor]


@dataclass(frozen=True)
class LossTerms:
    """The loss of one training batch, each term a scalar tensor.

    Attributes:
        total: what is minimised: reconstruction + aux_coef · auxiliary.
        reconstruction: mean over the prefixes of the normalised MSE, plus multi_coef · that of the denser codes.
        full: normalised MSE of the reconstruction from all neurons, without graph.
        auxiliary: normalised MSE of the residual as the dead neurons explain it; None if no neuron is dead.
    """

    total: Tensor
    reconstruction: Tensor
    full: Tensor
    auxiliary: Tensor | None


@dataclass(frozen=True)
class Evaluation:
    """How well an autoencoder reconstructs a data set (pooled over all of it).

    Attributes:
        loss: what early stopping monitors: `LossTerms.reconstruction`, pooled, plus the extra loss if there is one.
        nmse: squared error over squared distance from the column means, all neurons.
        l0: active neurons per text.
    """

    loss: float
    nmse: float
    l0: float


def normalised_mse(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of (n, d) predictions over that of the target's column means; always finite, see `spread`."""
    return (predicted - target).square().mean() / spread(target)


@torch.no_grad()
def spread(target: Tensor) -> Tensor:
    """Mean squared distance of target (n, d) from its column means: what a constant prediction leaves unexplained.

    One row, or rows that are all equal, have none; then the mean square of the target takes its place (what predicting
    zero leaves unexplained), and 1 if the target is zero. So an error divided by it is always finite.
    """
    about_mean = torch.mean((target - target.mean(dim=0, keepdim=True)).square_())
    return nonzero_spread(about_mean, torch.linalg.vector_norm(target).square() / target.numel(), target.dtype)


def nonzero_spread(about_mean: Tensor, about_zero: Tensor, dtype: torch.dtype) -> Tensor:
    """`about_mean` unless it is rounding noise beside `about_zero`; see `spread`."""
    noise = (8 * torch.finfo(dtype).eps) ** 2 * about_zero
    fallback = torch.where(about_zero > 0, about_zero, torch.ones_like(about_zero))
    return torch.where(about_mean > noise, about_mean, fallback)


def training_loss(sae: SparseAutoencoder, x: Tensor, encoded: EncodedBatch, dead: Tensor | None = None) -> LossTerms:
    """The loss of a batch: mean normalised MSE over the prefixes, multi-k and aux-k terms.

    As in HypotheSAEs, with one difference: where no neuron is dead the auxiliary term is left out. The reference adds a
    constant there (near aux_coef, the residual explained by nothing), which has no gradient.

    Args:
        sae: the autoencoder.
        x: (n, d) batch.
        encoded: `sae.encode_batch(x)`.
        dead: (q,) int64 indices of the dead neurons, or None.
    """
    config, scale = sae.config, _spread_about_bias(x, encoded.centred)
    errors = prefix_errors(sae, encoded, encoded.codes) / scale
    reconstruction = errors.mean()
    if config.multi_k is not None and config.multi_coef != 0:
        denser = prefix_errors(sae, encoded, sae.top_codes(encoded, config.multi_k))[-1]
        reconstruction = reconstruction + config.multi_coef * (denser / scale)
    if dead is None or dead.numel() == 0 or config.aux_coef == 0:
        return LossTerms(reconstruction, reconstruction, errors[-1].detach(), None)
    with torch.no_grad():
        residual = x - encoded.codes.decode(sae.decoder) - sae.input_bias
    explained = sae.top_codes(encoded, config.effective_aux_k, among=dead).decode(sae.decoder)
    auxiliary = (explained - residual).square().mean() / spread(residual)
    return LossTerms(reconstruction + config.aux_coef * auxiliary, reconstruction, errors[-1].detach(), auxiliary)


def prefix_errors(sae: SparseAutoencoder, encoded: EncodedBatch, codes: BatchCodes) -> Tensor:
    """(n_segments,) mean squared error of the reconstruction from each prefix of the neurons; differentiable."""
    return _PrefixErrors.apply(codes.decode_segments(sae.decoder), encoded.centred, sae.input_bias)


class _PrefixErrors(torch.autograd.Function):
    """Errors of all prefixes in one pass over each segment's part, forward and backward.

    Prefix p reconstructs b_in + the sum of parts 0..p, so its residual is the one before minus part p, and the gradient
    of part s is the sum of those of the prefixes from s on. Left to autograd this costs twice the decode itself.
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor, centred: Tensor, input_bias: Tensor) -> Tensor:
        residuals, before = torch.empty_like(parts), centred
        for residual, part in zip(residuals, parts, strict=True):
            torch.sub(before, part, out=residual)
            before = residual
        ctx.save_for_backward(residuals)
        return torch.stack([torch.dot(r.flatten(), r.flatten()) for r in residuals]) / centred.numel()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (residuals,) = ctx.saved_tensors
        factors = gradients[0] * (-2.0 / residuals[0].numel())
        of_parts = torch.empty_like(residuals)
        torch.mul(residuals[-1], factors[-1], out=of_parts[-1])
        for s in range(len(residuals) - 2, -1, -1):
            torch.addcmul(of_parts[s + 1], residuals[s], factors[s], out=of_parts[s])
        return of_parts, None, of_parts[0].sum(dim=0)


def _spread_about_bias(x: Tensor, centred: Tensor) -> Tensor:
    """`spread(x)` from x - b_in, which is nearly centred: two passes rather than four, unless digits would be lost."""
    mean, flat = centred.mean(dim=0), centred.flatten()
    about_bias = torch.dot(flat, flat) / flat.numel()
    about_mean = about_bias - torch.dot(mean, mean) / mean.numel()
    return about_mean if about_mean > _CANCELLATION * about_bias else spread(x)


def widest(device: torch.device) -> torch.dtype:
    """The dtype of sums over a whole data set: float64, or float32 on Apple's GPU, which has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


@torch.no_grad()
def squares_about_means(x: Tensor) -> float:
    """Squared distance of all of x (n, d) from its column means, in the widest dtype; as `spread`, never 0."""
    wide = widest(x.device)
    mean = torch.stack([block.sum(dim=0, dtype=wide) for block in x.split(_EVALUATION_BATCH)]).sum(0) / len(x)
    about_mean = torch.zeros((), dtype=wide, device=x.device)
    about_zero = torch.zeros_like(about_mean)
    for block in x.split(_EVALUATION_BATCH):
        about_mean += (block - mean).square().sum()
        about_zero += block.to(wide).square().sum()
    return float(nonzero_spread(about_mean, about_zero, x.dtype))


@torch.no_grad()
def evaluate(
    sae: SparseAutoencoder, x: Tensor, total_squares: float | None = None, row_loss: RowLoss | None = None
) -> Evaluation:
    """Pooled reconstruction error over a data set; changes nothing.

    Sums of squares are pooled over the whole set, so that the size of the last batch does not matter. Dead neurons and
    the auxiliary term play no part. Batch top-k selects over blocks of texts, as in training: it has no threshold yet.

    Args:
        sae: the autoencoder.
        x: (n, d) on the autoencoder's device.
        total_squares: `squares_about_means(x)`, if known.
        row_loss: an extra loss (mean over the rows given) that is monitored too.
    """
    config, active, extra, denser = sae.config, 0.0, 0.0, 0.0
    total = squares_about_means(x) if total_squares is None else total_squares
    wide = widest(x.device)
    squared = torch.zeros(len(config.segments), dtype=wide, device=x.device)
    for rows in torch.arange(len(x), device=x.device).split(_EVALUATION_BATCH):
        batch = x[rows[0] : rows[-1] + 1]
        encoded = sae.encode_batch(batch)
        squared += prefix_errors(sae, encoded, encoded.codes).to(wide) * batch.numel()
        active += float((encoded.codes.values > 0).sum())
        if config.multi_k is not None and config.multi_coef != 0:
            denser += float(prefix_errors(sae, encoded, sae.top_codes(encoded, config.multi_k))) * batch.numel()
        if row_loss is not None:
            extra += float(row_loss(encoded.codes, rows)) * len(rows)
    nmse = squared / total
    loss = float(nmse.mean()) + config.multi_coef * denser / total + extra / len(x)
    return Evaluation(loss, float(nmse[-1]), active / len(x))
