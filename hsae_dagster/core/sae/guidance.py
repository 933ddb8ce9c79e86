"""Guiding an autoencoder by the label: the prediction loss of a linear head on the codes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from hsae_dagster.core.observations import control_columns, is_pairwise, text_rows
from hsae_dagster.core.sae.model import ActiveEntries, BatchCodes, SAEConfig
from hsae_dagster.core.sae.training import ExtraLoss, shuffled_batches
from hsae_dagster.errors import MethodError


@dataclass(frozen=True)
class LabelledRows:
    """The observations of one split, pointing to the `n_texts` rows of that split's embeddings.

    Attributes:
        first, second: (n_observations,) int64 rows of the text, or of texts A and B; `second` is None for single texts.
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


_TINY = 1e-12


def labelled_rows(
    task: str, training: tuple[pl.Series, pl.DataFrame], validation: tuple[pl.Series, pl.DataFrame]
) -> tuple[LabelledRows, LabelledRows]:
    """Labels of both splits as guidance reads them; scale and controls are fitted on training rows alone.

    A split is the keys of its texts, ascending, and its observations.

    Raises:
        MethodError: the training label has one value only, or an observation points to a text that is not there.
    """
    observed = pl.concat([training[1], validation[1]])
    cut = training[1].height
    label = observed["label"].to_numpy().astype(np.float64)
    if len(np.unique(label[:cut])) < 2:
        raise MethodError(
            f"The label has {len(np.unique(label[:cut]))} value on training texts, so it cannot guide an "
            "autoencoder. Check columns.label and the splits, or set label_weight to 0."
        )
    columns = control_columns(observed)
    controls = np.column_stack(columns) if columns else np.empty((len(label), 0))
    target, offset = label, np.zeros(len(label))
    if task == "regression":
        target = _standardised(_residual(label, controls, cut), cut)
    elif task == "classification":
        offset = _log_odds(label, controls, cut)
    parts = (slice(0, cut), slice(cut, None))
    first, second = (
        _rows_of(*split, target[part], offset[part]) for split, part in zip((training, validation), parts, strict=True)
    )
    return first, second


def _rows_of(ids: pl.Series, observations: pl.DataFrame, target: np.ndarray, offset: np.ndarray) -> LabelledRows:
    if is_pairwise(observations):
        first, second = (text_rows(ids, observations[side]) for side in ("text_id_a", "text_id_b"))
        return LabelledRows(len(ids), first, second, target, offset)
    return LabelledRows(len(ids), text_rows(ids, observations["text_id"]), None, target, offset)


def _residual(label: np.ndarray, controls: np.ndarray, cut: int) -> np.ndarray:
    """The label less its least-squares prediction from controls, fitted on the first `cut` rows."""
    design = np.column_stack([np.ones(len(label)), controls])
    return label - design @ np.linalg.lstsq(design[:cut], label[:cut], rcond=None)[0]


def _standardised(values: np.ndarray, cut: int) -> np.ndarray:
    spread = float(values[:cut].std())
    return (values - values[:cut].mean()) / (spread if spread > _TINY else 1.0)


def _log_odds(label: np.ndarray, controls: np.ndarray, cut: int) -> np.ndarray:
    """Log-odds of the positive class given controls (given nothing, without controls), fitted on the first rows."""
    share = float(np.clip(label[:cut].mean(), 1e-6, 1 - 1e-6))
    if not controls.shape[1]:
        return np.full(len(label), np.log(share / (1 - share)))
    from sklearn.linear_model import LogisticRegression

    centre, scale = controls[:cut].mean(axis=0), controls[:cut].std(axis=0)
    scaled = (controls - centre) / np.where(scale > _TINY, scale, 1.0)
    # So light a penalty only keeps separated classes finite.
    model = LogisticRegression(C=100.0, max_iter=1000).fit(scaled[:cut], label[:cut])
    return np.asarray(model.decision_function(scaled), dtype=np.float64)


class LabelHead(nn.Module):
    """head(z) = z · weight + bias; pairs need no bias.

    Parameters: `weight` (m,), `bias` (1,); both start at zero.
    """

    def __init__(self, config: SAEConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(config.m))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, codes: BatchCodes) -> Tensor:
        """Scores (n_rows,)."""
        return _head_scores(codes.values, self.weight, self.bias, codes.entries)[0]

    def loss(self, codes: BatchCodes, rows: Tensor, of_scores: PredictionLoss, weight: float) -> Tensor:
        """`weight` times the loss of the scores at these rows (n_rows,), differentiable in codes, weight and bias."""
        found: Tensor = _HeadLoss.apply(
            codes.values, self.weight, self.bias, codes.entries, partial(of_scores, rows=rows, weight=weight)
        )
        return found

    def arrays(self) -> dict[str, np.ndarray]:
        """Weight (m,) and bias (1,) as float32, for the record."""
        return {name: value.detach().cpu().float().numpy() for name, value in self.named_parameters()}


def _head_scores(values: Tensor, weight: Tensor, bias: Tensor, entries: ActiveEntries) -> tuple[Tensor, Tensor]:
    """Scores z · w + b (n_rows,) from the active entries alone, and the weight at each of them (nnz,)."""
    at_entries = weight.index_select(0, entries.columns)
    return _sum_at(values * at_entries, entries.rows, entries.n_rows) + bias, at_entries


class _HeadLoss(torch.autograd.Function):
    """Head and loss in one step, whose backward pass is two sums over the active entries; autograd makes dozens."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        weight: Tensor,
        bias: Tensor,
        entries: ActiveEntries,
        of_scores: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> Tensor:
        scores, at_entries = _head_scores(values, weight, bias, entries)
        loss, slope = of_scores(scores)
        ctx.save_for_backward(values, at_entries, slope)
        ctx.entries = entries
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        values, at_entries, slope = ctx.saved_tensors
        slope = slope * gradients[0]
        of_rows = slope.index_select(0, ctx.entries.rows)
        of_weight = _sum_at(of_rows * values, ctx.entries.columns, ctx.entries.n_columns)
        return of_rows * at_entries, of_weight, slope.sum().reshape(1), None, None


def _sum_at(values: Tensor, places: Tensor, size: int) -> Tensor:
    """(size,) sums of values (q,) by place (q,)."""
    return values.new_zeros(size).index_add_(0, places, values)


def guidance(
    config: SAEConfig, task: str, training: LabelledRows, validation: LabelledRows | None, device: str = "cpu"
) -> tuple[ExtraLoss, LabelHead]:
    """The term that `core.sae.training.train_sae` adds for `config.label_weight`, and the head it learns.

    Without labels of validation texts early stopping is left to the training texts.
    """
    head = LabelHead(config).to(device)
    losses = {}
    for name, rows in (("training", training), ("validation", validation)):
        if rows is not None:
            losses[name] = PredictionLoss(rows, task, head.weight.dtype, device)

    def of(split: str) -> Callable[[BatchCodes, Tensor], Tensor]:
        return lambda codes, rows: head.loss(codes, rows, losses[split], config.label_weight)

    extra = ExtraLoss(
        train=of("training"),
        validation=None if validation is None else of("validation"),
        parameters=list(head.parameters()),
        batches=None if training.second is None else PairedBatches(training).batches,
    )
    return extra, head


def side_by_side(rows: LabelledRows) -> tuple[np.ndarray, LabelledRows]:
    """An order (n_texts,) of the texts that keeps the two of a pair close, and the observations in that order.

    For validation texts, which are read in blocks: a pair that a border parts cannot be judged.
    """
    if rows.second is None:
        return np.arange(rows.n_texts), rows
    order = PairedBatches(rows).order(torch.Generator().manual_seed(0))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return order, replace(rows, first=place[rows.first], second=place[rows.second])


class PairedBatches:
    """Shuffled batches of all texts in which the two texts of a pair meet.

    Texts that pairs connect stay together in random order, and so do the groups. Every text comes once an epoch. A
    pair misses an epoch only where a border between batches parts it: rarely if groups are small beside a batch; within
    a large group, each epoch draws anew which pairs meet.
    """

    def __init__(self, rows: LabelledRows) -> None:
        from scipy.sparse import csr_array
        from scipy.sparse.csgraph import connected_components

        if rows.second is None:
            raise MethodError("Only observations of two texts can meet in a batch.")
        links = csr_array((np.ones(len(rows.first)), (rows.first, rows.second)), shape=(rows.n_texts, rows.n_texts))
        self.groups = connected_components(links, directed=False)[1]
        self.pairs = np.column_stack([rows.first, rows.second])

    def order(self, generator: torch.Generator) -> np.ndarray:
        """(n_texts,) a new order of the texts."""
        walk = self.pairs[torch.randperm(len(self.pairs), generator=generator).numpy()].ravel()
        first_seen = np.full(len(self.groups), len(walk), dtype=np.int64)
        np.minimum.at(first_seen, walk, np.arange(len(walk)))
        place_of_group = torch.randperm(int(self.groups.max()) + 1, generator=generator).numpy()
        return np.lexsort((first_seen, place_of_group[self.groups]))

    def batches(self, n: int, size: int, generator: torch.Generator, device: torch.device) -> Iterator[Tensor]:
        """As `core.sae.training.shuffled_batches`."""
        return shuffled_batches(n, size, generator, device, torch.from_numpy(self.order(generator)))
