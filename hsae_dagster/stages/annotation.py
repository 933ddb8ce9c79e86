"""Every concept judged on every holdout text: which texts, by whom, and what was answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Concept
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.sections import MANNER
from hsae_dagster.errors import MethodError
from hsae_dagster.extensions import own_sources
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.providers.registry import ANNOTATORS
from hsae_dagster.stages import gold, judging
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.holdout import concepts_to_test, freeze_plan, holdout_texts
from hsae_dagster.storage.objects import ObjectStore
from hsae_dagster.storage.outputs import (
    Output,
    StoredActivations,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredMatrix,
    lacking,
)

NAME = "annotation_matrix"
CODE_VERSION = "7"


def config_of(dataset: Dataset) -> dict[str, Any]:
    """What of a dataset's folder the stage reads beside its files."""
    spec = dataset.spec
    config = spec.annotation.model_dump(mode="json", exclude={"min_agreement": True, "max_missing": True, **MANNER})
    config |= own_sources(spec, ANNOTATORS)
    if spec.judge.second is not None:
        config["judge"] = spec.judge.model_dump(mode="json", include={"second", "second_texts"})
        config["judge"] |= {"url": spec.judge.second_server.url, **ANNOTATORS.sources(spec.judge.second)}
    if spec.judge.examples:
        config["examples"] = [spec.judge.examples, gold.gold_hash(dataset.folder)]
    if spec.hypotheses:
        config["hypotheses"] = [own.model_dump(mode="json", include={"claim", "terms"}) for own in spec.hypotheses]
    return config


@dataclass(frozen=True)
class Upstream:
    """What the stage reads: vectors and activations only for the draw and the probe of `annotation.distil`."""

    corpus: StoredCorpus
    interpretations: StoredInterpretations
    embeddings: StoredEmbeddings | None = None
    activations: StoredActivations | None = None

    @staticmethod
    def current(store: ObjectStore, dataset: Dataset) -> "Upstream":
        """The current ones of a dataset.

        Raises:
            StorageError: one was never materialized, or is damaged.
        """
        kinds: tuple[type[Output], ...] = (StoredCorpus, StoredInterpretations)
        if dataset.spec.annotation.distil:
            kinds += (StoredEmbeddings, StoredActivations)
        return Upstream(*(kind.current(store, dataset.name) for kind in kinds))  # type: ignore[arg-type]

    @property
    def outputs(self) -> list[Output]:
        """Those that are read."""
        return [output for output in vars(self).values() if output is not None]

    def firing(self, concepts: Sequence[FoundConcept], texts: pl.DataFrame) -> np.ndarray | None:
        """(texts, neurons) activations of the concepts' neurons; None where every text is judged."""
        return gold.firing_of(self.activations, concepts, texts) if self.activations else None


def judge_holdout(stage: Stage, upstream: Upstream, folder: Path) -> None:
    """Every concept judged on every holdout text, the plan written down before any of them is read."""
    from hsae_dagster.providers.registry import make_annotator

    corpus, interpretations = upstream.corpus, upstream.interpretations
    settings = stage.dataset.spec.annotation
    testing = concepts_to_test(stage.dataset, interpretations)
    phrased = stage.dataset.spec.interpretation.model != "lexical"
    if not testing and phrased and interpretations.concepts:
        raise MethodError(
            f"Dataset `{stage.dataset.name}`: no selected neuron has a readable concept, so there is nothing to judge. "
            "Try smaller autoencoders (`saes`), more candidates, or another interpretation.model."
        )
    if not testing:
        stage.report("nothing found: there is no claim to judge")
    if said := gold.check_gold(stage.dataset, interpretations, corpus):
        stage.report(said)
    # Before any holdout text is read: what will be asked of it is written down for good.
    plan = freeze_plan(stage, corpus, testing)
    concepts = distinct_concepts(testing)
    observations, texts = holdout_texts(corpus, settings)
    firing = upstream.firing(testing, texts)
    sample = gold.texts_to_ask(stage.dataset, texts, firing)
    asked = texts[sample.rows]
    account = judging.account_of(stage)
    shown = gold.draw_shown(stage.dataset, concepts, texts)
    examples = gold.labelled(shown, concepts, texts)
    annotator = make_annotator(settings, account, closeness=UnitCloseness.of(stage, corpus), examples=examples)
    single = make_annotator(settings.model_copy(update={"concepts_per_call": 1}), account, examples=examples)
    estimate = judging.estimate_annotation(
        annotator, concepts, asked["text"].to_list(), stage.dataset.spec, account, examples
    )
    if shown:
        stage.report(f"{sum(map(len, shown.values())):,} labels of gold.csv are shown to the judge and check nothing")
    if asked.height < texts.height:
        stage.report(gold.in_words(asked.height, texts.height))
    judging.announce(stage, account, estimate)
    if offer := gold.gold_offer(stage.dataset):
        stage.report(offer)
    everything = judging.Judging(concepts, asked["text_id"].to_list(), asked["text"].to_list())
    judgement = judging.judge_all(stage, annotator, [everything])[0]
    calibration = judging.agreement(stage, annotator, single, everything, judgement.answers)
    second = judging.second_opinion(stage, account, everything, judgement.answers, examples)
    answers, probe, distilled = judgement.answers, None, None
    if firing is not None and upstream.embeddings:
        answers, distilled = gold.label_the_rest(
            stage.dataset, upstream.embeddings, corpus.places, testing, texts, sample, firing, answers
        )
        probe = gold.agreement_of_probe(distilled, answers, [concept.concept_id for concept in concepts])
    columns = {
        concept.concept_id: pl.Series(answers[:, j]).replace_strict({1: True, 0: False}, default=None)
        for j, concept in enumerate(concepts)
    }
    summary = {
        "model": settings.model,
        "prompt_hash": annotator.prompt_hash,
        "calls": judgement.calls,
        "cost_usd": judgement.cost_usd,
        "second judge": second,
        "examples": shown,
        "calibration": calibration,
        "claims": {concept.concept_id: concept.predicate for concept in concepts},
        "observations": observations.height,
        "texts judged": asked.height,
        "probe": probe,
    }
    StoredMatrix.write(
        folder,
        annotations=pl.DataFrame({"text_id": texts["text_id"], **columns}),
        missing=judgement.missing,
        observations=observations,
        summary=summary,
        plan={"fingerprint": plan.fingerprint, "holdout": plan.holdout},
        distilled=distilled,
        spending=judging.account_summary(account, estimate),
        incomplete=lacking(judgement.faults),
    )


def distinct_concepts(concepts: Sequence[FoundConcept]) -> list[Concept]:
    """The concepts to judge; those that both halves found are judged once."""
    return list({found.concept_id: found.said for found in concepts}.values())
