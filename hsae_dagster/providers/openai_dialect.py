"""Which fields a server takes of a request, found out by what it refuses.

Belongs here: the weaker forms of a request, and which one a refusal asks for. Does not belong here: sending
(`openai_client`), or remembering for the next run (`known_servers`).

A request's key in the ledger is that of its full form: how it had to be put for one server is no part of the question.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hsae_dagster.providers.plan import Body

Form = Literal["json_schema", "json_object", "none"]
_WEAKER: dict[str, Form] = {"json_schema": "json_object", "json_object": "none"}
_LIMITS = ("max_tokens", "max_completion_tokens")
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
            sent = {_other_limit(name): value for name, value in sent.items()}
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

    def record(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {**asdict(self), "dropped": list(self.dropped)}

    @staticmethod
    def of(record: Mapping[str, Any]) -> "Dialect":
        """From `record`."""
        return Dialect(**{**record, "dropped": tuple(record["dropped"])})


PLAIN = Dialect()


def weaker(dialect: Dialect, body: Body, said: str, *, unnamed: bool) -> Dialect | None:
    """The form to try next after a refusal, or None where none would help.

    Args:
        dialect: in which the refused request was put.
        body: its full form.
        said: the server's words.
        unnamed: whether to try weaker forms although the refusal names no field.
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
    if any(name in sent for name in _LIMITS) and any(name in words for name in _LIMITS) and not dialect.swapped:
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
    if any(name in sent for name in _LIMITS) and not dialect.swapped:
        return replace(dialect, swapped=True)
    return None


def _without(dialect: Dialect, name: str) -> Dialect:
    return replace(dialect, dropped=tuple(sorted({*dialect.dropped, name})))


def _other_limit(name: str) -> str:
    return _LIMITS[1 - _LIMITS.index(name)] if name in _LIMITS else name


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    told = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [message for message in messages if message["role"] != "system"]
    return [{**rest[0], "content": f"{told}\n\n{rest[0]['content']}"}, *rest[1:]] if told and rest else messages
