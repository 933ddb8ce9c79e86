"""Words of a text, and which of them can make a claim.

Belongs here: cutting texts into words, closed word classes, terms (words and pairs of neighbouring words) and the texts
they occur in. Does not belong here: grouping terms (`word_groups`), closed classes as claims (`cues`).

A word is a run of letters and digits, apostrophes inside it included, in lower case, without a possessive ending; HTML
entities are decoded and tags end a stretch. Two words are neighbours unless a sentence's end, a colon or a line's end
stands between them, so no term bridges the end of a sentence. The function words are English; in other
languages nothing is one, and terms have to earn their place by coherence alone.
"""

import html
import re
import unicodedata
from functools import lru_cache
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# Tags by name, so that “a < b and c > d” stays.
_TAG = re.compile(
    r"</?(?:a|abbr|b|blockquote|body|br|center|cite|code|div|em|font|h[1-6]|hr|html|i|img|li|ol|p|pre|q|s|small|span|"
    r"strike|strong|sub|sup|table|tbody|td|th|thead|tr|tt|u|ul)(?:\s[^<>=]*=[^<>]*|\s*/?)>",
    re.IGNORECASE,
)
_APOSTROPHES = re.compile("[\u2018\u2019\u201b\u02bc\u00b4`]")
# What two words of a term may not have between them: a sentence's end, a colon, a line's end.
_BREAK = re.compile(r"[.!?;:…。！？；：\n\r\v\f\u0085\u2028\u2029]")


def _listed(words: str) -> tuple[str, ...]:
    return tuple(words.split())


ARTICLES = _listed("a an the")
DEMONSTRATIVES = _listed("this that these those")
PRONOUNS = _listed(
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves one ones oneself someone somebody something anyone "
    "anybody anything everyone everybody everything nobody nothing each other another who whom whose which what "
    "whoever whatever whichever"
)
AUXILIARIES = _listed(
    "am is are was were be been being do does did doing done have has had having can could shall should will would "
    "may might must ought get gets got getting gotten let lets ain't"
)
PREPOSITIONS = _listed(
    "of in on at to from by for with about against between into through during before after above below over under "
    "within along across behind beyond up down off out around near than as like onto upon toward towards per via "
    "among amid despite since until till throughout"
)
CONJUNCTIONS = _listed(
    "and or but nor so yet because although though while whereas if unless whether when whenever where wherever how "
    "why however therefore thus hence then else either neither both"
)
# Neither the one nor the other: alone they say nothing, beside a content word they turn it ("too small").
MODIFIERS = frozenset(
    _listed(
        "not no never very too so more most less least much many few quite rather really just only even still also "
        "again ever always often sometimes almost nearly already such same own all any some every enough now here "
        "there back away together apart else well way lot lots bit little"
    )
)
FUNCTION_WORDS = frozenset(ARTICLES + DEMONSTRATIVES + PRONOUNS + AUXILIARIES + PREPOSITIONS + CONJUNCTIONS)


def plain(text: str) -> str:
    """The text as a reader sees it: HTML entities decoded, tags dropped, composed (NFC), one kind of apostrophe."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub("\n", text)
    return _APOSTROPHES.sub("'", unicodedata.normalize("NFC", text))


def words_of(text: str) -> list[str | None]:
    """Words of a text in order, None where no term may reach across."""
    found: list[str | None] = []
    end, lowered = 0, plain(text).lower()
    for match in _WORD.finditer(lowered):
        if found and _BREAK.search(lowered, end, match.start()):
            found.append(None)
        found.append(match.group().removesuffix("'s") or match.group())
        end = match.end()
    return found


def is_function_word(word: str) -> bool:
    """Whether a word belongs to a closed class; a contraction belongs to the class of the word it begins with."""
    return word.split("'")[0] in FUNCTION_WORDS or word.endswith("n't") or len(word) == 1


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Snowball's English stem (Porter 2), which folds inflections of one word."""
    return str(_stemmer().stemWord(word))


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")
