"""Sending many requests: as fast as the server allows, within the budget, every answer in the ledger within seconds.

Belongs here: the order of events of one round of requests. Does not belong here: one request (`openai_client`), how
fast (`pacing`), how much (`account`), where answers are kept (`ledger`).

When something ends the round, nothing further is sent, what is under way is awaited, and what was answered is written:
an answer once received is never lost.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.account import Account, Budget
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.estimate import dollars, duration
from hsae_dagster.providers.ledger import Entry, written
from hsae_dagster.providers.model_table import Usage
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.pacing import Pace
from hsae_dagster.providers.plan import Body, Plan, Question

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from hsae_dagster.providers.openai_client import OpenAIClient

# As many failed requests in a row, each after its retries, mean that the next ones will fail too.
GIVE_UP_AFTER = 20
REPORT_SECONDS = 5.0
# Together with the calls under way, what a killed process may have paid for in vain.
FLUSH_SECONDS = 1.0


class Round:
    """One round of requests; `run` once."""

    def __init__(
        self, client: "OpenAIClient", bodies: Sequence[Body], plan: Plan, prompt_hash: str | None, report: Report
    ) -> None:
        from hsae_dagster.providers.openai_client import START

        self.client = client
        self.account = client.account
        self.bodies = bodies
        self.plan = plan
        self.prompt_hash = prompt_hash
        self.progress = _Progress(client, len(plan.todo), len(plan.known), report)
        self.pace = Pace(START, client.server.concurrency)
        self.replies: dict[str, Reply] = {}
        self.problem: ProviderError | None = None
        self.unwritten: list[Entry] = []
        self.over = asyncio.Event()

    async def run(self) -> dict[str, Reply]:
        """Send every request of the plan; replies by request.

        Raises:
            ProviderError: what ended the round early.
        """
        budget = self._open_budget()
        writer = asyncio.create_task(self._keep_writing())
        try:
            async with self.client.connect(self.pace) as connection, asyncio.TaskGroup() as group:
                for index in self.plan.todo:
                    await self.pace.turn()
                    body = self.bodies[index]
                    worst = self._worst(body, self.plan.questions[index])
                    if self.problem is None and budget:
                        await self._reserve(budget, worst)
                    if self.problem is not None:
                        break
                    group.create_task(self._one(connection, index, body, budget, worst))
        finally:
            self.over.set()
            await writer
        problem = self.problem or self._never_reached()
        if problem is not None:
            raise problem
        return self.replies

    def _open_budget(self) -> Budget | None:
        return self.account.open_budget(self.client.profile.priced, self.client.asker.model) if self.account else None

    async def _reserve(self, budget: Budget, worst: float) -> None:
        try:
            await budget.reserve(worst, self.progress.done_and_left)
        except ProviderError as error:
            self.problem = error

    async def _one(
        self, connection: "AsyncOpenAI", index: int, body: Body, budget: Budget | None, worst: float
    ) -> None:
        started = time.monotonic()
        cost, answered = None, False
        try:
            reply = await self.client.ask(connection, body)
            answered = reply.fault is None
            cost = self._cost(reply) if answered else None
            reply = replace(reply, cost_usd=cost)
            self._keep(index, reply, time.monotonic() - started)
        except ProviderError as error:
            self.problem = self.problem or error
        finally:
            self.pace.left()
            if budget:
                budget.settle(worst, cost, answered)

    def _keep(self, index: int, reply: Reply, seconds: float) -> None:
        question = self.plan.questions[index]
        self.replies[question.hash] = reply
        if self.account:
            totals = self.account.totals
            totals.calls += 1
            totals.failed += reply.fault is not None
            totals.usage += reply.usage
            totals.usd += reply.cost_usd or 0.0
            if reply.fault is None:
                totals.costs.setdefault(question.hash, reply.cost_usd)
                self.unwritten.append(self._entry(self.account, question, reply, seconds))
        self.progress.count(reply)
        if self.progress.failed_in_a_row >= GIVE_UP_AFTER and self.problem is None:
            self.problem = ProviderError(
                f"{self.client.asker.name}: {GIVE_UP_AFTER} requests in a row to {self.client.server.endpoint} failed, "
                f"the last because {reply.reason}. Nothing further is asked and every answer so far is kept; remove "
                "the cause and run again."
            )

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
        refused = self.client.tier == "flex" and reply.service_tier not in (None, "flex")
        return "standard" if refused else self.client.tier

    def _cost(self, reply: Reply) -> float | None:
        return self.client.profile.cost(reply.usage, self._paid_tier(reply))

    def _worst(self, body: Body, question: Question) -> float:
        """The most a request can cost: every byte a token, the longest answer allowed, the ordinary price."""
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return self.client.profile.cost(Usage(input=question.size, output=longest)) or 0.0

    async def _keep_writing(self) -> None:
        while not self.over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), FLUSH_SECONDS)
            await self._write()
        # What came in while the last write was under way.
        await self._write()

    async def _write(self) -> None:
        entries, self.unwritten = self.unwritten, []
        if not entries or self.account is None:
            return
        try:
            await asyncio.to_thread(self.account.ledger.append, entries)
        except ProviderError as error:
            self.problem = self.problem or error

    def _never_reached(self) -> ProviderError | None:
        reasons = [reply.reason for reply in self.replies.values() if reply.fault == "connection"]
        if not self.replies or len(reasons) < len(self.replies):
            return None
        client = self.client
        return ProviderError(
            f"{client.asker.name}: {client.server.endpoint} cannot be reached: {reasons[-1]}. Start the server or "
            f"correct OPENAI_BASE_URL; `{client.asker.offline}` needs no server."
        )


class _Progress:
    """Counts replies, says so now and then, and knows how many failed in a row."""

    def __init__(self, client: "OpenAIClient", total: int, known: int, report: Report) -> None:
        self.total = total
        self.known = known
        self.report = report
        self.priced = client.profile.priced and client.account is not None
        self.done = self.unusable = self.failed_in_a_row = 0
        self.usage = Usage()
        self.usd = 0.0
        self.started = self.reported = time.monotonic()

    def count(self, reply: Reply) -> None:
        """Take note of one reply."""
        self.done += 1
        self.unusable += reply.reason is not None
        self.failed_in_a_row = self.failed_in_a_row + 1 if reply.fault else 0
        self.usage += reply.usage
        self.usd += reply.cost_usd or 0.0
        now = time.monotonic()
        if self.done == self.total or now - self.reported >= REPORT_SECONDS:
            self.reported = now
            self.report(self._line(now - self.started))

    def done_and_left(self) -> str:
        """How far the work is, for an error."""
        return f"{self.known + self.done:,} answers are there, {self.total - self.done:,} requests are left"

    def _line(self, seconds: float) -> str:
        rate = self.done / max(seconds, 1e-9)
        parts = [f"{self.done:,} of {self.total:,} requests answered, {rate:,.1f} a second"]
        if self.done < self.total:
            parts.append(f"{duration((self.total - self.done) / rate / 60)} left")
        if self.usage.input:
            parts.append(f"{self.usage.input:,} tokens in and {self.usage.output:,} out")
        if self.priced:
            parts.append(f"{dollars(self.usd)} so far")
        parts.append(f"{self.unusable:,} without a usable answer")
        return ", ".join(parts)
