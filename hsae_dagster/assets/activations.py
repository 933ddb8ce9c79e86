"""`activations`: sparse codes of every text, all autoencoders side by side. Never a dense texts × neurons matrix."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster import checks
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.stage import GROUP, Stage, explained, picture
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.checkpoints import load_sae
from hsae_dagster.storage.frames import read_codes, read_frame, write_codes, write_frame
from hsae_dagster.storage.objects import StoredObject

NAME = "activations"
CODE_VERSION = "1"


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "sae_checkpoints"],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"torch", "scipy"},
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def activations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Codes (texts × neurons) in compressed sparse rows, float32, rows in the order of their text ids."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        corpus, checkpoints = stage.upstream("corpus"), stage.upstream("sae_checkpoints")
        vectors_record, vectors = open_vectors(stage)
        ids = read_frame(corpus.file("texts.parquet"))["text_id"]

        def make(folder: Path) -> None:
            from hsae_dagster.core.codes import concatenate_codes, encode

            embedded = vectors.read(ids)
            records = checkpoints.json("saes.json")
            parts = [(r["sae_id"], encode(load_sae(checkpoints.folder, r), embedded)) for r in records]
            codes, sources = concatenate_codes(parts)
            rates = np.bincount(codes.indices, minlength=codes.shape[1]) / max(codes.shape[0], 1)
            columns = {
                "column": np.arange(codes.shape[1]),
                "sae_id": [source[0] for source in sources],
                "sae_column": [source[1] for source in sources],
                "firing_rate": rates,
            }
            write_codes(folder / "codes.safetensors", codes)
            write_frame(folder / "columns.parquet", pl.DataFrame(columns))
            write_frame(folder / "texts.parquet", pl.DataFrame({"text_id": ids}))

        stored = stage.build({}, [vectors_record, checkpoints], make)
        codes = read_codes(stored.file("codes.safetensors"))
        stage.report(f"{codes.shape[0]:,} texts × {codes.shape[1]:,} neurons, {codes.nnz:,} activations")
        return stage.finish(stored, _describe(stored, codes), _check(codes, len(ids), stored))


def _describe(stored: StoredObject, codes: sp.csr_matrix) -> dict[str, Any]:
    from hsae_dagster.report.figures import firing_rates

    columns = read_frame(stored.file("columns.parquet"))
    per_text = codes.nnz / max(codes.shape[0], 1)
    figure = firing_rates(columns["firing_rate"].to_numpy(), per_text / codes.shape[1])
    sparse_bytes = codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes
    return {
        "dagster/row_count": codes.shape[0],
        "neurons": codes.shape[1],
        "activations per text": round(per_text, 2),
        "never firing": int((columns["firing_rate"] == 0).sum()),
        "megabytes": round(sparse_bytes / 1e6, 2),
        "megabytes if dense": round(codes.shape[0] * codes.shape[1] * 4 / 1e6, 2),
        "firing rates": picture(figure.png, figure.alt),
    }


def _check(codes: sp.csr_matrix, n_texts: int, stored: StoredObject) -> list[dg.AssetCheckResult]:
    n_columns = read_frame(stored.file("columns.parquet")).height
    right = codes.shape == (n_texts, n_columns) and bool(np.isfinite(codes.data).all()) and not (codes.data < 0).any()
    return [checks.result(NAME, "one_row_per_text", right, {"rows": codes.shape[0], "columns": codes.shape[1]})]
