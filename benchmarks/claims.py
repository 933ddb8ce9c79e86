"""What claims say, read literally: joint fit, agreement with an independent reader, simple rivals, planted truth.

    python benchmarks/claims.py --seeds 3 --table docs/claims_table.md [DATASET ...]

Every dataset runs with its own declaration and the offline defaults on `seeds` splits (`splits.salt`). Rivals learn
from the same clusters and are scored on the same holdout: 20 terms of a lasso on words, k-means topics of text
vectors, LDA topics. One JSON line is written for each cell; a second run goes on after the last.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, arguments, finished, lines, present, result, run_stages, salt, show
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.observations import control_columns, observation_matrix
from hsae_dagster.orchestration.project import Project
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster_tests.reader.annotate import annotate

DATASETS = (
    "movie_reviews",
    "job_adverts",
    "planted",
    "convention_speeches",
    "congress_bills_health",
    "clickbait_headlines",
    "upworthy_significant",
    "clothing_reviews",
    "senate_press_releases",
)
RUNGS = (
    joint_fit.EMBEDDINGS,
    joint_fit.WORDS,
    joint_fit.ALL_NEURONS,
    joint_fit.SELECTED,
    joint_fit.FIRED,
    joint_fit.CONCEPTS,
)
_N = 20
BESIDE = "claims beside controls"


def agreement(project: Project, dataset: str) -> tuple[float, int]:
    """Share of cells of the annotation matrix on which a reader of the printed claims agrees, and how many differ."""
    from hsae_dagster.providers.minilm import MiniLM

    corpus, matrix = result(project, dataset, "corpus"), result(project, dataset, "annotation_matrix")
    claims = matrix.json("summary.json")["claims"]
    answers = read_frame(matrix.file("annotations.parquet"))
    texts = read_frame(corpus.file("texts.parquet"))
    texts = answers.select("text_id").join(texts, on="text_id", how="left", maintain_order="left")["text"].to_list()
    units = (
        read_frame(corpus.file("text_units.parquet"))
        .join(read_frame(corpus.file("units.parquet")), on="unit_id", how="left", maintain_order="left")
        .group_by("text_id", maintain_order=True)
        .agg("unit")
    )
    own = answers.select("text_id").join(units, on="text_id", how="left", maintain_order="left")["unit"].to_list()
    embedder = MiniLM()
    read = annotate(list(claims.values()), texts, own, lambda some: embedder.embed(some))
    same = read == answers.select(list(claims)).to_numpy().astype(bool)
    return float(same.mean()), int((~same).sum())


def rivals(project: Project, dataset: str, task: str) -> dict[str, float]:
    """Fit of 20 terms and of 20 topics of two kinds, learned without the holdout, cross-fitted on it as claims are.

    Where controls are declared, they are taken out of the outcome first, for `claims` as for their rivals: claims hold
    them constant, and simple predictors would be credited with what is due to the controls.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import LatentDirichletAllocation
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import lars_path

    corpus = result(project, dataset, "corpus")
    texts = read_frame(corpus.file("texts.parquet"))
    rows = read_frame(corpus.file("observations.parquet"))
    learn, held_out = rows.filter(pl.col("split") != "holdout"), rows.filter(pl.col("split") == "holdout")
    inside = (texts["split"] != "holdout").to_numpy()
    words = np.array(texts["text"].to_list(), dtype=object)
    counts = CountVectorizer(ngram_range=(1, 2), min_df=5, binary=True).fit(words[inside])
    presence = counts.transform(words).astype(float)
    x = observation_matrix(presence, texts["text_id"], learn)
    y = _beside_controls(learn)
    y = y - y.mean()
    # The first 20 terms of the path among the 300 that go most with the outcome.
    scale = np.sqrt(
        np.maximum(np.asarray(x.multiply(x).mean(axis=0)).ravel() - np.asarray(x.mean(axis=0)).ravel() ** 2, 1e-9)
    )
    strength = np.abs(x.T @ y) / scale
    near = np.argsort(-strength)[:300]
    path = lars_path(x[:, near].toarray() / scale[near], y, method="lasso", max_iter=60)
    taken = [near[j] for j in dict.fromkeys(path[1])][:_N] if len(path[1]) else near[:_N]
    topics = LatentDirichletAllocation(_N, random_state=0, max_iter=5).fit(
        (unigrams := CountVectorizer(min_df=5, stop_words="english").fit(words[inside])).transform(words[inside])
    )
    from hsae_dagster.core.observations import TextUnits
    from hsae_dagster.storage.outputs import StoredEmbeddings

    units = TextUnits.of(read_frame(corpus.file("units.parquet")), read_frame(corpus.file("text_units.parquet")))
    vectors = units.mean(StoredEmbeddings(result(project, dataset, "embeddings")).read(units.unit_ids))
    clusters = KMeans(_N, n_init=3, random_state=0).fit(vectors[inside]).predict(vectors)
    features = {
        "20 terms (lasso)": presence[:, taken].toarray(),
        "20 topics (k-means)": np.eye(_N)[clusters],
        "20 topics (LDA)": topics.transform(unigrams.transform(words)),
    }
    outcome, groups = _beside_controls(held_out), held_out["cluster_id"].to_numpy()
    if control_columns(rows):
        answers = read_frame(result(project, dataset, "annotation_matrix").file("annotations.parquet"))
        read = texts.select("text_id").join(answers, on="text_id", how="left", maintain_order="left").drop("text_id")
        features = {BESIDE: read.fill_null(0).to_numpy().astype(float), **features}
    found = {}
    for name, per_text in features.items():
        unseen = np.asarray(observation_matrix(per_text, texts["text_id"], held_out))
        predicted = joint_fit.cross_fitted(unseen, outcome, groups, task, folds=10, seed=0)
        found[name] = joint_fit.score(task, outcome, predicted.values, predicted.folds)
    return found


def _beside_controls(rows: pl.DataFrame) -> np.ndarray:
    """(n,) the outcome without what the controls say of it."""
    label = rows["label"].to_numpy().astype(np.float64)
    controls = control_columns(rows)
    if not controls:
        return label
    held = np.column_stack([np.ones(len(label)), *controls])
    return np.asarray(label - held @ np.linalg.lstsq(held, label, rcond=None)[0] + label.mean())


def planted_truth(project: Project, dataset: str, data: Path) -> dict[str, dict[str, Any]]:
    """Of each planted property, the claim that goes with it most: φ on the holdout, badge, effect and interval."""
    file = data / dataset / "truth.parquet"
    if not file.is_file():
        return {}
    from hsae_dagster.keys import text_id

    truth = pl.read_parquet(file)
    truth = truth.with_columns(pl.Series("text_id", [text_id(text) for text in truth["text"]])).unique("text_id")
    answers = read_frame(result(project, dataset, "annotation_matrix").file("annotations.parquet"))
    both = answers.join(truth, on="text_id", how="inner")
    tested = {
        row["concept_id"]: row
        for row in read_frame(result(project, dataset, "evaluation_report").file("hypotheses.parquet")).iter_rows(
            named=True
        )
    }
    found = {}
    for name in (column for column in truth.columns if column.startswith("has_")):
        phis = {
            key: float(np.corrcoef(both[key].cast(pl.Float64), both[name].cast(pl.Float64))[0, 1]) for key in tested
        }
        if not phis:
            continue
        best = max(phis, key=lambda key: abs(np.nan_to_num(phis[key])))
        row = tested[best]
        found[name] = {
            "phi": phis[best],
            "claim": row["claim"],
            "badge": row["badge"],
            "effect": [row["adjusted_estimate"], row["adjusted_low"], row["adjusted_high"]],
        }
    return found


def alike(project: Project, dataset: str) -> float:
    """Largest |φ| of two claims on the holdout."""
    frame = read_frame(result(project, dataset, "annotation_matrix").file("annotations.parquet")).drop("text_id")
    if frame.width < 2:
        return 0.0
    together = np.abs(np.nan_to_num(np.corrcoef(frame.cast(pl.Float64).to_numpy().T)))
    return float(together[np.triu_indices(len(together), 1)].max())


def cell(shared: Shared, dataset: str, seed: int, units: str = "auto") -> dict[str, Any]:
    """One dataset on one split, read by sentences where texts have several (`auto`) or whole (`text`)."""
    started, spent = time.perf_counter(), time.process_time()
    changes = {"splits": {"salt": salt(seed), "design": "holdout"}, "inference": {"bootstrap": 0}, "units": units}
    with shared.apart(dataset, changes) as project:
        try:
            run_stages(project, dataset)
        except RuntimeError as error:
            return {"dataset": dataset, "seed": seed, "units": units, "said": str(error)}
        summary = result(project, dataset, "evaluation_report").json("evaluation.json")
        agreed, differ = agreement(project, dataset)
        neurons = read_frame(result(project, dataset, "selected_neurons").file("neurons.parquet"))
        again = neurons.filter(pl.col("other_seeds") > 0)
        trained = result(project, dataset, "sae_checkpoints").json("saes.json")[0]["config"]
        claims = read_frame(result(project, dataset, "evaluation_report").file("hypotheses.parquet"))
        return {
            "dataset": dataset,
            "seed": seed,
            "units": units,
            "distinct units": result(project, dataset, "corpus").json("summary.json")["units"]["distinct"],
            "metric": summary["metric"],
            "fits": {name: summary["fits"].get(name) for name in RUNGS},
            **rivals(project, dataset, summary["task"]),
            "tested": summary["tested"],
            "confirmed": summary["confirmed"],
            "agreement": agreed,
            "differ": differ,
            "most alike": alike(project, dataset),
            "found again": float((again["found_in"] >= 1).mean()) if again.height else None,
            "found in all": float((again["found_in"] == again["other_seeds"]).mean()) if again.height else None,
            "sae": f"{trained['m']}/{trained['k']}",
            "truth": planted_truth(project, dataset, shared.data),
            "claims": claims.select("claim", "effect_estimate", "badge").rows(),
            "cpu": round(time.process_time() - spent, 1),
            "seconds": round(time.perf_counter() - started, 1),
        }


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The cells as a Markdown table, one row for each dataset and split."""
    names = ("20 terms (lasso)", "20 topics (k-means)", "20 topics (LDA)")
    yield (
        "| dataset | split | embeddings | words | all neurons | selected | fired | **claims as read** | 20 terms | "
        "k-means | LDA | confirmed | reader agrees | most alike | neurons found again | m/k | distinct units | CPU s |"
    )
    yield "|---|---|" + "---:|" * 16
    for one in cells:
        if "fits" not in one:
            yield f"| {one['dataset']} | {one['seed'] + 1} | {one['said']} |" + " |" * 15
            continue
        again = one["found again"]
        shown = [
            f"{one['dataset']} ({one['metric']})",
            str(one["seed"] + 1),
            *("" if one["fits"][rung] is None else f"{one['fits'][rung]:.3f}" for rung in RUNGS[:-1]),
            f"{one['fits'][RUNGS[-1]] or 0:.3f}" + (f" ({one[BESIDE]:.3f} beside controls)" if BESIDE in one else ""),
            *(f"{one[name]:.3f}" for name in names),
            f"{one['confirmed']} of {one['tested']}",
            f"{one['agreement']:.2%} ({one['differ']} differ)",
            f"{one['most alike']:.2f}",
            "" if again is None else f"{again:.0%}",
            one["sae"],
            f"{one['distinct units']:,}" + (" (whole texts)" if one["units"] == "text" else ""),
            f"{one['cpu']:.0f}",
        ]
        yield f"| {' | '.join(shown)} |"


def main() -> None:
    parser = arguments(__doc__, "claims")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--units", choices=["auto", "text"], default="auto", help="whole texts, or sentences of several"
    )
    options = parser.parse_args()
    shared = Shared(options.data, options.results)
    for seed in range(options.seeds):
        for dataset in present(shared, options.datasets or DATASETS):
            if (dataset, seed, options.units) not in finished(options.out, "dataset", "seed", "units"):
                append(options.out, cell(shared, dataset, seed, options.units))
                print(f"{dataset}, split {seed + 1}: done", flush=True)
    show(list(table(lines(options.out))), options.table)


if __name__ == "__main__":
    main()
