"""A language model that says what a neuron responds to.

Belongs here: which texts are shown, the request, and what counts as a usable concept. Does not belong here: the wording
(prompts/interpret.md), asking (`openai_client`), or how well a concept fits (`core.fidelity`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import column
from hsae_dagster.core.sampling import Examples, sample_examples
from hsae_dagster.keys import normalise_text
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import InterpretationRequest, Report
from hsae_dagster.providers.estimate import Estimate
from hsae_dagster.providers.openai_client import OpenAIClient
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_schema import json_request
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.plan import Body, LazyBodies
from hsae_dagster.providers.prompt import load_prompt, present_all
from hsae_dagster.providers.unusable import require_some

# A predicate asked for in 20 words that is longer than this is an essay.
MAX_CHARACTERS = 300
# A concept has about 20 words.
ANSWER_TOKENS, MOST_ANSWER_TOKENS = 32, 256
SCHEMA = {
    "type": "object",
    "properties": {"concept": {"type": "string", "description": 'Completes "The text …", beginning with a verb.'}},
    "required": ["concept"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class _Question:
    """One request: candidate number `candidate` of neuron `neuron`, shown `examples`."""

    neuron: int
    candidate: int
    examples: Examples


class OpenAIInterpreter:
    """`openai:<model>`: one request per neuron and candidate, each with its own sample of texts."""

    def __init__(
        self,
        model: str,
        *,
        server: Server,
        account: Account | None = None,
        temperature: float | None = None,
        effort: str | None = None,
        provider: str = "openai",
        offline: str = "lexical",
    ) -> None:
        self.model = model
        self.effort = effort
        self.temperature = temperature
        self.prompt = load_prompt("interpret")
        self.client = OpenAIClient(Asker("interpretation.model", model, offline, provider), server, account)
        self.faults = 0

    @property
    def prompt_hash(self) -> str:
        """Hash of the prompt file."""
        return self.prompt.hash

    def interpret(self, request: InterpretationRequest, report: Report) -> list[list[Concept]]:
        """Candidates per neuron, alike ones once. An unusable answer is reported and gives no candidate.

        Raises:
            ProviderError: the server cannot be asked at all, or no answer is usable.
        """
        questions = self._questions(request, report)
        replies = self.client.ask_all(
            self._bodies(questions, request),
            report,
            self.prompt.hash,
            ANSWER_TOKENS,
            lambda index, reply: read_concept(reply)[1],
        )
        require_some(self.client, [read_concept(reply)[1] for reply in replies])
        self.faults = sum(reply.fault is not None for reply in replies)
        found: list[dict[str, Concept]] = [{} for _ in range(request.codes.shape[1])]
        for question, reply in zip(questions, replies, strict=True):
            predicate, problem = read_concept(reply)
            if predicate is None:
                report(f"neuron {question.neuron}, candidate {question.candidate}: no concept, because {problem}")
                continue
            details = {
                "prompt": self.prompt.hash,
                "server": self.client.server.endpoint,
                "candidate": question.candidate,
                "strong": len(question.examples.strong),
                "silent": len(question.examples.silent),
                "cost_usd": reply.cost_usd,
            }
            concept = Concept(predicate, f"{self.client.asker.provider}:{self.model}", details=details)
            found[question.neuron].setdefault(concept.concept_id, concept)
        return [list(concepts.values()) for concepts in found]

    def settle(self, chosen: Sequence[Concept | None], request: InterpretationRequest) -> list[Concept | None]:
        """The chosen candidates as they are: words need no second fit."""
        return list(chosen)

    def estimate(self, request: InterpretationRequest) -> Estimate:
        """What interpreting would take now."""
        bodies = self._bodies(self._questions(request, _say_nothing), request)
        return self.client.estimate(bodies, self.prompt.hash, ANSWER_TOKENS)

    def _bodies(self, questions: Sequence[_Question], request: InterpretationRequest) -> LazyBodies:
        return LazyBodies(len(questions), lambda index: self.body(questions[index].examples, request))

    def bodies_of(self, neuron: int, request: InterpretationRequest) -> list[Body]:
        """The requests about one neuron, in the order of its candidates."""
        asked = [question for question in self._questions(request, _say_nothing) if question.neuron == neuron]
        return [self.body(question.examples, request) for question in asked]

    def _questions(self, request: InterpretationRequest, report: Report) -> list[_Question]:
        questions = []
        for neuron in range(request.codes.shape[1]):
            activation = column(request.codes, neuron)
            for candidate in range(request.candidates):
                rng = np.random.default_rng((request.seed, neuron, candidate))
                examples = sample_examples(
                    activation,
                    request.bounds[neuron],
                    request.examples,
                    rng,
                    top=request.top,
                    weak=request.weak[neuron] if request.weak else None,
                )
                if not len(examples.strong) or not len(examples.silent):
                    low = "weakly firing" if request.weak else "silent"
                    side = low if len(examples.strong) else "strongly firing"
                    report(f"neuron {neuron}: no concept, because there is no {side} text to show")
                    break
                questions.append(_Question(neuron, candidate, examples))
        return questions

    def body(self, examples: Examples, request: InterpretationRequest) -> Body:
        """The request for one sample of texts."""
        messages = self.prompt.messages(
            weak=request.weak is not None,
            instructions=(request.instructions or "").strip(),
            positives=present_all([request.texts[row] for row in examples.strong], request.max_words),
            negatives=present_all([request.texts[row] for row in examples.silent], request.max_words),
        )
        settings = self.client.settings(MOST_ANSWER_TOKENS, self.temperature, self.effort)
        return json_request(self.model, messages, "interpretation", SCHEMA, settings)


def read_concept(reply: Reply) -> tuple[str | None, str | None]:
    """(predicate, None), or (None, why there is none)."""
    if reply.reason is not None:
        return None, reply.reason
    fields = {str(key).strip().casefold(): said for key, said in reply.value.items()}
    said = fields.get("concept")
    # A thought or a reason beside it is left aside; a second concept leaves open which one is meant.
    if not isinstance(said, str) or any(key != "concept" and key.startswith("concept") for key in fields):
        return None, "the answer does not have one field `concept` with a phrase"
    if "\n" in said.strip():
        return None, "the answer runs over several lines"
    predicate = normalise_text(said).strip("\"'“”` ").rstrip(".").strip()
    if not any(character.isalnum() for character in predicate):
        return None, "the concept is empty"
    if len(predicate) > MAX_CHARACTERS:
        return None, f"the concept is longer than {MAX_CHARACTERS} characters"
    return predicate, None


def _say_nothing(message: str) -> None:
    """An estimate asks nothing, so it has nothing to tell."""
