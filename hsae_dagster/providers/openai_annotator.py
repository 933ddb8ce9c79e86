"""A language model that judges concepts on texts.

Belongs here: how concepts are stacked into requests and how answers are read. Does not belong here: the wording
(prompts/annotate.md) or asking (`openai_client`).

One request shows one text and several concepts and asks for a boolean per concept, so that a concept the model forgot
is told from one it denied. Stacking makes as many fewer requests as there are concepts per call.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING
from hsae_dagster.keys import normalise_text
from hsae_dagster.providers.base import Annotations, Report
from hsae_dagster.providers.openai_client import Body, OpenAIClient
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_schema import json_request
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.prompt import load_prompt, present


@dataclass(frozen=True)
class _Question:
    """One request: text `row`, concepts `columns`."""

    row: int
    columns: range


class OpenAIAnnotator:
    """`openai:<model>`: one request per text and stack of concepts."""

    free = False

    def __init__(
        self,
        model: str,
        *,
        server: Server,
        concepts_per_call: int = 10,
        max_words: int = 256,
        temperature: float | None = None,
        offline: str = "lexical",
    ) -> None:
        self.model = model
        self.concepts_per_call = concepts_per_call
        self.max_words = max_words
        self.temperature = temperature
        self.prompt = load_prompt("annotate")
        self.client = OpenAIClient(Asker("annotation.model", model, offline), server)
        # A stage works for minutes before it asks; a missing key is known now.
        self.client.require_key()

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Judge every concept on every text; what the model does not answer usably is missing, with its reason.

        Raises:
            ProviderError: the server cannot be asked at all.
        """
        predicates = [normalise_text(concept.predicate) for concept in concepts]
        questions = list(self._questions(len(concepts), len(texts)))
        bodies = (self.body([predicates[c] for c in q.columns], texts[q.row]) for q in questions)
        replies = self.client.ask_all(bodies, len(questions), report)
        answers = np.full((len(texts), len(concepts)), MISSING, dtype=np.int8)
        reasons = []
        for question, reply in zip(questions, replies, strict=True):
            judged = read_judgements(reply, len(question.columns))
            for concept, judgement in zip(question.columns, judged, strict=True):
                if isinstance(judgement, bool):
                    answers[question.row, concept] = judgement
                else:
                    reasons.append((question.row, concept, judgement))
        return Annotations(answers=answers, reasons=tuple(sorted(reasons)), calls=len(questions))

    def _questions(self, n_concepts: int, n_texts: int) -> Iterator[_Question]:
        # Texts run fastest: requests that follow each other share their beginning, which servers cache.
        for start in range(0, n_concepts, self.concepts_per_call):
            columns = range(start, min(start + self.concepts_per_call, n_concepts))
            for row in range(n_texts):
                yield _Question(row, columns)

    def body(self, predicates: Sequence[str], text: str) -> Body:
        """The request for one text and one stack of concepts."""
        messages = self.prompt.messages(predicates=list(predicates), text=present(text, self.max_words))
        return json_request(self.model, messages, "judgements", _schema(len(predicates)), self.temperature)


def read_judgements(reply: Reply, count: int) -> list[bool | str]:
    """Per concept: the judgement, or why it is missing.

    An id that was not asked for spoils the whole answer: a model that numbers from c0 has shifted all of them.
    """
    if reply.reason is not None:
        return [reply.reason] * count
    ids = _ids(count)
    strange = sorted(set(reply.value) - set(ids))
    if strange:
        return [f"the answer names `{strange[0][:20]}`, which was not asked"] * count
    return [_judgement(reply.value, concept) for concept in ids]


def _judgement(value: dict[str, Any], concept: str) -> bool | str:
    if concept not in value:
        return "the answer leaves this concept out"
    said = value[concept]
    return said if isinstance(said, bool) else "the answer for this concept is neither true nor false"


def _ids(count: int) -> list[str]:
    return [f"c{number}" for number in range(1, count + 1)]


def _schema(count: int) -> dict[str, Any]:
    ids = _ids(count)
    return {
        "type": "object",
        "properties": {concept: {"type": "boolean"} for concept in ids},
        "required": ids,
        "additionalProperties": False,
    }
