"""A proposal as the text of a dataset.yaml, its reasons as comments.

Belongs here: layout. Does not belong here: what is proposed and why (`proposal`).
"""

import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import yaml

from hsae_dagster.dataset.proposal import Field, Proposal

WIDTH = 100


def render(proposal: Proposal, source: str) -> str:
    """The file's text; reading it as YAML gives `proposal.declaration()`."""
    lines = [f"# Proposed by `hsae new` from a look at {_plain(source)}. Every choice is yours to change."]
    for remark in proposal.remarks:
        lines += _comment(f"Note: {remark}", "")
    for section, fields in groupby(proposal.fields, key=lambda field: field.path.rpartition(".")[0]):
        members = list(fields)
        indent = ""
        if section:
            # A section of suggestions only would be an empty value, which is another thing than no section.
            lines.append(f"{section}:" if any(field.active for field in members) else f"# {section}:")
            indent = "  "
        for field in members:
            lines += _field(field, indent)
    return "\n".join(lines) + "\n"


def _field(field: Field, indent: str) -> Iterator[str]:
    said = field.why
    if field.others:
        said += f" It could also be: {', '.join(field.others)}."
    if not field.sure:
        said = f"UNSURE. {said}"
    yield from _comment(said.strip(), indent)
    name = field.path.rpartition(".")[2]
    if name:
        yield f"{indent}{'' if field.active else '# '}{name}: {_value(field.value)}"


def _comment(said: str, indent: str) -> Iterator[str]:
    for line in textwrap.wrap(_plain(said), WIDTH - len(indent), break_on_hyphens=False):
        yield f"{indent}# {line}"


def _value(value: Any) -> str:
    """A value on one line, quoted where YAML would read it otherwise."""
    layout: dict[str, Any] = {"default_flow_style": True, "width": float("inf"), "sort_keys": False}
    text = yaml.safe_dump(value, allow_unicode=True, **layout).removesuffix("\n").removesuffix("\n...")
    if len(text.splitlines()) > 1:
        text = yaml.safe_dump(value, default_style='"', **layout).removesuffix("\n")
    return text


def _plain(said: str) -> str:
    """Names and values of a file may hold line breaks, which would end a comment, and what YAML forbids even there."""
    joined = " ".join(said.split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in joined)
