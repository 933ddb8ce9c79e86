"""Asking an annotator, with what its answers rest on.

Belongs here: tasks by text and concept keys, and the comparison of stacked with single answers. Does not belong here:
judging or keeping answers (providers: the ledger makes a killed run go on), or what it costs (`assets.spending`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.judge_check import examine_judge
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.annotation_error import kappa
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING
from hsae_dagster.providers.account import Account
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
    """Judge several sets of concepts, each on its own texts, in one round of requests.

    Raises:
        ProviderError: the judge fails its examination (`assets.judge_check`), or cannot be asked.
    """
    if any(each.concepts and each.texts for each in judgings):
        examine_judge(stage, annotator, [text for each in judgings for text in each.texts])
    return _judge_all(stage, annotator, judgings)


def _judge_all(stage: Stage, annotator: Annotator, judgings: Sequence[Judging]) -> list[Judgement]:
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

    Half of the sample was answered yes and half no, as far as there are so many: where nearly all answers are alike,
    agreement on them says nothing. `kappa` is agreement beyond chance; None where all answers are alike. The whole is
    None where nothing was stacked, or nothing is to be compared.
    """
    settings = stage.dataset.spec.annotation
    if stacked.free or settings.calibration == 0 or min(settings.concepts_per_call, len(judging.concepts)) < 2:
        return None
    rows, columns = np.nonzero(answers != MISSING)
    picked = _balanced(answers[rows, columns], settings.calibration, np.random.default_rng([settings.seed, 1]))
    tasks = [
        Judging([judging.concepts[c]], [judging.ids[r]], [judging.texts[r]]) for r, c in _pairs(rows, columns, picked)
    ]
    stage.report(f"{len(tasks)} stacked answers are asked again one by one")
    alone = np.array([found.answers[0, 0] for found in _judge_all(stage, single, tasks)])
    kept = alone != MISSING
    stacked_said, alone_said = answers[rows[picked], columns[picked]][kept], alone[kept]
    same, beyond_chance = stacked_said == alone_said, kappa(stacked_said == 1, alone_said == 1)
    return {
        "compared": int(kept.sum()),
        "agreement": float(same.mean()) if kept.any() else None,
        "kappa": _finite(beyond_chance),
        "answered yes": int((stacked_said == 1).sum()),
    }


def second_opinion(stage: Stage, account: Account, judging: Judging, answers: np.ndarray) -> dict[str, Any] | None:
    """How far a second model agrees on a random sample of the texts; None where none is declared.

    Args:
        stage: its dataset names the model.
        account: that pays it.
        judging: what was judged.
        answers: (texts, concepts) int8 of the first model.

    Returns:
        The model, answers compared, κ over all of them, and by concept: κ and both shares of yes (κ None where neither
        model ever varies).
    """
    from hsae_dagster.providers.registry import make_annotator

    settings, first = stage.dataset.spec.judge, stage.dataset.spec.annotation
    if settings.second is None or not judging.texts:
        return None
    spec = first.model_copy(update={"model": settings.second, "server": settings.second_server})
    rows = np.sort(np.random.default_rng([first.seed, 2]).permutation(len(judging.texts))[: settings.second_texts])
    sample = Judging(judging.concepts, [judging.ids[r] for r in rows], [judging.texts[r] for r in rows])
    stage.report(f"{len(rows)} texts are judged by a second model, {settings.second}")
    other = _judge_all(stage, make_annotator(spec, account), [sample])[0].answers
    own = answers[rows]
    both = (own != MISSING) & (other != MISSING)
    by_concept = {}
    for j, concept in enumerate(judging.concepts):
        pair = own[both[:, j], j], other[both[:, j], j]
        by_concept[concept.concept_id] = {
            "kappa": _finite(kappa(*pair)),
            "yes": [float(said.mean()) if len(said) else None for said in pair],
        }
    return {
        "model": settings.second,
        "compared": int(both.sum()),
        "kappa": _finite(kappa(own[both], other[both])),
        "concepts": by_concept,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _balanced(answers: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Places of `count` answers, ascending: half yes and half no, or more of the one where the other runs out."""
    yes, no = (rng.permutation(np.nonzero(answers == said)[0]) for said in (1, 0))
    half = min(count // 2, len(yes))
    of_no = min(count - half, len(no))
    return np.sort(np.concatenate([yes[: count - of_no], no[:of_no]]))


def _pairs(rows: np.ndarray, columns: np.ndarray, picked: np.ndarray) -> list[tuple[int, int]]:
    return list(zip(rows[picked].tolist(), columns[picked].tolist(), strict=True))
