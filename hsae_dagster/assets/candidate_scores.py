"""How well candidate concepts fit their neurons, and what it took to find out.

Belongs here: having candidates judged on the texts of one split, measuring, and what a phrase got wrong. Does not
belong here: the measures (`core.fidelity`), choosing among candidates (`assets.interpretations`) or asking (providers).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from hsae_dagster.assets.judging import NOTHING_PAID, Judgement, Judging, judge, judge_all
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import (
    MISSING,
    Fidelity,
    column,
    measure_fidelity,
    natural_agreement,
    scoring_rows,
)
from hsae_dagster.core.hard_negatives import nearest_silent, with_hard_negatives
from hsae_dagster.core.sampling import Places
from hsae_dagster.dataset.spec import Interpretation
from hsae_dagster.providers.base import Annotator, Interpreter, Mistakes


@dataclass(frozen=True)
class Split:
    """Texts of one split, the codes of the selected neurons on them, their vectors or what is shown of them."""

    ids: list[str]
    texts: list[str]
    clusters: np.ndarray
    codes: sp.csc_matrix
    vectors: np.ndarray | None = None
    places: Places | None = None

    def rows(self, rows: np.ndarray) -> "Split":
        """Some of the texts."""
        return Split(
            [self.ids[i] for i in rows],
            [self.texts[i] for i in rows],
            self.clusters[rows],
            self.codes[rows],
            None if self.vectors is None else self.vectors[rows],
            None if self.places is None else self.places.of_texts(rows),
        )


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
    """The candidates of one neuron: their fidelity, what its answers rest on, and (split, candidates) answers."""

    scores: list[Fidelity]
    judgement: Judgement
    answers: np.ndarray


def judge_candidates(
    stage: Stage,
    annotator: Annotator,
    proposals: list[list[Concept]],
    split: Split,
    bounds: list[tuple[float, float]],
    draw: int = 0,
) -> list[Judged]:
    """Every candidate of every neuron on one split; a paid annotator judges a sample per neuron, the `draw`th."""
    activations = [column(split.codes, j) for j in range(len(proposals))]
    settings = stage.dataset.spec.interpretation
    if annotator.free:
        flat = [concept for candidates in proposals for concept in candidates]
        answers = judge(stage, annotator, flat, split.ids, split.texts).answers
        own = np.split(answers, np.cumsum([len(candidates) for candidates in proposals])[:-1], axis=1)
        hard = [_nearest_silent(split, j, *each, None) for j, each in enumerate(zip(activations, bounds, strict=True))]
        return [
            Judged(
                [_measure(each, None, hard[j], activations[j], bounds[j]) for each in own[j].T], NOTHING_PAID, own[j]
            )
            for j in range(len(proposals))
        ]
    read = [
        sample_to_read(settings, split, j, *each, draw) for j, each in enumerate(zip(activations, bounds, strict=True))
    ]
    judgings = [
        Judging(candidates, [split.ids[i] for i in sample.rows], [split.texts[i] for i in sample.rows])
        for candidates, sample in zip(proposals, read, strict=True)
    ]
    found = []
    for j, judgement in enumerate(judge_all(stage, annotator, judgings)):
        full = np.full((len(activations[j]), len(proposals[j])), MISSING, np.int8)
        full[read[j].rows] = judgement.answers
        scores = [_measure(each, read[j].drawn, read[j].hard, activations[j], bounds[j]) for each in full.T]
        found.append(Judged(scores, judgement, full))
    return found


def mistakes_of(
    neuron: int, concept: Concept, answers: np.ndarray, activation: np.ndarray, count: int, rng: np.random.Generator
) -> Mistakes | None:
    """What a phrase got right and wrong on texts; None where it got nothing wrong.

    Args:
        neuron: place of its neuron.
        concept: the phrase.
        answers: (n,) int8: 1 yes, 0 no, -1 not judged.
        activation: (n,) of its neuron.
        count: texts to show in all, a quarter of them right; of the others half firing ones that lack it and half
            silent ones that have it, as far as there are so many.
        rng: which are shown.
    """
    fires = activation > 0
    right, missed, silent = (answers == 1) & fires, (answers == 0) & fires, (answers != MISSING) & ~fires
    mistaken = silent & (answers == 1)
    if not missed.any() and not mistaken.any():
        return None
    wrong = count - count // 4
    # What there is little of leaves its room to the other.
    wanted = max(wrong // 2, wrong - int(mistaken.sum())), max(wrong // 2, wrong - int(missed.sum()))
    shown = [
        tuple(sorted(rng.permutation(np.flatnonzero(rows))[: max(most, 1)].tolist()))
        for rows, most in ((right, count // 4), (missed, wanted[0]), (mistaken, wanted[1]))
    ]
    return Mistakes(
        neuron=neuron,
        phrase=concept.predicate,
        firing=int((right | missed).sum()),
        found=int(right.sum()),
        silent=int(silent.sum()),
        wrong=int(mistaken.sum()),
        right=shown[0],
        missed=shown[1],
        mistaken=shown[2],
    )


def _measure(
    answers: np.ndarray,
    drawn: np.ndarray | None,
    hard: np.ndarray,
    activation: np.ndarray,
    bounds: tuple[float, float],
) -> Fidelity:
    """Fidelity on texts as they come (those drawn by chance, None for all), and on hard negatives beside them."""
    if drawn is None:
        return with_hard_negatives(measure_fidelity(answers, activation, bounds), answers[hard])
    as_they_come = np.full_like(answers, MISSING)
    as_they_come[drawn] = answers[drawn]
    found = with_hard_negatives(measure_fidelity(as_they_come, activation, bounds), answers[hard])
    precision, recall, f1 = natural_agreement(answers, activation, bounds, hard)
    return replace(found, natural_precision=precision, natural_recall=recall, natural_f1=f1)


def sample_to_read(
    settings: Interpretation,
    split: Split,
    j: int,
    activation: np.ndarray,
    bounds: tuple[float, float],
    draw: int = 0,
) -> Sample:
    """Texts of a split that a paid annotator reads for neuron j, `settings.scoring_texts` at most; others each `draw`.

    A quarter are hard negatives, where vectors tell which those are; the rest strong, weak and silent ones by chance.
    """
    reserved = settings.scoring_texts // 4 if split.vectors is not None or split.places is not None else 0
    rng = np.random.default_rng([settings.seed, j, draw] if draw else [settings.seed, j])
    drawn = scoring_rows(activation, bounds, settings.scoring_texts - reserved, rng)
    return Sample(drawn, _nearest_silent(split, j, activation, bounds, reserved))


def _nearest_silent(
    split: Split, j: int, activation: np.ndarray, bounds: tuple[float, float], limit: int | None
) -> np.ndarray:
    if split.places is not None:
        # Of many training texts, as it was found already which are like those that fire.
        silent = np.flatnonzero(activation == 0)
        order = np.argsort(-split.places.likeness[silent, j], kind="stable")[:limit]
        return np.sort(silent[order]).astype(np.int64)
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
