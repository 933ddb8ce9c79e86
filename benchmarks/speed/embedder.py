"""The bundled embedder beside the published model, run as published: one text per call, float32 arithmetic.

Belongs here: both on the same short sentences, in alternation in one process. Does not belong here: the model
(`providers.minilm`).
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from benchmarks.speed.outcome import Row
from hsae_dagster.providers.minilm import TOKENIZER, WEIGHTS, MiniLM, _locate

_OPENINGS = ("I ordered", "My sister loves", "We returned", "She wears", "Nobody expected", "I really wanted to like")
_THINGS = ("this dress", "the blue sweater", "these jeans", "that silk blouse", "a winter coat", "the linen top")
_CLOSINGS = (
    "because the fabric is soft and flattering",
    "but it runs small",
    "although the colour was different from the picture online",
    "and got many compliments at work",
    "since the seams came apart after one wash",
    "in my usual size",
)


def row(texts: int, *, rounds: int = 5, threads: int = 2, goal: float | None = 3) -> Row:
    """Seconds of processor time per 1,000 sentences on both sides, medians of the rounds."""
    sentences = made(texts)
    embedder = MiniLM(threads=threads)
    embedder.embed(sentences[:8])
    one_by_one(sentences[:8], threads)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_timed(lambda: embedder.embed(sentences)))
        theirs.append(_timed(lambda: one_by_one(sentences, threads)))
    cosine = (ours[0][0] * theirs[0][0]).sum(1)
    assert cosine.mean() > 0.999, f"mean cosine {cosine.mean():.5f}"
    wall = [np.median([taken[1] for taken in side]) for side in (ours, theirs)]
    processor = [float(np.median([taken[2] for taken in side])) * 1000 / texts for side in (ours, theirs)]
    return Row(
        f"embedding {texts:,} short sentences, {threads} threads, processor s per 1,000",
        processor[0],
        processor[1],
        "s",
        goal,
        agreed=f"cosine {cosine.mean():.5f} on average, {cosine.min():.4f} at least",
        extra={"sentences a second": {"ours": texts / wall[0], "theirs": texts / wall[1]}},
    )


def made(texts: int) -> list[str]:
    """Distinct sentences of about 13 words."""
    draw = np.random.default_rng(5)
    found: dict[str, None] = {}
    while len(found) < texts:
        opening, thing, closing, other = (str(draw.choice(part)) for part in (_OPENINGS, _THINGS, _CLOSINGS, _CLOSINGS))
        found[f"{opening} {thing} {closing} {draw.integers(2, 40)} times {other}."[: draw.integers(40, 110)]] = None
    return list(found)


def one_by_one(texts: Sequence[str], threads: int) -> np.ndarray:
    """Vectors (n, 384) of the published ONNX file, each text alone."""
    tokenizer, session = _published()

    def embed(encoding: Any) -> np.ndarray:
        ids = np.array([encoding.ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean: np.ndarray = session.run(["last_hidden_state"], feed)[0][0].mean(axis=0)
        return mean / np.linalg.norm(mean)

    with ThreadPoolExecutor(threads) as pool:
        return np.stack(list(pool.map(embed, tokenizer.encode_batch(list(texts)))))


@cache
def _published() -> tuple[Any, Any]:
    import onnxruntime
    from tokenizers import Tokenizer

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(_locate(*WEIGHTS)), options, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(_locate(*TOKENIZER)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer, session


def _timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - processor
