"""The one door to OpenAI-compatible servers.

Belongs here: a connection, one request over it, and asking many with what the ledger knows left out. Does not belong
here: which server (`openai_server`), what is asked (`openai_embedder`, `openai_interpreter`, `openai_annotator`), how
an answer is read (`openai_replies`) or in which order and how fast requests go out (`asking`).

Only what such servers have in common is used: chat completions with a strict JSON schema, and embeddings as floats.
Retries are the SDK's, one layer: connection faults, 408, 409, 429 and 5xx, honouring Retry-After.
"""

import asyncio
import json
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.estimate import Estimate, estimate_calls
from hsae_dagster.providers.model_table import profile_of
from hsae_dagster.providers.openai_faults import verdict
from hsae_dagster.providers.openai_replies import Reply, read_response
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.pacing import Pace
from hsae_dagster.providers.plan import Body, Plan, Question, canonical

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncOpenAI

T = TypeVar("T")
# Requests under way when nothing is known of the server yet.
START = 32
# A flex request waits for spare capacity.
FLEX_TIMEOUT = 900.0


class OpenAIClient:
    """Asks one server on behalf of one field of dataset.yaml, and of an account if there is one."""

    def __init__(self, asker: Asker, server: Server, account: Account | None = None) -> None:
        self.asker = asker
        self.server = server
        self.account = account
        self.profile = profile_of(asker.model)

    @property
    def tier(self) -> str:
        """How requests are paid: as declared, where the model has that."""
        tier = self.account.tier if self.account else "standard"
        return "standard" if tier == "flex" and not self.profile.flex else tier

    def settings(self, answer_tokens: int, temperature: float | None = None) -> Body:
        """The fields of a chat request that depend on the model: limit of the answer, effort, temperature.

        Args:
            answer_tokens: room for the answer itself; room for thoughts is added.
            temperature: wanted, or None for the server's own.

        Raises:
            ProviderError: the model refuses any temperature.
        """
        profile = self.profile
        if temperature is not None and not profile.temperature:
            raise ProviderError(f"{self.asker.name}: this model takes no temperature. Leave it out of dataset.yaml.")
        # OpenAI's server and models that think take the second name only; not every other server knows it.
        named = self.server.needs_key or profile.reasoning_effort is not None
        limit = "max_completion_tokens" if named else "max_tokens"
        body: Body = {limit: answer_tokens + profile.thinking_tokens}
        if profile.reasoning_effort:
            body["reasoning_effort"] = profile.reasoning_effort
        return body if temperature is None else {**body, "temperature": temperature}

    def require_key(self) -> None:
        """Raise ProviderError if OpenAI's own server is to be asked and there is no key."""
        if self.server.needs_key and self.server.api_key is None:
            raise ProviderError(
                f"{self.asker.name} needs a key for {self.server.endpoint}, and OPENAI_API_KEY is not set. Set it (in "
                "the environment or .env), set OPENAI_BASE_URL to a server that needs none, or choose "
                f"`{self.asker.offline}`, which works offline."
            )

    def estimate(self, bodies: Sequence[Body], prompt_hash: str | None = None, answer_tokens: int = 0) -> Estimate:
        """What asking these requests would take now; nothing is sent and no key is needed."""
        return self._estimate(self._plan(bodies), prompt_hash, answer_tokens)

    def estimate_sizes(self, sizes: Sequence[int], prompt_hash: str | None, answer_tokens: int) -> Estimate:
        """What requests of these sizes would take, where they cannot be written yet."""
        account = self.account
        ledger = account.ledger if account else None
        return estimate_calls(
            sizes,
            known=0,
            answer_tokens=answer_tokens,
            profile=self.profile,
            tier=self.tier,
            concurrency=min(START, self.server.concurrency),
            experience=ledger.experience(self.server.endpoint, self.asker.model, prompt_hash) if ledger else None,
        )

    def ask_all(
        self,
        bodies: Sequence[Body],
        report: Report,
        prompt_hash: str | None = None,
        answer_tokens: int = 0,
    ) -> list[Reply]:
        """Ask every request that the ledger does not know, equal ones once; replies in the order of `bodies`.

        Args:
            bodies: request bodies; made as they are read, if they are many.
            report: told the estimate before, and progress every few seconds and at the end.
            prompt_hash: of the prompt file they were made from.
            answer_tokens: expected length of an answer.

        Raises:
            ProviderError: no key; the server refuses key, model or account; it was never reached; 20 requests in a row
                failed; or the ledger cannot be written. Whatever was answered before is in the ledger.
            BudgetError: the next request could pass the budget.
            BatchPendingError: the tier is `batch`, and answers are still under way.
        """
        with self.account.turn(report) if self.account else nullcontext():
            return self._ask_all(bodies, report, prompt_hash, answer_tokens)

    def _ask_all(
        self, bodies: Sequence[Body], report: Report, prompt_hash: str | None, answer_tokens: int
    ) -> list[Reply]:
        from hsae_dagster.providers.asking import Round

        plan = self._plan(bodies)
        if plan.todo:
            self.require_key()
            if self.account:
                report(f"{self.asker.name}: {self._estimate(plan, prompt_hash, answer_tokens)}")
        if self.tier == "batch" and self.account and plan.todo and "messages" in bodies[plan.todo[0]]:
            plan, asked = self._ask_by_batch(self.account, bodies, prompt_hash, report)
        else:
            asked = run_sync(Round(self, bodies, plan, prompt_hash, report).run()) if plan.todo else {}
        if self.account:
            self.account.totals.costs |= {key: entry.cost_usd for key, entry in plan.known.items()}
            self.account.ledger.compact()
        return plan.replies(asked)

    def _ask_by_batch(
        self, account: Account, bodies: Sequence[Body], prompt_hash: str | None, report: Report
    ) -> tuple[Plan, dict[str, Reply]]:
        from hsae_dagster.providers.openai_batch import BatchRound

        failed = run_sync(BatchRound(self, account, bodies, prompt_hash, report).run(lambda: self._plan(bodies)))
        return self._plan(bodies), failed

    def _plan(self, bodies: Sequence[Body]) -> Plan:
        ledger = self.account.ledger if self.account else None
        return Plan.make(bodies, self.server.endpoint, self.asker.model, ledger)

    def _estimate(self, plan: Plan, prompt_hash: str | None, answer_tokens: int) -> Estimate:
        found = self.estimate_sizes([plan.questions[i].size for i in plan.todo], prompt_hash, answer_tokens)
        return Estimate(found.calls, len(plan.known), found.usage, found.usd, found.minutes)

    async def ask(self, connection: "AsyncOpenAI", body: Body) -> Reply:
        """Send one request.

        Raises:
            ProviderError: no further request can succeed.
        """
        import httpx2
        import openai

        flex = self.tier == "flex" and "messages" in body
        sent = {**body, "service_tier": "flex"} if flex else body
        timeout = openai.Timeout(max(self.server.timeout, FLEX_TIMEOUT) if flex else self.server.timeout, connect=10.0)
        try:
            response = await connection.post(
                "/chat/completions" if "messages" in body else "/embeddings",
                cast_to=httpx2.Response,
                content=canonical(sent),
                options={"headers": {"Content-Type": "application/json"}, "timeout": timeout},
            )
            answer = json.loads(self.server.redact(response.text))
        # ValueError: a body that is not JSON.
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            found = verdict(error, self.asker, self.server)
        else:
            inputs = None if "messages" in body else len(body["input"])
            return read_response(answer, inputs, self.server.redact(response.headers.get("x-request-id", "")))
        # Raised outside the handler: the SDK's error, which may quote the key, is not chained to ours.
        if isinstance(found, ProviderError):
            raise found
        return found

    def connect(self, pace: Pace) -> "AsyncOpenAI":
        """A connection whose answers teach `pace`. Use as an asynchronous context manager."""
        import httpx2
        import openai

        server = self.server
        limits = httpx2.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency)
        timeout = openai.Timeout(server.timeout, connect=10.0)
        # The default transport slows down as concurrency grows. A proxy has no business between us and ourselves.
        http = openai.DefaultAioHttpClient(
            limits=limits, timeout=timeout, trust_env=not server.is_loopback, event_hooks=_listen(pace)
        )
        return openai.AsyncOpenAI(
            # The SDK insists on a key; servers that need none ignore it.
            api_key=server.api_key or "none",
            base_url=server.base_url,
            timeout=timeout,
            max_retries=server.max_retries,
            http_client=http,
        )


def request_hash(body: Body, endpoint: str) -> str:
    """The key of a request: its whole body and the server. How it is paid (`service_tier`) is not part of a body."""
    return Question.of(body, endpoint).hash


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


def _listen(pace: Pace) -> dict[str, list[Any]]:
    """Hooks that see every try, those that the SDK repeats included."""

    async def sent(request: "httpx2.Request") -> None:
        request.extensions["hsae_sent"] = time.monotonic()

    async def received(response: "httpx2.Response") -> None:
        sent_at = response.request.extensions["hsae_sent"]
        if response.status_code == 429:
            pace.refused(sent_at, _seconds(response.headers))
        elif response.is_success:
            pace.answered(time.monotonic() - sent_at)

    return {"request": [sent], "response": [received]}


def _seconds(headers: Any) -> float | None:
    """Retry-After in seconds; as a date it is left to the SDK alone."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return float(headers[name]) / divisor
        except (KeyError, ValueError):
            continue
    return None
