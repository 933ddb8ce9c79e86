"""What asking will take, and on whose account: what may be spent, what was."""

import asyncio
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.ledger import Experience, Ledger, Spent
from hsae_dagster.providers.replies import NO_TOKENS, ModelProfile, Tier, Usage

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
    """Requests to come.

    Attributes:
        calls: to be made.
        known: already answered in the ledger, free.
        usage: tokens of the calls to be made.
        usd: their price, None where none is known.
        minutes: how long they take.
        within: the factor, at least 1, by which dollars may be off either way.
        minutes_within: the same of minutes.
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
        return Estimate(
            round(self.calls * factor),
            round(self.known * factor),
            Usage(round(self.usage.input * factor), 0, round(self.usage.output * factor)),
            None if self.usd is None else self.usd * factor,
            self.minutes * factor,
            self.within,
            self.minutes_within,
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
    sizes: Iterable[int],
    *,
    known: int,
    answer_tokens: float,
    profile: ModelProfile,
    tier: str,
    start: int,
    most: int,
    experience: Experience | None,
) -> Estimate:
    """Estimate requests by their size.

    Args:
        sizes: bytes of each request to be made.
        known: how many more are answered already.
        answer_tokens: expected length of an answer, where nothing was learned yet.
        profile: prices and quirks of the model.
        tier: how requests are paid.
        start: requests at once, to begin with.
        most: requests at once, if the server keeps up.
        experience: what earlier answers of the model taught, used instead of assumptions.
    """
    counted = list(sizes)
    if not counted:
        return Estimate(known=known)
    learned = experience or Experience(
        1 / BYTES_PER_TOKEN, answer_tokens + (profile.thinking_tokens / 8 if profile.priced else 0), SECONDS_PER_CALL
    )
    usage = Usage(
        input=round(sum(counted) * learned.tokens_per_byte), output=round(len(counted) * learned.output_tokens)
    )
    quickest = max(_rounds(len(counted), start, most) * learned.seconds, LEAST_SECONDS * len(counted))
    if experience is None:
        minutes, minutes_within, within = math.ceil(len(counted) / start) * learned.seconds / 60, ASSUMED, ASSUMED
    else:
        within = LEARNED
        slowest = len(counted) * learned.pace
        if learned.calls >= SHOW_THE_PACE or slowest <= quickest:
            minutes, minutes_within = slowest / 60, LEARNED
        else:
            # The server may take more at once than it was seen to, or not.
            minutes, minutes_within = math.sqrt(slowest * quickest) / 60, LEARNED * math.sqrt(slowest / quickest)
    return Estimate(len(counted), known, usage, profile.cost(usage, tier), minutes, within, minutes_within)


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
    """What a stage's answers took.

    Attributes:
        costs: what each answer cost that the stage rests on, by request, whenever it was paid; None where no price is
            known.
        calls: requests sent in this run (embeddings included).
        failed: of these, how many brought no answer.
        usage: tokens paid in this run.
        usd: dollars paid in this run, of requests with a known price.
        uncounted: calls whose tokens the server did not count; in `usd` with the most they can have cost.
    """

    costs: dict[str, float | None] = field(default_factory=dict)
    calls: int = 0
    failed: int = 0
    usage: Usage = NO_TOKENS
    usd: float = 0.0
    uncounted: int = 0


@dataclass
class Account:
    """One stage of one dataset in one run.

    Attributes:
        ledger: where answers are kept.
        dataset, stage, run_id: who asks.
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
        return self.ledger.turn(self.dataset, lambda: report(waiting))

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

        Args:
            worst_usd: the most it can cost.
            done: says how far the work is, for the error.

        Raises:
            BudgetError: it does not fit, and nothing is under way that could make room.
        """
        while not self._fits(worst_usd):
            if not self.reserved_calls:
                raise BudgetError(self._sentence(done()))
            self._settled.clear()
            await self._settled.wait()
        self.reserved_calls += 1
        self.reserved_usd += worst_usd

    def require(self, calls: int, worst_usd: float, done: str) -> None:
        """Raise BudgetError unless several requests fit at once."""
        account = self.account
        fits = account.budget_calls is None or self.calls + calls <= account.budget_calls
        if not fits or (account.budget_usd is not None and self.usd + worst_usd > account.budget_usd):
            raise BudgetError(self._sentence(done))

    def settle(self, worst_usd: float, usd: float | None) -> None:
        """Replace what was set aside by what it cost; one whose answer was lost costs the most it can have cost."""
        self.reserved_calls -= 1
        self.reserved_usd -= worst_usd
        self.calls += 1
        self.usd += usd or 0.0
        self._settled.set()

    def _fits(self, worst_usd: float) -> bool:
        account = self.account
        calls = account.budget_calls is None or self.calls + self.reserved_calls + 1 <= account.budget_calls
        usd = account.budget_usd is None or self.usd + self.reserved_usd + worst_usd <= account.budget_usd
        return calls and usd

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
