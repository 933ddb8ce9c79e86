"""One request until it is over: sent over HTTP, put otherwise, sent again, waited for."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time as now
from typing import TYPE_CHECKING, Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import unit_interval
from hsae_dagster.providers.openai.requests import (
    Asker,
    Body,
    Dialect,
    KnownServer,
    Plan,
    Server,
    error_in,
    quoted,
    refusal,
    status_in,
    weaker,
    wire,
)
from hsae_dagster.providers.replies import Reply, Usage, profile_of, read_response
from hsae_dagster.providers.spending import Account, duration

if TYPE_CHECKING:
    import aiohttp

SLOWDOWN = 2.0
WINDOW = 32


class Pace:
    """Admission of requests, by one event loop."""

    def __init__(self, start: int, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = float(min(start, most))
        self.most = most
        self.running = 0
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
        if 2 * self.running >= self.limit and self._recent <= SLOWDOWN * self._quickest:
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
        """Whether a wait of this many seconds has not been reported yet."""
        until = self._clock() + seconds
        news = until > self._said_until + 1.0
        self._said_until = max(self._said_until, until)
        return news


CONNECT_SECONDS = 10.0


class LostError(Exception):
    """A try without an answer.

    It is a `timeout` after no byte for as long as is allowed, `unreached` where nobody took the connection, or `lost`.
    """

    def __init__(self, how: str, said: str) -> None:
        super().__init__(said)
        self.how = how


@dataclass(frozen=True)
class Answer:
    """What a server answered: body as parsed JSON (None where it is none), and as text without the key.

    Headers go by their names in lower case.
    """

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str

    @property
    def retry_after(self) -> float | None:
        """Seconds to wait, as the server says."""
        for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
            said = self.headers.get(name)
            if said is None:
                continue
            try:
                return max(float(said) / divisor, 0.0)
            except ValueError:
                pass
            try:
                return max(parsedate_to_datetime(said).timestamp() - now(), 0.0)
            except (TypeError, ValueError):
                continue
        return None


def session_of(server: Server) -> "aiohttp.ClientSession":
    """The connections to a server. Use as an asynchronous context manager."""
    import aiohttp

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=server.concurrency),
        # A proxy has no business between us and ourselves.
        trust_env=not server.is_loopback,
        headers=server.headers,
    )


async def post(session: "aiohttp.ClientSession", server: Server, path: str, data: bytes, timeout: float) -> Answer:
    """Send JSON once, to a path below the base URL.

    Raises:
        LostError: no answer; a server that sends no byte for `timeout` seconds counts as lost.
    """
    import aiohttp

    patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=timeout)
    try:
        async with session.post(server.url(path), data=data, timeout=patience) as response:
            text = server.redact((await response.read()).decode("utf-8", "replace"))
            headers = {name.lower(): server.redact(value) for name, value in response.headers.items()}
            return Answer(response.status, headers, _parsed(text), text)
    except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
        how, said = "unreached", str(error).strip() or type(error).__name__
    except TimeoutError:
        how, said = "timeout", f"no answer within {timeout:g} s"
    except (aiohttp.ClientError, OSError) as error:
        how, said = "lost", str(error).strip() or type(error).__name__
    # Raised outside the handler: the library's error, which may hold the key in its request, is not chained.
    raise LostError(how, server.redact(" ".join(said.split()))[:200])


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# A flex request waits for spare capacity.
FLEX_TIMEOUT = 900.0
# Of a wait that a server asks for: longer ones end the run, shorter ones than the second are not worth a word.
MOST_WAIT, LEAST_SAID = 300.0, 10.0
FIRST_BACKOFF, MOST_BACKOFF = 0.5, 8.0
# One try for each thing that can be put otherwise.
MOST_FORMS = 8
MAY_PASS = {408, 409, 425, 429}
MAY_BE_FORM = {400, 404, 405, 415, 422}
_SCHEMA = re.compile(r"response_format|schema|grammar")


@dataclass(eq=False)
class Client:
    """One server, asked on behalf of one field of dataset.yaml, on an account; without one it is only described."""

    asker: Asker
    server: Server
    account: Account | None = None

    def __post_init__(self) -> None:
        self.profile = profile_of(self.asker.model)
        root = self.account.ledger.root if self.account else None
        self.known = KnownServer(root, self.server.endpoint, self.asker.model)

    @property
    def tier(self) -> str:
        """How requests are paid: as declared, where the model has that."""
        tier = self.account.tier if self.account else "standard"
        return "standard" if tier == "flex" and not self.profile.flex else tier

    def worst(self, body: Body, size: int, tier: str = "standard") -> float:
        """The most a request can cost, USD: every byte a token, and the longest answer allowed."""
        longest = body.get("max_completion_tokens") or body.get("max_tokens") or 0
        return self.profile.cost(Usage(input=size, output=longest), tier) or 0.0

    def plan(self, bodies: Sequence[Body]) -> Plan:
        """Which of these requests the ledger knows, and which are to be sent."""
        ledger = self.account.ledger if self.account else None
        return Plan.make(bodies, self.server.endpoint, self.asker.model, ledger)


@dataclass(eq=False)
class Request:
    """Use once: `await reply()`, with a turn of the pace taken."""

    client: Client
    session: "aiohttp.ClientSession"
    body: Body
    pace: Pace
    say: Callable[[str], None]

    def __post_init__(self) -> None:
        self.server = self.client.server
        self.chat = "messages" in self.body
        self.flex = self.client.tier == "flex" and self.chat
        self.full = {**self.body, "service_tier": "flex"} if self.flex else self.body
        self.dialect: Dialect = self.client.known.dialect
        self.forms = self.tries = 0

    async def reply(self) -> Reply:
        """The reply, after as many tries as are worth it.

        Raises:
            ProviderError: no further request can succeed.
        """
        while True:
            found = await self._step()
            if isinstance(found, Reply):
                return found
            if isinstance(found, ProviderError):
                raise found
            await asyncio.sleep(found)

    async def _step(self) -> Reply | ProviderError | float:
        """What came of one try: the end, or seconds until the next."""
        sent = time.monotonic()
        patience = max(self.server.timeout, FLEX_TIMEOUT) if self.flex else self.server.timeout
        path = "/chat/completions" if self.chat else "/embeddings"
        try:
            answer = await post(self.session, self.server, path, wire(self.dialect.put(self.full)), patience)
        except LostError as error:
            return await self._lost(error, sent)
        if 200 <= answer.status < 300 and not error_in(answer.body):
            self.pace.answered(time.monotonic() - sent)
            return self._answered(answer)
        return self._refused(answer, sent)

    def _answered(self, answer: Answer) -> Reply:
        if answer.body is None:
            reply = Reply(reason="the server's answer could not be read: it is not JSON", fault="request")
        else:
            inputs = None if self.chat else len(self.body["input"])
            reply = read_response(answer.body, inputs, answer.headers.get("x-request-id"))
        if reply.fault:
            hint = self.server.hint.strip()
            return Reply(reason=f"{reply.reason}. {hint}" if hint else reply.reason, fault=reply.fault)
        if self.client.known.answered(self.dialect):
            self.say(
                f"{self.client.asker.name}: {self.server.endpoint} refuses some fields; it is asked "
                f"{self.dialect.differences()}, from now on"
            )
        return reply

    async def _lost(self, error: LostError, sent: float) -> Reply | float:
        advice = ""
        if error.how == "timeout":
            advice = "; set HSAE_CONCURRENCY to as many requests as the server works on at once"
            if self.pace.timed_out(sent):
                self.say(
                    f"{self.client.asker.name}: {error}, so at most {int(self.pace.limit)} requests are under way from "
                    f"now on{advice}"
                )
        self.tries += 1
        if self.tries > self.server.max_retries:
            return Reply(
                reason=f"the connection failed: {error}{advice}", fault="connection", unpaid=error.how == "unreached"
            )
        if error.how != "timeout":
            return self._backoff()
        # It waits behind the others, now fewer.
        self.pace.left()
        await self.pace.turn()
        return 0.0

    def _refused(self, answer: Answer, sent: float) -> Reply | ProviderError | float:
        status = answer.status if answer.status >= 300 else status_in(answer.body)
        said = quoted(answer.body, answer.text, self.server)
        wait = answer.retry_after
        if status == 429:
            self.pace.refused(sent, wait if wait is None or wait <= MOST_WAIT else None)
        form = self._weaker(status, said)
        if form is not None:
            self.dialect = form
            self.forms += 1
            return 0.0
        if _may_pass(status, answer):
            if wait is not None and wait > MOST_WAIT:
                return ProviderError(
                    f"{self.client.asker.name}: {self.server.endpoint} asks to wait {wait / 60:,.0f} minutes: {said}. "
                    "Nothing further is asked and every answer so far is kept; run again by then, or use another key "
                    "or server."
                )
            self.tries += 1
            if self.tries <= self.server.max_retries:
                return self._waiting(wait, said)
        if not self.chat and len(self.body["input"]) > 1 and status in (400, 413, 422, 429, 500):
            return Reply(reason=f"the server answered {status}: {said}", fault="size")
        return refusal(status, answer.body, answer.text, self.client.asker, self.server)

    def _waiting(self, wait: float | None, said: str) -> float:
        if wait is None:
            return self._backoff()
        if wait >= LEAST_SAID and self.pace.first_to_say(wait):
            self.say(
                f"{self.client.asker.name}: {self.server.endpoint} asks to wait {duration(wait / 60)} ({said}); waiting"
            )
        return wait

    def _weaker(self, status: int, said: str) -> Dialect | None:
        if self.forms >= MOST_FORMS:
            return None
        # Several texts are more likely too many than badly asked for.
        several = not self.chat and len(self.body["input"]) > 1
        named_only = status in (404, 405) or status >= 500 or several or self.client.known.has_answered
        if status in MAY_BE_FORM or (status >= 500 and _SCHEMA.search(said)):
            return weaker(self.dialect, self.full, said, unnamed=not named_only)
        return None

    def _backoff(self) -> float:
        # Not all at once again.
        spread = 0.75 + 0.25 * unit_interval(str(id(self)), str(self.tries))
        return min(FIRST_BACKOFF * 2 ** (self.tries - 1), MOST_BACKOFF) * spread


def _may_pass(status: int, answer: Answer) -> bool:
    told = answer.headers.get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    if "insufficient_quota" in answer.text:
        return False
    return status in MAY_PASS or status >= 500
