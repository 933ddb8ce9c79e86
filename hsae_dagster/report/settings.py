"""Nested settings as rows for people.

Belongs here: names and values of what dataset.yaml declared, written out. Does not belong here: their meaning
(`dataset`).
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from hsae_dagster.report.wording import one_line

_LONGEST = 200


def flat_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested settings as (dotted name, value) rows, in the order given."""
    for key, value in settings.items():
        yield from _flat(str(key), value)


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        for position, item in enumerate(value):
            yield from _flat(f"{name}[{position}]", item)
    elif isinstance(value, list | tuple):
        yield name, ", ".join(_scalar(item) for item in value) or "none"
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else "none"
    # A prompt of one's own is pages long.
    said = one_line(str(value))
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
