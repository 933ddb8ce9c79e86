"""Selection that demands distinct neurons: near-copies make room for the next ones on the path.

Belongs here: which of the selected neurons are near-copies of a stronger one, selecting on without them, the family of
each kept neuron. Does not belong here: selection itself (`selection`), exact copies (which it folds by itself).

Guidance by the label makes several neurons point in the label's direction. They say one thing, so their effects are
hard to tell apart and n of them are fewer than n hypotheses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from hsae_dagster.core.selection import Selection, select_neurons


@dataclass(frozen=True)
class Limits:
    """How alike two selected neurons may be.

    Attributes:
        correlation: largest |correlation| of their activations over texts.
        cosine: largest cosine of their decoder directions.
    """

    correlation: float
    cosine: float


@dataclass(frozen=True)
class Member:
    """A near-copy that was left out, and the selected neuron that stands for it.

    Attributes:
        kept: column of the selected neuron.
        left_out: column of the near-copy.
        correlation: of their activations.
        cosine: of their decoder directions.
    """

    kept: int
    left_out: int
    correlation: float
    cosine: float


@dataclass(frozen=True)
class DistinctSelection:
    """A selection of which no two neurons are near-copies (unless a note says so), and what was left out for that."""

    selection: Selection
    members: tuple[Member, ...]
    notes: tuple[str, ...]


def select_distinct(
    codes: sparse.csr_matrix,
    target: np.ndarray,
    n_select: int,
    *,
    activations: sparse.csr_matrix,
    directions: np.ndarray,
    limits: Limits,
    method: str = "lasso",
    task: str = "regression",
    without: Sequence[int] = (),
    fewer: bool = False,
) -> DistinctSelection:
    """Select n neurons no two of which are near-copies: of two, the one of higher rank stays, the other makes room.

    The selection is made again without the near-copies found so far until it holds none, so that the path goes on to
    further neurons and coefficients are those of a model without copies. If the neurons run out first, near-copies
    stay in, which is noted.

    Args:
        codes: (n, m) activations of observations, as `select_neurons` takes them.
        target: (n,) as there.
        n_select: number of neurons.
        activations: (t, m) activations of training texts, over which likeness is measured.
        directions: (m, d) decoder directions of unit length.
        limits: how alike two may be.
        method: as in `select_neurons`.
        task: as there.
        without: columns that may not be selected for another reason.
        fewer: as in `select_neurons`; then no near-copy stays in.
    """
    left_out: list[int] = []
    while True:
        selection = select_neurons(
            codes, target, n_select, method=method, task=task, without=[*without, *left_out], fewer=fewer
        )
        gone = {*selection.dead, *(copy for _, copy in selection.duplicates), *without, *left_out}
        found = near_copies(selection.columns, activations, directions, limits)
        # Where fewer than n will do, no near-copy has to stay.
        room = len(found) if fewer else codes.shape[1] - len(gone) - n_select
        if not found or room <= 0:
            break
        # The most alike go first, where not all can.
        worst = sorted(found, key=lambda member: -max(abs(member.correlation), member.cosine))[:room]
        left_out += [member.left_out for member in worst]
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} near-copies of selected neurons made room for others.")
    if found:
        notes.append(
            f"{len(found)} selected neurons are near-copies of others that were selected: there are not enough neurons "
            f"to have {n_select} distinct ones. Select fewer, or train a larger autoencoder."
        )
    members = _families(selection.columns, left_out, activations, directions, limits)
    return DistinctSelection(selection, members, tuple(notes))


def near_copies(
    columns: list[int], activations: sparse.csr_matrix, directions: np.ndarray, limits: Limits
) -> list[Member]:
    """Neurons that are too like one of higher rank that is none itself.

    Args:
        columns: by rank.
        activations: (t, m).
        directions: (m, d).
        limits: how alike two may be.
    """
    correlation, cosine = likeness_of(columns, columns, activations, directions)
    kept: list[int] = []
    found = []
    for i in range(len(columns)):
        rival = _closest(correlation[kept, i], cosine[kept, i], limits)
        if rival is None:
            kept.append(i)
        else:
            j = kept[rival]
            found.append(Member(columns[j], columns[i], float(correlation[j, i]), float(cosine[j, i])))
    return found


def likeness_of(
    first: list[int], second: list[int], activations: sparse.csr_matrix, directions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(first, second) correlations of activations, 0 for neurons that do not vary, and cosines of directions."""
    parts = []
    for columns in (first, second):
        dense = activations[:, columns].toarray().astype(np.float64)
        dense -= dense.mean(axis=0)
        length = np.linalg.norm(dense, axis=0)
        parts.append(dense / np.where(length > 0, length, 1.0))
    return parts[0].T @ parts[1], directions[first] @ directions[second].T


def _closest(correlation: np.ndarray, cosine: np.ndarray, limits: Limits) -> int | None:
    """Place of the most alike beyond the limits, or None."""
    beyond = (np.abs(correlation) > limits.correlation) | (cosine > limits.cosine)
    if not beyond.any():
        return None
    return int(np.argmax(np.where(beyond, np.maximum(np.abs(correlation), cosine), -np.inf)))


def _families(
    selected: list[int],
    left_out: list[int],
    activations: sparse.csr_matrix,
    directions: np.ndarray,
    limits: Limits,
) -> tuple[Member, ...]:
    """The selected neuron that stands for each near-copy in the end; one that nothing selected resembles has none."""
    if not left_out:
        return ()
    correlation, cosine = likeness_of(selected, left_out, activations, directions)
    members = []
    for i, column in enumerate(left_out):
        place = _closest(correlation[:, i], cosine[:, i], limits)
        if place is not None:
            members.append(Member(selected[place], column, float(correlation[place, i]), float(cosine[place, i])))
    return tuple(members)
