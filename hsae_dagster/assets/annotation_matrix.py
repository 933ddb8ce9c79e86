"""`annotation_matrix`: every chosen concept judged on every holdout text: yes, no, or missing, never guessed."""

from functools import partial
from typing import Any

import dagster as dg

from hsae_dagster.core.observations import text_sides
from hsae_dagster.orchestration.executors import llm_pool
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained, picture, table
from hsae_dagster.stages.annotation import CODE_VERSION, NAME, Upstream, config_of, judge_holdout
from hsae_dagster.storage.outputs import StoredMatrix


@dg.asset(
    **declared(NAME, CODE_VERSION),
    deps=["corpus", "embeddings", "activations", "interpretations"],
    kinds={"parquet"},
    pool=llm_pool(),
)
def annotation_matrix(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Holdout texts × concepts, nullable booleans, one column per concept id; null is a missing answer."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        upstream = Upstream.current(project.store, stage.dataset)
        found = stage.build(
            StoredMatrix,
            config_of(stage.dataset),
            upstream.outputs,
            lambda folder: judge_holdout(stage, upstream, folder),
        )
        return stage.finish(found, _describe(found), _check(stage, found))


def _describe(found: StoredMatrix) -> dict[str, Any]:
    from hsae_dagster.report.figures import prevalence_bars

    matrix, missing, summary = found.annotations, found.missing, found.summary
    prevalence = [float(matrix[key].mean() or 0.0) for key in matrix.columns[1:]]  # type: ignore[arg-type]
    reasons = missing.group_by("reason").len("answers").sort("answers", "reason", descending=[True, False]).head(20)
    figure = prevalence_bars([summary["claims"][key] for key in matrix.columns[1:]], prevalence)
    distilled: dict[str, Any] = {}
    if summary["probe"]:
        distilled["texts judged by the model"] = f"{summary['texts judged']:,} of {matrix.height:,}"
        distilled["the probe that judged the others"] = table(
            [{"claim": summary["claims"][key], **agreed} for key, agreed in summary["probe"].items()]
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
        "analysis plan": found.plan["fingerprint"],
        **found.spending,
        "prevalence": picture(figure.png, figure.alt),
    }


def _check(stage: Stage, found: StoredMatrix) -> list[dg.AssetCheckResult]:
    matrix, observations = found.annotations, found.observations
    wanted = {key for side in text_sides(observations) for key in observations[side]}
    settings, summary = stage.dataset.spec.annotation, found.summary
    claims, calibration = summary["claims"], summary["calibration"]
    agreed = calibration["agreement"] if calibration else None
    second = summary["second judge"]
    answered = {key: matrix[key].drop_nulls() for key in matrix.columns[1:]}
    constant = [claims[key] for key, found in answered.items() if found.n_unique() < 2]
    given = sum(found.len() for found in answered.values())
    missing = (matrix.height * len(answered) - given) / max(summary["texts judged"] * len(claims), 1)
    few = {"missing share": float(missing), "allowed": settings.max_missing}
    stacked = {**(calibration or {"compared": 0}), "wanted": settings.min_agreement}
    judges = {name: value for name, value in (second or {"compared": 0}).items() if name != "concepts"}
    agree = second is None or (second["kappa"] or 0.0) >= stage.dataset.spec.judge.min_kappa
    complete = set(matrix["text_id"]) == wanted and set(claims) == set(answered)
    result = partial(check_result, NAME)
    return [
        result("every_holdout_text_judged", complete, {"texts": len(wanted)}),
        result("few_missing", missing <= settings.max_missing, few),
        result("stacked_agrees_with_single", agreed is None or agreed >= settings.min_agreement, stacked),
        result("two_judges_agree", agree, judges),
        result("concepts_vary", not constant, {"judged alike on every text": constant}),
    ]
