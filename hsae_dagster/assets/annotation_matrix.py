"""`annotation_matrix`: every chosen concept judged on every holdout text: yes, no, or missing, never guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from hsae_dagster import checks
from hsae_dagster.assets import distilling
from hsae_dagster.assets.closeness import UnitCloseness
from hsae_dagster.assets.concepts_to_test import concepts_to_test, holdout_texts
from hsae_dagster.assets.gold import check_gold, gold_offer
from hsae_dagster.assets.holdout_plan import PLAN_FILE, freeze_plan
from hsae_dagster.assets.judging import Judging, agreement, judge_all, second_opinion
from hsae_dagster.assets.spending import account_of, account_summary, announce, estimate_annotation
from hsae_dagster.assets.stage import Stage, explained, picture, table
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.observations import text_sides
from hsae_dagster.dataset.spec import DatasetSpec
from hsae_dagster.dataset.spec_server import MANNER
from hsae_dagster.errors import MethodError
from hsae_dagster.op_tags import llm_pool
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame, write_frame, write_json
from hsae_dagster.storage.objects import INCOMPLETE, StoredObject

NAME = "annotation_matrix"
CODE_VERSION = "5"


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "activations", "interpretations"],
    partitions_def=datasets,
    kinds={"parquet"},
    pool=llm_pool(),
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def annotation_matrix(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Holdout texts × concepts, nullable booleans, one column per concept id; null is a missing answer."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        upstream = {name: stage.upstream(name) for name in upstream_of(spec)}
        stored = stage.build(config_of(spec), list(upstream.values()), lambda folder: _make(stage, upstream, folder))
        matrix = read_frame(stored.file("annotations.parquet"))
        return stage.finish(stored, _describe(stored, matrix), _check(stage, stored, matrix))


def config_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of a declaration the stage reads."""
    config = spec.annotation.model_dump(mode="json", exclude={"min_agreement": True, "max_missing": True, **MANNER})
    if spec.judge.second is not None:
        config["judge"] = spec.judge.model_dump(mode="json", include={"second", "second_texts"})
        config["judge"]["url"] = spec.judge.second_server.url
    if spec.hypotheses:
        config["hypotheses"] = [own.model_dump(mode="json", include={"claim", "terms"}) for own in spec.hypotheses]
    return config


def upstream_of(spec: DatasetSpec) -> tuple[str, ...]:
    """Stages whose results the stage reads."""
    return ("corpus", "interpretations", *(distilling.READ if spec.annotation.distil else ()))


def _make(stage: Stage, upstream: dict[str, StoredObject], folder: Path) -> None:
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
    firing = distilling.firing_of(upstream["activations"], records, texts) if settings.distil else None
    sample = distilling.texts_to_ask(stage.dataset, texts, firing)
    asked = texts[sample.rows]
    account = account_of(stage)
    annotator = make_annotator(settings, account, closeness=UnitCloseness.of(stage, corpus))
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account)
    estimate = estimate_annotation(annotator, single, concepts, asked["text"].to_list(), stage.dataset.spec)
    if asked.height < texts.height:
        stage.report(distilling.in_words(asked.height, texts.height))
    announce(stage, account, estimate)
    if offer := gold_offer(stage.dataset):
        stage.report(offer)
    judging = Judging(concepts, asked["text_id"].to_list(), asked["text"].to_list())
    judgement = judge_all(stage, annotator, [judging])[0]
    calibration = agreement(stage, annotator, single, judging, judgement.answers)
    second = second_opinion(stage, account, judging, judgement.answers)
    answers, probe = judgement.answers, None
    if firing is not None:
        answers, table = distilling.label_the_rest(
            stage.project, stage.dataset, upstream, records, texts, sample, firing, answers
        )
        write_frame(folder / distilling.FILE, table)
        probe = distilling.agreement_of_probe(table, answers, [concept.concept_id for concept in concepts])
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


def _describe(stored: StoredObject, matrix: pl.DataFrame) -> dict[str, Any]:
    from hsae_dagster.report.figures import prevalence_bars

    summary = stored.json("summary.json")
    prevalence = [float(matrix[key].mean() or 0.0) for key in matrix.columns[1:]]  # type: ignore[arg-type]
    missing = read_frame(stored.file("missing.parquet"))
    reasons = missing.group_by("reason").len("answers").sort("answers", "reason", descending=[True, False]).head(20)
    figure = prevalence_bars([summary["claims"][key] for key in matrix.columns[1:]], prevalence)
    distilled: dict[str, Any] = {}
    if summary["probe"]:
        distilled["texts judged by the model"] = f"{summary['texts judged']:,} of {matrix.height:,}"
        distilled["the probe that judged the others"] = table(
            [{"claim": summary["claims"][key], **found} for key, found in summary["probe"].items()]
        )
    return {
        "dagster/row_count": matrix.height,
        **distilled,
        "concepts": matrix.width - 1,
        "holdout observations": summary["observations"],
        "missing answers": missing.height,
        "why missing": table(reasons.rows(named=True)),
        "annotator": summary["model"],
        "agreement of stacked and single answers": (summary["calibration"] or {}).get("agreement") or "not measured",
        "κ of two judges": (summary["second judge"] or {}).get("kappa") or "not measured",
        "analysis plan": stored.json(PLAN_FILE)["fingerprint"],
        **stored.json("_spending.json"),
        "prevalence": picture(figure.png, figure.alt),
    }


def _check(stage: Stage, stored: StoredObject, matrix: pl.DataFrame) -> list[dg.AssetCheckResult]:
    observations = read_frame(stored.file("observations.parquet"))
    wanted = {key for side in text_sides(observations) for key in observations[side]}
    settings, summary = stage.dataset.spec.annotation, stored.json("summary.json")
    claims, calibration = summary["claims"], summary["calibration"]
    agreed = calibration["agreement"] if calibration else None
    complete = set(matrix["text_id"]) == wanted and matrix.columns[1:] == list(dict.fromkeys(matrix.columns[1:]))
    second = summary["second judge"]
    constant = [
        claims[key] for key in matrix.columns[1:] if matrix[key].n_unique() - (matrix[key].null_count() > 0) < 2
    ]
    missing = sum(matrix[key].null_count() for key in matrix.columns[1:]) / max(
        summary["texts judged"] * len(claims), 1
    )
    return [
        checks.result(
            NAME,
            "every_holdout_text_judged",
            complete and set(claims) == set(matrix.columns[1:]),
            {"texts": len(wanted)},
        ),
        checks.result(
            NAME,
            "few_missing",
            missing <= settings.max_missing,
            {"missing share": float(missing), "allowed": settings.max_missing},
        ),
        checks.result(
            NAME,
            "stacked_agrees_with_single",
            agreed is None or agreed >= settings.min_agreement,
            {**(calibration or {"compared": 0}), "wanted": settings.min_agreement},
        ),
        checks.result(
            NAME,
            "two_judges_agree",
            second is None or (second["kappa"] or 0.0) >= stage.dataset.spec.judge.min_kappa,
            {name: value for name, value in (second or {"compared": 0}).items() if name != "concepts"},
        ),
        checks.result(NAME, "concepts_vary", not constant, {"judged alike on every text": constant}),
    ]
