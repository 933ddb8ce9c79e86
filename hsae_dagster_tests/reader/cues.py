"""Named cues: what each name means to somebody who reads it.

Belongs here: a rule per name, on the text alone. Does not belong here: classes whose words the claim lists (`words`).
"""

import html
import re
from collections.abc import Callable

from hsae_dagster_tests.reader.claim import NotUnderstoodError

_CAPITALS = re.compile(r"\b[^\W\d_]{2,}\b")
_QUOTED = re.compile(r"\"[^\"]+\"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|»[^«]+«|「[^」]+」")


def _asks(text: str) -> bool:
    return any(mark in text for mark in "?？؟")


def _exclaims(text: str) -> bool:
    return any(mark in text for mark in "!！")


def _has_number(text: str) -> bool:
    return any(sign.isdecimal() for sign in text)


def _quotes(text: str) -> bool:
    return _QUOTED.search(text) is not None


def _has_capitals(text: str) -> bool:
    """A word of two letters or more, all of them capitals: neither “I” nor “A”."""
    return any(word.isupper() for word in _CAPITALS.findall(text))


CUES: dict[str, Callable[[str], bool]] = {
    "asks a question": _asks,
    "exclaims": _exclaims,
    "contains a number": _has_number,
    "uses a quotation": _quotes,
    "has a word in capitals": _has_capitals,
}


def shows(name: str, text: str) -> bool:
    """Whether a text shows the cue of that name; HTML entities count as what they stand for.

    Raises:
        NotUnderstoodError: the reader has never heard of it.
    """
    if name not in CUES:
        raise NotUnderstoodError(f"There is no cue `{name}`; the reader knows {', '.join(sorted(CUES))}.")
    return CUES[name](html.unescape(text))
