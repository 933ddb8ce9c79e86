"""The label's prediction loss of a batch of texts, from the scores of a linear head.

Belongs here: which observations lie within a batch, their loss and its gradient. Does not belong here: the head, labels
and their controls, batches (`guidance`).

Left to autograd and to dozens of small tensor operations, this costs a fifth of a small autoencoder's whole step. So
the places of observations are found by numpy, and the gradient of the scores is written down beside the loss.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LabelledRows:
    """The observations of one split, pointing to rows of that split's embeddings.

    Attributes:
        n_texts: rows of the embeddings.
        first: (n_observations,) int64, row of the text, or of text A.
        second: the same of text B; None where observations are single texts.
        target: (n_observations,) float64: the standardised label less what controls explain (regression), or 0 and 1.
        offset: (n_observations,) float64 log-odds that controls explain; zeros for regression and pairs.
    """

    n_texts: int
    first: np.ndarray
    second: np.ndarray | None
    target: np.ndarray
    offset: np.ndarray


class PredictionLoss:
    """Mean prediction loss over the observations of a split, estimated from those that lie within a batch of texts.

    A batch's sum is scaled by texts per batch and observations per text, so that its expectation is the mean over all
    observations however many a text has. A pair counts in the batch that holds both of its texts.
    """

    def __init__(self, rows: LabelledRows, task: str, dtype: torch.dtype, device: str) -> None:
        order = np.argsort(rows.first, kind="stable")
        self.regression = task == "regression"
        self.counts = np.bincount(rows.first, minlength=rows.n_texts)
        self.starts = np.cumsum(self.counts) - self.counts
        self.single = rows.second is None and bool((self.counts == 1).all())
        self.second = None if rows.second is None else rows.second[order]
        # Where each text lies in the batch; all -1 between two calls.
        self.place = np.full(rows.n_texts, -1)
        self.target = torch.from_numpy(rows.target[order]).to(device=device, dtype=dtype)
        offset = torch.from_numpy(rows.offset[order]).to(device=device, dtype=dtype)
        self.offset = offset if rows.offset.any() else None
        self.texts_per_observation = rows.n_texts / max(len(order), 1)

    def __call__(self, scores: Tensor, rows: Tensor, weight: float = 1.0) -> Tensor:
        """`weight` times the loss, differentiable in the scores (n,) of the head at these rows (n,) of the texts."""
        chosen, first, second = (rows, None, None) if self.single else self._within(rows)
        target = self.target.index_select(0, chosen)
        offset = None if self.offset is None else self.offset.index_select(0, chosen)
        scale = weight * self.texts_per_observation / len(rows)
        found: Tensor = _Loss.apply(scores, first, second, target, offset, scale, self.regression)
        return found

    def _within(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Observations within the batch, the place of their (first) text in it, and that of their second."""
        texts = rows.cpu().numpy()
        counts = self.counts[texts]
        ends = np.cumsum(counts)
        first = np.repeat(np.arange(len(texts)), counts)
        chosen = np.arange(len(first)) + np.repeat(self.starts[texts] - ends + counts, counts)
        second = None
        if self.second is not None:
            self.place[texts] = np.arange(len(texts))
            second = self.place[self.second[chosen]]
            self.place[texts] = -1
            both = np.flatnonzero(second >= 0)
            chosen, first, second = chosen[both], first[both], second[both]

        def put(part: np.ndarray) -> Tensor:
            return torch.from_numpy(part).to(rows.device)

        return put(chosen), put(first), None if second is None else put(second)


class _Loss(torch.autograd.Function):
    """Scaled sum of the losses of observations: squared errors, or logistic losses."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        first: Tensor | None,
        second: Tensor | None,
        target: Tensor,
        offset: Tensor | None,
        scale: float,
        regression: bool,
    ) -> Tensor:
        values = scores if first is None else scores.index_select(0, first)
        if second is not None:
            values = values - scores.index_select(0, second)
        if offset is not None:
            values = values + offset
        if regression:
            error = values - target
            loss, slope = torch.dot(error, error) * scale, error.mul_(2 * scale)
        else:
            loss = functional.binary_cross_entropy_with_logits(values, target, reduction="sum") * scale
            slope = values.sigmoid().sub_(target).mul_(scale)
        if first is not None:
            at_observations, slope = slope, scores.new_zeros(len(scores))
            slope.index_add_(0, first, at_observations)
            if second is not None:
                slope.index_add_(0, second, at_observations, alpha=-1)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return slope * gradients[0], None, None, None, None, None, None
