"""A scripted model that knows the topics of the tiny texts: what a server answers when it is asked about them.

Belongs here: answers, as functions of what is asked alone. Does not belong here: the server (`providers.loopback`).
"""

import json
import os
from typing import Any

from hsae_dagster.keys import hash_json
from hsae_dagster_tests.assets.workspace import TOPICS, topic_of
from hsae_dagster_tests.providers.loopback import (
    KEY,
    Loopback,
    Raw,
    completion,
    hash_vector,
    judge_by,
    shown_concepts,
    shown_texts,
)

DIMENSIONS = 16
# Fields of a declaration that sends every question to the server.
MODELS = {
    "embedding": {"model": "openai:text-embedding-3-small", "dimensions": DIMENSIONS},
    "interpretation": {
        "model": "openai:reader",
        "candidates": 2,
        "examples": 10,
        "bin": [50, 100],
        "scoring_texts": 40,
    },
    "annotation": {"model": "openai:judge", "calibration": 0},
    # It knows nothing but topics, and would fail an examination.
    "judge": {"texts": 0},
}


def use(server: Loopback) -> None:
    """Point the environment at the server; the test's `environment` fixture takes it back."""
    os.environ["OPENAI_BASE_URL"] = server.base_url
    os.environ["OPENAI_API_KEY"] = KEY


def embed(body: dict[str, Any], call: int) -> list[list[float]]:
    """Vectors whose first coordinates are the topic, the rest what makes a text itself."""
    vectors = []
    for text in body["input"]:
        vector = [value / 8 for value in hash_vector(text, body["dimensions"])]
        vector[list(TOPICS).index(topic_of(text))] += 8.0
        vectors.append(vector)
    return vectors


def chat(body: dict[str, Any], call: int) -> "dict[str, Any] | Raw":
    """An annotator where concepts are shown, an interpreter where two groups of texts are."""
    if shown_concepts(body):
        return judge_by(lambda predicate, text: predicate == f"is about {topic_of(text)}")(body, call)
    texts = shown_texts(body)
    firing = [topic_of(text) for text in texts[: len(texts) // 2]]
    return {"concept": f"is about {max(TOPICS, key=firing.count)}"}


def candidly(body: dict[str, Any], call: int) -> "dict[str, Any] | Raw":
    """`chat`, but no two samples of texts give it the same words, as with a real model."""
    if shown_concepts(body):
        return judge_by(lambda predicate, text: predicate.startswith(f"is about {topic_of(text)}"))(body, call)
    said = chat(body, call)
    return {"concept": f"{said['concept']}, {hash_json(body)[:6]}"} if isinstance(said, dict) else said


def slowly(delay: float) -> Any:
    """`chat`, but every answer of the annotator takes `delay` seconds."""

    def answer(body: dict[str, Any], call: int) -> Raw:
        said = chat(body, call)
        raw = said if isinstance(said, Raw) else completion(json.dumps(said))
        return Raw(raw.body, raw.status, raw.headers, delay if shown_concepts(body) else 0.0)

    return answer


def judged(server: Loopback) -> list[tuple[str, tuple[str, ...]]]:
    """(text, predicates) of each annotation request, in the order of arrival."""
    bodies = [body for body in server.bodies() if "messages" in body and shown_concepts(body)]
    return [(shown_texts(body)[0], tuple(shown_concepts(body).values())) for body in bodies]


def embedded_texts(server: Loopback) -> list[str]:
    """Texts of every embeddings request, in the order of arrival."""
    return [text for body in server.bodies() if "input" in body for text in body["input"]]
