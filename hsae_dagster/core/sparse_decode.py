"""Products of sparse codes with a weight matrix, and their gradients, without ever forming the dense codes.

Belongs here: the layout of one batch's active entries, the values at those entries as a differentiable function of the
encoder, and the decode as a differentiable function of the values and the decoder. Does not belong here: which entries
are active (`sae`), any loss (`sae_loss`), any optimiser.

Only n·k of the n·m codes of a batch are non-zero, so each of the products below is a sum of a few weighted rows of a
table. `torch.nn.functional.embedding_bag` does exactly that; a gradient with respect to the table is the same sum over
the transposed layout. Only the encoder's forward pass needs a dense product: every pre-activation competes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# Keys below this fit 16 bits, for which numpy's stable sort is a radix sort: ten times faster than a comparison sort.
_RADIX_KEYS = 2**16
# A flattened batch with more entries than this is searched for its largest ones behind a sampled lower bound.
_SAMPLED_ABOVE = 2**16
_SAMPLE_STRIDE = 61  # odd: with m a power of two every column is met


def group_by(keys: Tensor, n_groups: int) -> tuple[Tensor, Tensor]:
    """Stable order that brings equal keys together.

    Args:
        keys: (nnz,) int64 in [0, n_groups).
        n_groups: number of groups, empty ones included.

    Returns:
        order (nnz,) int64 and starts (n_groups,) int64: group g is ``order[starts[g]:starts[g + 1]]``.
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
        n_segments: segments per row.
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

    def to_dense(self) -> Tensor:
        """(n_rows, m); for tests and small batches."""
        dense = self.values.new_zeros(self.entries.n_rows, self.entries.n_columns)
        return dense.index_put((self.entries.rows, self.entries.columns), self.values)


def active_values(
    pre_activations: Tensor,
    centred: Tensor,
    encoder: Tensor,
    neuron_bias: Tensor,
    input_bias: Tensor,
    entries: ActiveEntries,
) -> Tensor:
    """ReLU of the pre-activations at the active entries, differentiable in encoder and biases.

    Args:
        pre_activations: (nnz,) values of ``encoder @ (x - input_bias) + neuron_bias`` at the entries, without graph.
        centred: (n, d) ``x - input_bias``, without graph.
        encoder: (m, d) parameter.
        neuron_bias: (m,) parameter.
        input_bias: (d,) parameter.
        entries: the active entries.

    Returns:
        (nnz,) activations; gradients flow to the three parameters.
    """
    if not torch.is_grad_enabled():
        return pre_activations.relu()
    return _ActiveValues.apply(pre_activations, centred, encoder, neuron_bias, input_bias, entries)


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
    """ReLU of selected pre-activations with sparse gradients for the encoder and both biases."""

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
