"""The one door to OpenAI-compatible servers.

Every answer is written as it arrives.
"""

import asyncio
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from hsae_dagster.errors import HsaeError, ProviderError
from hsae_dagster.providers.base import CutPrompts, Progress, Report
from hsae_dagster.providers.openai.batch import BatchRound
from hsae_dagster.providers.openai.prompts import Problem, nothing_came, reason_of
from hsae_dagster.providers.openai.request import Client, Pace, Request, session_of
from hsae_dagster.providers.openai.requests import LENGTH_WORDS, Body, Plan, Question
from hsae_dagster.providers.replies import NO_TOKENS, Reply
from hsae_dagster.providers.spending import (
    INTENT,
    Account,
    Entry,
    Estimate,
    Experience,
    Journal,
    as_row,
    estimate_calls,
    written,
)

if TYPE_CHECKING:
    from aiohttp import ClientSession

T = TypeVar("T")
# Requests under way when nothing is known of the server yet.
START = 32
# Requests of a trial, which show a server's time and whether it works on several at once.
TRIED = 9


class OpenAIClient(Client):
    """Asks many requests: those that the ledger does not know, within the budget, as fast as the server allows."""

    def settings(self, answer_tokens: int, temperature: float | None = None, effort: str | None = None) -> Body:
        """The fields of a chat request that depend on the model: limit of the answer, effort, temperature.

        `answer_tokens` is room for the answer itself; room for thoughts is added. None is the usual effort, and the
        server's own temperature.

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
        plan = self.plan(bodies)
        trial = self.account.trial if self.account else None
        if trial and plan.todo and self.tier != "batch" and self._experience(prompt_hash) is None:
            # A request for embeddings is a whole batch, and its vectors are kept elsewhere.
            tried = plan.todo[: TRIED if "messages" in bodies[plan.todo[0]] else 1]
            self.ask_all([bodies[index] for index in tried], trial, prompt_hash, answer_tokens)
            plan = self.plan(bodies)
        return self._estimate(plan, prompt_hash, answer_tokens)

    def estimate_sizes(self, sizes: Sequence[int], prompt_hash: str | None, answer_tokens: int) -> Estimate:
        """What requests of these sizes would take, where they cannot be written yet."""
        return estimate_calls(
            sizes,
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
        account = self.account
        assert account is not None, "nothing is asked but on an account"
        asked: dict[str, Reply] = {}
        with account.turn(report):
            plan = self.plan(bodies)
            if plan.todo:
                self.require_key()
                report(f"{self.asker.name}: {self._estimate(plan, prompt_hash, answer_tokens)}")
                if self.tier == "batch" and "messages" in bodies[plan.todo[0]]:
                    asked = run_sync(BatchRound(self, account, bodies, prompt_hash, report).run())
                    plan = self.plan(bodies)
                else:
                    ask = Round(self, account, bodies, plan, prompt_hash, report, problem_of, arrived)
                    asked = run_sync(ask.run())
            account.totals.costs |= {key: entry.cost_usd for key, entry in plan.known.items()}
            return plan.replies(asked)

    def _estimate(self, plan: Plan, prompt_hash: str | None, answer_tokens: int) -> Estimate:
        found = self.estimate_sizes([plan.questions[i].size for i in plan.todo], prompt_hash, answer_tokens)
        return replace(found, known=len(plan.known))


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end from ordinary code, also where an event loop already runs (a notebook)."""
    found: list[T] = []

    async def keep() -> None:
        asking = _Asking(asyncio.get_running_loop(), asyncio.current_task())
        _UNDER_WAY.add(asking)
        try:
            # `asyncio.run` spells out what its task returns when it gives Ctrl-C back, all vectors of a round among it.
            found.append(await coroutine)
        finally:
            _UNDER_WAY.discard(asking)
            asking.ended.set()
            if asking.left:
                threading.Event().wait()  # the process ends; this thread would only say that it was interrupted

    if _loop_runs():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, keep()).result()
    else:
        asyncio.run(keep())
    return found[0]


@dataclass(eq=False)
class _Asking:
    """A coroutine of `run_sync` that is under way."""

    loop: asyncio.AbstractEventLoop
    task: "asyncio.Task[Any] | None"
    left: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


_UNDER_WAY: set[_Asking] = set()


def leave() -> None:
    """Before this process ends: requests of other threads are given up, and answers that have arrived are written.

    The other threads do not go on.
    """
    asking = list(_UNDER_WAY)
    for each in asking:
        each.left = True
        if each.task is not None:
            each.loop.call_soon_threadsafe(each.task.cancel)
    for each in asking:
        each.ended.wait(30)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


# As many replies in a row without anything usable mean that the next ones will bring nothing either.
GIVE_UP_AFTER = 20
# So many requests are sent one at a time to a server that has not answered yet; then it is taken to answer none.
ALONE = 3
# Called with the place of a request and its reply, in a thread of its own, one after the other.
Arrived = Callable[[int, Reply], None]


class TooManyInputsError(ProviderError):
    """An embeddings request held more texts than the server takes at once; `inputs` were sent."""

    def __init__(self, said: str, inputs: int) -> None:
        super().__init__(said)
        self.inputs = inputs


@dataclass(eq=False)
class Round:
    """One round of requests; `run` once."""

    client: Client
    account: Account
    bodies: Sequence[Body]
    plan: Plan
    prompt_hash: str | None
    report: Report
    problem_of: Problem
    arrived: Arrived | None

    def __post_init__(self) -> None:
        client, account, plan = self.client, self.account, self.plan
        self.progress = Progress(len(plan.todo), len(plan.known), client.profile.priced, self.report)
        self.cut = CutPrompts()
        self.pace = Pace(START, client.server.concurrency)
        self.replies: dict[str, Reply] = {}
        self.unusable: list[Entry] = []
        self.problem: HsaeError | None = None
        self.journal = Journal(account.ledger)
        self.budget = account.open_budget(client.profile.priced, client.asker.model)
        # What all rows of intents have in common.
        self.blank = {**as_row(self._entry(Question("", 0), Reply(), 0.0)), "kind": INTENT}
        # `arrived` writes to disk; one thread keeps its calls in order and out of the way of requests.
        self.writer = ThreadPoolExecutor(1)
        # Answers on their way to the disk.
        self.writing: set[asyncio.Future[None]] = set()

    async def run(self) -> dict[str, Reply]:
        """Send every request of the plan; replies by request.

        Raises:
            ProviderError: what ended the round early.
        """
        with self.account.ledger.records.open():
            try:
                async with session_of(self.client.server) as session, asyncio.TaskGroup() as group:
                    await self._send_all(session, group)
                await self._written()
            finally:
                self._close()
        if self.problem is not None:
            raise self.problem
        return self.replies

    async def _send_all(self, session: "ClientSession", group: asyncio.TaskGroup) -> None:
        alone = 0 if self.client.known.has_answered else ALONE
        for index in self.plan.todo:
            await self.pace.turn()
            # What a killed run asks again, and what memory holds, is bounded also where the disk is the slow one.
            await self._written(but=self.client.server.concurrency - 1)
            body = self.bodies[index]
            worst = self.client.worst(body, self.plan.questions[index].size)
            try:
                if self.problem is None:
                    await self.budget.reserve(worst, self.progress.done_and_left)
            except ProviderError as error:
                self.problem = error
            if self.problem is not None:
                return
            task = group.create_task(self._one(session, index, body, worst))
            if alone and not self.client.known.has_answered:
                await task
                alone -= 1
                self._judge_first(self.replies.get(self.plan.questions[index].hash), alone)

    def _judge_first(self, reply: Reply | None, left: int) -> None:
        """Whether to go on after a first request that was sent alone."""
        if reply is None or reply.fault is None or self.problem is not None:
            return
        client = self.client
        if reply.fault == "connection":
            self.problem = ProviderError(
                f"{client.asker.name}: {client.server.endpoint} cannot be reached: {reply.reason}. Start the server or "
                f"correct {client.server.url_name}; `{client.asker.offline}` needs no server."
            )
        elif not left or LENGTH_WORDS.search((reply.reason or "").lower()):  # the others will not be shorter
            self.problem = nothing_came(client, self.progress.streak, "first requests")

    async def _one(self, session: "ClientSession", index: int, body: Body, worst: float) -> None:
        question, started, key = self.plan.questions[index], time.monotonic(), uuid.uuid4().hex
        paid: float | None = worst
        try:
            await self.journal.write(self._intent(question, worst, key))
            reply = await Request(self.client, session, body, self.pace, self.report).reply()
            reply = replace(reply, cost_usd=self._cost(reply, worst))
            paid = reply.cost_usd
            self._keep(index, reply, time.monotonic() - started, key)
        except HsaeError as error:
            paid = 0.0
            self.problem = self.problem or error
            self._write(self.journal.write(None, key))
        except OSError as error:
            self.problem = self.problem or ProviderError(
                f"{self.client.asker.name}: an answer could not be written down: {error.strerror or error}. Make room "
                "in the results folder and run again; answers written before are kept."
            )
        finally:
            self.pace.left()
            self.budget.settle(worst, paid)

    def _keep(self, index: int, reply: Reply, seconds: float, key: str) -> None:
        question = self.plan.questions[index]
        problem = self.problem_of(index, reply)
        if reply.fault == "size":
            self.problem = self.problem or TooManyInputsError(str(reply.reason), len(self.bodies[index]["input"]))
        self.replies[question.hash] = reply
        self._record(question, reply, seconds, problem, key)
        if self.arrived and reply.reason is None:
            self._write(asyncio.get_running_loop().run_in_executor(self.writer, self.arrived, index, reply))
        said = self.cut.notice(question.size, reply.usage.input) if reply.content is not None else None
        if said:
            self.report(f"{self.client.asker.name}: {said}")
        self.progress.count(reply, problem)
        if len(self.progress.streak) >= GIVE_UP_AFTER and self.problem is None:
            self.problem = nothing_came(self.client, self.progress.streak, "requests in a row")

    def _record(self, question: Question, reply: Reply, seconds: float, problem: str | None, key: str) -> None:
        totals = self.account.totals
        totals.calls += 1
        totals.failed += reply.fault is not None
        totals.usage += reply.usage
        totals.usd += reply.cost_usd or 0.0
        totals.uncounted += reply.fault is None and not reply.counted and not reply.unpaid
        if reply.fault is None:
            totals.costs.setdefault(question.hash, reply.cost_usd)
            entry = replace(self._entry(question, reply, seconds), reason=problem)
            self._write(self.journal.write(as_row(entry, key), key))
            if problem is not None and not reply.refused:
                self.unusable.append(entry)
        elif reply.fault != "connection" or reply.unpaid:
            self._write(self.journal.write(None, key))

    def _write(self, job: Awaitable[None]) -> None:
        future = asyncio.ensure_future(job)
        self.writing.add(future)
        future.add_done_callback(self._after_writing)

    def _after_writing(self, future: "asyncio.Future[None]") -> None:
        self.writing.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.problem = self.problem or (
                error if isinstance(error, HsaeError) else ProviderError(f"{self.client.asker.name}: {error}")
            )

    async def _written(self, but: int = 0) -> None:
        """Wait until all answers, or all but so many, are written."""
        while len(self.writing) > but:
            await asyncio.wait(set(self.writing), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)

    def _close(self) -> None:
        self.writer.shutdown()
        try:
            self.journal.close()
            # What made the round give up is no answer to go on from: the next run asks again.
            if self.problem is not None and len(self.progress.streak) >= GIVE_UP_AFTER:
                self.account.ledger.take_back(self.unusable[-len(self.progress.streak) :])
        except HsaeError as error:
            self.problem = self.problem or error

    def _intent(self, question: Question, worst: float, key: str) -> dict[str, Any]:
        return {
            **self.blank,
            "id": key,
            "request_hash": question.hash,
            "sent_bytes": question.size,
            "cost_usd": worst if self.client.profile.priced else None,
            "created": time.time_ns(),
        }

    def _entry(self, question: Question, reply: Reply, seconds: float) -> Entry:
        chat = reply.value is None or isinstance(reply.value, dict)
        return Entry(
            request_hash=question.hash,
            kind="chat" if chat else "embeddings",
            dataset=self.account.dataset,
            stage=self.account.stage,
            run_id=self.account.run_id,
            server=self.client.server.endpoint,
            model=self.client.asker.model,
            prompt_hash=self.prompt_hash,
            sent_bytes=question.size,
            answer=reply.content,
            parsed=written(reply.value) if chat else None,
            reason=reply.reason,
            usage=reply.usage,
            cost_usd=reply.cost_usd,
            tier=self._paid_tier(reply),
            model_echo=reply.model_echo,
            request_id=reply.request_id,
            seconds=round(seconds, 3),
        )

    def _paid_tier(self, reply: Reply) -> str:
        # A server without room for flex may serve, and bill, the ordinary way.
        refused = self.client.tier == "flex" and (
            reply.service_tier not in (None, "flex") or "service_tier" in self.client.known.dialect.dropped
        )
        return "standard" if refused else self.client.tier

    def _cost(self, reply: Reply, worst: float) -> float | None:
        """What a reply cost; the most it can have cost where the server did not count."""
        profile = self.client.profile
        if reply.unpaid or reply.fault in ("request", "size"):
            return profile.cost(NO_TOKENS)
        if not reply.counted:
            return worst if profile.priced else None
        return profile.cost(reply.usage, self._paid_tier(reply))
