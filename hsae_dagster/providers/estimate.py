"""What asking will take, told before it is done.

Belongs here: calls, tokens, dollars and minutes of requests not yet sent. Does not belong here: making the requests
(whoever asks) or what was spent (`account`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hsae_dagster.providers.ledger import Experience
from hsae_dagster.providers.model_table import NO_TOKENS, ModelProfile, Usage

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
