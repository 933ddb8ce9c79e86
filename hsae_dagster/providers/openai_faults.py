"""What a failed request means, in a sentence that shows no key.

Belongs here: from what the server said to an answer that is missing for a reason, or to the end of asking. Does not
belong here: answers that arrived but cannot be used (`openai_replies`) or repeating a request (`openai_client`).
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai_dialect import FILTER_WORDS, LENGTH_WORDS
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_server import Asker, Server

_KEY_LIKE = re.compile(r"\bsk-[\w*.…-]+")
_MOST_QUOTED = 200
_REMEDIES: dict[int | str, str] = {
    401: "Set {key} to a key that this server accepts and run again.",
    402: "It wants to be paid: add credit there, or use another key or server, and run again.",
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


def stopped(wait: float, said: str, asker: Asker, server: Server) -> ProviderError:
    """The server asks to come back much later."""
    return ProviderError(
        f"{asker.name}: {server.endpoint} asks to wait {wait / 60:,.0f} minutes: {said or 'no reason given'}. Nothing "
        "further is asked and every answer so far is kept; run again by then, or use another key or server."
    )


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
    """The words in an error body of any of the usual shapes."""
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
