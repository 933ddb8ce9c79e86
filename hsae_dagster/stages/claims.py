"""Claims found offline: what they are learned from, how close sentences are, candidates and the choice."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.candidates import Pool, Spoken, Units, all_candidates, text_pools
from hsae_dagster.core.concepts.choice import FOLDS, MOST_ALIKE, Learned, Limits, Path, Pick, Vocabulary, choose_claims
from hsae_dagster.core.concepts.claims import Concept, Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.fidelity import column, firing_bounds, measure_fidelity
from hsae_dagster.core.concepts.words import TermTable, as_written, meanings, supported_terms, words_of
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.core.inference.joint_fit import phi, phis
from hsae_dagster.core.observations import (
    control_columns,
    firing_separation,
    is_pairwise,
    sample_clusters,
    text_keys,
    text_rows,
    text_sides,
)
from hsae_dagster.core.selection.stability import Side
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.rows import levels_of
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.dataset.units import Kind, split_text
from hsae_dagster.keys import text_id
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.registry import AUTHOR
from hsae_dagster.providers.spending import Account
from hsae_dagster.stages.judging import account_of, open_account
from hsae_dagster.storage.outputs import StoredActivations, StoredCorpus, StoredEmbeddings, StoredSelection
from hsae_dagster.storage.vectors import VectorTable

# Vectors of single terms and of texts that belong to no dataset, shared by all datasets of an embedding set.
_SHARED = "_terms"
_BLOCK = 20_000


Embed: TypeAlias = Callable[[Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class UnitCloseness:
    """Cosines of the units of texts with sentences; a unit that has no vector in `embeddings` is embedded."""

    embeddings: StoredEmbeddings
    embed: Embed
    kind: Kind

    @staticmethod
    def of(stage: Stage, corpus: StoredCorpus) -> "UnitCloseness":
        """By the dataset's current embeddings."""
        return UnitCloseness(stage.embeddings, _embedder(stage.dataset, partial(account_of, stage)), corpus.unit_kind)

    @staticmethod
    def of_results(
        project: Project, dataset: Dataset, embeddings: StoredEmbeddings, corpus: StoredCorpus
    ) -> "UnitCloseness":
        """By stored embeddings, outside a run: what has no vector is embedded and not kept."""
        embed = _embedder(dataset, partial(open_account, project, dataset, embeddings.asset, "try"))
        return UnitCloseness(embeddings, embed, corpus.unit_kind)

    def __call__(self, texts: Sequence[str], sentences: Sequence[str]) -> tuple[np.ndarray, list[list[str]]]:
        """(texts, sentences) float32 cosine of the closest unit of each text, and that unit."""
        quoted = self._of(list(sentences)).T
        closest = np.empty((len(texts), len(sentences)), dtype=np.float32)
        best: list[list[str]] = []
        for start in range(0, len(texts), _BLOCK):
            units = [self._units(text) for text in texts[start : start + _BLOCK]]
            starts = np.concatenate([[0], np.cumsum([len(own) for own in units])])
            likeness = self._of(list(chain.from_iterable(units))) @ quoted
            for i, own in enumerate(units):
                mine = likeness[starts[i] : starts[i + 1]]
                closest[start + i] = mine.max(axis=0)
                best.append([own[j] for j in mine.argmax(axis=0)])
        return closest, best

    def _units(self, text: str) -> list[str]:
        return [unit.text for unit in split_text(text, self.kind)] or [text]

    def _of(self, units: list[str]) -> np.ndarray:
        """(n, d) vectors of units, each distinct one read or made once."""
        keys = [text_id(unit) for unit in units]
        distinct = dict(zip(keys, units, strict=True))
        ids = pl.Series(sorted(distinct), dtype=pl.String)
        lacking = self.embeddings.lacking(ids)
        found = np.empty((len(ids), self.embeddings.family.dimensions), dtype=np.float32)
        found[~lacking] = self.embeddings.read(ids.filter(pl.Series(~lacking))) if not lacking.all() else 0
        if lacking.any():
            found[lacking] = self.embed([distinct[key] for key in ids.filter(pl.Series(lacking))])
        return found[ids.search_sorted(pl.Series(keys, dtype=pl.String)).to_numpy()]


def _embedder(dataset: Dataset, account: Callable[[], Account]) -> Embed:
    """The dataset's embedder, made when it is first asked."""

    def embed(texts: Sequence[str]) -> np.ndarray:
        from hsae_dagster.providers.registry import make_embedder

        return make_embedder(dataset.spec.embedding, account()).embed(texts)

    return embed


def term_vectors(stage: Stage, terms: Sequence[str]) -> np.ndarray:
    """(n, d) float32 vectors of single terms, kept for every dataset that has the same ones."""
    table = VectorTable(stage.project.results, _SHARED, stage.embeddings.family)
    by_key = {text_id(term): term for term in terms}
    ids = pl.Series(sorted(by_key), dtype=pl.String)

    def fill(known: pl.Series) -> np.ndarray:
        missing = sorted(by_key.keys() - set(known))
        if missing:
            stage.report(f"{len(missing):,} terms are embedded")
            embed = _embedder(stage.dataset, partial(account_of, stage))
            table.append(missing, embed([by_key[key] for key in missing]))
        return table.read(ids)

    found = table.filled(fill, lambda: stage.report("another run is embedding terms; waiting for it"))
    return found[ids.search_sorted(pl.Series([text_id(term) for term in terms], dtype=pl.String)).to_numpy()]


# More texts say little more about which claims to take; beyond it a seeded sample of clusters is read.
MOST_TEXTS = 40_000
# Neurons that candidates come from, as a multiple of the claims wanted.
NEURONS_PER_CLAIM = 3
_MOST_TERMS = 3000


@dataclass(frozen=True)
class Material:
    """What claims are learned from: every observation of a side outside its holdout, and its texts, ascending text_id.

    `codes` (texts, m) CSC are the neurons' activations, `selected` the columns of the selected neurons, by rank.
    """

    texts: pl.DataFrame
    observations: pl.DataFrame
    codes: sp.csc_matrix
    selected: Sequence[int]
    task: str

    @staticmethod
    def read(stage: Stage, side: Side, activations: StoredActivations, selected: StoredSelection) -> "Material":
        """Everything but the side's holdout, or a sample of its clusters."""
        texts, observations = (rows.filter(pl.col("split") != "holdout") for rows in (side.texts, side.observations))
        observations = sample_clusters(observations, MOST_TEXTS, stage.dataset.spec.interpretation.seed)
        texts = texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))
        codes = activations.on(texts["text_id"], side.half).tocsc()
        return Material(texts, observations, codes, selected.columns(side.half), stage.dataset.spec.task)

    @cached_property
    def learned(self) -> Learned:
        """The observations as the choice reads them."""
        return learned_of(self.texts["text_id"], self.observations, self.task)

    @cached_property
    def fires(self) -> sp.csc_matrix:
        """(texts, m) float32 CSC of ones."""
        return sp.csc_matrix(self.codes > 0, dtype=np.float32)

    def sources(self, n: int) -> list[int]:
        """Neurons that candidates come from: the selected ones, then those that go most with the outcome."""
        order = strongest(self.learned, self.fires)
        return list(dict.fromkeys([*self.selected, *order]))[: max(n, len(self.selected))]


def learned_of(text_ids: pl.Series, observations: pl.DataFrame, task: str) -> Learned:
    """Observations as the choice of claims reads them, over texts (ascending keys)."""
    n = observations.height
    sides = [text_rows(text_ids, observations[side]) for side in text_sides(observations)]
    signs = np.repeat([1.0, -1.0][: len(sides)], n)
    places = (np.tile(np.arange(n), len(sides)), np.concatenate(sides))
    design = sp.csr_matrix((signs, places), shape=(n, len(text_ids)))
    pair = is_pairwise(observations)
    controls = control_columns(observations)
    held = np.column_stack([np.empty((n, 0)), *([] if pair else [np.ones(n)]), *controls])
    clusters = np.unique(observations["cluster_id"].to_numpy(), return_inverse=True)[1]
    outcome = observations["label"].to_numpy().astype(np.float64) - (0.5 if pair else 0.0)
    return Learned(outcome, held, clusters, design, task)


def strongest(learned: Learned, fires: sp.csc_matrix) -> list[int]:
    """Columns of fires (texts, m) that go with the outcome (|t| > 1), those that go most with it first."""
    strength = np.abs(learned.residual.gains((learned.design @ fires).tocsc()).strength)
    return [int(j) for j in np.argsort(-strength, kind="stable") if strength[j] > 1.0]


def pool_of(
    spec: DatasetSpec,
    ready: Mapping[str, Pool],
    neurons: Sequence[int],
    fires: sp.csc_matrix,
    vocabulary: Vocabulary,
    units: Units,
) -> Pool:
    """Ready candidates of the declared sources; of neurons, those of some columns of `fires` and the units' codes."""
    said = Spoken(neurons, fires[:, neurons], vocabulary.table, vocabulary.vectors, units)
    return all_candidates(spec.interpretation.sources, ready, said)


def least_texts(spec: DatasetSpec, side: Side, n_texts: int) -> int:
    """Texts of n that a claim needs, so that the holdout can be expected to have enough of them to test it."""
    held_out = side.texts.filter(pl.col("split") == "holdout").height
    return max(20, int(np.ceil(1.2 * spec.inference.min_positives * n_texts / max(held_out, 1))))


def vocabulary_of(
    stage: Stage, texts: pl.DataFrame, observations: pl.DataFrame, learned: Learned, units: Units
) -> Vocabulary:
    """Terms of texts and their vectors; where they are very many, those that go most with the outcome.

    Values of the columns of their observations are no terms; of `learned` the outcome may be looked at.
    """
    table = supported_terms(texts["text"].to_list(), texts["cluster_id"].to_numpy(), taken=_values(observations))
    if len(table.families) > _MOST_TERMS:
        strength = np.abs(learned.residual.gains((learned.design @ table.matrix).tocsc()).strength)
        kept = np.sort(np.argsort(-strength, kind="stable")[:_MOST_TERMS])
        table = TermTable(tuple(table.families[j] for j in kept), table.matrix[:, kept].tocsc())
    if not table.families:
        return Vocabulary(table, np.zeros((0, 1), dtype=np.float32))
    names = term_vectors(stage, [family.name for family in table.families])
    return Vocabulary(table, meanings(table, names, units.texts, units.vectors))


def units_of(stage: Stage, corpus: StoredCorpus, text_ids: pl.Series) -> Units:
    """The units of some texts (ascending keys) and their vectors; the codes are left empty."""
    places = corpus.places.of_texts(text_ids)
    return Units(
        places=places,
        texts=corpus.wording(places.unit_ids),
        vectors=stage.embeddings.read(places.unit_ids),
        codes=sp.csc_matrix((len(places.unit_ids), 0), dtype=np.float32),
        set_id=stage.embeddings.family.set_id,
    )


# Components of embeddings that tell of outcomes: more cost time (cubic) and tell little.
_MOST_COMPONENTS = 512


def _main_components(vectors: np.ndarray) -> np.ndarray:
    """(n, d) vectors, or their first principal components where there are many."""
    if vectors.shape[1] <= _MOST_COMPONENTS or len(vectors) <= _MOST_COMPONENTS:
        return vectors
    from sklearn.decomposition import PCA

    return np.asarray(PCA(_MOST_COMPONENTS, svd_solver="covariance_eigh").fit_transform(vectors), dtype=np.float32)


def _values(observations: pl.DataFrame) -> frozenset[str]:
    """Values of the cluster and of controls, as terms: a name is no finding about what a text says."""
    columns = ["cluster_id", *[name for name in observations.columns if name.startswith("control:")]]
    values = {
        value for name in columns if observations[name].dtype == pl.String for value in observations[name].drop_nulls()
    }
    return frozenset(" ".join(word for word in words_of(value.replace("_", " ")) if word) for value in values)


# φ with a neuron's firing from which a claim counts as saying something about that neuron.
_SAYS = 0.2


@dataclass(frozen=True)
class Found:
    """A claim that was taken.

    Its neuron is the one it was made from, else the one it goes with, -1 for none; its source is `terms`, or what made
    the candidate (`Pool.sources`).
    """

    pick: Pick
    meaning: Meaning
    neuron: int
    source: str


def find_claims(
    stage: Stage, material: Material, side: Side, corpus: StoredCorpus, activations: StoredActivations
) -> tuple[list[Found], list[Path]]:
    """Make candidates, choose among them; the claims taken, in order, and the paths of every price that was tried."""
    spec, texts = stage.dataset.spec, material.texts["text"].to_list()
    units = units_of(stage, corpus, material.texts["text_id"])
    vocabulary = vocabulary_of(stage, material.texts, material.observations, material.learned, units)
    stage.report(f"{len(vocabulary.table.families):,} terms are supported by several clusters of {len(texts):,} texts")
    neurons = material.sources(NEURONS_PER_CLAIM * spec.selection.n)
    units = replace(units, codes=activations.on_units(units.places.unit_ids).tocsc())
    ready = text_pools(spec.interpretation.sources, texts)
    pool = pool_of(spec, ready, neurons, material.fires, vocabulary, units)
    limits = Limits(spec.selection.n, least_texts(stage.dataset.spec, side, material.texts.height))
    vectors = _main_components(units.places.mean(units.vectors))
    learned = replace(material.learned, vectors=np.asarray(material.learned.design.astype(np.float32) @ vectors))
    stage.report(f"{len(pool.meanings):,} candidates of {len(neurons)} neurons and of texts compete with the terms")
    picks, paths = _choose(spec, material.observations, learned, pool, vocabulary, limits)
    found = []
    for pick in picks:
        meaning: Meaning
        if pick.column is not None:
            j = pick.column
            meaning, neuron, source = pool.meanings[j], int(pool.neurons[j]), pool.sources[j]
        else:
            assert pick.group is not None  # a pick is one or the other
            meaning, neuron, source = WordGroup(pick.group.terms(vocabulary.table)), -1, "terms"
        if isinstance(meaning, WordGroup):
            meaning = WordGroup(as_written(meaning.terms, [texts[i] for i in np.flatnonzero(pick.holds)]))
        found.append(Found(pick, meaning, neuron if neuron >= 0 else _nearest(material, pick.holds), source))
    return found, paths


def _choose(
    spec: DatasetSpec,
    observations: pl.DataFrame,
    learned: Learned,
    pool: Pool,
    vocabulary: Vocabulary,
    limits: Limits,
) -> tuple[list[Pick], list[Path]]:
    """Claims about all observations; where effects may change with a control, about those of each of its levels, too.

    An effect that changes sign between two levels cancels out over all observations.
    """
    seed = spec.interpretation.seed
    picks, paths = choose_claims(learned, pool.columns, vocabulary, limits, seed=seed)
    for name in spec.selection.interactions:
        levels = levels_of(observations, name)
        for level in np.unique(levels):
            rows = np.flatnonzero(levels == level)
            part = learned.rows(rows)
            if len(np.unique(part.clusters)) < 2 * FOLDS or len(np.unique(part.outcome)) < 2:
                continue
            least = limits.share(len(rows) / len(levels))
            picks = picks + choose_claims(part, pool.columns, vocabulary, least, seed=seed)[0]
    if not spec.selection.interactions:
        return picks, paths
    taken: list[Pick] = []
    for pick in sorted(picks, key=lambda each: -each.worth):
        if all(abs(phi(pick.holds, other.holds)) <= MOST_ALIKE for other in taken):
            taken.append(pick)
    return taken[: limits.n], paths


def _nearest(material: Material, holds: np.ndarray) -> int:
    """The neuron whose firing goes most with a claim; -1 where none goes with it."""
    fires = material.fires
    found = phis(fires.T @ holds.astype(np.float64), np.diff(fires.indptr), int(holds.sum()), len(holds))
    best = int(found.argmax()) if len(found) else -1
    return best if best >= 0 and found[best] >= _SAYS else -1


def concepts_of(
    material: Material, found: list[Found], columns: pl.DataFrame, first: int, half: str
) -> list[FoundConcept]:
    """A concept for each claim, then one record for each selected neuron about which nothing could be said.

    `columns` are those of the activations, `first` is the rank of the first one, `half` the one they were found in.
    """
    places = {row["column"]: row for row in columns.iter_rows(named=True)}
    validation = (material.texts["split"] != "train").to_numpy()

    def placed(neuron: int, **known: Any) -> FoundConcept:
        row = places.get(neuron)
        where = {"sae_id": row["sae_id"], "sae_column": row["sae_column"]} if row else {"sae_id": "", "sae_column": -1}
        return FoundConcept(rank=first + len(made), column=neuron if row else None, half=half, **where, **known)

    made: list[FoundConcept] = []
    for each in found:
        pick, meaning = each.pick, each.meaning
        concept = placed(
            each.neuron,
            score=pick.explained,
            train_separation=_separation(material, pick),
            concept=Concept(meaning.claim, AUTHOR, definition_of(meaning), {"title": meaning.title}),
            train_z=pick.strength,
            chosen=0,
            made_from=each.source,
        )
        made.append(_covering(concept, material, pick, validation))
    for neuron in material.selected:
        fires = column(material.codes, neuron) > 0
        if max((abs(phi(fires, each.pick.holds)) for each in found), default=0.0) < _SAYS:
            why = "no chosen claim covers much of it"
            made.append(
                placed(neuron, score=0.0, train_separation=0.0, concept=None, unreadable=why, made_from="neuron")
            )
    return made


def _separation(material: Material, pick: Pick) -> float:
    value = firing_separation(pick.holds, material.texts["text_id"], material.observations)
    # Controls held constant decide the direction where they are declared.
    return abs(value) * pick.sign if value != 0 else pick.sign


def _covering(concept: FoundConcept, material: Material, pick: Pick, validation: np.ndarray) -> FoundConcept:
    """The concept with how much of its neuron it says, on validation texts."""
    if concept.column is None:
        return concept
    activation = column(material.codes, concept.column)
    bounds = firing_bounds(activation, (80.0, 100.0))
    rows = validation if validation.sum() >= 50 else np.ones(len(validation), dtype=bool)
    measured = measure_fidelity(pick.holds[rows].astype(np.int8), activation[rows], bounds)
    return replace(concept, bounds=bounds, fidelity=measured)
