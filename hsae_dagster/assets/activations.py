"""`activations`: sparse codes of units and, pooled, of texts, all autoencoders side by side. Never a dense matrix.

    unit_codes.safetensors, units.parquet     distinct units × neurons, rows by unit_id
    codes.safetensors, texts.parquet          texts × neurons, rows by text_id
    strongest.safetensors                     `rows`: for each entry of the latter, the row of the unit that fired most
    columns.parquet                           the autoencoder of each neuron, firing rates over texts and over units,
                                              and the half whose outcomes chose its size (empty: both, or none)

Where each text is its own unit the two codes are one file.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits, pool_codes
from hsae_dagster.keys import hash_bytes
from hsae_dagster.orchestration import checks
from hsae_dagster.orchestration.project import Project, datasets
from hsae_dagster.orchestration.stage import Stage, explained, picture
from hsae_dagster.stages.units import blocks_of_vectors, open_vectors, read_text_units
from hsae_dagster.storage.artifacts import load_sae, read_codes, read_frame, write_arrays, write_codes, write_frame
from hsae_dagster.storage.objects import StoredObject
from hsae_dagster.storage.vectors import VectorTable

NAME = "activations"
CODE_VERSION = "3"


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "sae_checkpoints"],
    partitions_def=datasets,
    kinds={"torch", "scipy"},
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def activations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Codes (units × neurons and texts × neurons) in compressed sparse rows, float32, in the order of their keys."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        corpus, checkpoints = stage.upstream("corpus"), stage.upstream("sae_checkpoints")
        vectors_record, vectors = open_vectors(stage)
        # Labels and splits of the corpus shape no activation, so only which units its texts have enters.
        places = hash_bytes(corpus.file("text_units.parquet").read_bytes())
        config = {"pool": stage.dataset.spec.pool, "text units": places}
        stored = stage.build(
            config,
            [vectors_record, checkpoints],
            lambda folder: _make(stage, read_text_units(corpus), checkpoints, vectors, folder),
        )
        codes = read_codes(stored.file("codes.safetensors"))
        n_units = read_frame(stored.file("units.parquet")).height
        stage.report(
            f"{codes.shape[0]:,} texts of {n_units:,} distinct units × {codes.shape[1]:,} neurons, "
            f"{codes.nnz:,} activations"
        )
        n_texts = read_frame(corpus.file("texts.parquet")).height
        return stage.finish(stored, _describe(stored, codes), _check(codes, n_texts, stored))


def _make(stage: Stage, units: TextUnits, checkpoints: StoredObject, vectors: VectorTable, folder: Path) -> None:
    from hsae_dagster.core.sae.model import concatenate_codes, encode

    records = checkpoints.json("saes.json")
    saes = {record["sae_id"]: load_sae(checkpoints.folder, record) for record in records}
    halves = {record["sae_id"]: record.get("half", "") for record in records}
    blocks: dict[str, list[sp.csr_matrix]] = {sae_id: [] for sae_id in saes}
    for block in blocks_of_vectors(vectors, units.unit_ids):
        for sae_id, sae in saes.items():
            blocks[sae_id].append(encode(sae, block))
    unit_codes, sources = concatenate_codes([(sae_id, sp.vstack(parts, "csr")) for sae_id, parts in blocks.items()])
    pooled = pool_codes(unit_codes, units, stage.dataset.spec.pool)
    write_codes(folder / "codes.safetensors", pooled.codes)
    if units.are_texts:
        _same_file(folder / "codes.safetensors", folder / "unit_codes.safetensors")
    else:
        write_codes(folder / "unit_codes.safetensors", unit_codes)
    write_arrays(folder / "strongest.safetensors", {"rows": pooled.strongest})
    columns = {
        "column": np.arange(len(sources)),
        "sae_id": [source[0] for source in sources],
        "sae_column": [source[1] for source in sources],
        "half": [halves[source[0]] for source in sources],
        "firing_rate": _firing_rates(pooled.codes),
        "unit_firing_rate": _firing_rates(unit_codes),
    }
    write_frame(folder / "columns.parquet", pl.DataFrame(columns))
    write_frame(folder / "texts.parquet", pl.DataFrame({"text_id": units.text_ids}))
    write_frame(folder / "units.parquet", pl.DataFrame({"unit_id": units.unit_ids}))


def _firing_rates(codes: sp.csr_matrix) -> np.ndarray:
    return np.bincount(codes.indices, minlength=codes.shape[1]) / max(codes.shape[0], 1)


def _same_file(there: Path, also: Path) -> None:
    try:
        os.link(there, also)
    except OSError:  # a file system without links
        shutil.copyfile(there, also)


def _describe(stored: StoredObject, codes: sp.csr_matrix) -> dict[str, Any]:
    from hsae_dagster.report.figures import firing_rates

    columns = read_frame(stored.file("columns.parquet"))
    per_text = codes.nnz / max(codes.shape[0], 1)
    figure = firing_rates(columns["firing_rate"].to_numpy(), per_text / codes.shape[1])
    sparse_bytes = codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes
    return {
        "dagster/row_count": codes.shape[0],
        "distinct units": read_frame(stored.file("units.parquet")).height,
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
