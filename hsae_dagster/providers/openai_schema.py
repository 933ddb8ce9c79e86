"""Chat requests whose answer must fit a JSON schema.

Belongs here: the shape of such a request. Does not belong here: which schema (whoever asks) or reading the answer
(`openai_replies`).
"""

from collections.abc import Mapping
from typing import Any


def json_request(
    model: str,
    messages: list[dict[str, str]],
    name: str,
    schema: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Body of a chat completion with strict structured output.

    Args:
        model: its name at the server.
        messages: system and user message.
        name: of the schema.
        schema: JSON schema of the answer; every property required, none further allowed (strict mode's terms).
        settings: further fields, such as the limit of the answer (`OpenAIClient.settings`).
    """
    answer = {"name": name, "strict": True, "schema": schema}
    return {
        "model": model,
        "messages": messages,
        "response_format": {"type": "json_schema", "json_schema": answer},
        **(settings or {}),
    }
