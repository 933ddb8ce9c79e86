"""Concurrency doubles while all is well, halves on 429, and rests when told to."""

import asyncio
import threading
import time
from typing import Any

from hsae_dagster.providers.openai.request import WINDOW, Pace
from hsae_dagster_tests.providers.accounts import body, client, silence, spare
from hsae_dagster_tests.providers.loopback import Loopback, Raw, failure


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fill(pace: Pace) -> int:
    """Take every turn there is."""

    async def take() -> int:
        taken = 0
        while pace.running < int(pace.limit):
            await pace.turn()
            taken += 1
        return taken

    return asyncio.run(take())


def answer_all(pace: Pace, seconds: float) -> None:
    for _ in range(fill(pace)):
        pace.answered(seconds)
    while pace.running:
        pace.left()


def test_it_doubles_until_the_first_refusal_and_then_grows_by_one_a_round() -> None:
    clock = Clock()
    pace = Pace(4, 64, clock)
    limits = []
    for _ in range(3):
        answer_all(pace, 0.1)
        limits.append(pace.limit)
    pace.refused(clock.now, None)
    halved = pace.limit
    answer_all(pace, 0.1)
    assert limits[0] == 8
    assert limits[-1] == 32
    assert halved == limits[-1] / 2
    assert 0.9 <= pace.limit - halved <= 1.1


def test_it_never_passes_the_most_nor_falls_below_one() -> None:
    clock = Clock()
    pace = Pace(4, 10, clock)
    for _ in range(5):
        answer_all(pace, 0.1)
    assert pace.limit == 10
    for _ in range(10):
        clock.now += 2
        pace.refused(clock.now, None)
    assert pace.limit == 1


def test_a_burst_of_refusals_is_one() -> None:
    clock = Clock()
    pace = Pace(32, 64, clock)
    clock.now = 1.0
    for sent in range(20):
        pace.refused(sent / 20, None)
    assert pace.limit == 16
    clock.now = 2.0
    pace.refused(1.5, None)
    assert pace.limit == 8


def test_it_stops_growing_when_answers_queue() -> None:
    pace = Pace(32, 512, Clock())
    while pace._answers < 2 * WINDOW:
        answer_all(pace, 0.1)
    grown = pace.limit
    for _ in range(20):
        answer_all(pace, 0.5)
    assert pace.limit <= 2 * grown
    assert pace.limit < 512


def test_retry_after_holds_every_request_back_and_is_honoured() -> None:
    """The first wave meets a 429 that asks for 0.6 s; no request is sent before that."""
    times: list[float] = []
    lock = threading.Lock()

    def limited(request: dict[str, Any], call: int) -> "Raw | dict[str, bool]":
        with lock:
            times.append(time.monotonic())
        return failure(429, "slow down", retry_after="0.6") if call < 2 else {"ok": True}

    with Loopback(limited) as loopback:
        replies = client(loopback, spare(), concurrency=2).ask_all([body(str(n)) for n in range(12)], silence)
    assert all(reply.value == {"ok": True} for reply in replies)
    assert len(times) == 14
    assert min(times[2:]) - max(times[:2]) >= 0.55


def test_a_server_that_refuses_above_a_rate_answers_everything_in_the_end() -> None:
    """At most six at once are answered; each further one is a 429. No request fails for good."""
    running, most, refused, lock = 0, 0, 0, threading.Lock()

    def narrow(request: dict[str, Any], call: int) -> "Raw | dict[str, bool]":
        nonlocal running, most, refused
        with lock:
            if running >= 6:
                refused += 1
                return failure(429, "too many", retry_after_ms="50")
            running += 1
            most = max(most, running)
        time.sleep(0.03)
        with lock:
            running -= 1
        return {"ok": True}

    with Loopback(narrow) as loopback:
        replies = client(loopback, spare(), max_retries=30).ask_all([body(str(n)) for n in range(150)], silence)
    assert all(reply.value == {"ok": True} for reply in replies)
    assert refused > 0
    assert most <= 6
    # Without halving, thirty-two at once would be refused about five times each.
    assert refused < 150
