"""The terms of a text that a lexicon may weigh: content words, two-word phrases, named style cues.

Belongs here: cutting English texts into terms, and which terms a training corpus supports. Does not belong here:
weights (`core.lexicon`). The stop list and the cues are English; texts in another language keep all their words.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

NEGATIONS = frozenset({"not", "no", "never", "nothing", "none", "without", "hardly", "nor", "neither", "cannot"})

# A cue is a way of writing, not a topic; each is named as people would name it.
STYLE_CUES: dict[str, re.Pattern[str]] = {
    "asks a question": re.compile(r"\?"),
    "exclaims": re.compile(r"!"),
    "contains a number": re.compile(r"\d"),
    "negates": re.compile(r"\b(?:not|no|never|nothing|nor|neither|none|without|cannot)\b|n't\b", re.IGNORECASE),
    "contrasts": re.compile(
        r"\b(?:but|although|though|however|yet|while|despite|instead|rather|unless)\b", re.IGNORECASE
    ),
    "addresses the reader": re.compile(r"\b(?:you|your|yours|yourself|you're|you'll|you've)\b", re.IGNORECASE),
    "speaks in the first person": re.compile(
        r"\b(?:i|me|my|mine|myself|we|us|our|ours|i'm|i've|we're|we've|we'll)\b", re.IGNORECASE
    ),
}

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_MOST_TERMS = 20_000


def content_words(text: str) -> list[str]:
    """Lower-cased words of two letters or more, possessive ending off, stop words out (negations stay).

    A contraction goes with the word it begins with: "we're" is as empty as "we".
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    words = []
    for match in _WORD.findall(unicodedata.normalize("NFC", text).lower()):
        word = match.replace("’", "'").removesuffix("'s")
        head = word.split("'")[0]
        if len(word) > 1 and (word in NEGATIONS or head not in ENGLISH_STOP_WORDS) and "n't" not in word:
            words.append(word)
    return words


def text_terms(text: str) -> list[str]:
    """Content words, pairs of neighbouring content words, and style cues (as `<cue>`) of one text, with repeats."""
    words = content_words(text)
    pairs = [f"{left} {right}" for left, right in pairwise(words)]
    cues = [f"<{name}>" for name, pattern in STYLE_CUES.items() if pattern.search(text)]
    return words + pairs + cues


def presence(texts: Sequence[str], terms: Sequence[str]) -> sp.csr_matrix:
    """Which terms occur in which texts: (texts, terms) float64 CSR of ones."""
    place = {term: column for column, term in enumerate(terms)}
    indices: list[int] = []
    indptr = [0]
    for text in texts:
        found = {place[term] for term in text_terms(text) if term in place}
        indices.extend(sorted(found))
        indptr.append(len(indices))
    shape = (len(texts), len(terms))
    return sp.csr_matrix((np.ones(len(indices)), np.array(indices, dtype=np.int32), indptr), shape=shape)


@dataclass(frozen=True)
class TermTable:
    """Terms that a training corpus supports, and where they occur.

    Attributes:
        terms: sorted.
        matrix: (texts, terms) float64 CSR of ones.
    """

    terms: tuple[str, ...]
    matrix: sp.csr_matrix


def supported_terms(
    texts: Sequence[str], clusters: Sequence[str], *, min_texts: int = 3, min_clusters: int = 3
) -> TermTable:
    """Terms that occur in enough texts of enough clusters to mean something beyond one film, speaker or author.

    A name that lives in one cluster would tell that cluster's outcome, not a concept. With few clusters the demand
    falls to a tenth of them (at least 2; none when all texts are of one cluster).
    """
    n_clusters = len(set(clusters))
    need = 1 if n_clusters < 2 else max(2, min(min_clusters, n_clusters // 10 or 2))
    words, matrix = _occurrences(texts)
    in_texts = np.asarray(matrix.sum(axis=0)).ravel()
    groups = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)[1]
    by_cluster = (
        sp.csr_matrix((np.ones(len(texts)), (groups, np.arange(len(texts)))), (n_clusters, len(texts))) @ matrix
    )
    in_clusters = np.bincount(by_cluster.indices, minlength=len(words))
    supported = np.flatnonzero((in_texts >= min_texts) & (in_clusters >= need) & (in_texts < len(texts)))
    frequent = sorted(supported.tolist(), key=lambda j: (-in_texts[j], words[j]))[:_MOST_TERMS]
    kept = sorted(frequent, key=lambda j: words[j])
    return TermTable(terms=tuple(words[j] for j in kept), matrix=_ascending(matrix[:, kept]))


def _occurrences(texts: Sequence[str]) -> tuple[list[str], sp.csr_matrix]:
    """Every term of the texts, and which occur in which: (texts, terms) float64 CSR of ones."""
    place: dict[str, int] = {}
    indices: list[int] = []
    indptr = [0]
    for text in texts:
        indices.extend({place.setdefault(term, len(place)) for term in text_terms(text)})
        indptr.append(len(indices))
    matrix = sp.csr_matrix(
        (np.ones(len(indices)), np.array(indices, dtype=np.int32), indptr), shape=(len(texts), len(place))
    )
    return list(place), matrix


def _ascending(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The same with columns ascending in each row."""
    matrix = matrix.tocsr()
    matrix.sort_indices()
    return matrix
