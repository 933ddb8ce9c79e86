"""`sae_checkpoints`: the dataset's sparse autoencoders, trained on its training texts; on the GPU if there is one."""

import os
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster import checks
from hsae_dagster.assets.autoencoders import Lessons, choose_device, train_one
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.imported_sae import declaration, import_one
from hsae_dagster.assets.sae_sizes import choose_sae, reference_sae
from hsae_dagster.assets.stage import GROUP, Stage, explained, picture, table
from hsae_dagster.dataset.saes import SAE, AutoSizes
from hsae_dagster.gpu_wait import taken
from hsae_dagster.op_tags import GPU_OP_TAGS, GPU_POOL
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_arrays, read_frame, write_json
from hsae_dagster.storage.objects import StoredObject

NAME = "sae_checkpoints"
CODE_VERSION = "5"


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings"],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"torch", "safetensors"},
    code_version=CODE_VERSION,
    op_tags=GPU_OP_TAGS,
    pool=GPU_POOL,
    check_specs=checks.specs(NAME),
)
def sae_checkpoints(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """One safetensors and one JSON per declared autoencoder: seeded, the weights of the best epoch; or imported."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        corpus = stage.upstream("corpus")
        vectors_record, vectors = open_vectors(stage)
        texts = read_frame(corpus.file("texts.parquet"))
        n_train = texts.filter(pl.col("split") == "train").height

        def make(folder: Path) -> None:
            observations = read_frame(corpus.file("observations.parquet"))
            set_id = vectors_record.json("embeddings.json")["set_id"]
            lessons = Lessons.read(stage, set_id, vectors, texts, observations)
            parts = _obtain(lessons, vectors_record, texts, folder)
            _gather(parts, folder)
            if stage.dataset.spec.sae_seeds > 1:
                _add_seeds(lessons, parts, folder)

        stored = stage.build(_config(stage), [corpus, vectors_record], make)
        records = stored.json("saes.json")
        return stage.finish(stored, _describe(records, n_train) | _describe_choice(stored), _check(stored, records))


def _config(stage: Stage) -> dict[str, Any]:
    seeds = stage.dataset.spec.sae_seeds
    return _declared(stage) | ({"seeds": seeds} if seeds > 1 else {})


def _declared(stage: Stage) -> dict[str, Any]:
    """What the autoencoders depend on: those listed, or how they are chosen, of which the selection is a part."""
    spec = stage.dataset.spec
    if isinstance(spec.saes, AutoSizes):
        return {**spec.saes.model_dump(mode="json"), "task": spec.task, "selection": spec.selection.model_dump()}
    if isinstance(spec.saes, str):
        return {"saes": spec.saes}
    return {"saes": [declaration(stage.dataset, sae) for sae in spec.saes], "task": spec.task}


def _obtain(lessons: Lessons, vectors_record: StoredObject, texts: pl.DataFrame, folder: Path) -> list[StoredObject]:
    saes = lessons.stage.dataset.spec.saes
    if isinstance(saes, AutoSizes):
        return [choose_sae(lessons, texts, saes.auto, folder)]
    if isinstance(saes, str):
        return [train_one(lessons, reference_sae(texts.height))]
    vectors = (lessons.vectors["train"], lessons.vectors["validation"])
    return [
        import_one(lessons.stage, sae, vectors_record, lessons.ids, *vectors)
        if sae.checkpoint
        else train_one(lessons, sae)
        for sae in saes
    ]


def _add_seeds(lessons: Lessons, parts: list[StoredObject], folder: Path) -> None:
    """Further seeds of each trained autoencoder, for comparison only: seeds.json, by the id of the first."""
    twins: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        record = part.json("sae.json")
        twins[record["sae_id"]] = []
        if record["device"].startswith("none"):
            continue  # imported: there is nothing to train again
        declared = SAE(**{name: value for name, value in record["config"].items() if name in SAE.model_fields})
        for further in range(1, lessons.stage.dataset.spec.sae_seeds):
            twin = train_one(lessons, declared.model_copy(update={"seed": declared.seed + further}))
            _link(twin, twin.json("sae.json"), folder)
            twins[record["sae_id"]].append(twin.json("sae.json"))
    write_json(folder / "seeds.json", twins)


def _link(part: StoredObject, record: dict[str, Any], folder: Path) -> None:
    for name in filter(None, (record["file"], record["head"])):
        try:
            os.link(part.file(name), folder / name)
        except OSError:  # another file system
            shutil.copyfile(part.file(name), folder / name)


def _gather(parts: list[StoredObject], folder: Path) -> None:
    records = [part.json("sae.json") for part in parts]
    if len({record["sae_id"] for record in records}) < len(records):
        records = list({record["sae_id"]: record for record in records}.values())
    for part, record in zip(parts, records, strict=False):
        _link(part, record, folder)
    write_json(folder / "saes.json", records)


def _describe(records: list[dict[str, Any]], n_train: int) -> dict[str, Any]:
    from hsae_dagster.report.figures import loss_curves
    from hsae_dagster.report.training import training_course

    names = [f"{r['config']['m']}/{r['config']['k']}" for r in records]
    named = [f"{name} ({place})" if names.count(name) > 1 else name for place, name in enumerate(names, 1)]
    histories = {name: record["history"] for name, record in zip(named, records, strict=True)}
    figure, course = loss_curves(histories), training_course(histories)
    rows = [
        {
            "sae_id": r["sae_id"][:12],
            "m": r["config"]["m"],
            "k": r["config"]["k"],
            "label weight": r["config"]["label_weight"],
            "best epoch": r["best_epoch"],
            "explained variance": round(r["explained_variance"], 4),
            "L0": round(r["l0"], 2),
            "dead share": round(r["dead_share"], 4),
            "device": r["device"],
            "stopped": r["stop_reason"],
        }
        for r in records
    ]
    return {
        "autoencoders": table(rows),
        "training texts": n_train,
        "loss": picture(figure.png, figure.alt),
        "course": picture(course.png, course.alt),
    }


def _describe_choice(stored: StoredObject) -> dict[str, Any]:
    """The whole grid, best first, and its figure; nothing where the autoencoders were declared."""
    if not stored.file("grid.parquet").is_file():
        return {}
    from hsae_dagster.report.pareto import grid_figure

    choice, rows = stored.json("choice.json"), read_frame(stored.file("grid.parquet"))
    figure = grid_figure(rows.rows(named=True), choice["metric"])
    shown = (
        rows.drop("sae_id")
        .sort("score", descending=True, nulls_last=True)
        .with_columns(pl.col(pl.Float64).round(4).fill_nan(None))
    )
    return {
        "choice": choice["reason"],
        "grid": table(shown.rows(named=True)),
        "grid, drawn": picture(figure.png, figure.alt),
    }


def _check(stored: StoredObject, records: list[dict[str, Any]]) -> list[dg.AssetCheckResult]:
    finite = [all(np.isfinite(a).all() for a in read_arrays(stored.file(r["file"])).values()) for r in records]
    dead = max(r["dead_share"] for r in records)
    explained_least = min(r["explained_variance"] for r in records)
    return [
        checks.result(NAME, "weights_are_finite", all(finite)),
        taken(NAME, choose_device()),
        checks.result(NAME, "few_dead_neurons", dead < 0.5, {"largest dead share": float(dead)}),
        checks.result(NAME, "explains_variance", explained_least >= 0.1, {"least": float(explained_least)}),
    ]
