"""What a failed request means, in a sentence that shows no key.

Belongs here: from the SDK's errors to an answer that is missing for a reason, or to the end of asking. Does not belong
here: answers that arrived but cannot be used (`openai_replies`) or repeating a request (the SDK does).
"""

import re
from collections.abc import Mapping
from typing import Literal

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_server import Asker, Server

_KEY_LIKE = re.compile(r"\bsk-[\w*.…-]+")
_REMEDIES: dict[int | Literal["quota"], str] = {
    401: "Set OPENAI_API_KEY to a key that this server accepts and run again.",
    403: "The key may not use this model here: use another key or model, or check OPENAI_BASE_URL, and run again.",
    404: "It knows no such model or address: correct the model's name or OPENAI_BASE_URL and run again.",
    "quota": "The account has no credit left: add some, or use another key, and run again.",
}


def verdict(error: Exception, asker: Asker, server: Server) -> Reply | ProviderError:
    """What a failed request means: the end, or an answer that is missing for a reason."""
    import openai

    said = quote(error, server)
    if isinstance(error, openai.APIStatusError):
        remedy = _REMEDIES.get("quota" if error.code == "insufficient_quota" else error.status_code)
        if remedy:
            return ProviderError(
                f"{asker.name}: {server.endpoint} refused the request ({error.status_code}: {said}). " + remedy
            )
        return Reply(reason=f"the server answered {error.status_code}: {said}", fault="request")
    if isinstance(error, openai.APIConnectionError):
        return Reply(reason=f"the connection failed: {said}", fault="connection")
    if isinstance(error, ValueError | RecursionError):
        return Reply(reason="the server's answer could not be read: it is not JSON", fault="request")
    return Reply(reason=f"the server's answer could not be read: {said}", fault="request")


def quote(error: Exception, server: Server) -> str:
    """What the server said, in one short line, without the key or anything like one."""
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, Mapping) else None
    line = " ".join(str(said or error.__cause__ or error).split())
    line = _KEY_LIKE.sub("(key)", server.redact(line))
    return line if len(line) <= 200 else line[:200] + "…"
