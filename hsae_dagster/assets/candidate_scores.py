"""How well candidate concepts fit their neurons, and what it took to find out.

Belongs here: having candidates judged on the texts of one split, and measuring. Does not belong here: the measures
(`core.fidelity`), choosing among candidates (`assets.interpretations`) or asking (providers).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from hsae_dagster.assets.judging import NOTHING_PAID, Judgement, Judging, judge, judge_all
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING, Fidelity, column, measure_fidelity, scoring_rows
from hsae_dagster.core.hard_negatives import nearest_silent, with_hard_negatives
from hsae_dagster.dataset.spec import Interpretation
from hsae_dagster.providers.base import Annotator, Interpreter


@dataclass(frozen=True)
class Split:
    """Texts of one split, the codes of the selected neurons on them, and their vectors where concepts are scored."""

    ids: list[str]
    texts: list[str]
    clusters: np.ndarray
    codes: sp.csc_matrix
    vectors: np.ndarray | None = None


@dataclass(frozen=True)
class Sample:
    """Positions in a split of the texts that a paid annotator reads for one neuron.

    Attributes:
        drawn: by chance among strong and silent texts, int64, ascending.
        hard: silent texts nearest to strong ones, int64, ascending; may overlap with `drawn`.
    """

    drawn: np.ndarray
    hard: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """Both, ascending and distinct."""
        return np.union1d(self.drawn, self.hard)


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
    settings = stage.dataset.spec.interpretation
    if annotator.free:
        flat = [concept for candidates in proposals for concept in candidates]
        answers = iter(judge(stage, annotator, flat, split.ids, split.texts).answers.T)
        hard = [_nearest_silent(split, *each, None) for each in zip(activations, bounds, strict=True)]
        return [
            Judged(
                [_measure(next(answers), None, hard[j], activations[j], bounds[j]) for _ in candidates], NOTHING_PAID
            )
            for j, candidates in enumerate(proposals)
        ]
    read = [sample_to_read(settings, split, j, *each) for j, each in enumerate(zip(activations, bounds, strict=True))]
    judgings = [
        Judging(candidates, [split.ids[i] for i in sample.rows], [split.texts[i] for i in sample.rows])
        for candidates, sample in zip(proposals, read, strict=True)
    ]
    found = []
    for j, judgement in enumerate(judge_all(stage, annotator, judgings)):
        full = np.full((len(activations[j]), len(proposals[j])), MISSING, np.int8)
        full[read[j].rows] = judgement.answers
        scores = [_measure(each, read[j].drawn, read[j].hard, activations[j], bounds[j]) for each in full.T]
        found.append(Judged(scores, judgement))
    return found


def _measure(
    answers: np.ndarray,
    drawn: np.ndarray | None,
    hard: np.ndarray,
    activation: np.ndarray,
    bounds: tuple[float, float],
) -> Fidelity:
    """Fidelity on texts as they come (those drawn by chance, None for all), and on hard negatives beside them."""
    as_they_come = answers
    if drawn is not None:
        as_they_come = np.full_like(answers, MISSING)
        as_they_come[drawn] = answers[drawn]
    return with_hard_negatives(measure_fidelity(as_they_come, activation, bounds), answers[hard])


def sample_to_read(
    settings: Interpretation, split: Split, j: int, activation: np.ndarray, bounds: tuple[float, float]
) -> Sample:
    """Texts of a split that a paid annotator reads for neuron j, `settings.scoring_texts` at most.

    A quarter are hard negatives, where vectors tell which those are; the rest half strong and half silent by chance.
    """
    reserved = settings.scoring_texts // 4 if split.vectors is not None else 0
    rng = np.random.default_rng([settings.seed, j])
    drawn = scoring_rows(activation, bounds, settings.scoring_texts - reserved, rng)
    return Sample(drawn, _nearest_silent(split, activation, bounds, reserved))


def _nearest_silent(split: Split, activation: np.ndarray, bounds: tuple[float, float], limit: int | None) -> np.ndarray:
    if split.vectors is None:
        return np.zeros(0, dtype=np.int64)
    return nearest_silent(split.vectors, activation, bounds, limit)


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
