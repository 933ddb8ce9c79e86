"""`selected_neurons`: the neurons that predict the label on training texts, ranked."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.fidelity import column
from hsae_dagster.core.observations import firing_separation, firing_z, observation_matrix, text_rows
from hsae_dagster.core.selection.methods import METHODS
from hsae_dagster.core.selection.stability import HALVES, Side, silenced
from hsae_dagster.extensions import own_sources
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained, picture, table
from hsae_dagster.stages.selection import Chosen, Training, choose_neurons, covariate_selection
from hsae_dagster.storage.outputs import (
    StoredActivations,
    StoredCheckpoints,
    StoredCorpus,
    StoredSelection,
)

NAME = "selected_neurons"
NOTHING = "nothing found: no neuron's association with the outcome holds across clusters"
CODE_VERSION = "11"


@dg.asset(
    **declared(NAME, CODE_VERSION),
    deps=["corpus", "embeddings", "sae_checkpoints", "activations"],
    kinds={"scikitlearn"},
)
def selected_neurons(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """The n neurons (fewer where no other adds anything), rank, score, direction in training; pairs by Z_A - Z_B."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        corpus = stage.upstream(StoredCorpus)
        checkpoints, activations = stage.upstream(StoredCheckpoints), stage.upstream(StoredActivations)
        config = {
            "task": spec.task,
            **spec.selection.model_dump(mode="json"),
            "pool": spec.pool,
            "clusters declared": spec.columns.cluster_by is not None,
            **own_sources(spec, METHODS),
        }
        found = stage.build(
            StoredSelection,
            config,
            [corpus, stage.embeddings, checkpoints, activations],
            lambda folder: _make(stage, corpus, checkpoints, activations, folder),
        )
        summary, neurons = found.summary, found.neurons
        stage.report(f"{neurons.height} neurons by {summary['method']}" if neurons.height else NOTHING)
        distinct, asked = neurons.unique(["half", "column"]).height, spec.selection.n * summary["sides"]
        told = {"selected": distinct, "asked for": asked, "notes": "; ".join(summary["notes"]) or "none"}
        verdicts = [
            check_result(NAME, "neurons_are_distinct", distinct == neurons.height, told),
            check_result(NAME, "as_many_as_asked", distinct == asked, told),
        ]
        return stage.finish(found, _describe(neurons, summary), verdicts)


def _make(
    stage: Stage, corpus: StoredCorpus, checkpoints: StoredCheckpoints, activations: StoredActivations, folder: Path
) -> None:
    made = [_of_side(stage, side, corpus, checkpoints, activations) for side in corpus.sides]
    neurons = pl.concat([neurons for neurons, _ in made])
    StoredSelection.write(
        folder,
        neurons=neurons.with_columns(rank=pl.int_range(pl.len())),
        summary=_together([summary for _, summary in made]),
    )


def _together(summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """One summary; of two halves, what both have, and notes that say whose they are."""
    if len(summaries) == 1:
        return summaries[0] | {"sides": 1}
    named = zip(HALVES, summaries, strict=True)
    notes = [f"half {half.upper()}: {note}" for half, summary in named for note in summary["notes"]]
    own: dict[str, Any] = {"alpha": None, "path": []}
    return {"method": summaries[0]["method"], **own, "notes": notes, "sides": len(summaries)}


def _of_side(
    stage: Stage, side: Side, corpus: StoredCorpus, checkpoints: StoredCheckpoints, activations: StoredActivations
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """What was selected on one side, and how."""
    codes, ids = activations.of_half(side.half), activations.text_ids
    train = side.observations.filter(pl.col("split") == "train")
    observed, label = observation_matrix(codes, ids, train), train["label"].to_numpy()
    text_ids = side.texts.filter(pl.col("split") == "train")["text_id"]
    on_texts = codes[text_rows(ids, text_ids)]
    training = Training(observed, label, train["cluster_id"].to_numpy(), on_texts, text_ids)
    spec, found = stage.dataset.spec, choose_neurons(stage, corpus, checkpoints, training)
    if spec.selection.within or spec.selection.interactions:
        kept = silenced(observed, found.left_out)
        found = replace(found, selection=covariate_selection(spec, kept, label, train))
    selection = found.selection
    chosen, columns = selection.columns, activations.columns
    neurons = pl.DataFrame(
        {
            "rank": np.arange(len(chosen)),
            "column": np.array(chosen, dtype=np.int64),
            "score": np.array(selection.scores, dtype=np.float64),
            **_figures(training, found, codes, ids, train),
        }
    ).join(columns.drop("half"), on="column", how="left", maintain_order="left")
    summary = {
        "method": selection.method,
        "alpha": selection.alpha,
        "path": [asdict(point) for point in selection.path],
        "notes": [*selection.notes, *found.notes],
    }
    return neurons.with_columns(half=pl.lit(side.half)), summary


def _figures(
    training: Training, found: Chosen, codes: sp.csr_matrix, ids: pl.Series, train: pl.DataFrame
) -> dict[str, np.ndarray]:
    """What is reported of each selected neuron, each (selected,)."""
    from hsae_dagster.core.selection.stability import selection_frequency

    selection, chosen = found.selection, found.selection.columns
    again = np.empty(0)
    if chosen:
        rng = np.random.default_rng(0)
        kept = silenced(training.observed, found.left_out)
        again = selection_frequency(kept, training.label, training.clusters, selection, rng)
    by_neuron = codes.tocsc()
    fires = [column(by_neuron, j) > 0 for j in chosen]
    return {
        "train_separation": np.array([firing_separation(each, ids, train) for each in fires], dtype=np.float64),
        "train_z": np.array([firing_z(each, ids, train) for each in fires], dtype=np.float64),
        "selection_frequency": again,
        **{name: found.seeds[name].to_numpy()[chosen] for name in found.seeds.columns},
    }


def _describe(neurons: pl.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    from hsae_dagster.report.figures import selection_path

    rows = [
        {
            "place": row["rank"] + 1,
            **({"half": row["half"].upper()} if row["half"] else {}),
            "neuron": f"{row['sae_id'][:8]}/{row['sae_column']}",
            "score": round(row["score"], 4),
            "outcome when firing": round(row["train_separation"], 4),
            "fires on": f"{row['firing_rate']:.1%}",
            "found in other seeds": f"{row['found_in']} of {row['other_seeds']}" if row["other_seeds"] else None,
            "selected again": None if np.isnan(row["selection_frequency"]) else f"{row['selection_frequency']:.0%}",
        }
        for row in neurons.iter_rows(named=True)
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": neurons.height,
        "method": summary["method"],
        "neurons": table(rows),
    }
    asked = neurons.filter(pl.col("other_seeds") > 0)
    if asked.height:
        # Found: in most of the other seeds.
        metadata["share found again"] = float((2 * asked["found_in"] >= asked["other_seeds"]).mean())  # type: ignore[arg-type]
    if summary["notes"]:
        metadata["notes"] = "; ".join(summary["notes"])
    if summary["path"]:
        path = [(point["alpha"], point["n_active"]) for point in summary["path"]]
        figure = selection_path(path, summary["alpha"])
        metadata["path"] = picture(figure.png, figure.alt)
    if summary["alpha"] is not None:
        metadata["alpha"] = float(summary["alpha"])
    return metadata
