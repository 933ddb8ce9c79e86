"""How far a round of requests is, in lines for people.

Belongs here: counting replies, the rate, the streak of replies that brought nothing, and prompts that a server seems to
have cut. Does not belong here: sending (`asking`) or prices (`model_table`).
"""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median

from hsae_dagster.providers.base import Report
from hsae_dagster.providers.estimate import dollars, duration
from hsae_dagster.providers.model_table import Usage
from hsae_dagster.providers.openai_replies import Reply

REPORT_SECONDS = 5.0
# Bytes per token: English has some 4.5, long words and numbers up to 8; and one collection's texts differ by less than
# this factor from each other.
MOST_BYTES_PER_TOKEN, MOST_TIMES_THE_USUAL, FEWEST = 12.0, 2.0, 5
# Shorter prompts say little.
LEAST_BYTES = 1000


class Progress:
    """Counts replies, says so now and then, and knows how many in a row brought nothing."""

    def __init__(self, total: int, known: int, priced: bool, report: Report) -> None:
        self.total = total
        self.known = known
        self.report = report
        self.priced = priced
        self.done = self.usable = self.unusable = 0
        self.streak: list[str] = []
        self.usage = Usage()
        self.usd = 0.0
        self.started = self.reported = time.monotonic()

    def count(self, reply: Reply, problem: str | None) -> None:
        """Take note of one reply, and of why it holds nothing usable."""
        self.done += 1
        self.unusable += problem is not None
        if problem is None:
            self.usable += 1
            self.streak.clear()
        elif not (reply.refused and self.usable):
            # A model that answers otherwise may well refuse one concept on every text.
            self.streak.append(problem)
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


class CutPrompts:
    """Notices when a server counts far fewer tokens than it was sent: some cut prompts without a word."""

    def __init__(self) -> None:
        self.ratios: list[float] = []
        self.told = False

    def notice(self, sent_bytes: int, tokens: int) -> str | None:
        """What to say of a reply, once."""
        if self.told or not tokens or sent_bytes < LEAST_BYTES:
            return None
        ratio = sent_bytes / tokens
        usual = median(self.ratios) if len(self.ratios) >= FEWEST else None
        if len(self.ratios) < 200:
            self.ratios.append(ratio)
        if ratio <= MOST_BYTES_PER_TOKEN and (usual is None or ratio <= MOST_TIMES_THE_USUAL * usual):
            return None
        self.told = True
        return (
            f"the server counted {tokens:,} tokens in a prompt of {sent_bytes:,} bytes: it may have cut it without a "
            "word. Give the model a longer context there (Ollama: OLLAMA_CONTEXT_LENGTH), or lower `examples` or "
            "`max_words`"
        )


def commonest(problems: Sequence[str]) -> tuple[str, int]:
    """The commonest of several reasons (the earliest of equals), and how often it was given."""
    return Counter(problems).most_common(1)[0]
