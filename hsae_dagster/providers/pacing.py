"""How many requests may be under way at once, learned from the server's answers.

Belongs here: growing while the server keeps up, halving when it says 429 or nothing, waiting when it says for how long.
Does not belong here: sending or repeating requests (`openai_request`).

As TCP does: the number doubles per round of answers until the first refusal, then grows by one per round. It also
stops growing when answers take twice as long as they did at their quickest: a server that queues does not say 429.
"""

import asyncio
import time
from collections.abc import Callable

SLOWDOWN = 2.0
WINDOW = 32


class Pace:
    """Admission of requests, by one event loop."""

    def __init__(self, start: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = float(min(start, most))
        self.most = most
        self.running = 0
        self.refusals = 0
        self._clock = clock
        self._slow_start = True
        self._resume_at = self._halved_at = -float("inf")
        self._said_until = -float("inf")
        self._recent = 0.0
        self._answers = 0
        self._quickest = float("inf")
        self._changed = asyncio.Event()

    async def turn(self) -> None:
        """Wait until one more request may be sent, and count it as under way."""
        while self.running >= int(self.limit) or self._clock() < self._resume_at:
            self._changed.clear()
            wait = max(self._resume_at - self._clock(), 0.0)
            try:
                await asyncio.wait_for(self._changed.wait(), wait or None)
            except TimeoutError:
                continue
        self.running += 1

    def answered(self, seconds: float) -> None:
        """The server answered one try after `seconds`."""
        self._answers += 1
        self._recent += (seconds - self._recent) / min(self._answers, WINDOW)
        if self._answers >= WINDOW:
            self._quickest = min(self._quickest, self._recent)
        # Only a limit that is made use of says anything.
        if 2 * self.running >= self.limit and not self._queueing():
            self.limit = min(self.limit + (1.0 if self._slow_start else 1.0 / self.limit), self.most)
            self._changed.set()

    def left(self) -> None:
        """A request is over, answered or not."""
        self.running -= 1
        self._changed.set()

    def refused(self, sent: float, retry_after: float | None) -> None:
        """The server said 429 to a try sent at `sent`, and perhaps for how many seconds to wait.

        Refusals of what was sent before the last halving are old news: a burst of them halves once.
        """
        self.refusals += 1
        now = self._clock()
        if retry_after:
            self._resume_at = max(self._resume_at, now + retry_after)
        if sent > self._halved_at:
            self._halved_at = now
            self._slow_start = False
            self.limit = max(self.limit / 2, 1.0)

    def timed_out(self, sent: float) -> bool:
        """A try sent at `sent` got no answer: the server works on fewer at once. Whether that was news (`refused`)."""
        if sent <= self._halved_at:
            return False
        self.refused(sent, None)
        return True

    def first_to_say(self, seconds: float) -> bool:
        """Whether a wait of so many seconds was not told of before."""
        until = self._clock() + seconds
        news = until > self._said_until + 1.0
        self._said_until = max(self._said_until, until)
        return news

    def _queueing(self) -> bool:
        return self._recent > SLOWDOWN * self._quickest
