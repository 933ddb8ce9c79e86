"""Claims found offline: candidates of neurons, of terms and of style compete, and n are chosen together.

Belongs here: reading what the choice needs, and the records of what was chosen. Does not belong here: the asset
(`assets.interpretations`), the method (`core.concepts`), or claims that a language model writes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.assets.closeness import embedder_of, term_vectors
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_text_units
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.concepts.candidates import Pool, Units, neuron_exemplars, neuron_groups, style_pool
from hsae_dagster.core.concepts.choice import (
    FOLDS,
    MOST_ALIKE,
    Learned,
    Limits,
    Path,
    Pick,
    Vocabulary,
    choose_claims,
    phi,
)
from hsae_dagster.core.concepts.claims import Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.residual import Residual
from hsae_dagster.core.concepts.terms import TermTable, supported_terms
from hsae_dagster.core.concepts.words import words_of
from hsae_dagster.core.fidelity import column, firing_bounds, measure_fidelity
from hsae_dagster.core.observations import control_columns, is_pairwise, text_rows, text_sides
from hsae_dagster.dataset.controls import levels_of
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.providers.lexical import AUTHOR
from hsae_dagster.storage.frames import read_codes, read_frame
from hsae_dagster.storage.objects import StoredObject

# More texts say little more about which claims to take; beyond it a seeded sample of clusters is read.
MOST_TEXTS = 40_000
# Neurons that candidates come from, as a multiple of the claims wanted; and terms that may be in them.
_NEURONS_PER_CLAIM, _MOST_TERMS = 3, 3000
# φ with a neuron's firing from which a claim counts as saying something about that neuron.
_SAYS = 0.2


@dataclass(frozen=True)
class Material:
    """What claims are learned from: every observation outside the holdout, and its texts.

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
    def read(stage: Stage, corpus: StoredObject, activations: StoredObject, selected: StoredObject) -> "Material":
        """Everything but the holdout, or a sample of its clusters."""
        texts = read_frame(corpus.file("texts.parquet")).filter(pl.col("split") != "holdout")
        observations = read_frame(corpus.file("observations.parquet")).filter(pl.col("split") != "holdout")
        observations = _sampled(observations, stage.dataset.spec.interpretation.seed)
        wanted = pl.concat([observations[side] for side in text_sides(observations)]).unique()
        texts = texts.filter(pl.col("text_id").is_in(wanted.implode()))
        ids = read_frame(activations.file("texts.parquet"))["text_id"]
        codes = read_codes(activations.file("codes.safetensors"))[text_rows(ids, texts["text_id"])]
        columns = read_frame(selected.file("neurons.parquet"))["column"].to_list()
        return Material(texts, observations, codes.tocsc(), columns, stage.dataset.spec.task)

    @cached_property
    def learned(self) -> Learned:
        """The observations as the choice reads them."""
        frame, n = self.observations, self.observations.height
        sides = [text_rows(self.texts["text_id"], frame[side]) for side in text_sides(frame)]
        signs = np.repeat([1.0, -1.0][: len(sides)], n)
        places = (np.tile(np.arange(n), len(sides)), np.concatenate(sides))
        design = sp.csr_matrix((signs, places), shape=(n, self.texts.height))
        pair = is_pairwise(frame)
        controls = control_columns(frame)
        held = np.column_stack([np.empty((n, 0)), *([] if pair else [np.ones(n)]), *controls])
        clusters = np.unique(frame["cluster_id"].to_numpy(), return_inverse=True)[1]
        outcome = frame["label"].to_numpy().astype(np.float64) - (0.5 if pair else 0.0)
        return Learned(outcome, held, clusters, design, self.task)

    @cached_property
    def fires(self) -> sp.csc_matrix:
        """(texts, m) float32 CSC of ones."""
        return sp.csc_matrix(self.codes > 0, dtype=np.float32)

    def sources(self, n: int) -> list[int]:
        """Neurons that candidates come from: the selected ones, then those that go most with the outcome."""
        learned = self.learned
        residual = Residual(learned.outcome, learned.held, learned.clusters)
        strength = np.abs(residual.gains((learned.design @ self.fires).tocsc()).strength)
        order = [int(j) for j in np.argsort(-strength, kind="stable") if strength[j] > 1.0]
        return list(dict.fromkeys([*self.selected, *order]))[: max(n, len(self.selected))]


def _sampled(observations: pl.DataFrame, seed: int) -> pl.DataFrame:
    if observations.height <= MOST_TEXTS:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    taken = order[: int(np.searchsorted(np.cumsum(sizes["len"].to_numpy()[order]), MOST_TEXTS) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].gather(taken).implode()))


@dataclass(frozen=True)
class Found:
    """What came of the choice.

    Attributes:
        picks: claims taken, in order.
        meanings: of the picks.
        neurons: (picks,) the neuron that says it: the one it was made from, else the one it goes with; -1 for none.
        sources: `neuron`, `terms` or `style` for each.
        paths: of every price that was tried.
        considered: ready candidates.
    """

    picks: list[Pick]
    meanings: list[Meaning]
    neurons: list[int]
    sources: list[str]
    paths: list[Path]
    considered: int


def find_claims(stage: Stage, material: Material, corpus: StoredObject, activations: StoredObject) -> Found:
    """Make candidates, choose among them."""
    spec, texts = stage.dataset.spec, material.texts["text"].to_list()
    vocabulary = _vocabulary(stage, material, texts)
    stage.report(f"{len(vocabulary.table.families):,} terms are supported by several clusters of {len(texts):,} texts")
    neurons = material.sources(_NEURONS_PER_CLAIM * spec.selection.n)
    parts = [style_pool(texts)]
    if neurons:
        fires = material.fires[:, neurons]
        parts.append(neuron_groups(fires, neurons, vocabulary.table, vocabulary.vectors))
        parts.append(neuron_exemplars(_units(stage, material, corpus, activations), neurons))
    pool = Pool.together(parts)
    limits = Limits(spec.selection.n, _least_texts(stage, material, corpus))
    stage.report(f"{len(pool.meanings):,} candidates of {len(neurons)} neurons and of style compete with the terms")
    picks, paths = _choose(spec, material, pool, vocabulary, limits)
    meanings = [_meaning(pick, pool, vocabulary.table) for pick in picks]
    made_from = [-1 if pick.column is None else int(pool.neurons[pick.column]) for pick in picks]
    goes_with = [_nearest(material, pick.holds) for pick in picks]
    return Found(
        picks,
        meanings,
        [own if own >= 0 else near for own, near in zip(made_from, goes_with, strict=True)],
        [_source(pick, own) for pick, own in zip(picks, made_from, strict=True)],
        paths,
        len(pool.meanings),
    )


def _choose(
    spec: DatasetSpec, material: Material, pool: Pool, vocabulary: Vocabulary, limits: Limits
) -> tuple[list[Pick], list[Path]]:
    """Claims about all observations; where effects may change with a control, about those of each of its levels, too.

    An effect that turns round between two levels leaves nothing over all observations.
    """
    learned, seed = material.learned, spec.interpretation.seed
    picks, paths = choose_claims(learned, pool.columns, vocabulary, limits, seed=seed)
    for name in spec.selection.interactions:
        levels = levels_of(material.observations, name)
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


def _source(pick: Pick, made_from: int) -> str:
    if pick.group is not None:
        return "terms"
    return "neuron" if made_from >= 0 else "style"


def _meaning(pick: Pick, pool: Pool, table: TermTable) -> Meaning:
    if pick.group is not None:
        return WordGroup(pick.group.terms(table))
    return pool.meanings[pick.column or 0]


def _nearest(material: Material, holds: np.ndarray) -> int:
    """The neuron whose firing goes most with a claim; -1 where none goes with it."""
    n, fires = len(holds), material.fires
    both = np.asarray(fires.T @ holds.astype(np.float64)).ravel() / n
    a, b = np.diff(fires.indptr) / n, holds.mean()
    spread = np.sqrt(np.maximum(a * (1 - a) * b * (1 - b), 0))
    found = np.where(spread > 0, (both - a * b) / np.where(spread > 0, spread, 1.0), 0.0)
    best = int(found.argmax()) if len(found) else -1
    return best if best >= 0 and found[best] >= _SAYS else -1


def _least_texts(stage: Stage, material: Material, corpus: StoredObject) -> int:
    """Texts that a claim needs, so that the holdout can be expected to have enough of them to test it."""
    held_out = next(s["texts"] for s in corpus.json("summary.json")["splits"] if s["split"] == "holdout")
    needed = 1.2 * stage.dataset.spec.inference.min_positives * material.texts.height / max(held_out, 1)
    return max(20, int(np.ceil(needed)))


def _vocabulary(stage: Stage, material: Material, texts: list[str]) -> Vocabulary:
    table = supported_terms(texts, material.texts["cluster_id"].to_numpy(), taken=_values(material.observations))
    learned = material.learned
    gains = Residual(learned.outcome, learned.held, learned.clusters).gains((learned.design @ table.matrix).tocsc())
    strength = np.abs(gains.strength)
    if len(strength) > _MOST_TERMS:
        kept = np.sort(np.argsort(-strength, kind="stable")[:_MOST_TERMS])
        table = TermTable(tuple(table.families[j] for j in kept), table.matrix[:, kept].tocsc())
    if not table.families:
        return Vocabulary(table, np.zeros((0, 1), dtype=np.float32))
    family = open_vectors(stage)[1].embedding_set
    return Vocabulary(table, term_vectors(stage, family, [f.name for f in table.families], embedder_of(stage)))


def _values(observations: pl.DataFrame) -> frozenset[str]:
    """Values of the cluster and of controls, as terms: a name is no finding about what a text says."""
    columns = ["cluster_id", *[name for name in observations.columns if name.startswith("control:")]]
    values = {
        value for name in columns if observations[name].dtype == pl.String for value in observations[name].drop_nulls()
    }
    return frozenset(" ".join(word for word in words_of(value.replace("_", " ")) if word) for value in values)


def _units(stage: Stage, material: Material, corpus: StoredObject, activations: StoredObject) -> Units:
    places = read_text_units(corpus).of_texts(material.texts["text_id"])
    units = read_frame(corpus.file("units.parquet"))
    rows = text_rows(units["unit_id"], places.unit_ids)
    codes = read_codes(activations.file("unit_codes.safetensors"))
    known = read_frame(activations.file("units.parquet"))["unit_id"]
    vectors = open_vectors(stage)[1]
    return Units(
        places=places,
        texts=units["unit"].gather(rows).to_list(),
        vectors=vectors.read(places.unit_ids),
        codes=codes[text_rows(known, places.unit_ids)].tocsc(),
        set_id=vectors.embedding_set.set_id,
    )


def records_of(material: Material, found: Found, columns: pl.DataFrame) -> list[dict[str, Any]]:
    """A record for each claim, then one for each selected neuron about which nothing could be said.

    Args:
        material: what was learned from.
        found: what was chosen.
        columns: of the activations (column, sae_id, sae_column).
    """
    places = {row["column"]: row for row in columns.iter_rows(named=True)}
    validation = (material.texts["split"] != "train").to_numpy()
    records = []
    for rank, (pick, meaning) in enumerate(zip(found.picks, found.meanings, strict=True)):
        neuron = found.neurons[rank]
        concept = Concept(meaning.claim, AUTHOR, definition_of(meaning), {"title": meaning.title})
        records.append(
            {
                **_place(places, neuron, rank, pick.explained, _separation(material, pick)),
                **_coverage(material, pick, neuron, validation),
                "candidates": [],
                "chosen": 0,
                "concept": concept.record,
                "unreadable": None,
                "from": found.sources[rank],
            }
        )
    for neuron in material.selected:
        said = max((abs(phi(_fires(material, neuron), pick.holds)) for pick in found.picks), default=0.0)
        if said < _SAYS:
            records.append(
                {
                    **_place(places, neuron, len(records), 0.0, 0.0),
                    "bounds": [None, None],
                    "fidelity": None,
                    "candidates": [],
                    "chosen": None,
                    "concept": None,
                    "unreadable": "no claim that was worth taking says much of it",
                    "from": "neuron",
                }
            )
    return records


def _fires(material: Material, neuron: int) -> np.ndarray:
    return column(material.codes, neuron) > 0


def _place(
    places: dict[int, dict[str, Any]], neuron: int, rank: int, score: float, separation: float
) -> dict[str, Any]:
    row = places.get(neuron)
    return {
        "rank": rank,
        "column": neuron if row else None,
        "sae_id": row["sae_id"] if row else "",
        "sae_column": row["sae_column"] if row else -1,
        "score": score,
        "train_separation": separation,
    }


def _separation(material: Material, pick: Pick) -> float:
    """Difference in mean outcome between learned observations with and without; pairs: win share minus 1/2."""
    learned = material.learned
    has = np.asarray(learned.design @ pick.holds.astype(np.float64))
    if learned.task == "pairwise":
        decided = has != 0
        value = float((has[decided] * learned.outcome[decided]).mean()) if decided.any() else 0.0
    else:
        value = float(learned.outcome[has > 0].mean() - learned.outcome[has == 0].mean())
    # Controls held constant decide the direction where they are declared.
    return abs(value) * pick.sign if value != 0 else pick.sign


def _coverage(material: Material, pick: Pick, neuron: int, validation: np.ndarray) -> dict[str, Any]:
    """How much of the neuron the claim says, on validation texts."""
    if neuron < 0:
        return {"bounds": [None, None], "fidelity": None}
    activation = column(material.codes, neuron)
    bounds = firing_bounds(activation, (80.0, 100.0))
    rows = validation if validation.sum() >= 50 else np.ones(len(validation), dtype=bool)
    measured = measure_fidelity(pick.holds[rows].astype(np.int8), activation[rows], bounds)
    return {"bounds": [bounds[0], bounds[1] if np.isfinite(bounds[1]) else None], "fidelity": asdict(measured)}
