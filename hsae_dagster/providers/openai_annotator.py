"""A language model that judges concepts on texts.

Belongs here: how concepts are stacked into requests and how answers are read. Does not belong here: the wording
(prompts/annotate_single.md, prompts/annotate_stacked.md) or asking (`openai_client`).

One request shows one text and several concepts and asks for a boolean per concept, so that a concept the model forgot
is told from one it denied. Stacking makes as many fewer requests as there are concepts per call.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import MISSING
from hsae_dagster.keys import normalise_text
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.base import Annotations, AnnotationTask, Report
from hsae_dagster.providers.estimate import Estimate
from hsae_dagster.providers.loose_json import as_boolean
from hsae_dagster.providers.openai_client import OpenAIClient
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.openai_schema import json_request
from hsae_dagster.providers.openai_server import Asker, Server
from hsae_dagster.providers.plan import Body, LazyBodies
from hsae_dagster.providers.prompt import present, prompt_of
from hsae_dagster.providers.unusable import require_some

# Room for `{"c12": false, …}`, generously.
TOKENS_PER_JUDGEMENT = 8
SPARE_TOKENS = 128
# Where the text goes in a prompt; no prompt or predicate ends with it.
_HOLE = "\x00"
_LIKE_AN_ID = re.compile(r"[cC]\s*\d+")


@dataclass(frozen=True, slots=True)
class _Question:
    """One request: text `row` and concepts `columns` of task `task`."""

    task: int
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
        account: Account | None = None,
        concepts_per_call: int = 10,
        max_words: int = 256,
        temperature: float | None = None,
        effort: str | None = None,
        provider: str = "openai",
        offline: str = "lexical",
        prompt: str | None = None,
    ) -> None:
        self.model = model
        self.effort = effort
        self.concepts_per_call = concepts_per_call
        self.max_words = max_words
        usual = "annotate_single" if concepts_per_call == 1 else "annotate_stacked"
        self.prompt = prompt_of(usual, prompt, "annotation.prompt", ("predicates", "text"))
        self.client = OpenAIClient(Asker("annotation.model", model, offline, provider), server, account)
        # A judge should judge alike twice, where the model lets itself be told.
        self.temperature = 0.0 if temperature is None and self.client.profile.temperature else temperature
        self._shared: dict[tuple[str, ...], Body] = {}

    @property
    def prompt_hash(self) -> str:
        """Hash of the prompt file that is used."""
        return self.prompt.hash

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Judge every concept on every text; what the model does not answer usably is missing, with its reason.

        Raises:
            ProviderError: the server cannot be asked at all, the budget is reached, or no answer is usable.
        """
        return self.annotate_all([AnnotationTask(concepts, texts)], report)[0]

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for several tasks in one round of requests."""
        questions, bodies = self._requests(tasks)
        tokens = self._answer_tokens(max((len(task.concepts) for task in tasks), default=0))

        def problem_of(index: int, reply: Reply) -> str | None:
            judged = read_judgements(reply, len(questions[index].columns))
            reasons = [each for each in judged if isinstance(each, str)]
            return reasons[0] if len(reasons) == len(judged) else None

        replies = self.client.ask_all(bodies, report, self.prompt.hash, tokens, problem_of)
        require_some(self.client, [problem_of(index, reply) for index, reply in enumerate(replies)])
        drafts = [_Draft(len(task.texts), len(task.concepts)) for task in tasks]
        for question, reply in zip(questions, replies, strict=True):
            drafts[question.task].take(question, reply)
        return [draft.finish() for draft in drafts]

    def at_once(self) -> "OpenAIAnnotator":
        """The same judge, on the same account, asked request by request whatever the tier."""
        asked = copy(self)
        account = self.client.account
        if account is not None and account.tier == "batch":
            asked.client = OpenAIClient(self.client.asker, self.client.server, replace(account, tier="standard"))
        return asked

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        """What judging these tasks would take now."""
        _, bodies = self._requests(tasks)
        tokens = self._answer_tokens(max((len(task.concepts) for task in tasks), default=0))
        return self.client.estimate(bodies, self.prompt.hash, tokens)

    def body(self, predicates: Sequence[str], text: str) -> Body:
        """The request for one text and one stack of concepts; what all texts of a stack share is made once."""
        shared = self._shared.get(tuple(predicates))
        if shared is None:
            shared = self._shared.setdefault(tuple(predicates), self._whole(predicates, _HOLE))
        *others, user = shared["messages"]
        before, _, after = user["content"].rpartition(_HOLE)
        said = {**user, "content": before + present(text, self.max_words) + after}
        return {**shared, "messages": [*others, said]}

    def _whole(self, predicates: Sequence[str], text: str) -> Body:
        messages = self.prompt.messages(predicates=list(predicates), text=text)
        room = SPARE_TOKENS + TOKENS_PER_JUDGEMENT * len(predicates)
        settings = self.client.settings(room, self.temperature, self.effort)
        return json_request(self.model, messages, "judgements", _schema(len(predicates)), settings)

    def body_with(self, concepts: Sequence[Concept], place: int, text: str) -> Body:
        """The request in which the concept at `place` is judged on a text, with those it is stacked with."""
        start = place - place % self.concepts_per_call
        stack = concepts[start : start + self.concepts_per_call]
        return self.body([normalise_text(concept.predicate) for concept in stack], text)

    def _requests(self, tasks: Sequence[AnnotationTask]) -> tuple[list[_Question], LazyBodies]:
        predicates = [[normalise_text(concept.predicate) for concept in task.concepts] for task in tasks]
        questions = [
            question for number, task in enumerate(tasks) for question in self._questions(number, task) if task.concepts
        ]

        def make(index: int) -> Body:
            question = questions[index]
            stack = [predicates[question.task][column] for column in question.columns]
            return self.body(stack, tasks[question.task].texts[question.row])

        return questions, LazyBodies(len(questions), make)

    def _questions(self, number: int, task: AnnotationTask) -> Iterator[_Question]:
        # Texts run fastest: requests that follow each other share their beginning, which servers cache.
        for start in range(0, len(task.concepts), self.concepts_per_call):
            columns = range(start, min(start + self.concepts_per_call, len(task.concepts)))
            for row in range(len(task.texts)):
                yield _Question(number, row, columns)

    def _answer_tokens(self, concepts: int) -> int:
        return TOKENS_PER_JUDGEMENT * min(concepts, self.concepts_per_call)


class _Draft:
    """The answers to one task while they come in."""

    def __init__(self, texts: int, concepts: int) -> None:
        self.answers = np.full((texts, concepts), MISSING, dtype=np.int8)
        self.reasons: list[tuple[int, int, str]] = []
        self.costs: list[float | None] = []
        self.faults = 0

    def take(self, question: _Question, reply: Reply) -> None:
        """Read one reply."""
        judged = read_judgements(reply, len(question.columns))
        for concept, judgement in zip(question.columns, judged, strict=True):
            if isinstance(judgement, bool):
                self.answers[question.row, concept] = judgement
            else:
                self.reasons.append((question.row, concept, judgement))
        if reply.fault is None:
            self.costs.append(reply.cost_usd)
        else:
            self.faults += len(question.columns)

    def finish(self) -> Annotations:
        """All of it."""
        known = [cost for cost in self.costs if cost is not None]
        cost = round(sum(sorted(known)), 9) if len(known) == len(self.costs) else None
        return Annotations(self.answers, tuple(sorted(self.reasons)), len(self.costs), cost, self.faults)


def read_judgements(reply: Reply, count: int) -> list[bool | str]:
    """Per concept: the judgement, or why it is missing.

    An id that was not asked for spoils the whole answer: a model that numbers from c0 has shifted all of them. Other
    fields (an explanation, say) are left aside.
    """
    if reply.reason is not None:
        return [reply.reason] * count
    ids = _ids(count)
    value = _unwrapped(reply.value, ids)
    strange = sorted(key for key in set(value) - set(ids) if _LIKE_AN_ID.fullmatch(key))
    if strange:
        return [f"the answer names `{strange[0][:20]}`, which was not asked"] * count
    return [_judgement(value, concept) for concept in ids]


def _unwrapped(value: Mapping[str, Any], ids: Sequence[str]) -> dict[str, Any]:
    """Answers by id in lower case, out of a field that holds all of them."""
    found = {str(key).strip().casefold(): said for key, said in value.items()}
    inner = [said for said in found.values() if isinstance(said, Mapping)]
    if not set(found) & set(ids) and len(inner) == 1 and any(_LIKE_AN_ID.fullmatch(str(key)) for key in inner[0]):
        return _unwrapped(inner[0], ids)
    return found


def _judgement(value: Mapping[str, Any], concept: str) -> bool | str:
    if concept not in value:
        return "the answer leaves this concept out"
    said = as_boolean(value[concept])
    return "the answer for this concept is neither true nor false" if said is None else said


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
