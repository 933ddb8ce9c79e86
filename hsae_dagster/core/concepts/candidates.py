"""Candidate claims: what neurons say, and how texts are written.

Belongs here: word groups and exemplars of each neuron, style cues, lengths, and the texts that hold each. Does not
belong here: word groups grown on the outcome (`word_groups`), which candidates are taken (`choice`). No label is read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.concepts.claims import Cue, Length, Meaning, Sentences, WordGroup
from hsae_dagster.core.concepts.cues import SIGN_CUES, WORD_CUES, count_words, has_sign
from hsae_dagster.core.concepts.exemplars import SIMILARITIES, closest, columns_at, least_similarity, typical_units
from hsae_dagster.core.concepts.terms import TermTable, occurrences
from hsae_dagster.core.concepts.word_groups import CLOSENESS, MOST_FORMS
from hsae_dagster.core.phi import phi_matrix
from hsae_dagster.core.pooling import TextUnits

# Shares of texts below and above which the length bands lie.
_BANDS = (0.2, 0.8)
# Word groups of one neuron, terms they are made of, and least φ of a term with the neuron's firing.
_GROUPS, _TERMS, _LEAST_PHI = 4, 40, 0.03


@dataclass(frozen=True)
class Pool:
    """Candidate claims and the texts that hold them.

    Attributes:
        meanings: of the columns.
        neurons: (candidates,) the neuron that each was made from; -1 for none.
        columns: (texts, candidates) float32 CSC of ones.
    """

    meanings: tuple[Meaning, ...]
    neurons: np.ndarray
    columns: sp.csc_matrix

    @staticmethod
    def together(parts: "Sequence[Pool]") -> "Pool":
        """Several pools over the same texts; of equal claims the first."""
        meanings = [meaning for part in parts for meaning in part.meanings]
        neurons = np.concatenate([part.neurons for part in parts])
        columns = sp.hstack([part.columns for part in parts], format="csc", dtype=np.float32)
        first = sorted({meaning: place for place, meaning in reversed(list(enumerate(meanings)))}.values())
        return Pool(tuple(meanings[j] for j in first), neurons[first], columns[:, first].tocsc())

    @staticmethod
    def of(meanings: Sequence[Meaning], neurons: Sequence[int], columns: Sequence[np.ndarray], n_texts: int) -> "Pool":
        """From one (texts,) bool for each candidate."""
        dense = np.column_stack(columns) if columns else np.zeros((n_texts, 0))
        return Pool(tuple(meanings), np.array(neurons, dtype=np.int64), sp.csc_matrix(dense.astype(np.float32)))


def style_pool(texts: Sequence[str]) -> Pool:
    """Style cues, closed word classes and length bands of n texts."""
    meanings: list[Meaning] = [Cue(name) for name in (*WORD_CUES, *SIGN_CUES)]
    words = sorted({word for own in WORD_CUES.values() for word in own})
    place = {word: column for column, word in enumerate(words)}
    found = occurrences(texts, words).tocsc()
    columns = [
        np.asarray(found[:, [place[word] for word in own]].sum(axis=1)).ravel() > 0 for own in WORD_CUES.values()
    ]
    columns += [has_sign(name, texts) for name in SIGN_CUES]
    n_words = np.array([count_words(text) for text in texts])
    low, high = (int(value) for value in np.quantile(n_words, _BANDS))
    if (n_words > low).any():
        meanings.append(Length(low, most=True))
        columns.append(n_words <= low)
    if high > low and (n_words < high).any():
        meanings.append(Length(high, most=False))
        columns.append(n_words >= high)
    return Pool.of(meanings, [-1] * len(meanings), columns, len(texts))


def neuron_groups(fires: sp.csc_matrix, neurons: Sequence[int], table: TermTable, vectors: np.ndarray) -> Pool:
    """Word groups of each neuron: its terms, grouped by the closeness of their own vectors.

    Args:
        fires: (texts, q) float32 CSC of ones, where each of q neurons fires.
        neurons: (q,) their columns.
        table: terms of the same texts.
        vectors: (families, d) float32 unit vectors of the families' names.
    """
    phi = phi_matrix(table.matrix, fires)
    meanings: list[Meaning] = []
    sources: list[int] = []
    columns: list[np.ndarray] = []
    for q, neuron in enumerate(neurons):
        order = np.argsort(-phi[:, q], kind="stable")[:_TERMS]
        top = [int(j) for j in order if phi[j, q] >= _LEAST_PHI]
        for families in _grouped(top, table, vectors):
            meanings.append(WordGroup(tuple(form for j in families for form in table.families[j].forms)))
            sources.append(int(neuron))
            columns.append(np.asarray(table.matrix[:, families].sum(axis=1)).ravel() > 0)
    return Pool.of(meanings, sources, columns, fires.shape[0])


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
    listed = [f" {form} " for j in members for form in table.families[j].forms]
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
    """Exemplars of each neuron at several similarities."""
    n_words = np.array([count_words(text) for text in units.texts])
    least = least_similarity(units.vectors, np.random.default_rng(0))
    similarities = [value for value in SIMILARITIES if value >= least]
    sets: list[tuple[int, ...]] = []
    owners: list[int] = []
    for neuron in neurons:
        span = slice(units.codes.indptr[neuron], units.codes.indptr[neuron + 1])
        found = typical_units(
            units.codes.data[span],
            units.codes.indices[span],
            units.vectors,
            n_words,
            coherent=max(least, SIMILARITIES[0]),
        )
        sets += [each.units for each in found if _printable(units.texts, each.units)]
        owners += [int(neuron)] * (len(sets) - len(owners))
    used = sorted({unit for members in sets for unit in members})
    place = {unit: column for column, unit in enumerate(used)}
    likeness = closest(units.vectors[used], units.vectors) if used else np.zeros((len(units.texts), 0), np.float32)
    of_texts = np.maximum.reduceat(likeness[units.places.rows], units.places.starts[:-1], axis=0)
    columns = columns_at(of_texts, [[place[unit] for unit in members] for members in sets], similarities)
    meanings = [
        Sentences(tuple(units.texts[unit] for unit in members), similarity, units.set_id)
        for members in sets
        for similarity in similarities
    ]
    return Pool(tuple(meanings), np.repeat(np.array(owners, dtype=np.int64), len(similarities)), columns)


def _printable(texts: Sequence[str], members: Sequence[int]) -> bool:
    """Whether the sentences can stand in quotation marks: without such marks of their own."""
    return not any(mark in texts[unit] for unit in members for mark in "“”")
