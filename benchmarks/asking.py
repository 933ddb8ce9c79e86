"""This tree beside an earlier commit of it, asking the same loopback server: wall time and processor time.

    python benchmarks/asking.py [--before c7b6d3a] [--texts 20000] [--requests 3000] [--latency 0.3] [--rounds 3]

Embeddings: texts in batches of 512 (the default), each request answered after the latency, vectors written to LanceDB;
what counts is the wall time. Annotation: one request a text, ten concepts, prompts, hashes, ledger and checks included;
what counts is requests per second of processor time of the asking process, the server's left out. Each measurement is
a process of its own, the two trees take turns, and what they end up with must be equal. The commit comes out of git.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DIMENSIONS, BATCH, BANK = 1536, 512, 97
CONCEPTS = [f"mentions something that the writer {verb}" for verb in "abcdefghij"]


def made(count: int) -> list[str]:
    """Distinct texts; the number at the end says which vector the server gives."""
    return [
        f"The harbour was quiet and nobody knew why the boat had come back this early, said number {n}"
        for n in range(count)
    ]


def serve(port: "multiprocessing.Queue[int]", latency: float) -> None:
    """Answer both endpoints after the latency, with vectors as base64 or numbers as asked; most of it made before."""
    from aiohttp import web

    bank = np.random.default_rng(0).normal(size=(BANK, DIMENSIONS)).astype("<f4")
    packed = {
        "base64": [json.dumps(base64.b64encode(row.tobytes()).decode()) for row in bank],
        "float": [json.dumps([float(value) for value in row]) for row in bank],
    }
    answer = {f"c{n}": n % 3 == 0 for n in range(1, len(CONCEPTS) + 1)}
    message = {"role": "assistant", "content": json.dumps(answer), "refusal": None}
    completion = {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 500, "completion_tokens": 60, "total_tokens": 560},
    }

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency)
        return web.json_response(completion)

    async def embed(request: web.Request) -> web.Response:
        body = await request.json()
        await asyncio.sleep(latency)
        form = packed[body.get("encoding_format", "float")]
        items = ",".join(
            f'{{"object":"embedding","index":{index},"embedding":{form[int(text.rsplit(" ", 1)[1]) % BANK]}}}'
            for index, text in enumerate(body["input"])
        )
        usage = '"usage":{"prompt_tokens":9,"total_tokens":9}'
        said = f'{{"object":"list","model":"m","data":[{items}],{usage}}}'
        return web.Response(text=said, content_type="application/json")

    async def main() -> None:
        app = web.Application(client_max_size=1 << 28)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_post("/v1/embeddings", embed)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


@contextmanager
def serving(latency: float) -> Iterator[str]:
    """The server in a process of its own; its base URL."""
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue[int] = context.Queue()
    server = context.Process(target=serve, args=(port, latency), daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}/v1"
    finally:
        server.terminate()


def embedding(count: int, folder: Path) -> str:
    """Embed and keep; a hash of what is read back."""
    import polars as pl

    from hsae_dagster.dataset.spec import Embedding
    from hsae_dagster.keys import text_id
    from hsae_dagster.providers.registry import make_embedder
    from hsae_dagster.providers.spending import Account, Ledger
    from hsae_dagster.storage.vectors import VectorTable

    texts = made(count)
    keys = [text_id(text) for text in texts]
    account = Account(Ledger(folder), "bench", "embeddings", "run")
    embedder = make_embedder(Embedding(model="openai:m", dimensions=DIMENSIONS), account)
    table = VectorTable(folder, "bench", embedder.embedding_set)
    embedder.embed_all(
        texts, BATCH, lambda rows, found: table.append(keys[rows.start : rows.stop], found), lambda line: None
    )
    return hashlib.sha256(table.read(pl.Series(sorted(keys))).tobytes()).hexdigest()


def annotation(count: int, folder: Path) -> str:
    """Judge and keep; a hash of the answers."""
    from hsae_dagster.core.concepts.claims import Concept
    from hsae_dagster.dataset.spec import Annotation
    from hsae_dagster.providers.registry import make_annotator
    from hsae_dagster.providers.spending import Account, Ledger

    account = Account(Ledger(folder), "bench", "annotation_matrix", "run")
    annotator = make_annotator(Annotation(model="openai:m"), account)
    found = annotator.annotate([Concept(each, "bench") for each in CONCEPTS], made(count), lambda line: None)
    assert (found.answers >= 0).all()
    assert account.ledger.spent("bench").calls == count
    return hashlib.sha256(found.answers.tobytes()).hexdigest()


def child(work: str, url: str, count: int) -> None:
    """One measurement, printed as JSON."""
    os.environ["OPENAI_BASE_URL"] = url
    with tempfile.TemporaryDirectory() as folder:
        # Libraries load before the clock starts.
        {"embedding": embedding, "annotation": annotation}[work](1, Path(folder) / "first")
        started, used = time.perf_counter(), time.process_time()
        digest = {"embedding": embedding, "annotation": annotation}[work](count, Path(folder) / "timed")
        print(
            json.dumps(
                {"wall": time.perf_counter() - started, "processor": time.process_time() - used, "digest": digest}
            )
        )


def measure(tree: Path, work: str, url: str, count: int) -> dict[str, Any]:
    """`child` in a process that imports the given tree."""
    command = [sys.executable, str(Path(__file__).resolve()), "--child", work, url, str(count)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def take_out(commit: str, folder: Path) -> Path:
    """The package as of a commit."""
    data = subprocess.run(["git", "archive", commit, "hsae_dagster"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(data)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def compare(before: Path, url: str, texts: int, requests: int, rounds: int) -> None:
    """Print both, in turns."""
    for work, count, what in (("embedding", texts, "wall"), ("annotation", requests, "processor")):
        found: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
        for _ in range(rounds):
            for name, tree in (("before", before), ("now", ROOT)):
                found[name].append(measure(tree, work, url, count))
        digests = {each["digest"] for sides in found.values() for each in sides}
        assert len(digests) == 1, f"{work}: the trees end up with different results"
        best = {name: min(each[what] for each in sides) for name, sides in found.items()}
        ratios = [a[what] / b[what] for a, b in zip(found["before"], found["now"], strict=True)]
        print(f"{work} of {count:,}, {what} seconds, equal results")
        for name, sides in found.items():
            print(f"  {name:<7} {best[name]:7.2f}   ({', '.join(f'{each[what]:.2f}' for each in sides)})")
        print(
            f"  before / now: {best['before'] / best['now']:.2f} of the best, {np.median(ratios):.2f} the median turn"
        )


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", default="c7b6d3a")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with serving(options.latency) as url, tempfile.TemporaryDirectory() as folder:
        compare(take_out(options.before, Path(folder)), url, options.texts, options.requests, options.rounds)


if __name__ == "__main__":
    main()
