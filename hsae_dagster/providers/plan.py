"""Which of many requests must be sent: those the ledger does not know, equal ones once.

Belongs here: requests as keys and sizes, and putting replies back in order. Does not belong here: sending (`asking`).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from hsae_dagster.keys import hash_bytes
from hsae_dagster.providers.ledger import Entry, Ledger
from hsae_dagster.providers.openai_replies import Reply, read_again

Body = dict[str, Any]


class LazyBodies(Sequence[Body]):
    """n request bodies, each made when it is read: a million of them take no room."""

    def __init__(self, count: int, make: Callable[[int], Body]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Body: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Body]: ...
    def __getitem__(self, index: int | slice) -> Body | Sequence[Body]:
        if isinstance(index, slice):
            return [self._make(i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._make(index)

    def __iter__(self) -> Iterator[Body]:
        return map(self._make, range(self._count))


@dataclass(frozen=True, slots=True)
class Question:
    """A request's key and size in bytes."""

    hash: str
    size: int

    @staticmethod
    def of(body: Body, endpoint: str) -> "Question":
        """The key of a body at a server."""
        data = canonical(body)
        return Question(hash_bytes(endpoint.encode() + b"\x00" + data), len(data))


@dataclass(frozen=True)
class Plan:
    """What is known and what is to be asked.

    Attributes:
        questions: per body.
        known: first answers of the ledger, by request.
        todo: indexes of the bodies to send; of equal ones the first. Embeddings are always sent: their vectors are
            kept elsewhere, by text.
    """

    questions: list[Question]
    known: Mapping[str, Entry]
    todo: list[int]

    @staticmethod
    def make(bodies: Sequence[Body], endpoint: str, model: str, ledger: Ledger | None) -> "Plan":
        """Read every body once."""
        questions: list[Question] = []
        first: dict[str, int] = {}
        chat = False
        for index, body in enumerate(bodies):
            chat = chat or "messages" in body
            questions.append(Question.of(body, endpoint))
            first.setdefault(questions[-1].hash, index)
        known = ledger.find(list(first), endpoint, model) if ledger and chat else {}
        return Plan(questions, known, [index for key, index in first.items() if key not in known])

    def replies(self, asked: Mapping[str, Reply]) -> list[Reply]:
        """Replies in the order of the bodies."""
        recalled = {key: recall(entry) for key, entry in self.known.items()}
        return [asked.get(question.hash) or recalled[question.hash] for question in self.questions]


def recall(entry: Entry) -> Reply:
    """A reply as the ledger remembers it; what an earlier reader could not use is read again."""
    # What an object lacks that was asked for is for whoever asked to see again.
    value, reason = (None, entry.reason) if entry.parsed is None else (json.loads(entry.parsed), None)
    again = read_again(entry.reason, entry.answer) if value is None else None
    if again is not None:
        value, reason = again.value, again.reason
    return Reply(
        value=value,
        reason=reason,
        content=entry.answer,
        usage=entry.usage,
        model_echo=entry.model_echo,
        request_id=entry.request_id,
        cost_usd=entry.cost_usd,
    )


def canonical(body: Body) -> bytes:
    """A body as it is hashed: fields in the order of their names."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def wire(body: Body) -> bytes:
    """A body as it is sent: a schema's fields stay in their order, in which a model writes them."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
