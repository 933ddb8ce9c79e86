"""`annotation_matrix`: every chosen concept judged on every holdout text: yes, no, or missing, never guessed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster import checks
from hsae_dagster.assets.closeness import UnitCloseness
from hsae_dagster.assets.concepts_to_test import concepts_to_test
from hsae_dagster.assets.holdout_plan import PLAN_FILE, freeze_plan
from hsae_dagster.assets.judging import Judging, agreement, judge_all
from hsae_dagster.assets.spending import account_of, account_summary, announce, estimate_annotation
from hsae_dagster.assets.stage import GROUP, Stage, explained, picture, table
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.cross_fitting import rows_that_test
from hsae_dagster.core.observations import text_sides
from hsae_dagster.dataset.spec import Annotation, DatasetSpec
from hsae_dagster.errors import MethodError
from hsae_dagster.partitions import datasets
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame, write_frame, write_json
from hsae_dagster.storage.objects import INCOMPLETE, StoredObject

NAME = "annotation_matrix"
CODE_VERSION = "3"


@dg.asset(
    name=NAME,
    deps=["corpus", "interpretations"],
    partitions_def=datasets,
    group_name=GROUP,
    kinds={"openai", "parquet"},
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def annotation_matrix(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Holdout texts × concepts, nullable booleans, one column per concept id; null is a missing answer."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        corpus, interpretations = stage.upstream("corpus"), stage.upstream("interpretations")
        stored = stage.build(
            config_of(spec), [corpus, interpretations], lambda folder: _make(stage, corpus, interpretations, folder)
        )
        matrix = read_frame(stored.file("annotations.parquet"))
        return stage.finish(stored, _describe(stored, matrix), _check(stage, stored, matrix))


def config_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of a declaration the stage reads."""
    config = spec.annotation.model_dump(mode="json", exclude={"min_agreement", "max_missing"})
    if spec.hypotheses:
        config["hypotheses"] = [own.model_dump(mode="json", include={"claim", "terms"}) for own in spec.hypotheses]
    return config


def _make(stage: Stage, corpus: StoredObject, interpretations: StoredObject, folder: Path) -> None:
    from hsae_dagster.providers.registry import make_annotator

    settings = stage.dataset.spec.annotation
    records = concepts_to_test(stage.dataset, interpretations)
    if not records:
        raise MethodError(_nothing(stage, interpretations.json("concepts.json")))
    # Before any holdout text is read: what will be asked of it is written down for good.
    plan = freeze_plan(stage, corpus, records)
    write_json(folder / PLAN_FILE, {"fingerprint": plan.fingerprint, "holdout": plan.holdout})
    concepts = distinct_concepts(records)
    observations, texts = holdout_texts(corpus, settings)
    account = account_of(stage)
    annotator = make_annotator(settings, account, closeness=UnitCloseness.of(stage, corpus))
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account)
    estimate = estimate_annotation(annotator, single, concepts, texts["text"].to_list(), settings)
    announce(stage, account, estimate)
    judging = Judging(concepts, texts["text_id"].to_list(), texts["text"].to_list())
    judgement = judge_all(stage, annotator, [judging])[0]
    columns = {
        concept.concept_id: pl.Series(judgement.answers[:, j]).replace_strict({1: True, 0: False}, default=None)
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
        "calibration": agreement(stage, annotator, single, judging, judgement.answers),
        "claims": {concept.concept_id: concept.predicate for concept in concepts},
        "observations": observations.height,
    }
    write_json(folder / "summary.json", summary)
    write_json(folder / "_spending.json", account_summary(account, estimate))
    if judgement.faults:
        write_json(folder / INCOMPLETE, {"answers that asking again may bring": judgement.faults})


def _nothing(stage: Stage, neurons: list[dict[str, Any]]) -> str:
    """Why there is nothing to judge, and what may help."""
    name = f"Dataset `{stage.dataset.name}`: "
    if stage.dataset.spec.interpretation.model == "lexical":
        return (
            f"{name}nothing found. No claim predicts the outcome of clusters that it was not chosen on better than no "
            "claim does, so there is nothing to judge. That is an answer; more clusters may give another."
        )
    if not neurons:
        return (
            f"{name}nothing found. No neuron's association with the outcome holds across the training clusters, so "
            "there is nothing to judge. That is an answer; more clusters may give another, and "
            "`selection: {across_clusters: false}` takes what few clusters say."
        )
    return (
        f"{name}no selected neuron has a readable concept, so there is nothing to judge. "
        "Try smaller autoencoders (`saes`), more candidates, or another interpretation.model."
    )


def distinct_concepts(records: Sequence[Mapping[str, Any]]) -> list[Concept]:
    """What is asked about the texts; what both halves found is asked once."""
    return [concept_of(found) for found in {r["concept"]["concept_id"]: r["concept"] for r in records}.values()]


def holdout_texts(corpus: StoredObject, settings: Annotation) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(observations, texts) of the holdout, or of the declared sample of it; of halves, both test."""
    observations = rows_that_test(read_frame(corpus.file("observations.parquet")))
    observations = _sample_clusters(observations, settings.holdout_sample, settings.seed)
    wanted = pl.concat([observations[side] for side in text_sides(observations)]).unique()
    return observations, read_frame(corpus.file("texts.parquet")).filter(pl.col("text_id").is_in(wanted.to_list()))


def concept_of(record: dict[str, Any]) -> Concept:
    """A concept as it was written down."""
    return Concept(record["predicate"], record["author"], record["definition"], record["details"])


def _sample_clusters(observations: pl.DataFrame, most: int | None, seed: int) -> pl.DataFrame:
    """Whole clusters in random order until the sample is reached; everything when none is asked for."""
    if most is None or observations.height <= most:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    total = np.cumsum(sizes["len"].to_numpy()[order])
    taken = order[: int(np.searchsorted(total, most) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].to_numpy()[taken].tolist()))


def _describe(stored: StoredObject, matrix: pl.DataFrame) -> dict[str, Any]:
    from hsae_dagster.report.figures import prevalence_bars

    summary = stored.json("summary.json")
    prevalence = [float(matrix[key].mean() or 0.0) for key in matrix.columns[1:]]  # type: ignore[arg-type]
    missing = read_frame(stored.file("missing.parquet"))
    reasons = missing.group_by("reason").len("answers").sort("answers", "reason", descending=[True, False]).head(20)
    figure = prevalence_bars([summary["claims"][key] for key in matrix.columns[1:]], prevalence)
    return {
        "dagster/row_count": matrix.height,
        "concepts": matrix.width - 1,
        "holdout observations": summary["observations"],
        "missing answers": missing.height,
        "why missing": table(reasons.rows(named=True)),
        "annotator": summary["model"],
        "agreement of stacked and single answers": (summary["calibration"] or {}).get("agreement") or "not measured",
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
    missing = sum(matrix[key].null_count() for key in matrix.columns[1:]) / max(matrix.height * len(claims), 1)
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
    ]
