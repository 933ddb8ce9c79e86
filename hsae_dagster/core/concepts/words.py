"""Words of a text, terms that a corpus supports, and style cues: what claims are made of."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.observations import unit_length

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
# Tags by name, so that “a < b and c > d” stays; those that a browser begins a line for are a `block`.
_BLOCKS = (
    "address|article|aside|blockquote|body|br|dd|div|dl|dt|footer|h[1-6]|head|header|hr|html|li|main|nav|ol|p|pre|"
    "section|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
_INLINE = (
    "a|abbr|b|big|center|cite|code|del|em|figure|font|i|img|ins|label|mark|meta|q|s|small|span|strike|strong|sub|sup|"
    "tt|u"
)
TAG = re.compile(
    # Written so that no text takes more than a number of steps in proportion to its length.
    rf"<!--.{{0,1000}}?-->|</?(?:(?P<block>{_BLOCKS})|{_INLINE})(?:\s[^<>=]*=[^<>]*|\s*/?)>",
    re.IGNORECASE | re.DOTALL,
)
_APOSTROPHES = re.compile("[\u2018\u2019\u201b\u02bc\u00b4`]")
# What two words of a term may not have between them: a sentence's end, a colon, a line's end.
_BREAK = re.compile(r"[.!?;:…。！？；：\n\r\v\f\u0085\u2028\u2029]")


_HYPHENS = "-\u2010\u2011"


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


FUNCTION_WORDS = _set_of(
    # Articles and demonstratives, pronouns.
    "a an the this that these those "
    "i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her "
    "hers herself it its itself they them their theirs themselves one ones oneself someone somebody something "
    "anyone anybody anything everyone everybody everything nobody nothing each other another who whom whose which "
    "what whoever whatever whichever "
    # Auxiliaries.
    "am is are was were be been being do does did doing done have has had having can could shall should will would "
    "may might must ought get gets got getting gotten let lets ain't "
    # Prepositions.
    "of in on at to from by for with about against between into through during before after above below over under "
    "within along across behind beyond up down off out around near than as like onto upon toward towards per via "
    "among amid despite since until till throughout "
    # Conjunctions and adverbs that join.
    "and or but nor so yet because although though while whereas if unless whether when whenever where wherever "
    "how why however therefore thus hence then else either neither both"
)
# Neither the one nor the other: alone they say nothing, beside a content word they turn it ("too small").
MODIFIERS = _set_of(
    "not no never very too so more most less least much many few quite rather really just only even still also "
    "again ever always often sometimes almost nearly already such same own all any some every enough now here "
    "there back away together apart else well way lot lots bit little"
)


def plain(text: str) -> str:
    """The text as a reader sees it: HTML entities decoded, tags dropped, composed (NFC), one kind of apostrophe."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = TAG.sub(lambda tag: "\n" if tag["block"] else "", text)
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
def inflected(word: str) -> tuple[str, str]:
    """What inflections of one English word share: Snowball's stem (Porter 2) and simplemma's lemma.

    Stems alone would fold "busy" and "business", lemmas alone "good" and "better".
    """
    import simplemma

    return str(_stemmer().stemWord(word)), simplemma.lemmatize(word, lang="en")


@lru_cache(maxsize=1)
def _stemmer() -> Any:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


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
        "speaks of it": "it its itself it'd it'll",
        "points at something": "this these that those",
        "negates": _NOT,
        "contrasts": "but although though however yet despite instead rather unless except",
        "gives a reason": "because therefore thus hence",
        "sets a condition": "if unless whether otherwise",
        "speaks of the past": "was wasn't were weren't had hadn't did didn't",
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
    "has a question mark": re.compile("[?？؟]"),
    "has an exclamation mark": re.compile("[!！]"),
    "has a number in digits": re.compile(r"\d"),
    "begins with a number in digits": re.compile(r"\A[\W_]*\d"),
    "has words in quotation marks": re.compile('"[^"]+"|“[^”]+”|„[^“”]+[“”]|«[^»]+»|»[^«]+«|「[^」]+」'),
    CAPITALS: re.compile(r"\b[^\W\d_]{2,}\b"),
    "has a word that ends in “ed”": re.compile(r"[^\W\d_]{2,}ed\b", re.IGNORECASE),
    "has a colon": re.compile("[:：]"),
    "ends with a full stop": re.compile(r"(?<!\.)[.。][\"'”’»」)\]]*\s*\Z"),
    "has three dots": re.compile(r"…|\.\.\."),
    "has something in parentheses": re.compile(r"\([^()]+\)"),
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


_HAS_DIGIT = re.compile(r"\d")
# Terms looked at in all: beyond these the rarest go.
_MOST_TERMS = 30_000
# Texts that a form needs, the same as a share of the commonest form's, and most forms of a family. A rarer form is
# often another word, a name say ("good", "gooding").
_LEAST_OF_FORM = 3
_LEAST_OF_COMMONEST = 0.02
_MOST_OF_FAMILY = 4


@dataclass(frozen=True)
class Family:
    """Inflections of one word or pair of words, commonest first."""

    forms: tuple[str, ...]

    @property
    def name(self) -> str:
        """Its commonest form."""
        return self.forms[0]


@dataclass(frozen=True)
class TermTable:
    """Families that a corpus supports, and where they occur.

    Attributes:
        families: in the order of the columns, by name.
        matrix: (texts, families) float32 CSC of ones: some form of the family occurs in the text.
    """

    families: tuple[Family, ...]
    matrix: sp.csc_matrix

    def forms_of(self, columns: Sequence[int]) -> tuple[str, ...]:
        """All inflections of some families, in order."""
        return tuple(form for column in columns for form in self.families[column].forms)


def occurrences(texts: Sequence[str], terms: Sequence[str]) -> sp.csr_matrix:
    """Which terms occur in which texts: (texts, terms) float32 CSR of ones.

    A term is one or several words, as `words_of` gives them, joined by spaces or hyphens, which count alike.
    """
    place: dict[str, list[tuple[tuple[str, ...], int]]] = {}
    for column, term in enumerate(terms):
        parts = tuple(re.split(f"[{_HYPHENS} ]", term))
        place.setdefault(parts[0], []).append((parts, column))
    indices: list[int] = []
    indptr = [0]
    for text in texts:
        words = words_of(text)
        found = {
            column
            for at, word in enumerate(words)
            if word in place
            for parts, column in place[word]
            if tuple(words[at : at + len(parts)]) == parts
        }
        indices.extend(sorted(found))
        indptr.append(len(indices))
    shape = (len(texts), len(terms))
    return sp.csr_matrix((np.ones(len(indices), np.float32), np.array(indices, dtype=np.int32), indptr), shape=shape)


def as_written(terms: Sequence[str], texts: Sequence[str]) -> tuple[str, ...]:
    """The terms; those of two words with a hyphen between them where most of their occurrences have one."""
    read, written = "\n".join(map(plain, texts)).lower(), []
    for term in terms:
        first, _, second = map(re.escape, term.partition(" "))
        # The word stands before what looks back at it, so that texts are searched for it and not tried at each sign.
        found = re.findall(rf"{first}(?<!\w{first})([\W_]+){second}(?!\w)", read) if second else []
        gaps = [gap for gap in found if not _BREAK.search(gap)]
        hyphens = sum(gap in tuple(_HYPHENS) for gap in gaps)
        written.append(term.replace(" ", "-", 1) if hyphens > len(gaps) / 2 else term)
    return tuple(written)


def meanings(table: TermTable, names: np.ndarray, units: Sequence[str], vectors: np.ndarray) -> np.ndarray:
    """What terms mean, by their names and by the units that hold them: terms of one meaning lie close in both.

    Names alone are close for their form (mess, messages), contexts alone for their topic (beautiful, performance). What
    all terms share is taken out of both, since it makes everything alike (Mu and Viswanath 2018, section 2).

    Args:
        table: f families.
        names: (f, d) float32 unit vectors of their names.
        units: sentences of the texts of the table.
        vectors: (units, d) float32 unit vectors of these.

    Returns:
        (f, 2d) float32 of unit length.
    """
    forms = [form for family in table.families for form in family.forms]
    owner = np.repeat(np.arange(len(table.families)), [len(family.forms) for family in table.families])
    member = sp.csr_matrix((np.ones(len(forms), np.float32), (np.arange(len(forms)), owner)))
    holds = (occurrences(units, forms) @ member).tocsr()
    holds.data[:] = 1.0
    contexts = holds.T @ (vectors - vectors.mean(axis=0))
    parts = [unit_length(names - names.mean(axis=0)), unit_length(np.asarray(contexts))]
    return np.hstack(parts).astype(np.float32) / np.float32(np.sqrt(2))


def supported_terms(
    texts: Sequence[str],
    clusters: np.ndarray,
    *,
    min_texts: int = 5,
    min_clusters: int = 5,
    taken: frozenset[str] = frozenset(),
) -> TermTable:
    """Families that occur in enough texts of enough clusters to mean something beyond one film, speaker or author.

    A word is one of its own if it is no function word; a pair needs a content word beside another one or a modifier
    ("too small"). With few clusters the demand falls to a tenth of them (at least 2; none when all texts are of one).

    Clusters are (texts,) keys; `taken` terms, words joined by spaces, may not be used (values of the table's columns).
    """
    ids, numbers, owner = _numbered(texts)
    n_clusters = len(np.unique(clusters))
    need = 1 if n_clusters < 2 else max(2, min(min_clusters, n_clusters // 10 or 2))
    rows, keys = _occurring(ids, numbers, owner)
    forms, of_text, of_form = _forms(rows, keys, ids, taken)
    return _families(forms, of_text, of_form, len(texts), np.unique(clusters, return_inverse=True)[1], min_texts, need)


def _is_content(word: str) -> bool:
    return len(word) > 1 and not _HAS_DIGIT.search(word) and word not in MODIFIERS and not is_function_word(word)


def _numbered(texts: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words by number, all texts' word numbers one after another (-1: a break), and the text of each."""
    ids: dict[str, int] = {}
    numbers: list[int] = []
    lengths: list[int] = []
    for text in texts:
        found = [-1 if word is None else ids.setdefault(word, len(ids)) for word in words_of(text)]
        found.append(-1)
        numbers.extend(found)
        lengths.append(len(found))
    return list(ids), np.array(numbers, dtype=np.int64), np.repeat(np.arange(len(texts)), lengths)


def _occurring(words: list[str], numbers: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(text, term) of each occurrence, distinct: a word by its number, a pair by (first + 1) · words + second."""
    # A break, whose number is -1, finds the last entry.
    content = np.array([*map(_is_content, words), False])
    fits = content | np.array([*(word in MODIFIERS for word in words), False])
    single, left, right = content[numbers], numbers[:-1], numbers[1:]
    pair = fits[left] & fits[right] & (content[left] | content[right])
    rows = np.concatenate([owner[single], owner[:-1][pair]])
    keys = np.concatenate([numbers[single], (left[pair] + 1) * len(words) + right[pair]])
    both = np.unique(np.stack([rows, keys]), axis=1)
    return both[0], both[1]


def _forms(
    rows: np.ndarray, keys: np.ndarray, names: list[str], taken: frozenset[str]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Spelled-out forms that occur in three texts or more, and (text, form) of each occurrence."""
    values, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    n_words = len(names)
    spelled = [names[k] if k < n_words else f"{names[k // n_words - 1]} {names[k % n_words]}" for k in values.tolist()]
    kept = (counts >= _LEAST_OF_FORM) & np.array([form not in taken for form in spelled], dtype=bool)
    if kept.sum() > _MOST_TERMS:
        kept &= counts >= np.sort(counts)[-_MOST_TERMS]
    number = np.cumsum(kept) - 1
    forms = [form for form, keep in zip(spelled, kept, strict=True) if keep]
    inside = kept[inverse]
    return forms, rows[inside], number[inverse[inside]]


def _families(
    forms: list[str],
    of_text: np.ndarray,
    of_form: np.ndarray,
    n_texts: int,
    groups: np.ndarray,
    min_texts: int,
    need: int,
) -> TermTable:
    counts = np.bincount(of_form, minlength=len(forms))
    shared = [tuple(inflected(word) for word in form.split(" ")) for form in forms]
    members: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for form in sorted(range(len(forms)), key=lambda f: (-counts[f], forms[f])):
        family = members.setdefault(shared[form], [])
        if not family or counts[form] >= _LEAST_OF_COMMONEST * counts[family[0]]:
            family.append(form)
    order = sorted((found[:_MOST_OF_FAMILY] for found in members.values()), key=lambda found: forms[found[0]])
    family_of = np.full(len(forms), -1, dtype=np.int64)
    for place, found in enumerate(order):
        family_of[found] = place
    listed = family_of[of_form] >= 0
    cells = np.unique(np.stack([of_text[listed], family_of[of_form[listed]]]), axis=1)
    matrix = sp.csc_matrix((np.ones(cells.shape[1], np.float32), (cells[0], cells[1])), shape=(n_texts, len(order)))
    in_texts = np.diff(matrix.indptr)
    by_cluster = np.unique(np.stack([groups[cells[0]], cells[1]]), axis=1)
    in_clusters = np.bincount(by_cluster[1], minlength=len(order))
    kept = np.flatnonzero((in_texts >= min_texts) & (in_clusters >= need) & (in_texts < n_texts))
    families = tuple(Family(tuple(forms[f] for f in order[j])) for j in kept)
    return TermTable(families, matrix[:, kept].tocsc())
