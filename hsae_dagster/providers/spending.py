"""What paid models were asked, answered and cost (the ledger), what asking will take, and on whose account.

A request is a row of the ledger from before it is sent: `intent` while nothing is heard of it, whoever sent it.
"""

import asyncio
import json
import math
import os
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from hsae_dagster.errors import HsaeError, ProviderError
from hsae_dagster.keys import hash_json
from hsae_dagster.providers.replies import NO_TOKENS, ModelProfile, Tier, Usage, is_refusal, read_again
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
    """One answer, to the request of this hash (`providers.openai.requests.Question`).

    Attributes:
        kind: `chat` or `embeddings`; `intent`: sent, and its answer never seen; `taken back`: unusable answers to the
            request from before this row count no longer.
        dataset, stage, run_id: on whose account it was asked first.
        server, model: host, port and path; the model as asked.
        answer: what the model wrote, None for vectors.
        parsed: the JSON object in it, as JSON, or None.
        reason: why it holds none (refused, empty, cut off, not JSON) or nothing that was asked for, or None.
        cost_usd: at the prices of that day, None where no price was known; where the server counted no tokens (`usage`
            is zeros), the most it can have cost.
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
    """How many requests there were, what those of a known price cost, and how many were `unpriced`.

    `lost` ones never got an answer, of `uncounted` ones the server did not count the tokens: both are in `usd` with the
    most they can have cost.
    """

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    lost: int = 0
    uncounted: int = 0


@dataclass(frozen=True)
class Experience:
    """What earlier answers of one model to one prompt teach: tokens per byte sent, tokens and seconds of an answer.

    `pace` is the seconds for each of the `calls` while some were under way: fewer where several were at once.
    """

    tokens_per_byte: float
    output_tokens: float
    seconds: float
    calls: int = 1
    pace: float = 0.0


class Ledger:
    """The calls under one results folder, or in the database that it shares with others.

    Raises:
        StorageError: from every method, where the database is damaged or cannot be written.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.records = root, Records(root)

    def write(self, changes: Sequence[Change]) -> None:
        """Make changes in one transaction."""
        rows = [row for row, _ in changes if row]
        gone = [{"gone": key} for _, key in changes if key]
        if changes:
            with self.records.writing(alone=False) as records:
                if gone:
                    records.execute(sa.delete(CALLS).where(CALLS.c.id == sa.bindparam("gone")), gone)
                if rows:
                    records.execute(sa.insert(CALLS), rows)

    def find(self, hashes: Collection[str], server: str, model: str) -> dict[str, Entry]:
        """Chat answers to the given requests, by hash: the first usable one, else the first; none taken back."""
        found: dict[str, Entry] = {}
        wanted = list(set(hashes))
        of_model = sa.select(CALLS).where(CALLS.c.kind == "chat", CALLS.c.server == server, CALLS.c.model == model)
        with self.records.reading() as records:
            for at in range(0, len(wanted), _AT_ONCE):
                asked = of_model.where(CALLS.c.request_hash.in_(wanted[at : at + _AT_ONCE]))
                for entry in filter(None, map(_entry, records.rows(asked.order_by(CALLS.c.created)))):
                    held = found.get(entry.request_hash)
                    if held is None or (_unusable(held) and not _unusable(entry)):
                        found[entry.request_hash] = entry
        return found

    def unusable(self, dataset: str) -> list[Entry]:
        """Chat answers of a dataset that hold nothing usable and stand instead of a usable one."""
        query = sa.select(CALLS.c.server, CALLS.c.model, CALLS.c.request_hash).where(
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
        """Have unusable answers count no longer: their requests are asked again. What they cost stays spent."""
        named = ("request_hash", "server", "model")
        asked = sa.update(CALLS).where(*(CALLS.c[name] == sa.bindparam(f"of_{name}") for name in named))
        asked = asked.where(CALLS.c.kind == "chat", CALLS.c.reason.is_not(None)).values(kind=TAKEN_BACK)
        if entries:
            with self.records.writing() as records:
                records.execute(asked, [{f"of_{name}": getattr(e, name) for name in named} for e in entries])

    def spent(self, dataset: str) -> Spent:
        """What a dataset has cost so far, in every run: answers, and requests whose answer never arrived."""
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

    def experience(self, server: str, model: str, prompt_hash: str | None) -> Experience | None:
        """What answers of this model to this prompt (or embeddings, without one) teach; None without any."""
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

    Raises:
        StorageError: from every method, where the database cannot be written.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._turn = ledger, asyncio.Lock()
        self._waiting: list[Change] = []
        self._failed: HsaeError | None = None

    async def write(self, row: Mapping[str, Any] | None, instead_of: str | None = None) -> None:
        """Return when a row is committed, and the row of the id `instead_of` is gone."""
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
        """Commit what still waits, where the loop has come to its end."""
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
    again = read_again(entry.reason, entry.answer)
    return entry.reason is not None and (again is None or again.reason is not None)


# Before anything is known of a model: tokenizers of OpenAI's family make about one token of 4.5 bytes of English and
# of 3 bytes of many other writings, so this errs on the side of more.
BYTES_PER_TOKEN = 3
SECONDS_PER_CALL = 2.0
# How far off tokens and minutes may be, as a factor either way: as learned from answers to the same prompt, or assumed.
LEARNED, ASSUMED = 1.15, 2.0
# So many answers show at which pace a server goes on; fewer leave open whether it works on more at once.
SHOW_THE_PACE = 200
# What this side needs for a request, at best (`benchmarks/llm_client.py`).
LEAST_SECONDS = 0.002


@dataclass(frozen=True)
class Estimate:
    """Requests to come: `calls` to be made, with their tokens, price (None where none is known) and minutes.

    Those `known` are answered in the ledger, free. By the factors `within` and `minutes_within`, at least 1, dollars
    and minutes may be off either way.
    """

    calls: int = 0
    known: int = 0
    usage: Usage = NO_TOKENS
    usd: float | None = 0.0
    minutes: float = 0.0
    within: float = 1.0
    minutes_within: float = 1.0

    def __add__(self, other: "Estimate") -> "Estimate":
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        return Estimate(
            self.calls + other.calls,
            self.known + other.known,
            self.usage + other.usage,
            usd,
            self.minutes + other.minutes,
            max(self.within, other.within),
            max(self.minutes_within, other.minutes_within),
        )

    def scaled(self, factor: float) -> "Estimate":
        """As many times the calls, tokens, dollars and minutes."""
        return replace(
            self,
            calls=round(self.calls * factor),
            known=round(self.known * factor),
            usage=Usage(round(self.usage.input * factor), 0, round(self.usage.output * factor)),
            usd=None if self.usd is None else self.usd * factor,
            minutes=self.minutes * factor,
        )

    @property
    def price(self) -> str:
        """Dollars in words, as a range where they are not certain."""
        return "price unknown" if self.usd is None else _range(dollars, self.usd, self.within)

    @property
    def time(self) -> str:
        """Minutes in words, as a range where they are not certain."""
        return _range(duration, self.minutes, self.minutes_within)

    def __str__(self) -> str:
        if not self.calls:
            return f"no call, {self.known:,} answers are in the ledger"
        held = f"; {self.known:,} answers are in the ledger" if self.known else ""
        return (
            f"about {self.calls:,} calls, {self.usage.input:,} tokens in, {self.usage.output:,} out, {self.price}, "
            f"{self.time}{held}"
        )


def _range(words: Callable[[float], str], value: float, within: float) -> str:
    least, most = words(value / within), words(value * within)
    return most if least == most else f"{least} to {most}"


def dollars(usd: float) -> str:
    """A price as people read it, with the digits that matter in small ones."""
    return f"${usd:,.2f}" if usd >= 1 else f"${usd:.4f}"


def duration(minutes: float) -> str:
    """A length of time, rounded."""
    return f"{math.ceil(minutes):,} min" if minutes >= 1 else f"{math.ceil(minutes * 60)} s"


def estimate_calls(
    sizes: Sequence[int],
    *,
    answer_tokens: float,
    profile: ModelProfile,
    tier: str,
    start: int,
    most: int,
    experience: Experience | None,
) -> Estimate:
    """Estimate requests by their sizes in bytes: `start` at once to begin with, `most` if the server keeps up.

    `experience` is used instead of assumptions, among them `answer_tokens`, the expected length of an answer.
    """
    calls = len(sizes)
    if not calls:
        return Estimate()
    learned = experience or Experience(
        1 / BYTES_PER_TOKEN, answer_tokens + (profile.thinking_tokens / 8 if profile.priced else 0), SECONDS_PER_CALL
    )
    usage = Usage(round(sum(sizes) * learned.tokens_per_byte), 0, round(calls * learned.output_tokens))
    quickest = max(_rounds(calls, start, most) * learned.seconds, LEAST_SECONDS * calls)
    if experience is None:
        minutes, minutes_within, within = math.ceil(calls / start) * learned.seconds / 60, ASSUMED, ASSUMED
    else:
        within, slowest = LEARNED, calls * learned.pace
        if learned.calls >= SHOW_THE_PACE or slowest <= quickest:
            minutes, minutes_within = slowest / 60, LEARNED
        else:
            # The server may take more at once than it was seen to, or not.
            minutes, minutes_within = math.sqrt(slowest * quickest) / 60, LEARNED * math.sqrt(slowest / quickest)
    return Estimate(calls, 0, usage, profile.cost(usage, tier), minutes, within, minutes_within)


def _rounds(calls: int, start: int, most: int) -> int:
    """Answers one after the other of a server that works on everything at once, while what is sent at once doubles."""
    rounds, at_once = 0, start
    while calls > 0 and at_once < most:
        rounds, calls, at_once = rounds + 1, calls - at_once, min(2 * at_once, most)
    return rounds + math.ceil(max(calls, 0) / at_once)


class BudgetError(ProviderError):
    """The next request could pass the dataset's budget."""


@dataclass
class Totals:
    """What a stage's answers took in this run, as in `Spent`; `failed` calls brought no answer.

    `costs` has what each answer cost that the stage rests on, by request, whenever it was paid; None where no price is
    known.
    """

    costs: dict[str, float | None] = field(default_factory=dict)
    calls: int = 0
    failed: int = 0
    usage: Usage = NO_TOKENS
    usd: float = 0.0
    uncounted: int = 0


@dataclass
class Account:
    """One stage of one dataset in one run: who asks, and at whose expense.

    Attributes:
        budget_usd, budget_calls: most that the dataset may ever cost, or None.
        tier: how requests are paid.
        selection: assets of the run, or None for all; a batch's answers go on with them.
        trial: told what happens when estimates try servers out; None for estimates that ask nobody.
        environment: with the address and key of the server to ask.
        totals: what this stage took so far.
    """

    ledger: Ledger
    dataset: str
    stage: str
    run_id: str
    budget_usd: float | None = None
    budget_calls: int | None = None
    tier: Tier = "standard"
    selection: tuple[str, ...] | None = None
    trial: Callable[[str], None] | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    totals: Totals = field(default_factory=Totals)

    def turn(self, report: Callable[[str], None]) -> AbstractContextManager[object]:
        """Ask only while this is held: with a budget or by batch, runs of one dataset ask one after the other.

        Each knows what the ledger and the records of batches held when it began: two at once would each spend what is
        left, or submit the same batch. Waiting costs little, for they mostly ask the same: what the first was answered
        or submitted, the second finds.
        """
        if self.budget_usd is None and self.budget_calls is None and self.tier != "batch":
            return nullcontext()
        why = "is at its batches" if self.tier == "batch" else "asks on the same budget"
        waiting = f"another run of `{self.dataset}` {why}; this one goes on when that has ended"
        return self.ledger.records.turn(f"budget-{hash_json(self.dataset)}", lambda: report(waiting))

    def open_budget(self, priced: bool, model: str) -> "Budget":
        """The budget as it stands now.

        Raises:
            ProviderError: a budget in dollars is set and nobody knows what the model costs.
        """
        if self.budget_usd is not None and not priced:
            raise ProviderError(
                f"Dataset `{self.dataset}` has spending.budget_usd, but no price is known for `{model}`, so it cannot "
                "be kept. Give the model's prices in a file named by HSAE_MODELS, or set spending.budget_calls instead."
            )
        unlimited = self.budget_usd is None and self.budget_calls is None
        spent = Spent() if unlimited else self.ledger.spent(self.dataset)
        return Budget(self, spent)


class Budget:
    """Money set aside and settled, by one event loop."""

    def __init__(self, account: Account, spent: Spent) -> None:
        self.account = account
        self.calls = spent.calls
        self.usd = spent.usd
        self.reserved_calls = 0
        self.reserved_usd = 0.0
        self._settled = asyncio.Event()

    async def reserve(self, worst_usd: float, done: Callable[[], str]) -> None:
        """Set aside the most that one request can cost; waits while requests under way may still turn out cheaper.

        Raises:
            BudgetError: it does not fit, and nothing is under way that could make room; with what `done` says.
        """
        while not self._fits(1, worst_usd):
            if not self.reserved_calls:
                raise BudgetError(self._sentence(done()))
            self._settled.clear()
            await self._settled.wait()
        self.reserved_calls += 1
        self.reserved_usd += worst_usd

    def require(self, calls: int, worst_usd: float, done: str) -> None:
        """Raise BudgetError unless several requests fit at once."""
        if not self._fits(calls, worst_usd):
            raise BudgetError(self._sentence(done))

    def settle(self, worst_usd: float, usd: float | None) -> None:
        """Replace what was set aside by what it cost; one whose answer was lost costs the most it can have cost."""
        self.reserved_calls -= 1
        self.reserved_usd -= worst_usd
        self.calls += 1
        self.usd += usd or 0.0
        self._settled.set()

    def _fits(self, more: int, worst_usd: float) -> bool:
        calls, usd = self.account.budget_calls, self.account.budget_usd
        return (calls is None or self.calls + self.reserved_calls + more <= calls) and (
            usd is None or self.usd + self.reserved_usd + worst_usd <= usd
        )

    def _sentence(self, done: str) -> str:
        account = self.account
        limits = []
        if account.budget_usd is not None:
            limits.append(f"spending.budget_usd of ${account.budget_usd:,.2f} (${self.usd:,.4f} spent)")
        if account.budget_calls is not None:
            limits.append(f"spending.budget_calls of {account.budget_calls:,} ({self.calls:,} made)")
        return (
            f"Dataset `{account.dataset}`, {account.stage}: the next request could pass {' or '.join(limits)}. {done}. "
            "Every answer so far is kept: raise the budget in dataset.yaml and run again, and only what is left is "
            "asked."
        )
