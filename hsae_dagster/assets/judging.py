"""Asking an annotator, with what its answers rest on.

Belongs here: tasks by text and concept keys, and the comparison of stacked with single answers. Does not belong here:
judging or keeping answers (providers: the ledger makes a killed run go on), or what it costs (`assets.spending`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING
from hsae_dagster.providers.base import AnnotationTask, Annotator

REASONS_SCHEMA = {"text_id": pl.String, "concept_id": pl.String, "reason": pl.String}


@dataclass(frozen=True)
class Judgement:
    """Answers for texts × concepts.

    Attributes:
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        missing: text_id, concept_id, reason of each missing answer.
        calls: answers of a paid model that these rest on, whenever they were paid.
        cost_usd: what those cost; None where no price is known.
        faults: missing answers that asking again may bring.
    """

    answers: np.ndarray
    missing: pl.DataFrame
    calls: int = 0
    cost_usd: float | None = 0.0
    faults: int = 0


NOTHING_PAID = Judgement(np.empty((0, 0), np.int8), pl.DataFrame(schema=REASONS_SCHEMA))


@dataclass(frozen=True)
class Judging:
    """Concepts to judge on texts with the keys `ids`."""

    concepts: Sequence[Concept]
    ids: Sequence[str]
    texts: Sequence[str]


def judge(
    stage: Stage, annotator: Annotator, concepts: Sequence[Concept], ids: Sequence[str], texts: Sequence[str]
) -> Judgement:
    """Judge every concept on every text."""
    return judge_all(stage, annotator, [Judging(concepts, ids, texts)])[0]


def judge_all(stage: Stage, annotator: Annotator, judgings: Sequence[Judging]) -> list[Judgement]:
    """Judge several sets of concepts, each on its own texts, in one round of requests."""
    tasks = [AnnotationTask(each.concepts, each.texts) for each in judgings]
    judgements = []
    for each, found in zip(judgings, annotator.annotate_all(tasks, stage.report), strict=True):
        rows = [(each.ids[row], each.concepts[column].concept_id, reason) for row, column, reason in found.reasons]
        missing = pl.DataFrame(rows, schema=REASONS_SCHEMA, orient="row")
        judgements.append(Judgement(found.answers, missing, found.calls, found.cost_usd, found.faults))
    return judgements


def agreement(
    stage: Stage, stacked: Annotator, single: Annotator, judging: Judging, answers: np.ndarray
) -> dict[str, Any] | None:
    """Share of a random sample of answers that come out the same when each concept is asked alone.

    None where nothing was stacked, or nothing is to be compared.
    """
    settings = stage.dataset.spec.annotation
    if stacked.free or settings.calibration == 0 or min(settings.concepts_per_call, len(judging.concepts)) < 2:
        return None
    rows, columns = np.nonzero(answers != MISSING)
    rng = np.random.default_rng([settings.seed, 1])
    picked = np.sort(rng.permutation(len(rows))[: settings.calibration])
    tasks = [
        Judging([judging.concepts[c]], [judging.ids[r]], [judging.texts[r]]) for r, c in _pairs(rows, columns, picked)
    ]
    stage.report(f"{len(tasks)} stacked answers are asked again one by one")
    alone = np.array([found.answers[0, 0] for found in judge_all(stage, single, tasks)])
    kept = alone != MISSING
    same = (alone == answers[rows[picked], columns[picked]])[kept]
    return {"compared": int(kept.sum()), "agreement": float(same.mean()) if kept.any() else None}


def _pairs(rows: np.ndarray, columns: np.ndarray, picked: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(rows[picked].tolist(), columns[picked].tolist(), strict=True))
