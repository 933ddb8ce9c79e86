"""A sparse matrix that behaves as if its columns had been standardised, also of any union of blocks of rows."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy import sparse

from hsae_dagster.errors import MethodError

_EPSILON = float(np.finfo(np.float64).eps)
# Below this share of the squared mean, sumsq/n - mu^2 has lost digits and is computed again in two passes.
_CANCELLATION = 1e-3
# Non-zeros squared at a time: 2 MB.
_BLOCK_ENTRIES = 2**18
# Columns whose projections on one random direction differ by more than this (relative) cannot be copies.
_COPY_WINDOW = 1e-6
# 1 - |r| below this is a copy: float32 codes scaled by a constant reach 1 - 1e-14; distinct ones stay far away.
_COPY_TOLERANCE = 1e-10
# Rows x columns that a subset may hold dense (twice, 64 MB each), if that share of them is not zero.
_DENSE_LIMIT, _DENSE_SHARE = 2**23, 0.1


class StandardisedCodes:
    """Sparse codes (n rows x m columns) seen through column standardisation.

    Attributes:
        raw: (n, m) float64 CSR without explicit zeros, duplicates summed. The caller's matrix is never changed.
        by_column: the same entries as CSC, sorted when first asked for: that costs more than all the moments.
        mean, constant: (m,) column means; whether a column has one value only (an all-zero column included).
        scale: (m,) population standard deviations, 1 where the column is constant.
        fires: (m,) int, number of non-zero entries of each column.
    """

    def __init__(self, codes: sparse.csr_matrix | sparse.csr_array) -> None:
        """Compute the moments, in two passes over the non-zeros.

        Raises:
            MethodError: codes are not a sparse matrix, have no row, or hold NaN or infinity.
        """
        self.raw = _canonical(codes)
        self._transpose = self.raw.T
        n_rows = self.n_rows
        total, total_squares = self._sums()
        if not (np.isfinite(total).all() and np.isfinite(total_squares).all()):
            raise MethodError(
                "The codes hold NaN or infinite activations. Look at the SAE checkpoint that made them: "
                "its weights or the embeddings it was given are not finite."
            )
        self.mean = total / n_rows
        variance = np.maximum(total_squares / n_rows - self.mean**2, 0.0)
        for j in np.flatnonzero((variance <= _CANCELLATION * self.mean**2) & (self.mean != 0)):
            values = self.column(int(j))[1]
            absent = (n_rows - len(values)) * self.mean[j] ** 2
            variance[j] = (np.sum((values - self.mean[j]) ** 2) + absent) / n_rows
        # The bound under which rounding alone explains the variance; the one that StandardScaler uses.
        bound = n_rows * _EPSILON * variance + (n_rows * self.mean * _EPSILON) ** 2
        self.constant = variance <= bound
        self.scale = np.where(self.constant, 1.0, np.sqrt(variance))

    @property
    def n_rows(self) -> int:
        """Number of rows (texts)."""
        return int(self.raw.shape[0])

    @property
    def n_columns(self) -> int:
        """Number of columns (neurons)."""
        return int(self.raw.shape[1])

    @cached_property
    def by_column(self) -> sparse.csc_matrix:
        """The non-zeros by column, rows ascending."""
        return self.raw.tocsc()

    @cached_property
    def fires(self) -> np.ndarray:
        """(m,) number of non-zero entries of each column."""
        return np.bincount(self.raw.indices, minlength=self.n_columns)

    def _sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Sum and sum of squares of each column, without sorting by column; some rows are squared at a time."""
        ones, ends = np.ones(self.n_rows), self.raw.indptr
        squares = np.zeros(self.n_columns)
        step = max(1, _BLOCK_ENTRIES * self.n_rows // max(1, self.raw.nnz))
        for start in range(0, self.n_rows, step):
            part = ends[start : start + step + 1]
            entries = slice(part[0], part[-1])
            block = (np.square(self.raw.data[entries]), self.raw.indices[entries], part - part[0])
            size = len(part) - 1
            squared = sparse.csr_matrix(block, shape=(size, self.n_columns), copy=False)
            squares += squared.T @ ones[:size]
        return self._transpose @ ones, squares

    def column(self, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values of the non-zeros of raw column j."""
        start, stop = self.by_column.indptr[j : j + 2]
        return self.by_column.indices[start:stop], self.by_column.data[start:stop]

    def dense_column(self, j: int) -> np.ndarray:
        """Raw column j as a dense (n,) float64 vector."""
        rows, values = self.column(j)
        dense = np.zeros(self.n_rows)
        dense[rows] = values
        return dense

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Z^T r for r of shape (n,); one pass over the non-zeros. Returns (m,)."""
        return (self._transpose @ vector - self.mean * vector.sum()) / self.scale

    def product(self, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Z[:, columns] @ weights, touching those columns only. Returns (n,)."""
        slopes = weights / self.scale[columns]
        result = np.full(self.n_rows, -float(self.mean[columns] @ slopes))
        for j, slope in zip(columns, slopes, strict=True):
            rows, values = self.column(int(j))
            result[rows] += slope * values
        return result

    def gram_column(self, j: int) -> np.ndarray:
        """Correlation of column j with every column, Z^T z_j / n. Returns (m,); 0 against constant columns.

        Only the rows in which j fires are read.
        """
        rows, values = self.column(j)
        few = len(rows) * 4 < self.n_rows
        raw = self.raw[rows].T @ values if few else self._transpose @ self.dense_column(j)
        centred = raw / self.n_rows - self.mean * self.mean[j]
        correlation = centred / (self.scale * self.scale[j])
        correlation[self.constant] = 0.0
        return correlation

    def copies(self, among: np.ndarray) -> list[tuple[int, int]]:
        """Pairs (kept, copy) of columns that standardise to the same values up to sign.

        That is |r| = 1: identical columns, multiples of one another, and mirrors (x and -x, x and 1 - x). The
        lowest index is the one kept. Candidates, of the columns `among` (m,) bool, are found by random projections, in
        which copies agree up to sign, then checked exactly; constant columns are never copies. Pairs are sorted.
        """
        rng = np.random.default_rng(0)
        runs = [np.flatnonzero(among & ~self.constant)]
        # Among thousands of columns a few are close in one projection by chance, hardly any in two.
        for _ in range(2):
            if runs:
                # Uniform with variance 1: drawn in a fifth of a normal one's time.
                direction = (rng.random(self.n_rows) - 0.5) * np.sqrt(12)
                projection = np.abs(self.transposed_product(direction))
                runs = [close for run in runs for close in self._close(run, projection)]
        return sorted(pair for run in runs for pair in self._copies_in(np.sort(run)))

    def _close(self, columns: np.ndarray, projection: np.ndarray) -> list[np.ndarray]:
        """Groups of two columns or more whose projections follow one another closely."""
        order = columns[np.argsort(projection[columns], kind="stable")]
        near = np.diff(projection[order]) <= _COPY_WINDOW * np.sqrt(self.n_rows)
        borders = np.flatnonzero(np.diff(near, prepend=False, append=False).astype(bool))
        return [order[first : last + 1] for first, last in zip(borders[::2], borders[1::2], strict=True)]

    def _copies_in(self, run: np.ndarray) -> list[tuple[int, int]]:
        pairs = []
        rest = run
        while len(rest) > 1:
            kept, rest = int(rest[0]), rest[1:]
            correlation = np.abs(self.gram_column(kept)[rest])
            same = correlation >= 1.0 - _COPY_TOLERANCE
            pairs += [(kept, int(j)) for j in rest[same]]
            rest = rest[~same]
        return pairs


class SubsetGram:
    """Weighted Grams of one fixed set of columns under changing row weights (the Newton steps of a logistic fit).

    Columns that fire often are held dense, up to `_DENSE_LIMIT` numbers: BLAS then needs a fraction of the time of
    sparse products. Otherwise memory is their non-zeros, twice.
    """

    def __init__(self, matrix: StandardisedCodes, columns: np.ndarray) -> None:
        """Copy the columns once."""
        self._mean, self._scale = matrix.mean[columns], matrix.scale[columns]
        size = matrix.n_rows * len(columns)
        self._dense = size <= _DENSE_LIMIT and matrix.fires[columns].sum() > _DENSE_SHARE * size
        # Both layouts are kept: no product below then has to convert one into the other.
        self._transpose: Any
        self._raw: Any
        if self._dense:
            self._transpose = np.zeros((len(columns), matrix.n_rows))
            for place, j in enumerate(columns):
                rows, values = matrix.column(int(j))
                self._transpose[place, rows] = values
            self._raw, self._scaled = self._transpose.T, np.empty_like(self._transpose)
        else:
            by_column = matrix.by_column[:, columns]
            self._transpose, self._raw = by_column.T, by_column.tocsr()
            self._row_lengths = np.diff(self._raw.indptr)

    def product(self, weights: np.ndarray) -> np.ndarray:
        """Z_S w, (n,)."""
        slopes = weights / self._scale
        return self._raw @ slopes - float(self._mean @ slopes)

    def transposed_product(self, vector: np.ndarray) -> np.ndarray:
        """Z_S^T r, (k,)."""
        return (self._transpose @ vector - self._mean * vector.sum()) / self._scale

    def weighted(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Z_S^T diag(d) Z_S, (k, k), and Z_S^T d, (k,), for weights d >= 0."""
        raw = self._weighted_raw(weights)
        first = self._transpose @ weights
        total = float(weights.sum())
        cross = np.outer(first, self._mean)
        gram = raw - cross - cross.T + total * np.outer(self._mean, self._mean)
        return gram / np.outer(self._scale, self._scale), (first - total * self._mean) / self._scale

    def _weighted_raw(self, weights: np.ndarray) -> np.ndarray:
        """X_S^T diag(d) X_S, (k, k)."""
        if self._dense:
            # The product of a matrix with its own transpose costs half of any other.
            scaled = np.multiply(self._transpose, np.sqrt(weights), out=self._scaled)
            return scaled @ scaled.T
        data = self._raw.data * np.repeat(weights, self._row_lengths)
        scaled = sparse.csr_matrix((data, self._raw.indices, self._raw.indptr), shape=self._raw.shape, copy=False)
        return (self._transpose @ scaled).toarray()


def _canonical(codes: sparse.csr_matrix | sparse.csr_array) -> sparse.csr_matrix:
    """Codes as float64 CSR with summed duplicates and no explicit zeros; a copy only where something must change."""
    if not sparse.issparse(codes):
        raise MethodError(
            f"Codes must be a scipy sparse matrix; got {type(codes).__name__}. Wrap a dense array in csr_matrix."
        )
    if codes.shape[0] == 0:
        raise MethodError("The codes have no rows, so no neuron can be selected. Encode some texts first.")
    result = sparse.csr_matrix(codes, dtype=np.float64)
    if not result.has_canonical_format or not codes.data.all():
        result = result.copy()
        result.sum_duplicates()
        result.eliminate_zeros()
    return result


_CONSTANT = 1e-12
# Columns that fire more often than this are multiplied as dense ones.
_DENSE_BLOCK_SHARE = 0.1


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
        """Read every row once: codes (n, m), outcome (n,) float64, blocks (n,) from 0 to B - 1, none empty."""
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


def _parts(codes: sp.csr_matrix, blocks: np.ndarray) -> Iterator[tuple[np.ndarray, sp.csr_matrix]]:
    """Rows of each block and the codes there, float64."""
    ends = np.cumsum(np.bincount(blocks))
    for rows in np.split(np.argsort(blocks, kind="stable"), ends[:-1]):
        yield rows, codes[rows].astype(np.float64)


def _products(part: sp.csr_matrix, near: np.ndarray) -> np.ndarray:
    """(m, q) products of every column of some rows with a few of them."""
    few = part[:, near]
    if few.nnz > _DENSE_BLOCK_SHARE * few.shape[0] * max(few.shape[1], 1):
        product: np.ndarray = part.T @ few.toarray()
        return product
    return (few.T.tocsr() @ part).toarray().T


class HalfSums:
    """Moments of H unions of blocks, members (H, B) bool, each standardised by itself.

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

        Weights (H, q) are their coefficients, standardised.
        """
        blocks = self._blocks
        slopes = weights / self.scale[:, blocks.near]
        # Column j with the fit: the sum over a half's blocks of (products with the few columns) · slopes.
        spread = (self._members[:, :, None] * slopes[:, None, :]).reshape(len(slopes), -1)
        raw = spread @ blocks.with_near.reshape(len(blocks.with_near), -1).T / self._n[:, None]
        fitted = (raw - self.x * (slopes * self.x[:, blocks.near]).sum(axis=1)[:, None]) / self.scale
        return self.with_outcome - np.where(self.varies, fitted, 0.0)
