"""The holdout: which rows of files that grew it admits, and what is tested on it, frozen before any text is judged."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Concept, Cue, Meaning, WordGroup, definition_of
from hsae_dagster.core.concepts.fidelity import MISSING, Fidelity
from hsae_dagster.core.concepts.words import SIGN_CUES, WORD_CUES, words_of
from hsae_dagster.core.corpus import Corpus, build_corpus, row_keys
from hsae_dagster.core.hypothesis import FoundConcept, NearDuplicate
from hsae_dagster.core.inference.plan import (
    AnalysisPlan,
    Look,
    PlannedTest,
    holdout_fingerprint,
    holdout_keys,
    level,
    training_weights,
)
from hsae_dagster.core.observations import Cuts, HoldoutDesign, SplitShares, holdout_design, sample_clusters, text_keys
from hsae_dagster.core.selection.stability import alpha_shares, rows_that_test, seen_from, views
from hsae_dagster.dataset.discovery import Dataset
from hsae_dagster.dataset.rows import Rows, check_labels, check_levels
from hsae_dagster.dataset.sections import OwnHypothesis
from hsae_dagster.dataset.spec import Annotation, DatasetSpec
from hsae_dagster.errors import DatasetError, MethodError
from hsae_dagster.keys import hash_json, set_fingerprint
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.storage.holdouts import Holdout, HoldoutRegister, Placed, SplitCuts
from hsae_dagster.storage.outputs import StoredCorpus, StoredEvaluation, StoredInterpretations, StoredMatrix


@dataclass(frozen=True)
class Admitted:
    """Rows that a corpus is made of.

    Attributes:
        rows: as read, those that wait left out, with their `round`.
        rounds: their keys and rounds (`storage.holdouts.ROUNDS_SCHEMA`).
        cuts: of an earlier corpus; None for the first.
        key: what the corpus depends on beside files and declaration; None for the first.
        waiting: rows that wait.
        said: what they wait for, in a sentence; empty where none does.
    """

    rows: Rows
    rounds: pl.DataFrame
    cuts: Cuts | None
    key: str | None
    waiting: int = 0
    said: str = ""

    def corpus(self, dataset: Dataset) -> Corpus:
        """The corpus of these rows; `auto` says why where it is not of two halves."""
        spec = dataset.spec
        if self.cuts:  # rows that are added do not change the design
            return self._placed(dataset, halves=self.cuts.two_halves)
        if spec.splits.design != "auto":
            return self._placed(dataset, halves=spec.splits.design == "two_halves")
        why = spec.why_one_holdout(self.rows.frame.height)
        if why is None:
            try:
                made = self._placed(dataset, halves=True)
                for view in views(made.observations):
                    check_levels(spec.selection, view)
                    check_labels(dataset, view)
                return made
            except MethodError as error:
                why = f"two halves cannot be made ({error})"
        return replace(self._placed(dataset, halves=False), one_holdout=why)

    def _placed(self, dataset: Dataset, *, halves: bool) -> Corpus:
        spec, splits = dataset.spec, dataset.spec.splits
        shares = SplitShares(
            splits.validation, spec.fidelity_share, splits.holdout, splits.salt, two_halves=halves, forward=spec.forward
        )
        rows, near, shared = self.rows, splits.near_texts, splits.shared_texts
        return build_corpus(rows.frame, shares, rows.dropped, near=near, shared_texts=shared, cuts=self.cuts)


def record_of(results: Path, dataset: Dataset) -> SplitCuts:
    """Where the dataset's record of rows and rounds lies."""
    spec = dataset.spec
    declared = {"columns": spec.columns.model_dump(mode="json"), "splits": placing_of(spec)}
    return SplitCuts(results, dataset.name, declared)


def placing_of(spec: DatasetSpec) -> dict[str, Any]:
    """What of `splits` decides where rows land."""
    declared = spec.splits.model_dump(mode="json", exclude={"reserve"})
    return declared | {"fidelity": spec.fidelity_share, "design": spec.design}


def admit(results: Path | None, dataset: Dataset, rows: Rows) -> Admitted:
    """Decide which rows are admitted, and in which round each came (all, without a results folder). Writes nothing."""
    frame = rows.frame.with_columns(row_keys(rows.frame))
    record = record_of(results, dataset).read() if results else None
    if record is None or results is None:
        return _admitted(rows, frame.with_columns(pl.lit(1, pl.Int64).alias("round")), None)
    frame = frame.join(record.rounds, on="key", how="left", maintain_order="left")
    new = int(frame["round"].null_count())
    now = int(frame["round"].max() or 1)  # type: ignore[arg-type]
    gone = record.rounds.filter(pl.col("round") <= now).height - (frame.height - new)
    # As many rows gone as came: texts were edited, or others put in their place. The register knows them again.
    edited = gone >= new or new == frame.height
    latest = record.latest(now)
    looked = latest is not None and HoldoutRegister(results).spent(latest.fingerprint) is not None
    if edited or not looked or rows.frame["declared_split"].null_count() == 0:
        return _admitted(rows, frame.with_columns(pl.col("round").fill_null(now)), record)
    opened = _admitted(rows, frame.with_columns(pl.col("round").fill_null(now + 1)), record)
    said = _not_yet(results, dataset, record, opened, new)
    if not said:
        return opened
    return _admitted(rows, frame.filter(pl.col("round").is_not_null()), record, new, said)


def level_of(results: Path, dataset: Dataset, round_: int) -> float:
    """Family-wise error that the report of a round may spend.

    Raises:
        MethodError: earlier reports have spent all of alpha.
    """
    settings = dataset.spec.inference
    found = level(
        settings.alpha, settings.first_report, round_, _spent(results, record_of(results, dataset).read(), round_)
    )
    if found > 0:
        return found
    raise MethodError(f"Dataset `{dataset.name}`: {_no_alpha(dataset)}")


def kept(holdout_round: int, observations: pl.DataFrame, texts: pl.DataFrame) -> Holdout:
    """The holdout of a corpus (its round, observations and texts), for the record."""
    held = rows_that_test(observations)
    keys = holdout_keys(held, texts.select("text_id", "text"))
    return Holdout(holdout_round, holdout_fingerprint(keys), held.height, held["cluster_id"].n_unique())


def _admitted(rows: Rows, frame: pl.DataFrame, record: Placed | None, waiting: int = 0, said: str = "") -> Admitted:
    rounds = frame.select("key", "round")
    key = None
    if record is not None:
        parts = [f"{key}{number:04x}" for key, number in rounds.iter_rows()]
        key = hash_json([asdict(record.cuts), set_fingerprint(parts, "rounds")])[:16]
    made = Rows(frame.drop("key"), rows.dropped, rows.classes, rows.percents)
    return Admitted(made, rounds, record.cuts if record else None, key, waiting, said)


def _not_yet(results: Path, dataset: Dataset, record: Placed, opened: Admitted, new: int) -> str:
    """Why the next round cannot be opened, in a sentence; empty where it can."""
    first, settings = record.latest(1), dataset.spec.inference
    now = int(opened.rounds["round"].max())  # type: ignore[arg-type]
    wait = f"{new:,} new rows wait and are not tested yet"
    if record.cuts.two_halves:
        return (
            f"{wait}: two halves test every row there was, and have no fresh reserve. Make a dataset of its own of the "
            "new rows; for the next dataset that grows, set splits.design to `holdout`."
        )
    if level(settings.alpha, settings.first_report, now, _spent(results, record, now)) <= 0:
        return f"{wait}: {_no_alpha(dataset)}"
    rows, clusters = _enough(dataset, first)
    wanted = f"{rows:,} of them" + (f", of {clusters:,} clusters," if clusters else "")
    wait += (
        f". When {wanted} share nothing with earlier rows they are tested together (splits.reserve sets another number)"
    )
    try:
        held = opened.corpus(dataset).observations.filter(pl.col("split") == "holdout")
    except MethodError as error:
        return f"{wait}. So far: {error}"
    found = held["cluster_id"].n_unique()
    so_far = f"{held.height:,} rows of {found:,} clusters do"
    return "" if held.height >= rows and found >= clusters else f"{wait}; so far {so_far}."


def _enough(dataset: Dataset, first: Holdout | None) -> tuple[int, int]:
    """Rows and clusters that a reserve needs."""
    if dataset.spec.splits.reserve is not None or first is None:
        return dataset.spec.splits.reserve or 1, 0
    sample = dataset.spec.annotation.holdout_sample or first.rows
    share = min(1.0, sample / first.rows)
    return min(first.rows, sample), int(first.clusters * share)


def _spent(results: Path, record: Placed | None, round_: int) -> float:
    """What reports of earlier rounds have spent."""
    register = HoldoutRegister(results)
    rounds: dict[int, float] = {}
    for one in record.holdouts if record else ():
        if one.round < round_:
            rounds[one.round] = max(rounds.get(one.round, 0.0), register.spent(one.fingerprint) or 0.0)
    return sum(rounds.values())


def _no_alpha(dataset: Dataset) -> str:
    return (
        f"earlier reports have spent all of alpha ({dataset.spec.inference.alpha:g}), so a further one could confirm "
        "nothing. Make a dataset of its own of the new rows; for the next dataset that grows, leave something for "
        "refreshes (inference.first_report below 1)."
    )


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
    observations = sample_clusters(observations, settings.holdout_sample, settings.seed)
    return observations, corpus.texts.filter(pl.col("text_id").is_in(text_keys(observations).implode()))


@dataclass(frozen=True)
class Part:
    """Hypotheses that are tested on the same rows, and what was judged there; texts in ascending order of their keys.

    Attributes:
        half: that the hypotheses were found in; empty for one holdout, and for the user's own.
        share: of alpha.
        texts: of the observations (text_id, text, split, cluster_id, n_words).
        answers: (texts, concepts) int8: 1 yes, 0 no, -1 missing.
        duplicates: that each concept stands for.
        distilled: what a probe judged in the model's place (`gold`); None where the model judged every text.
    """

    half: str
    share: float
    observations: pl.DataFrame
    texts: pl.DataFrame
    answers: np.ndarray
    concepts: list[FoundConcept]
    duplicates: list[tuple[NearDuplicate, ...]]
    distilled: pl.DataFrame | None
    task: str

    @cached_property
    def by_judge(self) -> np.ndarray:
        """`answers` without those of a probe, which are no evidence for anybody."""
        if self.distilled is None:
            return self.answers
        return np.where(self.distilled["probability"].is_not_null().to_numpy()[:, None], self.answers, MISSING)

    @cached_property
    def design(self) -> HoldoutDesign:
        """The design of their tests."""
        n_words = self.texts["n_words"].to_numpy()
        return holdout_design(self.answers, self.texts["text_id"], n_words, self.observations, self.task)


def no_fidelity() -> Fidelity:
    """The fidelity of a concept without a neuron: nothing was measured."""
    nan = float("nan")
    return Fidelity(0, nan, (nan, nan), nan, nan, nan, nan, nan, nan)


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
    from hsae_dagster.providers.registry import make_annotator

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
            "prompt": make_annotator(spec.annotation, asks=False).prompt_hash,
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
