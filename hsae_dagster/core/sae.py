"""The sparse autoencoder: top-k, batch top-k, Matryoshka prefixes, multi-k and aux-k.

Belongs here: the model, its settings, its forward pass and loss. Does not belong here: the training loop
(`core.sae_training`), encoding a corpus (`core.codes`), or files.

After Makhzani and Frey 2014 (k-sparse), Gao et al. 2024 (top-k, aux-k, multi-k; arXiv 2406.04093), Bussmann et al. 2024
(batch top-k; arXiv 2412.06410) and 2025 (Matryoshka; arXiv 2503.17547), as combined by HypotheSAEs (arXiv 2502.04382):
    pre = W_enc (x - b_pre) + b_enc,   a = relu(top-k(pre)),   reconstruction = a W_dec + b_pre
The decoder is stored row-major (m, d), one unit-length row per neuron; every parameter is contiguous.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from hsae_dagster.core.sparse_step import (
    Entries,
    decode,
    entries_of_flat,
    entries_of_topk,
    keep_entries,
    pick,
)
from hsae_dagster.errors import MethodError


@dataclass(frozen=True)
class SAEConfig:
    """Everything that shapes a trained autoencoder beside its data.

    Attributes:
        m: neurons.
        k: neurons that may fire per text (batch top-k: on average).
        prefixes: Matryoshka prefixes, rising strictly, the last equal to m; None for one reconstruction.
        batch_topk: share k over the batch; at inference a calibrated threshold takes its place.
        aux_k: dead neurons that predict the residual; None means min(2k, m).
        aux_coef: weight of the residual's loss.
        multi_k: neurons of a second, denser reconstruction; None for none.
        multi_coef: weight of its loss.
        dead_after_steps: training steps without firing after which a neuron counts as dead.
        batch_size: texts per step.
        learning_rate: of Adam.
        max_epochs: most passes over the data.
        patience: epochs without improvement of the validation loss before stopping.
        clip_grad: largest norm of the gradient.
        seed: start of the generator of initial weights and shuffles.
    """

    m: int
    k: int
    prefixes: tuple[int, ...] | None = None
    batch_topk: bool = False
    aux_k: int | None = None
    aux_coef: float = 1 / 32
    multi_k: int | None = None
    multi_coef: float = 0.0
    dead_after_steps: int = 256
    batch_size: int = 512
    learning_rate: float = 5e-4
    max_epochs: int = 200
    patience: int = 5
    clip_grad: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings that cannot be trained."""
        if not 1 <= self.k <= self.m:
            raise MethodError(f"SAE: k is {self.k} and m is {self.m}; k must lie between 1 and m.")
        for name in ("aux_k", "multi_k"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= self.m:
                raise MethodError(f"SAE: {name} is {value}; it must lie between 1 and m = {self.m}, or be left out.")
        rising = self.prefixes is None or list(self.prefixes) == sorted(set(self.prefixes))
        if self.prefixes is not None and (not rising or self.prefixes[0] < 1 or self.prefixes[-1] != self.m):
            raise MethodError(f"SAE: prefixes {self.prefixes} must rise strictly from 1 and end at m = {self.m}.")
        if self.batch_size < 2:
            raise MethodError("SAE: batch_size must be at least 2, since the loss compares texts within a batch.")

    @property
    def revived(self) -> int:
        """Dead neurons used per step."""
        return min(2 * self.k, self.m) if self.aux_k is None else self.aux_k


class Codes(NamedTuple):
    """Firing of a batch.

    Attributes:
        values: (e,) activations, >= 0.
        entries: where they stand.
    """

    values: torch.Tensor
    entries: Entries


class Forward(NamedTuple):
    """A forward pass.

    Attributes:
        codes: what fires.
        prefixes: reconstruction (texts, d) by each prefix of the neurons; the last is the whole.
        multi: reconstruction by multi_k neurons, or None.
        revived: residual as predicted by dead neurons, or None when none is dead.
    """

    codes: Codes
    prefixes: tuple[torch.Tensor, ...]
    multi: torch.Tensor | None
    revived: torch.Tensor | None


class SparseAutoencoder(torch.nn.Module):
    """See the module's docstring. Weights start at zero; `initialise` or `load_state_dict` fills them."""

    def __init__(self, config: SAEConfig, dimensions: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = torch.nn.Parameter(torch.zeros(config.m, dimensions))
        self.decoder = torch.nn.Parameter(torch.zeros(config.m, dimensions))
        self.neuron_bias = torch.nn.Parameter(torch.zeros(config.m))
        self.input_bias = torch.nn.Parameter(torch.zeros(dimensions))
        # Activations at or below it are silent at inference; only batch top-k sets it.
        self.threshold: torch.Tensor
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def initialise(self, median: torch.Tensor, generator: torch.Generator) -> None:
        """Input bias = median of the training texts (d,); unit-length Xavier decoder; encoder equal to it."""
        bound = (6.0 / sum(self.decoder.shape)) ** 0.5
        drawn = torch.rand(self.decoder.shape, generator=generator) * 2 * bound - bound
        self.decoder.copy_(F.normalize(drawn, dim=1))
        self.encoder.copy_(self.decoder)
        self.neuron_bias.zero_()
        self.input_bias.copy_(median)

    def pre_activations(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(texts, m) pre-activations and (texts, d) centred inputs, without gradient."""
        with torch.no_grad():
            centred = x - self.input_bias
            return torch.addmm(self.neuron_bias, centred, self.encoder.T), centred

    def firing_entries(self, product: torch.Tensor, *, training: bool) -> Entries:
        """Where a batch may fire: top-k per text; batch top-k over the batch in training, by threshold otherwise."""
        texts, m = product.shape
        if not self.config.batch_topk:
            return entries_of_topk(torch.topk(product, self.config.k, dim=1, sorted=False).indices, m)
        if training:
            flat = product.reshape(-1)
            positions = torch.topk(flat, min(self.config.k * texts, flat.numel()), sorted=False).indices
            return entries_of_flat(positions, texts, m)
        positions = torch.nonzero(product.reshape(-1) > self.threshold.clamp(min=0.0)).reshape(-1)
        return entries_of_flat(positions, texts, m)

    def forward(self, x: torch.Tensor, silent_steps: torch.Tensor | None = None) -> Forward:
        """One pass.

        Args:
            x: (texts, d).
            silent_steps: (m,) int64, steps since each neuron fired; a training step passes it and it is advanced in
                place. This step counts before the dead are looked for, so firing now saves a neuron. Without it no
                neuron is revived.
        """
        product, centred = self.pre_activations(x)
        codes = self._fire(product, centred, self.firing_entries(product, training=self.training))
        dead = None
        if silent_steps is not None:
            silent_steps += 1
            silent_steps[codes.entries.columns[codes.values.detach() > 0]] = 0
            dead = silent_steps > self.config.dead_after_steps
        multi = None
        if self.config.multi_k is not None and self.config.multi_coef != 0:
            best = torch.topk(product, self.config.multi_k, dim=1, sorted=False).indices
            denser = self._fire(product, centred, entries_of_topk(best, self.config.m))
            multi = decode(denser.values, self.decoder, denser.entries) + self.input_bias
        return Forward(codes, self._reconstruct(codes, len(x)), multi, self._revive(product, centred, dead))

    def loss(self, x: torch.Tensor, passed: Forward) -> torch.Tensor:
        """Mean over prefixes of the normalised squared error, plus multi-k and aux-k terms."""
        total = torch.stack([normalised_mse(reconstruction, x) for reconstruction in passed.prefixes]).mean()
        if passed.multi is not None:
            total = total + self.config.multi_coef * normalised_mse(passed.multi, x)
        if passed.revived is not None:
            residual = x - passed.prefixes[-1].detach()
            total = total + self.config.aux_coef * normalised_mse(passed.revived, residual)
        return total

    def _fire(self, product: torch.Tensor, centred: torch.Tensor, entries: Entries) -> Codes:
        values = pick(product, centred, self.encoder, self.neuron_bias, self.input_bias, entries)
        return Codes(torch.relu(values), entries)

    def _reconstruct(self, codes: Codes, texts: int) -> tuple[torch.Tensor, ...]:
        if not self.config.prefixes or len(self.config.prefixes) == 1:
            return (decode(codes.values, self.decoder, codes.entries) + self.input_bias,)
        # Each neuron is decoded once, in its own ring; a prefix is the sum of the rings inside it.
        so_far, start = self.input_bias.expand(texts, -1), 0
        reconstructions = []
        for end in self.config.prefixes:
            ring = (codes.entries.columns >= start) & (codes.entries.columns < end)
            inside = keep_entries(codes.entries, ring, texts)
            so_far = so_far + decode(codes.values[ring], self.decoder, inside)
            reconstructions.append(so_far)
            start = end
        return tuple(reconstructions)

    def _revive(
        self, product: torch.Tensor, centred: torch.Tensor, dead: torch.Tensor | None
    ) -> torch.Tensor | None:
        if dead is None or not bool(dead.any()):
            return None
        columns = torch.nonzero(dead).reshape(-1)
        best = torch.topk(product[:, columns], min(self.config.revived, len(columns)), dim=1, sorted=False).indices
        codes = self._fire(product, centred, entries_of_topk(columns[best], self.config.m))
        return decode(codes.values, self.decoder, codes.entries)


def normalised_mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Squared error divided by that of the batch's column means: 0 is perfect, 1 is no better than the mean.

    A batch whose texts are all equal has no spread to explain; its plain squared error is returned.
    """
    error = F.mse_loss(predicted, target)
    spread = F.mse_loss(target.mean(dim=0, keepdim=True).expand_as(target), target)
    return error / spread if float(spread) > 0 else error


def state_to_arrays(sae: SparseAutoencoder) -> dict[str, np.ndarray]:
    """Parameters and threshold as arrays: encoder (m, d), decoder (m, d), neuron_bias, input_bias, threshold ()."""
    return {name: value.detach().cpu().numpy().copy() for name, value in sae.state_dict().items()}


def sae_from_arrays(config: SAEConfig, arrays: dict[str, np.ndarray]) -> SparseAutoencoder:
    """Inverse of `state_to_arrays`, on the CPU, in evaluation mode.

    Raises:
        MethodError: shapes disagree with the settings.
    """
    encoder = arrays["encoder"]
    if encoder.shape[0] != config.m or arrays["decoder"].shape != encoder.shape:
        raise MethodError(
            f"A checkpoint with an encoder of {encoder.shape} does not fit m = {config.m}. Train it again, or use its "
            "own settings."
        )
    sae = SparseAutoencoder(config, encoder.shape[1])
    sae.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return sae.eval()
