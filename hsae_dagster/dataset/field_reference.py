"""Every field of dataset.yaml as a page, from the declarations themselves."""

import json
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin  # noqa: TID251 (compared with, not written)

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hsae_dagster.dataset.spec import DatasetSpec

TITLE = """# dataset.yaml, field by field

Only `task`, `files` and `columns` are required; the other defaults suit about 10,000 texts. Unknown fields and values
outside their limits are refused with name, value and remedy. `hsae check <dataset>` checks a declaration; `hsae fields`
prints this page.
"""
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}
LIMITS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
FROM_TO = re.compile(r"at least (\S+) and at most (\S+)")


def field_reference(section: str | None = None) -> str:
    """The page as Markdown; with a section's name (`columns`, `saes`, …) only what belongs to it.

    Raises:
        KeyError: there is no such section.
    """
    tables = list(_tables(DatasetSpec, "", {}))
    if section is None:
        return "\n".join([TITLE, *(table for _, table in tables)])
    if section not in section_names():
        raise KeyError(section)
    return "\n".join(table for name, table in tables if name == section)


def section_names() -> list[str]:
    """The parts of dataset.yaml that have fields of their own."""
    return list(dict.fromkeys(name for name, _ in _tables(DatasetSpec, "", {}) if name))


def _tables(model: type[BaseModel], prefix: str, seen: dict[type[BaseModel], str]) -> Iterator[tuple[str, str]]:
    """(top-level section, table) of a section and of the sections in it; `seen` has the title of each shown before."""
    title = f"`{prefix.rstrip('.')}`" if prefix else "The whole file"
    section = re.split(r"[.\[]", prefix)[0]
    if model in seen:
        yield section, f"## {title}\n\nThe same fields as {seen[model]}.\n"
        return
    seen[model] = title
    yield section, _table(title, model.__doc__, model, prefix)
    for name, info in model.model_fields.items():
        for inner, listed in _models(info.annotation):
            yield from _tables(inner, f"{prefix}{name}{'[]' if listed else ''}.", seen)


def _table(title: str, said: str | None, model: type[BaseModel], prefix: str) -> str:
    lines = [f"## {title}", "", " ".join((said or "").split()), ""]
    lines += ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        cells = (f"`{prefix}{name}`", _kind(info.annotation, info.metadata), _default(info), _meaning(info))
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _models(annotation: Any) -> list[tuple[type[BaseModel], bool]]:
    """The sections that a field may hold, and whether as a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, False)]
    listed = get_origin(annotation) is tuple
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return [(model, listed or within) for part in inner for model, within in _models(part)]


def _meaning(info: FieldInfo) -> str:
    inner = _models(info.annotation)
    return info.description or (inner[0][0].__doc__ if inner else "") or ""


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "see below"
    if default is None or default in ((), ""):
        return "none"
    value = list(default) if isinstance(default, tuple) else default
    return f"`{json.dumps(value, ensure_ascii=False)}`" if not isinstance(value, str) else f"`{value}`"


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """A type in words, with its limits."""
    marks = [mark for item in metadata for mark in (item.metadata if isinstance(item, FieldInfo) else [item])]
    limits = [f"{word} {getattr(mark, name):g}" for name, word in LIMITS for mark in marks if hasattr(mark, name)]
    named = _named(annotation)
    return ", ".join([named, FROM_TO.sub(r"\1 to \2", " and ".join(limits))]) if limits else named


def _named(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], inner[1:])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in inner if part is not NoneType)
    if origin is tuple:
        parts = [_kind(part) for part in inner if part is not Ellipsis]
        return (
            f"list of {parts[0]}"
            if Ellipsis in inner
            else f"list of {len(parts)}: {' and '.join(dict.fromkeys(parts))}"
        )
    if origin is dict:
        return f"{_kind(inner[1])} for each of {_kind(inner[0])}"
    if _models(annotation):
        return "section"
    return PLAIN.get(annotation, str(annotation))
