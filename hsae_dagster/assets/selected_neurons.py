"""`selected_neurons`: the neurons that predict the label on training texts, ranked."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster import checks
from hsae_dagster.assets.covariates import covariate_selection
from hsae_dagster.assets.ladder import read_fits, validation_ladder
from hsae_dagster.assets.near_neurons import choose_neurons, family_frame, training_texts
from hsae_dagster.assets.size_choice import read_choice
from hsae_dagster.assets.stage import GROUP, Stage, explained, picture, table
from hsae_dagster.core.fidelity import column
from hsae_dagster.core.ladder import read_ladder
from hsae_dagster.core.observations import firing_separation, firing_z, observation_matrix
from hsae_dagster.core.sae_grid import redundancy
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_codes, read_frame, write_frame, write_json
from hsae_dagster.storage.objects import StoredObject

NAME = "selected_neurons"
CODE_VERSION = "7"


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "sae_checkpoints", "activations"],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"scikitlearn"},
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def selected_neurons(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """The n neurons (fewer where no other adds anything), rank, score, direction in training; pairs by Z_A - Z_B."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        corpus, activations = stage.upstream("corpus"), stage.upstream("activations")
        config = {"task": spec.task, **spec.selection.model_dump(mode="json")}
        vectors_record = stage.upstream("embeddings")
        checkpoints = stage.upstream("sae_checkpoints")
        stored = stage.build(
            config,
            [corpus, vectors_record, checkpoints, activations],
            lambda folder: _make(stage, corpus, checkpoints, activations, folder),
        )
        summary = stored.json("selection.json")
        neurons = read_frame(stored.file("neurons.parquet"))
        stage.report(f"{neurons.height} neurons by {summary['method']}")
        distinct = neurons["column"].n_unique()
        told = {"selected": distinct, "asked for": spec.selection.n, "notes": "; ".join(summary["notes"]) or "none"}
        verdicts = [
            checks.result(NAME, "neurons_are_distinct", 0 < distinct == neurons.height, told),
            checks.result(NAME, "as_many_as_asked", distinct == spec.selection.n, told),
        ]
        return stage.finish(stored, _describe(neurons, summary) | _describe_ladder(stored, checkpoints), verdicts)


def _make(
    stage: Stage, corpus: StoredObject, checkpoints: StoredObject, activations: StoredObject, folder: Path
) -> None:
    from hsae_dagster.core.stability import matches_elsewhere, selection_frequency

    codes = read_codes(activations.file("codes.safetensors"))
    ids = read_frame(activations.file("texts.parquet"))["text_id"]
    columns = read_frame(activations.file("columns.parquet"))
    train = read_frame(corpus.file("observations.parquet")).filter(pl.col("split") == "train")
    observed, label = observation_matrix(codes, ids, train), train["label"].to_numpy()
    on_texts, text_ids = training_texts(codes, ids, read_frame(corpus.file("texts.parquet")))
    spec, found = stage.dataset.spec, choose_neurons(stage, checkpoints, observed, label, on_texts, text_ids)
    if spec.selection.within or spec.selection.interactions:
        found = replace(found, selection=covariate_selection(spec, observed, label, train))
    selection, seeds = found.selection, found.seeds
    chosen = [neuron.column for neuron in selection.neurons]
    by_neuron = codes.tocsc()
    separations = [firing_separation(column(by_neuron, j) > 0, ids, train) for j in chosen]
    neurons = pl.DataFrame(
        {
            "rank": np.arange(len(chosen)),
            "column": chosen,
            "score": [neuron.score for neuron in selection.neurons],
            "train_separation": separations,
            "train_z": [firing_z(column(by_neuron, j) > 0, ids, train) for j in chosen],
            "selection_frequency": selection_frequency(
                observed, label, train["cluster_id"].to_numpy(), selection, np.random.default_rng(0)
            ),
            "match_elsewhere": matches_elsewhere(observed, chosen, columns.sort("column")["sae_id"].to_list()),
            "near_copies": [sum(member.kept == j for member in found.members) for j in chosen],
            "seed_cosine": np.full(len(chosen), np.nan) if seeds is None else seeds.cosine[chosen],
            "seed_correlation": np.full(len(chosen), np.nan) if seeds is None else seeds.correlation[chosen],
        }
    ).join(columns, on="column", how="left", maintain_order="left")
    write_frame(folder / "neurons.parquet", neurons)
    write_frame(folder / "families.parquet", family_frame(found.members))
    summary = {
        "method": selection.method,
        "alpha": selection.alpha,
        "path": [asdict(point) for point in selection.path],
        "notes": [*selection.notes, *found.notes],
        "redundancy": redundancy(on_texts[:, chosen].toarray()),
    }
    write_json(folder / "selection.json", summary)
    # Shown, and read by nothing further down: its settings must not make later stages run again.
    write_json(folder / "_ladder.json", validation_ladder(stage, corpus, activations, np.array(chosen)))


def _describe(neurons: pl.DataFrame, summary: dict[str, Any]) -> dict[str, Any]:
    from hsae_dagster.report.figures import selection_path

    rows = [
        {
            "rank": row["rank"],
            "neuron": f"{row['sae_id'][:8]}/{row['sae_column']}",
            "score": round(row["score"], 4),
            "outcome when firing": round(row["train_separation"], 4),
            "fires on": f"{row['firing_rate']:.1%}",
            "near-copies": row["near_copies"],
            "match in other seeds": None if np.isnan(row["seed_cosine"]) else f"{row['seed_cosine']:.2f}",
            "selected again": None if np.isnan(row["selection_frequency"]) else f"{row['selection_frequency']:.0%}",
        }
        for row in neurons.iter_rows(named=True)
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": neurons.height,
        "method": summary["method"],
        "neurons": table(rows),
        "mean |correlation|": float(summary["redundancy"]),
        "near-copies left out": int(neurons["near_copies"].sum()),
    }
    if neurons["seed_cosine"].is_finite().any():
        metadata["least match in other seeds"] = float(neurons["seed_cosine"].min())  # type: ignore[arg-type]
    if summary["notes"]:
        metadata["notes"] = "; ".join(summary["notes"])
    if summary["path"]:
        path = [(point["alpha"], point["n_active"]) for point in summary["path"]]
        figure = selection_path(path, summary["alpha"])
        metadata["path"] = picture(figure.png, figure.alt)
    if summary["alpha"] is not None:
        metadata["alpha"] = float(summary["alpha"])
    return metadata


def _describe_ladder(stored: StoredObject, checkpoints: StoredObject) -> dict[str, Any]:
    """What each rung known so far keeps, on validation texts."""
    from hsae_dagster.report.figures import fit_ladder
    from hsae_dagster.report.ladder import ladder_sentences
    from hsae_dagster.report.wording import number

    record = stored.json("_ladder.json")
    fits, floor = read_fits(record)
    if not fits:
        return {"where the signal is lost": f"not measured: {record['why']}"}
    metric = fits[0].metric
    rows = [
        {
            "predictors": f.name,
            metric: number(f.value, 3),
            "95 % interval": f"[{number(f.low, 3)}, {number(f.high, 3)}]",
        }
        for f in fits
    ]
    chance = {
        "predictors": "floor (permuted)",
        metric: number(floor[0], 3),
        "95 % interval": f"95 % below {number(floor[1], 3)}",
    }
    figure = fit_ladder(fits, floor, metric, "validation texts")
    return {
        "joint fit on validation texts": table([*rows, chance]),
        "fit ladder": picture(figure.png, figure.alt),
        "where the signal is lost": " ".join(ladder_sentences(read_ladder(fits, floor), read_choice(checkpoints))),
    }
