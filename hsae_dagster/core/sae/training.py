"""Training a sparse autoencoder: what is minimised, and how reconstruction is judged."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hsae_dagster.core.sae.model import BatchCodes, EncodedBatch, SAEConfig, SparseAutoencoder
from hsae_dagster.errors import MethodError

_EVALUATION_BATCH = 2048
# Below this share of the squares about the bias, the squares about the mean are computed afresh.
_CANCELLATION = 0.1

RowLoss = Callable[[BatchCodes, Tensor], Tensor]


@dataclass(frozen=True)
class Evaluation:
    """How well an autoencoder reconstructs a data set (pooled over all of it).

    Attributes:
        loss: what early stopping monitors: `training_loss` without the auxiliary term, pooled, plus any extra loss.
        nmse: squared error over squared distance from the column means, all neurons.
        l0: active neurons per text.
    """

    loss: float
    nmse: float
    l0: float


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


def training_loss(sae: SparseAutoencoder, x: Tensor, encoded: EncodedBatch, dead: Tensor | None = None) -> Tensor:
    """What is minimised of a batch x (n, d), a scalar: the mean over the prefixes of the normalised MSE, and two terms.

    They are multi_coef · that of the denser codes, and aux_coef · that of the residual as the dead neurons explain it.
    `encoded` is `sae.encode_batch(x)`, `dead` (q,) int64 the dead neurons, or None. As in HypotheSAEs, with one
    difference: where no neuron is dead the auxiliary term is left out. The reference adds a constant there (near
    aux_coef, the residual explained by nothing), which has no gradient.
    """
    config, scale = sae.config, _spread_about_bias(x, encoded.centred)
    reconstruction = (prefix_errors(sae, encoded, encoded.codes) / scale).mean()
    if config.multi_k is not None and config.multi_coef != 0:
        denser = prefix_errors(sae, encoded, sae.top_codes(encoded, config.multi_k))[-1]
        reconstruction = reconstruction + config.multi_coef * (denser / scale)
    if dead is None or dead.numel() == 0 or config.aux_coef == 0:
        return reconstruction
    with torch.no_grad():
        residual = x - encoded.codes.decode(sae.decoder) - sae.input_bias
    explained = sae.top_codes(encoded, config.effective_aux_k, among=dead).decode(sae.decoder)
    return reconstruction + config.aux_coef * ((explained - residual).square().mean() / spread(residual))


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
    """Pooled reconstruction error over a data set x (n, d) on the autoencoder's device; changes nothing.

    Sums of squares are pooled over the whole set, so that the size of the last batch does not matter. Dead neurons and
    the auxiliary term play no part. Batch top-k selects over blocks of texts, as in training: it has no threshold yet.
    `total_squares` is `squares_about_means(x)`, if known; `row_loss` a mean over given rows that is monitored too.
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


# Embeddings that the centroids of all and of a part come from, for each centroid at most; rounds of Lloyd's algorithm.
_PER_CENTROID, _OF_PART, _ROUNDS = 64, 32, 10
# Parts: the work for each rises with the square of the neurons, so 64 of them have 16 parts, 128 have 4, 256 have 1.
_PARTS, _SQUARES = 16, 2**16


def centroids(x: Tensor, m: int, generator: torch.Generator, centre: Tensor | float = 0.0) -> Tensor:
    """Unit vectors (m, d) to centroids of embeddings x (n, d), n >= m, on the CPU.

    By k-means on the sphere from refined initial points (Bradley and Fayyad 1998).

    One run of k-means ends in one of many optima. Here several parts of the embeddings have a run each, from k-means++
    seeds, and the centroids of what they found are where the last run starts: what recurs stays, whatever the seed. The
    centre (d,) is taken from those that are looked at: a centred copy of all would double the memory.
    """
    from sklearn.cluster import KMeans, kmeans_plusplus
    from threadpoolctl import threadpool_limits

    def sample(of_each: int) -> np.ndarray:
        rows = torch.randperm(len(x), generator=generator)[: of_each * m]
        unit: np.ndarray = torch.nn.functional.normalize(x[rows] - centre, dim=1).numpy()
        return unit

    def settled(points: np.ndarray, start: np.ndarray) -> KMeans:
        return KMeans(m, init=start, n_init=1, max_iter=_ROUNDS).fit(points)

    def of_part() -> np.ndarray:
        points, seed = sample(_OF_PART), int(torch.randint(2**31 - 1, (1,), generator=generator))
        start, _ = kmeans_plusplus(points, m, random_state=seed, n_local_trials=1)
        centres: np.ndarray = settled(points, start).cluster_centers_
        return centres

    # Of several threads each would add up its own part, so that sums would depend on how many there are.
    with threadpool_limits(1):
        parts = [of_part() for _ in range(min(_PARTS, max(1, _SQUARES // m**2)))]
        pooled = np.concatenate(parts)
        refined = min((settled(pooled, part) for part in parts), key=lambda run: run.inertia_)
        found = settled(sample(_PER_CENTROID), refined.cluster_centers_).cluster_centers_
    directions = torch.from_numpy(found.astype(np.float32))
    # A centroid of opposites, or of embeddings that are the medians, has no direction: a random one serves.
    lost = torch.linalg.vector_norm(directions, dim=1, keepdim=True) < 1e-6
    drawn = torch.randn(directions.shape, generator=generator)
    return torch.nn.functional.normalize(torch.where(lost, drawn, directions), dim=1)


_CALIBRATION_BATCH = 2048
# So many held-out texts give the number of firing neurons per text to within a few per cent.
_ENOUGH_TO_CALIBRATE = 256
_MEDIAN_BLOCK = 2**24  # elements copied at a time while taking medians


@dataclass(frozen=True)
class EpochRecord:
    """One epoch, counted from 1.

    Attributes:
        train_loss: mean loss of the training steps, auxiliary and extra terms included.
        validation_loss: what early stopping monitors: mean over the prefixes of the normalised squared error (plus the
            multi-k term, plus the extra loss) on validation texts; on training texts if there are none.
        validation_nmse: normalised squared error of the whole reconstruction, same texts; the variance explained is
            the rest.
        l0: mean number of firing neurons per text, same texts.
        dead_share: share of neurons silent for more than `dead_after_steps` training steps.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_nmse: float
    explained_variance: float
    l0: float
    dead_share: float
    seconds: float


@dataclass(frozen=True)
class TrainedSAE:
    """A trained autoencoder with the weights of its best epoch, on the CPU."""

    sae: SparseAutoencoder
    config: SAEConfig
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stop_reason: str


@dataclass(frozen=True)
class ExtraLoss:
    """A term added to the loss, such as the label's prediction from the codes by a linear head.

    Attributes:
        train: (codes of a batch, its row numbers in the training embeddings) -> scalar, differentiable.
            ``codes.decode(weight)`` is the product with a head (m, q).
        validation: the same for validation rows; its mean is added to what early stopping monitors. None leaves that
            to the reconstruction alone.
        parameters: what the term learns beside the autoencoder; trained, clipped and restored with it, in place.
        batches: (texts, batch size, generator, device) -> batches of row numbers that hold every text once, where the
            term needs certain texts side by side; None for `shuffled_batches`.
    """

    train: RowLoss
    validation: RowLoss | None = None
    parameters: Sequence[nn.Parameter] = field(default=())
    batches: Callable[[int, int, torch.Generator, torch.device], Iterator[Tensor]] | None = None


def train_sae(
    train: np.ndarray,
    validation: np.ndarray | None,
    config: SAEConfig,
    *,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
    extra_loss: ExtraLoss | None = None,
) -> TrainedSAE:
    """Train on embeddings (n, d), used as float32; a function of data, settings and device only.

    Validation (v, d) is for early stopping; without it all epochs are trained, and the best on training texts is kept.

    Raises:
        MethodError: fewer than 2 texts, a value that is not finite, two dimensions that differ, or a loss that
            left the finite numbers, or a label weight without a term that knows the labels.
    """
    if config.label_weight > 0 and extra_loss is None:
        raise MethodError("An autoencoder with label_weight > 0 needs labels; pass the extra loss of core.guidance.")
    x = _checked(train, "training")
    held_out = x if validation is None else _checked(validation, "validation", x.shape[1])
    generator = torch.Generator().manual_seed(config.seed)
    sae = SparseAutoencoder(config, x.shape[1])
    medians = column_medians(x)
    start = centroids(x, config.m, generator, medians) if config.start == "centroids" else None
    sae.initialise(medians, generator, start)
    trainer = SAETrainer(sae.to(device), config, extra_loss)
    x, held_out = x.to(device), held_out.to(device)
    judge_extra = None
    if extra_loss is not None:
        judge_extra = extra_loss.train if validation is None else extra_loss.validation
    total_squares = squares_about_means(held_out)
    history: list[EpochRecord] = []
    best_loss, best_epoch, best_state = float("inf"), 0, trainer.snapshot()
    stop_reason = f"all {config.max_epochs} epochs were used"
    for epoch in range(1, config.max_epochs + 1):
        started = time.monotonic()
        train_loss = trainer.run_epoch(x, generator)
        seen = evaluate(sae, held_out, total_squares, judge_extra)
        history.append(_record(epoch, train_loss, seen, trainer, time.monotonic() - started))
        if on_epoch:
            on_epoch(history[-1])
        if seen.loss < best_loss:
            best_loss, best_epoch, best_state = seen.loss, epoch, trainer.snapshot()
        elif validation is not None and epoch - best_epoch >= config.patience:
            stop_reason = f"no improvement for {config.patience} epochs"
            break
    trainer.restore(best_state)
    if config.batch_topk:
        calibrate_threshold(sae, held_out if len(held_out) >= _ENOUGH_TO_CALIBRATE else x)
    return TrainedSAE(sae.cpu().eval(), config, tuple(history), best_epoch, stop_reason)


class SAETrainer:
    """The optimiser, and how many training steps each neuron has been silent; only `step` advances either.

    Attributes:
        silent_steps: (m,) int64.
    """

    def __init__(self, sae: SparseAutoencoder, config: SAEConfig, extra_loss: ExtraLoss | None = None) -> None:
        self.sae, self.config, self.extra_loss = sae, config, extra_loss
        self.parameters = [*sae.parameters(), *(extra_loss.parameters if extra_loss else ())]
        # The fused kernel pairs parameter and gradient by raw memory: both must be contiguous (and are).
        fused = sae.encoder.device.type in ("cpu", "cuda")
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate, fused=fused)
        self.silent_steps = torch.zeros(config.m, dtype=torch.long, device=sae.encoder.device)

    def step(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """One step on a batch x (n, d) of these rows of the training embeddings; returns its loss, a scalar."""
        encoded = self.sae.encode_batch(x)
        self._count_silence(encoded)
        dead = (self.silent_steps > self.config.dead_after_steps).nonzero().squeeze(1)
        loss = training_loss(self.sae, x, encoded, dead)
        if self.extra_loss is not None:
            if rows is None:
                raise MethodError("An extra loss needs to know its texts; pass the rows of the batch to step.")
            loss = loss + self.extra_loss.train(encoded.codes, rows)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._project_decoder_gradient()
        self._clip_gradients()
        self.optimiser.step()
        self.sae.normalise_decoder()
        return loss.detach()

    def run_epoch(self, x: Tensor, generator: torch.Generator) -> float:
        """One pass over the training texts x (n, d) in a new order; returns the mean loss of its steps."""
        make = (self.extra_loss and self.extra_loss.batches) or shuffled_batches
        batches = make(len(x), self.config.batch_size, generator, x.device)
        mean = float(torch.stack([self.step(x[rows], rows) for rows in batches]).mean())
        if not np.isfinite(mean):
            raise MethodError(
                "Training diverged: loss or weights are not finite (learning_rate = "
                f"{self.config.learning_rate}); lower learning_rate, or set clip_grad if it is off."
            )
        return mean

    def snapshot(self) -> list[Tensor]:
        """A copy of all that is trained."""
        return [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        """Put a snapshot back."""
        for parameter, value in zip(self.parameters, state, strict=True):
            parameter.copy_(value)

    def _count_silence(self, encoded: EncodedBatch) -> None:
        codes = encoded.codes
        self.silent_steps += 1
        fired = codes.entries.columns.masked_select(codes.values.detach() > 0)
        self.silent_steps.index_fill_(0, fired, 0)

    @torch.no_grad()
    def _project_decoder_gradient(self) -> None:
        """Remove what would only lengthen a decoder row, since rows are put back to unit length anyway."""
        decoder = self.sae.decoder
        if decoder.grad is not None:
            along = torch.linalg.vecdot(decoder, decoder.grad).unsqueeze(1)
            decoder.grad.addcmul_(along, decoder, value=-1)

    @torch.no_grad()
    def _clip_gradients(self) -> None:
        """`torch.nn.utils.clip_grad_norm_`, but the gradients are only touched when they are too long."""
        if self.config.clip_grad is None:
            return
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        factor = self.config.clip_grad / (norm + 1e-6)
        if factor < 1:
            for gradient in gradients:
                gradient.mul_(factor)


def shuffled_batches(
    n: int, size: int, generator: torch.Generator, device: torch.device, order: Tensor | None = None
) -> Iterator[Tensor]:
    """Batches of row numbers, shuffled unless their order is given; a last batch of one text joins the one before."""
    order = (torch.randperm(n, generator=generator) if order is None else order).to(device)
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        yield order[start:end]


def column_medians(x: Tensor) -> Tensor:
    """(d,) median of each column of x (n, d); of an even number of values the lower middle one."""
    width = max(1, _MEDIAN_BLOCK // max(1, len(x)))
    return torch.cat([block.T.contiguous().median(dim=1).values for block in x.split(width, dim=1)])


@torch.no_grad()
def calibrate_threshold(sae: SparseAutoencoder, x: Tensor) -> None:
    """Set the batch-top-k threshold so that k neurons fire per text on average over x (n, d).

    The threshold is the largest pre-activation that must stay silent: number k·n + 1 from above, or 0 if fewer than
    k·n are positive (then every positive one fires and the average stays below k). Memory: k·n numbers.
    """
    wanted = sae.config.k * len(x) + 1
    kept = x.new_empty(0)
    for batch in x.split(_CALIBRATION_BATCH):
        flat = sae.pre_activations(batch)[1].flatten()
        bound = kept.min() if kept.numel() == wanted else torch.zeros((), dtype=x.dtype, device=x.device)
        kept = torch.cat([kept, flat[flat > bound]])
        if kept.numel() > wanted:
            kept = torch.topk(kept, wanted, sorted=False).values
    sae.threshold.copy_(kept.min() if kept.numel() == wanted else torch.zeros(()))


def _record(number: int, train_loss: float, seen: Evaluation, trainer: SAETrainer, seconds: float) -> EpochRecord:
    dead = float((trainer.silent_steps > trainer.config.dead_after_steps).float().mean())
    return EpochRecord(number, train_loss, seen.loss, seen.nmse, 1.0 - seen.nmse, seen.l0, dead, seconds)


def _checked(values: np.ndarray, name: str, dimensions: int | None = None) -> Tensor:
    if values.ndim != 2 or len(values) < 2:
        raise MethodError(f"An autoencoder needs at least 2 {name} texts; there are {len(values)}. Bring more data.")
    if dimensions is not None and values.shape[1] != dimensions:
        raise MethodError(
            f"The {name} embeddings have {values.shape[1]} dimensions and the training embeddings {dimensions}; "
            "embed both with one model."
        )
    # By blocks: the answer for every number would take a quarter of the numbers' own memory.
    for start in range(0, len(values), _EVALUATION_BATCH):
        finite = np.isfinite(values[start : start + _EVALUATION_BATCH]).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise MethodError(f"The {name} embedding of row {row} is not finite. Embed the texts again.")
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
