"""Concepts per neuron: found offline, or written by a model, scored on texts that their author never saw."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.candidates import SOURCES
from hsae_dagster.core.concepts.choice import best_of
from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import Fidelity, column, find_places, firing_bounds
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.sections import MANNER
from hsae_dagster.dataset.spec import DatasetSpec, Interpretation
from hsae_dagster.errors import MethodError
from hsae_dagster.extensions import own_sources
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.base import Annotator, InterpretationRequest, Interpreter
from hsae_dagster.providers.registry import ANNOTATORS, INTERPRETERS
from hsae_dagster.stages import judging
from hsae_dagster.stages.claims import MOST_TEXTS, Material, concepts_of, find_claims
from hsae_dagster.storage.outputs import (
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredSelection,
    lacking,
)

NAME = "interpretations"
CODE_VERSION = "16"
# Fields of `annotation` that only the holdout's annotation reads.
NOT_FIDELITY = {"holdout_sample", "distil", "seed", "calibration", "min_agreement", "max_missing"}
# What the stage reads; vectors besides, which the corpus decides.
Upstream: TypeAlias = tuple[StoredCorpus, StoredActivations, StoredSelection]
# Of which round of drawing texts they are: those that score a phrase, and from here those that show its mistakes.
_FIRST_DRAW = 1


def config_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of a declaration the stage reads."""
    settings = spec.interpretation
    if settings.model == "lexical":
        limits = spec.selection.model_dump(mode="json", include={"n", "interactions"})
        limits["min_positives"] = spec.inference.min_positives
        return {
            "interpretation": settings.model_dump(mode="json", include={"model", "seed", "sources"}),
            "claims": limits,
            **own_sources(spec, SOURCES),
        }
    return {
        **own_sources(spec, INTERPRETERS, ANNOTATORS),
        "interpretation": settings.model_dump(mode="json", exclude={**MANNER, "sources": True}),
        "annotation": spec.annotation.model_dump(mode="json", exclude={**dict.fromkeys(NOT_FIDELITY, True), **MANNER}),
        # A claim that could not be tested is not taken.
        "min_positives": spec.inference.min_positives,
    }


def find(stage: Stage, upstream: Upstream, folder: Path) -> None:
    """Claims offline, each its own whole meaning."""
    corpus, activations, selected = upstream
    concepts: list[FoundConcept] = []
    choices, read = [], []
    for side in corpus.sides:
        material = Material.read(stage, side, activations, selected)
        found, paths = find_claims(stage, material, side, corpus, activations)
        concepts += concepts_of(material, found, activations.columns, len(concepts), side.half)
        path = best_of(paths)
        choices.append({**asdict(path), "scores": path.scores.tolist(), "half": side.half})
        read.append(material.texts.select("text_id", "split"))
    by_split = pl.concat(read).group_by("split").agg(pl.col("text_id").sort())
    seen = {"train": [], "validation": [], "fidelity": [], **dict(by_split.iter_rows())}
    StoredInterpretations.write(folder, concepts=concepts, spending={}, choice=choices, seen=seen)


def write(stage: Stage, upstream: Upstream, folder: Path) -> None:
    """Phrases of a language model, one for each selected neuron, chosen and scored by reading."""
    from hsae_dagster.providers.registry import make_annotator, make_interpreter

    settings = stage.dataset.spec.interpretation
    neurons, splits, bounds = prepare(stage.dataset, upstream, stage.embeddings)
    train = splits["train"]
    account = judging.account_of(stage)
    interpreter = make_interpreter(settings, account)
    annotator = make_annotator(stage.dataset.spec.annotation, account)
    request = interpretation_request(train, bounds, settings)
    estimate = judging.estimate_interpretation(interpreter, annotator, request, splits, stage.dataset.spec)
    judging.announce(stage, account, estimate)
    proposals = interpreter.interpret(request, stage.report)
    judged = judging.judge_candidates(stage, annotator, proposals, splits["validation"], bounds)
    scored = [_Scored(*each) for each in zip(proposals, judged, strict=True)]
    for revision in range(settings.revisions):
        _revise(stage, (interpreter, annotator), request, splits, scored, revision)
    chosen = [_choose(each.scores, settings.chosen_by) for each in scored]
    winners = [[each.candidates[c]] if c is not None else [] for each, c in zip(scored, chosen, strict=True)]
    reported = judging.judge_candidates(stage, annotator, winners, splits["fidelity"], bounds)
    concepts = [
        replace(
            _concept(row, bounds[j], scored[j], chosen[j], reported[j].scores),
            **judging.making(
                interpreter, settings.model, scored[j].candidates, [*scored[j].paid, reported[j].judgement]
            ),
        )
        for j, row in enumerate(neurons.iter_rows(named=True))
    ]
    judgements = [*(each for one in scored for each in one.paid), *(each.judgement for each in reported)]
    StoredInterpretations.write(
        folder,
        concepts=concepts,
        spending=judging.account_summary(account, estimate),
        incomplete=lacking(interpreter.faults + sum(each.faults for each in judgements)),
        seen={name: sorted(split.ids) for name, split in splits.items()},
    )


class _Scored:
    """The candidates of one neuron as they come, their scores on validation texts, and what judging them took."""

    def __init__(self, candidates: list[Concept], judged: judging.Judged) -> None:
        self.candidates, self.scores, self.paid = list(candidates), list(judged.scores), [judged.judgement]

    def best(self, metric: str) -> int | None:
        """The one to go on from: the best that tells texts apart, else the best of all."""
        able = _choose(self.scores, metric)
        if able is not None or not self.scores:
            return able
        return max(range(len(self.scores)), key=lambda i: (getattr(self.scores[i], metric), -i))


def _revise(
    stage: Stage,
    providers: tuple[Interpreter, Annotator],
    request: InterpretationRequest,
    splits: dict[str, judging.Split],
    scored: list[_Scored],
    revision: int,
) -> None:
    """One round: judge each neuron's best phrase on training texts, have it put better, score it on validation."""
    interpreter, annotator = providers
    settings, train, bounds = stage.dataset.spec.interpretation, splits["train"], list(request.bounds)
    best = [each.best(settings.chosen_by) for each in scored]
    phrases = [[each.candidates[b]] if b is not None else [] for each, b in zip(scored, best, strict=True)]
    seen = judging.judge_candidates(stage, annotator, phrases, train, bounds, _FIRST_DRAW + revision)
    mistakes = []
    for j, (phrase, judged) in enumerate(zip(phrases, seen, strict=True)):
        scored[j].paid.append(judged.judgement)
        rng = np.random.default_rng([settings.seed, j, revision, 1])
        for concept in phrase:
            activation = column(train.codes, j)
            found = judging.mistakes_of(j, concept, judged.answers[:, 0], activation, settings.examples, rng)
            mistakes += [found] if found else []
    stage.report(f"revision {revision + 1}: {len(mistakes)} phrases have mistakes on training texts")
    better: list[list[Concept]] = [[] for _ in scored]
    for each, new in zip(mistakes, interpreter.revise(request, mistakes, stage.report), strict=True):
        known = {concept.concept_id for concept in scored[each.neuron].candidates}
        better[each.neuron] = [new] if new and new.concept_id not in known else []
    for j, judged in enumerate(judging.judge_candidates(stage, annotator, better, splits["validation"], bounds)):
        scored[j].candidates += better[j]
        scored[j].scores += judged.scores
        scored[j].paid.append(judged.judgement)


def prepare(
    dataset: Dataset, upstream: Upstream, embeddings: StoredEmbeddings
) -> tuple[pl.DataFrame, dict[str, judging.Split], list[tuple[float, float]]]:
    """The selected neurons, their codes on the splits that are read, and what counts as strong firing.

    The splits on which concepts are scored have the vectors of their texts, by which hard negatives are found. Of many
    training texts a sample is taken; it is known which sentence of each matters.

    Raises:
        MethodError: a split has no text.
    """
    corpus, activations, selected = upstream
    neurons = selected.neurons
    splits = {name: _load(corpus, activations, neurons, name) for name in ("train", "validation", "fidelity")}
    for name, split in splits.items():
        if not split.ids:
            raise MethodError(
                f"Dataset `{dataset.name}`: no text landed in the {name} split, which interpretation needs. "
                f"Raise splits.{name} or bring more clusters."
            )
    settings, units = dataset.spec.interpretation, corpus.places
    bounds = [firing_bounds(column(splits["train"].codes, j), settings.bin) for j in range(neurons.height)]
    read = len(splits["train"].ids)
    if read > MOST_TEXTS:
        sample = np.random.default_rng(settings.seed).choice(read, MOST_TEXTS, replace=False)
        splits["train"] = splits["train"].rows(np.sort(sample))
    for name in ("validation", "fidelity"):
        ids = pl.Series(splits[name].ids, dtype=pl.String)
        splits[name] = replace(splits[name], vectors=embeddings.of_texts(units, ids))
    train = splits["train"]
    some = units.of_texts(pl.Series(train.ids, dtype=pl.String))
    own = activations.on_units(some.unit_ids).tocsc()[:, neurons["column"].to_numpy()]
    # A unit reads like its text without markup; whole texts are shown, and judged, as they came.
    wording = train.texts if some.are_texts else corpus.wording(some.unit_ids)
    places = find_places(some, wording, own, embeddings.blocks(some.unit_ids), train.codes, bounds)
    return neurons, {**splits, "train": replace(train, places=places)}, bounds


def _load(corpus: StoredCorpus, activations: StoredActivations, neurons: pl.DataFrame, split: str) -> judging.Split:
    texts = corpus.texts.filter(pl.col("split") == split)
    selected = activations.on(texts["text_id"]).tocsc()[:, neurons["column"].to_numpy()]
    return judging.Split(texts["text_id"].to_list(), texts["text"].to_list(), texts["cluster_id"].to_numpy(), selected)


def interpretation_request(
    split: judging.Split, bounds: list[tuple[float, float]], settings: Interpretation
) -> InterpretationRequest:
    """What an interpreter may see of a split."""
    low, neurons = settings.low_bin, range(split.codes.shape[1])
    return InterpretationRequest(
        texts=split.texts,
        clusters=split.clusters,
        codes=split.codes,
        bounds=bounds,
        candidates=settings.candidates,
        examples=settings.examples,
        max_words=settings.max_words,
        instructions=settings.instructions,
        seed=settings.seed,
        top=settings.sampling == "top",
        weak=[firing_bounds(column(split.codes, j), low) for j in neurons] if low else None,
        places=split.places,
    )


def _choose(fidelities: list[Fidelity], metric: str) -> int | None:
    """The best candidate by `metric` among those that tell firing from silent texts beyond doubt; None if none does."""
    able = [i for i, fidelity in enumerate(fidelities) if fidelity.tells_apart]
    return max(able, key=lambda i: (getattr(fidelities[i], metric), -i)) if able else None


def _concept(
    neuron: dict[str, Any], bounds: tuple[float, float], scored: _Scored, chosen: int | None, reported: list[Fidelity]
) -> FoundConcept:
    phrases, reason = scored.candidates, None
    if chosen is None:
        reason = "no candidate distinguishes firing from silent texts" if phrases else "no candidate could be written"
    kept = ("rank", "column", "sae_id", "sae_column", "score", "train_separation", "train_z")
    return FoundConcept(
        **{name: neuron[name] for name in kept},
        concept=phrases[chosen] if chosen is not None else None,
        bounds=bounds,
        fidelity=reported[0] if reported else None,
        candidates=tuple(zip(phrases, scored.scores, strict=True)),
        chosen=chosen,
        unreadable=reason,
    )
