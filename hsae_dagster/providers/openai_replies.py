"""What came back from an OpenAI-compatible server: a usable value, or the reason why there is none.

Belongs here: reading chat completions and embeddings without trusting the server. Does not belong here: what a value
means (whoever asked) or requests that failed outright (`openai_client`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Fault = Literal["request", "connection"]


@dataclass(frozen=True)
class Reply:
    """The reply to one request.

    Attributes:
        value: the JSON object of a chat completion, or the list of vectors of an embeddings request, in order.
        reason: why there is no value, else None.
        fault: how the request itself failed, or None when the server answered it (usably or not).
    """

    value: Any = None
    reason: str | None = None
    fault: Fault | None = None


def read_chat(response: Any) -> Reply:
    """The JSON object in a chat completion; a refused, withheld, cut off, empty or unparseable one is a reason."""
    choices = getattr(response, "choices", None)
    if not choices or getattr(choices[0], "message", None) is None:
        return Reply(reason="the server's answer holds no message")
    choice, message = choices[0], choices[0].message
    if getattr(message, "refusal", None):
        return Reply(reason=f"the model refused: {_short(message.refusal)}")
    if choice.finish_reason == "content_filter":
        return Reply(reason="the server's content filter withheld the answer")
    if choice.finish_reason == "length":
        return Reply(reason="the answer was cut off at the token limit")
    content = message.content
    if not isinstance(content, str) or not content.strip():
        return Reply(reason="the answer is empty")
    try:
        value = json.loads(content, object_pairs_hook=_distinct)
    except ValueError as error:
        return Reply(reason=f"the answer is not usable JSON ({_short(str(error))})")
    if not isinstance(value, dict):
        return Reply(reason="the answer is not a JSON object")
    return Reply(value=value)


def read_embeddings(response: Any, count: int) -> Reply:
    """The vectors of an embeddings answer in the order of the inputs; servers may send them in any order."""
    data = getattr(response, "data", None)
    if not isinstance(data, Sequence) or len(data) != count:
        got = len(data) if isinstance(data, Sequence) else "no"
        return Reply(reason=f"{count} texts were sent and {got} vectors came back")
    indices = [getattr(item, "index", None) for item in data]
    if set(indices) != set(range(count)):
        return Reply(reason="the vectors that came back are not numbered one per text")
    vectors = [getattr(item, "embedding", None) for item in sorted(data, key=lambda item: item.index)]
    if not all(isinstance(vector, list) and vector for vector in vectors):
        return Reply(reason="a vector that came back is not a list of numbers")
    return Reply(value=vectors)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a field is given twice")
    return value


def _short(text: str) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= 120 else line[:120] + "…"
