"""The evaluation of one dataset: from annotations and labels to `ReportContent`.

Belongs here: reading what the tests need and calling core. Does not belong here: the asset itself
(`assets.evaluation_report`) or any formula (core).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from hsae_dagster.assets.closeness import UnitCloseness
from hsae_dagster.assets.concepts_to_test import concepts_to_test, is_own, no_fidelity
from hsae_dagster.assets.covariates import effects_by_subgroup, with_subgroups
from hsae_dagster.assets.distilling import corrected_tests, read_distilled
from hsae_dagster.assets.gold import Judged, annotation_errors
from hsae_dagster.assets.identity import Identity
from hsae_dagster.assets.ladder import neuron_features, observed, word_features
from hsae_dagster.assets.near_neurons import read_families
from hsae_dagster.assets.negative_controls import run_negative_controls
from hsae_dagster.assets.size_choice import read_choice
from hsae_dagster.assets.stage import Stage
from hsae_dagster.assets.text_units import StrongestUnits
from hsae_dagster.core import joint_fit, ladder
from hsae_dagster.core.analysis_plan import AnalysisPlan, Look
from hsae_dagster.core.annotation_error import AnnotationError
from hsae_dagster.core.badges import Judge, verdict
from hsae_dagster.core.decision import Decision, decide
from hsae_dagster.core.evidence import gather_evidence
from hsae_dagster.core.fidelity import MISSING, Fidelity, column
from hsae_dagster.core.histogram import activation_histogram
from hsae_dagster.core.hypothesis import Hypothesis, NearDuplicate
from hsae_dagster.core.inference import HoldoutDesign, HypothesisTest, reversed_by_controls, test_hypotheses
from hsae_dagster.core.observations import holdout_design, outcome_per_text, text_rows
from hsae_dagster.core.power import minimum_detectable_effect
from hsae_dagster.core.redundancy import families
from hsae_dagster.report.content import Guided, ReportContent, SplitCount
from hsae_dagster.storage.frames import read_codes, read_frame
from hsae_dagster.storage.objects import StoredObject

UPSTREAM = (
    "corpus",
    "embeddings",
    "sae_checkpoints",
    "activations",
    "selected_neurons",
    "interpretations",
    "annotation_matrix",
)
_BADGE_ORDER = {"confirmed": 0, "confirmed, judge unchecked": 1, "suggestive": 2, "not supported": 3, "invalid": 4}


@dataclass(frozen=True)
class _Inputs:
    """Tables the evaluation reads, texts in ascending order of their ids."""

    texts: pl.DataFrame
    observations: pl.DataFrame
    holdout: pl.DataFrame
    judged: pl.DataFrame
    answers: np.ndarray
    records: list[dict[str, Any]]
    duplicates: list[tuple[NearDuplicate, ...]]
    distilled: pl.DataFrame | None

    @property
    def by_judge(self) -> np.ndarray:
        """`answers` without those of a probe, which are no evidence for anybody."""
        if self.distilled is None:
            return self.answers
        return np.where(self.distilled["probability"].is_not_null().to_numpy()[:, None], self.answers, MISSING)

    def judged_for(self, design: HoldoutDesign) -> Judged:
        """What the judge said, for the correction by gold labels."""
        names = [(record["concept"]["concept_id"], record["concept"]["predicate"]) for record in self.records]
        return Judged(self.judged["text_id"], self.answers, self.holdout, design, names)


def evaluate(
    stage: Stage,
    upstream: dict[str, StoredObject],
    run_id: str,
    plan: AnalysisPlan,
    look: Look,
    identities: Mapping[str, Identity],
) -> ReportContent:
    """Test every readable hypothesis on the holdout and measure the joint fit between floor and ceiling.

    `identities` gives the hypothesis of each concept, by concept id.
    """
    spec = stage.dataset.spec
    inputs = _read(stage, upstream)
    stage.report(f"testing {len(inputs.records)} hypotheses on {inputs.holdout.height:,} holdout observations")
    design = holdout_design(
        inputs.answers, inputs.judged["text_id"], inputs.judged["n_words"].to_numpy(), inputs.holdout, spec.task
    )
    tests = test_hypotheses(design, min_positives=spec.inference.min_positives)
    keys = [plan.test_key(record["concept"]["concept_id"]) for record in inputs.records]
    errors = annotation_errors(stage.dataset.name, stage.dataset.folder, spec.inference, inputs.judged_for(design))
    if inputs.distilled is not None:
        tests, errors = corrected_tests(tests, errors, inputs.judged_for(design), inputs.distilled)
    planned = {test.concept_id: test for test in plan.tests}
    frozen = [planned[record["concept"]["concept_id"]] for record in inputs.records]
    ranks, alpha = spec.inference.test == "rank", plan.level
    decided = decide(tests, errors, frozen, keys, look, alpha, ranks=ranks)
    hypotheses = _hypotheses(stage, upstream, inputs, tests, keys, decided, identities, errors, look, alpha)
    if spec.selection.interactions or spec.selection.within:
        column_of = {record["rank"]: j for j, record in enumerate(inputs.records)}
        subgroups = effects_by_subgroup(spec, inputs.holdout, design)
        hypotheses = tuple(with_subgroups(h, subgroups[column_of[h.rank]], alpha) for h in hypotheses)
    fits, chance = _fits(stage, upstream, inputs, design)
    summary = upstream["corpus"].json("summary.json")
    return ReportContent(
        dataset=stage.dataset.name,
        description=spec.description,
        task=spec.task,
        outcome=spec.outcome_name,
        cluster=spec.cluster_name,
        outcome_mean=float(design.outcome.mean()),
        splits=tuple(SplitCount(**split) for split in summary["splits"]),
        dropped=summary["dropped"],
        hypotheses=hypotheses,
        unreadable=tuple(
            (record["rank"], record["sae_id"], record["sae_column"], record["unreadable"])
            for record in upstream["interpretations"].json("concepts.json")
            if record["concept"] is None
        ),
        fits=fits,
        floor=chance,
        guidance=_guidance(upstream["sae_checkpoints"]),
        sizes=read_choice(upstream["sae_checkpoints"]),
        alpha=alpha,
        round=summary["round"],
        bonferroni=decided.family.bonferroni,
        settings=spec.model_dump(mode="json"),
        versions={name: stored.data_version for name, stored in upstream.items()},
        run_id=run_id,
        look=look,
        family=decided.family.size,
        negative_controls=run_negative_controls(stage, upstream, inputs.holdout, design, alpha),
    )


def _read(stage: Stage, upstream: dict[str, StoredObject]) -> _Inputs:
    corpus, matrix = upstream["corpus"], upstream["annotation_matrix"]
    texts = read_frame(corpus.file("texts.parquet"))
    records = concepts_to_test(stage.dataset, upstream["interpretations"])
    annotations = read_frame(matrix.file("annotations.parquet"))
    judged = annotations.select("text_id").join(texts, on="text_id", how="left", maintain_order="left")
    columns = [record["concept"]["concept_id"] for record in records]
    answers = annotations.select(pl.col(columns).cast(pl.Int8).fill_null(-1)).to_numpy().astype(np.int8)
    answers = answers.reshape(annotations.height, len(columns))  # no columns are no rows to polars
    # What the user brings is tested whatever it is like.
    n_found = sum(not is_own(record) for record in records)
    claims = [record["concept"]["predicate"] for record in records[:n_found]]
    kept = families(answers[:, :n_found], claims, stage.dataset.spec.inference.same_concept)
    kept |= {j: () for j in range(n_found, len(records))}
    return _Inputs(
        texts=texts,
        observations=read_frame(corpus.file("observations.parquet")),
        holdout=read_frame(matrix.file("observations.parquet")),
        judged=judged,
        answers=answers[:, list(kept)],
        records=[records[j] for j in kept],
        duplicates=[tuple(_duplicate(records[m.position], m.phi) for m in members) for members in kept.values()],
        distilled=read_distilled(matrix),
    )


def _duplicate(record: dict[str, Any], phi: float) -> NearDuplicate:
    return NearDuplicate(record["concept"]["predicate"], record["concept"]["concept_id"], record["rank"], phi)


def _hypotheses(
    stage: Stage,
    upstream: dict[str, StoredObject],
    inputs: _Inputs,
    tests: list[HypothesisTest],
    keys: list[str],
    decided: Decision,
    identities: Mapping[str, Identity],
    errors: list[AnnotationError],
    look: Look,
    alpha: float,
) -> tuple[Hypothesis, ...]:
    family = decided.family
    stability, again = _stability(upstream["selected_neurons"]), _found_again(upstream["selected_neurons"])
    near_copies = read_families(upstream["selected_neurons"], upstream["activations"])
    ids = read_frame(upstream["activations"].file("texts.parquet"))["text_id"]
    codes = read_codes(upstream["activations"].file("codes.safetensors"))[text_rows(ids, inputs.judged["text_id"])]
    by_neuron = codes.tocsc()
    units = StrongestUnits.of(upstream, inputs.judged["text_id"])
    closeness = UnitCloseness.of(stage, upstream["corpus"])
    outcomes = outcome_per_text(inputs.judged["text_id"], inputs.holdout)
    made = []
    for j, (record, test) in enumerate(zip(inputs.records, tests, strict=True)):
        fidelity = _fidelity(record["fidelity"]) if record["fidelity"] else no_fidelity()
        no_neuron = record["column"] is None
        found = verdict(
            p_holm=float(family.p_holm[j]),
            q_value=float(family.q_value[j]),
            alpha=alpha,
            estimate=test.separation.estimate,
            expected_sign=record["train_separation"],
            untestable=test.flags[0] if not np.isfinite(test.separation.p_value) and test.flags else None,
            reversed_by_controls=reversed_by_controls(test.separation, test.adjusted),
            p_against=float(decided.p_against[j]),
            overturned=bool(not decided.p_worst[j] < alpha),
            judge=_judge(stage.dataset.spec.annotation.model, checked=bool(decided.checked[j])),
            first_look=look.number == 1,
        )
        has = inputs.answers[:, j] == 1
        activation = has.astype(np.float64) if no_neuron else column(by_neuron, record["column"])
        strong = record["bounds"][0] if record["bounds"][0] is not None else np.inf
        evidence = gather_evidence(
            record["concept"]["definition"],
            inputs.judged,
            inputs.by_judge[:, j],
            activation,
            strong,
            outcomes,
            test.separation.estimate,
            closeness=closeness,
            unit_of=lambda row, c=record["column"]: units.strongest(row, c),  # type: ignore[misc]
        )
        made.append(
            Hypothesis(
                hypothesis_id=identities[record["concept"]["concept_id"]].hypothesis_id,
                rank=record["rank"],
                claim=record["concept"]["predicate"],
                concept_id=record["concept"]["concept_id"],
                sae_id=record["sae_id"],
                sae_column=record["sae_column"],
                selection_score=record["score"],
                train_separation=record["train_separation"],
                test=test,
                p_holm=float(family.p_holm[j]),
                q_value=float(family.q_value[j]),
                fidelity=fidelity,
                badge=found.badge,
                reason=found.reason,
                evidence=evidence,
                activations=None if no_neuron else activation_histogram(activation, inputs.answers[:, j], strong),
                rule=found.rule,
                p_one_sided=float(decided.p_one_sided[j]),
                decided_by=decided.basis[j],
                source=record["source"],
                made_from=record.get("from", ""),
                title=record["concept"]["details"].get("title", record["concept"]["predicate"]),
                annotation_error=errors[j],
                test_key=keys[j],
                duplicates=inputs.duplicates[j],
                near_copies=near_copies.get(record["column"], ()),
                stability=stability.get(record["column"], np.nan),
                found_in=again.get(record["column"], (0, 0))[0],
                other_seeds=again.get(record["column"], (0, 0))[1],
                detectable=minimum_detectable_effect(
                    test.separation.standard_error,
                    test.separation.degrees_of_freedom,
                    # A frozen direction is tested on one side: twice the level of a two-sided test.
                    (2 if record["train_separation"] else 1) * alpha / max(family.size, 1),
                ),
            )
        )
    return tuple(sorted(made, key=lambda h: (_BADGE_ORDER[h.badge], -abs(np.nan_to_num(h.test.separation.estimate)))))


def _judge(model: str, *, checked: bool) -> Judge:
    """Words are found without error; a model errs until labels of people have corrected it."""
    return "exact" if model == "lexical" else "gold" if checked else "unchecked"


def _guidance(checkpoints: StoredObject) -> dict[str, Guided]:
    """How the label guided each autoencoder; those from before there was guidance were not guided."""
    found = {}
    for record in checkpoints.json("saes.json"):
        config = record["config"]
        neurons = config.get("head_neurons") or config["m"]
        found[record["sae_id"]] = Guided(float(config.get("label_weight", 0.0)), neurons, config["m"])
    return found


def _stability(selected: StoredObject) -> dict[int, float]:
    """Selection frequency by the neuron's column."""
    frame = read_frame(selected.file("neurons.parquet"))
    return dict(frame.select("column", pl.col("selection_frequency").fill_null(np.nan)).iter_rows())


def _found_again(selected: StoredObject) -> dict[int, tuple[int, int]]:
    """In how many of how many other seeds a selected neuron was found, by its column."""
    frame = read_frame(selected.file("neurons.parquet")).select("column", "found_in", "other_seeds")
    return {column: (found_in, others) for column, found_in, others in frame.iter_rows()}


def _fidelity(record: dict[str, Any]) -> Fidelity:
    intervals = {name: tuple(value) for name, value in record.items() if name.endswith("_interval")}
    return Fidelity(**{**record, **intervals})


def _fits(
    stage: Stage, upstream: dict[str, StoredObject], inputs: _Inputs, design: HoldoutDesign
) -> tuple[tuple[joint_fit.Fit, ...], tuple[float, float]]:
    """The ladder: what can be predicted at all, what the neurons keep of it, what the concepts in words keep."""
    settings, task = stage.dataset.spec.inference, stage.dataset.spec.task
    scorer = joint_fit.Score(task, design.clusters, settings.bootstrap, settings.seed)
    ids, learn = inputs.texts["text_id"], inputs.observations.filter(pl.col("split") != "holdout")
    selected = read_frame(upstream["selected_neurons"].file("neurons.parquet"))["column"].to_numpy()
    features = neuron_features(stage, upstream["activations"], selected, ids) | word_features(inputs.texts)
    names = (ladder.EMBEDDINGS, ladder.WORDS, ladder.ALL_NEURONS, ladder.SELECTED, ladder.FIRED)
    features = {name: features[name] for name in names if name in features}
    rows, held_out = (observed(features, ids, part) for part in (learn, inputs.holdout))
    fits = ladder.measure_rungs(rows, held_out, scorer, lambda name: stage.report(f"fit of {name}"))
    concepts = np.nan_to_num(design.concepts)
    folded = {"folds": settings.folds, "seed": settings.seed}
    beside = []
    for name, x in ((ladder.CONCEPTS, concepts), (ladder.CONTROLS, design.controls)):
        predicted = joint_fit.cross_fitted(x, design.outcome, design.clusters, task, **folded)
        beside.append(scorer.fit(name, "cross-fitted", design.outcome, predicted))
    return (*fits, *beside), ladder.chance_level(concepts, held_out, task, **folded)
