"""A language model that says what a neuron responds to, and one that judges concepts on texts."""

import re
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.concepts.fidelity import MISSING, Examples, column, sample_examples
from hsae_dagster.dataset.spec import Annotation, Interpretation
from hsae_dagster.keys import normalise_text
from hsae_dagster.providers.base import (
    Annotations,
    AnnotationTask,
    InterpretationRequest,
    Labelled,
    Mistakes,
    Report,
    say_nothing,
)
from hsae_dagster.providers.openai.client import OpenAIClient
from hsae_dagster.providers.openai.prompts import json_request, object_of, present, prompt_of, require_some
from hsae_dagster.providers.openai.requests import Body, LazyBodies
from hsae_dagster.providers.replies import Reply, as_boolean
from hsae_dagster.providers.spending import Estimate, total

# A predicate asked for in 20 words that is longer than this is an essay.
MAX_CHARACTERS = 300
# Observations have about 60 words, a concept 20.
ANSWER_TOKENS, MOST_ANSWER_TOKENS = 110, 384
LEAST_WORDS = 3
_SAW = {"type": "string", "description": "What recurs in one group and not in the other."}
_CONCEPT = {"type": "string", "description": 'Completes "The text …", beginning with a verb.'}
# The model writes the fields in this order: what it saw comes before what it concludes.
SCHEMA = object_of({"observations": _SAW, "concept": _CONCEPT})
SHORT_SCHEMA = object_of({"concept": _CONCEPT})
_SUBJECT = re.compile(r"^(the|this) text\s+", re.IGNORECASE)
_ADVERBS = re.compile(r"^(?:\w+ly\s+|also\s+|often\s+){1,2}", re.IGNORECASE)
# Words with the ending of a verb in the third person that are none.
_NO_VERB = re.compile(
    r"(\w*(ss|us|ness)|this|its|his|hers|as|always|yes|texts|words|sentences|phrases|reviews|descriptions|statements|"
    r"complaints|arguments|opinions|references)$"
)
_SHORTER = "Leave `observations` out: answer with a JSON object that has the one field `concept`."
_SPECIMEN = re.compile(r"^<text[^>]*>\n(.*?)\n</text>$", re.DOTALL | re.MULTILINE)
_AGAIN = (
    "This cannot be used: {}. Answer again with a JSON object of the same form, whose `concept` is a phrase of your "
    'own of 3 to 20 words that completes "The text …" and begins with a verb in the third person.'
)


@dataclass(frozen=True)
class _Question:
    """One request: candidate number `candidate` of neuron `neuron`, shown `examples`."""

    neuron: int
    candidate: int
    examples: Examples


class OpenAIInterpreter:
    """`openai:<model>`: one request per neuron and candidate, each with its own sample of texts.

    Raises:
        ProviderError: where the server cannot be asked at all, or no answer is usable.
    """

    def __init__(self, client: OpenAIClient, spec: Interpretation) -> None:
        self.client = client
        self.effort, self.temperature = spec.effort, spec.temperature
        self.prompt = prompt_of("interpret", spec.prompt, "interpretation.prompt", ("positives", "negatives"))
        needed = ("phrase", "missed", "mistaken")
        self.revision = prompt_of("revise", spec.revision_prompt, "interpretation.revision_prompt", needed)
        self.prompt_hash: str | None = self.prompt.hash
        self.faults = 0

    def interpret(self, request: InterpretationRequest, report: Report) -> list[list[Concept]]:
        """Candidates per neuron, alike ones once. An unusable answer is reported and gives no candidate."""
        questions = self._questions(request, report)
        bodies = LazyBodies(len(questions), lambda n: self.body(questions[n].neuron, questions[n].examples, request))
        found: list[dict[str, Concept]] = [{} for _ in range(request.codes.shape[1])]
        for question, answer in zip(questions, self._ask(bodies, self.prompt.hash, request, report), strict=True):
            if answer.predicate is None:
                place = f"neuron {question.neuron}, candidate {question.candidate}"
                report(f"{place}: no concept, because {answer.problem}")
                continue
            shown = {"strong": len(question.examples.strong), "silent": len(question.examples.silent)}
            concept = self._concept(answer, self.prompt.hash, {"candidate": question.candidate, **shown})
            found[question.neuron].setdefault(concept.concept_id, concept)
        return [list(concepts.values()) for concepts in found]

    def revise(
        self, request: InterpretationRequest, mistakes: Sequence[Mistakes], report: Report
    ) -> list[Concept | None]:
        """Better words for each phrase, by what it got wrong; None where none could be had."""
        bodies = [self.revision_body(each, request) for each in mistakes]
        found: list[Concept | None] = []
        for each, answer in zip(mistakes, self._ask(bodies, self.revision.hash, request, report), strict=True):
            if answer.predicate is None:
                report(f"neuron {each.neuron}, revision: no concept, because {answer.problem}")
                found.append(None)
            else:
                found.append(self._concept(answer, self.revision.hash, {"revises": asdict(each)}))
        return found

    def _concept(self, answer: "_Answer", prompt: str, details: Mapping[str, Any]) -> Concept:
        made = {"prompt": prompt, "server": self.client.server.endpoint, **details, "cost_usd": answer.cost_usd}
        return Concept(str(answer.predicate), f"{self.client.asker.provider}:{self.client.asker.model}", details=made)

    def _ask(
        self, bodies: Sequence[Body], prompt: str, request: InterpretationRequest, report: Report
    ) -> "list[_Answer]":
        """Ask for phrases, and once more for those that did not end or cannot be used."""

        def ask(some: Sequence[Body], problem: Callable[[int, Reply], str | None]) -> list[Reply]:
            return self.client.ask_all(some, report, prompt, ANSWER_TOKENS, problem)

        first = ask(bodies, lambda index, reply: read_concept(reply)[1])
        answers = [self.read(bodies[n], reply, request) for n, reply in enumerate(first)]
        todo = {n: self.follow_up(bodies[n], reply, request) for n, reply in enumerate(first)}
        again = {n: body for n, body in todo.items() if body is not None}
        if again:
            report(f"{len(again)} answers cannot be used and are asked for once more")
            places = list(again)
            second = ask(
                list(again.values()), lambda index, reply: self.read(bodies[places[index]], reply, request).problem
            )
            for n, reply in zip(places, second, strict=True):
                answers[n] = self.read(bodies[n], reply, request).after(answers[n])
        require_some(self.client, [answer.problem for answer in answers])
        self.faults += sum(answer.faulty for answer in answers)
        return answers

    def read(self, body: Body, reply: Reply, request: InterpretationRequest) -> "_Answer":
        """The phrase of a reply to a request, or why there is none that can be used."""
        predicate, problem = read_concept(reply)
        if predicate is not None:
            problem = self._unusable(predicate, body, request)
        return _Answer(None if problem else predicate, problem, reply.cost_usd, reply.fault is not None)

    def follow_up(self, body: Body, reply: Reply, request: InterpretationRequest) -> Body | None:
        """The request that asks once more after an answer that did not end, or a phrase that cannot be used."""
        messages = body["messages"]
        if reply.reason is not None and "cut off" in reply.reason:
            # Weak models observe without end.
            said = {**messages[-1], "content": f"{messages[-1]['content']}\n\n{_SHORTER}"}
            return self._json_request([*messages[:-1], said], SHORT_SCHEMA)
        problem = self.read(body, reply, request).problem if reply.reason is None else None
        if problem is None:
            return None
        answered = {"role": "assistant", "content": reply.content or ""}
        return {**body, "messages": [*messages, answered, {"role": "user", "content": _AGAIN.format(problem)}]}

    def _unusable(self, predicate: str, body: Body, request: InterpretationRequest) -> str | None:
        words = predicate.split()
        if len(words) < LEAST_WORDS:
            return f"the phrase has fewer than {LEAST_WORDS} words"
        # A prompt of the user's may ask in another language.
        if self.prompt.name == "interpret" and not begins_with_verb(predicate):
            return "the phrase does not begin with a verb in the third person"
        told = (self.prompt.source, self.revision.source, request.instructions or "")
        if any(predicate.casefold() in text.casefold() for text in told):
            return "the phrase repeats the instructions"
        if any(predicate.casefold() in text.casefold() for text in _SPECIMEN.findall(body["messages"][1]["content"])):
            return "the phrase repeats one of the texts"
        return None

    def estimate(self, request: InterpretationRequest) -> Estimate:
        """What interpreting would take now."""
        questions = self._questions(request, say_nothing)
        bodies = LazyBodies(len(questions), lambda n: self.body(questions[n].neuron, questions[n].examples, request))
        return self.client.estimate(bodies, self.prompt.hash, ANSWER_TOKENS)

    def estimate_revisions(self, request: InterpretationRequest) -> Estimate:
        """What one `revise` of a phrase per neuron would take: as many texts shown as for its first words."""
        questions = {question.neuron: question for question in self._questions(request, say_nothing)}
        sizes = [len(str(self.body(n, question.examples, request))) for n, question in questions.items()]
        return self.client.estimate_sizes(sizes, self.revision.hash, ANSWER_TOKENS)

    def bodies_of(self, neuron: int, request: InterpretationRequest) -> list[Body]:
        """The requests about one neuron, in the order of its candidates."""
        asked = [question for question in self._questions(request, say_nothing) if question.neuron == neuron]
        return [self.body(neuron, question.examples, request) for question in asked]

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
                    likeness=request.places.likeness[:, neuron] if request.places else None,
                )
                if not len(examples.strong) or not len(examples.silent):
                    low = "weakly firing" if request.weak else "silent"
                    side = low if len(examples.strong) else "strongly firing"
                    report(f"neuron {neuron}: no concept, because there is no {side} text to show")
                    break
                questions.append(_Question(neuron, candidate, examples))
        return questions

    def body(self, neuron: int, examples: Examples, request: InterpretationRequest) -> Body:
        """The request for one sample of texts."""
        return self._json_request(
            self.prompt.messages(
                **_shared(request),
                weak=request.weak is not None,
                nearest=request.weak is None and request.places is not None,
                positives=_shown(request, neuron, examples.strong, marked=True),
                negatives=_shown(request, neuron, examples.silent, marked=request.weak is not None),
            )
        )

    def revision_body(self, mistakes: Mistakes, request: InterpretationRequest) -> Body:
        """The request for better words than a phrase."""
        rows = {"right": mistakes.right, "missed": mistakes.missed, "mistaken": mistakes.mistaken}
        return self._json_request(
            self.revision.messages(
                **_shared(request),
                phrase=mistakes.phrase,
                judged=mistakes.firing + mistakes.silent,
                firing=mistakes.firing,
                found=mistakes.found,
                silent=mistakes.silent,
                wrong=mistakes.wrong,
                **{
                    name: _shown(request, mistakes.neuron, some, marked=name != "mistaken")
                    for name, some in rows.items()
                },
            )
        )

    def _json_request(self, messages: list[dict[str, str]], schema: Mapping[str, Any] = SCHEMA) -> Body:
        settings = self.client.settings(MOST_ANSWER_TOKENS, self.temperature, self.effort)
        return json_request(self.client.asker.model, messages, "interpretation", schema, settings)


@dataclass(frozen=True)
class _Answer:
    """A phrase or why there is none, what it cost, and whether the request itself failed."""

    predicate: str | None
    problem: str | None
    cost_usd: float | None
    faulty: bool

    def after(self, first: "_Answer") -> "_Answer":
        """This one, with what both cost."""
        unknown = self.cost_usd is None or first.cost_usd is None
        return replace(self, cost_usd=None if unknown else (self.cost_usd or 0.0) + (first.cost_usd or 0.0))


def _shared(request: InterpretationRequest) -> dict[str, Any]:
    several = request.places is not None and any(len(units) > 1 for units in request.places.units)
    return {"instructions": (request.instructions or "").strip(), "excerpts": several}


def _shown(request: InterpretationRequest, neuron: int, rows: Sequence[int] | np.ndarray, *, marked: bool) -> list[str]:
    places = request.places
    texts = [places.excerpt(int(r), neuron, marked=marked) if places else request.texts[int(r)] for r in rows]
    return [present(text, request.max_words) for text in texts]


def begins_with_verb(predicate: str) -> bool:
    """Whether a phrase begins with what looks like a verb in the third person, an adverb before it allowed."""
    first = _ADVERBS.sub("", predicate.casefold()).split(maxsplit=1)[0].strip(",;:")
    return first.endswith("s") and _NO_VERB.match(first) is None


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
    predicate = _SUBJECT.sub("", normalise_text(said).strip("\"'“”` ").rstrip(".")).strip("… ")
    if not any(character.isalnum() for character in predicate):
        return None, "the concept is empty"
    if len(predicate) > MAX_CHARACTERS:
        return None, f"the concept is longer than {MAX_CHARACTERS} characters"
    return predicate, None


# Room for `{"c12": false, …}`, generously.
TOKENS_PER_JUDGEMENT = 8
SPARE_TOKENS = 128
# Where the text goes in a prompt; no prompt or predicate ends with it.
_HOLE = "\x00"
_LIKE_AN_ID = re.compile(r"[cC]\s*\d+")


@dataclass(frozen=True, slots=True)
class _Judged:
    """One request: text `row` and concepts `columns` of task `task`."""

    task: int
    row: int
    columns: range


class OpenAIAnnotator:
    """`openai:<model>`: one request per text and stack of concepts."""

    free = False

    def __init__(self, client: OpenAIClient, spec: Annotation, examples: Labelled | None = None) -> None:
        self.client = client
        self.effort, self.concepts_per_call, self.max_words = spec.effort, spec.concepts_per_call, spec.max_words
        self.examples = {normalise_text(predicate): shown for predicate, shown in (examples or {}).items()}
        usual = "annotate_single" if spec.concepts_per_call == 1 else "annotate_stacked"
        needed = ("predicates", "text", *(["examples"] if any(self.examples.values()) else []))
        self.prompt = prompt_of(usual, spec.prompt, "annotation.prompt", needed)
        # A judge should judge alike twice, where the model lets itself be told.
        fixed = spec.temperature is None and client.profile.temperature
        self.temperature = 0.0 if fixed else spec.temperature
        self.prompt_hash: str | None = self.prompt.hash
        self._shared: dict[tuple[str, ...], Body] = {}

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Judge every concept on every text; what the model does not answer usably is missing, with its reason.

        Raises:
            ProviderError: the server cannot be asked at all, the budget is reached, or no answer is usable.
        """
        return self.annotate_all([AnnotationTask(concepts, texts)], report)[0]

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for several tasks in one round of requests."""
        questions, bodies, tokens = self._requests(tasks)

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
        _, bodies, tokens = self._requests(tasks)
        return self.client.estimate(bodies, self.prompt.hash, tokens)

    def body(self, predicates: Sequence[str], text: str) -> Body:
        """The request for one text and one stack of concepts; what all texts of a stack share is made once."""
        shared = self._shared.get(tuple(predicates))
        if shared is None:
            shared = self._shared.setdefault(tuple(predicates), self._shared_of(predicates))
        *others, user = shared["messages"]
        before, _, after = user["content"].rpartition(_HOLE)
        said = {**user, "content": before + present(text, self.max_words) + after}
        return {**shared, "messages": [*others, said]}

    def _shared_of(self, predicates: Sequence[str]) -> Body:
        examples = [
            {"id": key, "text": present(example, self.max_words), "label": "true" if label else "false"}
            for key, predicate in zip(_ids(len(predicates)), predicates, strict=True)
            for example, label in self.examples.get(predicate, ())
        ]
        messages = self.prompt.messages(predicates=list(predicates), text=_HOLE, examples=examples)
        room = SPARE_TOKENS + TOKENS_PER_JUDGEMENT * len(predicates)
        settings = self.client.settings(room, self.temperature, self.effort)
        schema = object_of({key: {"type": "boolean"} for key in _ids(len(predicates))})
        return json_request(self.client.asker.model, messages, "judgements", schema, settings)

    def body_with(self, concepts: Sequence[Concept], place: int, text: str) -> Body:
        """The request in which the concept at `place` is judged on a text, with those it is stacked with."""
        start = place - place % self.concepts_per_call
        stack = concepts[start : start + self.concepts_per_call]
        return self.body([normalise_text(concept.predicate) for concept in stack], text)

    def _requests(self, tasks: Sequence[AnnotationTask]) -> tuple[list[_Judged], LazyBodies, int]:
        """What is asked, how, and the length of an answer in tokens."""
        most = self.concepts_per_call
        predicates = [[normalise_text(concept.predicate) for concept in task.concepts] for task in tasks]
        questions: list[_Judged] = []
        for number, task in enumerate(tasks):
            # Texts run fastest: requests that follow each other share their beginning, which servers cache.
            for start in range(0, len(task.concepts), most):
                columns = range(start, min(start + most, len(task.concepts)))
                questions += [_Judged(number, row, columns) for row in range(len(task.texts))]

        def make(index: int) -> Body:
            question = questions[index]
            stack = [predicates[question.task][column] for column in question.columns]
            return self.body(stack, tasks[question.task].texts[question.row])

        longest = min(max((len(task.concepts) for task in tasks), default=0), most)
        return questions, LazyBodies(len(questions), make), TOKENS_PER_JUDGEMENT * longest


class _Draft:
    """The answers to one task while they come in."""

    def __init__(self, texts: int, concepts: int) -> None:
        self.answers = np.full((texts, concepts), MISSING, dtype=np.int8)
        self.reasons: list[tuple[int, int, str]] = []
        self.costs: list[float | None] = []
        self.faults = 0

    def take(self, question: _Judged, reply: Reply) -> None:
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
        cost = total(self.costs)
        known = None if cost.unpriced else cost.usd
        return Annotations(self.answers, tuple(sorted(self.reasons)), cost.calls, known, self.faults)


def read_judgements(reply: Reply, count: int) -> list[bool | str]:
    """Per concept: the judgement, or why it is missing. Other fields (an explanation, say) are left aside.

    An id that was not asked for spoils the whole answer: a model that numbers from c0 has shifted all of them.
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
