"""The three seed experiments at their published sizes, through every asset, with a server that knows the truth.

    python benchmarks/rehearsal.py [headlines yelp congress] [--share 1.0] [--per-call 20] [--folder FOLDER]

Texts are made (`rehearsal_world`), written in the published formats, and every asset is materialized with the preset's
own settings in a process of its own, whose wall time and peak memory are measured; embeddings and answers come over
HTTP from a server on this machine. Two things differ from the presets: concepts are stacked, `--per-call` in a request
(the notebook asked one by one; 1 does so here), and `--share` makes less of everything for a try.

Printed: seconds and peak memory per stage, calls, and whether the planted features came out confirmed and the others
did not. What this shows is that the sizes fit; that planted features are found says nothing about real texts.
"""

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl
import yaml

from benchmarks.cells import STAGE_NAMES, result
from benchmarks.rehearsal_world import PLANTED, Counting, World, name_of, publish
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.orchestration.project import Project
from hsae_dagster.storage.artifacts import read_frame

CHECKOUT = Path(__file__).resolve().parents[1]
# Rows of the published files, in the order train, validation, holdout (pairs for headlines).
SIZES = {
    "headlines": (8_728, 2_182, 4_357),
    "yelp": (200_000, 10_000, 50_000),
    "congress": (114_000, 16_000, 12_580),
}


def prepare(project: Project, preset: str, share: float, per_call: int) -> str:
    """The preset, its files, and a variant that stacks concepts; returns the variant's name."""
    folder, variant = project.data / preset, f"{preset}_rehearsal"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CHECKOUT / "data" / preset / "dataset.yaml", folder)
    files = load_dataset(project.data, preset).spec.files
    assert isinstance(files, dict)
    sizes = {str(path): round(size * share) for path, size in zip(files.values(), SIZES[preset], strict=True)}
    if not all((folder / name).is_file() for name in sizes):
        publish(folder, preset, sizes, seed=sorted(SIZES).index(preset))
    # Its judge knows the planted features and nothing else, so it would fail an examination.
    declared = {"extends": preset, "annotation": {"concepts_per_call": per_call}, "judge": {"texts": 0}}
    (project.data / variant).mkdir(exist_ok=True)
    (project.data / variant / "dataset.yaml").write_text(yaml.safe_dump(declared), encoding="utf-8")
    return variant


def most_own_memory(every: float = 0.05) -> Callable[[], float]:
    """Watch this process from now on: the most memory so far that is no mapped file, in GB (Linux).

    Pages of a mapped file count in `ru_maxrss`, though the system takes them back when it needs them.
    """
    seen = [0.0]

    def watch() -> None:
        while True:
            held = Path("/proc/self/status").read_text(encoding="ascii").partition("RssAnon:")[2].split()[0]
            seen[0] = max(seen[0], int(held) * 1024 / 1e9)
            time.sleep(every)

    threading.Thread(target=watch, daemon=True).start()
    return lambda: seen[0]


def stage(project: Project, dataset: str, asset: str) -> None:
    """Materialize one asset in this process and print its seconds (by the clock; of the processor) and peak memory."""
    import dagster as dg

    from hsae_dagster.definitions import STAGES
    from hsae_dagster.orchestration.project import DATASETS

    started, own = time.perf_counter(), most_own_memory()
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions(DATASETS, [dataset])
    materialized = dg.materialize(
        list(STAGES),
        selection=[project.key(asset)],
        partition_key=dataset,
        instance=instance,
        resources={"project": project},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    took = {"seconds": round(time.perf_counter() - started, 1), "cpu": round(time.process_time(), 1)}
    for event in materialized.all_events:
        if event.is_step_failure:
            raise SystemExit(str(event.step_failure_data.user_failure_data or event.message))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    sys.stdout.write(json.dumps({"stage": asset, **took, "peak_gb": round(peak, 2), "own_gb": round(own(), 2)}) + "\n")


def of_stage(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """What `stage` prints in a process of its own."""
    done = subprocess.run([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def verdict(project: Project, dataset: str) -> dict[str, object]:
    """Which planted features were confirmed, and what else was."""
    found = read_frame(result(project, dataset, "evaluation_report").file("hypotheses.parquet"))
    confirmed = set(found.filter(pl.col("badge") == "confirmed")["claim"])
    planted = {name_of(feature) for feature in range(PLANTED)}
    return {
        "hypotheses": found.height,
        "about planted features": len(planted & set(found["claim"])),
        "planted confirmed": len(planted & confirmed),
        "others confirmed": len(confirmed - planted),
    }


def serve(channel: Connection) -> None:
    """The server, in a process of its own; tells its address and stays."""
    with Counting(World.make()) as server:
        channel.send(server.base_url)
        threading.Event().wait()


def rehearse(preset: str, root: Path, share: float, per_call: int, address: str) -> None:
    """One preset, from its files to its report."""
    project = Project(data_dir=str(root / "data"), results_dir=str(root / "results"))
    dataset = prepare(project, preset, share, per_call)
    environment = os.environ | {
        "OPENAI_BASE_URL": address,
        "OPENAI_API_KEY": "rehearsal",
        "DAGSTER_HOME": str(root),
        "PYTHONPATH": str(CHECKOUT),
    }
    print(f"{preset}, {share:.0%} of its size, {per_call} concepts per request")
    rows = []
    for asset in STAGE_NAMES:
        before = calls(address)
        row = of_stage([__file__, preset, "--stage", asset, "--folder", str(root)], environment)
        row |= {"calls": sum(calls(address).values()) - sum(before.values())}
        rows.append(row)
        print(f"{asset:<20}{row['seconds']:>9.1f} s{row['peak_gb']:>8.2f} GB{row['calls']:>9,} calls", flush=True)
    record = {"preset": preset, "share": share, "per_call": per_call, "stages": rows, **verdict(project, dataset)}
    total = sum(row["seconds"] for row in rows)
    print(f"{'in all':<20}{total:>9.1f} s{max(row['peak_gb'] for row in rows):>8.2f} GB")
    print("; ".join(f"{key}: {value}" for key, value in verdict(project, dataset).items()) + "\n", flush=True)
    with (root / "rehearsal.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def calls(address: str) -> dict[str, int]:
    """Calls so far, by kind."""
    with urlopen(f"{address}/calls", timeout=60) as answer:
        counted: dict[str, int] = json.load(answer)
    return counted


def main() -> None:
    """Rehearse, or run the one stage that the rehearsal asks this process for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=list(SIZES), choices=[*SIZES, []])
    parser.add_argument("--share", type=float, default=1.0, help="of the published rows")
    parser.add_argument("--per-call", type=int, default=20, help="concepts in one annotation request")
    parser.add_argument("--folder", type=Path, default=Path("results/rehearsal"))
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.folder.resolve()
    if options.stage:
        project = Project(data_dir=str(root / "data"), results_dir=str(root / "results"))
        return stage(project, f"{options.presets[0]}_rehearsal", options.stage)
    mine, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    server.start()
    address = mine.recv()
    try:
        for preset in options.presets:
            rehearse(preset, root, options.share, options.per_call, address)
    finally:
        server.kill()


if __name__ == "__main__":
    main()
