"""Concepts per neuron: found offline, or written by a model, scored on texts that their author never saw."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.choice import best_of
from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import Fidelity, column, find_places, firing_bounds
from hsae_dagster.core.observations import text_rows
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.sections import MANNER
from hsae_dagster.dataset.spec import DatasetSpec, Interpretation
from hsae_dagster.errors import MethodError
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.base import Annotator, InterpretationRequest, Interpreter
from hsae_dagster.stages.claims import MOST_TEXTS, Material, find_claims, records_of
from hsae_dagster.stages.judging import Judged, Split, judge_candidates, making, mistakes_of
from hsae_dagster.stages.spending import account_of, account_summary, announce, estimate_interpretation
from hsae_dagster.stages.units import (
    blocks_of_vectors,
    open_vectors,
    read_sides,
    read_text_units,
    read_unit_codes,
    text_vectors,
)
from hsae_dagster.storage.artifacts import read_codes, read_frame, write_json
from hsae_dagster.storage.objects import INCOMPLETE, StoredObject
from hsae_dagster.storage.vectors import VectorTable

NAME = "interpretations"
CODE_VERSION = "10"
# Fields of `annotation` that only the holdout's annotation reads.
NOT_FIDELITY = {"holdout_sample", "distil", "seed", "calibration", "min_agreement", "max_missing"}
# Of which round of drawing texts they are: those that score a phrase, and from here those that show its mistakes.
_FIRST_DRAW = 1


def config_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of a declaration the stage reads."""
    settings = spec.interpretation
    if settings.model == "lexical":
        limits = spec.selection.model_dump(mode="json", include={"n", "interactions"})
        limits["min_positives"] = spec.inference.min_positives
        return {"interpretation": {"model": settings.model, "seed": settings.seed}, "claims": limits}
    return {
        "interpretation": settings.model_dump(mode="json", exclude=MANNER),
        "annotation": spec.annotation.model_dump(mode="json", exclude={**dict.fromkeys(NOT_FIDELITY, True), **MANNER}),
        # A claim that could not be tested is not taken.
        "min_positives": spec.inference.min_positives,
    }


def find(stage: Stage, upstream: list[StoredObject], folder: Path) -> None:
    """Claims offline, each its own whole meaning."""
    corpus, activations, selected = upstream
    columns = read_frame(activations.file("columns.parquet"))
    records: list[dict[str, Any]] = []
    choices, read = [], []
    for side in read_sides(corpus):
        material = Material.read(stage, side, activations, selected)
        found = find_claims(stage, material, side, corpus, activations)
        for record in records_of(material, found, columns):
            records.append(record | {"rank": len(records), "half": side.half})
        path = best_of(found.paths)
        choices.append({"price": path.price, "scores": path.scores.tolist(), "best": path.best, "half": side.half})
        read.append(material.texts.select("text_id", "split"))
    write_json(folder / "concepts.json", records)
    write_json(folder / "_spending.json", {})
    write_json(folder / "choice.json", choices)
    by_split = pl.concat(read).group_by("split").agg(pl.col("text_id").sort())
    write_json(folder / "seen.json", {"train": [], "validation": [], "fidelity": [], **dict(by_split.iter_rows())})


def write(stage: Stage, upstream: list[StoredObject], folder: Path) -> None:
    """Phrases of a language model, one for each selected neuron, chosen and scored by reading."""
    from hsae_dagster.providers.registry import make_annotator, make_interpreter

    settings = stage.dataset.spec.interpretation
    neurons, splits, bounds = prepare(stage.dataset, upstream, open_vectors(stage)[1])
    train = splits["train"]
    account = account_of(stage)
    interpreter = make_interpreter(settings, account)
    annotator = make_annotator(stage.dataset.spec.annotation, account)
    request = interpretation_request(train, bounds, settings)
    estimate = estimate_interpretation(interpreter, annotator, request, splits, stage.dataset.spec)
    announce(stage, account, estimate)
    proposals = interpreter.interpret(request, stage.report)
    judged = judge_candidates(stage, annotator, proposals, splits["validation"], bounds)
    scored = [_Scored(*each) for each in zip(proposals, judged, strict=True)]
    for revision in range(settings.revisions):
        _revise(stage, (interpreter, annotator), request, splits, scored, revision)
    chosen = [_choose(each.scores, settings.chosen_by) for each in scored]
    winners = [[each.candidates[c]] if c is not None else [] for each, c in zip(scored, chosen, strict=True)]
    reported = judge_candidates(stage, annotator, winners, splits["fidelity"], bounds)
    records = [
        {
            **_record(row, bounds[j], scored[j], chosen[j], reported[j].scores),
            **making(interpreter, settings.model, scored[j].candidates, [*scored[j].paid, reported[j].judgement]),
        }
        for j, row in enumerate(neurons.iter_rows(named=True))
    ]
    write_json(folder / "concepts.json", records)
    write_json(folder / "_spending.json", account_summary(account, estimate))
    judgements = [*(each for one in scored for each in one.paid), *(each.judgement for each in reported)]
    faults = interpreter.faults + sum(each.faults for each in judgements)
    if faults:
        write_json(folder / INCOMPLETE, {"answers that asking again may bring": faults})
    write_json(folder / "seen.json", {name: sorted(split.ids) for name, split in splits.items()})


class _Scored:
    """The candidates of one neuron as they come, their scores on validation texts, and what judging them took."""

    def __init__(self, candidates: list[Concept], judged: Judged) -> None:
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
    splits: dict[str, Split],
    scored: list[_Scored],
    revision: int,
) -> None:
    """One round: judge each neuron's best phrase on training texts, have it put better, score it on validation."""
    interpreter, annotator = providers
    settings, train, bounds = stage.dataset.spec.interpretation, splits["train"], list(request.bounds)
    best = [each.best(settings.chosen_by) for each in scored]
    phrases = [[each.candidates[b]] if b is not None else [] for each, b in zip(scored, best, strict=True)]
    seen = judge_candidates(stage, annotator, phrases, train, bounds, _FIRST_DRAW + revision)
    mistakes = []
    for j, (phrase, judged) in enumerate(zip(phrases, seen, strict=True)):
        scored[j].paid.append(judged.judgement)
        rng = np.random.default_rng([settings.seed, j, revision, 1])
        for concept in phrase:
            activation = column(train.codes, j)
            found = mistakes_of(j, concept, judged.answers[:, 0], activation, settings.examples, rng)
            mistakes += [found] if found else []
    stage.report(f"revision {revision + 1}: {len(mistakes)} phrases have mistakes on training texts")
    better: list[list[Concept]] = [[] for _ in scored]
    for each, new in zip(mistakes, interpreter.revise(request, mistakes, stage.report), strict=True):
        known = {concept.concept_id for concept in scored[each.neuron].candidates}
        better[each.neuron] = [new] if new and new.concept_id not in known else []
    for j, judged in enumerate(judge_candidates(stage, annotator, better, splits["validation"], bounds)):
        scored[j].candidates += better[j]
        scored[j].scores += judged.scores
        scored[j].paid.append(judged.judgement)


def prepare(
    dataset: Dataset, upstream: Sequence[StoredObject], vectors: VectorTable
) -> tuple[pl.DataFrame, dict[str, Split], list[tuple[float, float]]]:
    """The selected neurons, their codes on the splits that are read, and what counts as strong firing.

    The splits on which concepts are scored have the vectors of their texts, by which hard negatives are found. Of many
    training texts a sample is taken; it is known which sentence of each matters.

    Raises:
        MethodError: a split has no text.
    """
    neurons = read_frame(upstream[2].file("neurons.parquet"))
    splits = {name: _load(upstream, neurons, name) for name in ("train", "validation", "fidelity")}
    for name, split in splits.items():
        if not split.ids:
            raise MethodError(
                f"Dataset `{dataset.name}`: no text landed in the {name} split, which interpretation needs. "
                f"Raise splits.{name} or bring more clusters."
            )
    settings, units = dataset.spec.interpretation, read_text_units(upstream[0])
    bounds = [firing_bounds(column(splits["train"].codes, j), settings.bin) for j in range(neurons.height)]
    splits["train"] = _sample(splits["train"], settings.seed)
    for name in ("validation", "fidelity"):
        ids = pl.Series(splits[name].ids, dtype=pl.String)
        splits[name] = replace(splits[name], vectors=text_vectors(vectors, units, ids))
    train = splits["train"]
    some = units.of_texts(pl.Series(train.ids, dtype=pl.String))
    unit_codes, unit_ids = read_unit_codes(upstream[1])
    own = unit_codes[text_rows(unit_ids, some.unit_ids)].tocsc()[:, neurons["column"].to_numpy()]
    corpus_units = read_frame(upstream[0].file("units.parquet"))
    wording = corpus_units["unit"].gather(text_rows(corpus_units["unit_id"], some.unit_ids)).to_list()
    if some.are_texts:
        # A unit reads like its text without markup; whole texts are shown, and judged, as they came.
        wording = train.texts
    places = find_places(some, wording, own, blocks_of_vectors(vectors, some.unit_ids), train.codes, bounds)
    return neurons, {**splits, "train": replace(train, places=places)}, bounds


def _load(upstream: Sequence[StoredObject], neurons: pl.DataFrame, split: str) -> Split:
    texts = read_frame(upstream[0].file("texts.parquet")).filter(pl.col("split") == split)
    ids = read_frame(upstream[1].file("texts.parquet"))["text_id"]
    codes = read_codes(upstream[1].file("codes.safetensors"))[text_rows(ids, texts["text_id"])]
    selected = codes.tocsc()[:, neurons["column"].to_numpy()]
    return Split(texts["text_id"].to_list(), texts["text"].to_list(), texts["cluster_id"].to_numpy(), selected)


def interpretation_request(
    split: Split, bounds: list[tuple[float, float]], settings: Interpretation
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


def _sample(split: Split, seed: int) -> Split:
    if len(split.ids) <= MOST_TEXTS:
        return split
    rows = np.sort(np.random.default_rng(seed).choice(len(split.ids), MOST_TEXTS, replace=False))
    return split.rows(rows)


def _choose(fidelities: list[Fidelity], metric: str) -> int | None:
    """The best candidate by `metric` among those that tell firing from silent texts beyond doubt; None if none does."""
    able = [i for i, fidelity in enumerate(fidelities) if fidelity.tells_apart]
    return max(able, key=lambda i: (getattr(fidelities[i], metric), -i)) if able else None


def _record(
    neuron: dict[str, Any], bounds: tuple[float, float], scored: _Scored, chosen: int | None, reported: list[Fidelity]
) -> dict[str, Any]:
    candidates = scored.candidates
    listed = [
        {**concept.record, "validation": asdict(score)}
        for concept, score in zip(candidates, scored.scores, strict=True)
    ]
    reason = None
    if chosen is None:
        reason = "no candidate tells firing from silent texts" if candidates else "no candidate could be written"
    return {
        **{
            key: neuron[key]
            for key in ("rank", "column", "sae_id", "sae_column", "score", "train_separation", "train_z")
        },
        "bounds": list(bounds),
        "candidates": listed,
        "chosen": chosen,
        "concept": candidates[chosen].record if chosen is not None else None,
        "unreadable": reason,
        "fidelity": asdict(reported[0]) if reported else None,
    }
