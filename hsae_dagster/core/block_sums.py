"""Sums over blocks of rows, from which any union of blocks can be standardised without its rows.

Belongs here: counts, sums, squares, products with the outcome and with a few columns, by block and by union of blocks.
Does not belong here: what the unions are for (`core.stability`).

All of them add up over rows, so that a union's moments are those of its blocks added: one pass over the codes serves
any number of unions. Memory: blocks × columns × (few columns + 2) numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

_CONSTANT = 1e-12
# Columns that fire more often than this are multiplied as dense ones.
_DENSE_SHARE = 0.1


@dataclass(frozen=True)
class BlockSums:
    """Sums over each of B blocks of rows.

    Attributes:
        near: (q,) the few columns.
        n: (B,) rows.
        y: (B,) sum of the outcome.
        y_squares: (B,) sum of its squares.
        x: (B, m) sum of each column.
        squares: (B, m) sum of its squares.
        with_y: (B, m) sum of its products with the outcome.
        with_near: (m, B, q) sums of its products with the few columns.
    """

    near: np.ndarray
    n: np.ndarray
    y: np.ndarray
    y_squares: np.ndarray
    x: np.ndarray
    squares: np.ndarray
    with_y: np.ndarray
    with_near: np.ndarray

    @classmethod
    def of(cls, codes: sp.csr_matrix, outcome: np.ndarray, blocks: np.ndarray, near: np.ndarray) -> "BlockSums":
        """Read every row once.

        Args:
            codes: (n, m) sparse rows.
            outcome: (n,) float64.
            blocks: (n,) int, block of each row, from 0 to B - 1, none empty.
            near: (q,) the few columns.
        """
        n_blocks, m = int(blocks.max()) + 1, codes.shape[1]
        x, squares, with_y = np.empty((3, n_blocks, m))
        with_near = np.empty((m, n_blocks, len(near)))
        for b, (rows, part) in enumerate(_parts(codes, blocks)):
            sums = part.T @ np.column_stack([np.ones(len(rows)), outcome[rows]])
            x[b], with_y[b] = sums.T
            squares[b] = np.bincount(part.indices, weights=part.data**2, minlength=m)
            with_near[:, b] = _products(part, near)
        n = np.bincount(blocks, minlength=n_blocks).astype(np.float64)
        y, y_squares = (np.bincount(blocks, weights=v, minlength=n_blocks) for v in (outcome, outcome**2))
        return cls(near, n, y, y_squares, x, squares, with_y, with_near)

    def joined_by(self, codes: sp.csr_matrix, blocks: np.ndarray, further: np.ndarray) -> "BlockSums":
        """The same with `further` columns among the few, at their end."""
        more = np.empty((codes.shape[1], len(self.n), len(further)))
        for b, (_, part) in enumerate(_parts(codes, blocks)):
            more[:, b] = _products(part, further)
        with_near = np.concatenate([self.with_near, more], axis=2)
        return replace(self, near=np.concatenate([self.near, further]), with_near=with_near)

    def halves(self, members: np.ndarray) -> "HalfSums":
        """Moments of unions of blocks, members (H, B) bool."""
        return HalfSums(self, members)


def _parts(codes: sp.csr_matrix, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """Rows of each block and the codes there, float64."""
    ends = np.cumsum(np.bincount(blocks))
    for rows in np.split(np.argsort(blocks, kind="stable"), ends[:-1]):
        yield rows, codes[rows].astype(np.float64)


def _products(part: sp.csr_matrix, near: np.ndarray) -> np.ndarray:
    """(m, q) products of every column of some rows with a few of them."""
    few = part[:, near]
    if few.nnz > _DENSE_SHARE * few.shape[0] * max(few.shape[1], 1):
        product: np.ndarray = part.T @ few.toarray()
        return product
    return (few.T.tocsr() @ part).toarray().T


class HalfSums:
    """Moments of H unions of blocks, each standardised by itself.

    Attributes:
        x: (H, m) column means.
        scale: (H, m) population standard deviations, 1 where a column does not vary.
        varies: (H, m) bool.
        with_outcome: (H, m) covariance of each standardised column with the outcome; 0 where it does not vary.
        outcome_spread: (H,) standard deviation of the outcome.
    """

    def __init__(self, blocks: BlockSums, members: np.ndarray) -> None:
        self._blocks, self._members = blocks, members.astype(np.float64)
        self._n = self._members @ blocks.n
        per_row = self._members / self._n[:, None]
        self.x, y = per_row @ blocks.x, per_row @ blocks.y
        self.outcome_spread = np.sqrt(np.maximum(per_row @ blocks.y_squares - y**2, 0.0))
        variance = per_row @ blocks.squares - self.x**2
        self.varies = variance > _CONSTANT * np.maximum(self.x**2, 1e-300)
        self.scale = np.where(self.varies, np.sqrt(np.where(self.varies, variance, 1.0)), 1.0)
        covariance = (per_row @ blocks.with_y - self.x * y[:, None]) / self.scale
        self.with_outcome = np.where(self.varies, covariance, 0.0)

    def gram(self) -> np.ndarray:
        """(H, q, q) correlations among the few columns."""
        near, q = self._blocks.near, len(self._blocks.near)
        among = self._blocks.with_near[near].transpose(1, 0, 2).reshape(-1, q * q)
        raw = (self._members @ among).reshape(-1, q, q) / self._n[:, None, None]
        mean, scale = self.x[:, near], self.scale[:, near]
        return (raw - mean[:, :, None] * mean[:, None, :]) / (scale[:, :, None] * scale[:, None, :])

    def gradient(self, weights: np.ndarray) -> np.ndarray:
        """(H, m): covariance of each standardised column with the outcome less the fit of the few columns.

        Args:
            weights: (H, q) coefficients of the few columns, standardised.
        """
        blocks = self._blocks
        slopes = weights / self.scale[:, blocks.near]
        # Column j with the fit: the sum over a half's blocks of (products with the few columns) · slopes.
        spread = (self._members[:, :, None] * slopes[:, None, :]).reshape(len(slopes), -1)
        raw = spread @ blocks.with_near.reshape(len(blocks.with_near), -1).T / self._n[:, None]
        fitted = (raw - self.x * (slopes * self.x[:, blocks.near]).sum(axis=1)[:, None]) / self.scale
        return self.with_outcome - np.where(self.varies, fitted, 0.0)
