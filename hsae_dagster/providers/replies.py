"""What came back from a model, a usable value or the reason why there is none; prices and quirks of models."""

import ast
import base64
import binascii
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hsae_dagster.dataset.discovery import load_yaml
from hsae_dagster.errors import ProviderError

BUILT_IN = Path(__file__).with_name("models.yaml")
SETTING = "HSAE_MODELS"
Tier = Literal["standard", "flex", "batch"]
# A model nobody knows may think before it answers; without a price its tokens are not reserved in dollars.
UNKNOWN_THINKING = 2048
_SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer, as the server counted them. Cached ones are part of the input; thoughts of the output."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.input + other.input, self.cached + other.cached, self.output + other.output)


NO_TOKENS = Usage()


class ModelProfile(BaseModel):
    """One model: prices in USD per million tokens, and what it is particular about (models.yaml names each field)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float | None = Field(None, ge=0)
    cached_input: float | None = Field(None, ge=0)
    output: float | None = Field(None, ge=0)
    discount: float = Field(0.5, gt=0, le=1)
    temperature: bool = True
    reasoning_effort: str | None = None
    thinking_tokens: int = Field(0, ge=0)
    flex: bool = False

    @property
    def priced(self) -> bool:
        """Whether dollars can be told."""
        return self.input is not None and self.output is not None

    def cost(self, usage: Usage, tier: str = "standard") -> float | None:
        """USD for some tokens, or None where no price is known."""
        if self.input is None or self.output is None:
            return None
        cached_price = self.input if self.cached_input is None else self.cached_input
        fresh = usage.input - usage.cached
        usd = (fresh * self.input + usage.cached * cached_price + usage.output * self.output) / 1e6
        return usd if tier == "standard" else usd * self.discount


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    as_of: object = None
    source: str | None = None
    models: Mapping[str, Mapping[str, object]]


def profile_of(model: str, environment: Mapping[str, str] = os.environ) -> ModelProfile:
    """What is known of a model; a dated snapshot (`…-2025-08-07`) is its model. Unknown: no price, room to think.

    Raises:
        ProviderError: the file that HSAE_MODELS names cannot be used.
    """
    own = environment.get(SETTING, "").strip()
    known = _profiles(Path(own).expanduser() if own else None)
    found = known.get(model) or known.get(_SNAPSHOT.sub("", model))
    return found or ModelProfile(thinking_tokens=UNKNOWN_THINKING)


@cache
def _profiles(own: Path | None) -> dict[str, ModelProfile]:
    fields = {name: dict(values) for name, values in _read(BUILT_IN).items()}
    for name, values in (_read(own) if own else {}).items():
        fields[name] = {**fields.get(name, {}), **values}
    found = {}
    for name, values in fields.items():
        try:
            found[name] = ModelProfile.model_validate(values)
        except ValidationError as error:
            raise _unusable(own, f"model `{name}`: {_first(error)}") from None
    return found


def _read(path: Path) -> Mapping[str, Mapping[str, object]]:
    try:
        return _Table.model_validate(load_yaml(path.read_text(encoding="utf-8"))).models
    except ValidationError as error:
        raise _unusable(path, _first(error)) from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise _unusable(path, " ".join(str(error).split())) from None


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    place = ".".join(str(part) for part in found["loc"])
    return f"{place}: {found['msg']}" if place else str(found["msg"])


def _unusable(path: Path | None, problem: str) -> ProviderError:
    return ProviderError(
        f"The table of models {path}, named by {SETTING}, cannot be used: {problem}. Write it like "
        "`models: {my-model: {input: 0.10, output: 0.40}}`, in USD per million tokens, or unset the variable."
    )


# Thoughts end with one of these; an answer follows.
_THOUGHT_ENDS = ("</think>", "</thinking>", "</thought>", "<|channel|>final<|message|>", "◁/think▷")
_THOUGHT_BEGINS = ("<think>", "<thinking>", "<thought>", "◁think▷")
_FENCED = re.compile(r"```[\w-]*\s*\n?(.*?)```", re.DOTALL)
# A model that writes this much before its object has not answered; and each brace costs a try.
MOST_TRIES = 64
_YES = {"true", "yes", "y", "t", "1"}
_NO = {"false", "no", "n", "f", "0"}
_NAMES = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}


class NoObjectError(ValueError):
    """What a model wrote holds no object; the message says why."""


def find_object(text: str) -> dict[str, Any]:
    """The first whole JSON object in `text`.

    Raises:
        NoObjectError: there is none.
    """
    answer = _after_thoughts(text)
    problem = ""
    for part in [*_FENCED.findall(answer), answer]:
        stripped = part.strip()
        try:
            whole = json.loads(stripped, object_pairs_hook=_distinct)
        except (ValueError, RecursionError) as error:
            problem = problem or str(error)
        else:
            if isinstance(whole, dict):
                return whole
    found = _object_in(answer)
    if found is not None:
        return found
    if problem:
        raise NoObjectError(f"is not usable JSON ({' '.join(problem.split())[:120]})")
    raise NoObjectError("is not a JSON object")


def as_boolean(value: Any) -> bool | None:
    """What a model means by true, "Yes", 1 and their like; None where it means neither."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return bool(value) if value in (0, 1) else None
    if isinstance(value, str):
        word = value.strip().strip("\"'`*.! ").casefold()
        return True if word in _YES else False if word in _NO else None
    if isinstance(value, dict):
        # {"reason": "…", "answer": true}: the one judgement in it.
        said = {as_boolean(inner) for inner in value.values() if not isinstance(inner, dict)} - {None}
        return said.pop() if len(said) == 1 else None
    return None


def _after_thoughts(text: str) -> str:
    ends = [(text.rfind(mark), mark) for mark in _THOUGHT_ENDS]
    at, mark = max(ends)
    if at >= 0:
        return text[at + len(mark) :]
    if text.lstrip().startswith(_THOUGHT_BEGINS):
        raise NoObjectError("is all thought and no answer")
    return text


def _object_in(text: str) -> dict[str, Any] | None:
    """The first object between other words."""
    decoder = json.JSONDecoder(object_pairs_hook=_distinct)
    for brace in islice(re.finditer("{", text), MOST_TRIES):
        try:
            return dict(decoder.raw_decode(text, brace.start())[0])
        except (ValueError, RecursionError) as error:
            if "given twice" in str(error):
                raise NoObjectError(f"is not usable JSON ({error})") from None
        balanced = _balanced(text, brace.start())
        found = _near_json(balanced) if balanced else None
        if found is not None:
            return found
    return None


def _balanced(text: str, start: int) -> str | None:
    """From an opening brace to its partner, quotes respected."""
    depth, quote, escaped = 0, "", False
    for place in range(start, len(text)):
        character = text[place]
        if quote:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == quote:
                quote = ""
        elif character == '"':
            quote = character
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start : place + 1]
    return None


def _near_json(text: str) -> dict[str, Any] | None:
    """An object in Python's spelling, or with a comma too many."""
    try:
        value = _plain(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return value if isinstance(value, dict) else None


def _plain(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, ast.List):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(isinstance(key, ast.Constant) for key in node.keys):
        pairs = [(str(_plain(key)), _plain(value)) for key, value in zip(node.keys, node.values, strict=True) if key]
        return _distinct(pairs)
    raise ValueError("not a value")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if any(value[key] != given for key, given in pairs):
        raise ValueError("a field is given twice")
    return value


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
        usage, counted: tokens, zeros where the server did not count them.
        model_echo, request_id, service_tier: model, request and tier as the server names them.
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
