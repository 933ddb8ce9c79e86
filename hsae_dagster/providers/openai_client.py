"""The one door to OpenAI-compatible servers.

Belongs here: asking many requests with what the ledger knows left out. Does not belong here: which server
(`openai_server`), what is asked (`openai_embedder`, `openai_interpreter`, `openai_annotator`), how an answer is read
(`openai_replies`), one request (`openai_request`) or in which order and how fast requests go out (`asking`).

Only what such servers have in common is asked for: chat completions with a JSON schema, and embeddings. What one of
them refuses is put otherwise (`openai_dialect`), found out once per server and model.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.estimate import Estimate, estimate_calls
from hsae_dagster.providers.known_servers import KnownServer
from hsae_dagster.providers.ledger import Experience
from hsae_dagster.providers.model_table import profile_of
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.plan import Body, Plan, Question
from hsae_dagster.providers.unusable import Problem, reason_of

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from hsae_dagster.providers.asking import Arrived

T = TypeVar("T")
# Requests under way when nothing is known of the server yet.
START = 32
# Requests of a trial, which show a server's time and whether it works on several at once.
TRIED = 9


class OpenAIClient:
    """Asks one server on behalf of one field of dataset.yaml, and of an account if there is one."""

    def __init__(self, asker: Asker, server: Server, account: Account | None = None) -> None:
        self.asker = asker
        self.server = server
        self.account = account
        self.profile = profile_of(asker.model)
        self.known = KnownServer(account.ledger.uri.parent if account else None, server.endpoint, asker.model)

    @property
    def tier(self) -> str:
        """How requests are paid: as declared, where the model has that."""
        tier = self.account.tier if self.account else "standard"
        return "standard" if tier == "flex" and not self.profile.flex else tier

    def settings(self, answer_tokens: int, temperature: float | None = None, effort: str | None = None) -> Body:
        """The fields of a chat request that depend on the model: limit of the answer, effort, temperature.

        Args:
            answer_tokens: room for the answer itself; room for thoughts is added.
            temperature: wanted, or None for the server's own.
            effort: wanted of a model that thinks, or None for the usual one.

        Raises:
            ProviderError: the model refuses any temperature.
        """
        profile = self.profile
        if temperature is not None and not profile.temperature:
            raise ProviderError(f"{self.asker.name}: this model takes no temperature. Leave it out of dataset.yaml.")
        # OpenAI's server and models that think take the second name only; not every other server knows it.
        effort = effort or profile.reasoning_effort
        named = self.server.needs_key or effort is not None
        limit = "max_completion_tokens" if named else "max_tokens"
        body: Body = {limit: answer_tokens + profile.thinking_tokens}
        if effort:
            body["reasoning_effort"] = effort
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
        """What asking these requests would take now.

        Nothing is sent and no key is needed, unless the account asks for a trial of servers it has no answer of yet:
        then a few of the requests are sent, one alone and the others at once, and their answers kept.
        """
        plan = self._plan(bodies)
        trial = self.account.trial if self.account else None
        if trial and plan.todo and self.tier != "batch" and self._experience(prompt_hash) is None:
            # A request for embeddings is a whole batch, and its vectors are kept elsewhere.
            tried = plan.todo[: TRIED if "messages" in bodies[plan.todo[0]] else 1]
            self.ask_all([bodies[index] for index in tried], trial, prompt_hash, answer_tokens)
            plan = self._plan(bodies)
        return self._estimate(plan, prompt_hash, answer_tokens)

    def estimate_sizes(self, sizes: Sequence[int], prompt_hash: str | None, answer_tokens: int) -> Estimate:
        """What requests of these sizes would take, where they cannot be written yet."""
        return estimate_calls(
            sizes,
            known=0,
            answer_tokens=answer_tokens,
            profile=self.profile,
            tier=self.tier,
            start=min(START, self.server.concurrency),
            most=self.server.concurrency,
            experience=self._experience(prompt_hash),
        )

    def _experience(self, prompt_hash: str | None) -> Experience | None:
        ledger = self.account.ledger if self.account else None
        return ledger.experience(self.server.endpoint, self.asker.model, prompt_hash) if ledger else None

    def ask_all(
        self,
        bodies: Sequence[Body],
        report: Report,
        prompt_hash: str | None = None,
        answer_tokens: int = 0,
        problem_of: Problem = reason_of,
        arrived: "Arrived | None" = None,
    ) -> list[Reply]:
        """Ask every request that the ledger does not know, equal ones once; replies in the order of `bodies`.

        Args:
            bodies: request bodies; made as they are read, if they are many.
            report: told the estimate before, and progress every few seconds and at the end.
            prompt_hash: of the prompt file they were made from.
            answer_tokens: expected length of an answer.
            problem_of: says why a reply holds nothing usable; 20 of those in a row end the round.
            arrived: called with the place of a request and its reply, in a thread, one after the other.

        Raises:
            ProviderError: no key; the server refuses key, model or account; it was never reached; 20 requests in a row
                brought nothing usable; or the ledger cannot be written. What was answered before is in the ledger.
            TooManyInputsError: an embeddings request holds more texts than the server takes.
            BudgetError: the next request could pass the budget.
            BatchPendingError: the tier is `batch`, and answers are still under way.
        """
        with self.account.turn(report) if self.account else nullcontext():
            return self._ask_all(bodies, report, prompt_hash, answer_tokens, problem_of, arrived)

    def _ask_all(
        self,
        bodies: Sequence[Body],
        report: Report,
        prompt_hash: str | None,
        answer_tokens: int,
        problem_of: Problem,
        arrived: "Arrived | None",
    ) -> list[Reply]:
        from hsae_dagster.providers.asking import Round

        if self.account:
            self.account.ledger.take_in()
        plan = self._plan(bodies)
        if plan.todo:
            self.require_key()
            if self.account:
                report(f"{self.asker.name}: {self._estimate(plan, prompt_hash, answer_tokens)}")
        if self.tier == "batch" and self.account and plan.todo and "messages" in bodies[plan.todo[0]]:
            plan, asked = self._ask_by_batch(self.account, bodies, prompt_hash, report)
        else:
            ask = Round(self, bodies, plan, prompt_hash, report, problem_of, arrived)
            asked = run_sync(ask.run()) if plan.todo else {}
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
        return replace(found, known=len(plan.known))

    def connect(self) -> "AsyncOpenAI":
        """The SDK's connection, for batches. Use as an asynchronous context manager."""
        import httpx2
        import openai

        server = self.server
        parts = urlsplit(server.base_url)
        # A proxy has no business between us and ourselves.
        http = openai.DefaultAioHttpClient(
            timeout=openai.Timeout(server.timeout, connect=10.0),
            trust_env=not server.is_loopback,
            limits=httpx2.Limits(max_connections=8),
        )
        return openai.AsyncOpenAI(
            # The SDK insists on a key; servers that need none ignore it.
            api_key=server.api_key or "none",
            base_url=urlunsplit(parts._replace(query="")),
            default_query=dict(parse_qsl(parts.query)),
            max_retries=server.max_retries,
            http_client=http,
        )


def request_hash(body: Body, endpoint: str) -> str:
    """The key of a request: its whole body and the server. How it is paid (`service_tier`) is not part of a body."""
    return Question.of(body, endpoint).hash


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from ordinary code, also where an event loop already runs (a notebook)."""
    found: list[T] = []

    async def keep() -> None:
        # `asyncio.run` spells out what its task returns when it gives Ctrl-C back, all vectors of a round among it.
        found.append(await coroutine)

    if _loop_runs():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, keep()).result()
    else:
        asyncio.run(keep())
    return found[0]


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
