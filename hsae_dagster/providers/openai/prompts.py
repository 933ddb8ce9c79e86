"""Prompts as files, schemas of answers, and what to do when nothing usable comes back."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_bytes
from hsae_dagster.providers.base import commonest
from hsae_dagster.providers.openai.request import Client
from hsae_dagster.providers.replies import Reply

CUT_MARKER = "[… the rest of this text is not shown]"
# A writing without spaces has few "words": no text shows more characters than this many per word allowed.
CHARACTERS_PER_WORD = 16
_FENCE = re.compile(r"<(?=\s*/?\s*text\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """A prompt file: its name without `.md`, the template, and the hash of its bytes, by which it is known."""

    name: str
    source: str
    hash: str

    @property
    def words(self) -> set[str]:
        """What the template may be filled with."""
        import jinja2.meta

        return jinja2.meta.find_undeclared_variables(_environment().parse(self.source))

    def messages(self, **values: Any) -> list[dict[str, str]]:
        """The chat messages with `values` filled in.

        Raises:
            ProviderError: the template names a value that nobody gave, or reaches for what it may not.
        """
        import jinja2

        template = _template(self.source)
        context = template.new_context({"cut_marker": CUT_MARKER, **values})
        try:
            said = {role: "".join(template.blocks[role](context)).strip() for role in ("system", "user")}
        except jinja2.TemplateError as error:
            raise ProviderError(f"The prompt `{self.name}` cannot be filled in: {error}. Correct it.") from None
        return [{"role": role, "content": content} for role, content in said.items()]


@cache
def load_prompt(name: str) -> Prompt:
    """Read prompts/<name>.md."""
    data = files("hsae_dagster.providers").joinpath("prompts", f"{name}.md").read_bytes()
    return Prompt(name=name, source=data.decode("utf-8"), hash=hash_bytes(data))


def prompt_of(name: str, own: str | None, field: str, needed: Collection[str]) -> Prompt:
    """The user's own prompt where there is one, else the file of that name, whose values are all that it may use.

    Args:
        name: of the file.
        own: the user's text.
        field: of dataset.yaml that names it, for error messages.
        needed: values without which it would ask nothing.

    Raises:
        ProviderError: it is no template, lacks a block or a value, or uses one that there is not.
    """
    import jinja2

    usual = load_prompt(name)
    if own is None:
        return usual
    prompt = Prompt(field, own, hash_bytes(own.encode("utf-8")))
    try:
        blocks, used = _template(own).blocks.keys(), prompt.words
    except jinja2.TemplateSyntaxError as error:
        raise ProviderError(f"`{field}`, line {error.lineno}: {error.message}. Correct the template there.") from None
    lacking = [f"block {name}" for name in ("system", "user") if name not in blocks]
    lacking += [f"{{{{ {name} }}}}" for name in sorted(set(needed) - used)]
    strange = sorted(used - usual.words)
    if lacking or strange:
        what = f"lacks `{lacking[0]}`" if lacking else f"uses `{strange[0]}`, which nothing fills in"
        raise ProviderError(
            f"`{field}` {what}. A prompt has the blocks `system` and `user` and is filled in with "
            f"{', '.join(sorted(usual.words))}; begin with a copy of hsae_dagster/providers/prompts/{name}.md."
        )
    return prompt


def present(text: str, max_words: int) -> str:
    """A text as a prompt shows it: at most `max_words` words, then an explicit marker, unable to close its fence.

    White space inside is kept. A text that spells out the fence (`</text>`) has that `<` replaced by `‹`.
    """
    shown = text.encode("utf-8", "replace").decode("utf-8").strip()
    ends = [match.end() for match in islice(re.finditer(r"\S+", shown), max_words)]
    end = min(ends[-1] if ends else 0, max_words * CHARACTERS_PER_WORD)
    cut = f"{shown[:end].rstrip()} {CUT_MARKER}" if end < len(shown) else shown
    return _FENCE.sub("‹", cut)


@cache
def _template(source: str) -> Any:
    return _environment().from_string(source)


@cache
def _environment() -> Any:
    import jinja2.sandbox

    return jinja2.sandbox.ImmutableSandboxedEnvironment(
        autoescape=False,  # a prompt is not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def object_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with these properties, each required, and no other (strict mode's terms)."""
    required = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def json_request(
    model: str,
    messages: list[dict[str, str]],
    name: str,
    schema: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Body of a chat completion with strict structured output, whose schema (by `object_of`) bears a `name`.

    `settings` are further fields, such as the limit of the answer (`OpenAIClient.settings`).
    """
    answer = {"name": name, "strict": True, "schema": schema}
    return {
        "model": model,
        "messages": messages,
        "response_format": {"type": "json_schema", "json_schema": answer},
        **(settings or {}),
    }


# From the place of a request and its reply: why the reply holds nothing usable, or None.
Problem = Callable[[int, Reply], str | None]
_ADVICE = {
    "cut off": "The model needs more tokens: give it `thinking_tokens` in a file named by HSAE_MODELS, lower its "
    "`reasoning_effort` there, or ask another model",
    "stands in `reasoning": "The server treats the answer as reasoning: turn off its reasoning parser or "
    "the model's reasoning, or ask another model",
    "all thought": "The model returned only reasoning: turn its reasoning off, give it `thinking_tokens` in a "
    "file named by HSAE_MODELS, or ask another model",
    "empty": "Check at the server why the model writes nothing, or ask another model",
    "refused": "Ask another model, or say in `interpretation.instructions` what the texts are",
    "content filter": "Ask another server or model, or leave such texts out",
    "usable JSON": "Ask a model that follows instructions better, or a server that enforces a JSON schema",
    "the phrase": "Ask a model that follows instructions better",
    "which was not asked": "Ask a model that follows instructions better, or lower `annotation.concepts_per_call`",
}
_OTHERWISE = "Remove the cause"


def reason_of(index: int, reply: Reply) -> str | None:
    """The reply's own reason."""
    return reply.reason


def advice(reason: str) -> str:
    """The remedy for replies with this reason."""
    return next((told for words, told in _ADVICE.items() if words in reason), _OTHERWISE)


def nothing_came(client: Client, problems: Sequence[str], which: str) -> ProviderError:
    """Several requests brought nothing usable, so the next ones will not either."""
    reason, times = commonest(problems)
    often = f"most often ({times} of {len(problems)})" if times < len(problems) else "each time"
    return ProviderError(
        f"{client.asker.name}: {len(problems)} {which} to {client.server.endpoint} gave nothing usable, {often} "
        f"because {reason}. {advice(reason)}, and run again. Nothing further is asked and every answer so far "
        "is kept."
    )


def require_some(client: Client, problems: Sequence[str | None]) -> None:
    """Raise ProviderError if there were replies and each had a problem: a stage with none usable is not finished."""
    found = [problem for problem in problems if problem is not None]
    if problems and len(found) == len(problems):
        reason, times = commonest(found)
        raise ProviderError(
            f"{client.asker.name}: none of {len(found):,} answers of {client.server.endpoint} is usable, most often "
            f"({times:,} times) because {reason}. {advice(reason)}, then have them asked again with `hsae ask-again "
            "<dataset>` and run again."
        )
