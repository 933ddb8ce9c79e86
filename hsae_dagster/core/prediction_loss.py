"""The label's prediction loss of a batch of texts, from the scores of a linear head.

Belongs here: which observations lie within a batch, their loss and its gradient. Does not belong here: the head, labels
and their controls, batches (`guidance`).

Left to autograd and to dozens of small tensor operations, this costs a fifth of a small autoencoder's whole step. So
the places of observations are found by numpy, and the gradient of the scores is written down beside the loss.
"""

from dataclasses import dataclass

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
        # Where no text begins two observations: the one it begins, or -1.
        self.only: np.ndarray | None = None
        if self.counts.max(initial=0) <= 1:
            self.only = np.where(self.counts == 1, self.starts, -1)
        self.second = None if rows.second is None else rows.second[order]
        # Where each text lies in the batch; all -1 between two calls.
        self.place = np.full(rows.n_texts, -1)
        self.target = torch.from_numpy(rows.target[order]).to(dtype).to(device)
        offset = torch.from_numpy(rows.offset[order]).to(dtype).to(device)
        self.offset = offset if rows.offset.any() else None
        self.texts_per_observation = rows.n_texts / max(len(order), 1)

    def __call__(self, scores: Tensor, rows: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """`weight` times the loss, a scalar, and its gradient in the scores (n,) of the head at these rows (n,).

        Neither has a graph: the gradient is written down, since autograd would take longer than both.
        """
        chosen, first, second = (rows, None, None) if self.single else self._within(rows)
        target = self.target.index_select(0, chosen)
        scale = weight * self.texts_per_observation / len(rows)
        values = scores if first is None else scores.index_select(0, first)
        if second is not None:
            values = values - scores.index_select(0, second)
        if self.offset is not None:
            values = values + self.offset.index_select(0, chosen)
        if self.regression:
            error = values - target
            loss, slope = torch.dot(error, error) * scale, error.mul_(2 * scale)
        else:
            loss = functional.binary_cross_entropy_with_logits(values, target, reduction="sum") * scale
            slope = values.sigmoid().sub_(target).mul_(scale)
        if first is None:
            return loss, slope
        of_scores = scores.new_zeros(len(scores)).index_add_(0, first, slope)
        if second is not None:
            of_scores.index_add_(0, second, slope, alpha=-1)
        return loss, of_scores

    def _within(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Observations within the batch, the place of their (first) text in it, and that of their second."""
        texts = rows.cpu().numpy()
        if self.only is None:
            counts = self.counts[texts]
            ends = np.cumsum(counts)
            first = np.repeat(np.arange(len(texts)), counts)
            chosen = np.arange(len(first)) + np.repeat(self.starts[texts] - ends + counts, counts)
        else:
            begun = self.only[texts]
            first = np.flatnonzero(begun >= 0)
            chosen = begun[first]
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
