"""`interpretations`: candidate concepts per neuron, scored on texts their author never saw, the best one chosen."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster import checks
from hsae_dagster.assets.candidate_scores import Split, judge_candidates, making
from hsae_dagster.assets.claim_material import MOST_TEXTS, Material
from hsae_dagster.assets.embeddings import open_vectors
from hsae_dagster.assets.found_claims import find_claims, records_of
from hsae_dagster.assets.spending import account_of, account_summary, announce, estimate_interpretation
from hsae_dagster.assets.stage import GROUP, Stage, explained, table
from hsae_dagster.assets.text_units import read_sides, read_text_units, text_vectors
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.concepts.choice import best_of
from hsae_dagster.core.fidelity import Fidelity, column, firing_bounds
from hsae_dagster.core.observations import text_rows
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.spec import DatasetSpec, Interpretation
from hsae_dagster.errors import MethodError
from hsae_dagster.partitions import datasets
from hsae_dagster.providers.base import InterpretationRequest
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_codes, read_frame, write_json
from hsae_dagster.storage.objects import INCOMPLETE, StoredObject
from hsae_dagster.storage.vectors import VectorTable

NAME = "interpretations"
CODE_VERSION = "7"
# Fields of `annotation` that only the holdout's annotation reads.
NOT_FIDELITY = {"holdout_sample", "seed", "calibration", "min_agreement", "max_missing"}


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "activations", "selected_neurons"],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"openai", "scikitlearn"},
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def interpretations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Concepts written from training texts, chosen on validation texts, their fidelity reported on others."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        upstream = [stage.upstream(name) for name in ("corpus", "activations", "selected_neurons")]
        make = _find if spec.interpretation.model == "lexical" else _write
        stored = stage.build(config_of(spec), upstream, lambda folder: make(stage, upstream, folder))
        records = stored.json("concepts.json")
        readable = [record for record in records if record["concept"]]
        stage.report(f"{len(readable)} claims to test")
        described = {**_describe(records), **stored.json("_spending.json")}
        return stage.finish(stored, described, _check(stored, records))


def config_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of a declaration the stage reads."""
    settings = spec.interpretation
    if settings.model == "lexical":
        limits = spec.selection.model_dump(mode="json", include={"n", "interactions"})
        limits["min_positives"] = spec.inference.min_positives
        return {"interpretation": {"model": settings.model, "seed": settings.seed}, "claims": limits}
    return {
        "interpretation": settings.model_dump(mode="json"),
        "annotation": spec.annotation.model_dump(mode="json", exclude=NOT_FIDELITY),
        # A claim that could not be tested is not taken.
        "min_positives": spec.inference.min_positives,
    }


def _find(stage: Stage, upstream: list[StoredObject], folder: Path) -> None:
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


def _write(stage: Stage, upstream: list[StoredObject], folder: Path) -> None:
    """Phrases of a language model, one for each selected neuron, chosen and scored by reading."""
    from hsae_dagster.providers.registry import make_annotator, make_interpreter

    settings = stage.dataset.spec.interpretation
    neurons, splits, bounds = prepare(stage.dataset, upstream, open_vectors(stage)[1])
    train = splits["train"]
    account = account_of(stage)
    interpreter = make_interpreter(settings, account)
    annotator = make_annotator(stage.dataset.spec.annotation, account)
    request = interpretation_request(train, bounds, settings)
    estimate = estimate_interpretation(interpreter, annotator, request, splits, settings)
    announce(stage, account, estimate)
    proposals = interpreter.interpret(request, stage.report)
    judged = judge_candidates(stage, annotator, proposals, splits["validation"], bounds)
    scores = [each.scores for each in judged]
    chosen = [_choose(fidelities, settings.metric) for fidelities in scores]
    winners = [p[c] if c is not None else None for p, c in zip(proposals, chosen, strict=True)]
    settled = interpreter.settle(
        winners, interpretation_request(_together(train, splits["validation"]), bounds, settings)
    )
    finally_judged = judge_candidates(stage, annotator, [[c] if c else [] for c in settled], splits["fidelity"], bounds)
    records = [
        {
            **_record(row, bounds[j], proposals[j], scores[j], chosen[j], settled[j], finally_judged[j].scores),
            **making(interpreter, settings.model, proposals[j], [judged[j].judgement, finally_judged[j].judgement]),
        }
        for j, row in enumerate(neurons.iter_rows(named=True))
    ]
    write_json(folder / "concepts.json", records)
    write_json(folder / "_spending.json", account_summary(account, estimate))
    faults = interpreter.faults + sum(each.judgement.faults for each in judged + finally_judged)
    if faults:
        write_json(folder / INCOMPLETE, {"answers that asking again may bring": faults})
    write_json(folder / "seen.json", {name: sorted(split.ids) for name, split in splits.items()})


def prepare(
    dataset: Dataset, upstream: Sequence[StoredObject], vectors: VectorTable
) -> tuple[pl.DataFrame, dict[str, Split], list[tuple[float, float]]]:
    """The selected neurons, their codes on the splits that are read, and what counts as strong firing.

    The splits on which concepts are scored have the vectors of their texts, by which hard negatives are found.

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
    units = read_text_units(upstream[0])
    for name in ("validation", "fidelity"):
        ids = pl.Series(splits[name].ids, dtype=pl.String)
        splits[name] = replace(splits[name], vectors=text_vectors(vectors, units, ids))
    percentiles = dataset.spec.interpretation.bin
    bounds = [firing_bounds(column(splits["train"].codes, j), percentiles) for j in range(neurons.height)]
    return neurons, splits, bounds


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
    shown = _sample(split, settings.seed)
    low, neurons = settings.low_bin, range(split.codes.shape[1])
    return InterpretationRequest(
        texts=shown.texts,
        clusters=shown.clusters,
        codes=shown.codes,
        bounds=bounds,
        candidates=settings.candidates,
        examples=settings.examples,
        max_words=settings.max_words,
        instructions=settings.instructions,
        seed=settings.seed,
        top=settings.sampling == "top",
        weak=[firing_bounds(column(split.codes, j), low) for j in neurons] if low else None,
    )


def _together(first: Split, second: Split) -> Split:
    return Split(
        first.ids + second.ids,
        first.texts + second.texts,
        np.concatenate([first.clusters, second.clusters]),
        sp.vstack([first.codes, second.codes]).tocsc(),
    )


def _sample(split: Split, seed: int) -> Split:
    if len(split.ids) <= MOST_TEXTS:
        return split
    rows = np.sort(np.random.default_rng(seed).choice(len(split.ids), MOST_TEXTS, replace=False))
    return Split([split.ids[i] for i in rows], [split.texts[i] for i in rows], split.clusters[rows], split.codes[rows])


def _choose(fidelities: list[Fidelity], metric: str) -> int | None:
    """The best candidate by `metric` among those that tell firing from silent texts beyond doubt; None if none does."""
    able = [i for i, fidelity in enumerate(fidelities) if fidelity.tells_apart]
    return max(able, key=lambda i: (getattr(fidelities[i], metric), -i)) if able else None


def _record(
    neuron: dict[str, Any],
    bounds: tuple[float, float],
    candidates: list[Concept],
    scores: list[Fidelity],
    chosen: int | None,
    settled: Concept | None,
    reported: list[Fidelity],
) -> dict[str, Any]:
    listed = [
        {**concept.record, "validation": asdict(score)} for concept, score in zip(candidates, scores, strict=True)
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
        "concept": settled.record if settled else None,
        "unreadable": reason,
        "fidelity": asdict(reported[0]) if reported else None,
    }


def _describe(records: list[dict[str, Any]]) -> dict[str, Any]:
    readable = [r for r in records if r["concept"]]
    rows = [
        {
            "rank": r["rank"],
            **({"found in": f"half {r['half'].upper()}"} if r.get("half") else {}),
            "claim": r["concept"]["predicate"] if r["concept"] else r["unreadable"],
            "made from": r.get("from") or "neuron",
            "precision": _rounded(r["fidelity"], "natural_precision"),
            "recall": _rounded(r["fidelity"], "natural_recall"),
            "r": _rounded(r["fidelity"], "correlation"),
        }
        for r in records
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": len(readable),
        "claims": table(rows),
        "neurons that no claim says": sum(r["concept"] is None for r in records),
    }
    if candidates := _candidate_rows(records):
        metadata["candidates"] = table(candidates)
    return metadata


def _rounded(fidelity: dict[str, Any] | None, name: str) -> float | None:
    return round(fidelity[name], 3) if fidelity else None


def _candidate_rows(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every candidate beside the score it was chosen or passed over for."""
    return [
        {
            "rank": r["rank"],
            "candidate": candidate["predicate"],
            "validation F1": round(candidate["validation"]["f1"], 3),
            "chosen": place == r["chosen"],
        }
        for r in records
        for place, candidate in enumerate(r["candidates"])
    ]


def _check(stored: StoredObject, records: list[dict[str, Any]]) -> list[dg.AssetCheckResult]:
    seen = {name: set(ids) for name, ids in stored.json("seen.json").items()}
    overlap = len(seen["fidelity"] & (seen["train"] | seen["validation"])) + len(seen["train"] & seen["validation"])
    readable = [r for r in records if r["concept"]]
    return [
        checks.result(NAME, "unseen_texts_only", overlap == 0, {"texts in two roles": overlap}),
        checks.result(
            NAME, "most_neurons_are_readable", 2 * len(readable) >= len(records), {"readable": len(readable)}
        ),
    ]
