"""On whose account a paid model is asked: what may be spent, what was.

Belongs here: budgets, and the running totals of a stage. Does not belong here: the ledger's table (`ledger`), prices
(`model_table`) or asking (`openai_client`).

A budget is for a dataset's whole life: what its ledger holds counts. Before a request goes out the most that it can
cost is set aside, every byte taken for a token and the longest answer allowed, so spending never passes the budget;
what it did cost is settled when it comes back, so almost all of the budget can be used.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.ledger import Ledger, Spent
from hsae_dagster.providers.model_table import NO_TOKENS, Tier, Usage
from hsae_dagster.whole_files import locked


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
        return locked(self.ledger.turn(self.dataset), lambda: report(waiting))

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
