"""Words of a text, and which of them can make a claim.

Belongs here: cutting texts into words, closed word classes, terms (words and pairs of neighbouring words) and the texts
they occur in. Does not belong here: grouping terms (`word_groups`), closed classes as claims (`cues`).

A word is a run of letters, apostrophes inside it included, in lower case, without a possessive ending; HTML entities
are decoded and tags dropped first. Two words are neighbours when nothing but spaces, commas, hyphens, brackets or
quotation marks stands between them, so no term bridges the end of a sentence. The function words are English; in other
languages nothing is one, and terms have to earn their place by coherence alone.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import scipy.sparse as sp

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>")
# What two words of a term may not have between them: a sentence's end, a colon, a line's end, a figure.
_BREAK = re.compile(r"[.!?…;:\n\r\d。！？；：]")
_MOST_TERMS = 20_000

ARTICLES = "a an the".split()
DEMONSTRATIVES = "this that these those".split()
PRONOUNS = (
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves one ones oneself someone somebody something anyone "
    "anybody anything everyone everybody everything nobody nothing each other another who whom whose which what "
    "whoever whatever whichever"
).split()
AUXILIARIES = (
    "am is are was were be been being do does did doing done have has had having can could shall should will would "
    "may might must ought get gets got getting gotten let lets ain't"
).split()
PREPOSITIONS = (
    "of in on at to from by for with about against between into through during before after above below over under "
    "within along across behind beyond up down off out around near than as like onto upon toward towards per via "
    "among amid despite since until till throughout"
).split()
CONJUNCTIONS = (
    "and or but nor so yet because although though while whereas if unless whether when whenever where wherever how "
    "why however therefore thus hence then else either neither both"
).split()
# Neither the one nor the other: alone they say nothing, beside a content word they turn it ("too small").
MODIFIERS = (
    "not no never very too so more most less least much many few quite rather really just only even still also again "
    "ever always often sometimes almost nearly already such same own all any some every enough now here there back "
    "away together apart else well way lot lots bit little"
).split()
FUNCTION_WORDS = frozenset(ARTICLES + DEMONSTRATIVES + PRONOUNS + AUXILIARIES + PREPOSITIONS + CONJUNCTIONS)
_MODIFIERS = frozenset(MODIFIERS)


def plain(text: str) -> str:
    """The text as a reader sees it: HTML entities decoded, tags dropped, composed (NFC), one kind of apostrophe."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub("\n", text)
    return unicodedata.normalize("NFC", text).replace("’", "'")


def words_of(text: str) -> list[str | None]:
    """Words of a text in order, None where no term may reach across."""
    found: list[str | None] = []
    end, lowered = 0, plain(text).lower()
    for match in _WORD.finditer(lowered):
        if found and _BREAK.search(lowered, end, match.start()):
            found.append(None)
        found.append(match.group().removesuffix("'s"))
        end = match.end()
    return found


def is_function_word(word: str) -> bool:
    """Whether a word belongs to a closed class; a contraction belongs to the class of the word it begins with."""
    return word.split("'")[0] in FUNCTION_WORDS or word.endswith("n't") or len(word) == 1


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Snowball's English stem (Porter 2), which folds inflections of one word."""
    return _stemmer().stemWord(word.split("'")[0])


@lru_cache(maxsize=1)
def _stemmer() -> "object":
    import snowballstemmer

    return snowballstemmer.stemmer("english")
