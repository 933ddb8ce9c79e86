"""`embeddings`: one vector per distinct unit of text, in LanceDB. Only units without a vector are embedded."""

import time
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster.keys import set_fingerprint
from hsae_dagster.orchestration.executors import llm_pool
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained
from hsae_dagster.providers.base import Embedder
from hsae_dagster.providers.spending import Account, Estimate
from hsae_dagster.stages.judging import account_of, account_summary, announce
from hsae_dagster.storage.outputs import StoredCorpus, StoredEmbeddings
from hsae_dagster.storage.vectors import VectorTable

NAME = "embeddings"
CODE_VERSION = "3"


@dg.asset(**declared(NAME, CODE_VERSION), deps=["corpus"], kinds={"lancedb"}, pool=llm_pool())
def embeddings(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """A LanceDB table (key, vector) of the dataset in its embedding set; new texts are appended batch by batch."""
    from hsae_dagster.providers.registry import make_embedder

    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        account = account_of(stage)
        embedder = make_embedder(stage.dataset.spec.embedding, account)
        vectors = VectorTable(project.results, stage.dataset.origin, embedder.embedding_set)
        texts = stage.upstream(StoredCorpus).unit_texts

        def fill(known: pl.Series) -> tuple[dict[str, Any], Estimate, StoredEmbeddings]:
            counts, estimate = _fill(stage, embedder, vectors, texts, account, known)
            return counts, estimate, _gather(stage, vectors, texts["text_id"])

        # Two runs at once would otherwise ask, and pay, for the same vectors side by side.
        counts, estimate, stored = vectors.filled(
            fill, lambda: stage.report("another run is embedding the same texts; waiting for it")
        )
        dimensions, blocks = embedder.embedding_set.dimensions, stored.blocks(texts["text_id"])
        right = all(block.shape[1] == dimensions and np.isfinite(block).all() for block in blocks)
        told = {"texts": texts.height, "dimensions": dimensions}
        check = check_result(NAME, "every_text_has_a_vector", right, told)
        paid = account_summary(account, estimate) if account.totals.calls else {}
        described = {"dagster/row_count": texts.height, **counts, **paid, **stored.record}
        return stage.finish(stored, described, [check])


def _fill(
    stage: Stage, embedder: Embedder, vectors: VectorTable, texts: pl.DataFrame, account: Account, known: pl.Series
) -> tuple[dict[str, Any], Estimate]:
    """Bring the table up to date: keep what is there, borrow what another dataset has, embed the rest."""
    missing = texts.join(known.to_frame("text_id"), on="text_id", how="anti", maintain_order="left")
    borrowed, values, lenders = vectors.borrow(set(missing["text_id"])) if missing.height else ([], np.empty(0), [])
    if borrowed:
        vectors.append(borrowed, values)
        stage.report(f"{len(borrowed):,} vectors taken from {', '.join(lenders)}, which has the same texts")
        missing = missing.filter(~pl.col("text_id").is_in(borrowed))
    # Which texts are embedded together follows from the texts alone, and what is written is a head of this order: a
    # killed run that goes on has its tail, cut in the same places, so every vector has the bytes it would have had.
    missing = missing[list(embedder.order(missing["text"].to_list()))]
    size, started = stage.dataset.spec.embedding.batch_size, time.monotonic()
    estimate = embedder.estimate(missing["text"].to_list(), size)
    announce(stage, account, estimate)
    keys, done = missing["text_id"].to_list(), 0

    def keep(rows: range, found: np.ndarray) -> None:
        nonlocal done
        vectors.append(keys[rows.start : rows.stop], found)
        done += len(rows)
        seconds = time.monotonic() - started
        left = (missing.height - done) * seconds / done
        stage.report(
            f"{done:,} of {missing.height:,} texts embedded, {done / seconds:,.0f} a second, {left:,.0f} s left"
        )

    if missing.height:
        embedder.embed_all(missing["text"].to_list(), size, keep, stage.report)
    seconds = time.monotonic() - started
    if not missing.height:
        stage.report("no new text to embed")
    counts = {
        "new": missing.height,
        "kept": texts.height - missing.height - len(borrowed),
        "borrowed": len(borrowed),
        "borrowed from": ", ".join(lenders) or "none",
        "texts per second": round(missing.height / seconds, 1) if missing.height else 0.0,
        "lancedb version": vectors.version() or 0,
    }
    return counts, estimate


def _gather(stage: Stage, vectors: VectorTable, ids: pl.Series) -> StoredEmbeddings:
    """The vectors of the corpus together, as the stages after this one read them."""
    family = vectors.embedding_set
    content = {
        "model": family.model,
        "dimensions": family.dimensions,
        "set_id": family.set_id,
        "texts": len(ids),
        "fingerprint": set_fingerprint(ids, family.set_id),
    }
    # Neither the dataset's name nor the corpus' labels shape a vector, so only keys and model enter.
    return stage.build(
        StoredEmbeddings,
        content,
        [],
        lambda folder: StoredEmbeddings.write(folder, record=content, table=vectors, unit_ids=ids),
    )
