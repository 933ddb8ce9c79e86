"""What came back from an OpenAI-compatible server: a usable value, or the reason why there is none.

Belongs here: reading chat completions and embeddings without trusting the server. Does not belong here: what a value
means (whoever asked) or requests that failed outright (`openai_faults`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from hsae_dagster.providers.model_table import NO_TOKENS, Usage

Fault = Literal["request", "connection"]


@dataclass(frozen=True)
class Reply:
    """The reply to one request.

    Attributes:
        value: the JSON object of a chat completion, or the list of vectors of an embeddings request, in order.
        reason: why there is no value, else None.
        fault: how the request itself failed, or None when the server answered it (usably or not).
        content: what the model wrote, as it came.
        usage: tokens, zeros where the server does not count.
        model_echo: the model as the server names it.
        request_id: the server's name for the request.
        service_tier: how the server says it was processed.
        cost_usd: what it cost, whenever it was paid; None where no price is known.
    """

    value: Any = None
    reason: str | None = None
    fault: Fault | None = None
    content: str | None = None
    usage: Usage = NO_TOKENS
    model_echo: str | None = None
    request_id: str | None = None
    service_tier: str | None = None
    cost_usd: float | None = None


def read_response(response: Any, inputs: int | None, request_id: str | None = None) -> Reply:
    """A parsed response body: of an embeddings request of `inputs` texts, or of a chat completion where that is None.

    A body without what was asked for is a fault: no answer has arrived.
    """
    body = response if isinstance(response, Mapping) else {}
    reply = read_chat(body) if inputs is None else read_embeddings(body, inputs)
    if reply.fault:
        return reply
    return replace(
        reply,
        usage=read_usage(body.get("usage")),
        model_echo=_name(body.get("model")),
        request_id=_name(request_id or body.get("id")),
        service_tier=_name(body.get("service_tier")),
    )


def read_usage(usage: Any) -> Usage:
    """Tokens as counted by the server; what it leaves out or garbles is zero."""
    if not isinstance(usage, Mapping):
        return Usage()
    details = usage.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    prompt = _count(usage.get("prompt_tokens"))
    return Usage(input=prompt, cached=min(cached, prompt), output=_count(usage.get("completion_tokens")))


def read_chat(response: Mapping[str, Any]) -> Reply:
    """The JSON object in a chat completion; a refused, withheld, cut off, empty or unparseable one is a reason."""
    choices = response.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        return Reply(reason="the server's answer holds no message", fault="request")
    content = message.get("content")
    text = content if isinstance(content, str) else None
    if message.get("refusal"):
        return Reply(reason=f"the model refused: {_short(message['refusal'])}", content=text)
    if choice.get("finish_reason") == "content_filter":
        return Reply(reason="the server's content filter withheld the answer", content=text)
    if choice.get("finish_reason") == "length":
        return Reply(reason="the answer was cut off at the token limit", content=text)
    return read_content(text)


def read_content(text: str | None) -> Reply:
    """The JSON object that a model wrote."""
    if text is None or not text.strip():
        return Reply(reason="the answer is empty", content=text)
    try:
        value = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        return Reply(reason=f"the answer is not usable JSON ({_short(str(error))})", content=text)
    if not isinstance(value, dict):
        return Reply(reason="the answer is not a JSON object", content=text)
    return Reply(value=value, content=text)


def read_embeddings(response: Mapping[str, Any], count: int) -> Reply:
    """The vectors of an embeddings answer in the order of the inputs; servers may send them in any order."""
    data = response.get("data")
    items = [item for item in data if isinstance(item, Mapping)] if isinstance(data, Sequence) else []
    if len(items) != count:
        got = len(items) if isinstance(data, Sequence) else "no"
        return Reply(reason=f"{count} texts were sent and {got} vectors came back", fault="request")
    by_index = {item["index"]: item.get("embedding") for item in items if isinstance(item.get("index"), int)}
    if set(by_index) != set(range(count)):
        return Reply(reason="the vectors that came back are not numbered one per text", fault="request")
    vectors = [by_index[index] for index in range(count)]
    if not all(isinstance(vector, list) and vector for vector in vectors):
        return Reply(reason="a vector that came back is not a list of numbers", fault="request")
    return Reply(value=vectors)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a field is given twice")
    return value


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _name(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None


def _short(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 120 else line[:120] + "…"
