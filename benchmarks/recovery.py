"""How many known topics are found again: labels that are unions of a few topics, for our choices and the reference's.

    python benchmarks/recovery.py --draws 3 --table docs/recovery_table.md

A draw picks some of a dataset's hand-coded topics; the label of a text is 1 if it belongs to any of them. The pipeline
sees texts and labels, never topics. Recovery is then measured on held-out texts, as in the synthetic tasks of
HypotheSAEs (arXiv 2502.04382): what was found is matched one to one to the drawn topics so that the sum of F1 is
largest, F1 being between "judged to have the concept" (or "fires the neuron") and "belongs to the topic". From all
neurons by way of the selected ones to the concepts one sees where topics are lost. A topic counts as recovered from an
F1 of one half.

Surface similarity is there a language model's opinion of whether two descriptions mean the same. Offline it is replaced
by the bundled embedder: the cosine between a concept's words and the name of its topic, and how often no other topic of
the dataset, drawn or not, has a name nearer to these words. Names are short, so read it as order, not as size.

The arms share texts, split, interpreter (lexical) and number of selected neurons. Run it with the project's Python; the
datasets are folders of the data folder with files as the names below say. One JSON line is written for each cell; a
second run goes on after the last.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, arguments, finished, lines, present, result, run_stages, show
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import READERS
from hsae_dagster.keys import text_id
from hsae_dagster.orchestration.project import Project
from hsae_dagster.providers.minilm import MiniLM
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.outputs import StoredActivations, StoredInterpretations

UNION = "union_of_topics"
RECOVERED = 0.5
RUNGS = ("all neurons", "selected neurons", "concepts")


@dataclass(frozen=True)
class Known:
    """A dataset with topics coded by people.

    Attributes:
        text: its column of texts.
        topic: its column of topics.
        drawn: topics per draw.
        fewest: rows that a topic needs to be drawn.
        cluster: its column of clusters, if there is one.
        most: rows used; whole clusters in a fixed random order until there are so many.
    """

    text: str
    topic: str
    drawn: int
    fewest: int
    cluster: str | None = None
    most: int | None = None

    def sample(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows with a topic, as many as are used."""
        frame = frame.filter(pl.col(self.topic).is_not_null())
        if self.cluster is None or self.most is None:
            return frame
        names = frame[self.cluster].unique().sort()
        place = pl.DataFrame({self.cluster: names, "place": np.random.default_rng(0).permutation(len(names))})
        ordered = frame.join(place, on=self.cluster, maintain_order="left").sort("place", maintain_order=True)
        return ordered.head(self.most).drop("place")


KNOWN = {
    "congress_bill_topics": Known("text", "topic", 5, 80),
    "clothing_reviews": Known("review_text", "department_name", 3, 100, "clothing_id", 3000),
}
# Sizes and selection. The reference's default is its `separation_score`; its paper selects by lasso.
ARMS: dict[str, tuple[Any, str]] = {
    "ours": ({"auto": {}}, "lasso"),
    "ours, auto": ("auto", "lasso"),
    "reference's sizes": ("reference", "lasso"),
    "reference's sizes and selection": ("reference", "separation"),
}


def topics_of(shared: Shared, dataset: str) -> pl.DataFrame:
    """Every row with a topic: its `text_id` and `topic`."""
    known = KNOWN[dataset]
    frames = [READERS[path.suffix.lower()](path) for _, path in load_dataset(shared.data, dataset).file_paths()]
    rows = pl.concat([known.sample(frame).select(text=known.text, topic=known.topic) for frame in frames])
    ids = pl.Series("text_id", [text_id(text) for text in rows["text"]])
    return rows.select("topic").with_columns(ids)


def draw(topics: pl.DataFrame, known: Known, number: int) -> list[str]:
    """The topics of a draw, among those that are common enough; no two draws are of the same topics."""
    counts = topics["topic"].value_counts().filter(pl.col("count") >= known.fewest)
    names = counts["topic"].sort().to_list()
    distinct: dict[frozenset[str], list[str]] = {}
    for seed in range(1000):
        drawn = [names[j] for j in np.random.default_rng(seed).permutation(len(names))[: known.drawn]]
        distinct.setdefault(frozenset(drawn), drawn)
        if len(distinct) > number:
            return drawn
    raise ValueError(f"{len(names)} topics allow no draw number {number}.")


def membership(topics: pl.DataFrame, ids: pl.Series, names: Sequence[str]) -> np.ndarray:
    """(texts, topics) bool: whether any row with that text has the topic."""
    held = [topics.filter(pl.col("topic") == name)["text_id"] for name in names]
    return np.column_stack([ids.is_in(members.to_list()).to_numpy() for members in held])


def f1_matrix(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F1 (h, t) between columns of found (n, h) and truth (n, t), both bool; 0 where neither ever occurs."""
    both = found.T.astype(float) @ truth.astype(float)
    total = found.sum(axis=0)[:, None] + truth.sum(axis=0)[None, :]
    return 2 * both / np.maximum(total, 1)


def matched(f1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each topic its F1 in the one-to-one assignment of largest sum, and the row it got (-1: none was left)."""
    from scipy.optimize import linear_sum_assignment

    values, rows = np.zeros(f1.shape[1]), np.full(f1.shape[1], -1)
    for row, topic in zip(*linear_sum_assignment(f1, maximize=True), strict=True):
        values[topic], rows[topic] = f1[row, topic], row
    return values, rows


def surface(claims: Sequence[str], names: Sequence[str], drawn: Sequence[str]) -> list[dict[str, Any]]:
    """For claims (one per drawn topic): cosine to that topic's name, and whether no topic's name is nearer."""
    if not claims:
        return []
    embedder = MiniLM()
    cosine = embedder.embed(list(claims)) @ embedder.embed([f"is about {name.lower()}" for name in names]).T
    own = [names.index(name) for name in drawn]
    return [{"cosine": float(row[j]), "nearest": bool(row.argmax() == j)} for row, j in zip(cosine, own, strict=True)]


def measure(project: Project, dataset: str, topics: pl.DataFrame, drawn: Sequence[str]) -> dict[str, Any]:
    """F1 by rung and topic, and how near the words are to the names."""
    annotations = read_frame(result(project, dataset, "annotation_matrix").file("annotations.parquet"))
    truth = membership(topics, annotations["text_id"], drawn)
    activations = StoredActivations(result(project, dataset, "activations"))
    fires = activations.on(annotations["text_id"]).toarray() > 0
    selected = read_frame(result(project, dataset, "selected_neurons").file("neurons.parquet"))["column"].to_numpy()
    concepts = StoredInterpretations(result(project, dataset, "interpretations")).distinct
    columns = [concept.concept_id for concept in concepts]
    judged = annotations.select(pl.col(columns).fill_null(value=False)).to_numpy().astype(bool)
    f1 = dict(zip(RUNGS, (matched(f1_matrix(x, truth)) for x in (fires, fires[:, selected], judged)), strict=True))
    rows = f1["concepts"][1]
    named = [(concepts[row].claim, topic) for row, topic in zip(rows, drawn, strict=True) if row >= 0]
    names = topics["topic"].unique().sort().to_list()
    similar = surface([claim for claim, _ in named], names, [topic for _, topic in named])
    saes = [record["config"] for record in result(project, dataset, "sae_checkpoints").json("saes.json")]
    return {
        "topics": list(drawn),
        "prevalence": truth.mean(axis=0).tolist(),
        "f1": {rung: values.tolist() for rung, (values, _) in f1.items()},
        "claims": {topic: claim for claim, topic in named},
        "surface": {topic: said for (_, topic), said in zip(named, similar, strict=True)},
        "readable": len(concepts),
        "saes": [{key: config.get(key, 0) for key in ("m", "k", "label_weight")} for config in saes],
    }


def cell(shared: Shared, dataset: str, arm: str, seed: int, n: int) -> dict[str, Any]:
    """One dataset, arm, draw and number of selected neurons."""
    known, topics = KNOWN[dataset], topics_of(shared, dataset)
    drawn = draw(topics, known, seed)

    def label(frame: pl.DataFrame, _: str) -> pl.DataFrame:
        return known.sample(frame).with_columns(pl.col(known.topic).is_in(drawn).cast(pl.Int8).alias(UNION))

    saes, method = ARMS[arm]
    changes = {
        "task": "classification",
        "outcome": "belonging to one of the drawn topics",
        "columns": {"text": known.text, "label": UNION, "positive": None},
        "saes": saes,
        "selection": {"method": method, "n": n},
        "inference": {"bootstrap": 0},
    }
    started = time.perf_counter()
    with shared.apart(dataset, changes, label) as project:
        run_stages(project, dataset, upto="annotation_matrix")
        found = measure(project, dataset, topics, drawn)
    seconds = round(time.perf_counter() - started, 1)
    return {"dataset": dataset, "arm": arm, "n": n, "seed": seed, **found, "seconds": seconds}


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The cells as a Markdown table: means over topics of all draws."""
    yield (
        "| dataset | neurons selected | arm | m/k, λ | topics | F1, all neurons | selected | concepts | recovered by "
        "selected neurons | by concepts | cosine to the name | nearest name |"
    )
    yield "|---|---:|---|---|" + "---:|" * 8
    for dataset in KNOWN:
        for n in sorted({one["n"] for one in cells if one["dataset"] == dataset}):
            for arm in ARMS:
                mine = [one for one in cells if (one["dataset"], one["n"], one["arm"]) == (dataset, n, arm)]
                if mine:
                    yield _row(dataset, n, arm, mine)


def _row(dataset: str, n: int, arm: str, mine: Sequence[dict[str, Any]]) -> str:
    values = {rung: np.concatenate([one["f1"][rung] for one in mine]) for rung in RUNGS}
    counts = {rung: int((found >= RECOVERED).sum()) for rung, found in values.items()}
    said = [said for one in mine for said in one["surface"].values()]
    sizes = dict.fromkeys(f"{s['m']}/{s['k']}, {s['label_weight']:g}" for one in mine for s in one["saes"])
    figures = [f"{values[rung].mean():.2f}" for rung in RUNGS]
    cells = [dataset, str(n), arm, "; ".join(sizes), str(len(values[RUNGS[0]])), *figures]
    cells += [str(counts[rung]) for rung in RUNGS[1:]]
    cells += [
        f"{np.mean([one['cosine'] for one in said]):.2f}",
        f"{sum(one['nearest'] for one in said)} of {len(said)}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = arguments(__doc__, "recovery")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--select", type=int, nargs="*", help="neurons selected; default as many as topics, and 20")
    parser.add_argument("--most", type=int, help="cells to run at most")
    options = parser.parse_args()
    shared = Shared(options.data, options.results)
    todo = [
        (dataset, arm, seed, n)
        for dataset in present(shared, options.datasets or list(KNOWN))
        for n in options.select or (KNOWN[dataset].drawn, 20)
        for seed in range(options.draws)
        for arm in options.arms
    ]
    done = finished(options.out, "dataset", "arm", "seed", "n")
    for one in [one for one in todo if one not in done][: options.most]:
        append(options.out, cell(shared, *one))
        print(f"{one}: done", flush=True)
    show(list(table(lines(options.out))), options.table)


if __name__ == "__main__":
    main()
