"""How often shuffled labels confirm anything: the whole pipeline on copies of a dataset whose labels mean nothing.

    python benchmarks/permuted_labels.py movie_reviews --count 20 --saes '[{"m": 64, "k": 16, "label_weight": 0.1}]'

Labels are dealt anew, holdout included, to whole clusters of the first column of `cluster_by` (a label that belongs
to a cluster still does; others are dealt in blocks of whole clusters; pairs are turned by cluster). Then everything
that reads labels runs as ever: training guided by the label, selection, wording, judging, tests. Texts do not change,
so embeddings and unguided autoencoders are reused. What decides nothing is left out: the ladder, negative controls,
bootstraps. The family is that of one look at a holdout never used.
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
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, finished, lines, permuted, result, run_stages
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.orchestration.project import Project
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.outputs import StoredInterpretations

NO_FITS = ((Fit("concepts", "R2", 0.0, 0.0, 0.0, "left out"),), (0.0, 0.0))


def verdicts(project: Project, dataset: str) -> list[dict[str, Any]]:
    """What `evaluation_report` decided about each hypothesis at the first look."""
    found = read_frame(result(project, dataset, "evaluation_report").file("hypotheses.parquet"))
    return found.select("badge", p=pl.col("effect_p_value")).to_dicts()


def permutation(shared: Shared, dataset: str, seed: int, saes: Any) -> dict[str, Any]:
    """One permutation from selection and guidance to verdicts."""
    changes: dict[str, Any] = {"inference": {"bootstrap": 0, "negative_controls": 0}}
    changes |= {"saes": saes} if saes is not None else {}
    started = time.perf_counter()
    spec = load_dataset(shared.data, dataset).spec
    dealt = partial(
        permuted, rng=np.random.default_rng(seed), cluster=next(iter(spec.columns.clusters), None), task=spec.task
    )
    with (
        shared.apart(dataset, changes, dealt) as project,
        mock.patch("hsae_dagster.stages.evaluation._fits", lambda *_: NO_FITS),
    ):
        run_stages(project, dataset, upto="interpretations")
        readable = len(StoredInterpretations(result(project, dataset, "interpretations")).distinct)
        decided = []
        if readable:  # with no claim nothing can be confirmed, and judging says so by failing
            run_stages(project, dataset)
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
