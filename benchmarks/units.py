"""Whole texts beside their sentences: what neurons of each tell of clusters that nobody has seen.

    python benchmarks/units.py --seeds 3 --table units.md [DATASET ...]

Every dataset runs with its own columns, `saes: auto` and no labels in any autoencoder, once with `units: text` and once
by sentences; texts of one sentence have one arm. Seeds differ in the split (`splits.salt`) and in the random streams;
the arms of a seed share their split. Everything is fitted outside the holdout and scored on it, as in a report. The
ceiling is that of the vectors: of whole texts, or the mean over a text's sentences. CPU seconds are those of
autoencoders (all seeds of the one that is taken), activations and selection; vectors are computed before.

One JSON line is written for each cell; a second run goes on after the last. Run it with the project's Python.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, arguments, lines, present, run_stages, salt, show
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.inference.joint_fit import ALL_NEURONS, EMBEDDINGS, FIRED, SELECTED
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.orchestration.project import Project
from hsae_dagster.stages.selection import observed
from hsae_dagster.storage.objects import ObjectStore
from hsae_dagster.storage.outputs import (
    StoredActivations,
    StoredCheckpoints,
    StoredCorpus,
    StoredEmbeddings,
    StoredSelection,
)

DATASETS = (
    "movie_reviews",
    "upworthy_significant",
    "convention_speeches",
    "job_adverts",
    "congress_bills_health",
    "clothing_reviews",
    "senate_press_releases",
)
ARMS = {"text": "whole texts", "auto": "sentences"}
RUNGS = (EMBEDDINGS, ALL_NEURONS, SELECTED, FIRED)


def measure(project: Project, name: str) -> dict[str, Any]:
    """The ladder on the holdout, after `selected_neurons`; without selected neurons it ends with all of them."""
    store, dataset = ObjectStore(project.results), load_dataset(project.data, name)
    corpus, embeddings = StoredCorpus.current(store, name), StoredEmbeddings.current(store, name)
    activations, selection = StoredActivations.current(store, name), StoredSelection.current(store, name)
    ids, neurons = activations.text_ids, selection.neurons
    features = {
        EMBEDDINGS: embeddings.of_texts(corpus.places, ids),
        ALL_NEURONS: activations.codes,
    }
    if neurons.height:
        dense = activations.codes.tocsc()[:, selection.columns("")].toarray()
        features |= {SELECTED: dense, FIRED: (dense > 0).astype(float)}
    held_out = pl.col("split") == "holdout"
    learn, unseen = (observed(features, ids, corpus.observations.filter(part)) for part in (~held_out, held_out))
    scorer = joint_fit.Score(dataset.spec.task, unseen.clusters, 0, 0)
    fits = joint_fit.measure_rungs(learn, unseen, scorer, lambda _: None)
    trained = [record["config"] for record in StoredCheckpoints.current(store, name).records]
    return {
        "unit": corpus.unit_kind,
        "distinct units": corpus.units.height,
        "metric": fits[0].metric,
        "fits": {fit.name: fit.value for fit in fits},
        "selected": neurons.height,
        # Of most texts of a neuron's: the middle one fires on so many.
        "fires on": neurons["firing_rate"].median(),
        "found again": float((neurons["found_in"] >= 1).mean()) if neurons.height else None,  # type: ignore[arg-type]
        "saes": [f"{config['m']}/{config['k']}" for config in trained],
    }


def cell(shared: Shared, dataset: str, units: str, seed: int, saes: Any = None) -> dict[str, Any]:
    """One dataset, arm and seed; `saes` in place of the measured choice."""
    changes = {
        "units": units,
        "saes": saes or {"auto": {"seed": seed}},
        "splits": {"salt": salt(seed), "design": "holdout"},
        "inference": {"bootstrap": 0},
    }
    with shared.apart(dataset, changes) as project:
        run_stages(project, dataset, upto="embeddings")
        before = os.times()
        run_stages(project, dataset, upto="selected_neurons")
        # User and system, of this process and of those it waited for.
        cpu = sum(os.times()[:4]) - sum(before[:4])
        return {"dataset": dataset, "units": units, "seed": seed, **measure(project, dataset), "cpu": round(cpu, 1)}


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The cells as a Markdown table: means over seeds, and from the least to the most."""
    yield (
        "| dataset | read by | distinct units | ceiling | all neurons | selected neurons | fired or not | selected, "
        "m/k | fires on | found again | CPU s | seeds |"
    )
    yield "|---|---|" + "---:|" * 10
    for dataset in dict.fromkeys(one["dataset"] for one in cells):
        for units in ARMS:
            mine = [one for one in cells if (one["dataset"], one["units"]) == (dataset, units)]
            if mine:
                yield _row(dataset, mine)


def _row(dataset: str, mine: Sequence[dict[str, Any]]) -> str:
    sizes = (f"{one['selected']} of {' + '.join(one['saes'])}" for one in mine)
    cells = [
        f"{dataset} ({mine[0]['metric'].replace('R2', 'R²')})",
        {"text": "whole texts"}.get(mine[0]["unit"], f"{mine[0]['unit']}s"),
        f"{mine[0]['distinct units']:,}",
        *(_span([one["fits"].get(rung) for one in mine], ".3f") for rung in RUNGS),
        "; ".join(sizes),
        *(_span([one[key] for one in mine], ".0%") for key in ("fires on", "found again")),
        _span([one["cpu"] for one in mine], ".0f"),
        str(len(mine)),
    ]
    return f"| {' | '.join(cells)} |"


def _span(values: Sequence[float | None], how: str) -> str:
    """Mean of what was measured, and least and most of several."""
    known = [value for value in values if value is not None]
    if not known:
        return "nothing found"
    ends = f" ({min(known):{how}} to {max(known):{how}})" if len(known) > 1 else ""
    missing = f", nothing found in {len(values) - len(known)}" if len(known) < len(values) else ""
    return f"{np.mean(known):{how}}{ends}{missing}"


def main() -> None:
    parser = arguments(__doc__, "units")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    shared = Shared(options.data, options.results)
    for seed in range(options.seeds):
        for dataset in present(shared, options.datasets or DATASETS):
            for units in ("auto", "text"):
                cells = {(one["dataset"], one["units"], one["seed"]): one for one in lines(options.out)}
                by_parts = cells.get((dataset, "auto", seed))
                if (dataset, units, seed) in cells or (by_parts and by_parts["unit"] == "text"):
                    continue
                append(options.out, cell(shared, dataset, units, seed))
                print(f"{dataset}, {ARMS[units]}, seed {seed}: done", flush=True)
    show(list(table(lines(options.out))), options.table)


if __name__ == "__main__":
    main()
