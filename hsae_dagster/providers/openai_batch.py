"""The Batch API: requests handed in together, answered within a day, at half price.

Belongs here: submitting what the ledger does not know, asking how far a batch is, and collecting its answers into the
ledger, also of one that expired half way. Does not belong here: the record of open batches (`batches`), creating one so
that it cannot be lost (`openai_batch_creation`) or when to look again (the sensor `batch_answers`, or whoever runs the
stage again).
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.batches import BatchRecord, BatchRegister
from hsae_dagster.providers.ledger import Entry, written
from hsae_dagster.providers.model_table import ModelProfile, Usage
from hsae_dagster.providers.openai_batch_creation import create, look_for
from hsae_dagster.providers.openai_faults import quoted, refusal
from hsae_dagster.providers.openai_replies import Reply, read_response
from hsae_dagster.providers.openai_request import Client
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.plan import Body, Plan, wire

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# OpenAI's limits of one batch.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
ENDED = {"completed", "expired", "failed", "cancelled"}


class BatchPendingError(ProviderError):
    """Answers are under way in a batch; nothing is wrong."""


class BatchRound:
    """One look at the batches of an account: collect, submit, and say what is still under way."""

    def __init__(
        self, client: Client, account: Account, bodies: Sequence[Body], prompt_hash: str | None, report: Report
    ) -> None:
        self.client = client
        self.account = account
        self.bodies = bodies
        self.prompt_hash = prompt_hash
        self.report = report
        self.register = BatchRegister(account.ledger.uri.parent)

    async def run(self, make_plan: Any) -> dict[str, Reply]:
        """Requests that a batch could not answer, as replies; whatever was answered is in the ledger.

        Raises:
            BatchPendingError: some requests are under way.
            BudgetError: what is left to submit could pass the budget.
            ProviderError: the server refuses.
        """
        async with self.client.connect() as connection:
            for record in await self._created(connection):
                await collect(connection, self.client.server, record, self.account, self.client.profile, self.register)
            plan: Plan = make_plan()
            failed = self._take_failures(plan)
            waiting = {key for record in self._records() for key in record.sizes}
            todo = [i for i in plan.todo if plan.questions[i].hash not in waiting | failed.keys()]
            for part in self._parts(plan, todo):
                await self._submit(connection, plan, part)
        waiting = {key for record in self._records() for key in record.sizes}
        open_now = [plan.questions[i].hash for i in plan.todo if plan.questions[i].hash in waiting]
        if open_now:
            raise BatchPendingError(self._pending(len(plan.known), len(open_now)))
        return failed

    def _records(self) -> list[BatchRecord]:
        server = self.client.server.endpoint
        return [r for r in self.register.all(self.account.dataset) if r.server == server and not r.collected]

    async def _created(self, connection: "AsyncOpenAI") -> list[BatchRecord]:
        """Records of batches that exist; those of a batch that came to nothing are forgotten.

        Only here: one round of a dataset is open at a time, so nobody else is about to create such a batch.
        """
        found = []
        for record in self._records():
            with _explained(self.client.asker, self.client.server):
                known = record if record.batch_id else await look_for(connection, record, self.register)
            if known is None:
                self.register.remove(record)
            else:
                found.append(known)
        return found

    def _take_failures(self, plan: Plan) -> dict[str, Reply]:
        wanted = {plan.questions[i].hash for i in plan.todo}
        found: dict[str, Reply] = {}
        for record in self.register.all(self.account.dataset):
            if not record.collected or record.stage != self.account.stage:
                continue
            found |= {k: Reply(reason=why, fault="request") for k, why in record.failures.items() if k in wanted}
            self.register.remove(record)
        self.account.totals.failed += len(found)
        return found

    def _parts(self, plan: Plan, todo: Sequence[int]) -> Iterator[list[int]]:
        part: list[int] = []
        size = 0
        for index in todo:
            if part and (len(part) == MOST_REQUESTS or size + plan.questions[index].size > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append(index)
            size += plan.questions[index].size + 200
        if part:
            yield part

    async def _submit(self, connection: "AsyncOpenAI", plan: Plan, part: Sequence[int]) -> None:
        worst = [self._worst(self.bodies[i], plan.questions[i].size) for i in part]
        self._afford(len(part), sum(worst))
        lines = [
            wire(
                {
                    "custom_id": plan.questions[i].hash,
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": self.bodies[i],
                }
            )
            for i in part
        ]
        with _explained(self.client.asker, self.client.server):
            sent = await connection.files.create(
                file=("requests.jsonl", io.BytesIO(b"\n".join(lines))), purpose="batch"
            )
            account = self.account
            record = BatchRecord(
                batch_id=None,
                dataset=account.dataset,
                stage=account.stage,
                run_id=account.run_id,
                server=self.client.server.endpoint,
                model=self.client.asker.model,
                prompt_hash=self.prompt_hash,
                sizes={plan.questions[i].hash: plan.questions[i].size for i in part},
                worst_usd=sum(worst),
                selection=account.selection,
                input_file_id=sent.id,
            )
            record = await create(connection, record, self.register)
        self.report(f"{len(part):,} requests submitted as {record.batch_id}")

    def _worst(self, body: Body, size: int) -> float:
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return self.client.profile.cost(Usage(input=size, output=longest), "batch") or 0.0

    def _afford(self, calls: int, worst_usd: float) -> None:
        under_way = self._records()
        budget = self.account.open_budget(self.client.profile.priced, self.client.asker.model)
        budget.calls += sum(len(record.sizes) for record in under_way)
        budget.usd += sum(record.worst_usd for record in under_way)
        budget.require(calls, worst_usd, f"{calls:,} requests would be submitted as one batch")

    def _pending(self, known: int, waiting: int) -> str:
        names = ", ".join(str(record.batch_id) for record in self._records())
        return (
            f"Waiting, not failed: dataset `{self.account.dataset}`, {self.account.stage}: {waiting:,} requests are "
            f"under way at {self.client.server.endpoint} in {names}, {known:,} answers are there. Run again "
            "later, or switch on the sensor `batch_answers`, which collects them and goes on by itself."
        )


async def collect(
    connection: "AsyncOpenAI",
    server: Server,
    record: BatchRecord,
    account: Account,
    profile: ModelProfile,
    register: BatchRegister,
) -> bool:
    """Put the answers of a batch that has ended into the ledger; False while it is under way, or not yet created.

    Raises:
        ProviderError: the server refuses.
    """
    with _explained(Asker("model", record.model, "lexical"), server):
        if record.batch_id is None:
            known = await look_for(connection, record, register)
            return known is not None and await collect(connection, server, known, account, profile, register)
        batch = await connection.batches.retrieve(record.batch_id)
        if batch.status not in ENDED:
            return False
        files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
        texts = [server.redact((await connection.files.content(name)).text) for name in files]
    replies = dict(_replies(texts, record))
    entries = [_entry(record, key, reply, profile) for key, reply in replies.items() if reply.fault is None]
    if entries:
        account.ledger.append(entries)
    account.totals.calls += len(entries)
    account.totals.usd += sum(entry.cost_usd or 0.0 for entry in entries)
    for entry in entries:
        account.totals.usage += entry.usage
    failures = {key: str(reply.reason) for key, reply in replies.items() if reply.fault}
    if batch.status == "failed" and not replies:
        said = [error.message for error in (batch.errors.data if batch.errors and batch.errors.data else [])]
        reason = server.redact(f"the batch failed: {'; '.join(filter(None, said))[:200] or 'no reason given'}")
        failures = dict.fromkeys(record.sizes, reason)
    if failures:
        register.write(replace(record, collected=True, failures=failures))
    else:
        register.remove(record)
    return True


def _replies(texts: Sequence[str], record: BatchRecord) -> Iterator[tuple[str, Reply]]:
    """(request, reply) of each line; what expired unanswered is left out, to be submitted again."""
    for line in (line for text in texts for line in text.splitlines() if line.strip()):
        try:
            said = json.loads(line)
        except ValueError:
            continue
        key = said.get("custom_id") if isinstance(said, Mapping) else None
        if not isinstance(key, str) or key not in record.sizes:
            continue
        response, error = said.get("response"), said.get("error")
        if isinstance(error, Mapping) and error.get("code") == "batch_expired":
            continue
        if isinstance(response, Mapping) and response.get("status_code") == 200:
            yield key, read_response(response.get("body"), None, response.get("request_id"))
        else:
            status = response.get("status_code") if isinstance(response, Mapping) else "no status"
            yield key, Reply(reason=f"the server answered {status} in a batch", fault="request")


def _entry(record: BatchRecord, key: str, reply: Reply, profile: ModelProfile) -> Entry:
    return Entry(
        request_hash=key,
        kind="chat",
        dataset=record.dataset,
        stage=record.stage,
        run_id=record.run_id,
        server=record.server,
        model=record.model,
        prompt_hash=record.prompt_hash,
        sent_bytes=record.sizes[key],
        answer=reply.content,
        parsed=written(reply.value),
        reason=reply.reason,
        usage=reply.usage,
        cost_usd=profile.cost(reply.usage, "batch"),
        tier="batch",
        model_echo=reply.model_echo,
        request_id=reply.request_id,
    )


class _explained:
    """The SDK's errors as our sentences, not chained to them: they may quote the key."""

    def __init__(self, asker: Asker, server: Server) -> None:
        self.asker, self.server = asker, server

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        import openai

        if not isinstance(error, openai.OpenAIError):
            return
        if isinstance(error, openai.APIStatusError):
            body = {"error": error.body} if isinstance(error.body, Mapping) else error.body
            found = refusal(error.status_code, body, str(error), self.asker, self.server)
            if isinstance(found, ProviderError):
                raise found from None
            why = found.reason
        else:
            why = quoted(None, str(error.__cause__ or error), self.server)
        raise ProviderError(
            f"{self.asker.name}: {self.server.endpoint} did not take the batch, because {why}. Not every "
            "server has the Batch API: set spending.tier to `standard`, or run again."
        ) from None
