"""Prompts as files, and texts made safe to stand in them.

Belongs here: loading prompts/<name>.md or a prompt of the user's, its hash, filling it in, cutting and fencing texts.
Does not belong here: what is asked (the prompt files) or sending it (`openai_client`).

A prompt file is a Jinja template with a block `system` and a block `user`. Values are inserted as they are and never
read as template, so no text can break a prompt. A template reaches nothing but its values (Jinja's sandbox).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

from hsae_dagster.errors import ProviderError
from hsae_dagster.keys import hash_bytes

CUT_MARKER = "[… the rest of this text is not shown]"
# A writing without spaces has few "words": no text shows more characters than this many per word allowed.
CHARACTERS_PER_WORD = 16
_FENCE = re.compile(r"<(?=\s*/?\s*text\b)", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """A prompt file.

    Attributes:
        name: file name without `.md`.
        source: the template.
        hash: of the file's bytes; a changed prompt is another prompt.
    """

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
    """The user's own prompt where there is one, else the file of that name.

    Args:
        name: of the file that it stands for, whose values are all that it may use.
        own: its text.
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


def present_all(texts: Sequence[str], max_words: int) -> list[str]:
    """`present` for each text."""
    return [present(text, max_words) for text in texts]


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
