"""How often shuffled labels confirm anything: the whole pipeline on copies of a dataset whose labels mean nothing.

    python benchmarks/permuted_labels.py movie_reviews --count 20 --saes '[{"m": 64, "k": 16, "label_weight": 0.1}]'

Labels are dealt anew to rows, holdout included; then everything that reads labels runs as ever: training guided by the
label, selection, wording, judging, tests. Texts do not change, so embeddings and unguided autoencoders are reused. What
decides nothing is left out: reports, the ladder, bootstraps. The family is that of one look at a holdout never used.
With alpha at 0.05 about one permutation in twenty may confirm something by chance; a leak of labels confirms in most.

One JSON line is written for each permutation; a second run goes on after the last. Run it with the project's Python.
"""

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, finished, lines, permuted, result, run_stages
from hsae_dagster.assets.concepts_to_test import chosen_concepts
from hsae_dagster.core.badges import verdict
from hsae_dagster.core.inference import benjamini_hochberg, holm, reversed_by_controls, test_hypotheses
from hsae_dagster.core.observations import holdout_design
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.resources import Project
from hsae_dagster.storage.frames import read_frame

NO_LADDER = {"fits": [], "floor": [None, None], "why": "left out"}


def verdicts(project: Project, dataset: str) -> list[dict[str, Any]]:
    """What `evaluation_report` would decide about each hypothesis at the first look, without the report."""
    spec = load_dataset(project.data, dataset).spec
    records = chosen_concepts(result(project, dataset, "interpretations"))
    matrix = result(project, dataset, "annotation_matrix")
    annotations = read_frame(matrix.file("annotations.parquet"))
    texts = read_frame(result(project, dataset, "corpus").file("texts.parquet"))
    judged = annotations.select("text_id").join(texts, on="text_id", how="left", maintain_order="left")
    columns = [record["concept"]["concept_id"] for record in records]
    answers = annotations.select(columns).to_numpy().astype(np.float64)
    design = holdout_design(
        np.nan_to_num(answers, nan=-1.0).astype(np.int8),
        judged["text_id"],
        judged["n_words"].to_numpy(),
        read_frame(matrix.file("observations.parquet")),
        spec.task,
    )
    tests = test_hypotheses(design, min_positives=spec.inference.min_positives)
    p_values = np.array([test.separation.p_value for test in tests])
    p_holm, q_values = holm(p_values), benjamini_hochberg(p_values)
    found = []
    for record, test, p, q in zip(records, tests, p_holm, q_values, strict=True):
        decided = verdict(
            p_holm=float(p),
            q_value=float(q),
            alpha=spec.inference.alpha,
            estimate=test.separation.estimate,
            expected_sign=record["train_separation"],
            untestable=None if np.isfinite(test.separation.p_value) else "not testable",
            reversed_by_controls=reversed_by_controls(test.separation, test.adjusted),
        )
        found.append({"badge": decided.badge, "p": float(test.separation.p_value)})
    return found


def permutation(shared: Shared, dataset: str, seed: int, saes: Any) -> dict[str, Any]:
    """One permutation from selection and guidance to verdicts."""
    changes: dict[str, Any] = {"inference": {"bootstrap": 0}} | ({"saes": saes} if saes is not None else {})
    started = time.perf_counter()
    with (
        shared.apart(dataset, changes, partial(permuted, rng=np.random.default_rng(seed))) as project,
        mock.patch("hsae_dagster.assets.selected_neurons.validation_ladder", lambda *_: NO_LADDER),
    ):
        run_stages(project, dataset, upto="interpretations")
        readable = len(chosen_concepts(result(project, dataset, "interpretations")))
        decided = []
        if readable:  # with no claim nothing can be confirmed, and judging says so by failing
            run_stages(project, dataset, upto="annotation_matrix")
            decided = verdicts(project, dataset)
        trained = [record["config"] for record in result(project, dataset, "sae_checkpoints").json("saes.json")]
    return {
        "dataset": dataset,
        "seed": seed,
        "saes": [{key: config.get(key, 0) for key in ("m", "k", "label_weight")} for config in trained],
        "declared": json.dumps(saes),
        "tested": len(decided),
        "confirmed": sum(one["badge"] == "confirmed" for one in decided),
        "least p": min((one["p"] for one in decided if np.isfinite(one["p"])), default=None),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("datasets", nargs="+")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--results", type=Path, default=Path("results"), help="project whose embeddings are reused")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--saes", type=json.loads, help="in place of what dataset.yaml declares, as JSON")
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/permuted_labels.jsonl"))
    options = parser.parse_args()
    shared = Shared(options.data, options.results)
    declared = json.dumps(options.saes)
    for seed in range(options.count):
        for dataset in options.datasets:
            if (dataset, seed, declared) not in finished(options.out, "dataset", "seed", "declared"):
                append(options.out, permutation(shared, dataset, seed, options.saes))
    for dataset in options.datasets:
        mine = [x for x in lines(options.out) if x["dataset"] == dataset and x["declared"] == declared]
        some = sum(x["confirmed"] > 0 for x in mine)
        tested = sum(x["tested"] for x in mine)
        print(f"{dataset}: {some} of {len(mine)} permutations confirmed anything ({tested} hypotheses tested)")


if __name__ == "__main__":
    main()
