"""The evaluation of one dataset: from annotations and labels to `ReportContent`, with negative controls."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.concepts.choice import MOST_ALIKE
from hsae_dagster.core.concepts.fidelity import column
from hsae_dagster.core.hypothesis import (
    Hypothesis,
    Judge,
    NearDuplicate,
    Twin,
    activation_histogram,
    gather_evidence,
    minimum_detectable_effect,
    verdict,
)
from hsae_dagster.core.inference import joint_fit
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.effects import HypothesisTest, reversed_by_controls, test_hypotheses
from hsae_dagster.core.inference.plan import AnalysisPlan, Decision, Family, Look, decide
from hsae_dagster.core.observations import (
    HoldoutDesign,
    observation_matrix,
    outcome_per_text,
    text_keys,
)
from hsae_dagster.core.selection import stability
from hsae_dagster.orchestration.stage import Stage
from hsae_dagster.report.content import ReportContent, SplitCount
from hsae_dagster.stages import selection
from hsae_dagster.stages.claims import UnitCloseness
from hsae_dagster.stages.gold import annotation_errors, corrected_tests
from hsae_dagster.stages.holdout import Part, concepts_to_test, no_fidelity, shares_of
from hsae_dagster.stages.publishing import Identity
from hsae_dagster.stages.sizes import read_choice
from hsae_dagster.storage.outputs import (
    Output,
    StoredActivations,
    StoredCheckpoints,
    StoredCorpus,
    StoredEmbeddings,
    StoredInterpretations,
    StoredMatrix,
    StoredSelection,
    StrongestUnits,
)


@dataclass(frozen=True)
class Upstream:
    """What an evaluation reads, in the order of the stages."""

    corpus: StoredCorpus
    embeddings: StoredEmbeddings
    checkpoints: StoredCheckpoints
    activations: StoredActivations
    selected: StoredSelection
    interpretations: StoredInterpretations
    matrix: StoredMatrix

    @staticmethod
    def current(stage: Stage) -> "Upstream":
        """The current ones: the large ones unread until there is anything to do (`verify`)."""
        large = (StoredEmbeddings, StoredCheckpoints, StoredActivations, StoredSelection)
        return Upstream(*(stage.pointed(kind) if kind in large else stage.upstream(kind) for kind in UPSTREAM))

    @property
    def outputs(self) -> list[Output]:
        """All of it."""
        return list(vars(self).values())


UPSTREAM: tuple[Any, ...] = tuple(part.type for part in fields(Upstream))


def run_negative_controls(
    stage: Stage, upstream: Upstream, parts: Sequence[Part], alpha: float
) -> tuple[stability.NegativeControl, ...]:
    """All controls, or none where `inference.negative_controls` is 0; of halves, a run is one of both."""
    spec = stage.dataset.spec
    runs = spec.inference.negative_controls
    if runs == 0:
        return ()
    stage.report("negative controls: permuted labels and random neurons")
    rng = np.random.default_rng([spec.inference.seed, 1])
    of_side = {side.half: side for side in upstream.corpus.sides}
    found: list[list[stability.NegativeControl]] = []
    for part in parts:
        selected = upstream.selected.columns(part.half)
        rule = stability.Rule(
            task=spec.task,
            method=spec.selection.method,
            n_select=len(selected) or spec.selection.n,
            alpha=part.share * alpha,
            min_positives=spec.inference.min_positives,
        )
        if part.half not in of_side:  # nothing was learned for the user's own claims
            found.append([stability.permuted_concepts(part.design, rule, 4 * runs, rng)])
            continue
        codes, ids = upstream.activations.of_half(part.half), upstream.activations.text_ids
        train = _rows(codes, ids, of_side[part.half].observations.filter(pl.col("split") == "train"))
        design = part.design
        tested = replace(_rows(codes, ids, part.observations), clusters=design.clusters, units=design.units)
        found.append(
            [
                stability.permuted_labels(train, tested, rule, runs, rng),
                stability.permuted_concepts(part.design, rule, 4 * runs, rng),
                stability.random_neurons(train, tested, selected, rule, rng),
            ]
        )
    names = dict.fromkeys(control.name for own in found for control in own)
    return tuple(stability.together([c for own in found for c in own if c.name == name]) for name in names)


def _rows(codes: sp.csr_matrix, ids: pl.Series, observations: pl.DataFrame) -> stability.Rows:
    fires = codes.copy()
    fires.data = np.ones(len(codes.data))
    return stability.Rows(
        codes=sp.csr_matrix(observation_matrix(codes, ids, observations)),
        fires=sp.csr_matrix(observation_matrix(fires, ids, observations)),
        outcome=observations["label"].to_numpy(),
        clusters=observations["cluster_id"].to_numpy(),
    )


_BADGE_ORDER = {"confirmed": 0, "confirmed, judge unchecked": 1, "suggestive": 2, "not supported": 3, "invalid": 4}


def evaluate(
    stage: Stage,
    upstream: Upstream,
    run_id: str,
    plan: AnalysisPlan,
    look: Look,
    identities: Mapping[str, Identity],
) -> ReportContent:
    """Test every readable hypothesis on the holdout and measure the joint fit between floor and ceiling.

    `identities` gives the hypothesis of each concept, by concept id.
    """
    spec = stage.dataset.spec
    parts = _read(stage, upstream)
    rows = upstream.matrix.observations
    stage.report(f"testing {sum(len(part.concepts) for part in parts)} hypotheses on {rows.height:,} observations")
    errors = annotation_errors(stage.dataset, parts, upstream.matrix.summary["examples"])
    made: dict[str, tuple[Hypothesis, ...]] = {}
    corrections: list[Family] = []
    for part, known in zip(parts, errors, strict=True):
        made[part.half], family = _tested(stage, upstream, part, known, plan, look, identities)
        corrections.append(family)
    hypotheses = _joined(made, upstream.matrix, spec.inference.same_concept)
    fits, chance = _fits(stage, upstream, parts)
    controls = run_negative_controls(stage, upstream, parts, plan.level)
    summary = upstream.corpus.summary
    return ReportContent(
        dataset=stage.dataset.name,
        description=spec.description,
        task=spec.task,
        outcome=spec.outcome_name,
        cluster=spec.cluster_name,
        outcome_mean=float(rows["label"].mean()),  # type: ignore[arg-type]
        splits=tuple(SplitCount(**split) for split in summary["splits"]),
        dropped=summary["dropped"],
        hypotheses=hypotheses,
        unreadable=tuple(
            (found.rank, found.sae_id, found.sae_column, found.unreadable or "")
            for found in upstream.interpretations.concepts
            if found.concept is None
        ),
        fits=fits,
        floor=chance,
        guidance={record["sae_id"]: record["config"]["label_weight"] for record in upstream.checkpoints.records},
        sizes=read_choice(upstream.checkpoints),
        alpha=plan.level,
        round=summary["round"],
        bonferroni=sum(family.bonferroni for family in corrections),
        settings=spec.model_dump(mode="json"),
        versions={output.asset: output.stored.data_version for output in upstream.outputs},
        run_id=run_id,
        look=look,
        different=different_findings(hypotheses, upstream.matrix.annotations),
        # Every part counts the same tests of earlier looks.
        family=sum(family.size - family.earlier for family in corrections) + corrections[0].earlier,
        negative_controls=controls,
    )


def _tested(
    stage: Stage,
    upstream: Upstream,
    part: Part,
    errors: list[AnnotationError],
    plan: AnalysisPlan,
    look: Look,
    identities: Mapping[str, Identity],
) -> tuple[tuple[Hypothesis, ...], Family]:
    """Hypotheses of one part, and their correction."""
    spec = stage.dataset.spec
    tests = test_hypotheses(part.design, min_positives=spec.inference.min_positives) if part.concepts else []
    if part.distilled is not None:
        tests, errors = corrected_tests(tests, errors, part, part.distilled)
    keys = [plan.test_key(concept.concept_id, part.half) for concept in part.concepts]
    planned = {(test.half, test.concept_id): test for test in plan.tests}
    frozen = [planned[part.half, concept.concept_id] for concept in part.concepts]
    decided = decide(
        tests,
        errors,
        frozen,
        keys,
        look,
        plan.level,
        ranks=spec.inference.test == "rank",
        share=part.share,
        plan=[plan.test_key(test.concept_id, test.half) for test in plan.tests],
    )
    hypotheses = _hypotheses(stage, upstream, part, tests, keys, decided, identities, errors, look, plan.level)
    if spec.selection.interactions or spec.selection.within:
        column_of = {concept.rank: j for j, concept in enumerate(part.concepts)}
        subgroups = selection.effects_by_subgroup(spec, part.observations, part.design, part.share)
        hypotheses = tuple(selection.with_subgroups(h, subgroups[column_of[h.rank]], plan.level) for h in hypotheses)
    return hypotheses, decided.family


def _joined(
    made: Mapping[str, tuple[Hypothesis, ...]], matrix: StoredMatrix, threshold: float
) -> tuple[Hypothesis, ...]:
    """One list, best verdicts first; claims of both halves that say the same are one line, led by the surer one."""
    annotations = matrix.annotations

    def said(h: Hypothesis) -> stability.Said:
        answers = annotations[h.concept_id].cast(pl.Int8).fill_null(-1).to_numpy()
        return stability.Said(h.concept_id, h.claim, int(np.sign(h.train_separation)), answers)

    first, second = (list(made.get(half, ())) for half in stability.HALVES)
    lines = list(made.get("", ()))
    pairs = stability.twins([said(h) for h in first], [said(h) for h in second], threshold)
    for i, j, phi in pairs:
        leading, other = sorted((first[i], second[j]), key=_surest)
        agrees = first[i].train_separation * second[j].train_separation * phi >= 0
        lines.append(replace(leading, twin=Twin.of(other, phi, agrees=agrees)))
    paired = [{pair[k] for pair in pairs} for k in (0, 1)]
    for found, taken in zip((first, second), paired, strict=True):
        lines += [h for k, h in enumerate(found) if k not in taken]
    return tuple(sorted(lines, key=lambda h: (_BADGE_ORDER[h.badge], -abs(np.nan_to_num(h.test.separation.estimate)))))


def different_findings(hypotheses: Sequence[Hypothesis], annotations: pl.DataFrame) -> int:
    """How many confirmed claims do not nearly repeat a stronger one; claims of two halves may, those of one may not."""
    found = [h for h in hypotheses if h.badge == "confirmed" and h.source != "yours"]
    answers = annotations.select(pl.col(h.concept_id).cast(pl.Int8).fill_null(-1) for h in found)
    return len(joint_fit.families(answers.to_numpy(), [h.claim for h in found], MOST_ALIKE)) if found else 0


def _surest(h: Hypothesis) -> tuple[int, float, float, int]:
    return _BADGE_ORDER[h.badge], *np.nan_to_num([h.p_holm, h.p_one_sided], nan=2.0).tolist(), h.rank


def _read(stage: Stage, upstream: Upstream) -> list[Part]:
    """The hypotheses by the rows that test them: all on one holdout, or those of each half, and the user's own."""
    matrix, rows, spec = upstream.matrix, upstream.matrix.observations, stage.dataset.spec
    testing = concepts_to_test(stage.dataset, upstream.interpretations)
    judged = matrix.annotations.join(upstream.corpus.texts, on="text_id", how="left", maintain_order="left")
    parts = []
    for half, share in shares_of(stage, halves="half" in rows.columns).items():
        observations, concepts = stability.rows_that_test(rows, half), [c for c in testing if c.half == half]
        own = judged.filter(pl.col("text_id").is_in(text_keys(observations).implode()))
        columns = [concept.concept_id for concept in concepts]
        answers = own.select(pl.col(columns).cast(pl.Int8).fill_null(-1)).to_numpy().astype(np.int8)
        answers = answers.reshape(own.height, len(columns))  # no columns are no rows to polars
        # What the user brings is tested whatever it is like.
        n_found = sum(not concept.own for concept in concepts)
        claims = [concept.claim for concept in concepts[:n_found]]
        kept = joint_fit.families(answers[:, :n_found], claims, spec.inference.same_concept)
        kept |= {j: () for j in range(n_found, len(concepts))}
        duplicates = []
        for members in kept.values():
            same = [(concepts[m.position], m.phi) for m in members]
            duplicates.append(tuple(NearDuplicate(c.claim, c.concept_id, c.rank, phi) for c, phi in same))
        parts.append(
            Part(
                half=half,
                share=share,
                observations=observations,
                texts=own.select("text_id", "text", "split", "cluster_id", "n_words"),
                answers=answers[:, list(kept)],
                concepts=[concepts[j] for j in kept],
                duplicates=duplicates,
                distilled=matrix.distilled,
                task=spec.task,
            )
        )
    return parts


def _hypotheses(
    stage: Stage,
    upstream: Upstream,
    part: Part,
    tests: list[HypothesisTest],
    keys: list[str],
    decided: Decision,
    identities: Mapping[str, Identity],
    errors: list[AnnotationError],
    look: Look,
    alpha: float,
) -> tuple[Hypothesis, ...]:
    family = decided.family
    neurons = {(row["half"], row["column"]): row for row in upstream.selected.neurons.iter_rows(named=True)}
    by_neuron = upstream.activations.on(part.texts["text_id"]).tocsc()
    units = StrongestUnits.of(upstream.activations, upstream.corpus, part.texts["text_id"])
    closeness = UnitCloseness.of(stage, upstream.corpus)
    outcomes = outcome_per_text(part.texts["text_id"], part.observations)
    made = []
    for j, (concept, test) in enumerate(zip(part.concepts, tests, strict=True)):
        neuron, selected = concept.column, neurons.get((part.half, concept.column), {})
        again = selected.get("selection_frequency")
        found = verdict(
            p_holm=float(family.p_holm[j]),
            q_value=float(family.q_value[j]),
            alpha=alpha,
            estimate=test.separation.estimate,
            expected_sign=concept.train_separation,
            untestable=test.flags[0].sentence if not np.isfinite(test.separation.p_value) and test.flags else None,
            reversed_by_controls=reversed_by_controls(test.separation, test.adjusted),
            p_against=float(decided.p_against[j]),
            overturned=bool(not decided.p_worst[j] < alpha),
            judge=_judge(stage.dataset.spec.annotation.model, checked=bool(decided.checked[j])),
            first_look=look.number == 1,
            halves=bool(part.half),
        )
        has = part.answers[:, j] == 1
        activation = has.astype(np.float64) if neuron is None else column(by_neuron, neuron)
        strong = concept.bounds[0] if concept.bounds[0] is not None else np.inf
        evidence = gather_evidence(
            concept.said.definition,
            part.texts,
            part.by_judge[:, j],
            activation,
            strong,
            outcomes,
            test.separation.estimate,
            closeness=closeness,
            unit_of=partial(units.strongest, neuron=neuron),
        )
        made.append(
            Hypothesis(
                hypothesis_id=identities[concept.concept_id].hypothesis_id,
                rank=concept.rank,
                claim=concept.claim,
                concept_id=concept.concept_id,
                sae_id=concept.sae_id,
                sae_column=concept.sae_column,
                selection_score=concept.score,
                train_separation=concept.train_separation,
                test=test,
                p_holm=float(family.p_holm[j]),
                q_value=float(family.q_value[j]),
                fidelity=concept.fidelity or no_fidelity(),
                badge=found.badge,
                reason=found.reason,
                evidence=evidence,
                activations=None if neuron is None else activation_histogram(activation, part.answers[:, j], strong),
                rule=found.rule,
                p_one_sided=float(decided.p_one_sided[j]),
                decided_by=decided.basis[j],
                source=concept.source,
                made_from=concept.made_from,
                title=concept.said.details.get("title", concept.claim),
                annotation_error=errors[j],
                test_key=keys[j],
                duplicates=part.duplicates[j],
                stability=np.nan if again is None else again,
                found_in=selected.get("found_in", 0),
                other_seeds=selected.get("other_seeds", 0),
                half=part.half,
                detectable=minimum_detectable_effect(
                    test.separation.standard_error,
                    test.separation.degrees_of_freedom,
                    # A frozen direction is tested on one side: twice the level of a two-sided test.
                    (2 if concept.train_separation else 1) * part.share * alpha / max(family.size, 1),
                ),
            )
        )
    return tuple(made)


def _judge(model: str, *, checked: bool) -> Judge:
    """Words are found without error; a model errs until labels of people have corrected it."""
    return "exact" if model == "lexical" else "gold" if checked else "unchecked"


def _fits(stage: Stage, upstream: Upstream, parts: list[Part]) -> tuple[tuple[joint_fit.Fit, ...], tuple[float, float]]:
    """The ladder, the mean of both sides where each half tests what the other found."""
    design_of = {part.half: part.design for part in parts}
    found = [_ladder(stage, upstream, side, design_of[side.half]) for side in upstream.corpus.sides]
    return joint_fit.averaged([fits for fits, _ in found]), joint_fit.averaged_floor([chance for _, chance in found])


def _ladder(
    stage: Stage, upstream: Upstream, side: stability.Side, design: HoldoutDesign
) -> tuple[tuple[joint_fit.Fit, ...], tuple[float, float]]:
    """What can be predicted at all, what the neurons keep of it, what the concepts in words keep."""
    settings, task = stage.dataset.spec.inference, stage.dataset.spec.task
    scorer = joint_fit.Score(task, design.clusters, settings.bootstrap, settings.seed)
    ids, learn = side.texts["text_id"], side.observations.filter(pl.col("split") != "holdout")
    selected = np.array(upstream.selected.columns(side.half), dtype=np.int64)
    features = selection.neuron_features(stage, upstream.corpus, upstream.activations, selected, ids, side.half)
    features |= selection.word_features(side.texts)
    names = (joint_fit.EMBEDDINGS, joint_fit.WORDS, joint_fit.ALL_NEURONS, joint_fit.SELECTED, joint_fit.FIRED)
    features = {name: features[name] for name in names if name in features}
    rows, held_out = (
        selection.observed(features, ids, part)
        for part in (learn, stability.rows_that_test(upstream.matrix.observations, side.half))
    )
    fits = joint_fit.measure_rungs(rows, held_out, scorer, lambda name: stage.report(f"fit of {name}"))
    # A half that found nothing says nothing: a constant.
    concepts = np.nan_to_num(design.concepts) if design.concepts.shape[1] else np.zeros((len(design.outcome), 1))
    folded = {"folds": settings.folds, "seed": settings.seed}
    beside = []
    for name, x in ((joint_fit.CONCEPTS, concepts), (joint_fit.CONTROLS, design.controls)):
        predicted = joint_fit.cross_fitted(x, design.outcome, design.clusters, task, **folded)
        beside.append(scorer.fit(name, "cross-fitted", design.outcome, predicted))
    return (*fits, *beside), joint_fit.chance_level(concepts, held_out, task, **folded)
