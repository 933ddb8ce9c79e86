"""Claims and concepts: every kind with its printed sentence and its executable meaning, which are the same thing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from hsae_dagster.core.concepts.words import SIGN_CUES, WORD_CUES, count_words, has_sign, occurrences
from hsae_dagster.errors import MethodError
from hsae_dagster.keys import concept_id


@dataclass(frozen=True)
class Concept:
    """A predicate about a text.

    Attributes:
        predicate: in words, as a verb phrase whose subject is the text ("has a question mark").
        author: who proposed it (`lexical`, `openai:<model>`).
        definition: what executes it, JSON-like (`core.concepts.claims`), or None when only a reader can judge it.
        details: facts about its making that do not change what it means (prompt hash, seed).
    """

    predicate: str
    author: str
    definition: Mapping[str, Any] | None = None
    details: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def record(self) -> dict[str, Any]:
        """JSON-like form."""
        return {
            "concept_id": self.concept_id,
            "predicate": self.predicate,
            "author": self.author,
            "definition": self.definition,
            "details": dict(self.details),
        }

    @property
    def concept_id(self) -> str:
        """Key of the concept: its predicate and definition."""
        return concept_id(self.predicate, self.definition)


# (texts, sentences) -> cosine of the closest unit of each text with each sentence, and that unit.
Closeness: TypeAlias = Callable[[Sequence[str], Sequence[str]], tuple[np.ndarray, list[list[str]]]]


@dataclass(frozen=True)
class WordGroup:
    """Holds where any of the terms occurs."""

    terms: tuple[str, ...]

    @property
    def claim(self) -> str:
        """The whole meaning in words."""
        return f"says {_listed(self.terms)}"

    @property
    def title(self) -> str:
        """Its most typical term."""
        return self.terms[0]


@dataclass(frozen=True)
class Sentences:
    """Exemplars: holds where some unit is at least so close (cosine) to one of the sentences.

    Attributes:
        sentences: one to three.
        similarity: cosine, two decimals.
        set_id: the embedding set that measures it.
    """

    sentences: tuple[str, ...]
    similarity: float
    set_id: str

    @property
    def claim(self) -> str:
        """The whole meaning in words."""
        return f"has a sentence like {_listed(self.sentences)} (similarity at least {self.similarity:g})"

    @property
    def title(self) -> str:
        """Its most typical sentence."""
        return self.sentences[0]


@dataclass(frozen=True)
class Cue:
    """A style cue or closed word class, by its name in `cues`."""

    name: str

    @property
    def words(self) -> tuple[str, ...]:
        """Words any of which makes it hold; none for a cue of signs."""
        return WORD_CUES.get(self.name, ())

    @property
    def claim(self) -> str:
        """The whole meaning in words."""
        return f"{self.name}: {', '.join(f'“{word}”' for word in self.words)}" if self.words else self.name

    @property
    def title(self) -> str:
        """Its name."""
        return self.name


@dataclass(frozen=True)
class Length:
    """At most, or at least, so many words between spaces."""

    words: int
    most: bool

    @property
    def claim(self) -> str:
        """The whole meaning in words."""
        return f"has at {'most' if self.most else 'least'} {self.words} words"

    @property
    def title(self) -> str:
        """The same."""
        return self.claim


Meaning: TypeAlias = WordGroup | Sentences | Cue | Length


def _listed(parts: Sequence[str]) -> str:
    quoted = [f"“{part}”" for part in parts]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def definition_of(meaning: Meaning) -> dict[str, Any]:
    """JSON-like form, from which `meaning_of` makes the same claim."""
    if isinstance(meaning, WordGroup):
        return {"kind": "words", "terms": list(meaning.terms)}
    if isinstance(meaning, Sentences):
        return {
            "kind": "sentences",
            "sentences": list(meaning.sentences),
            "similarity": meaning.similarity,
            "set_id": meaning.set_id,
        }
    if isinstance(meaning, Cue):
        return {"kind": "cue", "name": meaning.name}
    return {"kind": "length", "words": meaning.words, "most": meaning.most}


def meaning_of(definition: Mapping[str, Any] | None) -> Meaning:
    """Inverse of `definition_of`.

    Raises:
        MethodError: there is no definition that this version can execute.
    """
    kind = (definition or {}).get("kind")
    if definition and kind == "words":
        return WordGroup(tuple(definition["terms"]))
    if definition and kind == "sentences":
        return Sentences(tuple(definition["sentences"]), definition["similarity"], definition["set_id"])
    if definition and kind == "cue" and definition["name"] in {**WORD_CUES, **SIGN_CUES}:
        return Cue(definition["name"])
    if definition and kind == "length":
        return Length(definition["words"], definition["most"])
    raise MethodError(
        "The lexical annotator judges word groups, quoted sentences, style cues and lengths. This concept is none of "
        "them; set annotation.model to a language model, or interpretation.model to `lexical`."
    )


def judge(meanings: Sequence[Meaning], texts: Sequence[str], closeness: Closeness | None = None) -> np.ndarray:
    """Which of n texts have which claims: (texts, meanings) int8, 1 = yes, 0 = no; only exemplars need `closeness`.

    Raises:
        MethodError: exemplars without `closeness`.
    """
    answers = np.zeros((len(texts), len(meanings)), dtype=np.int8)
    listed = [(j, terms_of(meaning)) for j, meaning in enumerate(meanings)]
    terms = sorted({term for _, own in listed for term in own})
    found = occurrences(texts, terms).tocsc()
    place = {term: column for column, term in enumerate(terms)}
    for j, own in listed:
        for term in own:
            column = place[term]
            answers[found.indices[found.indptr[column] : found.indptr[column + 1]], j] = 1
    for j, meaning in enumerate(meanings):
        if isinstance(meaning, Cue) and not meaning.words:
            answers[:, j] = has_sign(meaning.name, texts)
        elif isinstance(meaning, Length):
            n_words = np.array([count_words(text) for text in texts])
            answers[:, j] = n_words <= meaning.words if meaning.most else n_words >= meaning.words
    quoting = [(j, meaning) for j, meaning in enumerate(meanings) if isinstance(meaning, Sentences)]
    if not quoting:
        return answers
    if closeness is None:
        raise MethodError("A claim quotes sentences, so similarity must be measured; pass the embedder.")
    sentences = list(dict.fromkeys(sentence for _, meaning in quoting for sentence in meaning.sentences))
    likeness = closeness(texts, sentences)[0]
    for j, meaning in quoting:
        columns = [sentences.index(sentence) for sentence in meaning.sentences]
        answers[:, j] = likeness[:, columns].max(axis=1) >= meaning.similarity
    return answers


def terms_of(meaning: Meaning | None) -> tuple[str, ...]:
    """Words any of which makes a claim hold; none for other kinds, or for a phrase."""
    if isinstance(meaning, WordGroup):
        return meaning.terms
    return meaning.words if isinstance(meaning, Cue) else ()


def because(meaning: Meaning, text: str, closeness: Closeness | None = None) -> tuple[str, ...]:
    """What makes a claim hold for one text: the words found, or the sentence; empty where it does not hold."""
    if isinstance(meaning, Sentences):
        if closeness is None:
            return ()
        likeness, units = closeness([text], meaning.sentences)
        best = int(likeness[0].argmax())
        return (units[0][best],) if likeness[0, best] >= meaning.similarity else ()
    terms = terms_of(meaning)
    if terms:
        return tuple(terms[j] for j in np.sort(occurrences([text], terms).indices))
    return (meaning.claim,) if judge([meaning], [text])[0, 0] else ()


# Similarities that are tried; none below is a claim people could follow,
SIMILARITIES = (0.65, 0.7, 0.75, 0.8)
# but for several sentences that stand apart from the rest (`stands_apart`).
APART = (0.55, 0.6)
MOST_SENTENCES = 3
# Words of an exemplar: long enough to say something, short enough to be read at a glance.
_FEWEST_WORDS, _MOST_WORDS = 3, 16
# Strongest units of a neuron, each of another wording, among which its exemplars are looked for.
_STRONGEST = 40
# A kind of sentence that stands apart has so many units, and at most that share of them all.
_FEWEST_APART, _MOST_APART = 8, 0.05
# How far below a similarity nearly alike units lie.
_JUST_BELOW = 0.1
# Different centres to start from.
_CENTRES = 2
_BLOCK = 2**22
# Pairs of units drawn to learn how alike they are by chance.
_DRAWN = 20_000


def least_similarity(vectors: np.ndarray, rng: np.random.Generator) -> float:
    """The similarity below which two units of a corpus are called alike for its boilerplate.

    Three standard deviations above the mean of units drawn by chance: where all texts begin alike ("A bill to …"),
    sentences must be closer than elsewhere to be alike in what they say.
    """
    first = rng.integers(len(vectors), size=_DRAWN)
    # Never a unit and itself, which small corpora would have many of.
    second = (first + rng.integers(1, max(len(vectors), 2), size=_DRAWN)) % len(vectors)
    cosines = (vectors[first] * vectors[second]).sum(axis=1)
    return float(cosines.mean() + 3 * cosines.std())


def stands_apart(likeness: np.ndarray, similarity: float) -> bool:
    """Whether units at least so alike to some sentences are a kind of their own: rare, and few others nearly are.

    `likeness` (units,) is the highest cosine with the sentences. At most as many units lie up to 0.1 below the
    similarity as above it.
    """
    above = int((likeness >= similarity).sum())
    below = int((likeness >= similarity - _JUST_BELOW).sum()) - above
    return _FEWEST_APART <= above <= _MOST_APART * len(likeness) and below <= above


def strongest_units(
    activation: np.ndarray, units: np.ndarray, n_words: np.ndarray, wordings: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The units (q,) among which a neuron's exemplars are looked for, strongest first, and their activations (q,).

    The neuron's activations (f,) are those of the units that fire it, rows (f,) of `n_words` (units,) and of `wordings`
    (units,) int, which are equal where units differ in numbers, case or punctuation alone: of those, only the strongest
    is quoted.
    """
    short = (n_words[units] >= _FEWEST_WORDS) & (n_words[units] <= _MOST_WORDS)
    order = np.lexsort((units[short], -activation[short]))
    first = np.sort(np.unique(wordings[units[short][order]], return_index=True)[1])[:_STRONGEST]
    return units[short][order][first], activation[short][order][first]


def typical_units(
    rows: np.ndarray, strength: np.ndarray, vectors: np.ndarray, *, coherent: float
) -> list[tuple[int, ...]]:
    """Sets of exemplars of one neuron, at most four: one sentence, and up to three that are close to each other.

    Each set is of rows of units, most typical first, of those of `strongest_units`: rows (q,) of `vectors` (units, d),
    of unit length. Any two exemplars of one claim need a cosine of `coherent`.
    """
    if not len(rows):
        return []
    alike = vectors[rows] @ vectors[rows].T
    found: list[tuple[int, ...]] = []
    left = np.ones(len(rows), dtype=bool)
    for _ in range(_CENTRES):
        if not left.any():
            break
        # Typical: close to many strong ones.
        typical = np.where(left, (alike * strength[None, :] * left[None, :]).sum(axis=1), -np.inf)
        centre = int(typical.argmax())
        members = _spread(centre, alike, coherent)
        found.append((int(rows[centre]),))
        if len(members) > 1:
            found.append(tuple(int(rows[m]) for m in members))
        left &= alike[centre] < coherent
    return found


def _spread(centre: int, alike: np.ndarray, least: float) -> list[int]:
    """Up to three units, coherent with each other, that together lie close to most of the others."""
    members = [centre]
    covered = alike[centre].copy()
    while len(members) < MOST_SENTENCES:
        coherent = (alike[members] >= least).all(axis=0) & (alike[members] < 0.95).all(axis=0)
        if not coherent.any():
            break
        reach = np.maximum(covered[None, :], alike)
        gain = np.where(coherent, np.minimum(reach, 0.7).clip(min=0.4).sum(axis=1), -np.inf)
        best = int(gain.argmax())
        members.append(best)
        covered = np.maximum(covered, alike[best])
    return members


def closest(sentences: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """(units, q) float32 cosine of each unit with each of q sentences, in blocks; both of unit length."""
    out = np.empty((len(vectors), len(sentences)), dtype=np.float32)
    size = max(1, _BLOCK // max(len(sentences), 1))
    for start in range(0, len(vectors), size):
        out[start : start + size] = vectors[start : start + size] @ sentences.T
    return out


def reasons(
    meanings: Sequence[Meaning | None], texts: Sequence[str], holds: np.ndarray, closeness: Closeness | None = None
) -> list[list[tuple[str, ...]]]:
    """For each text and claim, the words that were found or the unit that is closest; empty where it does not hold.

    `holds` is (texts, claims) bool. A cue of signs or a length is explained by its own name; a phrase, None among the
    meanings, not at all, and without `closeness` neither are quoted sentences.
    """
    found: list[list[tuple[str, ...]]] = [[()] * len(meanings) for _ in texts]
    listed = sorted({term for meaning in meanings for term in terms_of(meaning)})
    place = {term: j for j, term in enumerate(listed)}
    where = occurrences(texts, listed)
    present = [set(where.indices[where.indptr[i] : where.indptr[i + 1]].tolist()) for i in range(len(texts))]
    for j, meaning in enumerate(meanings):
        rows = np.flatnonzero(holds[:, j]).tolist()
        if isinstance(meaning, Sentences) and closeness is not None and rows:
            likeness, units = closeness([texts[i] for i in rows], meaning.sentences)
            for i, best, own in zip(rows, likeness.argmax(axis=1), units, strict=True):
                found[i][j] = (own[int(best)],)
        elif meaning is not None and not isinstance(meaning, Sentences):
            terms = terms_of(meaning)
            for i in rows:
                found[i][j] = tuple(t for t in terms if place[t] in present[i]) if terms else (meaning.claim,)
    return found
