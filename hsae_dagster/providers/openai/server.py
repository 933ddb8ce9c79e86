"""Which server is asked, and on whose behalf."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit, urlunsplit

from hsae_dagster.dataset.sections import ServerFields
from hsae_dagster.errors import ProviderError

PUBLIC_URL = "https://api.openai.com/v1"
MOST_CONCURRENCY = 4096


@dataclass(frozen=True)
class Server:
    """A server and how it is to be asked.

    Attributes:
        base_url: address up to and including `/v1`.
        api_key: never shown; None where the server needs none.
        concurrency: most requests under way at once; fewer while the server cannot keep up (`pacing`).
        max_retries: further tries of one request, waiting 0.5 to 8 s or as the server says.
        timeout: seconds without a byte from the server before a try counts as failed.
        key_name, url_name: where key and address were given, for error messages.
        identity: what tells it from another, where its address does not.
    """

    base_url: str = PUBLIC_URL
    api_key: str | None = field(default=None, repr=False)
    concurrency: int = 512
    max_retries: int = 6
    timeout: float = 300.0
    key_name: str = "OPENAI_API_KEY"
    url_name: str = "OPENAI_BASE_URL"
    identity: str | None = None

    def url(self, path: str) -> str:
        """The address of `path` below the base URL, whose query (Azure's `api-version`) goes to its end."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=parts.path.rstrip("/") + path))

    @property
    def headers(self) -> dict[str, str]:
        """Of every request; the key in the way that this server reads it."""
        host = urlsplit(self.base_url).hostname or ""
        azure = {"api-key": self.api_key} if self.api_key and host.endswith(".azure.com") else {}
        return {
            "Content-Type": "application/json",
            "User-Agent": "hsae_dagster",
            **({"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}),
            **azure,
        }

    @property
    def hint(self) -> str:
        """What is most likely wrong with an address that answers otherwise than it should."""
        path = urlsplit(self.base_url).path
        return "" if "/v1" in path or "/deployments/" in path else f"Is /v1 missing from {self.url_name}? "

    @property
    def endpoint(self) -> str:
        """Host, port if given, and path: what tells this server from another. Without credentials."""
        if self.identity:
            return self.identity
        parts = urlsplit(self.base_url)
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.hostname}{port}{parts.path.rstrip('/')}"

    def redact(self, text: str) -> str:
        """A text without the key, should a server repeat it."""
        return text.replace(self.api_key, "(key)") if self.api_key else text

    @property
    def needs_key(self) -> bool:
        """Whether it is OpenAI's own."""
        host = urlsplit(self.base_url).hostname or ""
        return host == "openai.com" or host.endswith(".openai.com")

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        host = urlsplit(self.base_url).hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def server_of(fields: ServerFields, place: str, environment: Mapping[str, str] = os.environ) -> Server:
    """The server that a `server` section of dataset.yaml names; what it leaves out is as the environment says.

    Args:
        fields: the section.
        place: of the section in dataset.yaml, for error messages.
        environment: with keys and defaults.

    Raises:
        ProviderError: as of `server_from_environment`, or the variable that is to hold the key holds none.
    """
    key = fields.key or ("OPENAI_API_KEY" if fields.url is None else None)
    if fields.key and not environment.get(fields.key, "").strip():
        raise ProviderError(f"`{place}.key` is `{fields.key}`, and that variable is not set. Set it to the key.")
    taken = {
        "OPENAI_BASE_URL": fields.url or environment.get("OPENAI_BASE_URL", ""),
        "OPENAI_API_KEY": environment.get(key, "") if key else "",
        "HSAE_CONCURRENCY": str(fields.concurrency or environment.get("HSAE_CONCURRENCY", "")),
    }
    url_name = f"{place}.url" if fields.url else "OPENAI_BASE_URL"
    found = server_from_environment(taken, url_name, key or "OPENAI_API_KEY")
    return found if fields.timeout is None else replace(found, timeout=fields.timeout)


def server_from_environment(
    environment: Mapping[str, str] = os.environ, url_name: str = "OPENAI_BASE_URL", key_name: str = "OPENAI_API_KEY"
) -> Server:
    """The server that OPENAI_BASE_URL names (default OpenAI's own), with OPENAI_API_KEY and HSAE_CONCURRENCY.

    Raises:
        ProviderError: the address is not one, the key holds what no key can, or HSAE_CONCURRENCY is no number.
    """
    url = environment.get("OPENAI_BASE_URL", "").strip() or PUBLIC_URL
    key = environment.get("OPENAI_API_KEY", "").strip() or None
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:
        usable = False
    if not usable:
        raise ProviderError(
            f"{url_name} is not the address of a server. Write it as http://host:port/v1, without user or "
            "password, or unset it for OpenAI's own."
        )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise ProviderError(
            f"{key_name} holds a space or a character that no key can have. Copy the key again, nothing beside it."
        )
    return Server(
        base_url=url, api_key=key, concurrency=_concurrency(environment), key_name=key_name, url_name=url_name
    )


def _concurrency(environment: Mapping[str, str]) -> int:
    named = environment.get("HSAE_CONCURRENCY", "").strip()
    if not named:
        return Server.concurrency
    if not named.isdecimal() or not 1 <= int(named) <= MOST_CONCURRENCY:
        raise ProviderError(
            f"HSAE_CONCURRENCY is `{named}`. Set it to the most requests to have under way at once, 1 to "
            f"{MOST_CONCURRENCY:,}, or unset it for {Server.concurrency}."
        )
    return int(named)


@dataclass(frozen=True)
class Asker:
    """Who asks, for error messages.

    Attributes:
        field: the field of dataset.yaml that chose the model.
        model: its name at the server.
        offline: the choice for that field that needs no key.
        provider: what stands before the model's name in that field.
    """

    field: str
    model: str
    offline: str
    provider: str = "openai"

    @property
    def name(self) -> str:
        """Field and value as they stand in dataset.yaml."""
        return f"`{self.field}: {self.provider}:{self.model}`"
