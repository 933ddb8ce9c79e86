"""The Batch API: requests handed in together, answered within a day, at half price, never paid twice."""

import asyncio
import io
import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import sqlalchemy as sa

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.base import Report
from hsae_dagster.providers.openai.request import Client
from hsae_dagster.providers.openai.requests import Asker, Body, Plan, Server, packed, quoted, refusal, wire
from hsae_dagster.providers.replies import ModelProfile, Reply, read_response
from hsae_dagster.providers.spending import Account, Entry, as_row, written
from hsae_dagster.storage.records import CALLS, Document, Records

if TYPE_CHECKING:
    from openai import AsyncOpenAI


_KIND = "batch"


@dataclass(frozen=True)
class BatchRecord:
    """A batch that was submitted, or is about to be; who asked, and what, are as in the ledger.

    Attributes:
        batch_id: the server's name for it; None from before it is created until its creation is known.
        sizes: bytes of each request, by its hash.
        worst_usd: the most that it can cost.
        selection: assets of the run that submitted it, or None for all.
        collected: its answers are in the ledger; the record stays for `failures`.
        failures: why requests got no answer, by hash; asked again only after a run has taken note.
        input_file_id: the server's name for the uploaded requests; no other batch has it.
        name: of the record itself.
        intended_at: seconds since 1970 by this machine's clock, before the batch was created.
    """

    batch_id: str | None
    dataset: str
    stage: str
    run_id: str
    server: str
    model: str
    prompt_hash: str | None
    sizes: Mapping[str, int]
    worst_usd: float
    selection: tuple[str, ...] | None = None
    collected: bool = False
    failures: Mapping[str, str] = field(default_factory=dict)
    input_file_id: str = ""
    name: str = field(default_factory=lambda: f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}")
    intended_at: float = field(default_factory=time.time)


class BatchRegister:
    """The records under one results folder.

    Raises:
        StorageError: from every method, where a record is damaged or cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def all(self, dataset: str | None = None) -> list[BatchRecord]:
        """Records, of one dataset or of all, oldest name first."""
        with Records(self.root).reading() as records:
            found = [document.body for document in records.all(_KIND, dataset)]
        selections = [None if one["selection"] is None else tuple(one["selection"]) for one in found]
        every = [BatchRecord(**{**one, "selection": few}) for one, few in zip(found, selections, strict=True)]
        return sorted(every, key=lambda record: record.name)

    def write(self, record: BatchRecord) -> None:
        """Add or replace a record."""
        with Records(self.root).writing() as records:
            records.put(_document(record))

    def remove(self, record: BatchRecord) -> None:
        """Forget a batch that came to nothing, or whose failures were taken note of."""
        with Records(self.root).writing() as records:
            records.remove(_document(record))

    def settle(self, record: BatchRecord, answers: Sequence[Entry], failures: Mapping[str, str]) -> bool:
        """Put the answers of a batch that has ended into the ledger, once; False where another process was first."""
        with Records(self.root).writing() as records:
            known = records.get(_KIND, record.dataset, record.name)
            if known is None or known.body["collected"]:
                return False
            if answers:
                records.execute(sa.insert(CALLS), [as_row(entry) for entry in answers])
            records.remove(_document(record))
            if failures:
                records.put(_document(replace(record, collected=True, failures=failures)))
        return True


def _document(record: BatchRecord) -> Document:
    return Document(_KIND, record.dataset, record.name, asdict(record))


def connected(server: Server) -> "AsyncOpenAI":
    """The SDK's connection to a server. Use as an asynchronous context manager."""
    import httpx2
    import openai

    parts = urlsplit(server.base_url)
    http = openai.DefaultAioHttpClient(
        timeout=openai.Timeout(server.timeout, connect=10.0),
        # A proxy has no business between us and ourselves.
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


# Before each look for a batch whose creation got no clear answer, and the next try; the last try is the last.
PAUSES = (1.0, 4.0, 15.0)
# The server's clock may be another than ours.
CLOCK_SECONDS = 86_400.0
PAGE = 100
# What servers without a list of batches answer.
_NO_LIST = (400, 404, 405, 422, 501)


async def create(connection: "AsyncOpenAI", record: BatchRecord, register: BatchRegister) -> BatchRecord:
    """Create the batch that a record intends; the record with the batch's name, both times written.

    The SDK would repeat a request that was carried out but whose answer got lost; here the batch is looked for first.

    Raises:
        openai.OpenAIError: the server refuses, and the record is gone; or it cannot be heard of, and the record stays
            for the next run to look for the batch.
    """
    import openai

    register.write(record)
    once = connection.with_options(max_retries=0)
    for pause in (*PAUSES, None):
        try:
            batch = await once.batches.create(
                input_file_id=record.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            return _known(record, batch.id, register)
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
            if pause is None:
                raise
            await asyncio.sleep(pause)
            if (found := await _batch_of(connection, record)) is not None:
                return _known(record, found, register)
        except openai.APIStatusError:
            register.remove(record)
            raise
    raise AssertionError


async def look_for(connection: "AsyncOpenAI", record: BatchRecord, register: BatchRegister) -> BatchRecord | None:
    """The record with the name of the batch it intended, written; None while the server lists no such batch.

    Raises:
        ProviderError: the server has no list of batches.
        openai.OpenAIError: it refuses.
    """
    import openai

    try:
        found = await _batch_of(connection, record)
    except openai.APIStatusError as error:
        if error.status_code not in _NO_LIST:
            raise
        raise ProviderError(
            f"Dataset `{record.dataset}`, {record.stage}: a run ended while it submitted {len(record.sizes):,} "
            f"requests to {record.server} as a batch. Whether that exists cannot be seen, for the server does not list "
            f"its batches (it answered {error.status_code}). If it has a batch of file {record.input_file_id}, cancel "
            f"it there; then `hsae ask-again {record.dataset} --batches`, and run again."
        ) from error
    return None if found is None else _known(record, found, register)


def _known(record: BatchRecord, batch_id: str, register: BatchRegister) -> BatchRecord:
    known = replace(record, batch_id=batch_id)
    register.write(known)
    return known


async def _batch_of(connection: "AsyncOpenAI", record: BatchRecord) -> str | None:
    # Newest first.
    async for batch in connection.batches.list(limit=PAGE):
        if batch.input_file_id == record.input_file_id:
            return batch.id
        if batch.created_at < record.intended_at - CLOCK_SECONDS:
            return None
    return None


# OpenAI's limits of one batch.
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
ENDED = {"completed", "expired", "failed", "cancelled"}


class BatchPendingError(ProviderError):
    """Answers are under way in a batch; nothing is wrong."""


@dataclass(eq=False)
class BatchRound:
    """One look at the batches of an account: collect, submit, and say what is still under way."""

    client: Client
    account: Account
    bodies: Sequence[Body]
    prompt_hash: str | None
    report: Report

    def __post_init__(self) -> None:
        self.register = BatchRegister(self.account.ledger.root)

    async def run(self) -> dict[str, Reply]:
        """Requests that a batch could not answer, as replies; whatever was answered is in the ledger.

        Raises:
            BatchPendingError: some requests are under way.
            BudgetError: what is left to submit could pass the budget.
            ProviderError: the server refuses.
        """
        async with connected(self.client.server) as connection:
            for record in await self._created(connection):
                await collect(connection, self.client.server, record, self.account, self.client.profile, self.register)
            plan = self.client.plan(self.bodies)
            failed = self._take_failures(plan)
            waiting = {key for record in self._records() for key in record.sizes}
            todo = [i for i in plan.todo if plan.questions[i].hash not in waiting | failed.keys()]
            # With room for what stands around each request in the file.
            sizes = (plan.questions[i].size + 200 for i in todo)
            for part in packed(sizes, MOST_REQUESTS, MOST_BYTES):
                await self._submit(connection, plan, todo[part.start : part.stop])
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

    async def _submit(self, connection: "AsyncOpenAI", plan: Plan, part: Sequence[int]) -> None:
        worst_usd = sum(self.client.worst(self.bodies[i], plan.questions[i].size, "batch") for i in part)
        under_way = self._records()
        budget = self.account.open_budget(self.client.profile.priced, self.client.asker.model)
        budget.calls += sum(len(record.sizes) for record in under_way)
        budget.usd += sum(record.worst_usd for record in under_way)
        budget.require(len(part), worst_usd, f"{len(part):,} requests would be submitted as one batch")
        each = {"method": "POST", "url": "/v1/chat/completions"}
        lines = [wire({"custom_id": plan.questions[i].hash, **each, "body": self.bodies[i]}) for i in part]
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
                worst_usd=worst_usd,
                selection=account.selection,
                input_file_id=sent.id,
            )
            record = await create(connection, record, self.register)
        self.report(f"{len(part):,} requests submitted as {record.batch_id}")

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
    failures = {key: str(reply.reason) for key, reply in replies.items() if reply.fault}
    if batch.status == "failed" and not replies:
        said = [error.message for error in (batch.errors.data if batch.errors and batch.errors.data else [])]
        reason = server.redact(f"the batch failed: {'; '.join(filter(None, said))[:200] or 'no reason given'}")
        failures = dict.fromkeys(record.sizes, reason)
    for entry in entries if register.settle(record, entries, failures) else ():
        account.totals.calls += 1
        account.totals.usd += entry.cost_usd or 0.0
        account.totals.usage += entry.usage
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


@contextmanager
def _explained(asker: Asker, server: Server) -> Iterator[None]:
    """The SDK's errors as our sentences, not chained to them: they may quote the key."""
    import openai

    try:
        yield
    except openai.OpenAIError as error:
        if isinstance(error, openai.APIStatusError):
            body = {"error": error.body} if isinstance(error.body, Mapping) else error.body
            found = refusal(error.status_code, body, str(error), asker, server)
            if isinstance(found, ProviderError):
                raise found from None
            why = found.reason
        else:
            why = quoted(None, str(error.__cause__ or error), server)
        raise ProviderError(
            f"{asker.name}: {server.endpoint} did not take the batch, because {why}. Not every server has the Batch "
            "API: set spending.tier to `standard`, or run again."
        ) from None
