"""docs/dataset-yaml.md as the models of dataset.yaml have it."""

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
outside their limits are refused with name, value and remedy. `hsae check <dataset>` checks a declaration.
"""
PLAIN = {str: "text", int: "whole number", float: "number", bool: "true or false"}
LIMITS = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
FROM_TO = re.compile(r"at least (\S+) and at most (\S+)")


def field_reference() -> str:
    """The page."""
    return "\n".join([TITLE, *_tables(DatasetSpec, "", {})])


def _tables(model: type[BaseModel], prefix: str, seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """Tables of a section and of the sections in it; `seen` has the title of each shown before."""
    title = f"`{prefix.rstrip('.')}`" if prefix else "The whole file"
    if model in seen:
        yield f"## {title}\n\nThe same fields as {seen[model]}.\n"
        return
    seen[model] = title
    yield _table(title, model, prefix)
    for name, info in model.model_fields.items():
        for inner, listed in _models(info.annotation):
            yield from _tables(inner, f"{prefix}{name}{'[]' if listed else ''}.", seen)


def _table(title: str, model: type[BaseModel], prefix: str) -> str:
    lines = [f"## {title}", "", " ".join((model.__doc__ or "").split()), ""]
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
    return " ".join((info.description or (inner[0][0].__doc__ if inner else "") or "").split())


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel):
        return "see below"
    if default is None or default in ((), ""):
        return "none"
    return f"`{default if isinstance(default, str) else json.dumps(default, ensure_ascii=False)}`"


def _kind(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
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
        several = f"list of {len(parts)}: {' and '.join(dict.fromkeys(parts))}"
        return f"list of {parts[0]}" if Ellipsis in inner else several
    if origin is dict:
        return f"{_kind(inner[1])} for each of {_kind(inner[0])}"
    if _models(annotation):
        return "section"
    return PLAIN.get(annotation, str(annotation))
