"""Templates and what every page shares: escaping, filters, style.

Belongs here: the template environment. Does not belong here: what any page says.

Everything printed by a template is escaped, but for `|safe`, which is for our own CSS and the SVG of `figures`.
"""

import math
from pathlib import Path
from typing import Any

from hsae_dagster.report.wording import NOT_ESTIMABLE, capitalised, clean, count, number, one_line, plural

_HERE = Path(__file__).parent


def style() -> str:
    """The CSS of every page, to be put into it."""
    return (_HERE / "report.css").read_text(encoding="utf-8")


def template(name: str) -> Any:
    """The template of this name."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "one_line": one_line,
        "capitalised": capitalised,
        "tie": _tie,
    }
    environment.globals |= {"plural": plural}
    return environment.get_template(name)


def _finalize(value: Any) -> Any:
    """Last guard before escaping: no `nan`, no control characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_ESTIMABLE
    return clean(value) if type(value) is str else value  # Markup, a subclass, is our own SVG and CSS


def _tie(words: str) -> str:
    """Our own words with figures and their signs kept on one line."""
    for loose in (" %", " < ", " = "):
        words = words.replace(loose, loose.replace(" ", "\u00a0"))
    return words
