"""What a concept is, whoever wrote it.

Belongs here: the record of a concept in words. Does not belong here: how it is found (`core.concepts`, providers) or
how well it fits (`core.fidelity`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hsae_dagster.keys import concept_id


@dataclass(frozen=True)
class Concept:
    """A predicate about a text.

    Attributes:
        predicate: in words, as a verb phrase whose subject is the text ("asks a question").
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
