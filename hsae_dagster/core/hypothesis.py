"""The record of one hypothesis, the unit of the product: claim, evidence, verdict and keys.

The verdict comes with the rule that gave it; the evidence is texts around the claim: for it, near it, against it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from hsae_dagster.core.concepts.claims import Closeness, Concept, because, meaning_of
from hsae_dagster.core.concepts.fidelity import Fidelity
from hsae_dagster.core.inference.annotation_error import AnnotationError
from hsae_dagster.core.inference.cluster_robust import Effect
from hsae_dagster.core.inference.effects import HypothesisTest
from hsae_dagster.core.inference.subgroups import SubgroupEffect

POWER = 0.8


def minimum_detectable_effect(standard_error: float, degrees_of_freedom: float, level: float) -> float:
    """The smallest true effect (its size) that a two-sided t test at `level` finds with a probability of 80 %.

    Bloom (1995, "Minimum detectable effects"): standard error × (t at 1 - level / 2 + t at 0.8), both with the
    test's degrees of freedom. With `level` = alpha / H it is what Holm's first step finds, so what any step finds.

    Returns:
        In the unit of the estimate; NaN where there is no standard error.
    """
    from scipy import stats

    if not (np.isfinite(standard_error) and degrees_of_freedom > 0 and 0 < level < 1):
        return float("nan")
    reach = stats.t.ppf(1 - level / 2, degrees_of_freedom) + stats.t.ppf(POWER, degrees_of_freedom)
    return float(standard_error * reach)


Badge = Literal["confirmed", "confirmed, judge unchecked", "suggestive", "not supported", "invalid"]
# How the answers behind a test were checked: by words that cannot err, by people's labels, or not at all.
Judge = Literal["exact", "gold", "unchecked"]

Rule = Literal[
    "Holm",
    "judge unchecked",
    "missing answers",
    "false discovery rate",
    "controls",
    "direction",
    "not testable",
    "no evidence",
]


@dataclass(frozen=True)
class Verdict:
    """A badge, the sentence that explains it, and the name of the rule that decided."""

    badge: Badge
    reason: str
    rule: Rule


def verdict(
    *,
    p_holm: float,
    q_value: float,
    alpha: float,
    estimate: float,
    expected_sign: float,
    untestable: str | None,
    reversed_by_controls: bool = False,
    p_against: float = 1.0,
    overturned: bool = False,
    judge: Judge = "exact",
    first_look: bool = True,
    halves: bool = False,
) -> Verdict:
    """Decide; the first rule that applies gives the verdict.

    not testable         invalid: it could not be tested.
    direction            invalid: the opposite of the direction that it was selected or declared for holds.
    controls             suggestive: Holm's p is below alpha, but the effect changes sign under controls.
    missing answers      suggestive: Holm's p is below alpha, but the missing answers could overturn it.
    judge unchecked      confirmed, judge unchecked: as below, judged by a model that no labels of people checked.
    Holm                 confirmed: Holm's p is below alpha.
    false discovery rate suggestive: q is below alpha, in the expected direction.
    no evidence          not supported.

    Args:
        p_holm: Holm-corrected one-sided p over the whole family, looks included.
        q_value: Benjamini-Hochberg q over the same.
        alpha: family-wise error.
        estimate: the separation.
        expected_sign: direction on training texts, or declared; 0 for none.
        untestable: why it could not be tested, or None.
        reversed_by_controls: whether the effect beyond doubt changes sign with controls held constant.
        p_against: Holm-corrected p of the opposite direction.
        overturned: whether the corrected p is not below alpha if missing answers are those that speak most against it.
        judge: how the answers were checked.
        first_look: whether the holdout was never used before.
        halves: whether the holdout is a half of the texts, which found other claims.
    """
    if untestable or not np.isfinite(p_holm):
        return Verdict("invalid", untestable or "its effect could not be estimated", "not testable")
    against = expected_sign != 0 and np.sign(estimate) != np.sign(expected_sign)
    if p_against < alpha or (p_holm < alpha and against):
        return Verdict(
            "invalid", "its effect on the holdout runs against the direction it was selected for", "direction"
        )
    if p_holm < alpha:
        doubt = _doubt(p_holm, reversed_by_controls, overturned)
        return doubt or _confirmed(f"Holm-corrected {_p(p_holm)} is below {alpha:g}", judge, first_look, halves)
    if q_value < alpha and not against:
        reason = f"false discovery rate {_p(q_value, 'q')} is below {alpha:g}, Holm's p is not"
        return Verdict("suggestive", reason, "false discovery rate")
    reason = f"Holm-corrected {_p(p_holm)} is not below {alpha:g}"
    if against:
        reason = f"its effect points the other way than it was selected or declared for; {reason}"
    return Verdict("not supported", reason, "no evidence")


def _doubt(p_holm: float, reversed_by_controls: bool, overturned: bool) -> Verdict | None:
    """What keeps a test that holds from confirming, or None."""
    holds = f"the test holds (Holm-corrected {_p(p_holm)}) but"
    if reversed_by_controls:
        turned = f"{holds} the effect changes sign when text length and controls are held constant"
        return Verdict("suggestive", turned, "controls")
    if overturned:
        return Verdict("suggestive", f"{holds} the missing answers could overturn it", "missing answers")
    return None


def _confirmed(holds: str, judge: Judge, first_look: bool, halves: bool) -> Verdict:
    held_out = "on texts never tested on before" if first_look else "on held-out texts that an earlier look has used"
    if halves:
        held_out = "on the half of the texts that it was not found in"
        held_out += "" if first_look else ", which an earlier look has used"
    if judge == "unchecked":
        return Verdict(
            "confirmed, judge unchecked",
            f"{holds} {held_out}; no human labels have checked the model that judged them",
            "judge unchecked",
        )
    labelled = ", corrected by human labels" if judge == "gold" else ""
    return Verdict("confirmed", f"{holds} {held_out}{labelled}", "Holm")


def _p(value: float, symbol: str = "p") -> str:
    """`p = 0.012`, or `p < 0.001` where three decimals would show a zero."""
    return f"{symbol} = {value:.3f}" if value >= 0.001 else f"{symbol} < 0.001"


BINS = 24


@dataclass(frozen=True)
class ActivationHistogram:
    """Counts of judged texts by activation.

    Attributes:
        edges: of the bins over firing texts, ascending, one more than there are bins; empty when none fires.
        having: firing texts that have the concept, by bin.
        lacking: firing texts without the concept (judged no, or not judged), by bin.
        silent_having: texts with the concept on which the neuron is silent.
        silent_lacking: the other silent texts.
        strong: activation from which on firing counts as strong, or None.
    """

    edges: tuple[float, ...]
    having: tuple[int, ...]
    lacking: tuple[int, ...]
    silent_having: int
    silent_lacking: int
    strong: float | None

    @property
    def firing(self) -> int:
        """Texts that fire the neuron."""
        return sum(self.having) + sum(self.lacking)

    @property
    def texts(self) -> int:
        """All texts counted."""
        return self.firing + self.silent_having + self.silent_lacking


def activation_histogram(activation: np.ndarray, answers: np.ndarray, strong: float) -> ActivationHistogram:
    """Count texts by activation (n,), 0 where the neuron is silent, and answers (n,) int8: 1 yes, 0 no, -1 missing.

    Strong firing has no lower bound (infinity) where the neuron never fired on training texts.
    """
    fires, has = activation > 0, answers == 1
    edges = np.linspace(0.0, float(activation.max()), BINS + 1) if fires.any() else np.empty(0)
    counts = [
        tuple(int(n) for n in np.histogram(activation[fires & side], edges)[0]) if fires.any() else ()
        for side in (has, ~has)
    ]
    return ActivationHistogram(
        edges=tuple(float(edge) for edge in edges),
        having=counts[0],
        lacking=counts[1],
        silent_having=int((~fires & has).sum()),
        silent_lacking=int((~fires & ~has).sum()),
        strong=float(strong) if np.isfinite(strong) else None,
    )


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
    """A concept that a tested hypothesis stands for, and phi of the two annotations on the holdout."""

    claim: str
    concept_id: str
    rank: int
    phi: float


@dataclass(frozen=True)
class Twin:
    """A claim of the other half that says the same as a hypothesis, and what came of its own test."""

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
        claim: the predicate; the subject is the text ("has a question mark").
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
        made_from: `neuron`, `terms`, `style` or the path of a user's own source; empty for a phrase or one of yours.
        title: one to three words, or the first sentence, that stand for the claim where there is little room.
        p_one_sided: the p-value that was corrected, for the frozen direction.
        decided_by: what gave it: `plain`, `controls` or `distilled`, and `, ranks` and `, gold` where they did too.
        test_key: key under which the register of looks keeps the p-value.
        detectable: smallest effect (its size) that the test finds with 80 % probability at alpha / family; or NaN.
        stability: share of half-samples of the training clusters from which its neuron is selected again; or NaN.
        activations: how strongly the neuron fires on the judged holdout texts.
        duplicates: concepts that say nearly the same and were not tested again.
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
    found_in: int = 0
    other_seeds: int = 0
    annotation_error: AnnotationError | None = None
    subgroups: tuple[SubgroupEffect, ...] = ()
    half: str = ""
    twin: Twin | None = None


@dataclass(frozen=True)
class FoundConcept:
    """A concept with the neuron that says it, or a neuron of which nothing can be said.

    Attributes:
        rank: place among all, from 0.
        column: of the neuron in the codes; None for a concept without one.
        sae_id: key of its autoencoder; empty without one.
        sae_column: its column there; -1 without one.
        score: what selected it: of the neuron, or what the claim adds.
        train_separation: difference in mean outcome on training texts; its sign is the direction that is tested.
        concept: None where nothing can be said.
        bounds: activations between which firing counts as strong; None for no bound.
        fidelity: of the concept to its neuron, on texts nothing was chosen on; None where it was not measured.
        train_z: the same difference in standard errors; NaN where it is not known.
        candidates: phrases that were tried, and their fidelity on validation texts.
        chosen: place of the concept among them, or 0 without any.
        unreadable: why nothing can be said.
        made_from: `neuron`, `terms` or `style`; empty for a phrase or one of the user's.
        half: that it was found in; empty without halves.
        own: whether it is the user's.
        model: that wrote the phrase; empty for a claim found offline.
        prompt_hash: of what it was asked.
        calls: paid answers that writing and scoring rest on; None where nobody was asked.
        cost_usd: what they cost; None where no price is known.
    """

    rank: int
    column: int | None
    sae_id: str
    sae_column: int
    score: float
    train_separation: float
    concept: Concept | None
    bounds: tuple[float | None, float | None] = (None, None)
    fidelity: Fidelity | None = None
    train_z: float = math.nan
    candidates: tuple[tuple[Concept, Fidelity], ...] = ()
    chosen: int | None = None
    unreadable: str | None = None
    made_from: str = ""
    half: str = ""
    own: bool = False
    model: str = ""
    prompt_hash: str | None = None
    calls: int | None = None
    cost_usd: float | None = None

    @property
    def said(self) -> Concept:
        """The concept, where there is one."""
        if self.concept is None:
            raise ValueError(f"nothing is said of neuron {self.column}: {self.unreadable}")
        return self.concept

    @property
    def concept_id(self) -> str:
        """Key of the concept."""
        return self.said.concept_id

    @property
    def source(self) -> Literal["found", "yours"]:
        """`found` by the pipeline, or `yours`."""
        return "yours" if self.own else "found"

    @property
    def claim(self) -> str:
        """Its predicate."""
        return self.said.predicate

    @property
    def record(self) -> dict[str, Any]:
        """JSON-like form."""
        return {
            **vars(self),
            "fidelity": asdict(self.fidelity) if self.fidelity else None,
            "candidates": [{**phrase.record, "validation": asdict(found)} for phrase, found in self.candidates],
            "concept": self.concept.record if self.concept else None,
        }

    @staticmethod
    def of(record: Mapping[str, Any]) -> "FoundConcept":
        """Inverse of `record`; a number that JSON holds as null is NaN."""
        values = dict(record)
        for name in ("score", "train_separation", "train_z"):
            values[name] = math.nan if values[name] is None else values[name]
        values["bounds"] = tuple(record["bounds"])
        values["concept"] = _concept(record["concept"]) if record["concept"] else None
        values["fidelity"] = _fidelity(record["fidelity"]) if record["fidelity"] else None
        values["candidates"] = tuple((_concept(each), _fidelity(each["validation"])) for each in record["candidates"])
        return FoundConcept(**values)


def _concept(record: Mapping[str, Any]) -> Concept:
    return Concept(record["predicate"], record["author"], record["definition"], record["details"])


def _fidelity(record: Mapping[str, Any]) -> Fidelity:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
    return Fidelity(**values)


_SHOWN = 3


def gather_evidence(
    definition: Mapping[str, Any] | None,
    texts: pl.DataFrame,
    answers: np.ndarray,
    activation: np.ndarray,
    strong: float,
    outcome: np.ndarray,
    effect: float,
    *,
    closeness: Closeness | None = None,
    unit_of: Callable[[int], str] = lambda row: "",
) -> Evidence:
    """Pick examples, deterministically; short texts first where activations are equal.

    Judged texts (text_id, text, n_words) are n rows; answers int8, activation of the neuron and outcome (n,). The
    definition is what executes the concept, None where only a reader can judge; activation counts as strong from
    `strong` on; the sign of the estimated effect says which outcomes speak against the claim; `unit_of` a row is the
    unit that fired the neuron most, empty where none did.
    """
    centre = float(np.nanmean(outcome))
    against = np.nan_to_num((centre - outcome) * np.sign(effect if np.isfinite(effect) else 1.0))
    yes, no = answers == 1, answers == 0
    meaning = meaning_of(definition) if definition else None
    n_words = texts["n_words"].to_numpy()

    def example(row: int) -> Example:
        text_id, text = texts["text_id"][row], texts["text"][row]
        why = because(meaning, text, closeness)[:8] if meaning else ()
        return Example(text_id, text, float(outcome[row]), float(activation[row]), why, unit_of(row))

    def pick(mask: np.ndarray, key: np.ndarray) -> tuple[Example, ...]:
        rows = np.flatnonzero(mask)
        rows = rows[np.lexsort((rows, n_words[rows], -key[rows]))][:_SHOWN]
        return tuple(example(int(row)) for row in rows)

    return Evidence(
        supporting=pick(yes, activation),
        near_misses=pick(no & (activation > 0) & (activation >= strong), activation),
        counterexamples=pick(yes & (against > 0), against),
    )
