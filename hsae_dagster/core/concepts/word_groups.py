"""Word groups: a few terms of one meaning, all of them listed.

Belongs here: growing a group from a seed term, for what a residual leaves of an outcome. Does not belong here: which
groups are taken (`choice`), where terms come from (`terms`).

A group grows from a seed by the term that helps most among those whose vectors are close to the group's centre, until
none helps or the list is full. Terms and texts are those of training clusters. Columns live on texts; an observation
is a text or, of a pair, text A less text B, which the design matrix S (observations × texts, entries 1 and -1) says.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.residual import Residual
from hsae_dagster.core.concepts.terms import TermTable

# Terms that a group lists at most, inflections included.
MOST_FORMS = 12
# Cosine with the group's centre that a term needs, by `terms.meanings`. At 0.4 groups miss plain synonyms; at less they
# take in strangers.
CLOSENESS = 0.3


@dataclass(frozen=True)
class Group:
    """Families of a group, strongest first.

    Attributes:
        families: columns of the term table.
        sign: +1 or -1, of its association with the outcome.
        explained: squares of the outcome that it explains beside what is taken.
        holds: (texts,) bool, which texts have it.
    """

    families: tuple[int, ...]
    sign: float
    explained: float
    holds: np.ndarray

    def terms(self, table: TermTable) -> tuple[str, ...]:
        """Every term of the group, all inflections, in the order in which the families joined."""
        return tuple(form for family in self.families for form in table.families[family].forms)


class Grower:
    """Grows groups of one term table for one set of observations."""

    def __init__(self, table: TermTable, vectors: np.ndarray, design: sp.csr_matrix) -> None:
        """Prepare.

        Args:
            table: terms and the texts that hold them.
            vectors: (families, d) float32 unit vectors of the families' names.
            design: (n, texts) CSR, see the module's docstring.
        """
        self.table, self.design = table, design
        self.columns: sp.csc_matrix = (design @ table.matrix).tocsc()
        self._across = design.T.tocsr()
        self._weight = np.asarray(abs(design).sum(axis=0)).ravel()
        self._forms = np.array([len(family.forms) for family in table.families], dtype=np.int64)
        self._exact = vectors.astype(np.float64)
        self._likeness: dict[int, np.ndarray] = {}
        self._faced: tuple[np.ndarray, _Faced] | None = None

    def grow(self, residual: Residual, seed: int, able: np.ndarray, price: float) -> Group:
        """The group that grows from one family.

        Args:
            residual: what is to be explained.
            seed: a column of the table.
            able: (families,) bool, which may join: their own association has the seed's sign.
            price: squares of the outcome that a further term must explain.
        """
        faced = self._face(residual)
        state = _State.start(self._rows(seed), faced)
        families, forms, alike = [seed], int(self._forms[seed]), self._alike(seed)
        sign = float(np.sign(state.product)) or 1.0
        while True:
            near = alike >= CLOSENESS * max(np.sqrt(max(float(alike[families].sum()), 0.0)), 1e-12)
            fits = near & able & (self._forms <= MOST_FORMS - forms)
            fits[families] = False
            candidates = np.flatnonzero(fits)
            if not len(candidates):
                break
            best = state.best([self._rows(int(family)) for family in candidates], faced, sign)
            if best is None:
                break
            family = int(candidates[best])
            grown = state.joined(self._rows(family), faced)
            if grown.explained < state.explained + price or np.sign(grown.product) != sign:
                break
            state = grown
            families.append(family)
            forms += int(self._forms[family])
            alike = alike + self._alike(family)
        return Group(tuple(families), sign, state.explained, state.holds)

    def _face(self, residual: Residual) -> "_Faced":
        """Products with a residual, kept until it changes."""
        if self._faced is None or self._faced[0] is not residual.values:
            products = np.column_stack(
                [self._across @ residual.values, self._weight, np.asarray(self._across @ residual.basis)]
            )
            self._faced = residual.values, _Faced(self.design, self._across, products)
        return self._faced[1]

    def _alike(self, family: int) -> np.ndarray:
        """(families,) products of all vectors with one."""
        if family not in self._likeness:
            self._likeness[family] = self._exact @ self._exact[family]
        return self._likeness[family]

    def _rows(self, family: int) -> np.ndarray:
        matrix = self.table.matrix
        return matrix.indices[matrix.indptr[family] : matrix.indptr[family + 1]]


@dataclass(frozen=True)
class _Faced:
    """What growing reads of a residual.

    Attributes:
        design: (n, texts) CSR.
        across: its transpose, CSR.
        products: (texts, 2 + q) float64: of each text with the residual, its weight, of it with the basis.
    """

    design: sp.csr_matrix
    across: sp.csr_matrix
    products: np.ndarray


@dataclass(frozen=True)
class _State:
    """A group while it grows: texts that hold it, and its column's products with the residual, the basis and itself."""

    holds: np.ndarray
    product: float
    seen: np.ndarray
    square: float
    turned: np.ndarray

    @staticmethod
    def start(rows: np.ndarray, faced: _Faced) -> "_State":
        texts, width = faced.products.shape
        empty = _State(np.zeros(texts, dtype=bool), 0.0, np.zeros(width - 2), 0.0, np.zeros(texts))
        return empty.joined(rows, faced)

    @property
    def explained(self) -> float:
        left = self.square - float(self.seen @ self.seen)
        return self.product**2 / left if left > 1e-9 else 0.0

    def joined(self, rows: np.ndarray, faced: _Faced) -> "_State":
        fresh = rows[~self.holds[rows]]
        holds = self.holds.copy()
        holds[fresh] = True
        column = np.asarray(faced.design @ holds.astype(np.float64))
        added = faced.products[fresh].sum(axis=0)
        return _State(
            holds, self.product + float(added[0]), self.seen + added[2:], float(column @ column), faced.across @ column
        )

    def best(self, candidates: Sequence[np.ndarray], faced: _Faced, sign: float) -> int | None:
        """Position of the candidate (rows of texts) that would explain most; None if none has fresh texts of its sign.

        The squared length of a pair's column is that of disjoint texts, which is right but for pairs of which both
        texts are fresh; `joined` computes it exactly.
        """
        rows = np.concatenate(candidates)
        fresh = ~self.holds[rows]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in candidates])])
        kept = np.concatenate([[0], np.cumsum(fresh)])[starts]
        shape = (len(candidates), len(self.holds))
        members = sp.csr_matrix((np.ones(int(fresh.sum())), rows[fresh], kept), shape=shape)
        sums = members @ faced.products
        product, added, seen = self.product + sums[:, 0], sums[:, 1], self.seen + sums[:, 2:]
        left = self.square + 2 * (members @ self.turned) + added - (seen**2).sum(axis=1)
        value = np.where(
            (left > 1e-9) & (added > 0) & (np.sign(product) == sign), product**2 / np.maximum(left, 1e-9), -1
        )
        best = int(value.argmax())
        return best if value[best] > 0 else None


def strongest_seeds(strength: np.ndarray, explained: np.ndarray, most: int) -> Sequence[int]:
    """Families to grow from: those that explain most alone and hold across clusters."""
    order = np.argsort(-np.where(np.abs(strength) > 2.0, explained, -1.0), kind="stable")[:most]
    return [int(j) for j in order if abs(strength[j]) > 2.0]
