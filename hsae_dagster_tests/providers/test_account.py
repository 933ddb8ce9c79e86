"""A budget is never passed, and what it stops is told and goes on."""

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.replies import Usage, profile_of
from hsae_dagster.providers.spending import BudgetError, Estimate, Ledger, estimate_calls
from hsae_dagster_tests.providers.accounts import account, body, client, echo, keep, priced, silence
from hsae_dagster_tests.providers.loopback import Loopback, Raw, completion, failure
from hsae_dagster_tests.providers.test_ledger import entry

pytestmark = pytest.mark.usefixtures("environment")


def billed(request: dict[str, Any], call: int) -> Raw:
    """An answer that costs what its text says: `<tokens in> <tokens out>`, at most what was set aside."""
    tokens_in, tokens_out, _ = request["messages"][0]["content"].split()
    answer = completion('{"said": "x"}')
    return Raw({**answer.body, "usage": {"prompt_tokens": int(tokens_in), "completion_tokens": int(tokens_out)}})


def test_dollars_are_never_passed_and_nearly_all_are_used(tmp_path: Path) -> None:
    priced(tmp_path)
    # About 0.07 to 0.12 dollars each; at most 0.22 (a byte is at most a token, and five tokens of answer).
    texts = [body(f"{60 + n % 50} {n % 6} {n}") for n in range(200)]
    with Loopback(billed) as loopback:
        for budget, enough in ((1.0, False), (2.5, False), (30.0, True)):
            asked_by = account(tmp_path, budget_usd=budget)
            if enough:
                assert len(client(loopback, asked_by).ask_all(texts, silence)) == 200
            else:
                with pytest.raises(BudgetError) as error:
                    client(loopback, asked_by).ask_all(texts, silence)
                said = str(error.value)
                assert f"spending.budget_usd of ${budget:.2f}" in said
                answered = Ledger(tmp_path).spent("d").calls
                assert f"{answered:,} answers are there, {200 - answered:,} requests are left" in said
                assert "raise the budget in dataset.yaml and run again" in said
                assert budget - 0.25 <= Ledger(tmp_path).spent("d").usd <= budget
    assert len(loopback.calls) == Ledger(tmp_path).spent("d").calls == 200


@pytest.mark.parametrize("budget", [1, 7, 40])
def test_calls_are_never_passed_and_all_are_used(tmp_path: Path, budget: int) -> None:
    with Loopback(echo) as loopback:
        with pytest.raises(BudgetError, match=rf"spending\.budget_calls of {budget} \({budget} made\)"):
            client(loopback, account(tmp_path, budget_calls=budget)).ask_all([body(str(n)) for n in range(60)], silence)
        assert len(loopback.calls) == budget
        with pytest.raises(BudgetError):
            client(loopback, account(tmp_path, budget_calls=budget)).ask_all([body(str(n)) for n in range(60)], silence)
        assert len(loopback.calls) == budget
        replies = client(loopback, account(tmp_path, budget_calls=60)).ask_all(
            [body(str(n)) for n in range(60)], silence
        )
    assert len(loopback.calls) == 60
    assert all(reply.value for reply in replies)


def test_two_runs_that_ask_at_once_do_not_pass_the_budget_together(tmp_path: Path) -> None:
    """Each in a thread of its own; `flock` tells two open files apart just as it does two processes."""
    told: list[str] = []
    began = threading.Barrier(2)

    def slow(request: dict[str, Any], call: int) -> Raw:
        time.sleep(0.05)
        return echo(request, call)

    def run(name: str) -> str:
        began.wait()
        try:
            client(loopback, account(tmp_path, budget_calls=12)).ask_all(
                [body(f"{name} {n}") for n in range(10)], told.append
            )
        except BudgetError as error:
            return str(error)
        return "done"

    with Loopback(slow) as loopback, ThreadPoolExecutor(2) as pool:
        ends = sorted(pool.map(run, ("one", "two")))
    assert len(loopback.calls) == Ledger(tmp_path).spent("d").calls == 12
    assert "spending.budget_calls of 12 (12 made)" in ends[0]
    assert ends[1] == "done"
    assert sum("asks on the same budget" in line for line in told) <= 1


def test_two_runs_that_ask_the_same_at_once_pay_once(tmp_path: Path) -> None:
    def run(name: str) -> int:
        asked_by = account(tmp_path, budget_calls=50)
        client(loopback, asked_by).ask_all([body(str(n)) for n in range(10)], silence)
        return asked_by.totals.calls

    with Loopback(echo) as loopback, ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, ("one", "two"))) == [0, 10]


def test_failed_requests_count_as_calls(tmp_path: Path) -> None:
    def all_but_the_first(request: dict[str, Any], call: int) -> Any:
        return failure(400, "no") if call else echo(request, call)

    with Loopback(all_but_the_first) as loopback, pytest.raises(BudgetError):
        client(loopback, account(tmp_path, budget_calls=5)).ask_all([body(str(n)) for n in range(10)], silence)
    assert len(loopback.calls) == 5


def test_a_budget_is_for_one_dataset(tmp_path: Path) -> None:
    with Loopback(echo) as loopback:
        client(loopback, account(tmp_path, budget_calls=2)).ask_all([body("a"), body("b")], silence)
        client(loopback, account(tmp_path, budget_calls=1, dataset="other")).ask_all([body("a"), body("c")], silence)
    assert len(loopback.calls) == 3


def test_dollars_of_a_model_without_price_cannot_be_kept_so_nothing_is_asked(tmp_path: Path) -> None:
    with (
        Loopback(echo) as loopback,
        pytest.raises(ProviderError, match=r"no price is known for `scripted-1`.*HSAE_MODELS"),
    ):
        client(loopback, account(tmp_path, budget_usd=5.0)).ask_all([body("a")], silence)
    assert loopback.calls == []


def test_the_estimate_counts_what_is_left_to_ask_and_learns(tmp_path: Path) -> None:
    priced(tmp_path)
    texts = [body(f"{60} {3} {n:04d}") for n in range(100)]
    with Loopback(billed) as loopback:
        asked_by = account(tmp_path)
        before = client(loopback, asked_by).estimate(texts, answer_tokens=5)
        assert (before.calls, before.known) == (100, 0)
        client(loopback, asked_by).ask_all(texts[:40], silence)
        after = client(loopback, asked_by).estimate(texts, answer_tokens=5)
        paid = asked_by.totals
        rest = client(loopback, account(tmp_path))
        rest.ask_all(texts, silence)
    assert (after.calls, after.known) == (60, 40)
    assert paid.usage == Usage(40 * 60, 0, 40 * 3)
    # What forty answers cost teaches what sixty like them will.
    assert after.usage.input == pytest.approx(60 * 60, rel=0.01)
    assert after.usd == pytest.approx(rest.account.totals.usd, rel=0.01)  # type: ignore[union-attr]
    assert len(loopback.calls) == 100


@pytest.mark.parametrize(
    ("has_it", "granted", "paid"), [(True, "flex", 0.5), (True, "default", 1.0), (False, None, 1.0)]
)
def test_flex_halves_the_price_where_the_model_has_it_and_the_server_grants_it(
    tmp_path: Path, has_it: bool, granted: str | None, paid: float
) -> None:
    priced(tmp_path, flex=has_it)

    def chat(request: dict[str, Any], call: int) -> Raw:
        return Raw({**billed(request, call).body, **({"service_tier": granted} if granted else {})})

    with Loopback(chat) as loopback:
        asked_by = account(tmp_path, tier="flex")
        client(loopback, asked_by).ask_all([body("90 3 x")], silence)
    assert [each.get("service_tier") for each in loopback.bodies()] == ["flex" if has_it else None]
    assert asked_by.totals.usd == pytest.approx(paid * (90 * 1000 + 3 * 4000) / 1e6)


class OneByOne(Loopback):
    """A server that works on one request at a time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(billed)
        self.seconds, self.slot = seconds, threading.Lock()

    def answer_to(self, connection: socket.socket, work: Callable[[], Raw]) -> Raw:
        with self.slot:
            time.sleep(self.seconds)
            return work()


@pytest.mark.parametrize("one_by_one", [True, False])
def test_minutes_are_told_from_a_trial_of_the_real_server(tmp_path: Path, one_by_one: bool) -> None:
    """Nine requests: one alone, eight at once. A server that takes them one by one is told from one that does not."""
    priced(tmp_path)
    seconds = 0.06
    texts = [body(f"{90} {3} {n:04d}") for n in range(150)]
    slow = OneByOne(seconds) if one_by_one else Loopback(lambda b, call: Raw(billed(b, call).body, delay=seconds))
    said: list[str] = []
    with slow as loopback:
        assert client(loopback, account(tmp_path / "asleep")).estimate(texts).minutes_within == 2.0
        assert loopback.calls == []
        asked_by = account(tmp_path / "awake", trial=said.append)
        found = client(loopback, asked_by).estimate(texts)
        assert (len(loopback.calls), found.known, found.calls) == (9, 9, 141)
        assert client(loopback, asked_by).estimate(texts) == found
        assert len(loopback.calls) == 9
        started = time.monotonic()
        client(loopback, account(tmp_path / "awake")).ask_all(texts, silence)
        took = (time.monotonic() - started) / 60
    assert said
    assert found.minutes / found.minutes_within <= took <= found.minutes * found.minutes_within * 1.2
    # Told apart: the one by one takes as long as all its requests together.
    assert (found.minutes * found.minutes_within > 0.8 * 141 * seconds / 60) is one_by_one


def test_many_answers_teach_the_pace(tmp_path: Path) -> None:
    """Three hundred answers of two seconds, four at any time: half a second each."""
    second = 10**9
    rows = [entry(f"h{n}", seconds=2.0, created=(2 + 2 * (n // 4)) * second, prompt_hash=None) for n in range(300)]
    ledger = Ledger(tmp_path)
    keep(tmp_path, *rows)
    learned = ledger.experience(rows[0].server, rows[0].model, None)
    assert learned is not None
    assert (learned.calls, learned.seconds) == (300, 2.0)
    assert learned.pace == pytest.approx(0.5)
    how = {"answer_tokens": 5, "profile": profile_of("scripted-1"), "tier": "standard", "start": 32}
    told = estimate_calls([10] * 1200, most=512, experience=learned, **how)  # type: ignore[arg-type]
    assert (told.minutes, told.minutes_within) == (pytest.approx(10.0), 1.15)
    # Before, three bytes are taken for a token.
    assert estimate_calls([300] * 2, most=512, experience=None, **how).usage.input == 200  # type: ignore[arg-type]


def test_an_estimate_is_a_sentence() -> None:
    assert str(Estimate(known=3)) == "no call, 3 answers are in the ledger"
    some = Estimate(1200, 0, Usage(5000, 0, 70), 0.0125, 0.5) + Estimate(1, 2, Usage(1, 0, 1), 2.0, 3.0)
    assert str(some) == ("about 1,201 calls, 5,001 tokens in, 71 out, $2.01, 4 min; 2 answers are in the ledger")
    assert "price unknown" in str(some + Estimate(1, usd=None))
    assert str(Estimate(10, 0, Usage(5, 0, 7), 2.0, 6.0, within=2.0, minutes_within=3.0)).endswith(
        "$1.00 to $4.00, 2 min to 18 min"
    )
    assert (some + Estimate(1, within=1.15)).within == 1.15


def test_what_was_paid_lies_in_the_range_that_was_told(tmp_path: Path) -> None:
    priced(tmp_path)
    texts = [body(f"{90} {3} {n:04d}") for n in range(100)]
    with Loopback(billed) as loopback:
        asked_by = account(tmp_path)
        for part, narrow in ((texts[:40], False), (texts, True)):
            told = client(loopback, asked_by).estimate(part, answer_tokens=5)
            before = asked_by.totals.usd
            client(loopback, asked_by).ask_all(part, silence)
            assert told.usd is not None
            assert told.usd / told.within <= asked_by.totals.usd - before <= told.usd * told.within
            assert told.within == (1.15 if narrow else 2.0)
