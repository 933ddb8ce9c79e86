"""Training a sparse autoencoder.

Belongs here: batches, the optimiser's step, the count of silent steps, early stopping, calibration, history. Does not
belong here: the model (`sae`), its loss (`sae_loss`), files.

What differs from the reference on purpose: all randomness comes from the seed; the weights of the best epoch are kept;
early stopping looks at the reconstruction only (no auxiliary term, so the number of dead neurons cannot move it); dead
neurons are counted in training steps alone; the last batch is never a single text; the batch-top-k threshold is set
after training, so that inference fires as many neurons as training did.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from hsae_dagster.core.input_noise import InputNoise
from hsae_dagster.core.sae import EncodedBatch, SAEConfig, SparseAutoencoder
from hsae_dagster.core.sae_loss import Evaluation, RowLoss, evaluate, squares_about_means, training_loss
from hsae_dagster.core.sae_start import centroids
from hsae_dagster.errors import MethodError

_CALIBRATION_BATCH = 2048
# So many held-out texts give the number of firing neurons per text to within a few per cent.
_ENOUGH_TO_CALIBRATE = 256
_MEDIAN_BLOCK = 2**24  # elements copied at a time while taking medians


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: from 1.
        train_loss: mean loss of the training steps, auxiliary and extra terms included.
        validation_loss: what early stopping monitors: mean over the prefixes of the normalised squared error (plus the
            multi-k term, plus the extra loss) on validation texts; on training texts if there are none.
        validation_nmse: normalised squared error of the whole reconstruction, same texts.
        explained_variance: 1 - validation_nmse.
        l0: mean number of firing neurons per text, same texts.
        dead_share: share of neurons silent for more than `dead_after_steps` training steps.
        seconds: wall time.
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
    """A trained autoencoder with the weights of its best epoch, on the CPU.

    Attributes:
        sae: the model.
        config: its settings.
        history: one record per epoch, the first one epoch 1.
        best_epoch: the epoch whose weights these are.
        stop_reason: why training ended.
    """

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
    """Train; a function of data, settings and device only.

    Args:
        train: (n, d) embeddings; used as float32.
        validation: (v, d) for early stopping; None trains all epochs and keeps the best on training texts.
        config: settings.
        device: where to train.
        on_epoch: told after each epoch.
        extra_loss: a further term of the loss.

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
    start = centroids(x - medians, config.m, generator) if config.start == "centroids" else None
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
        self.noise: InputNoise | None = None

    def step(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """One step on a batch x (n, d) of these rows of the training embeddings; returns its loss, a scalar."""
        encoded = self.sae.encode_batch(x)
        self._count_silence(encoded)
        dead = (self.silent_steps > self.config.dead_after_steps).nonzero().squeeze(1)
        loss = training_loss(self.sae, x, encoded, dead).total
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
        read = self._reader(x, generator)
        mean = float(torch.stack([self.step(read(rows), rows) for rows in batches]).mean())
        if not np.isfinite(mean):
            raise MethodError(
                f"Training left the finite numbers (learning_rate = {self.config.learning_rate}); lower learning_rate, "
                "or set clip_grad if it is off."
            )
        return mean

    def _reader(self, x: Tensor, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """What gives the rows of x that a step sees."""
        if self.config.input_noise == 0:
            return x.__getitem__
        if self.noise is None:
            self.noise = InputNoise(x, self.config.input_noise, self.config.batch_size)
        return self.noise.reader(x, generator)

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
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise MethodError(f"The {name} embedding of row {row} is not finite. Embed the texts again.")
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))
