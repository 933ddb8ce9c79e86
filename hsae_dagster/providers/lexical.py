"""The offline judge: `lexical`.

Belongs here: judging claims that execute: word groups, quoted sentences, style cues, lengths. The meaning of each lives
in `core.concepts.claims`.
"""

from collections.abc import Sequence

from hsae_dagster.core.concept import Concept
from hsae_dagster.core.concepts.claims import Closeness, judge, meaning_of
from hsae_dagster.providers.base import Annotations, AnnotationTask, Report
from hsae_dagster.providers.estimate import Estimate

AUTHOR = "lexical"


class LexicalAnnotator:
    """Judges claims by executing what they say."""

    free = True
    prompt_hash = None

    def __init__(self, closeness: Closeness | None = None) -> None:
        """Take what measures how close units are to quoted sentences; only such claims need it."""
        self.closeness = closeness

    def annotate(self, concepts: Sequence[Concept], texts: Sequence[str], report: Report) -> Annotations:
        """Exact answers; raises MethodError for a concept that is a phrase only a reader can judge."""
        meanings = [meaning_of(concept.definition) for concept in concepts]
        report(f"{len(texts):,} texts judged by {len(meanings)} claims as they read")
        return Annotations(answers=judge(meanings, texts, self.closeness))

    def estimate(self, tasks: Sequence[AnnotationTask]) -> Estimate:
        """Nothing: no model is asked."""
        return Estimate()

    def annotate_all(self, tasks: Sequence[AnnotationTask], report: Report) -> list[Annotations]:
        """`annotate` for each task."""
        return [self.annotate(task.concepts, task.texts, report) for task in tasks]
