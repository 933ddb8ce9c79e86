"""The analysis plan of a dataset, and the looks at its holdout.

Belongs here: making the plan from what is declared and proposed, freezing it, and opening a look. Does not belong here:
what a plan means (`core.analysis_plan`) or its files (`storage.holdouts`).
"""

from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.rounds import level_of
from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.analysis_plan import (
    AnalysisPlan,
    Look,
    PlannedTest,
    holdout_fingerprint,
    holdout_keys,
)
from hsae_dagster.core.cross_fitting import alpha_shares, rows_that_test, seen_from
from hsae_dagster.core.multiple_tests import training_weights
from hsae_dagster.dataset.spec import Annotation
from hsae_dagster.storage.frames import read_frame
from hsae_dagster.storage.holdouts import HoldoutRegister
from hsae_dagster.storage.objects import StoredObject

PLAN_FILE = "_plan.json"


def freeze_plan(stage: Stage, corpus: StoredObject, records: list[dict[str, Any]]) -> AnalysisPlan:
    """Write down what the holdout will be asked, before anything judges its texts.

    Args:
        stage: of the dataset.
        corpus: its corpus.
        records: of the concepts to test, in rank order.
    """
    plan, keys = _plan(stage, corpus, records)
    HoldoutRegister(stage.project.results).freeze(plan, keys)
    return plan


def open_look(
    stage: Stage, corpus: StoredObject, records: list[dict[str, Any]], matrix: StoredObject
) -> tuple[AnalysisPlan, Look]:
    """Count the evaluation that is about to be made, and learn what earlier looks tested."""
    plan = freeze_plan(stage, corpus, records)
    judged_under = matrix.json(PLAN_FILE)["fingerprint"] if matrix.file(PLAN_FILE).is_file() else None
    look = HoldoutRegister(stage.project.results).look(plan, dataset=stage.dataset.name, judged_under=judged_under)
    if look.number > 1:
        stage.report(f"look {look.number} at this holdout: what earlier looks tested counts into the family")
    return plan, look


def keep_look(stage: Stage, plan: AnalysisPlan, stored: StoredObject) -> None:
    """Record the p-values of a look, for the family of later ones."""
    frame = read_frame(stored.file("hypotheses.parquet"))
    twins = frame.filter(pl.col("twin_test_key") != "")
    p_values = dict(frame.select("test_key", "p_one_sided").iter_rows())
    p_values |= dict(twins.select("twin_test_key", "twin_p_one_sided").iter_rows())
    HoldoutRegister(stage.project.results).keep(plan, p_values)


def _plan(stage: Stage, corpus: StoredObject, records: list[dict[str, Any]]) -> tuple[AnalysisPlan, pl.DataFrame]:
    spec = stage.dataset.spec
    observations = read_frame(corpus.file("observations.parquet"))
    keys = holdout_keys(
        rows_that_test(observations), read_frame(corpus.file("texts.parquet")).select("text_id", "text")
    )
    halves = "half" in observations.columns
    round_ = corpus.json("summary.json")["round"]
    level = level_of(stage.project.results, stage.dataset, round_)
    weights = _weights(stage, observations, records, level)
    tests = tuple(
        PlannedTest(
            concept_id=record["concept"]["concept_id"],
            claim=record["concept"]["predicate"],
            source=record.get("source", "found"),
            direction=int(np.sign(record["train_separation"])),
            weight=weight,
            half=record["half"],
        )
        for record, weight in zip(records, weights, strict=True)
    )
    plan = AnalysisPlan(
        holdout=holdout_fingerprint(keys),
        tests=tests,
        annotation={
            **spec.annotation.model_dump(
                mode="json", include={"model", "holdout_sample", "concepts_per_call", "max_words", "seed"}
            ),
            **({"distil": spec.annotation.distil.sample} if spec.annotation.distil else {}),
            "prompt": _prompt_hash(spec.annotation),
        },
        model={
            "task": spec.task,
            "effect": "separation, cluster-robust",
            "test": spec.inference.test,
            **({"design": "two halves"} if halves else {}),
            **spec.columns.model_dump(mode="json", include={"label", "positive", "cluster_by", "controls"}),
        },
        gates={
            **spec.inference.model_dump(mode="json", include={"alpha", "min_positives", "same_concept"}),
            "round": round_,
            "level": level,
        },
    )
    return plan, keys


def shares_of(stage: Stage, *, halves: bool) -> dict[str, float]:
    """Share of the report's level of the claims found in each half, and of the user's own."""
    spec = stage.dataset.spec
    return alpha_shares(halves=halves, own=len(spec.hypotheses), wanted=2 * spec.selection.n)


def _weights(stage: Stage, observations: pl.DataFrame, records: list[dict[str, Any]], level: float) -> list[float]:
    """Weights of Holm's correction by what training texts showed, to three decimals; 1 where they showed nothing."""
    z = np.array([record.get("train_z", np.nan) for record in records], dtype=np.float64)
    weights = np.ones(len(records))
    for half, share in shares_of(stage, halves="half" in observations.columns).items():
        own = np.array([record["half"] == half for record in records], dtype=bool)
        learned = seen_from(half, observations) if half else observations
        n_train = int((learned["split"] == "train").sum())
        ratio = float(np.sqrt(rows_that_test(observations, half).height / max(n_train, 1)))
        weights[own] = training_weights(z[own], ratio, share * level)
    return [round(float(weight), 3) for weight in weights]


def _prompt_hash(annotation: Annotation) -> str | None:
    """Hash of the prompt that judges, where a prompt does."""
    from hsae_dagster.providers.registry import make_annotator

    return make_annotator(annotation, asks=False).prompt_hash
