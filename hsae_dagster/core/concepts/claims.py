"""The kinds of claims, each with its printed sentence and its executable meaning, which are the same thing.

Belongs here: word groups, exemplars, style cues and length bands as records; their sentences; judging texts by them;
which words or sentence made a claim hold. Does not belong here: finding them (`candidates`), choosing among them
(`choice`), or phrases of a language model, which only a reader can judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from hsae_dagster.core.concepts.cues import SIGN_CUES, WORD_CUES, count_words, has_sign
from hsae_dagster.core.concepts.terms import occurrences
from hsae_dagster.errors import MethodError

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
    """Which texts have which claims: (texts, meanings) int8, 1 = yes, 0 = no.

    Args:
        meanings: the claims.
        texts: n texts.
        closeness: of units with sentences; only exemplars need it.

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
    _judge_sentences(answers, meanings, texts, closeness)
    return answers


def _judge_sentences(
    answers: np.ndarray, meanings: Sequence[Meaning], texts: Sequence[str], closeness: Closeness | None
) -> None:
    quoting = [(j, meaning) for j, meaning in enumerate(meanings) if isinstance(meaning, Sentences)]
    if not quoting:
        return
    if closeness is None:
        raise MethodError("A claim quotes sentences, and nothing measures how close others are; pass the embedder.")
    sentences = list(dict.fromkeys(sentence for _, meaning in quoting for sentence in meaning.sentences))
    likeness = closeness(texts, sentences)[0]
    for j, meaning in quoting:
        columns = [sentences.index(sentence) for sentence in meaning.sentences]
        answers[:, j] = likeness[:, columns].max(axis=1) >= meaning.similarity


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
