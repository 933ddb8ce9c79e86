"""One request until it is over: sent, put otherwise, sent again, waited for.

Belongs here: what follows on a lost try or a refusal. Does not belong here: one try (`openai_http`), which forms there
are (`openai_dialect`), what is final (`openai_faults`), or many requests (`asking`).
"""

import asyncio
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import unit_interval
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.estimate import duration
from hsae_dagster.providers.known_servers import KnownServer
from hsae_dagster.providers.model_table import ModelProfile
from hsae_dagster.providers.openai_dialect import LENGTH_WORDS, Dialect, weaker
from hsae_dagster.providers.openai_faults import error_in, quoted, refusal, status_in, stopped
from hsae_dagster.providers.openai_http import Answer, Connection, LostError
from hsae_dagster.providers.openai_replies import Reply, read_response
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.pacing import Pace
from hsae_dagster.providers.plan import Body, wire

if TYPE_CHECKING:
    from openai import AsyncOpenAI

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


class Client(Protocol):
    """Whoever asks (`OpenAIClient`), as far as requests and batches know it."""

    asker: Asker
    server: Server
    account: Account | None
    profile: ModelProfile
    known: KnownServer

    @property
    def tier(self) -> str:
        """How requests are paid."""

    def connect(self) -> "AsyncOpenAI":
        """The server through the SDK."""


class Request:
    """Use once: `await reply()`, with a turn of the pace taken."""

    def __init__(
        self, client: Client, connection: Connection, body: Body, pace: Pace, say: Callable[[str], None]
    ) -> None:
        self.client = client
        self.server = client.server
        self.connection = connection
        self.body = body
        self.pace = pace
        self.say = say
        self.chat = "messages" in body
        self.flex = client.tier == "flex" and self.chat
        self.full = {**body, "service_tier": "flex"} if self.flex else body
        self.dialect: Dialect = client.known.dialect
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
            answer = await self.connection.post(path, wire(self.dialect.put(self.full)), patience)
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
            if (wait or 0.0) > MOST_WAIT:
                return stopped(wait or 0.0, said, self.client.asker, self.server)
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


def too_long(reply: Reply) -> bool:
    """Whether a request failed for being longer than the model reads."""
    return reply.fault is not None and LENGTH_WORDS.search((reply.reason or "").lower()) is not None
