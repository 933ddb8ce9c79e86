"""The ledger: every answer of a paid model, kept for ever, by the hash of what was asked.

A request is a row from before it is sent: `intent` while nothing is heard of it, whoever sent it.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from hsae_dagster.errors import HsaeError
from hsae_dagster.keys import hash_json
from hsae_dagster.providers.replies import Usage, is_refusal, readable_now
from hsae_dagster.storage.records import CALLS, Records

# A row to add, and the id of one to take away before.
Change = tuple[Mapping[str, Any] | None, str | None]
INTENT, TAKEN_BACK = "intent", "taken back"
# What a server said, which may hold any character.
_SAID = ("answer", "parsed", "reason", "model_echo", "request_id")
# So many requests are looked up at once.
_AT_ONCE = 5_000


@dataclass(frozen=True)
class Entry:
    """One answer.

    Attributes:
        request_hash: of the whole body and the server (`providers.openai.client.request_hash`).
        kind: `chat` or `embeddings`; `intent`: sent, and its answer never seen; `taken back`: unusable answers to the
            request from before this row count no longer.
        dataset, stage, run_id: on whose account it was asked first.
        server: host, port and path.
        model: as asked.
        prompt_hash: of the prompt file, or None.
        sent_bytes: size of the request.
        answer: what the model wrote, None for vectors.
        parsed: the JSON object in it, as JSON, or None.
        reason: why it holds none (refused, empty, cut off, not JSON) or nothing that was asked for, or None.
        usage: tokens.
        cost_usd: at the prices of that day, None where no price was known; where the server counted no tokens (zeros
            above), the most it can have cost.
        tier: how it was paid.
        model_echo, request_id: as the server named them.
        seconds: from asking to answer, retries included.
        created: nanoseconds since 1970, UTC.
    """

    request_hash: str
    kind: str
    dataset: str
    stage: str
    run_id: str
    server: str
    model: str
    prompt_hash: str | None
    sent_bytes: int
    answer: str | None
    parsed: str | None
    reason: str | None
    usage: Usage
    cost_usd: float | None
    tier: str
    model_echo: str | None = None
    request_id: str | None = None
    seconds: float = 0.0
    created: int = field(default_factory=time.time_ns)

    @property
    def refused(self) -> bool:
        """Whether the answer was withheld by choice."""
        return is_refusal(self.reason)


@dataclass(frozen=True)
class Spent:
    """What requests have cost.

    Attributes:
        calls: how many.
        usd: dollars of those with a known price.
        unpriced: calls without one.
        lost: calls whose answer never arrived, in `usd` with the most they can have cost.
        uncounted: calls whose tokens the server did not count, in `usd` with the most they can have cost.
    """

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    lost: int = 0
    uncounted: int = 0


@dataclass(frozen=True)
class Experience:
    """What earlier answers of one model to one prompt teach.

    Attributes:
        tokens_per_byte: of what was sent.
        output_tokens: of an answer.
        seconds: from asking to answer.
        calls: answers that teach.
        pace: seconds for each of them while some were under way: less than `seconds` where several were at once.
    """

    tokens_per_byte: float
    output_tokens: float
    seconds: float
    calls: int = 1
    pace: float = 0.0


class Ledger:
    """The calls under one results folder, or in the database that it shares with others."""

    def __init__(self, root: Path) -> None:
        self.root, self.records = root, Records(root)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add answers in one transaction.

        Raises:
            StorageError: the database cannot be written.
        """
        self.write([(as_row(entry), None) for entry in entries])

    def write(self, changes: Sequence[Change]) -> None:
        """Make changes in one transaction.

        Raises:
            StorageError: the database cannot be written.
        """
        rows = [row for row, _ in changes if row]
        gone = [{"gone": key} for _, key in changes if key]
        if changes:
            with self.records.writing(alone=False) as records:
                if gone:
                    records.execute(sa.delete(CALLS).where(CALLS.c.id == sa.bindparam("gone")), gone)
                if rows:
                    records.execute(sa.insert(CALLS), rows)

    def find(self, hashes: Collection[str], server: str, model: str) -> dict[str, Entry]:
        """Chat answers to the given requests, by hash: the first usable one, else the first; none taken back.

        Raises:
            StorageError: the database is damaged.
        """
        found: dict[str, Entry] = {}
        with self.records.reading() as records:
            wanted = list(set(hashes))
            for some in (wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)):
                asked = sa.select(CALLS).where(CALLS.c.request_hash.in_(some), CALLS.c.kind == "chat")
                asked = asked.where(CALLS.c.server == server, CALLS.c.model == model).order_by(CALLS.c.created)
                for entry in filter(None, map(_entry, records.rows(asked))):
                    held = found.get(entry.request_hash)
                    if held is None or (_unusable(held) and not _unusable(entry)):
                        found[entry.request_hash] = entry
        return found

    def unusable(self, dataset: str) -> list[Entry]:
        """Chat answers of a dataset that hold nothing usable and stand instead of a usable one.

        Raises:
            StorageError: the database is damaged.
        """
        columns = (CALLS.c.server, CALLS.c.model, CALLS.c.request_hash)
        query = sa.select(*columns).where(
            CALLS.c.dataset == dataset, CALLS.c.kind == "chat", CALLS.c.reason.is_not(None)
        )
        asked: dict[tuple[str, str], set[str]] = {}
        with self.records.reading() as records:
            for row in records.rows(query):
                asked.setdefault((row["server"], row["model"]), set()).add(row["request_hash"])
        return [
            entry
            for (server, model), hashes in asked.items()
            for entry in self.find(hashes, server, model).values()
            if _unusable(entry)
        ]

    def take_back(self, entries: Sequence[Entry]) -> None:
        """Have unusable answers count no longer: their requests are asked again. What they cost stays spent.

        Raises:
            StorageError: the database cannot be written.
        """
        named = ("request_hash", "server", "model")
        asked = sa.update(CALLS).where(*(CALLS.c[name] == sa.bindparam(f"of_{name}") for name in named))
        asked = asked.where(CALLS.c.kind == "chat", CALLS.c.reason.is_not(None)).values(kind=TAKEN_BACK)
        if entries:
            with self.records.writing() as records:
                records.execute(asked, [{f"of_{name}": getattr(e, name) for name in named} for e in entries])

    def spent(self, dataset: str) -> Spent:
        """What a dataset has cost so far, in every run: answers, and requests whose answer never arrived.

        Raises:
            StorageError: the database is damaged.
        """
        query = sa.select(CALLS.c.kind, CALLS.c.input_tokens, CALLS.c.cost_usd).where(CALLS.c.dataset == dataset)
        with self.records.reading() as records:
            rows = records.rows(query)
        known = [row["cost_usd"] for row in rows if row["cost_usd"] is not None]
        return Spent(
            len(rows),
            sum(sorted(known)),
            len(rows) - len(known),
            lost=sum(row["kind"] == INTENT for row in rows),
            uncounted=sum(row["kind"] != INTENT and not row["input_tokens"] and bool(row["cost_usd"]) for row in rows),
        )

    def turn(self, dataset: str, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Held by one run of a dataset at a time, as they share a budget; `waiting` is called if another has it."""
        return self.records.turn(f"budget-{hash_json(dataset)}", waiting)

    def experience(self, server: str, model: str, prompt_hash: str | None) -> Experience | None:
        """What answers of this model to this prompt (or embeddings, without one) teach; None without any.

        Raises:
            StorageError: the database is damaged.
        """
        columns = ("sent_bytes", "input_tokens", "output_tokens", "seconds", "created")
        query = sa.select(*(CALLS.c[name] for name in columns)).where(
            CALLS.c.server == server,
            CALLS.c.model == model,
            CALLS.c.prompt_hash.is_not_distinct_from(prompt_hash),
            CALLS.c.input_tokens > 0,
        )
        with self.records.reading() as records:
            rows = records.rows(query)
        if not rows:
            return None
        taught = {name: np.array([row[name] for row in rows]) for name in columns}
        n = len(rows)
        return Experience(
            float(taught["input_tokens"].sum() / taught["sent_bytes"].sum()),
            float(taught["output_tokens"].sum() / n),
            float(taught["seconds"].sum() / n),
            n,
            _busy(taught["seconds"], taught["created"]) / n,
        )


class Journal:
    """The calls of one round on their way into the ledger, by one event loop.

    Those that come while others are being committed are committed together, by whichever is next.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._turn = ledger, asyncio.Lock()
        self._waiting: list[Change] = []
        self._failed: HsaeError | None = None

    async def write(self, row: Mapping[str, Any] | None, instead_of: str | None = None) -> None:
        """Return when a row is committed, and the row of the id `instead_of` is gone.

        Raises:
            StorageError: the database cannot be written.
        """
        batch = self._waiting
        batch.append((row, instead_of))
        async with self._turn:
            if batch is self._waiting and not self._failed:
                self._waiting = []
                try:
                    await asyncio.to_thread(self._ledger.write, batch)
                except HsaeError as error:
                    self._failed = error
        if self._failed:
            raise self._failed

    def close(self) -> None:
        """Commit what still waits, where the loop has come to its end.

        Raises:
            StorageError: the database cannot be written.
        """
        batch, self._waiting = self._waiting, []
        self._ledger.write(batch)


def written(value: Any) -> str | None:
    """A parsed answer as the ledger keeps it."""
    return None if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)


def total(costs: Iterable[float | None]) -> Spent:
    """What some answers cost together, whenever they were paid; the same sum in any order."""
    counted = list(costs)
    known = [cost for cost in counted if cost is not None]
    return Spent(len(counted), round(sum(sorted(known)), 9), len(counted) - len(known))


def as_row(entry: Entry, key: str | None = None) -> dict[str, Any]:
    """An entry as a row of `calls`, under a new id if none is given."""
    row = dict(vars(entry))
    usage = row.pop("usage")
    row |= {"input_tokens": usage.input, "cached_tokens": usage.cached, "output_tokens": usage.output}
    row |= {name: json.dumps(row[name]) for name in _SAID if row[name] is not None}
    row |= {name: float(row[name]) for name in ("seconds", "cost_usd") if row[name] is not None}
    return {**row, "id": key or uuid.uuid4().hex, "seal": hash_json(row)}


def _busy(seconds: np.ndarray, created: np.ndarray) -> float:
    """Seconds in which at least one request was under way, of requests that took `seconds` and ended at `created`."""
    ended = (created - created.min()) / 1e9
    order = np.argsort(ended - seconds, kind="stable")
    began, latest = (ended - seconds)[order], np.maximum.accumulate(ended[order])
    return float(np.maximum(latest - np.maximum(began, np.r_[-np.inf, latest[:-1]]), 0.0).sum())


def _entry(row: dict[str, Any]) -> Entry | None:
    """The entry of a row; None where it is not what was written."""
    if row.pop("seal") != hash_json({name: value for name, value in row.items() if name != "id"}):
        return None
    row.pop("id")
    row |= {name: json.loads(row[name]) for name in _SAID if row[name] is not None}
    return Entry(usage=Usage(*(row.pop(f"{name}_tokens") for name in ("input", "cached", "output"))), **row)


def _unusable(entry: Entry) -> bool:
    return entry.reason is not None and not readable_now(entry.reason, entry.answer)
