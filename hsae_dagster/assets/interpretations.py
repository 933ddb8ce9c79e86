"""`interpretations`: candidate concepts per neuron, scored on texts their author never saw, the best one chosen.

A language model sees training texts only: those it writes from, and those that show what an earlier phrase got wrong.
Its phrase is chosen on validation texts; the reported precision and recall come from a third set.
"""

from typing import Any

import dagster as dg

from hsae_dagster.orchestration import checks
from hsae_dagster.orchestration.executors import llm_pool
from hsae_dagster.orchestration.project import Project, datasets
from hsae_dagster.orchestration.stage import Stage, explained, table
from hsae_dagster.stages.interpretation import CODE_VERSION, NAME, config_of, find, write
from hsae_dagster.storage.objects import StoredObject


@dg.asset(
    name=NAME,
    deps=["corpus", "embeddings", "activations", "selected_neurons"],
    partitions_def=datasets,
    kinds={"scikitlearn"},
    pool=llm_pool(),
    code_version=CODE_VERSION,
    check_specs=checks.specs(NAME),
)
def interpretations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Concepts written from training texts, chosen on validation texts, their fidelity reported on others."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        upstream = [stage.upstream(name) for name in ("corpus", "activations", "selected_neurons")]
        make = find if spec.interpretation.model == "lexical" else write
        stored = stage.build(config_of(spec), upstream, lambda folder: make(stage, upstream, folder))
        records = stored.json("concepts.json")
        readable = [record for record in records if record["concept"]]
        stage.report(f"{len(readable)} claims to test")
        described = {**_describe(records), **stored.json("_spending.json")}
        return stage.finish(stored, described, _check(stored, records))


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
        "neurons without a claim": sum(r["concept"] is None for r in records),
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
            "revised": "revises" in candidate["details"],
            "validation F1": round(candidate["validation"]["f1"], 3),
            "natural F1": round(candidate["validation"]["natural_f1"], 3),
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
