"""Every concept judged on every holdout text: which texts, by whom, and what was answered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.rows import gold_hash
from hsae_dagster.dataset.sections import MANNER
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.errors import MethodError
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.gold import (
    DISTILLED,
    READ,
    agreement_of_probe,
    check_gold,
    draw_shown,
    firing_of,
    gold_offer,
    in_words,
    label_the_rest,
    labelled,
    texts_to_ask,
)
from hsae_dagster.stages.holdout import PLAN_FILE, concepts_to_test, freeze_plan, holdout_texts
from hsae_dagster.stages.judging import Judging, agreement, judge_all, second_opinion
from hsae_dagster.stages.spending import account_of, account_summary, announce, estimate_annotation
from hsae_dagster.storage.artifacts import write_frame, write_json
from hsae_dagster.storage.objects import INCOMPLETE, StoredObject

NAME = "annotation_matrix"
CODE_VERSION = "6"


def config_of(dataset: Dataset) -> dict[str, Any]:
    """What of a dataset's folder the stage reads beside its files."""
    spec = dataset.spec
    config = spec.annotation.model_dump(mode="json", exclude={"min_agreement": True, "max_missing": True, **MANNER})
    if spec.judge.second is not None:
        config["judge"] = spec.judge.model_dump(mode="json", include={"second", "second_texts"})
        config["judge"]["url"] = spec.judge.second_server.url
    if spec.judge.examples:
        config["examples"] = [spec.judge.examples, gold_hash(dataset.folder)]
    if spec.hypotheses:
        config["hypotheses"] = [own.model_dump(mode="json", include={"claim", "terms"}) for own in spec.hypotheses]
    return config


def upstream_of(spec: DatasetSpec) -> tuple[str, ...]:
    """Stages whose results the stage reads."""
    return ("corpus", "interpretations", *(READ if spec.annotation.distil else ()))


def judge_holdout(stage: Stage, upstream: dict[str, StoredObject], folder: Path) -> None:
    """Every concept judged on every holdout text, the plan written down before any of them is read."""
    from hsae_dagster.providers.registry import make_annotator

    corpus, interpretations = upstream["corpus"], upstream["interpretations"]
    settings = stage.dataset.spec.annotation
    records = concepts_to_test(stage.dataset, interpretations)
    phrased = stage.dataset.spec.interpretation.model != "lexical"
    if not records and phrased and interpretations.json("concepts.json"):
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: no selected neuron has a readable concept, so there is nothing to judge. "
            "Try smaller autoencoders (`saes`), more candidates, or another interpretation.model."
        )
    if not records:
        stage.report("nothing found: there is no claim to judge, which is an answer, too")
    if said := check_gold(stage.dataset, interpretations, corpus):
        stage.report(said)
    # Before any holdout text is read: what will be asked of it is written down for good.
    plan = freeze_plan(stage, corpus, records)
    write_json(folder / PLAN_FILE, {"fingerprint": plan.fingerprint, "holdout": plan.holdout})
    concepts = distinct_concepts(records)
    observations, texts = holdout_texts(corpus, settings)
    firing = firing_of(upstream["activations"], records, texts) if settings.distil else None
    sample = texts_to_ask(stage.dataset, texts, firing)
    asked = texts[sample.rows]
    account = account_of(stage)
    shown = draw_shown(stage.dataset, concepts, texts)
    examples = labelled(shown, concepts, texts)
    annotator = make_annotator(settings, account, closeness=UnitCloseness.of(stage, corpus), examples=examples)
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account, examples=examples)
    estimate = estimate_annotation(annotator, concepts, asked["text"].to_list(), stage.dataset.spec, account, examples)
    if shown:
        stage.report(f"{sum(map(len, shown.values())):,} labels of gold.csv are shown to the judge and check nothing")
    if asked.height < texts.height:
        stage.report(in_words(asked.height, texts.height))
    announce(stage, account, estimate)
    if offer := gold_offer(stage.dataset):
        stage.report(offer)
    judging = Judging(concepts, asked["text_id"].to_list(), asked["text"].to_list())
    judgement = judge_all(stage, annotator, [judging])[0]
    calibration = agreement(stage, annotator, single, judging, judgement.answers)
    second = second_opinion(stage, account, judging, judgement.answers, examples)
    answers, probe = judgement.answers, None
    if firing is not None:
        answers, table = label_the_rest(stage.project, stage.dataset, upstream, records, texts, sample, firing, answers)
        write_frame(folder / DISTILLED, table)
        probe = agreement_of_probe(table, answers, [concept.concept_id for concept in concepts])
    columns = {
        concept.concept_id: pl.Series(answers[:, j]).replace_strict({1: True, 0: False}, default=None)
        for j, concept in enumerate(concepts)
    }
    write_frame(folder / "annotations.parquet", pl.DataFrame({"text_id": texts["text_id"], **columns}))
    write_frame(folder / "missing.parquet", judgement.missing)
    write_frame(folder / "observations.parquet", observations)
    summary = {
        "model": settings.model,
        "prompt_hash": annotator.prompt_hash,
        "calls": judgement.calls,
        "cost_usd": judgement.cost_usd,
        "second judge": second,
        "examples": shown,
        "calibration": calibration,
        "claims": {concept.concept_id: concept.predicate for concept in concepts},
        "observations": observations.height,
        "texts judged": asked.height,
        "probe": probe,
    }
    write_json(folder / "summary.json", summary)
    write_json(folder / "_spending.json", account_summary(account, estimate))
    if judgement.faults:
        write_json(folder / INCOMPLETE, {"answers that asking again may bring": judgement.faults})


def distinct_concepts(records: Sequence[Mapping[str, Any]]) -> list[Concept]:
    """What is asked about the texts; what both halves found is asked once."""
    return [concept_of(found) for found in {r["concept"]["concept_id"]: r["concept"] for r in records}.values()]


def concept_of(record: dict[str, Any]) -> Concept:
    """A concept as it was written down."""
    return Concept(record["predicate"], record["author"], record["definition"], record["details"])
