"""Embeddings at rest beside the reference's cache: reading them for training, adding new texts.

Belongs here: both stores on the same vectors. Does not belong here: computing embeddings.

The reference's cache is its own: chunks of 50,000 (text, float32 vector) pairs, pickled by numpy, all read into a dict;
its caller then stacks the vectors of its texts. (Vectors from OpenAI are lists of Python floats there, which is slower
still; here it has the better of its two forms.) Cold means that the kernel was asked to drop the files from its cache.
"""

import contextlib
import importlib
import io
import os
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

from benchmarks.speed.children import in_child, measured
from benchmarks.speed.outcome import Row
from hsae_dagster.keys import EmbeddingSet, text_id
from hsae_dagster.storage.objects import ObjectStore, StageInputs
from hsae_dagster.storage.outputs import StoredEmbeddings
from hsae_dagster.storage.vectors import VectorTable

_CHUNK = 50_000
FAMILY_ID = "b" * 32


def rows(folder: Path, texts: int, dimensions: int, new: int, readings: int = 7, additions: int = 3) -> list[Row]:
    """Fill both stores, read each cold and warm in alternation, add texts to each."""
    size = {"folder": str(folder), "texts": texts, "dimensions": dimensions}
    filled = in_child("store:fill", **size)
    reading = [_reading_row(size, state, readings, filled) for state in ("cold", "warm")]
    return [*reading, _adding_row(size, new, additions)]


def _reading_row(size: dict[str, Any], state: str, rounds: int, filled: dict[str, float]) -> Row:
    """Medians of a few readings of each side."""
    cold = state == "cold"
    theirs, ours, least = [], [], []
    for _ in range(rounds):
        least.append(in_child("store:read_file", **size, cold=cold))
        theirs.append(in_child("store:read_theirs", **size, cold=cold))
        ours.append(in_child("store:read_ours", **size, cold=cold))
        assert theirs[-1]["sample"] == ours[-1]["sample"], "the two stores gave different vectors"
    return Row(
        f"reading {size['texts']:,} × {size['dimensions']:,} embeddings, {state}",
        _median(ours),
        _median(theirs),
        "s",
        5,
        agreed="same vectors",
        peak_ours=ours[0]["run"]["peak"] / 1e6,
        peak_theirs=theirs[0]["run"]["peak"] / 1e6,
        roofline=f"the same bytes from the file into new memory, by one thread, unchecked: {np.median(least):.2g} s",
        extra={"filled": filled, "ours": _seconds(ours), "theirs": _seconds(theirs), "bytes": least},
    )


def _adding_row(size: dict[str, Any], new: int, rounds: int) -> Row:
    """Medians of a few additions, each to what the one before left."""
    theirs, ours = [], []
    for number in range(rounds):
        grown = {**size, "texts": size["texts"] + number * new}
        theirs.append(in_child("store:add_theirs", **grown, new=new))
        ours.append(in_child("store:add_ours", **grown, new=new))
        assert ours[-1]["texts"] == theirs[-1]["texts"] == grown["texts"] + new
    bare = float(np.median([run["bare_s"] for run in ours]))
    return Row(
        f"adding {new:,} texts to {size['texts']:,}",
        _median(ours),
        _median(theirs),
        "s",
        20,
        agreed=f"{size['texts'] + rounds * new:,} texts on both sides after {rounds} additions",
        peak_ours=ours[0]["run"]["peak"] / 1e6,
        peak_theirs=theirs[0]["run"]["peak"] / 1e6,
        roofline=f"LanceDB's own append of {new:,} rows to an empty table: {bare:.2g} s, {_median(theirs) / bare:.0f}x",
        extra={
            "ours": _seconds(ours),
            "theirs": _seconds(theirs),
            "gathering, s": [run["next_s"] for run in ours],
        },
    )


def _seconds(runs: list[dict[str, Any]]) -> list[float]:
    return [run["run"]["seconds"] for run in runs]


def _median(runs: list[dict[str, Any]]) -> float:
    return float(np.median(_seconds(runs)))


def _texts(count: int, start: int = 0) -> list[str]:
    return [f"Text number {n} of the store, about as long as a headline is." for n in range(start, start + count)]


def _vectors(texts: int, dimensions: int, start: int = 0) -> np.ndarray:
    return np.random.default_rng(start).standard_normal((texts, dimensions), dtype=np.float32)


def _table(folder: str, dimensions: int) -> VectorTable:
    # Libraries are loaded before the clock starts, on both sides.
    for name in ("lancedb", "pyarrow.compute", "hsae_dagster.storage.vectors"):
        importlib.import_module(name)
    return VectorTable(Path(folder), "speed", EmbeddingSet("synthetic", dimensions, FAMILY_ID))


def _their_module(folder: str) -> Any:
    """The reference's `embedding`, with its cache in our folder and without the models that it would load."""
    os.environ["EMB_CACHE_DIR"] = str(Path(folder) / "reference")
    transformers = ModuleType("sentence_transformers")
    transformers.SentenceTransformer = None  # type: ignore[attr-defined]
    sys.modules.setdefault("sentence_transformers", transformers)
    from hsae_dagster_tests.core.reference import load_reference_module

    return load_reference_module("embedding")


def fill(folder: str, texts: int, dimensions: int) -> dict[str, float]:
    """In a child: both stores with the same vectors, and our `embeddings` of them."""
    names, vectors = _texts(texts), _vectors(texts, dimensions)
    keys = [text_id(name) for name in names]
    module, table = _their_module(folder), _table(folder, dimensions)
    started = time.perf_counter()
    for number, start in enumerate(range(0, texts, _CHUNK)):
        part = dict(zip(names[start : start + _CHUNK], vectors[start : start + _CHUNK], strict=True))
        with contextlib.redirect_stdout(io.StringIO()):
            module._save_embedding_chunk("speed", part, number)
    theirs, started = time.perf_counter() - started, time.perf_counter()
    for start in range(0, texts, _CHUNK // 2):
        table.append(keys[start : start + _CHUNK // 2], vectors[start : start + _CHUNK // 2])
    ours, started = time.perf_counter() - started, time.perf_counter()
    _gather(folder, table, keys)
    return {"theirs, s": theirs, "ours, s": ours, "gathering, s": time.perf_counter() - started}


def _gather(folder: str, table: VectorTable, keys: list[str]) -> None:
    """What the asset `embeddings` does once every text has a vector."""
    store, ids, family = ObjectStore(Path(folder)), pl.Series(sorted(keys)), table.embedding_set
    record = {"model": family.model, "dimensions": family.dimensions, "set_id": family.set_id, "texts": len(ids)}

    def make(made: Path) -> None:
        StoredEmbeddings.write(made, record=record, table=table, unit_ids=ids)

    store.point("speed", store.build(StageInputs("embeddings", "1", record, {}), "run", make), StoredEmbeddings.passing)


def _forget(folder: Path) -> None:
    """Ask the kernel to drop the files below a folder from its cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _sample(vectors: np.ndarray) -> list[float]:
    return vectors[:: max(1, len(vectors) // 50), ::97].sum(axis=1).tolist()


def read_theirs(folder: str, texts: int, dimensions: int, cold: bool) -> dict[str, Any]:
    """In a child: the reference's whole cache, stacked in the order of the texts."""
    module, names = _their_module(folder), _texts(texts)
    if cold:
        _forget(Path(folder) / "reference")
    with measured() as run, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cache = module.load_embedding_cache("speed")
        vectors = np.stack([cache[name] for name in names])
    return {"run": run, "sample": _sample(vectors)}


def read_ours(folder: str, texts: int, dimensions: int, cold: bool) -> dict[str, Any]:
    """In a child: what stages read of `embeddings`, keys ascending as training asks for them; checked like there."""
    names = _texts(texts)
    keys = sorted(text_id(name) for name in names)
    ids, store = pl.Series(keys), ObjectStore(Path(folder))
    _table(folder, dimensions)
    if cold:
        _forget(Path(folder) / "objects")
    with measured() as run:
        vectors = StoredEmbeddings.current(store, "speed").read(ids)
    back = {key: row for row, key in enumerate(keys)}
    ordered = np.array([back[text_id(name)] for name in names])
    return {"run": run, "sample": _sample(vectors[ordered])}


def read_file(folder: str, texts: int, dimensions: int, cold: bool) -> float:
    """In a child: seconds to read the file of the vectors into memory of its size."""
    (path,) = Path(folder).rglob(StoredEmbeddings.passing)
    if cold:
        _forget(path.parent)
    started = time.perf_counter()
    np.fromfile(path, np.float32)
    return time.perf_counter() - started


def add_theirs(folder: str, texts: int, dimensions: int, new: int) -> dict[str, Any]:
    """In a child: what the reference's embedding functions do around their model: load all, find the new, save them."""
    module = _their_module(folder)
    names, vectors = _texts(texts + new), _vectors(new, dimensions, start=texts)
    with measured() as run, contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        cache = module.load_embedding_cache("speed")
        missing = [name for name in names if name not in cache]
        chunk = dict(zip(missing, vectors, strict=True))
        cache.update(chunk)
        module._save_embedding_chunk("speed", chunk, module._get_next_chunk_index("speed"))
    return {"run": run, "texts": len(cache)}


def add_ours(folder: str, texts: int, dimensions: int, new: int) -> dict[str, Any]:
    """In a child: what the asset `embeddings` does around its model: read keys, find the new, append them."""
    names, vectors = _texts(texts + new), _vectors(new, dimensions, start=texts)
    keys = pl.Series("text_id", [text_id(name) for name in names])
    table = _table(folder, dimensions)
    with measured() as run:
        missing = keys.to_frame().join(
            table.listed().to_frame("text_id"), on="text_id", how="anti", maintain_order="left"
        )
        table.append(missing["text_id"].to_list(), vectors)
    count = len(table.keys())
    started = time.perf_counter()
    _gather(folder, table, keys.to_list())
    next_s = time.perf_counter() - started
    return {"run": run, "texts": count, "next_s": next_s, "bare_s": _bare_append(Path(folder) / "bare", vectors)}


def _bare_append(folder: Path, vectors: np.ndarray) -> float:
    """Seconds that LanceDB alone needs to append vectors to an open table without rows."""
    import lancedb
    import pyarrow as pa

    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    rows = pa.table({"vector": lists})
    table = lancedb.connect(str(folder)).create_table("bare", schema=rows.schema, mode="overwrite")
    started = time.perf_counter()
    table.add(rows)
    return time.perf_counter() - started
