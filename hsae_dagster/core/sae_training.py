"""Training a sparse autoencoder.

Belongs here: batches, the optimiser's step, early stopping, calibration, history. Does not belong here: the model and
its loss (`core.sae`).

What differs from the reference on purpose: all randomness comes from the seed; the weights of the best epoch are kept;
early stopping looks at reconstruction only, which evaluation cannot disturb; dead neurons are counted in training steps
alone; the last batch is never a single text; the batch-top-k threshold is set after training, so that inference fires
as many neurons as training did.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hsae_dagster.core.sae import SAEConfig, SparseAutoencoder
from hsae_dagster.errors import MethodError

_EVALUATION_BATCH = 4096
_CALIBRATION_TEXTS = 16_384


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: from 1.
        train_loss: mean loss of the training steps, aux term included.
        validation_loss: mean over prefixes of the normalised squared error on validation texts (training texts when
            there are none).
        explained_variance: 1 - normalised squared error of the whole reconstruction, same texts.
        l0: mean number of firing neurons per text, same texts.
        dead_share: share of neurons that did not fire in the last `dead_after_steps` training steps.
        seconds: wall time.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    explained_variance: float
    l0: float
    dead_share: float
    seconds: float


@dataclass(frozen=True)
class TrainedSAE:
    """A trained autoencoder with the weights of its best epoch, on the CPU, in evaluation mode."""

    sae: SparseAutoencoder
    config: SAEConfig
    history: tuple[EpochRecord, ...]
    best_epoch: int
    stop_reason: str


def train_sae(
    train: np.ndarray,
    validation: np.ndarray | None,
    config: SAEConfig,
    *,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainedSAE:
    """Train.

    Args:
        train: (n, d) float32 embeddings.
        validation: (v, d) for early stopping; None trains all epochs and keeps the best on training texts.
        config: settings.
        device: where to train.
        on_epoch: told after each epoch.

    Raises:
        MethodError: fewer than 2 texts, or a value that is not finite.
    """
    x, held_out = _checked(train, "training", device), None
    if validation is not None:
        held_out = _checked(validation, "validation", device)
    generator = torch.Generator().manual_seed(config.seed)
    sae = SparseAutoencoder(config, x.shape[1]).to(device)
    sae.initialise(torch.median(x, dim=0).values, generator)
    trainer = _Trainer(sae, config)
    history: list[EpochRecord] = []
    best_loss, best_epoch, best_state = float("inf"), 0, sae.state_dict()
    stop_reason = f"all {config.max_epochs} epochs were used"
    for epoch in range(1, config.max_epochs + 1):
        record = trainer.epoch(epoch, x, held_out if held_out is not None else x, generator)
        history.append(record)
        if on_epoch:
            on_epoch(record)
        if record.validation_loss < best_loss:
            best_loss, best_epoch = record.validation_loss, epoch
            best_state = {name: value.detach().clone() for name, value in sae.state_dict().items()}
        elif held_out is not None and epoch - best_epoch >= config.patience:
            stop_reason = f"no improvement for {config.patience} epochs"
            break
    sae.load_state_dict(best_state)
    sae.eval()
    if config.batch_topk:
        calibrate_threshold(sae, held_out if held_out is not None else x)
    return TrainedSAE(sae.cpu(), config, tuple(history), best_epoch, stop_reason)


class _Trainer:
    """The optimiser and the count of steps since each neuron fired; only training steps advance it."""

    def __init__(self, sae: SparseAutoencoder, config: SAEConfig) -> None:
        self.sae, self.config = sae, config
        self.optimiser = torch.optim.Adam(sae.parameters(), lr=config.learning_rate)
        self.silent_steps = torch.zeros(config.m, dtype=torch.long, device=sae.encoder.device)

    def step(self, x: torch.Tensor) -> float:
        """One step on a batch (texts, d); returns its loss."""
        sae = self.sae
        sae.train()
        passed = sae(x, self.silent_steps)
        loss = sae.loss(x, passed)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._project_decoder_gradient()
        torch.nn.utils.clip_grad_norm_(sae.parameters(), self.config.clip_grad)
        self.optimiser.step()
        with torch.no_grad():
            sae.decoder.div_(sae.decoder.norm(dim=1, keepdim=True))
        return float(loss.detach())

    def epoch(
        self, number: int, x: torch.Tensor, held_out: torch.Tensor, generator: torch.Generator
    ) -> EpochRecord:
        """One pass over the training texts in a new order, then a look at the held-out ones."""
        started = time.monotonic()
        losses = [self.step(x[rows]) for rows in shuffled_batches(len(x), self.config.batch_size, generator, x.device)]
        loss, explained, l0 = evaluate_sae(self.sae, held_out)
        dead = float((self.silent_steps > self.config.dead_after_steps).float().mean())
        mean = float(np.mean(losses))
        return EpochRecord(number, mean, loss, explained, l0, dead, time.monotonic() - started)

    @torch.no_grad()
    def _project_decoder_gradient(self) -> None:
        """Remove what would only lengthen a decoder row, since rows are put back to unit length anyway."""
        decoder = self.sae.decoder
        if decoder.grad is not None:
            decoder.grad -= (decoder * decoder.grad).sum(dim=1, keepdim=True) * decoder


def shuffled_batches(n: int, size: int, generator: torch.Generator, device: torch.device) -> Iterator[torch.Tensor]:
    """Batches of shuffled row numbers; a last batch of one text joins the one before it."""
    order = torch.randperm(n, generator=generator).to(device)
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        yield order[start : starts[i + 1] if i + 1 < len(starts) else n]


@torch.no_grad()
def evaluate_sae(sae: SparseAutoencoder, x: torch.Tensor) -> tuple[float, float, float]:
    """Loss (mean over prefixes of the normalised squared error), explained variance, and firing neurons per text.

    Leaves the model as it was: no counter and no threshold moves. The error is normalised by the spread of all of x,
    not batch by batch, so the size of the last batch does not matter.
    """
    was_training = sae.training
    # Batch top-k has no threshold before it is calibrated, so it is judged as it trains.
    sae.train(sae.config.batch_topk and was_training)
    errors, fired = None, 0
    for batch in x.split(_EVALUATION_BATCH):
        passed = sae(batch)
        batch_errors = torch.stack([((r - batch) ** 2).sum() for r in passed.prefixes])
        errors = batch_errors if errors is None else errors + batch_errors
        fired += int((passed.codes.values > 0).sum())
    sae.train(was_training)
    spread = float(((x - x.mean(dim=0)) ** 2).sum())
    assert errors is not None
    normalised = errors / (spread if spread > 0 else 1.0)
    return float(normalised.mean()), 1.0 - float(normalised[-1]), fired / len(x)


@torch.no_grad()
def calibrate_threshold(sae: SparseAutoencoder, x: torch.Tensor) -> None:
    """Set the batch-top-k threshold so that k neurons fire per text on average over x."""
    sample = x[:_CALIBRATION_TEXTS]
    product, _ = sae.pre_activations(sample)
    flat = product.reshape(-1)
    kept = min(sae.config.k * len(sample), flat.numel() - 1)
    # The cut lies just below the last value kept: strictly greater fires.
    cut = torch.topk(flat, kept + 1).values[-1]
    sae.threshold.copy_(cut.clamp(min=0.0))


def _checked(values: np.ndarray, name: str, device: str) -> torch.Tensor:
    if values.ndim != 2 or len(values) < 2:
        raise MethodError(f"An autoencoder needs at least 2 {name} texts; there are {len(values)}. Bring more data.")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise MethodError(f"The {name} embedding of row {row} is not finite. Embed the texts again.")
    return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32), device=device)

