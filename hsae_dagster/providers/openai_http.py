"""One HTTP connection pool to one server: bytes out, status and parsed body back.

Belongs here: addresses, headers, time-outs, and how a try was lost. Does not belong here: what an answer means
(`openai_faults`, `openai_replies`) or trying again (`openai_client`).

The SDK's own request takes four times as much of a core as this (1.06 against 0.25 ms, measured), and repeats requests
where the pace cannot see it; it is used for batches, which are few.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from hsae_dagster.providers.openai_server import Server

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 10.0
Loss = Literal["timeout", "unreached", "lost"]


class LostError(Exception):
    """A try without an answer.

    Attributes:
        how: `timeout`: no byte for as long as is allowed; `unreached`: nobody took the connection; `lost`: it broke.
    """

    def __init__(self, how: Loss, said: str) -> None:
        super().__init__(said)
        self.how = how


@dataclass(frozen=True)
class Answer:
    """What a server answered.

    Attributes:
        status: HTTP status.
        headers: by name in lower case.
        body: parsed JSON, or None where it is none.
        text: the body as it came, without the key.
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
                return max(parsedate_to_datetime(said).timestamp() - time(), 0.0)
            except (TypeError, ValueError):
                continue
        return None


class Connection:
    """Use as an asynchronous context manager."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "Connection":
        import aiohttp

        server = self.server
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=server.concurrency),
            # A proxy has no business between us and ourselves.
            trust_env=not server.is_loopback,
            headers=server.headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, data: bytes, timeout: float) -> Answer:
        """Send one request once.

        Args:
            path: below the base URL.
            data: JSON.
            timeout: seconds without a byte from the server before it counts as lost.

        Raises:
            LostError: no answer.
        """
        import aiohttp

        assert self._session is not None, "the connection is not open"
        patience = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=timeout)
        try:
            async with self._session.post(self.server.url(path), data=data, timeout=patience) as response:
                text = self.server.redact((await response.read()).decode("utf-8", "replace"))
                headers = {name.lower(): self.server.redact(value) for name, value in response.headers.items()}
                return Answer(response.status, headers, _parsed(text), text)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            found = LostError("unreached", self._said(error))
        except TimeoutError:
            found = LostError("timeout", f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            found = LostError("lost", self._said(error))
        # Raised outside the handler: the library's error, which may hold the key in its request, is not chained.
        raise found

    def _said(self, error: Exception) -> str:
        return self.server.redact(" ".join(str(error).split()) or type(error).__name__)[:200]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
