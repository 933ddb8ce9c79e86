"""The joint model: each concept's effect beside the others and the controls; named doubts about it."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from hsae_dagster.core.inference.cluster_robust import Effect, cluster_ols, logit_margins
from hsae_dagster.core.observations import HoldoutDesign

FlagName: TypeAlias = Literal[
    "too few positives",
    "no variation",
    "one cluster",
    "missing annotations",
    "perfect prediction",
    "dominant cluster",
    "few clusters",
    "sign conflict",
    "reversed by controls",
    "reversed between subgroups",
    "variance inflation",
    "repeated annotation",
    "collinear",
    "separation",
    "not converged",
    "too few rows",
    "too few judged",
]


class Flag(NamedTuple):
    """A doubt in a sentence, with a name by which tables can be filtered."""

    name: FlagName
    sentence: str


# Singular values, relative to unit columns, below which a direction is rounding; shares in a null vector likewise.
_RANK_TOLERANCE = 1e-7
_SHARE_TOLERANCE = 1e-6


def partial_effects(design: HoldoutDesign, columns: list[int]) -> tuple[dict[int, Effect], dict[int, list[Flag]]]:
    """Effects of the given concepts beside each other and the controls, on rows where all of them are annotated.

    Three kinds of concept have no partial effect of their own; they are flagged, and never change what the others
    get: one whose annotation equals an earlier concept's (the earlier one stands for both); one that is a linear
    combination of others and the controls; and, for 0/1 outcomes, one that goes with a single outcome throughout, whose
    logit coefficient is infinite (the rows it decides then say nothing about the others and are set aside, which is
    the limit of the full model). A logit that fails all the same is replaced by the linear probability model, and every
    hypothesis is flagged with it.

    Returns:
        Effects by column, and flags by column (a list for each of `columns`).
    """
    flags: dict[int, list[Flag]] = {j: [] for j in columns}
    joint = _Joint.of(design, _distinct(design, columns, flags))
    if not joint.columns:
        return {}, flags
    n_clusters, n_columns = len(np.unique(joint.clusters)), joint.concepts.shape[1] + joint.nuisance.shape[1]
    if len(joint.y) <= n_columns + 2 or n_clusters < 2:
        few = Flag("too few rows", "too few complete observations for partial effects")
        return {}, {j: [*flags[j], few] for j in columns}
    if n_clusters <= n_columns:
        for j in columns:
            unsure = "fewer clusters than concepts and controls, so partial effects are unreliable"
            flags[j].append(Flag("few clusters", unsure))
    if design.task == "regression":
        return _linear(joint, flags, "least squares"), flags
    effects = _logit(joint, flags)
    if effects is None:
        for j in columns:
            instead = "logit did not converge; partial effect from a linear probability model"
            flags[j].append(Flag("not converged", instead))
        effects = _linear(joint, flags, "linear probability model")
    return effects, flags


@dataclass(frozen=True)
class _Joint:
    """The joint model's rows: concepts (n, k) of `columns`, nuisance (n, c) orthogonal columns, y, clusters."""

    columns: list[int]
    concepts: np.ndarray
    nuisance: np.ndarray
    y: np.ndarray
    clusters: np.ndarray
    pairwise: bool

    @classmethod
    def of(cls, design: HoldoutDesign, columns: list[int]) -> "_Joint":
        pairwise = design.task == "pairwise"
        rows = np.isfinite(design.concepts[:, columns]).all(axis=1)
        constant = [] if pairwise else [np.ones(int(rows.sum()))]
        nuisance = np.column_stack([design.controls[rows], *constant])
        return cls(
            columns, design.concepts[rows][:, columns], nuisance, design.outcome[rows], design.clusters[rows], pairwise
        )

    def take(self, rows: np.ndarray, kept: list[int]) -> "_Joint":
        """Some rows (bool) and some of the concepts (positions)."""
        columns = [self.columns[k] for k in kept]
        nuisance, y, clusters = self.nuisance[rows], self.y[rows], self.clusters[rows]
        return _Joint(columns, self.concepts[rows][:, kept], nuisance, y, clusters, self.pairwise)


def _linear(joint: _Joint, flags: dict[int, list[Flag]], name: str) -> dict[int, Effect]:
    x, named = _identified(joint, flags)
    y = joint.y - 0.5 if joint.pairwise else joint.y
    effects = cluster_ols(x, y, joint.clusters, name, exchangeable=not joint.pairwise)
    return {column: effects[k] for k, column in enumerate(named) if column is not None}


def _logit(joint: _Joint, flags: dict[int, list[Flag]]) -> dict[int, Effect] | None:
    """Average marginal effects, decided rows set aside; None, and no new flags, where the fit fails."""
    open_rows, deciding = _decided(joint)
    kept = [k for k in range(len(joint.columns)) if k not in deciding]
    new: dict[int, list[Flag]] = {j: [] for j in joint.columns}
    if open_rows.sum() <= len(kept) + joint.nuisance.shape[1] + 2:
        return None
    left, share = joint.take(open_rows, kept), float(open_rows.mean())
    x, named = _identified(left, new)
    margins = logit_margins(x, left.y, left.clusters, len(named), exchangeable=not joint.pairwise, share=share)
    if margins is None:
        return None
    for j, found in new.items():
        flags[j] += found
    for k in deciding:
        decided = "it occurs with one outcome only, so it has no finite partial effect"
        flags[joint.columns[k]].append(Flag("separation", decided))
    return {column: margins[k] for k, column in enumerate(named) if column is not None}


def _distinct(design: HoldoutDesign, columns: list[int], flags: dict[int, list[Flag]]) -> list[int]:
    """The columns without those that repeat an earlier one wherever both are annotated; these are flagged."""
    kept: list[int] = []
    for j in columns:
        if any(_same(design.concepts[:, i], design.concepts[:, j]) for i in kept):
            same = "same annotation as a hypothesis selected before it, so no partial effect of its own"
            flags[j].append(Flag("repeated annotation", same))
        else:
            kept.append(j)
    return kept


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    both = np.isfinite(a) & np.isfinite(b)
    return bool(both.any() and np.array_equal(a[both], b[both]))


def _identified(joint: _Joint, flags: dict[int, list[Flag]]) -> tuple[np.ndarray, list[int | None]]:
    """Columns of full rank that span concepts and nuisance, concepts first, and whose effect each concept column is.

    A concept with a share in a linear dependence is flagged and named None: it may stay as a column, since dropping
    one member of the dependent set is enough, but its coefficient would depend on which one was dropped.
    """
    from scipy.linalg import qr

    rest = _orthogonal_basis(joint.nuisance)
    n = len(rest)
    norms = np.sqrt((joint.concepts**2).sum(axis=0))
    scaled = joint.concepts / np.where(norms > 0, norms, 1.0)
    left = scaled - rest @ (rest.T @ scaled)
    # The triangle of a QR has the same null space as the tall matrix, and a small full set of right vectors.
    _, singular, rotation = np.linalg.svd(np.linalg.qr(left)[1])
    rank = int((singular > _RANK_TOLERANCE).sum())
    tangled = (np.abs(rotation[rank:]) > _SHARE_TOLERANCE).any(axis=0)
    for k in np.flatnonzero(tangled):
        tangle = "a combination of other concepts or controls, so no partial effect of its own"
        flags[joint.columns[k]].append(Flag("collinear", tangle))
    # The untangled ones all stay; pivoting picks as many of the tangled as add something.
    free = np.flatnonzero(~tangled)
    base = np.linalg.qr(left[:, free])[0] if free.size else np.empty((n, 0))
    remaining = left[:, tangled] - base @ (base.T @ left[:, tangled])
    pivots = qr(remaining, mode="economic", pivoting=True)[2] if tangled.any() else np.empty(0, dtype=int)
    extra = np.flatnonzero(tangled)[pivots[: rank - free.size]]
    chosen = [*free.tolist(), *extra.tolist()]
    named: list[int | None] = [joint.columns[k] if not tangled[k] else None for k in chosen]
    return np.column_stack([joint.concepts[:, chosen], rest * np.sqrt(n)]), named


def variance_inflation(design: HoldoutDesign, columns: list[int]) -> dict[int, float]:
    """Variance inflation 1 / (1 - R²) of each concept beside the other given ones, the controls and a constant.

    R² is about the mean (for pairs, about zero, since a pair design has no constant); infinity for a combination of
    the others. Rows are those on which all of the concepts are annotated.
    """
    rows = np.isfinite(design.concepts[:, columns]).all(axis=1)
    if rows.sum() <= len(columns) + design.controls.shape[1] + 2:
        return {}
    constant = [] if design.task == "pairwise" else [np.ones(int(rows.sum()))]
    x = design.concepts[rows][:, columns]
    controls = np.column_stack([design.controls[rows], *constant])
    found = {}
    for k, j in enumerate(columns):
        others = _orthogonal_basis(np.column_stack([np.delete(x, k, axis=1), controls]))
        h = x[:, k] - (0.0 if design.task == "pairwise" else x[:, k].mean())
        left = x[:, k] - others @ (others.T @ x[:, k])
        spread, unexplained = float(h @ h), float(left @ left)
        if spread > 0:
            found[j] = spread / unexplained if unexplained > _RANK_TOLERANCE * spread else np.inf
    return found


def spanned(column: np.ndarray, others: np.ndarray) -> np.ndarray | None:
    """A design of full rank, the column first, that spans the column and the others; None if those tell the column."""
    basis = _orthogonal_basis(others)
    left = column - basis @ (basis.T @ column)
    if float(left @ left) <= _RANK_TOLERANCE * float(column @ column):
        return None
    return np.column_stack([column, basis * np.sqrt(len(column))])


def _orthogonal_basis(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns with the same span, constant and repeated ones folded together; (n, rank)."""
    norms = np.sqrt((columns**2).sum(axis=0))
    used = columns[:, norms > 0] / norms[norms > 0]
    left, singular, _ = np.linalg.svd(used, full_matrices=False)
    return left[:, singular > _RANK_TOLERANCE]


def _decided(joint: _Joint) -> tuple[np.ndarray, list[int]]:
    """Rows (bool) that no single concept decides, and the positions of the concepts that decide the others.

    A concept decides the rows with it (or, outside pairs, without it) when they all have one outcome. Where it
    decides every row, or leaves one class only, it is set aside and its rows stay.
    """
    rows: np.ndarray = np.ones(len(joint.y), dtype=bool)
    deciding: list[int] = []
    found = True
    while found:
        found = False
        for k in range(len(joint.columns)):
            decided = None if k in deciding else _one_outcome(joint, k, rows)
            if decided is None:
                continue
            deciding.append(k)
            found = True
            left = rows & ~decided
            if left.any() and (joint.pairwise or len(np.unique(joint.y[left])) == 2):
                rows = left
    return rows, deciding


def _one_outcome(joint: _Joint, k: int, rows: np.ndarray) -> np.ndarray | None:
    """Among `rows`, those with (or without) concept k, if all of them have one outcome; else None."""
    h = joint.concepts[:, k]
    won = (2 * joint.y - 1) * (h if joint.pairwise else 1.0)
    for side in [h != 0] if joint.pairwise else [h != 0, h == 0]:
        side = side & rows
        if side.any() and not (side == rows).all() and len(np.unique(won[side])) == 1:
            return np.asarray(side)
    return None
