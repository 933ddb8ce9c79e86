"""What came back from an OpenAI-compatible server: a usable value, or the reason why there is none.

Belongs here: reading chat completions and embeddings without trusting the server. Does not belong here: an object in
what a model wrote (`loose_json`), what a value means (whoever asked) or requests that failed (`openai_faults`).
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hsae_dagster.providers.loose_json import NoObjectError, find_object
from hsae_dagster.providers.model_table import NO_TOKENS, Usage

Fault = Literal["request", "connection", "size"]
# How reasons begin that the model or its server chose to give: answers, however often they are asked for.
REFUSED = ("the model refused", "the server's content filter")
# Fields in which servers put thoughts, beside `content`.
THOUGHTS = ("reasoning_content", "reasoning")
# How reasons begin that a better reader may find untrue.
_UNREAD = "the answer is "


@dataclass(frozen=True)
class Reply:
    """The reply to one request.

    Attributes:
        value: the JSON object of a chat completion, or the list of vectors of an embeddings request, in order.
        reason: why there is no value, else None.
        fault: how the request itself failed (`size`: too many inputs at once), or None when the server answered it
            (usably or not).
        content: what the model wrote, as it came.
        usage: tokens, zeros where the server does not count.
        counted: whether the server counted them.
        model_echo: the model as the server names it.
        request_id: the server's name for the request.
        service_tier: how the server says it was processed.
        cost_usd: what it cost, whenever it was paid; None where no price is known.
        unpaid: the server did no work for it, so it costs nothing.
    """

    value: Any = None
    reason: str | None = None
    fault: Fault | None = None
    content: str | None = None
    usage: Usage = NO_TOKENS
    counted: bool = False
    model_echo: str | None = None
    request_id: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None
    unpaid: bool = False

    @property
    def refused(self) -> bool:
        """Whether the answer was withheld by choice, so that asking again would bring the same."""
        return is_refusal(self.reason)


def is_refusal(reason: str | None) -> bool:
    """Whether a reason is that the model or its server chose not to answer."""
    return reason is not None and reason.startswith(REFUSED)


def read_response(response: Any, inputs: int | None, request_id: str | None = None) -> Reply:
    """A parsed response body: of an embeddings request of `inputs` texts, or of a chat completion where that is None.

    A body without what was asked for is a fault: no answer has arrived.
    """
    body = response if isinstance(response, Mapping) else {}
    reply = read_chat(body) if inputs is None else read_embeddings(body, inputs)
    if reply.fault:
        return reply
    usage = read_usage(body.get("usage"))
    return replace(
        reply,
        usage=usage or NO_TOKENS,
        counted=usage is not None,
        model_echo=_name(body.get("model")),
        request_id=_name(request_id or body.get("id")),
        service_tier=_name(body.get("service_tier")),
    )


def read_usage(usage: Any) -> Usage | None:
    """Tokens as counted by the server; None where it counts none or leaves the output out."""
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    prompt, output = _count(usage.get("prompt_tokens")), usage.get("completion_tokens")
    # An embeddings answer has no output; a chat answer without a count of it cannot be priced.
    if not prompt or (output is None and usage.get("total_tokens") != prompt):
        return None
    return Usage(input=prompt, cached=min(cached or 0, prompt), output=_count(output))


def read_chat(response: Mapping[str, Any]) -> Reply:
    """The JSON object in a chat completion; a refused, withheld, cut off, empty or unparseable one is a reason."""
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return Reply(reason="the server's answer holds no message", fault="request")
    text = _joined(message.get("content"))
    if message.get("refusal"):
        return Reply(reason=f"the model refused: {_short(message['refusal'])}", content=text)
    if choice.get("finish_reason") == "content_filter":
        return Reply(reason="the server's content filter withheld the answer", content=text)
    if choice.get("finish_reason") == "length":
        return Reply(reason="the answer was cut off at the token limit", content=text)
    thoughts = next((name for name in THOUGHTS if _joined(message.get(name))), None)
    if thoughts and not (text or "").strip():
        return Reply(reason=f"the content is empty, and what the model wrote stands in `{thoughts}`", content=text)
    return read_content(text)


def read_content(text: str | None) -> Reply:
    """The JSON object in what a model wrote."""
    if text is None or not text.strip():
        return Reply(reason=f"{_UNREAD}empty", content=text)
    try:
        return Reply(value=find_object(text), content=text)
    except NoObjectError as error:
        return Reply(reason=f"the answer {error}", content=text)


def read_again(reason: str | None, content: str | None) -> Reply | None:
    """What a better reader makes of an answer that was kept as unreadable; None where it is no such answer."""
    return read_content(content) if content and reason is not None and reason.startswith(_UNREAD) else None


def readable_now(reason: str | None, content: str | None) -> bool:
    """Whether an answer that was kept as unreadable is readable after all."""
    again = read_again(reason, content)
    return again is not None and again.reason is None


def read_embeddings(response: Mapping[str, Any], count: int) -> Reply:
    """The vectors of an embeddings answer in the order of the inputs.

    Numbered vectors may come in any order; without any number they are in the order of the texts.
    """
    data = response.get("data")
    items = [item for item in data if isinstance(item, Mapping)] if isinstance(data, Sequence) else []
    if len(items) != count:
        got = len(items) if isinstance(data, Sequence) else "no"
        return Reply(reason=f"{count} texts were sent and {got} vectors came back", fault="request")
    numbers = [item.get("index") for item in items]
    if all(number is None for number in numbers):
        numbers = list(range(count))
    by_index = {n: item.get("embedding") for n, item in zip(numbers, items, strict=True) if isinstance(n, int)}
    if set(by_index) != set(range(count)):
        return Reply(reason="the vectors that came back are not numbered one per text", fault="request")
    vectors = [_vector(by_index[index]) for index in range(count)]
    if any(vector is None for vector in vectors):
        return Reply(reason="a vector that came back is not a list of numbers", fault="request")
    return Reply(value=vectors)


def _vector(said: Any) -> Any | None:
    """A list of numbers, or the little-endian float32 that a base64 text holds."""
    if isinstance(said, str):
        try:
            data = base64.b64decode(said, validate=True)
        except (binascii.Error, ValueError):
            return None
        return np.frombuffer(data, dtype="<f4") if data and len(data) % 4 == 0 else None
    return said if isinstance(said, list) and said else None


def _joined(content: Any) -> str | None:
    """Text that came whole or in parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    return "".join(texts) if texts else None


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _name(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _short(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 120 else line[:120] + "…"
