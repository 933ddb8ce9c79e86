"""The record of one hypothesis: claim, evidence, verdict and keys. The unit of the product.

Belongs here: the fields that cards, tables and reports show, with their meaning. Does not belong here: how any of them
is computed or drawn.
"""

import math
from dataclasses import dataclass

from hsae_dagster.core.annotation_error import AnnotationError
from hsae_dagster.core.badges import Badge
from hsae_dagster.core.cluster_robust import Effect
from hsae_dagster.core.fidelity import Fidelity
from hsae_dagster.core.histogram import ActivationHistogram
from hsae_dagster.core.inference import HypothesisTest
from hsae_dagster.core.subgroups import SubgroupEffect


@dataclass(frozen=True)
class Example:
    """A holdout text shown as evidence.

    Attributes:
        text_id: its key.
        text: as it stands in the data; escape it before it meets HTML or markdown.
        outcome: its observed outcome (for pairs, the share of its pairs that it won).
        activation: of the hypothesis' neuron.
        because: words, or the sentence, that make the claim hold; empty for one judged by a model or not held.
        unit: the sentence that fires the neuron most; empty without one.
    """

    text_id: str
    text: str
    outcome: float
    activation: float
    because: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Evidence:
    """Holdout texts around a claim.

    Attributes:
        supporting: have the concept; those that fire the neuron most first.
        near_misses: fire the neuron but are judged without the concept.
        counterexamples: have the concept and an outcome on the other side of the average from the claim's direction.
    """

    supporting: tuple[Example, ...]
    near_misses: tuple[Example, ...]
    counterexamples: tuple[Example, ...]


@dataclass(frozen=True)
class NearDuplicate:
    """A concept that a tested hypothesis stands for.

    Attributes:
        claim: its predicate.
        concept_id: its key.
        rank: its place in selection, from 0.
        phi: correlation of the two annotations on the holdout.
    """

    claim: str
    concept_id: str
    rank: int
    phi: float


@dataclass(frozen=True)
class NearCopy:
    """A neuron that made room for the one it nearly copies (`core.distinct`); nothing was written or tested for it.

    Attributes:
        sae_id: key of its autoencoder.
        sae_column: its column there.
        correlation: of both neurons' activations over training texts.
        cosine: of their decoder directions.
    """

    sae_id: str
    sae_column: int
    correlation: float
    cosine: float


@dataclass(frozen=True)
class Twin:
    """A claim of the other half that says the same as a hypothesis: what came of its own test.

    Attributes:
        claim: its predicate.
        concept_id: key of the concept.
        half: that it was found in; the other one tested it.
        phi: correlation of the two annotations over all texts.
        agrees: whether both were found with the same direction.
        effect: its separation on the half that tested it.
        p_holm: its corrected p.
        p_one_sided: the p that was corrected.
        test_key: key under which the register of looks keeps the p-value.
        badge: its verdict.
    """

    claim: str
    concept_id: str
    half: str
    phi: float
    agrees: bool
    effect: Effect
    p_holm: float
    p_one_sided: float
    test_key: str
    badge: Badge

    @staticmethod
    def of(other: "Hypothesis", phi: float, *, agrees: bool) -> "Twin":
        """Of the other half's hypothesis."""
        return Twin(
            claim=other.claim,
            concept_id=other.concept_id,
            half=other.half,
            phi=phi,
            agrees=agrees,
            effect=other.test.separation,
            p_holm=other.p_holm,
            p_one_sided=other.p_one_sided,
            test_key=other.test_key,
            badge=other.badge,
        )


@dataclass(frozen=True)
class Hypothesis:
    """One tested hypothesis.

    Attributes:
        hypothesis_id: key, 12 hexadecimal characters.
        rank: place in selection, from 0.
        claim: the predicate; the subject is the text ("asks a question").
        concept_id: key of the concept.
        sae_id: key of the neuron's autoencoder.
        sae_column: the neuron's column in it.
        selection_score: score of the selection method (lasso: standardised coefficient).
        train_separation: difference in mean outcome between firing and silent training texts; gives the direction
            the neuron was selected for.
        test: what the holdout says.
        p_holm: Holm-corrected p of the separation.
        q_value: Benjamini-Hochberg q of the separation.
        fidelity: of the concept to its neuron, on texts nothing was chosen on.
        badge: the verdict.
        reason: the rule that gave it.
        evidence: holdout texts.
        rule: name of the rule that gave the verdict.
        source: `found` by the pipeline or `yours` (written in dataset.yaml).
        made_from: `neuron`, `terms` or `style`: where the claim came from; empty for a phrase or one of yours.
        title: one to three words, or the first sentence, that stand for the claim where there is little room.
        p_one_sided: the p-value that was corrected, for the frozen direction.
        decided_by: what gave it: `plain`, `controls` or `distilled`, and `, ranks` and `, gold` where they did too.
        test_key: key under which the register of looks keeps the p-value.
        detectable: smallest effect (its size) that the test finds with 80 % probability at alpha / family; or NaN.
        stability: share of half-samples of the training clusters from which its neuron is selected again; or NaN.
        activations: how strongly the neuron fires on the judged holdout texts.
        duplicates: concepts that say nearly the same and were not tested again.
        near_copies: neurons that its neuron stands for, the most alike first.
        subgroups: its effect in each subgroup of the declared `within` and `interactions`; may be empty.
        found_in: of the other starts of training, in how many its neuron was found again.
        other_seeds: how many there were; 0 where none was trained or there is no neuron.
        annotation_error: what labels by people, or stated accuracy, say about the judge; None if nothing does.
        half: `a` or `b` where each half tests what the other found: the one that found it; else empty.
        twin: the other half's claim that says the same, or None.
    """

    hypothesis_id: str
    rank: int
    claim: str
    concept_id: str
    sae_id: str
    sae_column: int
    selection_score: float
    train_separation: float
    test: HypothesisTest
    p_holm: float
    q_value: float
    fidelity: Fidelity
    badge: Badge
    reason: str
    evidence: Evidence
    rule: str = ""
    p_one_sided: float = math.nan
    decided_by: str = "plain"
    source: str = "found"
    made_from: str = ""
    title: str = ""
    test_key: str = ""
    detectable: float = math.nan
    stability: float = math.nan
    activations: ActivationHistogram | None = None
    duplicates: tuple[NearDuplicate, ...] = ()
    near_copies: tuple[NearCopy, ...] = ()
    found_in: int = 0
    other_seeds: int = 0
    annotation_error: AnnotationError | None = None
    subgroups: tuple[SubgroupEffect, ...] = ()
    half: str = ""
    twin: Twin | None = None
