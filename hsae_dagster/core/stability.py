"""Would the same neurons have been selected from other texts of the same kind, and found by another autoencoder?

Belongs here: selection frequencies over half-samples of clusters, and matches among autoencoders. Does not belong here:
selection itself (`core.selection`, `core.lasso`), sums over blocks of rows (`core.block_sums`).

Stability selection (Meinshausen and Bühlmann 2010) in the form of complementary pairs (Shah and Samworth 2013): the
clusters are halved at random, both halves are selected from, many times over. What selection by lasso or correlation
needs of a sample is its count, sums, Gram matrix and products with the outcome, all of which add up over rows. So the
clusters are dealt at random to a few dozen blocks, a half is half of the blocks, and what it needs is a sum of theirs:
every half is still a uniform draw, and all of them together cost one pass over the codes. The lasso follows the path of
each half on the Gram matrix of a few columns; the gradient of ALL columns then shows whether any other one belongs to
the solution, and such columns join. The lasso here has the squared loss whatever the task (selection itself has a
logistic loss for 0/1 outcomes): frequencies then describe a close relative of the selection, at a part of its cost.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.block_sums import BlockSums, HalfSums
from hsae_dagster.core.lasso import LassoPath, TiedPathError
from hsae_dagster.core.selection import Selection, select_for_each
from hsae_dagster.core.standardised import StandardisedCodes

PAIRS = 25
# Blocks of clusters: enough that halves differ in many ways, and fewer where their sums would need much memory.
_MOST_BLOCKS, _FEWEST_BLOCKS, _MOST_NUMBERS = 48, 16, 2**23
# Columns of the first Gram matrices beside the selected ones: by correlation, and by what the selected do not explain;
# rows from which these are guessed.
_NEAR, _ENOUGH_ROWS = 32, 40_000
_ROUNDS, _WORST = 50, 5
# A column belongs to a solution if its gradient exceeds alpha by more than this share of the path's top.
_BREACH = 1e-7


def selection_frequency(
    codes: sp.csr_matrix,
    outcome: np.ndarray,
    clusters: np.ndarray,
    selection: Selection,
    rng: np.random.Generator,
    *,
    pairs: int = PAIRS,
) -> np.ndarray:
    """Share of 2 × `pairs` half-samples of clusters from which each selected neuron is selected again.

    Args:
        codes: (n, m) activations of the training observations.
        outcome: (n,) as given to the selection.
        clusters: (n,) keys; a cluster is in one half as a whole.
        selection: what was selected from all of them.
        rng: of the halves.
        pairs: of complementary halves.

    Returns:
        (selected,) float64 from 0 to 1 in rank order; NaN for a metric of the user's own, which is not run again, and
        where there are fewer than four clusters.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups, columns = int(groups.max(initial=-1)) + 1, selection.columns
    if n_groups < 4 or ":" in selection.method:
        return np.full(len(columns), np.nan)
    codes, outcome = sp.csr_matrix(codes), np.asarray(outcome, dtype=np.float64)
    near = _near(codes, outcome, selection) if selection.method == "lasso" else np.empty(0, dtype=np.int64)
    affordable = _MOST_NUMBERS // (codes.shape[1] * (len(near) + 2))
    n_blocks = min(n_groups, max(_FEWEST_BLOCKS, min(_MOST_BLOCKS, affordable)))
    blocks = (rng.permutation(n_groups) % n_blocks)[groups]
    halves = np.zeros((2 * pairs, n_blocks), dtype=bool)
    for pair in range(pairs):
        halves[2 * pair, rng.permutation(n_blocks)[: n_blocks // 2]] = True
        halves[2 * pair + 1] = ~halves[2 * pair]
    chosen: Sequence[Sequence[int] | np.ndarray]
    if selection.method == "separation":
        chosen = _by_rows(codes, outcome, [half[blocks] for half in halves], selection)
    elif selection.method == "correlation":
        chosen = _by_correlation(BlockSums.of(codes, outcome, blocks, near).halves(halves), selection)
    else:
        chosen = _by_lasso(codes, outcome, blocks, halves, near, selection)
    counts = np.zeros(codes.shape[1])
    for again in chosen:
        counts[again] += 1
    return counts[columns] / (2 * pairs)


def _usable(n_columns: int, selection: Selection) -> np.ndarray:
    """(m,) bool: columns that may be selected, neither dead nor a copy."""
    usable = np.ones(n_columns, dtype=bool)
    usable[[*selection.dead, *(copy for _, copy in selection.duplicates)]] = False
    return usable


def _near(codes: sp.csr_matrix, outcome: np.ndarray, selection: Selection) -> np.ndarray:
    """The selected columns and those likely to take their place in a half, ascending.

    A guess from evenly spaced rows; the gradients of all columns put it right.
    """
    step = max(1, codes.shape[0] // _ENOUGH_ROWS)
    matrix, outcome = StandardisedCodes(codes[::step]), outcome[::step]
    usable = _usable(codes.shape[1], selection) & ~matrix.constant
    columns, centred = np.array(selection.columns), outcome - outcome.mean()
    if selection.task == "regression":
        fitted = matrix.product(columns, np.array(selection.scores))
    else:
        design = np.column_stack([matrix.dense_column(j) for j in columns])
        design -= design.mean(axis=0)
        fitted = design @ np.linalg.lstsq(design.T @ design, design.T @ centred, rcond=None)[0]
    found = [columns]
    for rest in (centred, centred - fitted):
        size = np.where(usable, np.abs(matrix.transposed_product(rest)), -1.0)
        best = np.argsort(-size, kind="stable")[:_NEAR]
        found.append(best[size[best] >= 0])
    return np.unique(np.concatenate(found))


def _by_rows(
    codes: sp.csr_matrix, outcome: np.ndarray, halves: Sequence[np.ndarray], selection: Selection
) -> list[list[int]]:
    """Columns selected from the rows of each half, (n,) bool, as the selection itself went; none where none can be."""
    found = []
    for half in halves:
        if np.ptp(outcome[half]) > 0:
            again = select_for_each(
                codes[half], [outcome[half]], len(selection.columns), method=selection.method, task=selection.task
            )
            found.append(again[0].columns)
    return found


def _by_correlation(halves: HalfSums, selection: Selection) -> list[np.ndarray]:
    """The columns of largest |r| in each half."""
    size = np.where(halves.varies & _usable(halves.x.shape[1], selection), np.abs(halves.with_outcome), -1.0)
    best = np.argsort(-size, axis=1, kind="stable")[:, : len(selection.columns)]
    return [columns[row[columns] >= 0] for columns, row in zip(best, size, strict=True)]


def _by_lasso(
    codes: sp.csr_matrix,
    outcome: np.ndarray,
    blocks: np.ndarray,
    halves: np.ndarray,
    near: np.ndarray,
    selection: Selection,
) -> list[np.ndarray]:
    """The columns of the first lasso solution with as many neurons as were selected, in each half."""
    usable, n_select = _usable(codes.shape[1], selection), len(selection.columns)
    of_blocks = BlockSums.of(codes, outcome, blocks, near)
    found: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(halves)
    open_halves = np.arange(len(halves))
    for _ in range(_ROUNDS):
        near, sums = of_blocks.near, of_blocks.halves(halves[open_halves])
        grams, weights = sums.gram(), np.zeros((len(open_halves), len(near)))
        bounds = np.empty(len(open_halves))
        for place, half in enumerate(open_halves):
            alpha, at, coefficients = _path(sums, grams[place], place, near, n_select)
            found[half], weights[place, at] = near[at], coefficients
            bounds[place] = alpha + _BREACH * np.abs(sums.with_outcome[place, near]).max(initial=0.0)
        breach = np.where(usable & sums.varies, np.abs(sums.gradient(weights)) - bounds[:, None], -1.0)
        breach[:, near] = -1.0
        # The worst few of each half: most others fall back once these are in.
        worst = np.argsort(-breach, axis=1, kind="stable")[:, :_WORST]
        further = np.unique(worst[np.take_along_axis(breach, worst, axis=1) > 0])
        if len(further) == 0:
            break
        open_halves = open_halves[(breach > 0).any(axis=1)]
        of_blocks = of_blocks.joined_by(codes, blocks, further)
    return found


class _Gram:
    """One half's Gram matrix as `LassoPath` reads a matrix of standardised codes."""

    n_rows = 1

    def __init__(self, gram: np.ndarray, with_outcome: np.ndarray) -> None:
        self.gram, self._with_outcome, self.n_columns = gram, with_outcome, len(gram)

    def transposed_product(self, _: np.ndarray) -> np.ndarray:
        """Covariance of every column with the outcome."""
        return self._with_outcome

    def gram_column(self, j: int) -> np.ndarray:
        """Correlation of column j with every column."""
        column: np.ndarray = self.gram[j]
        return column


class _GramPath(LassoPath):
    """The path on a Gram matrix that is there: its rows need not be gathered one by one."""

    def __init__(self, matrix: _Gram, target: np.ndarray, usable: np.ndarray, *, jitter: float) -> None:
        super().__init__(matrix, target, usable, jitter=jitter)
        self._whole = matrix.gram

    def _gram(self) -> np.ndarray:
        rows: np.ndarray = self._whole[self._active]
        return rows


def _path(
    sums: HalfSums, gram: np.ndarray, half: int, near: np.ndarray, n_select: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Alpha, positions in `near` and coefficients of the first solution with n_select columns, or the last one."""
    able = sums.varies[half, near]
    with_outcome = np.where(able, sums.with_outcome[half, near], 0.0)
    matrix = _Gram(gram, with_outcome)
    spread = np.array([-1.0, 1.0]) * sums.outcome_spread[half]
    for jitter in (0.0, 1e-10, 1e-8):
        path = _GramPath(matrix, spread, able, jitter=jitter)
        try:
            # Stops behind the first stretch on which more columns are active than were wanted.
            path.extend(0.0, n_select)
        except (TiedPathError, np.linalg.LinAlgError):
            continue
        break
    if not path.segments:
        return path.top, np.empty(0, dtype=np.int64), np.empty(0)
    reached = [segment for segment in path.segments if len(segment.columns) >= n_select]
    segment = reached[0] if reached else max(path.segments, key=lambda s: len(s.columns))
    alpha = (segment.upper + segment.lower) / 2
    coefficients = segment.coefficients(alpha)
    order = np.argsort(-np.abs(coefficients), kind="stable")[:n_select]
    return alpha, segment.columns[order], coefficients[order]


def matches_elsewhere(codes: sp.csr_matrix, columns: Sequence[int], sae_ids: Sequence[str]) -> np.ndarray:
    """Largest |r| of each neuron with any neuron of another autoencoder of the dataset.

    Args:
        codes: (n, m) activations, all autoencoders side by side.
        columns: the neurons.
        sae_ids: (m,) autoencoder of each column.

    Returns:
        (len(columns),) float64; NaN where there is no other autoencoder.
    """
    owner = np.asarray(sae_ids)
    if len(np.unique(owner)) < 2:
        return np.full(len(columns), np.nan)
    matrix = StandardisedCodes(codes)
    return np.array([np.abs(matrix.gram_column(j)[owner != owner[j]]).max(initial=0.0) for j in columns])
