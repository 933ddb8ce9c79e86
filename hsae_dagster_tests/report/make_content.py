"""Invented reports for tests: plausible figures, no meaning."""

import math

import numpy as np

from hsae_dagster.core.concepts.claims import WordGroup
from hsae_dagster.core.concepts.fidelity import Fidelity, wilson_interval
from hsae_dagster.core.hypothesis import Evidence, Example, Hypothesis, activation_histogram
from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED, Effect
from hsae_dagster.core.inference.effects import HypothesisTest
from hsae_dagster.core.inference.joint_fit import Fit
from hsae_dagster.core.inference.partial_effects import Flag
from hsae_dagster.core.inference.plan import Look
from hsae_dagster.report.content import ReportContent, SplitCount

OUTCOMES = {
    "regression": "mean rating (−4 to 4)",
    "classification": "being a Republican speech",
    "pairwise": "being the favourable snippet",
}
_CONTENT_WORDS = (
    "romance kiss wedding tender hours minutes pacing slow bad worst awful script plot screenplay lacks images "
    "photographed portrait beautiful funny laughs comedy music score songs action explosions fights family children"
)
_OTHER_WORDS = (
    "a film that wants to be more than it is and for long stretches manages exactly that because its makers knew what "
    "they were doing even where the audience may not follow them into every corner of this odd and winding story"
)
_WORDS, _FILLER = _CONTENT_WORDS.split(), _OTHER_WORDS.split()


def make_text(rng: np.random.Generator, terms: tuple[str, ...], length: int = 40) -> str:
    words = [str(word) for word in rng.choice(_FILLER, size=length)]
    for term in terms:
        words[int(rng.integers(length))] = term
    return " ".join(words).capitalize() + "."


def make_effect(estimate: float, half: float, p: float = 0.0001) -> Effect:
    return Effect(estimate, half / 1.96, estimate - half, estimate + half, p, "difference in means")


def make_fidelity(f1: float = 0.86) -> Fidelity:
    return Fidelity(
        n_firing=480,
        recall=0.8,
        false_positive_interval=wilson_interval(38, 760),
        precision=0.94,
        f1=f1,
        correlation=0.6,
        natural_precision=0.71,
        natural_recall=0.542,
        natural_f1=0.61,
    )


def make_hypothesis(
    position: int = 0,
    *,
    task: str = "regression",
    claim: str | None = None,
    effect: Effect | None = None,
    badge: str = "confirmed",
    reason: str = "Holm-corrected p = 0.004 is below 0.05 on texts never tested on before",
    text: str | None = None,
    flags: tuple[Flag, ...] = (),
    fidelity: Fidelity | None = None,
) -> Hypothesis:
    rng = np.random.default_rng(position)
    terms = tuple(str(term) for term in rng.choice(_WORDS, size=5, replace=False))
    scale = 1.0 if task == "regression" else 0.15
    effect = effect or make_effect(scale * float(rng.normal(0.0, 0.5)), scale * float(rng.uniform(0.08, 0.25)))
    nan = not math.isfinite(effect.estimate)

    def example(k: int) -> Example:
        outcome = float(rng.normal(0, 2)) if task == "regression" else float(k % 2)
        return Example(f"{position:02d}{k:02d}", text or make_text(rng, terms), outcome, 1.5 - 0.1 * k, terms[:3])

    activation = np.maximum(rng.gamma(2.0, 0.4, size=3049) - 1.1, 0.0)
    return Hypothesis(
        hypothesis_id=f"{position:012x}",
        rank=position,
        claim=claim if claim is not None else WordGroup(terms).claim,
        concept_id=f"c{position:011x}",
        sae_id="5ae0" * 4,
        sae_column=7 * position % 64,
        selection_score=effect.estimate if not nan else 0.1,
        train_separation=effect.estimate if not nan else 0.1,
        test=HypothesisTest(
            separation=effect,
            partial=NO_EFFECT_ESTIMATED if nan else make_effect(effect.estimate * 0.7, 0.12 * scale),
            n=3049,
            n_with=402,
            n_clusters=152,
            prevalence=402 / 3049,
            flags=flags,
        ),
        p_holm=math.nan if nan else 0.0004 * (position + 1),
        q_value=math.nan if nan else 0.0002 * (position + 1),
        fidelity=fidelity or make_fidelity(),
        badge=badge,  # type: ignore[arg-type]
        reason=reason,
        made_from="neuron",
        title=terms[0],
        found_in=2,
        other_seeds=3,
        evidence=Evidence(
            supporting=tuple(example(k) for k in range(3)),
            near_misses=(example(3),),
            counterexamples=(example(4), example(5)),
        ),
        activations=activation_histogram(
            activation, (activation + rng.normal(0, 0.3, 3049) > 0.4).astype(np.int8), 0.6
        ),
    )


def make_hypotheses(n: int, task: str = "regression") -> tuple[Hypothesis, ...]:
    badges = ["confirmed"] * max(n - 5, 1) + ["suggestive", "suggestive", "not supported", "not supported", "invalid"]
    made = []
    scale = 1.0 if task == "regression" else 0.15
    for k in range(n):
        sign = 1 if k % 3 else -1
        effect = make_effect(sign * scale * 1.1 * 0.86**k, scale * (0.15 if k < 15 else 0.3))
        if badges[k] == "invalid":
            effect = NO_EFFECT_ESTIMATED
        flags = (Flag("sign conflict", "separation and partial effect have opposite signs"),) if k == 2 else ()
        reason = "only 12 holdout observations have the concept (at least 20 are needed)"
        kwargs = {"reason": reason, "fidelity": make_fidelity(0.0)} if badges[k] == "invalid" else {}
        made.append(make_hypothesis(k, task=task, badge=badges[k], effect=effect, flags=flags, **kwargs))  # type: ignore[arg-type]
    return tuple(made)


def make_fits(task: str = "regression") -> tuple[Fit, ...]:
    metric, base, scale = ("R2", 0.0, 1.0) if task == "regression" else ("AUC", 0.5, 0.7)
    ladder = (
        ("embeddings (ceiling)", 0.431, "trained"),
        ("words (TF-IDF)", 0.403, "trained"),
        ("all neurons", 0.281, "trained"),
        ("selected neurons", 0.241, "trained"),
        ("selected neurons, fired or not", 0.245, "trained"),
        ("concepts", 0.171, "cross-fitted"),
        ("length and controls alone", 0.004, "cross-fitted"),
    )
    return tuple(
        Fit(name, metric, base + scale * v, base + scale * (v - 0.03), base + scale * (v + 0.03), how)
        for name, v, how in ladder
    )


def make_content(
    task: str = "regression", hypotheses: tuple[Hypothesis, ...] | None = None, **changes: object
) -> ReportContent:
    floor = (-0.008, 0.002) if task == "regression" else (0.499, 0.521)
    fields: dict[str, object] = {
        "dataset": "movie_reviews",
        "description": "Movie-review snippets, each rated by at least 20 people.",
        "task": task,
        "outcome": OUTCOMES[task],
        "cluster": "film",
        "outcome_mean": 0.61 if task == "regression" else 0.52,
        "splits": (
            SplitCount("train", 5080, 5080, 253),
            SplitCount("validation", 1017, 1017, 51),
            SplitCount("fidelity", 1019, 1019, 51),
            SplitCount("holdout", 3049, 3049, 152),
        ),
        "dropped": {"duplicate text": 28},
        "hypotheses": make_hypotheses(20, task) if hypotheses is None else hypotheses,
        "unreadable": ((14, "5ae0" * 4, 51, "no chosen claim covers much of it"),),
        "fits": make_fits(task),
        "floor": floor,
        "guidance": {"5ae0" * 4: 0.1},
        "alpha": 0.05,
        "look": Look(number=1, plan="0f1e2d3c", frozen_before=True, earlier={}),
        "bonferroni": 14,
        "settings": {
            "task": task,
            "columns": {"text": "text", "cluster_by": "film", "controls": []},
            "saes": [{"m": 64, "k": 16, "prefixes": None}],
            "annotation": {"model": "lexical"},
            "inference": {"alpha": 0.05},
        },
        "versions": {"corpus": "0a1b2c3d", "embeddings": "4e5f6a7b"},
        "run_id": "run-1",
    }
    claims: tuple[Hypothesis, ...] = fields["hypotheses"]  # type: ignore[assignment]
    fields["different"] = sum(h.badge == "confirmed" and h.source != "yours" for h in claims)
    return ReportContent(**(fields | changes))  # type: ignore[arg-type]
