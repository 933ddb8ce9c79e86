"""Public datasets from their files to their reports with the offline defaults, beside a linear model on words.

    python benchmarks/real_data.py FOLDER [NAME ...] [--project results/real_data] [--table FILE]

FOLDER holds one folder for each dataset with the files named in `DATASETS`; their sources are in `docs/real-data.md`.
What is absent is left out and said. Nothing is tuned: each dataset.yaml declares what the file holds and no more, so
that sizes, guidance and splits are the defaults. Reports stay in the project folder. One JSON line is written for each
dataset; a second run goes on after the last.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import append, finished, lines, run_stages, show
from hsae_dagster.core.inference import joint_fit as ladder
from hsae_dagster.orchestration.project import Project
from hsae_dagster.storage.objects import ObjectStore
from hsae_dagster.storage.outputs import StoredCheckpoints, StoredCorpus, StoredEvaluation

# Two proportions differ at the 5 % level.
_DIFFERENT = 1.96


@dataclass(frozen=True)
class Public:
    """A public dataset and how it is declared.

    Attributes:
        file: below FOLDER.
        declaration: of dataset.yaml, without `files`.
        significant: keep pairs whose click rates differ significantly only.
    """

    file: str
    declaration: dict[str, Any]
    significant: bool = False


def _pairs(description: str) -> dict[str, Any]:
    columns = {"text_a": "headline_A", "text_b": "headline_B", "label": "label_pairwise", "cluster_by": "test_id"}
    return {"description": description, "outcome": "the higher click rate", "task": "pairwise", "columns": columns}


DATASETS = {
    "congress_bills_health": Public(
        "congress_bill_topics/train.parquet",
        {
            "description": "Titles of bills of the 107th US Congress with a topic coded by hand.",
            "outcome": "being about health",
            "task": "classification",
            "columns": {"text": "text", "label": "topic", "positive": "Health"},
        },
    ),
    "clothing_reviews": Public(
        "clothing_reviews/train.parquet",
        {
            "description": "Reviews of women's clothes, one to five stars.",
            "outcome": "stars",
            "task": "regression",
            "columns": {"text": "review_text", "label": "rating", "cluster_by": "clothing_id"},
        },
    ),
    "upworthy_headlines": Public(
        "upworthy_headlines/pairs_train.parquet", _pairs("Pairs of headlines of one A/B test with the same image.")
    ),
    "upworthy_significant": Public(
        "upworthy_headlines/pairs_train.parquet",
        _pairs("Pairs of headlines of one A/B test whose click rates differ significantly."),
        significant=True,
    ),
    "clickbait_headlines": Public(
        "clickbait_headlines/train.parquet",
        {
            "description": "Headlines of news sites and of sites that live by clicks.",
            "outcome": "being clickbait",
            "task": "classification",
            "columns": {"text": "headline", "label": "clickbait"},
        },
    ),
    "senate_press_releases": Public(
        "senate_press_releases/train.parquet",
        {
            "description": "Press releases of US senators, 2003 to 2008; party and names masked.",
            "outcome": "being a Republican's",
            "task": "classification",
            "columns": {"text": "text", "label": "republican", "cluster_by": "senator"},
        },
    ),
}


def declare(project: Project, name: str, source: Path) -> None:
    """The dataset's folder in the project: its rows and its dataset.yaml."""
    public, folder = DATASETS[name], project.data / name
    folder.mkdir(parents=True, exist_ok=True)
    rows = pl.read_parquet(source)
    if public.significant:
        rows = rows.filter(pl.col("z").abs() > _DIFFERENT)
    rows.write_parquet(folder / "rows.parquet")
    declared = {**public.declaration, "files": "rows.parquet"}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(declared, sort_keys=False), encoding="utf-8")


def measure(project: Project, name: str) -> dict[str, Any]:
    """What the table shows of a finished run."""
    store = ObjectStore(project.results)
    report, checkpoints = StoredEvaluation.current(store, name), StoredCheckpoints.current(store, name)
    trained = [record["config"] for record in checkpoints.records]
    return {
        "texts": StoredCorpus.current(store, name).texts.height,
        "metric": report.summary["metric"],
        "fits": {row["name"]: [row[end] for end in ("value", "low", "high")] for row in report.fits.to_dicts()},
        "sae": " + ".join(f"{one['m']}/{one['k']}" for one in trained),
        "tested": report.summary["tested"],
        "confirmed": report.summary["confirmed"],
        "significant": report.hypotheses.filter(pl.col("p_holm") < 0.05).height,
    }


def table(cells: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The cells as a Markdown table."""
    yield (
        "| dataset | texts | measure | embeddings (ceiling) | TF-IDF + linear model | selected neurons | concepts "
        "[95 % interval] | Holm < .05 | confirmed | m/k | minutes |"
    )
    yield "|---|---:|---|---:|---:|---:|---:|---:|---:|---|---:|"
    for cell in cells:
        fits = cell["fits"]
        value, low, high = fits[ladder.CONCEPTS]
        shown = [
            cell["dataset"],
            f"{cell['texts']:,}",
            cell["metric"].replace("R2", "R²"),
            *(f"{fits[rung][0]:.3f}" for rung in (ladder.EMBEDDINGS, ladder.WORDS, ladder.SELECTED)),
            f"{value:.3f} [{low:.3f}, {high:.3f}]",
            *(f"{cell[key]} of {cell['tested']}" for key in ("significant", "confirmed")),
            cell["sae"],
            f"{cell['seconds'] / 60:.1f}",
        ]
        yield f"| {' | '.join(shown)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds the public datasets")
    parser.add_argument("names", nargs="*", choices=[*DATASETS, []], help="default: all that are there")
    parser.add_argument("--project", type=Path, default=Path("results/real_data"), help="where runs and reports go")
    parser.add_argument("--table", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    root = options.project.resolve()
    project, out = Project(data_dir=str(root / "data"), results_dir=str(root / "results")), root / "real_data.jsonl"
    for name in options.names or DATASETS:
        source = options.folder / DATASETS[name].file
        if not source.is_file():
            print(f"{name}: {source} is not there; left out")
        elif (name,) not in finished(out, "dataset"):
            declare(project, name, source)
            started = time.perf_counter()
            run_stages(project, name)
            seconds = round(time.perf_counter() - started, 1)
            append(out, {"dataset": name, **measure(project, name), "seconds": seconds})
            print(f"{name}: {seconds:,.0f} s", flush=True)
    show(list(table(lines(out))), options.table)


if __name__ == "__main__":
    main()
