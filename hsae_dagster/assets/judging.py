"""Asking an annotator batch by batch, so that a killed run repeats at most one batch.

Belongs here: cutting the work into batches and keeping each finished one. Does not belong here: judging (providers).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.keys import hash_json
from hsae_dagster.providers.base import Annotator
from hsae_dagster.storage.frames import read_arrays, read_frame, write_arrays, write_frame, write_json
from hsae_dagster.storage.objects import StageInputs

BATCH = 500
REASONS_SCHEMA = {"text_id": pl.String, "concept_id": pl.String, "reason": pl.String}


@dataclass(frozen=True)
class Judgement:
    """Answers for texts × concepts.

    Attributes:
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        missing: text_id, concept_id, reason of each missing answer.
        calls: requests made now (finished batches cost nothing again).
    """

    answers: np.ndarray
    missing: pl.DataFrame
    calls: int


def judge(
    stage: Stage, annotator: Annotator, concepts: Sequence[Concept], ids: Sequence[str], texts: Sequence[str]
) -> Judgement:
    """Judge every concept on every text, keeping each batch that has no missing answer.

    A batch with missing answers is not kept, so that a later run asks again for what could not be had.
    """
    if not concepts or not ids:
        return Judgement(np.zeros((len(ids), len(concepts)), np.int8), pl.DataFrame(schema=REASONS_SCHEMA), 0)
    size = len(ids) if annotator.free else BATCH
    parts, calls, started = [], 0, time.monotonic()
    for start in range(0, len(ids), size):
        span = slice(start, start + size)
        part = _judge_batch(stage, annotator, concepts, ids[span], texts[span])
        parts.append(part)
        calls += part.calls
        if not annotator.free:
            done = min(start + size, len(ids))
            rate = done / max(time.monotonic() - started, 1e-9)
            stage.report(
                f"{done:,} of {len(ids):,} texts judged, {calls:,} calls, {(len(ids) - done) / rate:,.0f} s left"
            )
    return Judgement(
        np.concatenate([part.answers for part in parts]), pl.concat([part.missing for part in parts]), calls
    )


def _judge_batch(
    stage: Stage, annotator: Annotator, concepts: Sequence[Concept], ids: Sequence[str], texts: Sequence[str]
) -> Judgement:
    settings = stage.dataset.spec.annotation.model_dump(mode="json", exclude={"holdout_sample", "seed"})
    keys = {"texts": hash_json(list(ids)), "concepts": hash_json([concept.concept_id for concept in concepts])}
    inputs = StageInputs("judged_batch", "1", settings, keys)
    made: list[Judgement] = []

    def make(folder: Path) -> None:
        result = annotator.annotate(concepts, texts, stage.report)
        rows = [(ids[row], concepts[column].concept_id, reason) for row, column, reason in result.reasons]
        missing = pl.DataFrame(rows, schema=REASONS_SCHEMA, orient="row")
        made.append(Judgement(result.answers, missing, result.calls))
        if result.answers.size and (result.answers < 0).any():
            raise _IncompleteBatchError
        write_arrays(folder / "answers.safetensors", {"answers": result.answers})
        write_frame(folder / "missing.parquet", missing)
        write_json(folder / "calls.json", result.calls)

    try:
        stored = stage.project.store.build(inputs, stage.context.run.run_id, make)
    except _IncompleteBatchError:
        return made[0]
    if made:
        return made[0]
    return Judgement(
        read_arrays(stored.file("answers.safetensors"))["answers"], read_frame(stored.file("missing.parquet")), 0
    )


class _IncompleteBatchError(Exception):
    """Some answers are missing, so the batch is used but not kept."""
