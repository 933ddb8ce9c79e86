"""`sae_checkpoints`: the dataset's sparse autoencoders, trained on its training texts; on the GPU if there is one."""

import os
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster import checks
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.imported_sae import declaration, import_one
from hsae_dagster.assets.stage import GROUP, Stage, explained, picture, table
from hsae_dagster.dataset.spec import SAE
from hsae_dagster.errors import MethodError
from hsae_dagster.op_tags import GPU_OP_TAGS, GPU_POOL
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.checkpoints import save_sae
from hsae_dagster.storage.frames import read_arrays, read_frame, write_json
from hsae_dagster.storage.objects import StageInputs, StoredObject

NAME = "sae_checkpoints"
CODE_VERSION = "1"


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
        declared = [declaration(stage.dataset, sae) for sae in stage.dataset.spec.saes]
        split_ids = {s: texts.filter(pl.col("split") == s)["text_id"] for s in ("train", "validation")}

        def make(folder: Path) -> None:
            train, validation = (vectors.read(split_ids[split]) for split in ("train", "validation"))
            parts = [
                import_one(stage, sae, vectors_record, split_ids, train, validation)
                if sae.checkpoint
                else _train_one(stage, sae, vectors_record, split_ids, train, validation)
                for sae in stage.dataset.spec.saes
            ]
            _gather(parts, folder)

        stored = stage.build({"saes": declared}, [corpus, vectors_record], make)
        records = stored.json("saes.json")
        return stage.finish(stored, _describe(records, len(split_ids["train"])), _check(stored, records))


def choose_device() -> str:
    """cuda, mps or cpu: chosen when the step runs, where it runs."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _train_one(
    stage: Stage,
    sae: SAE,
    vectors_record: StoredObject,
    split_ids: dict[str, pl.Series],
    train: np.ndarray,
    validation: np.ndarray,
) -> StoredObject:
    """Train one autoencoder, or find it: a dataset with the same texts and settings may have trained it already."""
    from hsae_dagster.core.sae import SAEConfig
    from hsae_dagster.core.sae_training import train_sae
    from hsae_dagster.keys import set_fingerprint

    if len(train) < sae.m:
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: an autoencoder of m = {sae.m} neurons cannot be trained on {len(train)} "
            "training texts. Lower `saes.m` to a tenth of them or less, or bring more texts."
        )
    config = SAEConfig(**{**sae.model_dump(exclude={"checkpoint"}), "prefixes": sae.prefixes})
    family = vectors_record.json("embeddings.json")["set_id"]
    upstream = {f"{split} texts": set_fingerprint(ids, family) for split, ids in split_ids.items()}
    inputs = StageInputs("sae", CODE_VERSION, declaration(stage.dataset, sae), upstream)
    name = f"SAE {sae.m}/{sae.k}"

    def make(folder: Path) -> None:
        device = choose_device()
        stage.report(f"{name}: training on {len(train):,} texts, device {device}")

        def tell(record: Any) -> None:
            if record.epoch % 20 == 0:
                stage.report(f"{name}: epoch {record.epoch}, explained variance {record.explained_variance:.3f}")

        trained = train_sae(train, validation if len(validation) > 1 else None, config, device=device, on_epoch=tell)
        stage.report(f"{name}: best epoch {trained.best_epoch}; {trained.stop_reason}")
        save_sae(folder, trained, device)

    return stage.project.store.build(inputs, stage.context.run.run_id, make)


def _gather(parts: list[StoredObject], folder: Path) -> None:
    records = [part.json("sae.json") for part in parts]
    if len({record["sae_id"] for record in records}) < len(records):
        records = list({record["sae_id"]: record for record in records}.values())
    for part, record in zip(parts, records, strict=False):
        source, target = part.file(record["file"]), folder / record["file"]
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copyfile(source, target)
    write_json(folder / "saes.json", records)


def _describe(records: list[dict[str, Any]], n_train: int) -> dict[str, Any]:
    from hsae_dagster.report.figures import loss_curves

    figure = loss_curves({f"{r['config']['m']}/{r['config']['k']}": r["history"] for r in records})
    rows = [
        {
            "sae_id": r["sae_id"][:12],
            "m": r["config"]["m"],
            "k": r["config"]["k"],
            "best epoch": r["best_epoch"],
            "explained variance": round(r["explained_variance"], 4),
            "L0": round(r["l0"], 2),
            "dead share": round(r["dead_share"], 4),
            "device": r["device"],
            "stopped": r["stop_reason"],
        }
        for r in records
    ]
    return {"autoencoders": table(rows), "training texts": n_train, "loss": picture(figure.png, figure.alt)}


def _check(stored: StoredObject, records: list[dict[str, Any]]) -> list[dg.AssetCheckResult]:
    finite = [all(np.isfinite(a).all() for a in read_arrays(stored.file(r["file"])).values()) for r in records]
    dead = max(r["dead_share"] for r in records)
    explained_least = min(r["explained_variance"] for r in records)
    return [
        checks.result(NAME, "weights_are_finite", all(finite)),
        checks.result(NAME, "few_dead_neurons", dead < 0.5, {"largest dead share": float(dead)}),
        checks.result(NAME, "explains_variance", explained_least >= 0.1, {"least": float(explained_least)}),
    ]
