"""Which server is asked, and how it takes requests; which of many are sent, equal ones once; what a failure means."""

import ipaddress
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from hsae_dagster.dataset.sections import ServerFields
from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.providers.replies import Reply, read_again
from hsae_dagster.providers.spending import Entry, Ledger
from hsae_dagster.storage.records import Document, Records

PUBLIC_URL = "https://api.openai.com/v1"
MOST_CONCURRENCY = 4096


@dataclass(frozen=True)
class Server:
    """A server and how it is to be asked.

    Attributes:
        base_url: address up to and including `/v1`.
        api_key: never shown; None where the server needs none.
        concurrency: most requests under way at once; fewer while the server cannot keep up (`request.Pace`).
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
        azure = {"api-key": self.api_key} if self.api_key and self._host.endswith(".azure.com") else {}
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
        return f".{self._host}".endswith(".openai.com")

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        try:
            return self._host == "localhost" or ipaddress.ip_address(self._host).is_loopback
        except ValueError:
            return False

    @property
    def _host(self) -> str:
        return urlsplit(self.base_url).hostname or ""


def server_of(fields: ServerFields, place: str, environment: Mapping[str, str]) -> Server:
    """The server that a `server` section of dataset.yaml names, at `place` there, for error messages.

    What it leaves out is as the environment says: OPENAI_BASE_URL (default OpenAI's own), OPENAI_API_KEY and
    HSAE_CONCURRENCY.

    Raises:
        ProviderError: the address is not one, the key holds what no key can or its variable nothing, or
            HSAE_CONCURRENCY is no number.
    """
    url_name = f"{place}.url" if fields.url else "OPENAI_BASE_URL"
    url = (fields.url or environment.get("OPENAI_BASE_URL", "")).strip() or PUBLIC_URL
    key_name = fields.key or "OPENAI_API_KEY"
    # Another address is not given OpenAI's key.
    key = environment.get(key_name, "").strip() if fields.key or fields.url is None else ""
    if fields.key and not key:
        raise ProviderError(f"`{place}.key` is `{fields.key}`, and that variable is not set. Set it to the key.")
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
        base_url=url,
        api_key=key or None,
        concurrency=fields.concurrency or _concurrency(environment),
        timeout=Server.timeout if fields.timeout is None else fields.timeout,
        key_name=key_name,
        url_name=url_name,
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
    """Who asks, for error messages: the field of dataset.yaml that chose the model, and its name at the server.

    `offline` is the choice for that field that needs no key; `provider` stands before the model's name in it.
    """

    field: str
    model: str
    offline: str
    provider: str = "openai"

    @property
    def name(self) -> str:
        """Field and value as they stand in dataset.yaml."""
        return f"`{self.field}: {self.provider}:{self.model}`"


Body = dict[str, Any]


class LazyBodies(Sequence[Body]):
    """n request bodies, each made when it is read, one at a time: a million of them take no room."""

    def __init__(self, count: int, make: Callable[[int], Body]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Body:  # type: ignore[override]
        return self._make(range(self._count)[index])


def packed(sizes: Iterable[int], most: int, room: int) -> Iterator[range]:
    """Places of what goes into each request, in order, as many as the limits on their number and size together allow.

    What is larger than there is room goes alone.
    """
    start = end = held = 0
    for size in sizes:
        if end > start and (end - start == most or held + size > room):
            yield range(start, end)
            start, held = end, 0
        held += size
        end += 1
    if end > start:
        yield range(start, end)


@dataclass(frozen=True, slots=True)
class Question:
    """A request's key and size in bytes."""

    hash: str
    size: int

    @staticmethod
    def of(body: Body, endpoint: str) -> "Question":
        """The key of a whole body at a server. How it is paid (`service_tier`) is not part of it."""
        data = canonical(body)
        return Question(hash_bytes(endpoint.encode() + b"\x00" + data), len(data))


@dataclass(frozen=True)
class Plan:
    """What is known and what is to be asked.

    Attributes:
        questions: per body.
        known: first answers of the ledger, by request.
        todo: indexes of the bodies to send; of equal ones the first. Embeddings are always sent: their vectors are
            kept elsewhere, by text.
    """

    questions: list[Question]
    known: Mapping[str, Entry]
    todo: list[int]

    @staticmethod
    def make(bodies: Sequence[Body], endpoint: str, model: str, ledger: Ledger | None) -> "Plan":
        """Read every body once."""
        questions: list[Question] = []
        first: dict[str, int] = {}
        chat = False
        for index, body in enumerate(bodies):
            chat = chat or "messages" in body
            questions.append(Question.of(body, endpoint))
            first.setdefault(questions[-1].hash, index)
        known = ledger.find(list(first), endpoint, model) if ledger and chat else {}
        return Plan(questions, known, [index for key, index in first.items() if key not in known])

    def replies(self, asked: Mapping[str, Reply]) -> list[Reply]:
        """Replies in the order of the bodies."""
        recalled = {key: recall(entry) for key, entry in self.known.items()}
        return [asked.get(question.hash) or recalled[question.hash] for question in self.questions]


def recall(entry: Entry) -> Reply:
    """A reply as the ledger remembers it; what an earlier reader could not use is read again."""
    # What an object lacks that was asked for is for whoever asked to see again.
    value, reason = (None, entry.reason) if entry.parsed is None else (json.loads(entry.parsed), None)
    again = read_again(entry.reason, entry.answer) if value is None else None
    if again is not None:
        value, reason = again.value, again.reason
    return Reply(
        value=value,
        reason=reason,
        content=entry.answer,
        usage=entry.usage,
        model_echo=entry.model_echo,
        request_id=entry.request_id,
        cost_usd=entry.cost_usd,
    )


def canonical(body: Body) -> bytes:
    """A body as it is hashed: fields in the order of their names."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def wire(body: Body) -> bytes:
    """A body as it is sent: a schema's fields stay in their order, in which a model writes them."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


Form = Literal["json_schema", "json_object", "none"]
_WEAKER: dict[str, Form] = {"json_schema": "json_object", "json_object": "none"}
_OTHER = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_SCHEMA_WORDS = re.compile(r"response_format|json[_ ]?(schema|object|mode)|structured output|grammar|guided")
# What a refusal says that no other form of the same request would cure.
LENGTH_WORDS = re.compile(
    r"context[_ ](length|window|size)|maximum context|\btoo long\b|too many (input )?tokens"
    r"|exceed\w* (the )?(available )?(context|model'?s)"
)
FILTER_WORDS = re.compile(r"content[_ ]?(filter|management|policy)|responsibleai|safety system")


@dataclass(frozen=True)
class Dialect:
    """What is left out or put otherwise for one server and model.

    Attributes:
        form: how an answer of a given shape is asked for; without `json_schema` the schema stands in the prompt.
        strict: whether the schema is marked strict.
        swapped: whether the limit of the answer goes by its other name.
        system: whether there is a system message; its words stand in the user's otherwise.
        dropped: fields left out.
        inputs: most texts of one embeddings request, None where no limit is known.
    """

    form: Form = "json_schema"
    strict: bool = True
    swapped: bool = False
    system: bool = True
    dropped: tuple[str, ...] = ()
    inputs: int | None = None

    def put(self, body: Body) -> Body:
        """A request as this server takes it."""
        if replace(self, inputs=None) == PLAIN:
            return body
        sent = {name: value for name, value in body.items() if name not in self.dropped}
        if self.swapped:
            sent = {_OTHER.get(name, name): value for name, value in sent.items()}
        if "response_format" in sent:
            self._put_form(sent)
        if not self.system and "messages" in sent:
            sent["messages"] = _without_system(sent["messages"])
        return sent

    def _put_form(self, sent: Body) -> None:
        asked = sent["response_format"]["json_schema"]
        if self.form == "json_schema":
            named = asked if self.strict else {key: value for key, value in asked.items() if key != "strict"}
            sent["response_format"] = {"type": "json_schema", "json_schema": named}
            return
        if self.form == "json_object":
            sent["response_format"] = {"type": "json_object"}
        else:
            del sent["response_format"]
        schema = json.dumps(asked["schema"], ensure_ascii=False)
        told = f"Answer with one JSON object that fits this JSON schema, and with nothing else:\n{schema}"
        first, *rest = sent["messages"]
        sent["messages"] = [{**first, "content": f"{first['content']}\n\n{told}"}, *rest]

    def differences(self) -> str:
        """In words, what is put otherwise than usual."""
        said = [f"without `{name}`" for name in self.dropped]
        if self.form != "json_schema":
            where = "as `json_object`, with the schema in the prompt" if self.form == "json_object" else "in the prompt"
            said.append(f"with the shape of the answer asked for {where}")
        elif not self.strict:
            said.append("without `strict`")
        if self.swapped:
            said.append("with the other name of the answer's limit")
        if not self.system:
            said.append("without a system message")
        return ", ".join(said)


PLAIN = Dialect()


def weaker(dialect: Dialect, body: Body, said: str, *, unnamed: bool) -> Dialect | None:
    """The form to try next after a refusal of `body` in `dialect` with the words `said`, or None where none would help.

    With `unnamed`, weaker forms are tried although the refusal names no field.
    """
    words = said.lower()
    if LENGTH_WORDS.search(words) or FILTER_WORDS.search(words):
        return None
    sent = dialect.put(body)
    named = _named(dialect, sent, words)
    return named or (_next_unnamed(dialect, sent) if unnamed else None)


def _named(dialect: Dialect, sent: Body, words: str) -> Dialect | None:
    for name in ("reasoning_effort", "temperature", "encoding_format", "dimensions", "service_tier"):
        if name in sent and (name in words or name.replace("_", " ") in words):
            return _without(dialect, name)
    if "encoding_format" in sent and "base64" in words:
        return _without(dialect, "encoding_format")
    if "dimensions" in sent and ("matryoshka" in words or "dimension" in words):
        return _without(dialect, "dimensions")
    if any(name in sent for name in _OTHER) and any(name in words for name in _OTHER) and not dialect.swapped:
        return replace(dialect, swapped=True)
    if re.search(r"\bsystem\b", words) and "role" in words and dialect.system and "messages" in sent:
        return replace(dialect, system=False)
    if "response_format" in sent and (_SCHEMA_WORDS.search(words) or re.search(r"\bstrict\b", words)):
        if re.search(r"\bstrict\b", words) and dialect.strict and dialect.form == "json_schema":
            return replace(dialect, strict=False)
        return replace(dialect, form=_WEAKER[dialect.form])
    return None


def _next_unnamed(dialect: Dialect, sent: Body) -> Dialect | None:
    if "response_format" in sent:
        return replace(dialect, form=_WEAKER[dialect.form])
    for name in ("encoding_format", "temperature", "reasoning_effort", "dimensions"):
        if name in sent:
            return _without(dialect, name)
    if any(name in sent for name in _OTHER) and not dialect.swapped:
        return replace(dialect, swapped=True)
    return None


def _without(dialect: Dialect, name: str) -> Dialect:
    return replace(dialect, dropped=tuple(sorted({*dialect.dropped, name})))


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    told = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    return [{**rest[0], "content": f"{told}\n\n{rest[0]['content']}"}, *rest[1:]] if told and rest else messages


_SERVER = "server"
_KNOWN: dict[tuple[str, str, str], Dialect] = {}
# Servers and models that have answered this process: they need not be tried out with one request alone.
_ANSWERED: set[tuple[str, str, str]] = set()


class KnownServer:
    """One server and model, as seen from one results folder (None: this process only)."""

    def __init__(self, root: Path | None, endpoint: str, model: str) -> None:
        self._key = (str(root), endpoint, model)
        self._root = root

    @property
    def dialect(self) -> Dialect:
        """How requests are put for it."""
        if self._key not in _KNOWN:
            _KNOWN[self._key] = self._read()
        return _KNOWN[self._key]

    @property
    def has_answered(self) -> bool:
        """Whether it has answered this process."""
        return self._key in _ANSWERED

    def answered(self, dialect: Dialect) -> bool:
        """Note an answer to a request put so; whether that is news."""
        _ANSWERED.add(self._key)
        if replace(dialect, inputs=self.dialect.inputs) == self.dialect:
            return False
        self._keep(replace(dialect, inputs=self.dialect.inputs))
        return True

    def learn_inputs(self, most: int) -> None:
        """Note how many texts it takes at once."""
        self._keep(replace(self.dialect, inputs=most))

    def _keep(self, dialect: Dialect) -> None:
        _KNOWN[self._key] = dialect
        if self._root:
            with Records(self._root).writing() as records:
                records.put(Document(_SERVER, *self._key[1:], asdict(dialect)))

    def _read(self) -> Dialect:
        if self._root is None:
            return PLAIN
        with Records(self._root).reading() as records:
            known = records.all(_SERVER, self._key[1], sound=True)
        # One that is damaged says nothing: found out anew.
        said = next((one.body for one in known if one.name == self._key[2]), None)
        return PLAIN if said is None else Dialect(**{**said, "dropped": tuple(said["dropped"])})


def forget_all(root: Path) -> None:
    """Forget every server that was seen from a results folder."""
    for key in [key for key in _KNOWN if key[0] == str(root)]:
        _KNOWN.pop(key)
        _ANSWERED.discard(key)
    with Records(root).writing() as records:
        for known in records.all(_SERVER, sound=True):
            records.remove(known)


_KEY_LIKE = re.compile(r"\bsk-[\w*.…-]+")
_MOST_QUOTED = 200
_REMEDIES: dict[int | str, str] = {
    401: "Set {key} to a key that this server accepts and run again.",
    402: "It requires payment: add credit there, or use another key or server, and run again.",
    403: "The key may not use this model here: use another key or model, or check {url}, and run again.",
    404: "It knows no such model or address: correct the model's name or {url} and run again.",
    405: "That is not the address of its API: correct {url} and run again.",
    "quota": "The account has no credit left: add some, or use another key, and run again.",
}
_SHORTEN = {
    "interpretation.model": "lower interpretation.examples or interpretation.max_words",
    "annotation.model": "lower annotation.max_words or annotation.concepts_per_call",
    "embedding.model": "lower embedding.max_tokens",
}


def refusal(status: int, body: Any, text: str, asker: Asker, server: Server) -> Reply | ProviderError:
    """What an error status (or an `error` in a body) means: the end, or an answer that is missing for a reason."""
    said = quoted(body, text, server)
    words = f"{said} {_code(body)}".lower()
    if LENGTH_WORDS.search(words):
        return Reply(
            reason=f"the server answered {status}: {said} (the request is longer than the model reads: "
            f"{_SHORTEN.get(asker.field, 'shorten it')})",
            fault="request",
        )
    if FILTER_WORDS.search(words) and status in (400, 403, 422):
        return Reply(reason=f"the server's content filter withheld the answer: {said}", unpaid=True)
    quota = "insufficient_quota" in words
    remedy = _REMEDIES["quota"] if quota else _REMEDIES.get(status)
    if remedy:
        hint = server.hint if status in (404, 405) else ""
        return ProviderError(
            f"{asker.name}: {server.endpoint} refused the request ({status}: {said}). {hint}"
            + remedy.format(key=server.key_name, url=server.url_name)
        )
    return Reply(reason=f"the server answered {status}: {said}", fault="request")


def error_in(body: Any) -> bool:
    """Whether a body that came with status 200 is an error all the same."""
    return isinstance(body, Mapping) and bool(body.get("error")) and not body.get("choices") and not body.get("data")


def status_in(body: Any) -> int:
    """The status that such a body names; 400 where it names none."""
    error = body.get("error")
    code = error.get("code", error.get("status")) if isinstance(error, Mapping) else None
    code = int(code) if isinstance(code, str) and code.isdecimal() else code
    return code if isinstance(code, int) and 400 <= code < 600 else 400


def quoted(body: Any, text: str, server: Server) -> str:
    """What the server said, in one short line, without the key or anything like one."""
    line = " ".join((_message(body) or _plain(text) or "no word why").split())
    line = _KEY_LIKE.sub("(key)", server.redact(line))
    return line if len(line) <= _MOST_QUOTED else line[:_MOST_QUOTED] + "…"


def _message(body: Any) -> str:
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return "; ".join(filter(None, map(_message, body[:3])))
    if not isinstance(body, Mapping):
        return ""
    if isinstance(body.get("msg"), str):
        # One entry of FastAPI's `detail`.
        place = ".".join(str(part) for part in body.get("loc") or ())
        return f"{place}: {body['msg']}" if place else body["msg"]
    for name in ("error", "message", "detail", "errors", "msg"):
        if body.get(name):
            return _message(body[name]) or json.dumps(body[name])[:_MOST_QUOTED]
    return ""


def _code(body: Any) -> str:
    """Codes beside the words: of the error, and of an inner one, as Azure has it."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return ""
    inner = error.get("innererror")
    return " ".join(str(part.get("code")) for part in (error, inner) if isinstance(part, Mapping))


def _plain(text: str) -> str:
    """The words of a page, where a proxy answers with one."""
    return re.sub(r"<[^>]*>", " ", text[:2000])
