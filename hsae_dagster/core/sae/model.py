"""The sparse autoencoder: settings, parameters, which neurons fire, and the codes of a corpus.

Products of sparse codes with a weight matrix, and their gradients, are made without ever forming the dense codes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from hsae_dagster.core.sae.config import SAEConfig
from hsae_dagster.errors import MethodError

# Keys below this fit 16 bits, for which numpy's stable sort is a radix sort: ten times faster than a comparison sort.
_RADIX_KEYS = 2**16
# A flattened batch with more entries than this is searched for its largest ones behind a sampled lower bound.
_SAMPLED_ABOVE = 2**16
_SAMPLE_STRIDE = 61  # odd: with m a power of two every column is met


def group_by(keys: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Stable order (nnz,) int64 that brings equal keys (nnz,), int64 in [0, n_groups), together; and where each begins.

    With the second, starts (n_groups,) int64, group g is ``order[starts[g]:starts[g + 1]]``.
    """
    if keys.device.type == "cpu" and n_groups <= _RADIX_KEYS:
        order = torch.from_numpy(np.argsort(keys.numpy().astype(np.uint16), kind="stable"))
    else:
        order = torch.argsort(keys, stable=True)
    return order, row_starts(keys, n_groups)


def row_starts(rows: Tensor, n_rows: int) -> Tensor:
    """Number of entries before each row (n_rows,), given the row of each entry (nnz,)."""
    counts = torch.bincount(rows, minlength=n_rows)
    return torch.cumsum(counts, 0) - counts


def largest_columns(values: Tensor, k: int) -> Tensor:
    """Columns (n, k) int64 of the k largest values of each row of a (n, m) tensor without graph, in any order.

    On a CPU numpy's vectorised partition finds each row's k-th value, in a fifth of the time of `torch.topk`; where
    values tie with it, `torch.topk` decides which of them are kept.
    """
    n, m = values.shape
    if values.device.type == "cpu" and k < m:
        array = values.numpy()
        bound = np.partition(array, m - k, axis=1)[:, m - k, None]
        passing = np.flatnonzero(array >= bound)
        if len(passing) == n * k:
            return torch.from_numpy(passing.reshape(n, k) - np.arange(0, n * m, m)[:, None])
    return torch.topk(values, k, dim=1, sorted=False).indices


def largest_positions(flat: Tensor, count: int) -> Tensor:
    """Positions (count,) of the largest values of a flat tensor, exactly, in any order.

    A sample gives a lower bound that about 1.5 · count values pass; where it was too high, all values are searched.
    """
    if flat.numel() > _SAMPLED_ABOVE:
        sample = flat[::_SAMPLE_STRIDE]
        rank = int(1.5 * count / _SAMPLE_STRIDE) + 8
        if rank < sample.numel():
            bound = torch.topk(sample, rank, sorted=True).values[-1]
            passing = (flat >= bound).nonzero().squeeze(1)
            if passing.numel() >= count:
                return passing[torch.topk(flat[passing], count, sorted=False).indices]
    return torch.topk(flat, count, sorted=False).indices


@dataclass(frozen=True)
class ActiveEntries:
    """Where the codes of a batch may be non-zero, grouped into bags of entries that are summed together.

    A bag is a (segment, row): the segments cut the neurons at the Matryoshka prefixes, and without prefixes there is
    one segment, so that a bag is a row. Segments come first, so that what one segment decodes to is contiguous.

    Attributes:
        columns: (nnz,) int64, neuron of each entry.
        bags: (nnz,) int64, ascending, ``segment * n_rows + row``.
        bag_starts: (n_segments * n_rows,) int64, first entry of each bag.
        n_columns: number of neurons m.
    """

    columns: Tensor
    bags: Tensor
    bag_starts: Tensor
    n_segments: int
    n_columns: int

    @property
    def n_rows(self) -> int:
        """Rows of the batch."""
        return self.bag_starts.shape[0] // self.n_segments

    @cached_property
    def rows(self) -> Tensor:
        """(nnz,) int64, row of each entry, ascending within each segment."""
        return self.bags if self.n_segments == 1 else self.bags % self.n_rows

    @cached_property
    def by_column(self) -> tuple[Tensor, Tensor]:
        """Order of the entries by neuron, and the first entry of each neuron: the transposed layout."""
        return group_by(self.columns, self.n_columns)

    def sum_by_column(self, values: Tensor, table: Tensor, positions: Tensor) -> Tensor:
        """(m, d): for each neuron, the sum of ``values[e] * table[positions[e]]`` over its entries e."""
        order, starts = self.by_column
        return _bag_sum(
            table.detach(), positions.index_select(0, order), starts, values.detach().index_select(0, order)
        )


@dataclass(frozen=True)
class BatchCodes:
    """The codes of one batch, sparse and differentiable.

    Attributes:
        values: (nnz,) activations >= 0 (some may be 0: a row may have fewer than k positive pre-activations).
        entries: where they are.
    """

    values: Tensor
    entries: ActiveEntries

    def decode(self, weight: Tensor) -> Tensor:
        """Codes @ weight (n_rows, q), for any weight (m, q); differentiable in the codes and in the weight."""
        parts = self.decode_segments(weight)
        return parts[0] if self.entries.n_segments == 1 else parts.sum(dim=0)

    def decode_segments(self, weight: Tensor) -> Tensor:
        """What each segment of neurons contributes to codes @ weight: (n_segments, n_rows, q)."""
        entries = self.entries
        flat = _bag_sum(weight.detach(), entries.columns, entries.bag_starts, self.values)
        if weight.requires_grad and torch.is_grad_enabled():
            flat = _AddWeightGradient.apply(flat, weight, self.values.detach(), entries)
        return flat.view(entries.n_segments, entries.n_rows, weight.shape[1])


def _bag_sum(table: Tensor, positions: Tensor, starts: Tensor, weights: Tensor) -> Tensor:
    return functional.embedding_bag(positions, table, starts, mode="sum", per_sample_weights=weights)


class _AddWeightGradient(torch.autograd.Function):
    """Identity on the decoded bags whose backward pass adds the gradient of the weight.

    The gradient of the values comes from `embedding_bag` itself; its own gradient of the table would scatter entry by
    entry, where a sum over the transposed layout is a second `embedding_bag`.
    """

    @staticmethod
    def forward(ctx: Any, bags: Tensor, weight: Tensor, values: Tensor, entries: ActiveEntries) -> Tensor:
        ctx.save_for_backward(values)
        ctx.entries = entries
        return bags.view_as(bags)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (values,) = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_weight = ctx.entries.sum_by_column(values, gradient, ctx.entries.bags)
        return gradient, of_weight, None, None


class _ActiveValues(torch.autograd.Function):
    """ReLU (nnz,) of pre-activations at the active entries, with sparse gradients for the encoder and both biases.

    ``pre_activations`` (nnz,) are the values of ``encoder @ centred + neuron_bias`` there, ``centred`` (n, d) is
    ``x - input_bias``; neither has a graph.
    """

    @staticmethod
    def forward(
        ctx: Any,
        pre_activations: Tensor,
        centred: Tensor,
        encoder: Tensor,
        neuron_bias: Tensor,
        input_bias: Tensor,
        entries: ActiveEntries,
    ) -> Tensor:
        values = pre_activations.relu()
        ctx.save_for_backward(values, centred, encoder)
        ctx.entries = entries
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, centred, encoder = ctx.saved_tensors
        entries: ActiveEntries = ctx.entries
        passed = gradients[0] * (values > 0)
        of_encoder = entries.sum_by_column(passed, centred, entries.rows)
        # A table of one 1 turns the sum of rows into a plain sum by neuron, in a fixed order also on a GPU.
        one = values.new_ones(1, 1)
        of_neuron_bias = entries.sum_by_column(passed, one, torch.zeros_like(entries.rows))[:, 0]
        of_input_bias = -(of_neuron_bias @ encoder)
        return None, None, of_encoder, of_neuron_bias, of_input_bias, None


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
    `core.sae.training` has calibrated it. Training mode or evaluation mode makes no difference, and nothing but the
    optimiser, the renormalisation and the calibration changes the state: encoding and decoding only read.
    """

    threshold: Tensor

    def __init__(self, config: SAEConfig, input_dim: int) -> None:
        """Create the module with zero weights; `initialise` or `sae_from_arrays` gives it values."""
        super().__init__()
        self.input_dim, self.config = input_dim, config
        self.encoder = nn.Parameter(torch.zeros(config.m, input_dim))
        self.decoder = nn.Parameter(torch.zeros(config.m, input_dim))
        self.input_bias = nn.Parameter(torch.zeros(input_dim))
        self.neuron_bias = nn.Parameter(torch.zeros(config.m))
        self.register_buffer("threshold", torch.tensor(0.0))

    @torch.no_grad()
    def initialise(self, input_bias: Tensor, generator: torch.Generator, directions: Tensor | None = None) -> None:
        """b_in (d,) as given; D Xavier-uniform or directions (m, d), none of them 0, at unit length; E = D; b = 0.

        The generator is on the CPU; no global random state is touched.
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

        With `among` (q,) int64 only these neurons compete, and min(k, q) entries per row are kept.
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
        if not torch.is_grad_enabled():
            return BatchCodes(selected.relu(), entries)
        parameters = self.encoder, self.neuron_bias, self.input_bias
        return BatchCodes(_ActiveValues.apply(selected, centred, *parameters, entries), entries)

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


# Pre-activations held at once: 8 MB of float32. Larger blocks are slower: they leave the cache.
_BLOCK_ELEMENTS = 2**21


@torch.no_grad()
def encode(sae: SparseAutoencoder, embeddings: np.ndarray, *, batch_size: int = 8192) -> sp.csr_matrix:
    """Activations of texts by embeddings (n, d) float32: (n, m) CSR in the autoencoder's precision, columns ascending.

    Only activations > 0 are stored. The autoencoder is left as it was, and computes where it is. `batch_size` texts are
    encoded at once, fewer where m is large.

    Raises:
        MethodError: the dimension is not the autoencoder's, or an embedding is not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[1] != sae.input_dim:
        raise MethodError(
            f"The embeddings have shape {embeddings.shape}, but the autoencoder was trained on {sae.input_dim} "
            "dimensions; use the embedding model that it was trained with."
        )
    m, dtype = sae.config.m, sae.encoder.dtype
    size = max(1, min(batch_size, _BLOCK_ELEMENTS // m))
    blocks = []
    for start in range(0, len(embeddings), size):
        block = embeddings[start : start + size]
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise MethodError(f"The embedding of row {row} is not finite. Embed the texts again.")
        blocks.append(_encode_block(sae, torch.tensor(block, dtype=dtype, device=sae.encoder.device)))
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
