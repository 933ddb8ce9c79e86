"""Candidate claims: word groups and exemplars, from what neurons say and how texts are written."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.claims import (
    APART,
    SIMILARITIES,
    Cue,
    Length,
    Meaning,
    Sentences,
    WordGroup,
    closest,
    judge,
    least_similarity,
    stands_apart,
    strongest_units,
    typical_units,
)
from hsae_dagster.core.concepts.words import SIGN_CUES, WORD_CUES, TermTable, count_words
from hsae_dagster.core.inference.joint_fit import phi_matrix
from hsae_dagster.core.observations import TextUnits, folded
from hsae_dagster.errors import MethodError
from hsae_dagster.extensions import Own, Registry

_TINY = 1e-9


@dataclass(frozen=True)
class Gains:
    """What each of p columns would add.

    Attributes:
        sums: (p,) product with the residual.
        explained: (p,) share of the outcome's squares that it would explain.
        strength: (p,) signed cluster-robust t statistic of its coefficient (CR0).
    """

    sums: np.ndarray
    explained: np.ndarray
    strength: np.ndarray


class Watched:
    """Sparse columns (n, p) about whose gains a growing basis is asked again and again: what does not change is kept.

    Attributes:
        across: (p, n) CSR, the columns transposed.
        squares: (p,) squared length of each column.
        owners: for each pair of a cluster and a column that meet, by column: the column.
    """

    def __init__(self, columns: sp.csc_matrix, clusters: np.ndarray) -> None:
        """Prepare; `clusters` are (n,) int64 from 0."""
        self.across = columns.T.tocsr().astype(np.float64, copy=False)
        self._clusters = int(clusters.max(initial=-1)) + 1
        data, rows, p = self.across.data, self.across.indices, columns.shape[1]
        column = np.repeat(np.arange(p), np.diff(self.across.indptr))
        self.squares = np.bincount(column, weights=data**2, minlength=p)
        meets, self._slots = np.unique(column * max(self._clusters, 1) + clusters[rows], return_inverse=True)
        self.owners, inside = np.divmod(meets, max(self._clusters, 1))
        starts = np.searchsorted(self.owners, np.arange(p + 1))
        self._sums = sp.csc_matrix((np.zeros(len(meets)), inside, starts), shape=(self._clusters, p))
        self.restart()

    def restart(self) -> None:
        """Forget the basis: another one will be asked about."""
        self._seen = np.zeros((len(self.squares), 0))

    def products(self, basis: np.ndarray) -> np.ndarray:
        """(p, q) products with an orthonormal basis (n, q) that begins with the one that was asked about before."""
        known = self._seen.shape[1]
        if known < basis.shape[1]:
            self._seen = np.column_stack([self._seen, self.across @ basis[:, known:]])
        return self._seen[:, : basis.shape[1]]

    def cluster_sums(self, values: np.ndarray) -> sp.csc_matrix:
        """(clusters, p) CSC: sum over each cluster of a column times values (n,)."""
        weights = self.across.data * values[self.across.indices]
        self._sums.data = np.bincount(self._slots, weights=weights, minlength=len(self.owners))
        return self._sums


class Residual:
    """What a basis of columns leaves of an outcome y, which is `basis @ basis.T @ y + values`.

    Attributes:
        values: (n,) float64, the residual.
        basis: (n, q) float64 with orthonormal columns.
    """

    def __init__(self, outcome: np.ndarray, held: np.ndarray, clusters: np.ndarray) -> None:
        """Start from columns held constant, (n, c): an intercept (none for pairs) and controls; clusters from 0."""
        self.clusters = clusters
        self.basis = np.zeros((len(outcome), 0))
        if held.shape[1]:
            left, spread, _ = np.linalg.svd(held, full_matrices=False)
            self.basis = left[:, spread > 1e-10 * max(float(spread.max(initial=0.0)), _TINY)]
        self.values = outcome - self.basis @ (self.basis.T @ outcome)
        self.total = float(self.values @ self.values)

    @property
    def noise(self) -> float:
        """Variance of what is left."""
        return max(float(self.values @ self.values) / max(len(self.values) - self.basis.shape[1], 1), _TINY)

    def gains(self, columns: "sp.csc_matrix | Watched") -> Gains:
        """What each column of a sparse (n, p) matrix, or of one that is asked about again, would add to the basis."""
        watched = columns if isinstance(columns, Watched) else Watched(columns, self.clusters)
        sums = np.asarray(watched.across @ self.values).ravel()
        seen = watched.products(self.basis)
        left = watched.squares - (seen**2).sum(axis=1)
        able = left > _TINY * np.maximum(watched.squares, 1.0)
        explained = np.where(able, sums**2 / np.where(able, left, 1.0) / max(self.total, _TINY), 0.0)
        spread = np.sqrt(np.maximum(self._cluster_scores(watched, seen), _TINY))
        return Gains(sums, explained, np.where(able, sums / spread, 0.0))

    def gain(self, column: np.ndarray) -> tuple[float, float]:
        """Share explained and strength (see `Gains`) of one column (n,)."""
        product, seen = float(column @ self.values), column @ self.basis
        square = float(column @ column)
        left = square - float(seen @ seen)
        if left <= _TINY * max(square, 1.0):
            return 0.0, 0.0
        sums = np.bincount(self.clusters, weights=self.values * (column - self.basis @ seen))
        strength = product / math.sqrt(max(float(sums @ sums), _TINY))
        return product**2 / left / max(self.total, _TINY), strength

    def _cluster_scores(self, watched: "Watched", seen: np.ndarray) -> np.ndarray:
        """(p,) sum over clusters of the squared cluster sums of residual times column beside the basis.

        Those are of r_i (x_i - Q Q'x_i); the second part is dense in i, so it is taken cluster by cluster, with
        |own - basis seen'|² = |own|² - 2 own·(basis seen') + seen (basis'basis) seen'.
        """
        own = watched.cluster_sums(self.values)
        squares = np.bincount(watched.owners, weights=own.data**2, minlength=own.shape[1])
        if not self.basis.shape[1]:
            return squares
        n = len(self.values)
        groups = sp.csr_matrix((self.values, (self.clusters, np.arange(n))), shape=(own.shape[0], n))
        basis = np.asarray(groups @ self.basis)
        cross = ((own.T @ basis) * seen).sum(axis=1)
        return squares - 2 * np.asarray(cross).ravel() + ((seen @ (basis.T @ basis)) * seen).sum(axis=1)

    def take(self, column: np.ndarray) -> None:
        """Add a column (n,) to the basis."""
        fresh = column - self.basis @ (self.basis.T @ column)
        fresh -= self.basis @ (self.basis.T @ fresh)
        length = float(np.linalg.norm(fresh))
        if length <= _TINY * max(float(np.linalg.norm(column)), 1.0):
            return
        fresh /= length
        self.basis = np.column_stack([self.basis, fresh])
        self.values = self.values - fresh * (fresh @ self.values)


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
        return table.forms_of(self.families)


class Grower:
    """Grows groups of one term table for one set of observations."""

    def __init__(self, table: TermTable, vectors: np.ndarray, design: sp.csr_matrix) -> None:
        """Prepare; vectors are the families', (families, d) float32 of unit length, the design (n, texts) CSR."""
        self.table, self.design = table, design
        self.columns: sp.csc_matrix = (design @ table.matrix).tocsc()
        self._across = design.T.tocsr()
        self._weight = np.asarray(abs(design).sum(axis=0)).ravel()
        self._forms = np.array([len(family.forms) for family in table.families], dtype=np.int64)
        self._exact = vectors.astype(np.float64)
        self._likeness: dict[int, np.ndarray] = {}
        self._faced, self._products = np.zeros(0), np.zeros((0, 2))

    def grow(self, residual: Residual, seed: int, able: np.ndarray, price: float) -> Group:
        """The group that grows from one family, `seed`.

        Those may join that are `able`, (families,) bool: their own association has the seed's sign; each must explain
        so many squares of the outcome as is its price.
        """
        self._face(residual)
        texts, width = self._products.shape
        empty = _State(np.zeros(texts, dtype=bool), 0.0, np.zeros(width - 2), 0.0, np.zeros(texts))
        state = self._joined(empty, seed)
        families, forms, alike = [seed], int(self._forms[seed]), self._alike(seed)
        sign = float(np.sign(state.product)) or 1.0
        while True:
            near = alike >= CLOSENESS * max(np.sqrt(max(float(alike[families].sum()), 0.0)), 1e-12)
            fits = near & able & (self._forms <= MOST_FORMS - forms)
            fits[families] = False
            candidates = np.flatnonzero(fits)
            if not len(candidates):
                break
            best = self._best(state, candidates, sign)
            if best is None:
                break
            family = int(candidates[best])
            grown = self._joined(state, family)
            if grown.explained < state.explained + price or np.sign(grown.product) != sign:
                break
            state = grown
            families.append(family)
            forms += int(self._forms[family])
            alike = alike + self._alike(family)
        return Group(tuple(families), sign, state.explained, state.holds)

    def _face(self, residual: Residual) -> None:
        """Products (texts, 2 + q) of each text with a residual, its weight, and its products with the basis.

        They are kept until the residual changes.
        """
        if self._faced is not residual.values:
            self._faced = residual.values
            self._products = np.column_stack(
                [self._across @ residual.values, self._weight, np.asarray(self._across @ residual.basis)]
            )

    def _alike(self, family: int) -> np.ndarray:
        """(families,) products of all vectors with one."""
        if family not in self._likeness:
            self._likeness[family] = self._exact @ self._exact[family]
        return self._likeness[family]

    def _rows(self, family: int) -> np.ndarray:
        matrix = self.table.matrix
        return matrix.indices[matrix.indptr[family] : matrix.indptr[family + 1]]

    def _joined(self, state: "_State", family: int) -> "_State":
        rows = self._rows(family)
        fresh = rows[~state.holds[rows]]
        holds = state.holds.copy()
        holds[fresh] = True
        column = np.asarray(self.design @ holds.astype(np.float64))
        added = self._products[fresh].sum(axis=0)
        product, seen = state.product + float(added[0]), state.seen + added[2:]
        return _State(holds, product, seen, float(column @ column), self._across @ column)

    def _best(self, state: "_State", candidates: np.ndarray, sign: float) -> int | None:
        """Position of the family that would explain most; None if none has fresh texts of its sign.

        The squared length of a pair's column is that of disjoint texts, which is right but for pairs of which both
        texts are fresh; `_joined` computes it exactly.
        """
        of_each = [self._rows(int(family)) for family in candidates]
        rows = np.concatenate(of_each)
        fresh = ~state.holds[rows]
        starts = np.concatenate([[0], np.cumsum([len(own) for own in of_each])])
        kept = np.concatenate([[0], np.cumsum(fresh)])[starts]
        shape = (len(candidates), len(state.holds))
        members = sp.csr_matrix((np.ones(int(fresh.sum())), rows[fresh], kept), shape=shape)
        sums = members @ self._products
        product, added, seen = state.product + sums[:, 0], sums[:, 1], state.seen + sums[:, 2:]
        left = state.square + 2 * (members @ state.turned) + added - (seen**2).sum(axis=1)
        value = np.where(
            (left > 1e-9) & (added > 0) & (np.sign(product) == sign), product**2 / np.maximum(left, 1e-9), -1
        )
        best = int(value.argmax())
        return best if value[best] > 0 else None


@dataclass(frozen=True)
class _State:
    """A group while it grows: texts that hold it, and its column's products with the residual, the basis and itself."""

    holds: np.ndarray
    product: float
    seen: np.ndarray
    square: float
    turned: np.ndarray

    @property
    def explained(self) -> float:
        left = self.square - float(self.seen @ self.seen)
        return self.product**2 / left if left > 1e-9 else 0.0


def strongest_seeds(strength: np.ndarray, explained: np.ndarray, most: int) -> Sequence[int]:
    """Families to grow from: those that explain most alone and hold across clusters."""
    order = np.argsort(-np.where(np.abs(strength) > 2.0, explained, -1.0), kind="stable")[:most]
    return [int(j) for j in order if abs(strength[j]) > 2.0]


# Shares of texts below and above which the length bands lie.
_BANDS = (0.2, 0.8)
# Word groups of one neuron, terms they are made of, and least φ of a term with the neuron's firing.
_GROUPS, _TERMS, _LEAST_PHI = 4, 40, 0.03


@dataclass(frozen=True)
class Pool:
    """Candidate claims and the texts that hold them.

    Attributes:
        neurons: (candidates,) the neuron that each was made from; -1 for none.
        columns: (texts, candidates) float32 CSC of ones.
        sources: of the columns, what made them: `neuron`, `style`, or the import path of a user's own source.
    """

    meanings: tuple[Meaning, ...]
    neurons: np.ndarray
    columns: sp.csc_matrix
    sources: tuple[str, ...]

    @staticmethod
    def together(parts: "Sequence[Pool]") -> "Pool":
        """Several pools over the same texts; of equal claims the first."""
        meanings = [meaning for part in parts for meaning in part.meanings]
        neurons = np.concatenate([part.neurons for part in parts])
        columns = sp.hstack([part.columns for part in parts], format="csc", dtype=np.float32)
        first = sorted({meaning: place for place, meaning in reversed(list(enumerate(meanings)))}.values())
        sources = [source for part in parts for source in part.sources]
        kept = columns[:, first].tocsc()
        return Pool(tuple(meanings[j] for j in first), neurons[first], kept, tuple(sources[j] for j in first))

    @staticmethod
    def of(meanings: Sequence[Meaning], neurons: Sequence[int] | np.ndarray, holds: np.ndarray, source: str) -> "Pool":
        """From (texts, candidates) bool."""
        columns = sp.csc_matrix(holds.astype(np.float32))
        return Pool(tuple(meanings), np.array(neurons, dtype=np.int64), columns, (source,) * len(meanings))

    @staticmethod
    def of_texts(meanings: Sequence[Meaning], texts: Sequence[str], source: str) -> "Pool":
        """Of claims that need no neuron, and no similarity, to be judged."""
        return Pool.of(meanings, [-1] * len(meanings), judge(meanings, texts) == 1, source)


def style_pool(texts: Sequence[str]) -> Pool:
    """Style cues, closed word classes and length bands of n texts."""
    meanings: list[Meaning] = [Cue(name) for name in (*WORD_CUES, *SIGN_CUES)]
    n_words = np.array([count_words(text) for text in texts])
    low, high = (int(value) for value in np.quantile(n_words, _BANDS))
    if (n_words > low).any():
        meanings.append(Length(low, most=True))
    if high > low and (n_words < high).any():
        meanings.append(Length(high, most=False))
    return Pool.of_texts(meanings, texts, "style")


def neuron_groups(fires: sp.csc_matrix, neurons: Sequence[int], table: TermTable, vectors: np.ndarray) -> Pool:
    """Word groups of each neuron (see `Spoken`): its terms, grouped by the closeness of their own vectors."""
    phi = phi_matrix(table.matrix, fires)
    meanings: list[Meaning] = []
    sources: list[int] = []
    columns: list[np.ndarray] = []
    for q, neuron in enumerate(neurons):
        order = np.argsort(-phi[:, q], kind="stable")[:_TERMS]
        top = [int(j) for j in order if phi[j, q] >= _LEAST_PHI]
        for families in _grouped(top, table, vectors):
            meanings.append(WordGroup(table.forms_of(families)))
            sources.append(int(neuron))
            columns.append(np.asarray(table.matrix[:, families].sum(axis=1)).ravel() > 0)
    holds = np.array(columns, dtype=bool).reshape(len(columns), fires.shape[0]).T
    return Pool.of(meanings, sources, holds, "neuron")


def _grouped(top: list[int], table: TermTable, vectors: np.ndarray) -> list[list[int]]:
    """Families of a neuron, strongest first, in groups of one meaning."""
    found: list[list[int]] = []
    left = list(top)
    while left and len(found) < _GROUPS:
        members = [left[0]]
        forms, centre = len(table.families[left[0]].forms), vectors[left[0]].astype(np.float64)
        implied: set[int] = set()
        for j in left[1:]:
            more = len(table.families[j].forms)
            if vectors[j] @ centre < CLOSENESS * np.linalg.norm(centre):
                continue
            if not _adds(j, members, table):
                implied.add(j)
            elif forms + more <= MOST_FORMS:
                members.append(j)
                forms, centre = forms + more, centre + vectors[j]
        found.append([j for j in members if _adds(j, [other for other in members if other != j], table)])
        taken = {*members, *implied}
        left = [j for j in left if j not in taken]
    return found


def _adds(family: int, members: list[int], table: TermTable) -> bool:
    """Whether a family can hold where no member does: "slow service" cannot beside "slow", and wastes a place."""
    listed = [f" {form} " for form in table.forms_of(members)]
    return any(not any(known in f" {form} " for known in listed) for form in table.families[family].forms)


@dataclass(frozen=True)
class Units:
    """The units of the texts that claims are learned from.

    Attributes:
        places: which text has which, rows of the other fields.
        texts: (units,) what each reads like.
        vectors: (units, d) float32 of unit length.
        codes: (units, m) CSC of the neurons' activations.
        set_id: the embedding set of the vectors.
    """

    places: TextUnits
    texts: Sequence[str]
    vectors: np.ndarray
    codes: sp.csc_matrix
    set_id: str


def neuron_exemplars(units: Units, neurons: Sequence[int]) -> Pool:
    """Exemplars of each neuron at several similarities; at low ones, those that stand apart from other sentences."""
    n_words = np.array([count_words(text) for text in units.texts])
    wordings = folded(pl.Series(units.texts, dtype=pl.String)).rank("dense").to_numpy()
    least = least_similarity(units.vectors, np.random.default_rng(0))
    kinds = [(max(least, SIMILARITIES[0]), [value for value in SIMILARITIES if value >= least], False)]
    kinds += [(similarity, [similarity], True) for similarity in APART]
    meanings: list[Meaning] = []
    owners: list[int] = []
    columns: list[np.ndarray] = []
    for neuron in neurons:
        span = slice(units.codes.indptr[neuron], units.codes.indptr[neuron + 1])
        strongest = strongest_units(units.codes.data[span], units.codes.indices[span], n_words, wordings)
        quoting = [
            (members, similarities, apart)
            for coherent, similarities, apart in kinds
            for members in typical_units(*strongest, units.vectors, coherent=coherent)
            if _printable(units.texts, members) and not (apart and len(members) == 1)
        ]
        used = sorted({unit for members, _, _ in quoting for unit in members})
        # The units are read once for each neuron, however many sentences are quoted.
        likeness = closest(units.vectors[used], units.vectors)
        for members, similarities, apart in quoting:
            nearest = likeness[:, np.searchsorted(used, members)].max(axis=1)
            if apart and not stands_apart(nearest, similarities[0]):
                continue
            of_texts = np.maximum.reduceat(nearest[units.places.rows], units.places.starts[:-1])
            quoted = tuple(units.texts[unit] for unit in members)
            meanings += [Sentences(quoted, similarity, units.set_id) for similarity in similarities]
            columns += [of_texts >= similarity for similarity in similarities]
            owners += [int(neuron)] * len(similarities)
    holds = np.column_stack(columns) if columns else np.zeros((len(units.places.starts) - 1, 0), dtype=bool)
    return Pool.of(meanings, owners, holds, "neuron")


def _printable(texts: Sequence[str], members: Sequence[int]) -> bool:
    """Whether the sentences can stand in quotation marks: without such marks of their own."""
    return not any(mark in texts[unit] for unit in members for mark in "“”")


@dataclass(frozen=True)
class Spoken:
    """What the neurons' sources of claims read: texts outside the holdout.

    Attributes:
        neurons: (q,) columns of the neurons.
        fires: (texts, q) float32 CSC of ones, where each of them fires.
        vectors: (families, d) float32 unit vectors of the names of the table's families.
        units: of the texts, with the codes of all neurons.
    """

    neurons: Sequence[int]
    fires: sp.csc_matrix
    table: TermTable
    vectors: np.ndarray
    units: Units


@dataclass(frozen=True)
class Source:
    """Where candidates come from: n texts alone, or what neurons say. One of both is given."""

    of_texts: Callable[[Sequence[str]], Pool] | None = None
    of_neurons: Callable[[Spoken], Pool] | None = None


def _own_source(own: Own) -> Source:
    """A user's function that proposes claims for texts; which texts hold them is judged here."""

    def of_texts(texts: Sequence[str]) -> Pool:
        found = own(list(texts))
        if not isinstance(found, list | tuple) or not all(isinstance(each, WordGroup | Cue | Length) for each in found):
            raise own.wrong(f"{type(found).__name__} that is no list of WordGroup, Cue and Length")
        for each in found:
            fault = _fault(each)
            if fault:
                raise own.wrong(fault)
        return Pool.of_texts(list(dict.fromkeys(found)), texts, own.path)

    return Source(of_texts=of_texts)


def _fault(claim: WordGroup | Cue | Length) -> str | None:
    """Why a claim of a user's own could not be judged, or would hold for no text whatever it says."""
    if isinstance(claim, Cue) and claim.name not in {**WORD_CUES, **SIGN_CUES}:
        return f"{claim!r:.60}, a cue that is not known"
    if isinstance(claim, Length) and type(claim.words) is not int:
        return f"{claim!r:.60}, whose words are no whole number"
    if not isinstance(claim, WordGroup):
        return None
    if not isinstance(claim.terms, tuple) or not claim.terms or not all(isinstance(term, str) for term in claim.terms):
        return f"{claim!r:.60}, whose terms are no tuple of words"
    for term in claim.terms:
        if judge([WordGroup((term,))], [term])[0, 0] != 1:
            return f"the term {term!r:.40}, which no text can say (write words in lower case, without punctuation)"
    return None


SOURCES = Registry(
    "interpretation.sources",
    {
        "style": Source(of_texts=style_pool),
        "words": Source(of_neurons=lambda said: neuron_groups(said.fires, said.neurons, said.table, said.vectors)),
        "sentences": Source(of_neurons=lambda said: neuron_exemplars(said.units, said.neurons)),
    },
    _own_source,
    "fn(texts: list[str]) -> a list of claims (WordGroup, Cue or Length of hsae_dagster.core.concepts.claims)",
    MethodError,
)


def text_pools(sources: Sequence[str], texts: Sequence[str]) -> dict[str, Pool]:
    """The candidates of those sources that read texts alone, by name."""
    makers = {name: SOURCES.find(name).of_texts for name in sources}
    return {name: make(texts) for name, make in makers.items() if make}


def all_candidates(sources: Sequence[str], ready: Mapping[str, Pool], said: Spoken) -> Pool:
    """Candidates of the named sources, in their order: ready ones (`text_pools`), and of what neurons said."""
    parts = [Pool.of([], [], np.zeros((said.fires.shape[0], 0), dtype=bool), "")]
    for name in sources:
        make = SOURCES.find(name).of_neurons
        if not make:
            parts.append(ready[name])
        elif said.neurons:
            parts.append(make(said))
    return Pool.together(parts)
