"""The two products of a sparse autoencoder's step that are worth doing sparsely, with their gradients.

Belongs here: picking pre-activations and decoding them as autograd functions. Does not belong here: which neurons
fire (`core.sae`) or the training loop.

Of the nine dense products of a naive step only the encoder's forward one remains. Decoding sums K decoder rows per
text; both weight gradients sum rows per neuron, over the same entries sorted by neuron. All of it is `embedding_bag`.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F


class Entries(NamedTuple):
    """Positions of picked neurons, row by row.

    Attributes:
        rows: (e,) int64, ascending text of each entry.
        columns: (e,) int64, neuron of each entry.
        row_starts: (texts,) int64, first entry of each text.
        n_neurons: number of neurons.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    row_starts: torch.Tensor
    n_neurons: int

    def by_neuron(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Order that sorts entries by neuron, and the first entry of each neuron in it."""
        counts = torch.bincount(self.columns, minlength=self.n_neurons)
        starts = torch.cumsum(counts, 0) - counts
        return torch.argsort(self.columns, stable=True), starts


def entries_of_topk(indices: torch.Tensor, n_neurons: int) -> Entries:
    """Entries of (texts, k) neuron indices."""
    texts, k = indices.shape
    rows = torch.arange(texts, device=indices.device)
    return Entries(rows.repeat_interleave(k), indices.reshape(-1), rows * k, n_neurons)


def entries_of_flat(positions: torch.Tensor, texts: int, n_neurons: int) -> Entries:
    """Entries of positions in a flattened (texts, neurons) matrix; a text may have any number of them."""
    positions = torch.sort(positions).values
    rows = torch.div(positions, n_neurons, rounding_mode="floor")
    counts = torch.bincount(rows, minlength=texts)
    return Entries(rows, positions - rows * n_neurons, torch.cumsum(counts, 0) - counts, n_neurons)


def keep_entries(entries: Entries, mask: torch.Tensor, texts: int) -> Entries:
    """The entries where `mask` holds."""
    rows = entries.rows[mask]
    counts = torch.bincount(rows, minlength=texts)
    return Entries(rows, entries.columns[mask], torch.cumsum(counts, 0) - counts, entries.n_neurons)


def _sum_rows(rows: torch.Tensor, table: torch.Tensor, starts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return F.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights)


class _Pick(torch.autograd.Function):
    """Values of W (x - b_pre) + b_enc at the entries, given the product; gradients without the dense matrix."""

    @staticmethod
    def forward(
        ctx: Any,
        product: torch.Tensor,
        centred: torch.Tensor,
        weight: torch.Tensor,
        neuron_bias: torch.Tensor,
        input_bias: torch.Tensor,
        entries: Entries,
    ) -> torch.Tensor:
        ctx.save_for_backward(centred, weight)
        ctx.entries = entries
        return product[entries.rows, entries.columns]

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        centred, weight = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad = grads[0].contiguous()
        order, starts = entries.by_neuron()
        d_weight = _sum_rows(entries.rows[order], centred, starts, grad[order])
        d_neuron_bias = torch.zeros(entries.n_neurons, dtype=grad.dtype, device=grad.device)
        d_neuron_bias.index_add_(0, entries.columns, grad)
        return None, None, d_weight, d_neuron_bias, -(d_neuron_bias @ weight), None


class _Decode(torch.autograd.Function):
    """Sum of value times decoder row over each text's entries."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, decoder: torch.Tensor, entries: Entries) -> torch.Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.entries = entries
        return _sum_rows(entries.columns, decoder, entries.row_starts, values)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, decoder = ctx.saved_tensors
        entries: Entries = ctx.entries
        grad = grads[0].contiguous()
        order, starts = entries.by_neuron()
        d_decoder = _sum_rows(entries.rows[order], grad, starts, values[order])
        # The inner products <grad of text, decoder row> are embedding_bag's own gradient for its weights; asking
        # autograd for them avoids both a private operator and a (texts, k, d) gather.
        with torch.enable_grad():
            again = values.detach().requires_grad_()
            out = _sum_rows(entries.columns, decoder.detach(), entries.row_starts, again)
        (d_values,) = torch.autograd.grad(out, again, grad)
        return d_values, d_decoder, None


def pick(
    product: torch.Tensor,
    centred: torch.Tensor,
    weight: torch.Tensor,
    neuron_bias: torch.Tensor,
    input_bias: torch.Tensor,
    entries: Entries,
) -> torch.Tensor:
    """Pre-activations at the entries, (e,).

    Args:
        product: (texts, neurons), W (x - b_pre) + b_enc, computed without gradient.
        centred: (texts, d), x - b_pre, without gradient.
        weight: (neurons, d) encoder.
        neuron_bias: (neurons,).
        input_bias: (d,).
        entries: what to pick.
    """
    return _Pick.apply(product, centred, weight, neuron_bias, input_bias, entries)  # type: ignore[no-any-return]


def decode(values: torch.Tensor, decoder: torch.Tensor, entries: Entries) -> torch.Tensor:
    """Reconstruction without bias, (texts, d), of values (e,) at the entries by a row-major decoder (neurons, d)."""
    return _Decode.apply(values, decoder, entries)  # type: ignore[no-any-return]
