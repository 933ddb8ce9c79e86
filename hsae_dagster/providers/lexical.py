"""The offline interpreter and annotator: weighted lexicons. Deterministic, exact, free.

Belongs here: fitting candidate lexicons of several sizes per neuron and judging texts by them. The method itself lives
in `core.lexicon` and `core.terms`.
"""

from collections.abc import Sequence

import numpy as np

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.fidelity import column
from hsae_dagster.core.lexicon import Lexicon, apply_lexicons, fit_lexicons, name_lexicon
from hsae_dagster.core.terms import TermTable, supported_terms
from hsae_dagster.providers.base import Annotations, AnnotationTask, InterpretationRequest, Report
from hsae_dagster.providers.estimate import Estimate

AUTHOR = "lexical"
# Most terms of a lexicon: candidates of several sizes are spread between these.
LARGEST, SMALLEST = 2_000, 300


class LexicalInterpreter:
    """Proposes, per neuron, lexicons of several sizes, largest first."""

    prompt_hash = None
    faults = 0

    def interpret(self, request: InterpretationRequest, report: Report) -> list[list[Concept]]:
        """Candidates per neuron; none when the neuron fires on all or no texts, or no term speaks for it."""
        table = supported_terms(request.texts, request.clusters.tolist())
        neurons = request.codes.shape[1]
        report(f"{len(table.terms):,} terms are supported by several clusters of {len(request.texts):,} texts")
        proposals = []
        for neuron in range(neurons):
            proposals.append(self._candidates(table, column(request.codes, neuron), request))
            if (neuron + 1) % 5 == 0 or neuron + 1 == neurons:
                report(f"lexicons written for {neuron + 1} of {neurons} neurons")
        return proposals

    def estimate(self, request: InterpretationRequest) -> Estimate:
        """Nothing: no model is asked."""
        return Estimate()

    def settle(self, chosen: Sequence[Concept | None], request: InterpretationRequest) -> list[Concept | None]:
        """The chosen size of lexicon, fitted again on training and validation texts together."""
        table = supported_terms(request.texts, request.clusters.tolist())
        settled: list[Concept | None] = []
        for neuron, concept in enumerate(chosen):
            activation = column(request.codes, neuron)
            again = self._write(table, activation, request.clusters, [concept.details["size"]]) if concept else []
            settled.append(again[0] if again else concept)
        return settled

    def _candidates(self, table: TermTable, activation: np.ndarray, request: InterpretationRequest) -> list[Concept]:
        fires = activation > 0
        if fires.all() or not fires.any():
            return []
        sizes = np.geomspace(LARGEST, SMALLEST, request.candidates).round().astype(int).tolist()
        found: dict[str, Concept] = {}
        for concept in self._write(table, activation, request.clusters, sizes):
            found.setdefault(concept.concept_id, concept)
        return list(found.values())

    def _write(
        self, table: TermTable, activation: np.ndarray, clusters: np.ndarray, sizes: Sequence[int]
    ) -> list[Concept]:
        """A concept for each size that a name can be given to."""
        concepts = []
        for size, lexicon in zip(sizes, fit_lexicons(table, activation, clusters, sizes), strict=False):
            name = name_lexicon(lexicon, table, activation > 0)
            if name:
                details = {"size": size, "terms": len(lexicon.terms)}
                concepts.append(Concept(name, AUTHOR, lexicon.as_definition(), details))
        return concepts


class LexicalAnnotator:
    """Judges lexicons by executing them."""

    free = True
    prompt_hash = None

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Exact answers; raises MethodError for a concept that is not a lexicon."""
        lexicons = [Lexicon.from_definition(concept.definition) for concept in concepts]
        report(f"{len(texts):,} texts judged by {len(lexicons)} lexicons")
        return Annotations(answers=apply_lexicons(lexicons, texts))

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        """Nothing: no model is asked."""
        return Estimate()

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for each task."""
        return [self.annotate(task.concepts, task.texts, report) for task in tasks]
