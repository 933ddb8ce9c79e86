"""Our client and the reference's thread pool against the same loopback server, and the size of what each sends.

    python benchmarks/llm_client.py [--requests 3000] [--latency 0.3] [--rounds 2]

Speed: annotation requests to a server of this machine that answers after a fixed latency; server and client share the
cores. The reference runs `annotate` as shipped, one thread per request, with 30 workers (its default) and with 50. Ours
runs the whole path of a stage: prompts from texts and concepts, request hashes, the ledger written within a second,
answers checked. It runs as shipped, which starts with 32 requests at once and grows, and the two take turns.

Size: 10,000 texts and 20 concepts, the reference's default prompt once per pair, ours per text and stack of concepts.
Tokens are counted by the tokenizer of all-MiniLM-L6-v2 (WordPiece), for both sides alike; ours once with and once
without the JSON schema that a server may turn into tokens too. Other tokenizers give other counts and nearly the same
ratio. Needs hypothesaes==2.0.1, installed without its dependencies (requirements-reference.txt), and the dev tools.
"""

import argparse
import asyncio
import importlib
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.dataset.spec import Annotation
from hsae_dagster.providers.minilm import TOKENIZER, _locate
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.readers import OpenAIAnnotator
from hsae_dagster.providers.openai.requests import Asker, Server
from hsae_dagster.providers.spending import Account, Ledger

SUBJECTS = (
    "a family",
    "the police",
    "a meal",
    "the weather",
    "a teacher",
    "money",
    "a journey",
    "an illness",
    "a law",
    "a song",
)
ASKER = Asker("annotation.model", "m", "lexical")
CONCEPTS = [
    f"mentions {subject} as something that the writer {verb}" for subject in SUBJECTS for verb in ("admires", "fears")
]
WORDS = (
    "morning",
    "people",
    "little",
    "house",
    "never",
    "again",
    "story",
    "about",
    "water",
    "because",
    "quiet",
    "street",
)


def reference(name: str) -> ModuleType:
    """A module of the installed reference with its real client, without its package's init."""
    package = ModuleType("bench_hypothesaes")
    package.__path__ = [str(distribution("hypothesaes").locate_file("hypothesaes"))]
    sys.modules.setdefault(package.__name__, package)
    sys.modules.setdefault("tiktoken", ModuleType("tiktoken"))
    return importlib.import_module(f"{package.__name__}.{name}")


def make_texts(count: int) -> list[str]:
    """Distinct texts of 16 words, about as long as a headline of the reference's experiments."""
    words = itertools.cycle(WORDS)
    return [f"Number {n}: " + " ".join(itertools.islice(words, 14 + n % 5)) for n in range(count)]


def serve(port: "multiprocessing.Queue[int]", latency: float) -> None:
    """Answer chat completions and responses after `latency` seconds."""
    from aiohttp import web

    usage = {"prompt_tokens": 500, "completion_tokens": 60, "total_tokens": 560}
    stack = json.dumps({f"c{n}": bool(n % 2) for n in range(1, 11)})

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency)
        message = {"role": "assistant", "content": stack, "refusal": None}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return web.json_response(
            {"id": "c", "object": "chat.completion", "model": "m", "choices": choices, "usage": usage}
        )

    async def responses(request: web.Request) -> web.Response:
        await request.read()
        await asyncio.sleep(latency)
        content = [{"type": "output_text", "text": "Yes", "annotations": []}]
        output = [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": content}]
        body = {"id": "r", "object": "response", "created_at": 0, "model": "m", "output": output, "status": "completed"}
        return web.json_response(body | {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []})

    async def main() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_post("/v1/responses", responses)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=2048)
        await site.start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


def reference_rate(texts: list[str], workers: int) -> float:
    """Requests a second of the reference's `annotate`."""
    annotate = reference("annotate")
    tasks = [(text, CONCEPTS[0]) for text in texts]
    started = time.perf_counter()
    found = annotate.annotate(tasks, model="m", n_workers=workers, show_progress=False)
    seconds = time.perf_counter() - started
    assert len(found[CONCEPTS[0]]) == len(texts)
    return len(texts) / seconds


def our_rate(texts: list[str], url: str, concurrency: int) -> float:
    """Requests a second of a whole annotation, the ledger included."""
    with tempfile.TemporaryDirectory() as folder:
        account = Account(Ledger(Path(folder)), "bench", "annotation_matrix", "run")
        server = Server(url, concurrency=concurrency)
        annotator = OpenAIAnnotator(OpenAIClient(ASKER, server, account), Annotation())
        concepts = [Concept(predicate, "bench") for predicate in CONCEPTS[:10]]
        started = time.perf_counter()
        found = annotator.annotate(concepts, texts, lambda line: None)
        seconds = time.perf_counter() - started
        assert (found.answers >= 0).all()
        assert account.ledger.spent("bench").calls == len(texts)
    return len(texts) / seconds


def speed(url: str, requests: int, rounds: int) -> None:
    """Print the rates of both, in turns."""
    os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_KEY_SAE": "none"}
    texts = make_texts(requests)
    rates: dict[str, list[float]] = {}
    for _ in range(rounds):
        for workers in (30, 50):
            rates.setdefault(f"reference, {workers} workers", []).append(
                reference_rate(texts[: requests // 3], workers)
            )
        for concurrency in (50, Server.concurrency):
            name = f"ours, at most {concurrency} at once"
            rates.setdefault(name, []).append(our_rate(texts, url, concurrency))
    print(f"\nRequests a second, {requests:,} requests (a third of them for the reference), best of {rounds}:")
    for name, found in rates.items():
        print(f"  {name:<28} {max(found):6.0f}   ({', '.join(f'{rate:.0f}' for rate in found)})")
    ours, theirs = (max(max(found) for name, found in rates.items() if name.startswith(who)) for who in ("ours", "ref"))
    print(f"  ours as shipped ÷ the reference's best: {ours / theirs:.1f}")


def size(texts: int) -> None:
    """Print how many calls and input tokens each side needs for `texts` × 20 concepts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_locate(*TOKENIZER)))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    template = reference("utils").load_prompt("annotate")
    sample = make_texts(texts)[:: max(texts // 200, 1)]

    def tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    theirs = [tokens(template.format(hypothesis=concept, text=text)) for text in sample for concept in CONCEPTS]
    their_calls, their_tokens = texts * len(CONCEPTS), sum(theirs) / len(sample) * texts
    print(f"\n{texts:,} texts × {len(CONCEPTS)} concepts (tokens by the tokenizer of all-MiniLM-L6-v2):")
    print(f"  {'reference, default prompt':<34} {their_calls:>9,} calls {their_tokens / 1e6:7.2f} M tokens in")
    for stack in (10, 20):
        client = OpenAIClient(ASKER, Server("http://127.0.0.1/v1"))
        annotator = OpenAIAnnotator(client, Annotation(concepts_per_call=stack))
        stacks = [CONCEPTS[start : start + stack] for start in range(0, len(CONCEPTS), stack)]
        bodies = [annotator.body(each, text) for text in sample for each in stacks]
        shown = sum(tokens(message["content"]) for body in bodies for message in body["messages"])
        schema = sum(tokens(json.dumps(body["response_format"]["json_schema"]["schema"])) for body in bodies)
        calls = texts * len(stacks)
        for name, count in (("", shown), (" + schema", shown + schema)):
            total = count / len(sample) * texts
            print(
                f"  {f'ours, {stack} concepts a call{name}':<34} {calls:>9,} calls {total / 1e6:7.2f} M tokens in"
                f"   {their_calls / calls:4.0f}x fewer calls, {their_tokens / total:4.1f}x fewer tokens"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--latency", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=10_000)
    options = parser.parse_args()
    size(options.texts)
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue[int] = context.Queue()
    server = context.Process(target=serve, args=(port, options.latency), daemon=True)
    server.start()
    try:
        speed(f"http://127.0.0.1:{port.get(timeout=60)}/v1", options.requests, options.rounds)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
