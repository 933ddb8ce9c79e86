"""Style cues and closed word classes: ways of writing that a claim can name.

Belongs here: the cues, each with its claim and its rule. Does not belong here: words of content (`word_groups`).

A cue of words lists all its words in the claim, and a text has it when any of them occurs (as `terms.occurrences` finds
them); a cue of signs says what the sign is. The lists are English.
"""

import re
from collections.abc import Sequence

import numpy as np

from hsae_dagster.core.concepts.words import plain

_NOT = (
    "not no never none nothing nobody nor neither cannot without ain't aren't can't couldn't didn't doesn't don't "
    "hadn't hasn't haven't isn't mustn't needn't shouldn't wasn't weren't won't wouldn't"
)
# Claim, and the words any of which make it hold.
WORD_CUES: dict[str, tuple[str, ...]] = {
    name: tuple(words.split())
    for name, words in {
        "speaks of oneself": "i me my mine myself i'm i've i'd i'll",
        "speaks of us": "we us our ours ourselves we're we've we'd we'll",
        "addresses the reader": "you your yours yourself yourselves you're you've you'd you'll",
        "speaks of a woman": "she her hers herself she'd she'll",
        "speaks of a man": "he him his himself he'd he'll",
        "speaks of them": "they them their theirs themselves they're they've they'd they'll",
        "points at something": "this these that those",
        "negates": _NOT,
        "contrasts": "but although though however yet despite instead rather unless except",
        "gives a reason": "because therefore thus hence",
        "sets a condition": "if unless whether otherwise",
        "uses a modal verb": "can could may might must shall should will would ought",
        "uses a question word": "who whom whose what which when where why how",
        "intensifies": "very really so too extremely absolutely totally completely incredibly truly definitely highly",
        "compares": "than more most less least better best worse worst",
        "generalises": "all always every everyone everybody everything anyone anything",
    }.items()
}
# Words that the pattern finds count only where all their letters are capitals.
CAPITALS = "has a word in capitals"
# Claim, and the pattern that any match of which makes it hold, on the text as a reader sees it.
SIGN_CUES: dict[str, re.Pattern[str]] = {
    "asks a question": re.compile("[?？؟]"),
    "exclaims": re.compile("[!！]"),
    "contains a number": re.compile(r"\d"),
    "begins with a number": re.compile(r"\A[\W_]*\d"),
    "uses a quotation": re.compile('"[^"]+"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|»[^«]+«|「[^」]+」'),
    CAPITALS: re.compile(r"\b[^\W\d_]{2,}\b"),
    "trails off with dots": re.compile(r"…|\.\.\."),
    "has a remark in brackets": re.compile(r"\([^()]+\)"),
}


def count_words(text: str) -> int:
    """Words between spaces."""
    return len(plain(text).split())


def has_sign(name: str, texts: Sequence[str]) -> np.ndarray:
    """(n,) bool: which texts have a cue of signs."""
    if name == CAPITALS:
        return np.array([any(w.isupper() for w in SIGN_CUES[name].findall(plain(t))) for t in texts], dtype=bool)
    pattern = SIGN_CUES[name]
    return np.array([pattern.search(plain(text)) is not None for text in texts], dtype=bool)
