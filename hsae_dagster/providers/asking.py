"""Sending many requests: as fast as the server allows, within the budget, every answer written as it arrives.

Belongs here: the order of events of one round of requests. Does not belong here: one request (`openai_request`), how
fast (`pacing`), how much (`account`), where answers are kept (`journal`, `ledger`), what is said (`progress`).

A server that has not answered this process yet gets one request alone first. When something ends the round, nothing
further is sent, what is under way is awaited, and what was answered is kept: an answer once received is never lost.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hsae_dagster.errors import HsaeError, ProviderError
from hsae_dagster.providers.account import Account, Budget
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.journal import Journal
from hsae_dagster.providers.ledger import INTENT, Entry, as_row, written
from hsae_dagster.providers.model_table import NO_TOKENS, Usage
from hsae_dagster.providers.openai_http import Connection
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_request import Request, too_long
from hsae_dagster.providers.pacing import Pace
from hsae_dagster.providers.plan import Body, Plan, Question
from hsae_dagster.providers.progress import CutPrompts, Progress
from hsae_dagster.providers.unusable import Problem, nothing_came

if TYPE_CHECKING:
    from hsae_dagster.providers.openai_client import OpenAIClient

# As many replies in a row without anything usable mean that the next ones will bring nothing either.
GIVE_UP_AFTER = 20
# So many requests are sent one at a time to a server that has not answered yet; then it is taken to answer none.
ALONE = 3
# Answers that a journal holds before it is folded into the table.
FOLD_AT = 5000
# Called with the place of a request and its reply, in a thread of its own, one after the other.
Arrived = Callable[[int, Reply], None]


class TooManyInputsError(ProviderError):
    """An embeddings request held more texts than the server takes at once; `inputs` were sent."""

    def __init__(self, said: str, inputs: int) -> None:
        super().__init__(said)
        self.inputs = inputs


class Round:
    """One round of requests; `run` once."""

    def __init__(
        self,
        client: "OpenAIClient",
        bodies: Sequence[Body],
        plan: Plan,
        prompt_hash: str | None,
        report: Report,
        problem_of: Problem,
        arrived: Arrived | None = None,
    ) -> None:
        from hsae_dagster.providers.openai_client import START

        self.client = client
        self.account = client.account
        self.bodies = bodies
        self.plan = plan
        self.prompt_hash = prompt_hash
        self.report = report
        self.problem_of = problem_of
        self.arrived = arrived
        priced = client.profile.priced and client.account is not None
        self.progress = Progress(len(plan.todo), len(plan.known), priced, report)
        self.cut = CutPrompts()
        self.pace = Pace(START, client.server.concurrency)
        self.replies: dict[str, Reply] = {}
        self.unusable: list[Entry] = []
        self.problem: HsaeError | None = None
        self.journal: Journal | None = None
        self.budget: Budget | None = None
        # What all rows of intents have in common.
        self.blank: dict[str, Any] | None = None
        # Folding and `arrived` write to disk; one thread keeps them in order and out of the way of requests.
        self.writer = ThreadPoolExecutor(1)
        self.writing: set[asyncio.Future[None]] = set()

    async def run(self) -> dict[str, Reply]:
        """Send every request of the plan; replies by request.

        Raises:
            ProviderError: what ended the round early.
        """
        if self.account:
            self.budget = self.account.open_budget(self.client.profile.priced, self.client.asker.model)
            self.journal = self.account.ledger.journal()
        try:
            async with Connection(self.client.server) as connection, asyncio.TaskGroup() as group:
                await self._send_all(connection, group)
            await self._written()
        finally:
            self._close()
        if self.problem is not None:
            raise self.problem
        return self.replies

    async def _send_all(self, connection: Connection, group: asyncio.TaskGroup) -> None:
        alone = 0 if self.client.known.has_answered else ALONE
        for index in self.plan.todo:
            await self.pace.turn()
            await self._keep_up()
            body = self.bodies[index]
            worst = self._worst(body, self.plan.questions[index])
            if self.problem is None and self.budget:
                await self._reserve(self.budget, worst)
            if self.problem is not None:
                return
            task = group.create_task(self._one(connection, index, body, worst))
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
        elif not left or too_long(reply):
            self.problem = nothing_came(client, self.progress.streak, "first requests")

    async def _reserve(self, budget: Budget, worst: float) -> None:
        try:
            await budget.reserve(worst, self.progress.done_and_left)
        except ProviderError as error:
            self.problem = error

    async def _one(self, connection: Connection, index: int, body: Body, worst: float) -> None:
        question, started = self.plan.questions[index], time.monotonic()
        paid: float | None = worst
        try:
            if self.journal and self.account:
                self.journal.intend(self._intent(self.account, question, worst))
            reply = await Request(self.client, connection, body, self.pace, self.report).reply()
            reply = replace(reply, cost_usd=self._cost(reply, worst))
            paid = reply.cost_usd
            self._keep(index, reply, time.monotonic() - started)
        except ProviderError as error:
            paid = 0.0
            if self.journal:
                self.journal.came_to_nothing(question.hash)
            self.problem = self.problem or error
        except OSError as error:
            self.problem = self.problem or ProviderError(
                f"{self.client.asker.name}: an answer could not be written down: {error.strerror or error}. Make room "
                "in the results folder and run again; answers written before are kept."
            )
        finally:
            self.pace.left()
            if self.budget:
                self.budget.settle(worst, paid)

    def _keep(self, index: int, reply: Reply, seconds: float) -> None:
        question = self.plan.questions[index]
        problem = self.problem_of(index, reply)
        if reply.fault == "size":
            self.problem = self.problem or TooManyInputsError(str(reply.reason), len(self.bodies[index]["input"]))
        self.replies[question.hash] = reply
        if self.account and self.journal:
            self._record(self.account, self.journal, question, reply, seconds, problem)
        if self.arrived and reply.reason is None:
            self._write(lambda: self.arrived(index, reply) if self.arrived else None)
        said = self.cut.notice(question.size, reply.usage.input) if reply.content is not None else None
        if said:
            self.report(f"{self.client.asker.name}: {said}")
        self.progress.count(reply, problem)
        if len(self.progress.streak) >= GIVE_UP_AFTER and self.problem is None:
            self.problem = nothing_came(self.client, self.progress.streak, "requests in a row")

    def _record(
        self,
        account: Account,
        journal: Journal,
        question: Question,
        reply: Reply,
        seconds: float,
        problem: str | None,
    ) -> None:
        totals = account.totals
        totals.calls += 1
        totals.failed += reply.fault is not None
        totals.usage += reply.usage
        totals.usd += reply.cost_usd or 0.0
        totals.uncounted += reply.fault is None and not reply.counted and not reply.unpaid
        if reply.fault is None:
            totals.costs.setdefault(question.hash, reply.cost_usd)
            entry = replace(self._entry(account, question, reply, seconds), reason=problem)
            journal.answered(as_row(entry))
            if problem is not None and not reply.refused:
                self.unusable.append(entry)
            if len(journal.record.answers) >= FOLD_AT:
                self._fold(account, journal)
        elif reply.fault != "connection" or reply.unpaid:
            journal.came_to_nothing(question.hash)

    def _fold(self, account: Account, journal: Journal) -> None:
        """Go on in a new journal while the full one is put into the table."""
        self.journal = account.ledger.journal()
        for row in journal.record.intents.values():
            self.journal.intend(row)
        journal.record.intents.clear()
        self._write(lambda: account.ledger.fold(journal))

    def _write(self, job: Callable[[], None]) -> None:
        future = asyncio.get_running_loop().run_in_executor(self.writer, job)
        self.writing.add(future)
        future.add_done_callback(self._after_writing)

    def _after_writing(self, future: "asyncio.Future[None]") -> None:
        self.writing.discard(future)
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.problem = self.problem or (
                error if isinstance(error, HsaeError) else ProviderError(f"{self.client.asker.name}: {error}")
            )

    async def _keep_up(self) -> None:
        """Wait until fewer answers wait to be written than there may be requests under way.

        What a killed run asks again, and what memory holds, is thereby bounded also where the disk is the slow one.
        """
        while len(self.writing) >= self.client.server.concurrency:
            await asyncio.wait(set(self.writing), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)

    async def _written(self) -> None:
        while self.writing:
            await asyncio.wait(set(self.writing))
            await asyncio.sleep(0)

    def _close(self) -> None:
        self.writer.shutdown()
        if not self.account or not self.journal:
            return
        try:
            self.account.ledger.fold(self.journal)
            # What made the round give up is no answer to go on from: the next run asks again.
            if self.problem is not None and len(self.progress.streak) >= GIVE_UP_AFTER:
                self.account.ledger.take_back(self.unusable[-len(self.progress.streak) :])
        except ProviderError as error:
            self.problem = self.problem or error

    def _intent(self, account: Account, question: Question, worst: float) -> dict[str, Any]:
        if self.blank is None:
            self.blank = {**as_row(self._entry(account, question, Reply(), 0.0)), "kind": INTENT}
        return {
            **self.blank,
            "request_hash": question.hash,
            "sent_bytes": question.size,
            "cost_usd": worst if self.client.profile.priced else None,
            "created": time.time_ns(),
        }

    def _entry(self, account: Account, question: Question, reply: Reply, seconds: float) -> Entry:
        chat = reply.value is None or isinstance(reply.value, dict)
        return Entry(
            request_hash=question.hash,
            kind="chat" if chat else "embeddings",
            dataset=account.dataset,
            stage=account.stage,
            run_id=account.run_id,
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
        if reply.unpaid or reply.fault in ("request", "size"):
            usage: Usage | None = NO_TOKENS
        else:
            usage = reply.usage if reply.counted else None
        if usage is None:
            return worst if self.client.profile.priced else None
        return self.client.profile.cost(usage, self._paid_tier(reply))

    def _worst(self, body: Body, question: Question) -> float:
        """The most a request can cost: every byte a token, the longest answer allowed, the ordinary price."""
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return self.client.profile.cost(Usage(input=question.size, output=longest)) or 0.0
