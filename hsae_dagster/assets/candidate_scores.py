"""How well candidate concepts fit their neurons, and what it took to find out.

Belongs here: having candidates judged on the texts of one split, and measuring. Does not belong here: the measures
(`core.fidelity`), choosing among candidates (`assets.interpretations`) or asking (providers).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from hsae_dagster.assets.judging import NOTHING_PAID, Judgement, Judging, judge, judge_all
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING, Fidelity, column, measure_fidelity, scoring_rows
from hsae_dagster.dataset.spec import Interpretation
from hsae_dagster.providers.base import Annotator, Interpreter


@dataclass(frozen=True)
class Split:
    """Texts of one split, and the codes of the selected neurons on them."""

    ids: list[str]
    texts: list[str]
    clusters: np.ndarray
    codes: sp.csc_matrix


@dataclass(frozen=True)
class Judged:
    """The candidates of one neuron: their fidelity, and what its answers rest on."""

    scores: list[Fidelity]
    judgement: Judgement


def judge_candidates(
    stage: Stage,
    annotator: Annotator,
    proposals: list[list[Concept]],
    split: Split,
    bounds: list[tuple[float, float]],
) -> list[Judged]:
    """Every candidate of every neuron on one split; a paid annotator judges a sample per neuron."""
    activations = [column(split.codes, j) for j in range(len(proposals))]
    if annotator.free:
        flat = [concept for candidates in proposals for concept in candidates]
        answers = iter(judge(stage, annotator, flat, split.ids, split.texts).answers.T)
        return [
            Judged([measure_fidelity(next(answers), activations[j], bounds[j]) for _ in candidates], NOTHING_PAID)
            for j, candidates in enumerate(proposals)
        ]
    sampled = fidelity_rows(stage.dataset.spec.interpretation, activations, bounds)
    judgings = [
        Judging(candidates, [split.ids[i] for i in rows], [split.texts[i] for i in rows])
        for candidates, rows in zip(proposals, sampled, strict=True)
    ]
    found = []
    for j, judgement in enumerate(judge_all(stage, annotator, judgings)):
        full = np.full((len(activations[j]), len(proposals[j])), MISSING, np.int8)
        full[sampled[j]] = judgement.answers
        found.append(Judged([measure_fidelity(each, activations[j], bounds[j]) for each in full.T], judgement))
    return found


def fidelity_rows(
    settings: Interpretation, activations: Sequence[np.ndarray], bounds: Sequence[tuple[float, float]]
) -> list[np.ndarray]:
    """Per neuron, the texts of a split that a paid annotator reads to score its candidates."""
    return [
        scoring_rows(activation, bounds[j], settings.scoring_texts, np.random.default_rng([settings.seed, j]))
        for j, activation in enumerate(activations)
    ]


def making(
    interpreter: Interpreter, model: str, candidates: list[Concept], judgements: list[Judgement]
) -> dict[str, Any]:
    """Who wrote a neuron's concepts by which prompt, and what writing and scoring them took, whenever it was paid."""
    paid = [concept.details["cost_usd"] for concept in candidates if "cost_usd" in concept.details]
    costs = paid + [judgement.cost_usd for judgement in judgements]
    known = [cost for cost in costs if cost is not None]
    return {
        "model": model,
        "prompt_hash": interpreter.prompt_hash,
        "calls": len(paid) + sum(judgement.calls for judgement in judgements),
        "cost_usd": round(sum(sorted(known)), 9) if len(known) == len(costs) else None,
    }
