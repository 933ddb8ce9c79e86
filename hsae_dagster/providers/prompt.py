"""Prompts as files, and texts made safe to stand in them.

Belongs here: loading prompts/<name>.md, its hash, filling it in, cutting and fencing texts. Does not belong here: what
is asked (the prompt files) or sending it (`openai_client`).

A prompt file is a Jinja template with a block `system` and a block `user`. Values are inserted as they are and never
read as template, so no text can break a prompt.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from typing import Any

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

    def messages(self, **values: Any) -> list[dict[str, str]]:
        """The chat messages with `values` filled in; a value that the template names and nobody gave is an error."""
        template = _template(self.source)
        context = template.new_context({"cut_marker": CUT_MARKER, **values})
        return [
            {"role": role, "content": "".join(template.blocks[role](context)).strip()} for role in ("system", "user")
        ]


@cache
def load_prompt(name: str) -> Prompt:
    """Read prompts/<name>.md."""
    data = files("hsae_dagster.providers").joinpath("prompts", f"{name}.md").read_bytes()
    return Prompt(name=name, source=data.decode("utf-8"), hash=hash_bytes(data))


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
    import jinja2

    environment = jinja2.Environment(
        autoescape=False,  # a prompt is not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.from_string(source)
