"""Named cues: what each name means to somebody who reads it.

Belongs here: a rule per name, on the text alone. Does not belong here: classes whose words the claim lists (`words`).
"""

import re
from collections.abc import Callable

from hsae_dagster_tests.reader.claim import NotUnderstoodError
from hsae_dagster_tests.reader.words import shown

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


def _ends_with_a_full_stop(text: str) -> bool:
    """One full stop, whatever closes a quotation or parenthesis after it; three dots are none.

    A backtick or an accent that stands alone closes a quotation as an apostrophe does.
    """
    bare = text.rstrip().rstrip("\"'”‘’‛ʼ´`»」)]")
    return bare.endswith("。") or (bare.endswith(".") and not bare.endswith(".."))


def _has_ed(text: str) -> bool:
    """A word of four letters or more that ends in “ed”."""
    words = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in text.lower()).split()
    return any(word.endswith("ed") and len(word) > 3 and word[-4:].isalpha() for word in words)


CUES: dict[str, Callable[[str], bool]] = {
    "has a question mark": _asks,
    "has an exclamation mark": _exclaims,
    "has a number in digits": _has_number,
    "has words in quotation marks": _quotes,
    "has a word in capitals": _has_capitals,
    "begins with a number in digits": lambda text: next(filter(str.isalnum, text), "").isdecimal(),
    "has a colon": lambda text: ":" in text or "：" in text,
    "ends with a full stop": _ends_with_a_full_stop,
    "has a word that ends in “ed”": _has_ed,
    "has three dots": lambda text: "…" in text or "..." in text,
    "has something in parentheses": lambda text: re.search(r"\([^()]+\)", text) is not None,
}
_LENGTH = re.compile(r"has at (most|least) (\d+) words")


def shows(name: str, text: str) -> bool:
    """Whether a text, as a browser shows it, shows the cue of that name.

    Raises:
        NotUnderstoodError: the reader has never heard of it.
    """
    if found := _LENGTH.fullmatch(name):
        n_words, limit = len(shown(text).split()), int(found[2])
        return n_words <= limit if found[1] == "most" else n_words >= limit
    if name not in CUES:
        raise NotUnderstoodError(f"There is no cue `{name}`; the reader knows {', '.join(sorted(CUES))}.")
    return CUES[name](shown(text))
