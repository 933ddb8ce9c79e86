"""What a neuron does on a text, from what it does on the text's units.

Belongs here: which units a text has, as positions; pooling sparse codes and vectors of units. Does not
belong here: cutting texts (`dataset.units`) or encoding units (`core.codes`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import text_rows

Pool = Literal["max", "mean", "sum"]

# Activations of units that are sorted at once; some 100 MB.
_BLOCK_ENTRIES = 2**21


@dataclass(frozen=True)
class TextUnits:
    """Which units each text has.

    Attributes:
        text_ids: (texts,) keys, ascending.
        unit_ids: (units,) keys, ascending, distinct.
        starts: (texts + 1,) int64; the units of text i are `rows[starts[i] : starts[i + 1]]`, in order.
        rows: int64 positions in `unit_ids`.
    """

    text_ids: pl.Series
    unit_ids: pl.Series
    starts: np.ndarray
    rows: np.ndarray

    @staticmethod
    def of(units: pl.DataFrame, text_units: pl.DataFrame) -> "TextUnits":
        """From the tables of a corpus (`dataset.units`): ascending unit_id, and by text_id and position."""
        text_ids = text_units["text_id"].unique().sort()
        starts = text_units["text_id"].search_sorted(text_ids).to_numpy().astype(np.int64)
        rows = text_rows(units["unit_id"], text_units["unit_id"])
        return TextUnits(text_ids, units["unit_id"], np.append(starts, text_units.height), rows)

    @property
    def are_texts(self) -> bool:
        """Whether each text is its own one unit."""
        return len(self.text_ids) == len(self.unit_ids) == len(self.rows) and bool(
            (self.text_ids == self.unit_ids).all()
        )

    def of_texts(self, text_ids: pl.Series) -> "TextUnits":
        """Some of the texts, ascending, and only the units that they have.

        Raises:
            MethodError: a text is not there.
        """
        texts = text_rows(self.text_ids, text_ids)
        counts = np.diff(self.starts)[texts]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        places = np.repeat(self.starts[texts] - starts[:-1], counts) + np.arange(starts[-1])
        wanted, rows = np.unique(self.rows[places], return_inverse=True)
        return TextUnits(text_ids, self.unit_ids.gather(wanted), starts, rows.astype(np.int64))

    def mean(self, per_unit: np.ndarray) -> np.ndarray:
        """Mean of each text's rows of a (units, d) matrix, (texts, d) in its precision; repetitions count."""
        counts = np.diff(self.starts)
        weights = np.repeat(1.0 / counts, counts).astype(per_unit.dtype)
        member = sp.csr_matrix((weights, self.rows, self.starts), shape=(len(self.text_ids), len(self.unit_ids)))
        return np.asarray(member @ per_unit)


@dataclass(frozen=True)
class Pooled:
    """Codes of texts.

    Attributes:
        codes: (texts, neurons) float32 CSR, columns ascending; a neuron that is silent on all units has no entry.
        strongest: (entries,) int32, parallel to `codes.data`: the unit with the largest activation (position in
            `unit_ids`; of equal ones the first in the text), whatever the pooling.
    """

    codes: sp.csr_matrix
    strongest: np.ndarray


def pool_codes(unit_codes: sp.csr_matrix, units: TextUnits, how: Pool = "max") -> Pooled:
    """Pool the activations of units over the texts that have them, a block of texts at a time.

    Args:
        unit_codes: (units, neurons) CSR of positive activations, rows as `units.unit_ids`.
        units: which texts have which.
        how: `max`; `mean` over all units of a text, silent ones and repetitions included; or `sum`.
    """
    if units.are_texts:
        codes = sp.csr_matrix(unit_codes, dtype=np.float32)
        codes.sort_indices()
        return Pooled(codes, np.repeat(np.arange(codes.shape[0], dtype=np.int32), np.diff(codes.indptr)))
    parts = [_pooled(unit_codes, units, first, last, how) for first, last in _blocks(unit_codes, units)]
    data, columns, strongest, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    index_type = np.int32 if len(data) < 2**31 else np.int64
    shape = (len(units.text_ids), unit_codes.shape[1])
    codes = sp.csr_matrix((data, columns.astype(index_type), starts.astype(index_type)), shape=shape)
    codes.has_sorted_indices = True
    return Pooled(codes, strongest)


def _blocks(unit_codes: sp.csr_matrix, units: TextUnits) -> Iterator[tuple[int, int]]:
    """First and last text (exclusive) of each block; a text is never divided."""
    entries = np.concatenate([[0], np.cumsum(np.diff(unit_codes.indptr)[units.rows], dtype=np.int64)])[units.starts]
    first, n = 0, len(units.text_ids)
    while True:
        last = min(n, max(first + 1, int(np.searchsorted(entries, entries[first] + _BLOCK_ENTRIES, side="right")) - 1))
        yield first, last
        if last >= n:
            return
        first = last


def _pooled(
    unit_codes: sp.csr_matrix, units: TextUnits, first: int, last: int, how: Pool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Values, columns, strongest units and number of entries by text."""
    starts = units.starts[first : last + 1]
    rows = units.rows[starts[0] : starts[-1]]
    per_text, n_texts = np.diff(starts), last - first
    gathered = unit_codes[rows]
    per_row = np.diff(gathered.indptr)
    text = np.repeat(np.repeat(np.arange(n_texts), per_text), per_row)
    unit = np.repeat(rows, per_row)
    values = gathered.data.astype(np.float64)
    key = text * unit_codes.shape[1] + gathered.indices
    # Stable, so that of equal activations the first in the text comes first.
    order = np.lexsort((-values, key))
    key, values, unit = key[order], values[order], unit[order]
    heads = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.empty(0, dtype=np.int64)
    text, columns = np.divmod(key[heads], unit_codes.shape[1])
    if how == "max":
        pooled = values[heads]
    else:
        pooled = np.add.reduceat(values, heads) if len(heads) else values
        if how == "mean":
            pooled = pooled / per_text[text]
    counts = np.bincount(text, minlength=n_texts)
    return pooled.astype(np.float32), columns.astype(np.int32), unit[heads].astype(np.int32), counts


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Rows of (n, d) scaled to length 1; rows of zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: np.ndarray = vectors / np.where(length > 0, length, 1.0)
    return found
