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
from hsae_dagster.core.embedding_set import EmbeddingSet
from hsae_dagster.keys import text_id
from hsae_dagster.storage.vectors import VectorTable

_CHUNK = 50_000
FAMILY_ID = "b" * 32


def rows(folder: Path, texts: int, dimensions: int, new: int) -> list[Row]:
    """Fill both stores, read each cold and warm in alternation, add texts to each."""
    size = {"folder": str(folder), "texts": texts, "dimensions": dimensions}
    filled = in_child("store:fill", **size)
    found: dict[str, dict[str, Any]] = {}
    for state in ("cold", "warm"):
        theirs = in_child("store:read_theirs", **size, cold=state == "cold")
        ours = in_child("store:read_ours", **size, cold=state == "cold")
        assert theirs["sample"] == ours["sample"], "the two stores gave different vectors"
        found[state] = {"ours": ours, "theirs": theirs}
    theirs = in_child("store:add_theirs", **size, new=new)
    ours = in_child("store:add_ours", **size, new=new)
    assert ours["texts"] == theirs["texts"] == texts + new
    shown = f"{texts:,} × {dimensions:,}"
    reading = [
        Row(
            f"reading {shown} embeddings, {state}",
            pair["ours"]["run"]["seconds"],
            pair["theirs"]["run"]["seconds"],
            "s",
            5,
            agreed="same vectors",
            peak_ours=pair["ours"]["run"]["peak"] / 1e6,
            peak_theirs=pair["theirs"]["run"]["peak"] / 1e6,
            extra={"filled": filled},
        )
        for state, pair in found.items()
    ]
    adding = Row(
        f"adding {new:,} texts to {texts:,}",
        ours["run"]["seconds"],
        theirs["run"]["seconds"],
        "s",
        20,
        agreed=f"{texts + new:,} texts on both sides",
        peak_ours=ours["run"]["peak"] / 1e6,
        peak_theirs=theirs["run"]["peak"] / 1e6,
        extra={"first read after it, s": ours["next_read_s"]},
    )
    return [*reading, adding]


def _texts(count: int, start: int = 0) -> list[str]:
    return [f"Text number {n} of the store, about as long as a headline is." for n in range(start, start + count)]


def _vectors(texts: int, dimensions: int, start: int = 0) -> np.ndarray:
    return np.random.default_rng(start).standard_normal((texts, dimensions), dtype=np.float32)


def _table(folder: str, dimensions: int) -> VectorTable:
    # Libraries are loaded before the clock starts, on both sides.
    for name in ("lancedb", "pyarrow.compute", "hsae_dagster.storage.vector_copy"):
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
    """In a child: both stores with the same vectors, and our contiguous copy, which the first read makes."""
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
    table.read(keys[:1])
    return {"theirs, s": theirs, "ours, s": ours, "contiguous copy, s": time.perf_counter() - started}


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
    """In a child: the table by key, from its contiguous copy, keys ascending as training asks for them."""
    names = _texts(texts)
    keys = sorted(text_id(name) for name in names)
    table = _table(folder, dimensions)
    if cold:
        for part in ("lancedb", "vector_copies"):
            _forget(Path(folder) / part)
    with measured() as run:
        vectors = table.read(keys)
    back = {key: row for row, key in enumerate(keys)}
    ordered = np.array([back[text_id(name)] for name in names])
    return {"run": run, "sample": _sample(vectors[ordered])}


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
    keys = pl.Series([text_id(name) for name in names])
    table = _table(folder, dimensions)
    with measured() as run:
        missing = keys.filter(pl.Series(table.lacking(keys)))
        table.append(missing.to_list(), vectors)
    count = len(table.keys())
    started = time.perf_counter()
    table.read(keys.to_list())
    return {"run": run, "texts": count, "next_read_s": time.perf_counter() - started}
