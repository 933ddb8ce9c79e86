"""What is tested on a holdout: the concepts, and the plan that is frozen before any text is judged."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Concept, Cue, Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.fidelity import Fidelity
from hsae_dagster.core.concepts.words import SIGN_CUES, WORD_CUES, words_of
from hsae_dagster.core.hypothesis import FoundConcept
from hsae_dagster.core.inference.plan import (
    AnalysisPlan,
    Look,
    PlannedTest,
    holdout_fingerprint,
    holdout_keys,
    training_weights,
)
from hsae_dagster.core.observations import text_keys
from hsae_dagster.core.selection.stability import alpha_shares, rows_that_test, seen_from
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.sections import OwnHypothesis
from hsae_dagster.dataset.spec import Annotation
from hsae_dagster.errors import DatasetError
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.stages.rounds import level_of
from hsae_dagster.storage.holdouts import HoldoutRegister
from hsae_dagster.storage.outputs import StoredCorpus, StoredEvaluation, StoredInterpretations, StoredMatrix

AUTHOR = "you"
_DIRECTIONS = {"positive": 1.0, "negative": -1.0, None: 0.0}


def concepts_to_test(dataset: Dataset, interpretations: StoredInterpretations) -> list[FoundConcept]:
    """All concepts to judge and test, found ones first, then the user's.

    Raises:
        DatasetError: a term of a hypothesis of the user's that the lexical annotator cannot look for.
    """
    first = len(interpretations.concepts)
    own = (_own(dataset, own, first + i) for i, own in enumerate(dataset.spec.hypotheses))
    return [*interpretations.distinct, *own]


def holdout_texts(corpus: StoredCorpus, settings: Annotation) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(observations, texts) of the holdout, or of the declared sample of it; of halves, both test."""
    observations = rows_that_test(corpus.observations)
    observations = _sample_clusters(observations, settings.holdout_sample, settings.seed)
    return observations, corpus.texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))


def _sample_clusters(observations: pl.DataFrame, most: int | None, seed: int) -> pl.DataFrame:
    """Whole clusters in random order until the sample is reached; everything when none is asked for."""
    if most is None or observations.height <= most:
        return observations
    sizes = observations.group_by("cluster_id").len().sort("cluster_id")
    order = np.random.default_rng(seed).permutation(sizes.height)
    total = np.cumsum(sizes["len"].to_numpy()[order])
    taken = order[: int(np.searchsorted(total, most) + 1)]
    return observations.filter(pl.col("cluster_id").is_in(sizes["cluster_id"].to_numpy()[taken].tolist()))


def no_fidelity() -> Fidelity:
    """The fidelity of a concept without a neuron: nothing was measured."""
    nan, interval = float("nan"), (float("nan"), float("nan"))
    measures = dict.fromkeys(("recall", "false_positive_rate", "precision", "f1", "legacy_f1", "correlation"), nan)
    natural = dict.fromkeys(("natural_precision", "natural_recall", "natural_f1"), nan)
    counts = dict.fromkeys(("n_strong", "n_silent", "n_firing", "n_missing"), 0)
    intervals = {"recall_interval": interval, "false_positive_interval": interval}
    return Fidelity(**counts, **measures, **natural, **intervals)  # type: ignore[arg-type]


def check_own(dataset: Dataset) -> None:
    """Refuse, before any work, hypotheses of the user's that the annotator cannot look for.

    Raises:
        DatasetError: with the hypothesis and its term.
    """
    for own in dataset.spec.hypotheses:
        _own(dataset, own, 0)


def _own(dataset: Dataset, own: OwnHypothesis, rank: int) -> FoundConcept:
    lexical = dataset.spec.annotation.model == "lexical"
    definition = definition_of(_meaning(dataset.name, own)) if lexical else None
    return FoundConcept(
        rank=rank,
        column=None,
        sae_id="",
        sae_column=-1,
        score=float("nan"),
        train_separation=_DIRECTIONS[own.direction],
        concept=Concept(own.claim, AUTHOR, definition),
        bounds=(0.5, None),
        own=True,
    )


def _meaning(dataset: str, own: OwnHypothesis) -> Meaning:
    """Any of the terms; or a style cue, where that is the one term.

    Raises:
        DatasetError: a term has no word, or a cue stands beside other terms.
    """
    cues = [term for term in own.terms if term in {**WORD_CUES, **SIGN_CUES}]
    if cues and len(own.terms) == 1:
        return Cue(cues[0])
    if cues:
        raise DatasetError(
            f"Dataset `{dataset}`: hypotheses, “{own.claim}”: the style cue `{cues[0]}` stands beside other terms, and "
            "a claim is either one cue or a list of words. Make it a hypothesis of its own."
        )
    return WordGroup(tuple(dict.fromkeys(_term(dataset, own.claim, term) for term in own.terms)))


def _term(dataset: str, claim: str, term: str) -> str:
    """The term as it is looked for: its words in lower case, which must stand in one sentence."""
    words = words_of(term)
    if words and None not in words:
        return " ".join(word for word in words if word)
    why = "reaches across a sentence's end" if words else "has no word"
    raise DatasetError(
        f"Dataset `{dataset}`: hypotheses, “{claim}”: the term `{term}` {why}, so no text can be searched for it. "
        f"Write one or several neighbouring words, or one style cue ({', '.join([*WORD_CUES, *SIGN_CUES])})."
    )


def freeze_plan(stage: Stage, corpus: StoredCorpus, concepts: Sequence[FoundConcept]) -> AnalysisPlan:
    """Write down what the holdout will be asked, before anything judges its texts."""
    plan, keys = _plan(stage, corpus, concepts)
    HoldoutRegister(stage.project.results).freeze(plan, keys)
    return plan


def open_look(
    stage: Stage, corpus: StoredCorpus, concepts: Sequence[FoundConcept], matrix: StoredMatrix
) -> tuple[AnalysisPlan, Look]:
    """Count the evaluation that is about to be made, and learn what earlier looks tested."""
    plan = freeze_plan(stage, corpus, concepts)
    judged_under = matrix.plan["fingerprint"] if matrix.plan else None
    look = HoldoutRegister(stage.project.results).look(plan, dataset=stage.dataset.name, judged_under=judged_under)
    if look.number > 1:
        stage.report(f"look {look.number} at this holdout: what earlier looks tested counts into the family")
    return plan, look


def keep_look(stage: Stage, plan: AnalysisPlan, evaluation: StoredEvaluation) -> None:
    """Record the p-values of a look, for the family of later ones."""
    frame = evaluation.hypotheses
    twins = frame.filter(pl.col("twin_test_key") != "")
    p_values = dict(frame.select("test_key", "p_one_sided").iter_rows())
    p_values |= dict(twins.select("twin_test_key", "twin_p_one_sided").iter_rows())
    HoldoutRegister(stage.project.results).keep(plan, p_values)


def _plan(stage: Stage, corpus: StoredCorpus, concepts: Sequence[FoundConcept]) -> tuple[AnalysisPlan, pl.DataFrame]:
    spec = stage.dataset.spec
    observations = corpus.observations
    keys = holdout_keys(rows_that_test(observations), corpus.texts.select("text_id", "text"))
    halves = "half" in observations.columns
    round_ = corpus.summary["round"]
    level = level_of(stage.project.results, stage.dataset, round_)
    weights = _weights(stage, observations, concepts, level)
    tests = tuple(
        PlannedTest(
            concept_id=concept.concept_id,
            claim=concept.claim,
            source=concept.source,
            direction=int(np.sign(concept.train_separation)),
            weight=weight,
            half=concept.half,
        )
        for concept, weight in zip(concepts, weights, strict=True)
    )
    plan = AnalysisPlan(
        holdout=holdout_fingerprint(keys),
        tests=tests,
        annotation={
            **spec.annotation.model_dump(
                mode="json", include={"model", "holdout_sample", "concepts_per_call", "max_words", "seed"}
            ),
            **({"distil": spec.annotation.distil.sample} if spec.annotation.distil else {}),
            "prompt": _prompt_hash(spec.annotation),
        },
        model={
            "task": spec.task,
            "effect": "separation, cluster-robust",
            "test": spec.inference.test,
            **({"design": "two halves"} if halves else {}),
            **spec.columns.model_dump(mode="json", include={"label", "positive", "cluster_by", "controls"}),
        },
        gates={
            **spec.inference.model_dump(mode="json", include={"alpha", "min_positives", "same_concept"}),
            "round": round_,
            "level": level,
        },
    )
    return plan, keys


def shares_of(stage: Stage, *, halves: bool) -> dict[str, float]:
    """Share of the report's level of the claims found in each half, and of the user's own."""
    spec = stage.dataset.spec
    return alpha_shares(halves=halves, own=len(spec.hypotheses), wanted=2 * spec.selection.n)


def _weights(stage: Stage, observations: pl.DataFrame, concepts: Sequence[FoundConcept], level: float) -> list[float]:
    """Weights of Holm's correction by what training texts showed, to three decimals; 1 where they showed nothing."""
    z = np.array([concept.train_z for concept in concepts], dtype=np.float64)
    weights = np.ones(len(concepts))
    for half, share in shares_of(stage, halves="half" in observations.columns).items():
        own = np.array([concept.half == half for concept in concepts], dtype=bool)
        learned = seen_from(half, observations) if half else observations
        n_train = int((learned["split"] == "train").sum())
        ratio = float(np.sqrt(rows_that_test(observations, half).height / max(n_train, 1)))
        weights[own] = training_weights(z[own], ratio, share * level)
    return [round(float(weight), 3) for weight in weights]


def _prompt_hash(annotation: Annotation) -> str | None:
    """Hash of the prompt that judges, where a prompt does."""
    from hsae_dagster.providers.registry import make_annotator

    return make_annotator(annotation, asks=False).prompt_hash
