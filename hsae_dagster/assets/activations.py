"""`activations`: sparse codes of units and, pooled, of texts, all autoencoders side by side. Never a dense matrix."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.observations import TextUnits, pool_codes
from hsae_dagster.keys import hash_bytes
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained, picture
from hsae_dagster.storage.outputs import StoredActivations, StoredCheckpoints, StoredCorpus, StoredEmbeddings

NAME = "activations"
CODE_VERSION = "4"


@dg.asset(**declared(NAME, CODE_VERSION), deps=["corpus", "embeddings", "sae_checkpoints"], kinds={"torch", "scipy"})
def activations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Codes (units × neurons and texts × neurons) in compressed sparse rows, float32, in the order of their keys."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        corpus, embeddings = stage.upstream(StoredCorpus), stage.upstream(StoredEmbeddings)
        checkpoints = stage.upstream(StoredCheckpoints)
        # Labels and splits of the corpus shape no activation, so only which units its texts have enters.
        places = hash_bytes(corpus.stored.file(StoredCorpus.text_units.name).read_bytes())
        config = {"pool": stage.dataset.spec.pool, "text units": places}
        found = stage.build(
            StoredActivations,
            config,
            [embeddings, checkpoints],
            lambda folder: _make(stage, corpus.places, checkpoints, embeddings, folder),
        )
        codes = found.codes
        stage.report(
            f"{codes.shape[0]:,} texts of {found.units.height:,} distinct units × {codes.shape[1]:,} neurons, "
            f"{codes.nnz:,} activations"
        )
        return stage.finish(found, _describe(found), _check(found, corpus.texts.height))


def _make(
    stage: Stage, units: TextUnits, checkpoints: StoredCheckpoints, embeddings: StoredEmbeddings, folder: Path
) -> None:
    from hsae_dagster.core.sae.model import concatenate_codes, encode

    records = checkpoints.records
    saes = {record["sae_id"]: checkpoints.load(record) for record in records}
    halves = {record["sae_id"]: record.get("half", "") for record in records}
    blocks: dict[str, list[sp.csr_matrix]] = {sae_id: [] for sae_id in saes}
    for block in embeddings.blocks(units.unit_ids):
        for sae_id, sae in saes.items():
            blocks[sae_id].append(encode(sae, block))
    unit_codes, sources = concatenate_codes([(sae_id, sp.vstack(parts, "csr")) for sae_id, parts in blocks.items()])
    pooled = pool_codes(unit_codes, units, stage.dataset.spec.pool)
    columns = {
        "column": np.arange(len(sources)),
        "sae_id": [source[0] for source in sources],
        "sae_column": [source[1] for source in sources],
        "half": [halves[source[0]] for source in sources],
        "firing_rate": np.bincount(pooled.codes.indices, minlength=len(sources)) / max(pooled.codes.shape[0], 1),
    }
    StoredActivations.write(
        folder,
        codes=pooled.codes,
        unit_codes=pooled.codes if units.are_texts else unit_codes,
        strongest=pooled.strongest,
        columns=pl.DataFrame(columns),
        texts=pl.DataFrame({"text_id": units.text_ids}),
        units=pl.DataFrame({"unit_id": units.unit_ids}),
    )


def _describe(found: StoredActivations) -> dict[str, Any]:
    from hsae_dagster.report.figures import firing_rates

    codes, columns = found.codes, found.columns
    per_text = codes.nnz / max(codes.shape[0], 1)
    figure = firing_rates(columns["firing_rate"].to_numpy(), per_text / codes.shape[1])
    sparse_bytes = codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes
    return {
        "dagster/row_count": codes.shape[0],
        "distinct units": found.units.height,
        "neurons": codes.shape[1],
        "activations per text": round(per_text, 2),
        "never firing": int((columns["firing_rate"] == 0).sum()),
        "megabytes": round(sparse_bytes / 1e6, 2),
        "megabytes if dense": round(codes.shape[0] * codes.shape[1] * 4 / 1e6, 2),
        "firing rates": picture(figure.png, figure.alt),
    }


def _check(found: StoredActivations, n_texts: int) -> list[dg.AssetCheckResult]:
    codes = found.codes
    right = (
        codes.shape == (n_texts, found.columns.height)
        and bool(np.isfinite(codes.data).all())
        and not (codes.data < 0).any()
    )
    return [check_result(NAME, "one_row_per_text", right, {"rows": codes.shape[0], "columns": codes.shape[1]})]
