"""Whether listed terms occur in a text.

Belongs here: the words of a text in stretches, and looking for terms in them. Does not belong here: what is looked for.

A term occurs where its words stand next to each other, in order, within one stretch: stretches end at . ! ? ; : (and
their like in other scripts, and …) and at line ends. Words are runs of letters and digits, with apostrophes inside;
case does not matter, ’ is ', and a possessive 's, or an apostrophe at a word's end, is no part of it. HTML entities
count as what they stand for, and HTML tags as a browser shows them: as line ends, or, inside a line, not at all.
"""

import functools
import html
import re
import unicodedata
from collections.abc import Iterable, Sequence

_APOSTROPHES = re.compile("[\u2018\u2019\u201b\u02bc\u00b4`]")
_STRETCH_END = re.compile(r"[.!?;:…。！？；：\n\r\v\f\u0085\u2028\u2029]+")
# Marks of formatting as people type them; “<3” or “a < b > c” is none.
_LINES = (
    "address article aside blockquote body br dd div dl dt footer h1 h2 h3 h4 h5 h6 head header hr html li main nav ol "
    "p pre section table tbody td tfoot th thead title tr ul"
)
_INSIDE = (
    "a abbr b big center cite code del em figure font i img ins label mark meta q s small span strike strong sub sup "
    "tt u"
)
_LINE_END, _FORMATTING = (
    re.compile(rf"</?({names.replace(' ', '|')})(\s*/?|\s[^<>=]*=[^<>]*)>", re.IGNORECASE)
    for names in (_LINES, _INSIDE)
)
_COMMENT = re.compile("<!--.{0,1000}?-->", re.DOTALL)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def shown(text: str) -> str:
    """A text as a browser shows it."""
    lines = _LINE_END.sub("\n", _COMMENT.sub("", html.unescape(text)))
    return unicodedata.normalize("NFC", _FORMATTING.sub("", lines))


def stretches(text: str) -> list[list[str]]:
    """The words of each stretch of a text, as they are compared."""
    plain = _APOSTROPHES.sub("'", shown(text)).lower()
    return [words for part in _STRETCH_END.split(plain) if (words := [_bare(word) for word in _WORD.findall(part)])]


def occurring(terms: Iterable[str], read: Sequence[Sequence[str]]) -> list[str]:
    """Those of the terms that occur in a text, in their order; `read` are the text's `stretches`."""
    found = [f" {' '.join(words)} " for words in read]
    return [term for term in terms if any(f" {_as_words(term)} " in stretch for stretch in found)]


@functools.cache
def _as_words(term: str) -> str:
    words = [word for stretch in stretches(term) for word in stretch]
    if not words:
        raise ValueError(f"The term “{term}” has no word that could occur in a text.")
    return " ".join(words)


def _bare(word: str) -> str:
    return word.removesuffix("'s") or word
