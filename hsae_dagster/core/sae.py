"""The sparse autoencoder: its settings, its parameters, and which neurons fire.

Belongs here: `SAEConfig`, the module, top-k and batch-top-k activation, initialisation, weights as named arrays.
Does not belong here: losses (`sae_loss`), training (`sae_training`), codes of whole data sets (`codes`), files.

Source: HypotheSAEs (arXiv 2502.04382, section 3.1) and the papers it builds on: top-k autoencoders with revival of dead
neurons (Gao et al. 2024, arXiv 2406.04093; O'Neill et al. 2024, arXiv 2408.00657), batch top-k (Bussmann et al. 2024,
arXiv 2412.06410), Matryoshka prefixes (Bussmann et al. 2025, arXiv 2503.17547).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hsae_dagster.core.sparse_decode import (
    ActiveEntries,
    BatchCodes,
    active_values,
    group_by,
    largest_columns,
    largest_positions,
    row_starts,
)
from hsae_dagster.errors import MethodError


@dataclass(frozen=True)
class SAEConfig:
    """Everything that decides what an autoencoder becomes, given the embeddings.

    Attributes:
        m: neurons in all.
        k: neurons that may fire per text (on average per text if `batch_topk`).
        prefixes: Matryoshka prefixes: strictly increasing numbers of neurons, the last one m; None for none.
        batch_topk: keep the k·B largest activations of a batch of B texts instead of k per text; at inference a
            threshold calibrated after training takes their place.
        aux_k: dead neurons that try to explain the residual per text; None for min(2k, m).
        aux_coef: weight of that auxiliary loss.
        multi_k: neurons of a second, denser reconstruction; None for none.
        multi_coef: weight of the denser reconstruction's loss.
        dead_after_steps: training steps without firing after which a neuron counts as dead.
        batch_size: texts per training step.
        learning_rate: Adam's step size.
        max_epochs: most passes over the training texts.
        patience: epochs without improvement on validation before training stops.
        clip_grad: largest global gradient norm; None for no clipping.
        seed: start of the autoencoder's own random stream (initial weights, order of the texts).
        label_weight: weight λ of the label's prediction loss (see `guidance`); 0 where labels play no part.
        head_neurons: only so many neurons, the first ones, predict the label; None for all.
        distinct_weight: weight of the squared correlation among the neurons that predict the label.
        input_noise: noise added to training embeddings, as a multiple of their spread (see `input_noise`); 0 for none.
        start: where the decoder starts: `random` directions, as the reference does, or `centroids` of the training
            embeddings (see `sae_start`).

    Raises:
        MethodError: a setting is out of range or two settings contradict each other.
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
    clip_grad: float | None = 1.0
    seed: int = 0
    label_weight: float = 0.0
    head_neurons: int | None = None
    distinct_weight: float = 0.0
    input_noise: float = 0.0
    start: str = "random"

    def __post_init__(self) -> None:
        if self.prefixes is not None:
            object.__setattr__(self, "prefixes", tuple(int(end) for end in self.prefixes))
        for name in ("m", "k", "dead_after_steps", "max_epochs", "patience"):
            self._require(getattr(self, name) >= 1, name, "but must be at least 1")
        self._require(self.batch_size >= 2, "batch_size", "but must be at least 2: a batch of one text has no variance")
        self._require(self.k <= self.m, "k", f"and m is {self.m}, but k may be at most m; lower k or raise m")
        for name in ("aux_k", "multi_k", "head_neurons"):
            value = getattr(self, name)
            self._require(value is None or 1 <= value <= self.m, name, f"but must lie between 1 and m = {self.m}")
        for name in ("aux_coef", "multi_coef", "label_weight", "distinct_weight", "input_noise"):
            value = getattr(self, name)
            self._require(math.isfinite(value) and value >= 0, name, "but must be a finite number, at least 0")
        rate, clip = self.learning_rate, self.clip_grad
        self._require(math.isfinite(rate) and rate > 0, "learning_rate", "but must be a positive finite number")
        self._require(clip is None or clip > 0, "clip_grad", "but must be positive, or None for no clipping")
        self._require(self.seed >= 0, "seed", "but must be at least 0")
        self._require(self.start in ("random", "centroids"), "start", "but must be random or centroids")
        self._require(
            self.multi_coef == 0 or self.multi_k is not None,
            "multi_coef",
            f"but needs multi_k; set multi_k (4k = {4 * self.k} is a good start) or set multi_coef to 0",
        )
        self._check_prefixes()

    def _check_prefixes(self) -> None:
        if self.prefixes is None:
            return
        rising = all(a < b for a, b in zip((0, *self.prefixes), self.prefixes, strict=False))
        self._require(bool(self.prefixes) and rising, "prefixes", "but must be positive and rise strictly")
        self._require(self.prefixes[-1] == self.m, "prefixes", f"but must end at m = {self.m}; append {self.m}")

    def _require(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise MethodError(f"An autoencoder cannot be made: {name} is {getattr(self, name)} {rule}.")

    @property
    def effective_aux_k(self) -> int:
        """`aux_k`, or its default min(2k, m)."""
        return min(2 * self.k, self.m) if self.aux_k is None else self.aux_k

    @property
    def segments(self) -> tuple[int, ...]:
        """Ends of the Matryoshka prefixes; (m,) without them."""
        return self.prefixes or (self.m,)


@dataclass(frozen=True)
class EncodedBatch:
    """A batch after the encoder: its codes, and what further terms of the loss need.

    Attributes:
        codes: sparse codes, differentiable.
        centred: (n, d) x - input_bias, without graph.
        pre_activations: (n, m) before selection and ReLU, without graph.
    """

    codes: BatchCodes
    centred: Tensor
    pre_activations: Tensor


class SparseAutoencoder(nn.Module):
    """a = select(relu(E (x - b_in) + b)), x̂ = D^T a + b_in, with rows of D of unit length.

    Parameters (all contiguous): `encoder` E (m, d), `decoder` D (m, d; one row per neuron), `input_bias` b_in (d,),
    `neuron_bias` b (m,). Buffer `threshold` (): above it a neuron fires at inference if `config.batch_topk`; 0 until
    `sae_training` has calibrated it. Training mode or evaluation mode makes no difference, and nothing but the
    optimiser, the renormalisation and the calibration changes the state: encoding and decoding only read.
    """

    threshold: Tensor

    def __init__(self, config: SAEConfig, input_dim: int) -> None:
        """Create the module with zero weights; `initialise` or `sae_from_arrays` gives it values.

        Args:
            config: settings.
            input_dim: dimension d of the embeddings.
        """
        super().__init__()
        self.input_dim, self.config = input_dim, config
        self.encoder = nn.Parameter(torch.zeros(config.m, input_dim))
        self.decoder = nn.Parameter(torch.zeros(config.m, input_dim))
        self.input_bias = nn.Parameter(torch.zeros(input_dim))
        self.neuron_bias = nn.Parameter(torch.zeros(config.m))
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def initialise(self, input_bias: Tensor, generator: torch.Generator, directions: Tensor | None = None) -> None:
        """b_in as given; D Xavier-uniform or as given, rows of unit length; E = D; b = 0.

        Args:
            input_bias: (d,) median of each dimension of the training embeddings.
            generator: source of the decoder's values, on the CPU; no global random state is touched.
            directions: (m, d) for the decoder, none of them 0.
        """
        if directions is None:
            directions = torch.empty(self.decoder.shape, dtype=self.decoder.dtype)
            nn.init.xavier_uniform_(directions, generator=generator)
        self.decoder.copy_(directions)
        self.normalise_decoder()
        self.encoder.copy_(self.decoder)
        self.neuron_bias.zero_()
        self.input_bias.copy_(input_bias)

    @torch.no_grad()
    def normalise_decoder(self) -> None:
        """Scale every row of the decoder to unit length."""
        self.decoder.div_(torch.linalg.vector_norm(self.decoder, dim=1, keepdim=True))

    @torch.no_grad()
    def pre_activations(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Centred x - b_in (n, d), and E (x - b_in) + b (n, m), without graph."""
        centred = x - self.input_bias
        return centred, torch.addmm(self.neuron_bias, centred, self.encoder.T)

    def encode_batch(self, x: Tensor) -> EncodedBatch:
        """Codes of a batch as training selects them (batch top-k over this batch); x is (n, d)."""
        centred, pre = self.pre_activations(x)
        config = self.config
        if config.batch_topk:
            entries, selected = self._largest_of_batch(pre)
        else:
            entries, selected = self._largest_of_rows(pre, config.k, config.segments)
        return EncodedBatch(self._codes(entries, selected, centred), centred, pre)

    def top_codes(self, encoded: EncodedBatch, k: int, among: Tensor | None = None) -> BatchCodes:
        """Codes of the k largest pre-activations per row of an encoded batch.

        Args:
            encoded: the batch.
            k: entries per row.
            among: (q,) int64, the only neurons that compete (all without it); min(k, q) entries per row are kept.
        """
        pre = encoded.pre_activations if among is None else encoded.pre_activations[:, among]
        entries, selected = self._largest_of_rows(pre, min(k, pre.shape[1]), (self.config.m,), among)
        return self._codes(entries, selected, encoded.centred)

    def encode(self, x: Tensor) -> BatchCodes:
        """Codes of a batch (n, d) as inference has them: top-k per row, or everything above the threshold."""
        centred, pre = self.pre_activations(x)
        if self.config.batch_topk:
            entries, selected = self._above_threshold(pre)
        else:
            entries, selected = self._largest_of_rows(pre, self.config.k, (self.config.m,))
        return self._codes(entries, selected, centred)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction (n, d) of a batch from its inference codes."""
        return self.encode(x).decode(self.decoder) + self.input_bias

    def _codes(self, entries: ActiveEntries, selected: Tensor, centred: Tensor) -> BatchCodes:
        values = active_values(selected, centred, self.encoder, self.neuron_bias, self.input_bias, entries)
        return BatchCodes(values, entries)

    def _largest_of_rows(
        self, pre: Tensor, k: int, segments: tuple[int, ...], among: Tensor | None = None
    ) -> tuple[ActiveEntries, Tensor]:
        columns = largest_columns(pre, k)
        selected = pre.gather(1, columns)
        starts = torch.arange(0, columns.numel(), k, device=pre.device)
        rows = torch.arange(pre.shape[0], device=pre.device).repeat_interleave(k)
        columns = columns.flatten() if among is None else among[columns.flatten()]
        return self._lay_out(rows, columns, selected.flatten(), starts, segments)

    def _largest_of_batch(self, pre: Tensor) -> tuple[ActiveEntries, Tensor]:
        flat = pre.flatten()
        kept = largest_positions(flat, min(self.config.k * pre.shape[0], flat.numel())).sort().values
        rows = torch.div(kept, pre.shape[1], rounding_mode="floor")
        starts = row_starts(rows, pre.shape[0])
        return self._lay_out(rows, kept - rows * pre.shape[1], flat[kept], starts, self.config.segments)

    def _above_threshold(self, pre: Tensor) -> tuple[ActiveEntries, Tensor]:
        rows, columns = (pre > self.threshold.clamp(min=0)).nonzero(as_tuple=True)
        return self._lay_out(rows, columns, pre[rows, columns], row_starts(rows, pre.shape[0]), (self.config.m,))

    def _lay_out(
        self, rows: Tensor, columns: Tensor, selected: Tensor, starts: Tensor, segments: tuple[int, ...]
    ) -> tuple[ActiveEntries, Tensor]:
        """Entries given row by row (row r from starts[r] on), regrouped by segment where there are several."""
        n, n_rows, bags = len(segments), len(starts), rows
        if n > 1:
            ends = torch.tensor(segments[:-1], device=columns.device)
            keys = torch.bucketize(columns, ends, right=True) * n_rows + rows
            order, starts = group_by(keys, n_rows * n)
            bags, columns, selected = keys[order], columns[order], selected[order]
        return ActiveEntries(columns, bags, starts, n, self.config.m), selected


def state_to_arrays(sae: SparseAutoencoder) -> dict[str, np.ndarray]:
    """Weights as contiguous float32 arrays by name, and the threshold (1,) of a batch-top-k autoencoder."""
    arrays = {name: value.detach() for name, value in sae.named_parameters()}
    if sae.config.batch_topk:
        arrays["threshold"] = sae.threshold.detach().reshape(1)
    return {name: np.array(value.cpu().float().numpy(), order="C") for name, value in arrays.items()}


def sae_from_arrays(config: SAEConfig, arrays: Mapping[str, np.ndarray]) -> SparseAutoencoder:
    """The autoencoder (CPU, float32) of weights as `state_to_arrays` names them.

    Raises:
        MethodError: an array is missing, has another shape than the config says, or holds NaN or infinity.
    """
    needed = ["encoder", "decoder", "input_bias", "neuron_bias"] + ["threshold"] * config.batch_topk
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise MethodError(f"The autoencoder's weights lack {', '.join(missing)}; train it again.")
    d = int(np.asarray(arrays["input_bias"]).size)
    sae = SparseAutoencoder(config, d)
    targets = {**dict(sae.named_parameters()), "threshold": sae.threshold}
    for name in needed:
        array = np.array(arrays[name], dtype=np.float32)
        expected = tuple(targets[name].shape)
        if array.shape != expected and not (name == "threshold" and array.size == 1):
            raise MethodError(
                f"The autoencoder's {name} has shape {array.shape}, which does not fit m = {config.m} and d = {d}; "
                "use the configuration that it was trained with."
            )
        if not np.isfinite(array).all():
            raise MethodError(f"The autoencoder's {name} holds NaN or infinity; train it again.")
        targets[name].data.copy_(torch.from_numpy(array.reshape(expected)))
    return sae
