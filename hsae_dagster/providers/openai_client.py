"""The one door to OpenAI-compatible servers.

Belongs here: sending requests, a bounded number at once, and what a failed one means. Does not belong here: which
server (`openai_server`), what is asked (`openai_embedder`, `openai_interpreter`, `openai_annotator`) or how an answer
is read (`openai_replies`).

Only what such servers have in common is used: chat completions with a strict JSON schema, and embeddings as floats.
Every request passes `OpenAIClient.ask`, a function of its body alone: whatever remembers or counts requests overrides
that one. Retries are the SDK's, one layer: connection faults, 408, 409, 429 and 5xx, honouring Retry-After.
"""

import asyncio
import re
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.openai_replies import Reply, read_chat, read_embeddings
from hsae_dagster.providers.openai_server import Asker, Server

if TYPE_CHECKING:
    from openai import AsyncOpenAI

Body = dict[str, Any]
T = TypeVar("T")

# As many failed requests in a row, each after its retries, mean that the next ones will fail too.
GIVE_UP_AFTER = 20
REPORT_SECONDS = 5.0
_KEY_LIKE = re.compile(r"\bsk-[\w*.…-]+")


class OpenAIClient:
    """Asks one server on behalf of one field of dataset.yaml."""

    def __init__(self, asker: Asker, server: Server) -> None:
        self.asker = asker
        self.server = server

    def require_key(self) -> None:
        """Raise ProviderError if OpenAI's own server is to be asked and there is no key."""
        if self.server.needs_key and self.server.api_key is None:
            raise ProviderError(
                f"{self.asker.name} needs a key for {self.server.endpoint}, and OPENAI_API_KEY is not set. Set it (in "
                "the environment or .env), set OPENAI_BASE_URL to a server that needs none, or choose "
                f"`{self.asker.offline}`, which works offline."
            )

    def ask_all(self, bodies: Iterable[Body], total: int, report: Report) -> list[Reply]:
        """Ask every request, `server.concurrency` at a time; replies in the order of `bodies`.

        Args:
            bodies: request bodies, made lazily if they are many.
            total: how many there are.
            report: told of progress every few seconds and at the end.

        Raises:
            ProviderError: no key; the server refuses key, model or account; it was never reached; or 20 requests in a
                row failed.
        """
        self.require_key()
        return run_sync(self._ask_all(bodies, total, _Progress(total, report)))

    async def ask(self, connection: "AsyncOpenAI", body: Body) -> Reply:
        """Ask one request. Overridden by whatever stands between asker and server.

        Raises:
            ProviderError: no further request can succeed.
        """
        import openai

        try:
            if "messages" in body:
                return read_chat(await connection.chat.completions.create(**body))
            return read_embeddings(await connection.embeddings.create(**body), len(body["input"]))
        # ValueError: a body that is not JSON.
        except (openai.OpenAIError, ValueError) as error:
            verdict = self._verdict(error)
        # Raised outside the handler: the SDK's error, which may quote the key, is not chained to ours.
        if isinstance(verdict, ProviderError):
            raise verdict
        return verdict

    async def _ask_all(self, bodies: Iterable[Body], total: int, progress: "_Progress") -> list[Reply]:
        replies: dict[int, Reply] = {}
        queue = iter(enumerate(bodies))
        try:
            async with self._connect() as connection, asyncio.TaskGroup() as group:
                for _ in range(min(self.server.concurrency, total)):
                    group.create_task(self._work(connection, queue, replies, progress))
        except ExceptionGroup as group_error:
            problem: Exception | None = next(_leaves(group_error))
        else:
            problem = self._never_reached(replies)
        if problem is not None:
            raise problem
        return [replies[index] for index in range(len(replies))]

    async def _work(
        self,
        connection: "AsyncOpenAI",
        queue: Iterator[tuple[int, Body]],
        replies: dict[int, Reply],
        progress: "_Progress",
    ) -> None:
        for index, body in queue:
            replies[index] = reply = await self.ask(connection, body)
            progress.count(reply)
            if progress.failed_in_a_row >= GIVE_UP_AFTER:
                raise ProviderError(
                    f"{self.asker.name}: {GIVE_UP_AFTER} requests in a row to {self.server.endpoint} failed, the last "
                    f"because {reply.reason}. Nothing further is asked; remove the cause and run again."
                )

    def _never_reached(self, replies: Mapping[int, Reply]) -> ProviderError | None:
        reasons = [reply.reason for reply in replies.values() if reply.fault == "connection"]
        if not replies or len(reasons) < len(replies):
            return None
        return ProviderError(
            f"{self.asker.name}: {self.server.endpoint} cannot be reached: {reasons[-1]}. Start the server or correct "
            f"OPENAI_BASE_URL; `{self.asker.offline}` needs no server."
        )

    def _connect(self) -> "AsyncOpenAI":
        import httpx2
        import openai

        server = self.server
        limits = httpx2.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        timeout = openai.Timeout(server.timeout, connect=10.0)
        # The default transport slows down as concurrency grows. A proxy has no business between us and ourselves.
        http = openai.DefaultAioHttpClient(limits=limits, timeout=timeout, trust_env=not server.is_loopback)
        return openai.AsyncOpenAI(
            # The SDK insists on a key; servers that need none ignore it.
            api_key=server.api_key or "none",
            base_url=server.base_url,
            timeout=timeout,
            max_retries=server.max_retries,
            http_client=http,
        )

    def _verdict(self, error: Exception) -> Reply | ProviderError:
        """What a failed request means: the end, or an answer that is missing for a reason."""
        import openai

        said = self._quote(error)
        if isinstance(error, openai.APIStatusError):
            remedy = _REMEDIES.get("quota" if error.code == "insufficient_quota" else error.status_code)
            if remedy:
                return ProviderError(
                    f"{self.asker.name}: {self.server.endpoint} refused the request ({error.status_code}: {said}). "
                    + remedy
                )
            return Reply(reason=f"the server answered {error.status_code}: {said}", fault="request")
        if isinstance(error, openai.APIConnectionError):
            return Reply(reason=f"the connection failed: {said}", fault="connection")
        return Reply(reason=f"the server's answer could not be read: {said}", fault="request")

    def _quote(self, error: Exception) -> str:
        """What the server said, in one short line, without the key or anything like one."""
        body = getattr(error, "body", None)
        said = body.get("message") if isinstance(body, Mapping) else None
        line = " ".join(str(said or error.__cause__ or error).split())
        if self.server.api_key:
            line = line.replace(self.server.api_key, "(key)")
        line = _KEY_LIKE.sub("(key)", line)
        return line if len(line) <= 200 else line[:200] + "…"


_REMEDIES: dict[int | Literal["quota"], str] = {
    401: "Set OPENAI_API_KEY to a key that this server accepts and run again.",
    403: "The key may not use this model here: use another key or model, or check OPENAI_BASE_URL, and run again.",
    404: "It knows no such model or address: correct the model's name or OPENAI_BASE_URL and run again.",
    "quota": "The account has no credit left: add some, or use another key, and run again.",
}


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from ordinary code, also where an event loop already runs (a notebook)."""
    if not _loop_runs():
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Progress:
    """Counts replies, says so now and then, and knows how many failed in a row."""

    def __init__(self, total: int, report: Report) -> None:
        self.total = total
        self.report = report
        self.done = self.unusable = self.failed_in_a_row = 0
        self.reported = time.monotonic()

    def count(self, reply: Reply) -> None:
        """Take note of one reply."""
        self.done += 1
        self.unusable += reply.reason is not None
        self.failed_in_a_row = self.failed_in_a_row + 1 if reply.fault else 0
        now = time.monotonic()
        if self.done == self.total or now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(f"{self.done:,} of {self.total:,} requests answered, {self.unusable:,} without a usable answer")


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
