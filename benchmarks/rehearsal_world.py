"""A world whose texts, vectors, labels and answers all follow from one truth, at any size: for `rehearsal`.

Belongs here: features and their words, texts, labels in the published formats, and a server on this machine that gives
vectors and answers by the words of a text alone. Does not belong here: running stages or judging what came of it.

The truth. A text has each of 300 features or not, independently; a feature shows as a phrase of two of its four words,
which no other feature uses. Ten features, present in 15 % of the texts, have effects that sum to zero; the others have
none and are present in 0.5 to 8 %. Yelp: stars are the score and normal noise, cut into five. Congress: the label is 1
with log odds equal to the score. Headlines: A wins with log odds equal to the difference of the scores. A vector is the
sum of its features' directions and noise that depends on the text.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster_tests.providers.loopback import Call, Loopback, Raw, completion, shown_concepts, shown_texts

FEATURES, PLANTED, DIMENSIONS = 300, 10, 1536
EFFECTS = np.array([0.9, -0.9, 0.8, -0.8, 0.7, -0.7, 0.6, -0.6, 0.5, -0.5])
NOISE = 0.02
SPEAKS_OF = "speaks of "
_SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
_FILLERS = ("and then again", "as before", "in the end", "more or less", "of course", "so to say", "on that day")


def _word(number: int) -> str:
    digits = []
    for _ in range(3):
        number, digit = divmod(number, len(_SYLLABLES))
        digits.append(_SYLLABLES[digit])
    return "".join(digits)


WORDS = [[_word(100 + 4 * feature + i) for i in range(4)] for feature in range(FEATURES)]
FEATURE_OF = {word: feature for feature, words in enumerate(WORDS) for word in words}
PREVALENCE = np.concatenate([np.full(PLANTED, 0.15), np.geomspace(0.08, 0.005, FEATURES - PLANTED)])


def name_of(feature: int) -> str:
    """The predicate of a feature."""
    return SPEAKS_OF + WORDS[feature][0]


def features_of(text: str) -> set[int]:
    """Features that a text shows."""
    return {FEATURE_OF[word] for word in text.split() if word in FEATURE_OF}


def make_texts(count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Distinct texts and their scores (count,) float64."""
    texts, scores = [], np.empty(count)
    for row in range(count):
        present = np.flatnonzero(rng.random(FEATURES) < PREVALENCE)
        rng.shuffle(present)
        parts = [_FILLERS[rng.integers(len(_FILLERS))], f"number {row}"]
        for feature in present:
            first, second = rng.permutation(4)[:2]
            parts += [f"the {WORDS[feature][first]} {WORDS[feature][second]}", _FILLERS[rng.integers(len(_FILLERS))]]
        texts.append(" ".join(parts))
        scores[row] = EFFECTS[present[present < PLANTED]].sum()
    return texts, scores


def publish(folder: Path, preset: str, sizes: dict[str, int], seed: int) -> None:
    """Write the files of a preset, one JSON object a line, with the published columns.

    Args:
        folder: the preset's.
        preset: headlines, yelp or congress.
        sizes: rows of each file, by its name.
        seed: of texts and labels.
    """
    rng = np.random.default_rng(seed)
    rows = sum(sizes.values())
    texts, scores = make_texts(2 * rows if preset == "headlines" else rows, rng)
    frame = _LABELLED[preset](texts, scores, rng)
    start = 0
    for name, size in sizes.items():
        frame.slice(start, size).write_ndjson(folder / name)
        start += size


def _pairs(texts: list[str], scores: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    wins = rng.random(len(texts) // 2) < 1 / (1 + np.exp(scores[1::2] - scores[::2]))
    return pl.DataFrame({"headline_A": texts[::2], "headline_B": texts[1::2], "label_pairwise": wins.astype(np.int64)})


def _stars(texts: list[str], scores: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    noisy = scores + rng.normal(0, 1, len(texts))
    return pl.DataFrame({"text": texts, "stars": np.clip(np.round(noisy) + 3, 1, 5).astype(np.int64)})


def _speeches(texts: list[str], scores: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    ones = rng.random(len(texts)) < 1 / (1 + np.exp(-scores))
    return pl.DataFrame({"speech_text": texts, "republican": ones.astype(np.int64)})


_LABELLED: dict[str, Callable[[list[str], np.ndarray, np.random.Generator], pl.DataFrame]] = {
    "headlines": _pairs,
    "yelp": _stars,
    "congress": _speeches,
}


@dataclass(frozen=True)
class World:
    """Directions of the features: (FEATURES, DIMENSIONS) float32 of unit length."""

    directions: np.ndarray

    @classmethod
    def make(cls) -> "World":
        """The only one."""
        directions = np.random.default_rng(0).standard_normal((FEATURES, DIMENSIONS)).astype(np.float32)
        return cls(directions / np.linalg.norm(directions, axis=1, keepdims=True))

    def vector(self, text: str) -> list[float]:
        """The vector of a text, unit length, six digits."""
        rng = np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))
        vector = NOISE * rng.standard_normal(DIMENSIONS, dtype=np.float32)
        present = sorted(features_of(text))
        if present:
            vector += rng.gamma(8.0, 1 / 8, len(present)).astype(np.float32) @ self.directions[present]
        return [round(float(value), 6) for value in vector / np.linalg.norm(vector)]

    def embed(self, body: dict[str, Any], call: int) -> Raw:
        """A reply of the embeddings endpoint."""
        data = [{"index": row, "embedding": self.vector(text)} for row, text in enumerate(body["input"])]
        tokens = sum(len(text.split()) for text in body["input"])
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Raw(json.dumps({"object": "list", "data": data, "model": body["model"], "usage": usage}).encode())

    def chat(self, body: dict[str, Any], call: int) -> Raw:
        """An annotator where concepts are shown, an interpreter where two groups of texts are."""
        concepts, texts = shown_concepts(body), shown_texts(body)
        if concepts:
            present = {name_of(feature) for feature in features_of(texts[0])}
            return completion(json.dumps({concept: said in present for concept, said in concepts.items()}))
        half = len(texts) // 2
        shares = np.zeros(FEATURES)
        for row, text in enumerate(texts):
            shares[list(features_of(text))] += 1 / half if row < half else -1 / (len(texts) - half)
        return completion(json.dumps({"concept": name_of(int(np.argmax(shares)))}))


class Counting(Loopback):
    """The loopback server, counting calls instead of keeping them; GET /calls tells."""

    def __init__(self, world: World) -> None:
        super().__init__(world.chat, world.embed)
        self.counts = {"embeddings": 0, "chat": 0}

    def receive(self, method: str, path: str, data: bytes) -> Raw | None:
        """The counts, to whoever asks."""
        return Raw(dict(self.counts)) if method == "GET" else None

    def answer(self, call: Call) -> Raw:
        """Vectors or an answer."""
        kind = "embeddings" if call.path.endswith("/embeddings") else "chat"
        with self._lock:
            self.counts[kind] += 1
        return self.embed(call.body, 0) if kind == "embeddings" else self.chat(call.body, 0)
