"""What claims are learned from: observations, terms, units, and what neurons say, whatever made their codes.

Belongs here: reading and putting these together, for the claims of a dataset (`assets.found_claims`) and for judging
sizes by what can be said (`assets.sae_sizes`). Does not belong here: choosing claims (`core.concepts.choice`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.closeness import embedder_of, term_vectors
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_text_codes, read_text_units
from hsae_dagster.core.concepts.candidates import Pool, Units, neuron_exemplars, neuron_groups
from hsae_dagster.core.concepts.choice import Learned, Vocabulary
from hsae_dagster.core.concepts.residual import Residual
from hsae_dagster.core.concepts.terms import TermTable, meanings, supported_terms
from hsae_dagster.core.concepts.words import words_of
from hsae_dagster.core.cross_fitting import Side, of_half
from hsae_dagster.core.observations import control_columns, is_pairwise, text_keys, text_rows, text_sides
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.objects import StoredObject

# More texts say little more about which claims to take; beyond it a seeded sample of clusters is read.
MOST_TEXTS = 40_000
# Neurons that candidates come from, as a multiple of the claims wanted.
NEURONS_PER_CLAIM = 3
_MOST_TERMS = 3000


@dataclass(frozen=True)
class Material:
    """What claims are learned from: every observation of a side outside its holdout, and its texts.

    Attributes:
        texts: rows of the corpus (text_id, text, split, cluster_id), ascending text_id.
        observations: labelled observations of these texts.
        codes: (texts, m) CSC of the neurons' activations.
        selected: columns of the selected neurons, by rank.
        task: of the dataset.
    """

    texts: pl.DataFrame
    observations: pl.DataFrame
    codes: sp.csc_matrix
    selected: Sequence[int]
    task: str

    @staticmethod
    def read(stage: Stage, side: Side, activations: StoredObject, selected: StoredObject) -> "Material":
        """Everything but the side's holdout, or a sample of its clusters."""
        texts, observations = (rows.filter(pl.col("split") != "holdout") for rows in (side.texts, side.observations))
        observations = sampled(observations, stage.dataset.spec.interpretation.seed)
        texts = texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))
        codes, ids = read_text_codes(activations, side.half)
        codes = codes[text_rows(ids, texts["text_id"])]
        columns = of_half(read_frame(selected.file("neurons.parquet")), side.half)["column"].to_list()
        return Material(texts, observations, codes.tocsc(), columns, stage.dataset.spec.task)

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
    residual = Residual(learned.outcome, learned.held, learned.clusters)
    strength = np.abs(residual.gains((learned.design @ fires).tocsc()).strength)
    return [int(j) for j in np.argsort(-strength, kind="stable") if strength[j] > 1.0]


def sampled(observations: pl.DataFrame, seed: int, most: int = MOST_TEXTS) -> pl.DataFrame:
    """All observations, or those of a seeded sample of clusters."""
    if observations.height <= most:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    taken = order[: int(np.searchsorted(np.cumsum(sizes["len"].to_numpy()[order]), most) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].gather(taken).implode()))


def pool_of(style: Pool, neurons: Sequence[int], fires: sp.csc_matrix, vocabulary: Vocabulary, units: Units) -> Pool:
    """Ready candidates: style, and what some neurons (columns of `fires` and of the units' codes) say."""
    if not neurons:
        return style
    groups = neuron_groups(fires[:, neurons], neurons, vocabulary.table, vocabulary.vectors)
    return Pool.together([style, groups, neuron_exemplars(units, neurons)])


def least_texts(spec: DatasetSpec, side: Side, n_texts: int) -> int:
    """Texts of n that a claim needs, so that the holdout can be expected to have enough of them to test it."""
    held_out = side.texts.filter(pl.col("split") == "holdout").height
    return max(20, int(np.ceil(1.2 * spec.inference.min_positives * n_texts / max(held_out, 1))))


def vocabulary_of(
    stage: Stage, texts: pl.DataFrame, observations: pl.DataFrame, learned: Learned, units: Units
) -> Vocabulary:
    """Terms of texts (text, cluster_id); where they are very many, those that go most with the outcome.

    Args:
        stage: its dataset's embedder gives the terms' vectors.
        texts: rows of the corpus.
        observations: of these texts; values of their columns are no terms.
        learned: observations over these texts whose outcome may be looked at.
        units: of these texts.
    """
    table = supported_terms(texts["text"].to_list(), texts["cluster_id"].to_numpy(), taken=_values(observations))
    if len(table.families) > _MOST_TERMS:
        residual = Residual(learned.outcome, learned.held, learned.clusters)
        strength = np.abs(residual.gains((learned.design @ table.matrix).tocsc()).strength)
        kept = np.sort(np.argsort(-strength, kind="stable")[:_MOST_TERMS])
        table = TermTable(tuple(table.families[j] for j in kept), table.matrix[:, kept].tocsc())
    if not table.families:
        return Vocabulary(table, np.zeros((0, 1), dtype=np.float32))
    family = open_vectors(stage)[1].embedding_set
    names = term_vectors(stage, family, [f.name for f in table.families], embedder_of(stage))
    return Vocabulary(table, meanings(table, names, units.texts, units.vectors))


def units_of(stage: Stage, corpus: StoredObject, text_ids: pl.Series) -> Units:
    """The units of some texts (ascending keys) and their vectors; the codes are left empty."""
    places = read_text_units(corpus).of_texts(text_ids)
    units = read_frame(corpus.file("units.parquet"))
    vectors = open_vectors(stage)[1]
    return Units(
        places=places,
        texts=units["unit"].gather(text_rows(units["unit_id"], places.unit_ids)).to_list(),
        vectors=vectors.read(places.unit_ids),
        codes=sp.csc_matrix((len(places.unit_ids), 0), dtype=np.float32),
        set_id=vectors.embedding_set.set_id,
    )


def _values(observations: pl.DataFrame) -> frozenset[str]:
    """Values of the cluster and of controls, as terms: a name is no finding about what a text says."""
    columns = ["cluster_id", *[name for name in observations.columns if name.startswith("control:")]]
    values = {
        value for name in columns if observations[name].dtype == pl.String for value in observations[name].drop_nulls()
    }
    return frozenset(" ".join(word for word in words_of(value.replace("_", " ")) if word) for value in values)
