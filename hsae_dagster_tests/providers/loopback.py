"""A scripted OpenAI-compatible server on 127.0.0.1, over real HTTP.

Speaks POST /v1/chat/completions and /v1/embeddings, records every call, and answers by callables of (body, number of
the call, from 0), so that answers are as deterministic as the callables. Requests run in parallel threads.
"""

import hashlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from hsae_dagster.providers.openai.requests import Server

# Unlike OpenAI's, so that nothing recognises it as a key by its look.
KEY = "loopback-0123456789-secret"


@dataclass(frozen=True)
class Call:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Raw:
    """An answer spelled out: any status, bytes or JSON, promised length, delay."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    # Promise more bytes than are sent, then hang up.
    missing_bytes: int = 0
    hang_up: bool = False


# What a chat callable may give: content as text, a value to be sent as JSON, or an answer spelled out.
ChatScript = Callable[[dict[str, Any], int], "str | dict[str, Any] | Raw"]
EmbedScript = Callable[[dict[str, Any], int], "list[list[float]] | Raw"]


def completion(content: str | None, *, finish_reason: str = "stop", refusal: str | None = None) -> Raw:
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return Raw(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted-1",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }
    )


def failure(status: int, message: str, code: str | None = None, **headers: str) -> Raw:
    return Raw({"error": {"message": message, "type": "error", "code": code}}, status, headers)


def embeddings(vectors: list[list[float]], indices: list[int] | None = None) -> Raw:
    numbered = zip(indices or range(len(vectors)), vectors, strict=True)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in numbered]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Raw({"object": "list", "data": data, "model": "scripted-1", "usage": usage})


def hash_vector(text: str, dimensions: int) -> list[float]:
    """A vector that depends on nothing but the text."""
    digest = hashlib.shake_128(text.encode()).digest(dimensions)
    return [(byte - 127.5) / 16 for byte in digest]


def embed_by_hash(dimensions: int = 8) -> EmbedScript:
    return lambda body, call: [hash_vector(text, body.get("dimensions") or dimensions) for text in body["input"]]


def user_message(body: dict[str, Any]) -> str:
    return next(message["content"] for message in body["messages"] if message["role"] == "user")


def shown_texts(body: dict[str, Any]) -> list[str]:
    """Texts in one of our prompts, in order."""
    return re.findall(r"^<text[^>]*>\n(.*?)\n</text>$", user_message(body), flags=re.DOTALL | re.MULTILINE)


def shown_concepts(body: dict[str, Any]) -> dict[str, str]:
    """Concepts by id in an annotation prompt."""
    before_text = user_message(body).split("<text>")[0]
    return dict(re.findall(r"^(c\d+): (.*)$", before_text, flags=re.MULTILINE))


def judge_by(rule: Callable[[str, str], bool]) -> ChatScript:
    """An annotator that answers rule(predicate, text) for each concept asked."""

    def answer(body: dict[str, Any], call: int) -> dict[str, Any]:
        # Others before it are examples.
        *_, text = shown_texts(body)
        return {concept: rule(predicate, text) for concept, predicate in shown_concepts(body).items()}

    return answer


class Loopback:
    """Use as a context manager; `server()` is the address for a client."""

    def __init__(self, chat: ChatScript | None = None, embed: EmbedScript | None = None) -> None:
        self.chat = chat or (lambda body, call: {"concept": "is scripted"})
        self.embed = embed or embed_by_hash()
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> "Loopback":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def server(self, **changes: Any) -> Server:
        return Server(**{"base_url": self.base_url, "api_key": KEY, "timeout": 10.0, **changes})

    def receive(self, method: str, path: str, data: bytes) -> Raw | None:
        """Answer what is neither chat nor embeddings, or None."""
        return None

    def answer_to(self, connection: socket.socket, work: Callable[[], Raw]) -> Raw:
        """Answer one request of a client; servers with few slots wait here."""
        return work()

    def bodies(self) -> list[dict[str, Any]]:
        return [call.body for call in self.calls]

    def answer(self, call: Call) -> Raw:
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
        if call.path.endswith("/v1/embeddings"):
            vectors = self.embed(call.body, number)
            return vectors if isinstance(vectors, Raw) else embeddings(vectors)
        if not call.path.endswith("/v1/chat/completions"):
            return failure(404, "no such address")
        said = self.chat(call.body, number)
        if isinstance(said, Raw):
            return said
        return completion(said if isinstance(said, str) else json.dumps(said))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed, as many tests do, is no news; everything else is."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def do_GET(self) -> None:
            self._send(loopback.receive("GET", self.path, b"") or failure(404, "no such address"))

        def do_POST(self) -> None:
            data = _read_body(self)
            raw = loopback.receive("POST", self.path, data)
            if raw is None:
                headers = {k.lower(): v for k, v in self.headers.items()}
                call = Call(self.path, headers, json.loads(data))
                raw = loopback.answer_to(self.connection, lambda: loopback.answer(call))
            self._send(raw)

        def _send(self, raw: Raw) -> None:
            time.sleep(raw.delay)
            if raw.hang_up:
                self.close_connection = True
                return
            data = raw.body if isinstance(raw.body, bytes) else json.dumps(raw.body).encode()
            self.send_response(raw.status)
            for name, value in {"Content-Type": "application/json", **raw.headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data) + raw.missing_bytes))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = self.close_connection or bool(raw.missing_bytes)

        def log_message(self, format: str, *args: Any) -> None:
            """Silence."""

    return Handler


def _read_body(handler: BaseHTTPRequestHandler) -> bytes:
    """The body of a request, sent whole or in chunks."""
    if "Content-Length" in handler.headers:
        return handler.rfile.read(int(handler.headers["Content-Length"]))
    parts = []
    while size := int(handler.rfile.readline(), 16):
        parts.append(handler.rfile.read(size))
        handler.rfile.readline()
    handler.rfile.readline()
    return b"".join(parts)
