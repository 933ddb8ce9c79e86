"""Claims found offline: candidates of neurons, of terms and of style compete, and n are chosen together.

Belongs here: the choice among the candidates of a dataset's activations, and the records of what was chosen. Does not
belong here: what candidates are made from (`assets.claim_material`), the asset (`assets.interpretations`), the method
(`core.concepts`), or claims that a language model writes.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.claim_material import (
    NEURONS_PER_CLAIM,
    Material,
    least_texts,
    pool_of,
    units_of,
    vocabulary_of,
)
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import read_unit_codes
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.concepts.candidates import Pool, Units, style_pool
from hsae_dagster.core.concepts.choice import FOLDS, MOST_ALIKE, Limits, Path, Pick, Vocabulary, choose_claims
from hsae_dagster.core.concepts.claims import Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.terms import TermTable
from hsae_dagster.core.cross_fitting import Side
from hsae_dagster.core.fidelity import column, firing_bounds, measure_fidelity
from hsae_dagster.core.observations import text_rows
from hsae_dagster.core.phi import phi, phis
from hsae_dagster.dataset.controls import levels_of
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.providers.lexical import AUTHOR
from hsae_dagster.storage.objects import StoredObject

# φ with a neuron's firing from which a claim counts as saying something about that neuron.
_SAYS = 0.2


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


def find_claims(stage: Stage, material: Material, side: Side, corpus: StoredObject, activations: StoredObject) -> Found:
    """Make candidates, choose among them."""
    spec, texts = stage.dataset.spec, material.texts["text"].to_list()
    units = units_of(stage, corpus, material.texts["text_id"])
    vocabulary = vocabulary_of(stage, material.texts, material.observations, material.learned, units)
    stage.report(f"{len(vocabulary.table.families):,} terms are supported by several clusters of {len(texts):,} texts")
    neurons = material.sources(NEURONS_PER_CLAIM * spec.selection.n)
    pool = pool_of(style_pool(texts), neurons, material.fires, vocabulary, _with_codes(units, activations))
    limits = Limits(spec.selection.n, least_texts(stage.dataset.spec, side, material.texts.height))
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


def _with_codes(units: Units, activations: StoredObject) -> Units:
    codes, known = read_unit_codes(activations)
    return replace(units, codes=codes[text_rows(known, units.places.unit_ids)].tocsc())


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
    fires = material.fires
    found = phis(fires.T @ holds.astype(np.float64), np.diff(fires.indptr), int(holds.sum()), len(holds))
    best = int(found.argmax()) if len(found) else -1
    return best if best >= 0 and found[best] >= _SAYS else -1


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
                "train_z": pick.strength,
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
