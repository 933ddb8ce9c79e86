"""What two halves find that a holdout does not, and how often they confirm what is not there: whole pipelines.

    python benchmarks/two_halves.py --count 5 --texts 1500 3000 --nulls 20

Job adverts are generated with four planted properties, or with none (`null`: the outcome has shares of employers and
jobs in it, noise, and no property). Each corpus is run as it is declared in data/job_adverts, once with a holdout and
once with two halves, with one small autoencoder in place of the measured choice. Counted are planted properties that a
confirmed claim says (φ of at least a half with having the property, over the judged texts), and confirmed claims that
say none (|φ| below 0.2 with all of them).

The same for features without words, on the referee's design, is in `error_rates.py --only "of 200 true"`.
One JSON line is written for each run; a second call goes on after the last. Run it with the project's Python.
"""

import argparse
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cells import Shared, append, finished, lines, result, run_stages
from benchmarks.permuted_labels import NO_FITS
from hsae_dagster.orchestration.project import Project
from hsae_dagster.sample_data.planted import ADVERT_EFFECTS, generate_adverts, write_generated
from hsae_dagster.storage.artifacts import read_frame
from hsae_dagster.storage.outputs import StoredInterpretations

DATASET, SAES = "job_adverts", [{"m": 32, "k": 4}]
DESIGNS = ("holdout", "two_halves")


def counted(project: Project, truth: pl.DataFrame, *, null: bool) -> dict[str, Any]:
    """Properties said by confirmed claims, and confirmed claims that say none: all, where nothing was planted."""
    found = read_frame(result(project, DATASET, "evaluation_report").file("hypotheses.parquet"))
    confirmed = found.filter(pl.col("badge") == "confirmed")
    texts = read_frame(result(project, DATASET, "corpus").file("texts.parquet")).select("text_id", "text")
    known = truth.with_columns(pl.col("text").str.strip_chars()).unique("text")
    matrix = read_frame(result(project, DATASET, "annotation_matrix").file("annotations.parquet"))
    joined = matrix.join(texts, on="text_id").join(known, on="text")
    said, none = set(), 0
    for key in confirmed["concept_id"]:
        answer = joined[key].cast(pl.Float64).fill_null(0.0).to_numpy()
        phi = {name: abs(np.corrcoef(answer, joined[f"has_{name}"].to_numpy())[0, 1]) for name in ADVERT_EFFECTS}
        said |= {name for name, value in phi.items() if value >= 0.5}
        none += null or max(phi.values()) < 0.2
    return {"tested": found.height, "confirmed": confirmed.height, "said": sorted(said), "false": none}


def cell(data: Path, results: Path, design: str, texts: int, seed: int, *, null: bool) -> dict[str, Any]:
    """One run."""
    folder = data / DATASET
    folder.mkdir(parents=True, exist_ok=True)
    _, truth = write_generated(folder, DATASET, generate_adverts(texts, seed=seed, null=null))
    declared = yaml.safe_load((Path("data") / DATASET / "dataset.yaml").read_text(encoding="utf-8"))
    (folder / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    changes = {
        "saes": SAES,
        "sae_seeds": 1,
        "splits": {"design": design},
        "inference": {"bootstrap": 0, "negative_controls": 0},
    }
    started = time.perf_counter()
    tally: dict[str, Any] = {"tested": 0, "confirmed": 0, "said": [], "false": 0}
    with (
        Shared(data, results).apart(DATASET, changes) as project,
        mock.patch("hsae_dagster.stages.evaluation._fits", lambda *_: NO_FITS),
    ):
        run_stages(project, DATASET, upto="interpretations")
        if StoredInterpretations(result(project, DATASET, "interpretations")).readable:
            run_stages(project, DATASET)
            tally = counted(project, read_frame(truth), null=null)
    seconds = round(time.perf_counter() - started, 1)
    return {"design": design, "texts": texts, "seed": seed, "null": null, **tally, "seconds": seconds}


def main() -> None:
    """Run what is not there yet, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--texts", type=int, nargs="+", default=[1500])
    parser.add_argument("--count", type=int, default=5, help="corpora with effects, of each size")
    parser.add_argument("--nulls", type=int, default=20, help="corpora without, of the first size")
    parser.add_argument("--designs", nargs="+", choices=DESIGNS, default=DESIGNS)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks/two_halves.jsonl"))
    options = parser.parse_args()
    wanted = list(product(options.texts, range(options.count), [False]))
    wanted += list(product(options.texts[:1], range(options.nulls), [True]))
    for texts, seed, null in wanted:
        # Embeddings do not depend on design or outcome; both designs of a corpus share them.
        with tempfile.TemporaryDirectory() as scratch:
            for design in options.designs:
                if (design, texts, seed, null) not in finished(options.out, "design", "texts", "seed", "null"):
                    root = Path(scratch)
                    append(options.out, cell(root / "data", root / "results", design, texts, seed, null=null))
    print("| texts | planted | design | runs | properties said | confirmed | saying none | runs with such |")
    print("|---|---|---|---|---|---|---|---|")
    made = lines(options.out)
    for texts, null in sorted({(one["texts"], one["null"]) for one in made}):
        for design in DESIGNS:
            mine = [one for one in made if (one["texts"], one["null"], one["design"]) == (texts, null, design)]
            said = sum(len(one["said"]) for one in mine)
            confirmed, false = (sum(one[name] for one in mine) for name in ("confirmed", "false"))
            some = sum(one["false"] > 0 for one in mine)
            planted = "none" if null else str(len(ADVERT_EFFECTS))
            print(f"| {texts:,} | {planted} | {design} | {len(mine)} | {said} | {confirmed} | {false} | {some} |")


if __name__ == "__main__":
    main()
