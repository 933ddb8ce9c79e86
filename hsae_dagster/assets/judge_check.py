"""Examining a paid judge before it is paid for.

Belongs here: asking the questions of `core.judge_probes` about a dataset's own texts, and stopping a stage whose judge
gets too many of them wrong. Does not belong here: the questions, or what the stage asks afterwards (`assets.judging`).
"""

from collections.abc import Sequence

import numpy as np

from hsae_dagster.assets.stage import Stage
from hsae_dagster.core.concept import Concept
from hsae_dagster.core.judge_probes import RULES, Examination, Probes, examine, make_probes
from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.base import AnnotationTask, Annotator

AUTHOR = "rule"


def examination(texts: Sequence[str], count: int) -> tuple[Probes, AnnotationTask]:
    """Questions with known answers on some of the texts, and the task that asks them."""
    probes = make_probes(list(dict.fromkeys(texts)), count, np.random.default_rng([0, 17]))
    return probes, AnnotationTask([Concept(rule.predicate, AUTHOR) for rule in RULES], probes.texts)


def examine_judge(stage: Stage, annotator: Annotator, texts: Sequence[str]) -> Examination | None:
    """Put questions with known answers to the judge, stacked as the real ones are; None where none are to be asked.

    The ledger knows the answers of an earlier time, so that a judge is examined once.

    Raises:
        ProviderError: it gets fewer of them right than `judge.min_accuracy`, or cannot be asked.
    """
    from hsae_dagster.providers.openai_annotator import OpenAIAnnotator

    settings = stage.dataset.spec.judge
    if annotator.free or not settings.texts or not texts:
        return None
    probes, task = examination(texts, settings.texts)
    # An answer within a day would come too late to stop anything.
    judge = annotator.at_once() if isinstance(annotator, OpenAIAnnotator) else annotator
    answers = judge.annotate(task.concepts, task.texts, stage.report).answers
    found = examine(probes.truth, answers)
    said = (
        f"{found.right} of {found.asked} questions whose answers are known are answered rightly (yes where it is yes: "
        f"{found.sensitivity:.0%}, no where it is no: {found.specificity:.0%})"
    )
    stage.report(f"the judge is examined: {said}")
    if found.accuracy < settings.min_accuracy:
        worst, share = found.worst
        raise ProviderError(
            f"`annotation.model: {stage.dataset.spec.annotation.model}` is no reliable judge: {said}, worst of all "
            f"“{worst}” ({share:.0%}). That is {found.accuracy:.2f} on balance, below judge.min_accuracy "
            f"{settings.min_accuracy:g}; always saying the same makes 0.50. Choose another model, fewer "
            "annotation.concepts_per_call, or, if you know why, a lower judge.min_accuracy. Nothing else was asked."
        )
    return found
