"""`interpretations`: candidate concepts per neuron, scored on texts their author never saw, the best one chosen.

A language model sees training texts only: those it writes from, and those that show what an earlier phrase got wrong.
Its phrase is chosen on validation texts; the reported precision and recall come from a third set.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.orchestration.executors import llm_pool
from hsae_dagster.orchestration.project import Project
from hsae_dagster.orchestration.stage import Stage, check_result, declared, explained, table
from hsae_dagster.stages.interpretation import CODE_VERSION, NAME, config_of, find, write
from hsae_dagster.storage.outputs import StoredActivations, StoredCorpus, StoredInterpretations, StoredSelection


@dg.asset(
    **declared(NAME, CODE_VERSION),
    deps=["corpus", "embeddings", "activations", "selected_neurons"],
    kinds={"scikitlearn"},
    pool=llm_pool(),
)
def interpretations(context: dg.AssetExecutionContext, project: Project) -> dg.MaterializeResult:
    """Concepts written from training texts, chosen on validation texts, their fidelity reported on others."""
    with explained():
        stage = Stage.open(context, project, NAME, CODE_VERSION)
        spec = stage.dataset.spec
        corpus, activations = stage.upstream(StoredCorpus), stage.upstream(StoredActivations)
        upstream = (corpus, activations, stage.upstream(StoredSelection))
        make = find if spec.interpretation.model == "lexical" else write
        found = stage.build(
            StoredInterpretations, config_of(spec), upstream, lambda folder: make(stage, upstream, folder)
        )
        stage.report(f"{len(found.readable)} claims to test")
        return stage.finish(found, {**_describe(found), **found.spending}, _check(found))


def _describe(found: StoredInterpretations) -> dict[str, Any]:
    rows = [
        {
            "place": c.rank + 1,
            **({"found in": f"half {c.half.upper()}"} if c.half else {}),
            "claim": c.claim if c.concept else c.unreadable,
            "made from": c.made_from or "neuron",
            "precision": round(c.fidelity.natural_precision, 3) if c.fidelity else None,
            "recall": round(c.fidelity.natural_recall, 3) if c.fidelity else None,
            "r": round(c.fidelity.correlation, 3) if c.fidelity else None,
        }
        for c in found.concepts
    ]
    metadata: dict[str, Any] = {
        "dagster/row_count": len(found.readable),
        "claims": table(rows),
        "neurons without a claim": len(found.concepts) - len(found.readable),
    }
    if candidates := _candidate_rows(found.concepts):
        metadata["candidates"] = table(candidates)
    return metadata


def _candidate_rows(concepts: Sequence[FoundConcept]) -> list[dict[str, Any]]:
    """Every candidate beside the score it was chosen or passed over for."""
    return [
        {
            "place": each.rank + 1,
            "candidate": phrase.predicate,
            "revised": "revises" in phrase.details,
            "validation F1": round(on_validation.f1, 3),
            "natural F1": round(on_validation.natural_f1, 3),
            "chosen": place == each.chosen,
        }
        for each in concepts
        for place, (phrase, on_validation) in enumerate(each.candidates)
    ]


def _check(found: StoredInterpretations) -> list[dg.AssetCheckResult]:
    seen = {name: set(ids) for name, ids in found.seen.items()}
    overlap = len(seen["fidelity"] & (seen["train"] | seen["validation"])) + len(seen["train"] & seen["validation"])
    n_readable, n_all = len(found.readable), len(found.concepts)
    return [
        check_result(NAME, "unseen_texts_only", overlap == 0, {"texts in two roles": overlap}),
        check_result(NAME, "most_neurons_are_readable", 2 * n_readable >= n_all, {"readable": n_readable}),
    ]
