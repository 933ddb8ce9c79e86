"""Asking a judge: what a stage may spend and will take, a paid judge examined, how candidates fit their neurons."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts import fidelity
from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.inference.annotation_error import kappa
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import Annotation, DatasetSpec, Interpretation
from hsae_dagster.errors import ProviderError
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.base import (
    AnnotationTask,
    Annotator,
    InterpretationRequest,
    Interpreter,
    Labelled,
    Mistakes,
)
from hsae_dagster.providers.spending import Account, Estimate, Ledger, total


def open_account(
    project: Project, dataset: Dataset, asset: str, run_id: str, selection: tuple[str, ...] | None = None
) -> Account:
    """The account on which a stage of a dataset asks paid models."""
    spending = dataset.spec.spending
    return Account(
        Ledger(project.results),
        dataset.name,
        asset,
        run_id,
        budget_usd=spending.budget_usd,
        budget_calls=spending.budget_calls,
        tier=spending.tier,
        selection=selection,
        environment=project.model_server.environment,
    )


def account_of(stage: Stage) -> Account:
    """The account of a stage at work."""
    selected = stage.context.job_def.asset_layer.selected_asset_keys
    names = tuple(sorted(key.to_user_string() for key in selected))
    return open_account(stage.project, stage.dataset, stage.asset, stage.context.run.run_id, names)


def asks_a_server(model: str) -> bool:
    """Whether a model of dataset.yaml is at a server, where it may be paid for and shared."""
    return model.startswith("openai:")


def announce(stage: Stage, account: Account, estimate: Estimate) -> None:
    """Say before the first request what the stage will take, and whether its budget allows it."""
    if not estimate.calls and not estimate.known:
        return
    stage.report(f"the whole stage will take {estimate}")
    spent = account.ledger.spent(account.dataset)
    short = []
    if account.budget_calls is not None and spent.calls + estimate.calls > account.budget_calls:
        short.append(f"budget_calls {account.budget_calls:,} ({spent.calls:,} made)")
    if account.budget_usd is not None and estimate.usd is not None and spent.usd + estimate.usd > account.budget_usd:
        short.append(f"budget_usd ${account.budget_usd:,.2f} (${spent.usd:,.4f} spent)")
    if short:
        stage.report(f"that is more than is left of {' and '.join(short)}: the stage will stop before passing it")


def account_summary(account: Account, estimate: Estimate) -> dict[str, Any]:
    """What a stage's answers were estimated to take, took in this run, and took in all."""
    totals, rests_on = account.totals, total(account.totals.costs.values())
    return {
        "estimated calls": estimate.calls,
        "estimated cost USD": None if estimate.usd is None else round(estimate.usd, 6),
        "estimated minutes": round(estimate.minutes, 1),
        "paid calls": totals.calls,
        "calls at their worst price": totals.uncounted,
        "failed calls": totals.failed,
        "answers from the ledger": max(rests_on.calls - totals.calls + totals.failed, 0),
        "tokens in": totals.usage.input,
        "tokens out": totals.usage.output,
        "cost USD": round(totals.usd, 6) if not rests_on.unpriced else None,
        "cost USD whenever paid": rests_on.usd if not rests_on.unpriced else None,
    }


AUTHOR = "rule"


def examination(texts: Sequence[str], count: int) -> tuple[fidelity.Probes, AnnotationTask]:
    """Questions with known answers on some of the texts, and the task that asks them."""
    probes = fidelity.make_probes(list(dict.fromkeys(texts)), count, np.random.default_rng([0, 17]))
    return probes, AnnotationTask([Concept(rule.predicate, AUTHOR) for rule in fidelity.RULES], probes.texts)


def examine_judge(stage: Stage, annotator: Annotator, texts: Sequence[str]) -> fidelity.Examination | None:
    """Put questions with known answers to the judge, stacked as the real ones are; None where none are to be asked.

    The ledger keeps the answers, so a judge is examined once.

    Raises:
        ProviderError: it gets fewer of them right than `judge.min_accuracy`, or cannot be asked.
    """
    from hsae_dagster.providers.openai.readers import OpenAIAnnotator

    settings = stage.dataset.spec.judge
    if annotator.free or not settings.texts or not texts:
        return None
    probes, task = examination(texts, settings.texts)
    # An answer within a day would come too late to stop anything.
    judge = annotator.at_once() if isinstance(annotator, OpenAIAnnotator) else annotator
    answers = judge.annotate(task.concepts, task.texts, stage.report).answers
    found = fidelity.examine(probes.truth, answers)
    said = (
        f"{found.right} of {found.asked} questions with known answers are answered correctly (sensitivity "
        f"{found.sensitivity:.0%}, specificity {found.specificity:.0%})"
    )
    stage.report(f"the judge is examined: {said}")
    if found.accuracy < settings.min_accuracy:
        worst, share = found.worst
        raise ProviderError(
            f"`annotation.model: {stage.dataset.spec.annotation.model}` is not a reliable judge: {said}, worst "
            f"on “{worst}” ({share:.0%}). Its balanced accuracy is {found.accuracy:.2f}, below "
            f"judge.min_accuracy {settings.min_accuracy:g}; a constant answer gives 0.50. Choose another model, "
            "fewer annotation.concepts_per_call, or, if you know why, a lower judge.min_accuracy. Nothing else "
            "was asked."
        )
    return found


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


def judge_all(stage: Stage, annotator: Annotator, judgings: Sequence[Judging]) -> list[Judgement]:
    """Judge several sets of concepts, each on its own texts, in one round of requests.

    Raises:
        ProviderError: the judge fails its examination (`stages.judging`), or cannot be asked.
    """
    if any(each.concepts and each.texts for each in judgings):
        examine_judge(stage, annotator, [text for each in judgings for text in each.texts])
    return _judge_all(stage, annotator, judgings)


def _judge_all(stage: Stage, annotator: Annotator, judgings: Sequence[Judging]) -> list[Judgement]:
    tasks = [AnnotationTask(each.concepts, each.texts) for each in judgings]
    judgements = []
    for each, found in zip(judgings, annotator.annotate_all(tasks, stage.report), strict=True):
        rows = [(each.ids[row], each.concepts[place].concept_id, reason) for row, place, reason in found.reasons]
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
    rows, columns = np.nonzero(answers != fidelity.MISSING)
    picked = _balanced(answers[rows, columns], settings.calibration, np.random.default_rng([settings.seed, 1]))
    places = zip(rows[picked].tolist(), columns[picked].tolist(), strict=True)
    tasks = [Judging([judging.concepts[c]], [judging.ids[r]], [judging.texts[r]]) for r, c in places]
    stage.report(f"{len(tasks)} stacked answers are asked again one by one")
    alone = np.array([found.answers[0, 0] for found in _judge_all(stage, single, tasks)])
    kept = alone != fidelity.MISSING
    stacked_said, alone_said = answers[rows[picked], columns[picked]][kept], alone[kept]
    same, beyond_chance = stacked_said == alone_said, kappa(stacked_said == 1, alone_said == 1)
    return {
        "compared": int(kept.sum()),
        "agreement": float(same.mean()) if kept.any() else None,
        "kappa": _finite(beyond_chance),
        "answered yes": int((stacked_said == 1).sum()),
    }


def second_judge(spec: DatasetSpec) -> Annotation | None:
    """How the second model judges: as the first does; None where none is declared."""
    if spec.judge.second is None:
        return None
    return spec.annotation.model_copy(update={"model": spec.judge.second, "server": spec.judge.second_server})


def second_rows(spec: DatasetSpec, texts: int) -> np.ndarray:
    """Which of so many texts the second model judges (int64, ascending)."""
    drawn = np.random.default_rng([spec.annotation.seed, 2]).permutation(texts)
    return np.sort(drawn[: spec.judge.second_texts])


def second_opinion(
    stage: Stage, account: Account, judging: Judging, answers: np.ndarray, examples: Labelled
) -> dict[str, Any] | None:
    """How far a second model, shown the same examples, agrees on a random sample of texts; None where none is declared.

    By concept there are κ, None where neither model ever varies, and both shares of yes.
    """
    from hsae_dagster.providers.registry import make_annotator

    settings = second_judge(stage.dataset.spec)
    if settings is None or not judging.texts:
        return None
    rows = second_rows(stage.dataset.spec, len(judging.texts))
    sample = Judging(judging.concepts, [judging.ids[r] for r in rows], [judging.texts[r] for r in rows])
    stage.report(f"{len(rows)} texts are judged by a second model, {settings.model}")
    other = _judge_all(stage, make_annotator(settings, account, examples=examples), [sample])[0].answers
    own = answers[rows]
    both = (own != fidelity.MISSING) & (other != fidelity.MISSING)
    by_concept = {}
    for j, concept in enumerate(judging.concepts):
        pair = own[both[:, j], j], other[both[:, j], j]
        by_concept[concept.concept_id] = {
            "kappa": _finite(kappa(*pair)),
            "yes": [float(said.mean()) if len(said) else None for said in pair],
        }
    return {
        "model": settings.model,
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


@dataclass(frozen=True)
class Split:
    """Texts of one split, the codes of the selected neurons on them, their vectors or what is shown of them."""

    ids: list[str]
    texts: list[str]
    clusters: np.ndarray
    codes: sp.csc_matrix
    vectors: np.ndarray | None = None
    places: fidelity.Places | None = None

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
    """Positions (int64, ascending) in a split of the texts that a paid annotator reads for one neuron.

    Some are drawn by chance among strong and silent texts; `hard` ones, silent but nearest to strong, may overlap.
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

    scores: list[fidelity.Fidelity]
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
    activations = [fidelity.column(split.codes, j) for j in range(len(proposals))]
    settings = stage.dataset.spec.interpretation
    if annotator.free:
        flat = [concept for candidates in proposals for concept in candidates]
        answers = judge_all(stage, annotator, [Judging(flat, split.ids, split.texts)])[0].answers
        own = np.split(answers, np.cumsum([len(candidates) for candidates in proposals])[:-1], axis=1)
        return [
            Judged([fidelity.measure_fidelity(each, activation, ends) for each in answers.T], NOTHING_PAID, answers)
            for answers, activation, ends in zip(own, activations, bounds, strict=True)
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
        full = np.full((len(activations[j]), len(proposals[j])), fidelity.MISSING, np.int8)
        full[read[j].rows] = judgement.answers
        scores = [_measure(each, read[j], activations[j], bounds[j]) for each in full.T]
        found.append(Judged(scores, judgement, full))
    return found


def mistakes_of(
    neuron: int, concept: Concept, answers: np.ndarray, activation: np.ndarray, count: int, rng: np.random.Generator
) -> Mistakes | None:
    """What a phrase got right and wrong on texts; None where it got nothing wrong.

    Of `count` texts a quarter is shown that it got right; of the others half are firing ones that lack it and half
    silent ones that have it, as far as there are so many. Answers are (n,) int8: 1 yes, 0 no, -1 not judged.
    """
    fires = activation > 0
    right, missed, silent = (answers == 1) & fires, (answers == 0) & fires, (answers != fidelity.MISSING) & ~fires
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
    answers: np.ndarray, read: Sample, activation: np.ndarray, bounds: tuple[float, float]
) -> fidelity.Fidelity:
    """Fidelity on the texts drawn by chance; at natural prevalence, on hard negatives beside them."""
    as_they_come = np.full_like(answers, fidelity.MISSING)
    as_they_come[read.drawn] = answers[read.drawn]
    found = fidelity.measure_fidelity(as_they_come, activation, bounds)
    precision, recall, f1 = fidelity.natural_agreement(answers, activation, bounds, read.hard)
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
    drawn = fidelity.scoring_rows(activation, bounds, settings.scoring_texts - reserved, rng)
    return Sample(drawn, _nearest_silent(split, j, activation, bounds, reserved))


def _nearest_silent(
    split: Split, j: int, activation: np.ndarray, bounds: tuple[float, float], limit: int
) -> np.ndarray:
    if split.places is not None:
        # Of many training texts, as it was found already which are like those that fire.
        silent = np.flatnonzero(activation == 0)
        order = np.argsort(-split.places.likeness[silent, j], kind="stable")[:limit]
        return np.sort(silent[order]).astype(np.int64)
    if split.vectors is None:
        return np.zeros(0, dtype=np.int64)
    return fidelity.nearest_silent(split.vectors, activation, bounds, limit)


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


# A phrase of ordinary length, in place of those yet to be written.
_ORDINARY = "mentions something that many texts of this kind mention, number {}"


def estimate_interpretation(
    interpreter: Interpreter,
    annotator: Annotator,
    request: InterpretationRequest,
    splits: Mapping[str, Split],
    spec: DatasetSpec,
) -> Estimate:
    """Writing candidates, revising and scoring them, the judge examined before each; of training texts and others."""
    settings = spec.interpretation
    estimate = interpreter.estimate(request)
    if settings.revisions:
        estimate += interpreter.estimate_revisions(request).scaled(settings.revisions)
    if annotator.free:
        return estimate
    judged = [("validation", settings.candidates, 0), ("fidelity", 1, 0)]
    judged += [(name, 1, 1 + n) for n in range(settings.revisions) for name in ("train", "validation")]
    for name, concepts, draw in judged:
        split = splits[name]
        rows = [
            sample_to_read(
                settings, split, j, fidelity.column(split.codes, j), bounds, draw if name == "train" else 0
            ).rows
            for j, bounds in enumerate(request.bounds)
        ]
        tasks = [
            # Two neurons hardly ever have the same concept, and only equal requests are asked once.
            AnnotationTask(ordinary(concepts, of=f"{name} {j} {draw}"), [split.texts[i] for i in picked])
            for j, picked in enumerate(rows)
        ]
        estimate += annotator.estimate(tasks)
        estimate += _examination(annotator, [text for task in tasks for text in task.texts], spec)
    return estimate


def _examination(annotator: Annotator, texts: Sequence[str], spec: DatasetSpec) -> Estimate:
    if annotator.free or not texts or not spec.judge.texts:
        return Estimate()
    return annotator.estimate([examination(texts, spec.judge.texts)[1]])


def estimate_annotation(
    annotator: Annotator,
    concepts: Sequence[Concept],
    texts: Sequence[str],
    spec: DatasetSpec,
    account: Account,
    examples: Labelled | None = None,
) -> Estimate:
    """The judge examined, judging concepts on texts, the same by a second model, and stacked beside single ones."""
    from hsae_dagster.providers.registry import make_annotator

    settings, second = spec.annotation, second_judge(spec)
    estimate = annotator.estimate([AnnotationTask(concepts, texts)])
    if concepts:
        estimate += _examination(annotator, texts, spec)
    if second is not None and texts:
        task = AnnotationTask(concepts, [texts[row] for row in second_rows(spec, len(texts))])
        estimate += make_annotator(second, account, asks=False, examples=examples).estimate([task])
    if annotator.free or min(settings.concepts_per_call, len(concepts)) < 2 or not texts:
        return estimate
    pairs = min(settings.calibration, len(texts) * len(concepts))
    rows = np.random.default_rng([settings.seed, 1]).integers(len(texts), size=pairs)
    alone = settings.model_copy(update={"concepts_per_call": 1})
    single, distinct = make_annotator(alone, account, asks=False, examples=examples), set(rows.tolist())
    asked = single.estimate([AnnotationTask(ordinary(1), [texts[row]]) for row in distinct])
    return estimate + asked.scaled(pairs / max(len(distinct), 1))


def ordinary(count: int, of: str = "all") -> list[Concept]:
    """As many concepts as may come, of ordinary length."""
    return [Concept(_ORDINARY.format(f"{number} of {of}"), "estimate") for number in range(count)]
