"""Where the signal is lost: the ladder of every dataset for two ways of sizing autoencoders.

    python benchmarks/signal_kept.py --seeds 3 --table docs/signal_table.md

Arms: (a) the size that HypotheSAEs recommends (for pairs the two it used for its headlines); (b) the size with which
most can be said on validation clusters. Everything else is what each dataset declares. The arms of a seed share their
split. Seeds differ in the split (`splits.salt`, so other films, speakers, senators and tests are held out) and in the
random streams of (b).

One JSON line is written for each cell; a second run goes on after the last. Run it with the project's Python.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, arguments, finished, lines, present, result, run_stages, show
from hsae_dagster.core.concepts.fidelity import column
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.inference import joint_fit as ladder
from hsae_dagster.core.observations import observation_matrix
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.orchestration.project import Project
from hsae_dagster.stages.units import text_vectors
from hsae_dagster.storage.artifacts import read_codes, read_frame
from hsae_dagster.storage.outputs import StoredCorpus, StoredEmbeddings
from hsae_dagster.storage.vectors import VectorTable

DATASETS = (
    "movie_reviews",
    "convention_speeches",
    "movie_pairs",
    "upworthy_significant",
    "upworthy_headlines",
    "clothing_reviews",
    "senate_press_releases",
)
ARMS = {"b": "auto", "a": "reference"}
# What HypotheSAEs used for its Headlines pairs.
HEADLINES = [{"m": 256, "k": 8}, {"m": 32, "k": 4}]
ENDS = ("value", "low", "high")
COUNTS = ("significant", "confirmed")
CEILING = "ceiling of training texts"
RUNGS = (*ladder.RUNGS[:1], ladder.WORDS, *ladder.RUNGS[1:])


def declared(arm: str, task: str, seed: int) -> Any:
    """`saes` of an arm."""
    if arm == "a":
        return HEADLINES if task == "pairwise" else "reference"
    return {"auto": {"seed": seed}}


def salt(seed: int) -> str:
    """The split of a seed; the first is the default of every dataset."""
    return "hsae" if seed == 0 else f"hsae-{seed + 1}"


def measure(project: Project, dataset: str) -> dict[str, Any]:
    """Everything the table needs from a finished run."""
    report, activations = result(project, dataset, "evaluation_report"), result(project, dataset, "activations")
    summary = report.json("evaluation.json")
    frame = read_frame(report.file("hypotheses.parquet"))
    fits = {row["name"]: row for row in read_frame(report.file("fits.parquet")).iter_rows(named=True)}
    neurons = read_frame(result(project, dataset, "selected_neurons").file("neurons.parquet"))
    texts = read_frame(result(project, dataset, "corpus").file("texts.parquet"))
    train = (texts["split"] == "train").to_numpy()
    codes = read_codes(activations.file("codes.safetensors"))[train].tocsc()
    dense = np.column_stack([column(codes, j) for j in neurons["column"]])
    together = np.abs(np.corrcoef(dense.T))
    trained = [record["config"] for record in result(project, dataset, "sae_checkpoints").json("saes.json")]
    records = result(project, dataset, "interpretations").json("concepts.json")
    said = [record["fidelity"]["correlation"] for record in records if record["concept"] and record["fidelity"]]
    return {
        "metric": summary["metric"],
        "fits": {name: [_known(fits[name][end]) for end in ENDS] for name in RUNGS if name in fits},
        "floor": summary["floor"],
        "saes": [{key: config.get(key, 0) for key in ("m", "k", "label_weight")} for config in trained],
        "selected": neurons.height,
        "tested": summary["tested"],
        "confirmed": summary["confirmed"],
        "significant": frame.filter(pl.col("p_holm") < 0.05).height,
        "claim and neuron": float(np.median(said)) if said else None,
        "correlation": float(together[np.triu_indices(len(together), 1)].mean()) if len(together) > 1 else None,
    }


def _known(value: float) -> float | None:
    """JSON knows no NaN, which an interval without draws has."""
    return value if np.isfinite(value) else None


def cell(
    shared: Shared, dataset: str, arm: str, seed: int, bootstrap: int, splits: Mapping[str, Any]
) -> dict[str, Any]:
    """One dataset, arm and seed; `splits` in place of what the dataset declares."""
    task = load_dataset(shared.data, dataset).spec.task
    changes = {
        "saes": declared(arm, task, seed),
        "splits": splits,
        "inference": {"bootstrap": bootstrap},
    }
    started = time.perf_counter()
    with shared.apart(dataset, changes) as project:
        run_stages(project, dataset)
        found = measure(project, dataset)
    return {"dataset": dataset, "arm": arm, "seed": seed, **found, "seconds": round(time.perf_counter() - started, 1)}


def training_ceiling(shared: Shared, dataset: str, seed: int, splits: Mapping[str, Any]) -> dict[str, Any]:
    """The ceiling of whoever may learn from training clusters alone, as an autoencoder does, scored on the holdout.

    The ladder's ceiling also learns from validation and fidelity clusters, a fifth of all clusters more.
    """
    with shared.apart(dataset, {"splits": splits}) as project:
        run_stages(project, dataset, upto="embeddings")
        corpus = StoredCorpus(result(project, dataset, "corpus"))
        ids, rows = corpus.texts["text_id"], corpus.observations
        family = StoredEmbeddings(result(project, dataset, "embeddings")).family
        vectors = text_vectors(VectorTable(project.results, dataset, family), corpus.places, ids)
        learn, held_out = (rows.filter(pl.col("split") == split) for split in ("train", "holdout"))
        x, unseen = (observation_matrix(vectors, ids, part) for part in (learn, held_out))
        task = load_dataset(shared.data, dataset).spec.task
        predicted = joint_fit.trained(x, learn["label"].to_numpy(), learn["cluster_id"].to_numpy(), unseen, task)
        value = joint_fit.score(task, held_out["label"].to_numpy(), predicted.values)
    return {"dataset": dataset, "arm": CEILING, "seed": seed, "value": value}


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The cells as a Markdown table, means over seeds, with the number of seeds."""
    yield (
        "| dataset | arm | m/k, λ | ceiling | all neurons | selected | fired or not | concepts | floor | selected keep "
        "| of what training texts allow | Holm < .05 | confirmed | r of claim and neuron | mean \\|r\\| | seeds |"
    )
    yield "|---|---|---|" + "---:|" * 12 + "---|"
    ceilings = {(one["dataset"], one["seed"]): one["value"] for one in cells if one["arm"] == CEILING}
    for dataset in DATASETS:
        for arm in sorted(ARMS):
            mine = sorted((x for x in cells if (x["dataset"], x["arm"]) == (dataset, arm)), key=lambda x: x["seed"])
            if mine:
                yield _row(dataset, arm, mine, [ceilings.get((dataset, one["seed"])) for one in mine])


def _row(dataset: str, arm: str, mine: list[dict[str, Any]], allowed: list[float | None]) -> str:
    chance = 0.5 if mine[0]["metric"] == "AUC" else 0.0
    selected = [one["fits"][ladder.SELECTED][0] - chance for one in mine]
    kept = _mean([x / (one["fits"][ladder.EMBEDDINGS][0] - chance) for x, one in zip(selected, mine, strict=True)])
    of_allowed = _mean([x / (most - chance) if most else None for x, most in zip(selected, allowed, strict=True)])
    figures = [_mean([one["fits"].get(name, [None])[0] for one in mine]) for name in ladder.RUNGS]
    cells = [
        f"{dataset} ({mine[0]['metric'].replace('R2', 'R²')})",
        f"({arm}) {ARMS[arm]}",
        "; ".join(dict.fromkeys(sizes(one["saes"]) for one in mine)),
        *(f"{value:.3f}" for value in [*figures, _mean([one["floor"][0] for one in mine])]),
        f"{100 * kept:.0f} %",
        f"{100 * of_allowed:.0f} %" if of_allowed == of_allowed else "not measured",
        *(f"{_mean([one[key] for one in mine]):.3g} of {_mean([one['tested'] for one in mine]):.3g}" for key in COUNTS),
        f"{_mean([one['claim and neuron'] for one in mine]):.2f}",
        f"{_mean([one['correlation'] for one in mine]):.3f}",
        str(len(mine)),
    ]
    return f"| {' | '.join(cells)} |"


def _mean(values: Sequence[float | None]) -> float:
    """Mean of what was measured; NaN of nothing."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")


def sizes(saes: list[dict[str, Any]]) -> str:
    """Autoencoders as m/k, and the label weight of guided ones."""
    return " + ".join(
        f"{one['m']}/{one['k']}" + (f", {one['label_weight']:g}" if one["label_weight"] else "") for one in saes
    )


def main() -> None:
    parser = arguments(__doc__, "signal_kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument(
        "--shares", type=json.loads, default={}, help='of the splits, such as {"holdout": 0.15}; needs its own --out'
    )
    options = parser.parse_args()
    shared = Shared(options.data, options.results)
    datasets = present(shared, options.datasets or DATASETS)
    for seed in range(options.seeds):
        splits = {"salt": salt(seed), **options.shares}
        for dataset in datasets:
            if (dataset, CEILING, seed) not in finished(options.out, "dataset", "arm", "seed"):
                append(options.out, training_ceiling(shared, dataset, seed, splits))
            for arm in options.arms:
                if (dataset, arm, seed) not in finished(options.out, "dataset", "arm", "seed"):
                    append(options.out, cell(shared, dataset, arm, seed, options.bootstrap, splits))
                    print(f"{dataset}, arm {arm}, seed {seed}: done", flush=True)
    show(list(table(lines(options.out))), options.table)


if __name__ == "__main__":
    main()
