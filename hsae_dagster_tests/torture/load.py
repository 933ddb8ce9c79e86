"""Much of everything: datasets, texts, a huge text, equal texts, hypotheses; bounds on time and memory."""

import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl

from hsae_dagster.assets.automation import dataset_arrivals
from hsae_dagster.assets.catalog import dataset_catalog, gather, write_overview
from hsae_dagster.core.corpus import build_corpus
from hsae_dagster.core.observations import SplitShares
from hsae_dagster.dataset.discovery import load_dataset
from hsae_dagster.dataset.rows import read_rows
from hsae_dagster.keys import EmbeddingSet, set_fingerprint
from hsae_dagster.orchestration.project import DATASETS
from hsae_dagster.storage.lineage import LineageLog, document
from hsae_dagster.storage.vectors import VectorTable
from hsae_dagster_tests.assets.workspace import Workspace, tiny_texts
from hsae_dagster_tests.torture.children import Child, Said, finished_run, run_stages
from hsae_dagster_tests.torture.tally import Tally
from hsae_dagster_tests.torture.yard import NAME, Yard, asked_server, finished

TICK_SECONDS = 5.0
MOST_GIB = 24.0
DIMENSIONS = 384


def load(yard: Yard) -> list[Tally]:
    """All of it."""
    return [_datasets(yard), _hypotheses(yard), _one_huge_text(yard), _equal_texts(yard), _many_texts(yard)]


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def _datasets(yard: Yard) -> Tally:
    count = yard.some(100, 30)
    tally, workspace = Tally(f"{count} datasets: sensor and catalog"), yard.project("many")
    for n in range(count):
        workspace.declare(f"d{n:03d}", tiny_texts(200, seed=n))
    instance = dg.DagsterInstance.ephemeral()
    resources = {"project": workspace.project, "folders": workspace.project}
    cursor, seconds = None, []
    for _ in range(3):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
        begun = time.monotonic()
        with context:
            found = dataset_arrivals(context)
        seconds.append(time.monotonic() - begun)
        cursor = found.cursor if isinstance(found, dg.SensorResult) else context.cursor
        if isinstance(found, dg.SensorResult):
            for request in found.dynamic_partitions_requests or []:
                instance.add_dynamic_partitions(str(request.partitions_def_name), list(request.partition_keys))
    seconds.append(_timed(lambda: dg.materialize([dataset_catalog], instance=instance, resources=resources)))
    tally.expect(len(instance.get_dynamic_partitions(DATASETS)) == count, "a dataset is no partition")
    for named, took in zip(("first tick", "second tick", "third tick", "catalog"), seconds, strict=True):
        tally.expect(took <= TICK_SECONDS, f"{named}: {took:.1f} s")
    tally.note = ", ".join(f"{took:.1f} s" for took in seconds)
    return tally


def _hypotheses(yard: Yard) -> Tally:
    tally = Tally("10,000 hypotheses on the overview")
    with asked_server(0.0):
        workspace = finished(yard, "one")
    log = LineageLog(workspace.store)
    (record,) = log.records(NAME)
    rows = tuple(
        {**record.hypotheses[n % len(record.hypotheses)], "rank": n, "badge": "confirmed", "hypothesis_id": f"{n:032x}"}
        for n in range(100)
    )
    for n in range(100):
        other = replace(record, dataset=f"d{n:03d}", hypotheses=rows)
        with workspace.store.records.writing() as records:
            records.add(document(other))
    pages: list[Path] = []
    took = _timed(lambda: pages.append(write_overview(workspace.project, gather(workspace.project))))
    page = pages[0].read_text(encoding="utf-8")
    tally.tries = 10_000
    shown = page.count('<tr><th scope="row">')
    if page.count("d099") == 0 or shown < tally.tries or took > 30 or len(page) > 5_000_000:
        tally.wrong.append(f"{took:.1f} s, {len(page):,} characters, {shown:,} hypotheses")
    tally.note = f"{took:.1f} s, a page of {len(page) / 1000:,.0f} kB"
    return tally


def _offline(yard: Yard, name: str, frame: pl.DataFrame, *stages: str) -> tuple[Said, float]:
    workspace = yard.project(name)
    workspace.declare(NAME, frame)
    begun = time.monotonic()
    said = finished_run(Child(partial(run_stages, str(workspace.root), NAME, list(stages)), yard.log))
    return said, time.monotonic() - begun


def _one_huge_text(yard: Yard) -> Tally:
    tally = Tally("a text of 1 MB")
    texts = tiny_texts(200)
    huge = pl.DataFrame({"text": ["soup and garlic, " * 62_500], "score": [1.0], "author": ["author 01"]})
    said, took = _offline(yard, "huge", pl.concat([texts, huge]))
    tally.expect(said.success, f"it failed: {said.words[-1500:]}")
    tally.note = f"every stage in {took:.0f} s"
    return tally


def _equal_texts(yard: Yard) -> Tally:
    tally = Tally("50,000 texts that are all equal")
    n = 50_000
    equal = pl.DataFrame({"text": ["the same"] * n, "score": np.arange(n) % 7 * 1.0, "author": ["a", "b"] * (n // 2)})
    said, took = _offline(yard, "equal", equal)
    words = " ".join(said.sentences.values())
    tally.expect(not said.success and not said.crash and bool(words), f"no sentence but {said.crash[-1500:]}")
    tally.note = f"{words[:160]} ({took:.0f} s)"
    return tally


def _many_texts(yard: Yard) -> Tally:
    count = yard.some(1_000_000, 50_000)
    tally = Tally(f"{count:,} short texts: corpus and vectors")
    child = Child(partial(keep_many, str(yard.folder / "million"), count), yard.log)
    told = child.end(900.0)
    tally.expect(told["texts"] == count, f"{told['texts']:,} texts")
    tally.expect(told["wrong"] == 0, f"{told['wrong']:,} vectors differ")
    tally.expect(told["GiB"] < MOST_GIB, f"{told['GiB']:.1f} GiB")
    tally.note = f"corpus {told['corpus']:.0f} s, vectors {told['vectors']:.0f} s, at most {told['GiB']:.1f} GiB"
    return tally


def keep_many(root: str, count: int) -> dict[str, float]:
    """In a child: many texts to a corpus, fake vectors of them to a table, and read them back."""
    workspace = Workspace(Path(root))
    number = np.arange(count)
    frame = pl.DataFrame({"text": [f"short text n{n}n" for n in number], "score": number % 5 * 1.0})
    workspace.declare(NAME, frame.with_columns(pl.Series("author", number // 10).cast(pl.String)))
    begun = time.monotonic()
    rows = read_rows(load_dataset(workspace.project.data, NAME))
    corpus = build_corpus(rows.frame, SplitShares(0.15, 0.15, 0.3, "salt"), rows.dropped)
    ids = corpus.texts["text_id"]
    middle = time.monotonic()
    table = VectorTable(workspace.project.results, NAME, EmbeddingSet("fake", DIMENSIONS, "0" * 32))
    for start in range(0, len(ids), 10_000):
        batch = ids[start : start + 10_000].to_list()
        table.append(batch, _fake(batch))
    again = VectorTable(workspace.project.results, NAME, table.embedding_set)
    known = again.keys()
    wrong = 0
    for start in range(0, len(ids), 200_000):
        batch = ids[start : start + 200_000].to_list()
        wrong += int((again.read(batch)[:, 0] != _fake(batch)[:, 0]).sum())
    set_fingerprint(ids, "fake")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "texts": len(known & set(ids)),
        "wrong": wrong,
        "corpus": middle - begun,
        "vectors": time.monotonic() - middle,
        "GiB": peak,
    }


def _fake(ids: list[str]) -> np.ndarray:
    first = np.array([int(key[:5], 16) for key in ids], dtype=np.float32)
    return np.repeat(first[:, None], DIMENSIONS, axis=1)
