"""The referee's further cases: judges that err, answers that are missing, power, markers without an error.

Each scenario gives what is decided now and what was decided in November 2026. Gold labels are drawn as `hsae gold`
draws them, with a neuron that fires harder where people see the concept.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from hsae_dagster.core.hypothesis import Judge, verdict
from hsae_dagster.core.inference.annotation_error import AnnotationError, Corrected, corrected_separation, draw_gold
from hsae_dagster.core.inference.effects import adjusted_separation, holm, separation, test_hypotheses
from hsae_dagster.core.inference.plan import Look, PlannedTest, decide
from hsae_dagster.core.observations import HoldoutDesign
from hsae_dagster_tests.core.simulated_dependence import DEPENDENT, H, earlier_p
from hsae_dagster_tests.core.simulated_designs import make_design
from hsae_dagster_tests.core.simulated_discovery import DISCOVERY
from hsae_dagster_tests.core.simulated_judges import judged_texts
from hsae_dagster_tests.core.simulated_rates import ALPHA, Scenario

Generator = np.random.Generator
FIRST = Look(1, "", True, {})


def by_people(rng: Generator, n_gold: int, truth, judged, outcome, cluster) -> Corrected:
    """The corrected effect, from a sample of three strata."""
    fires = np.maximum(0.0, rng.normal(size=len(truth)) + 2.0 * truth - 0.5)
    rows, chance = draw_gold(judged.astype(np.int8), n_gold, rng, fires)
    gold, probability = np.full(len(truth), np.nan), np.full(len(truth), np.nan)
    gold[rows], probability[rows] = truth[rows], chance
    return corrected_separation(judged, outcome, cluster, gold, probability)


def gold_covers(n_gold: int, prevalence: float, sensitivity: float, fpr: float, clustered: bool, rng: Generator):
    """Whether the corrected effect's interval has the truth, of 4,000 texts; NaN without ten labels of each kind."""
    kinds = {"sensitivity": sensitivity, "fpr": fpr, "clustered": clustered}
    found = by_people(rng, n_gold, *judged_texts(rng, prevalence, n=4000, **kinds)).corrected
    if not np.isfinite(found.estimate):
        return np.nan, np.nan
    return float(found.low <= 0.2 <= found.high), np.nan


def confirmed(design: HoldoutDesign, corrected: Corrected | None, judge: Judge, *, ranks: bool = False) -> np.ndarray:
    """(h,) whether each concept is called confirmed beside so many others that 20 are tested in all."""
    h = design.concepts.shape[1]
    tests = test_hypotheses(design)
    known = [AnnotationError(corrected, np.nan, (np.nan, np.nan))] * h
    planned = [PlannedTest(str(j), str(j), "found", 0) for j in range(h)]
    made = decide(tests, known, planned, [str(j) for j in range(h)], FIRST, ALPHA, ranks=ranks)
    found = []
    for j in range(h):
        said = verdict(
            p_holm=min(1.0, float(made.family.p_holm[j]) * H / h),
            q_value=1.0,
            alpha=ALPHA,
            estimate=tests[j].separation.estimate,
            expected_sign=0.0,
            untestable=None,
            overturned=bool(not made.p_worst[j] * H / h < ALPHA),
            judge=judge,
        )
        found.append(said.badge == "confirmed")
    return np.array(found)


def judge_follows_outcome(rates: tuple[float, float], n_gold: int, rng: Generator) -> tuple[float, float]:
    """A null of prevalence 10 % whose false positives are more frequent where the outcome is 1."""
    truth, outcome = (rng.random(2400) < 0.1).astype(float), (rng.random(2400) < 0.5).astype(float)
    wrong = np.where(outcome == 1, *rates)
    judged = (rng.random(2400) < np.where(truth == 1, 0.85, wrong)).astype(float)
    corrected = by_people(rng, n_gold, truth, judged, outcome, np.arange(2400)) if n_gold else None
    checked = corrected is not None and np.isfinite(corrected.corrected.p_value)
    design = make_design(judged, outcome)
    now = confirmed(design, corrected, "gold" if checked else "unchecked")
    return float(now[0]), float(earlier_p(design, 0) < ALPHA / H)


def answers_missing(share: float, rng: Generator) -> tuple[float, float]:
    """Twenty nulls of 2,000 texts; what is missing are texts with the concept and the outcome 0."""
    outcome, concepts = (rng.random(2000) < 0.5).astype(float), (rng.random((2000, H)) < 0.1).astype(float)
    for column in concepts.T:
        refused = rng.permutation(np.flatnonzero((column == 1) & (outcome == 0)))[: round(share * 2000)]
        column[refused] = np.nan
    design = make_design(concepts, outcome)
    before = []
    for column in concepts.T:
        known = np.isfinite(column)
        before.append(earlier_p(make_design(column[known], outcome[known]), 0))
    return float(confirmed(design, None, "exact").any()), float(holm(np.array(before)).min() < ALPHA)


def control_makes_it(rng: Generator) -> tuple[float, float]:
    """An effect wholly due to a declared control, tested at alpha / 20."""
    control = rng.normal(size=1000)
    concept = (rng.random(1000) < 1 / (1 + np.exp(1.4 - 0.8 * control))).astype(float)
    design = make_design(concept, 0.35 * control + rng.normal(size=1000), controls=control, task="regression")
    return float(adjusted_separation(design, 0).p_value < ALPHA / H), float(earlier_p(design, 0) < ALPHA / H)


def skewed(factor: float, rng: Generator) -> tuple[float, float]:
    """Sales of 1,500 texts, lognormal (sd 1.5), times `factor` where one in twenty has the concept: ranks and means."""
    concept = (rng.random(1500) < 0.05).astype(float)
    outcome = np.exp(1.5 * rng.normal(size=1500)) * np.where(concept == 1, factor, 1.0)
    design = make_design(concept, outcome, task="regression")
    return float(confirmed(design, None, "exact", ranks=True)[0]), float(earlier_p(design, 0) < ALPHA / H)


def nearly_perfect(clustered: bool, rng: Generator) -> tuple[float, float]:
    """30 texts with and 30 without a marker that is right in 98 of 100, so in three samples of ten always: coverage."""
    h = np.repeat([1.0, 0.0], 30)
    cluster = np.arange(60) // (3 if clustered else 1)
    found = separation(make_design(h, np.where(rng.random(60) < 0.02, 1 - h, h), cluster), 0)
    return float(found.low <= 0.96 <= found.high), np.nan


JUDGES: Sequence[Scenario] = tuple(
    Scenario(
        f"false positives {rates[0]:.1%} / {rates[1]:.1%} by outcome, {n_gold or 'no'} gold labels",
        "called confirmed at α / 20",
        ALPHA / H,
        partial(judge_follows_outcome, rates, n_gold),
        audit if not n_gold else "",
    )
    for rates, audit in (((0.075, 0.033), "44 %"), ((0.1, 0.025), "99.7 %"))
    for n_gold in (0, 400)
)
GOLD: Sequence[Scenario] = tuple(
    Scenario(
        f"{n_gold} gold labels, {p:.0%} with, sensitivity {s}, false positives {f:.0%}{', clustered' if c else ''}",
        "coverage",
        0.95,
        partial(gold_covers, n_gold, p, s, f, c),
        audit,
    )
    for n_gold, p, s, f, c, audit in (
        (200, 0.02, 0.85, 0.05, False, "90.3 %"),
        (400, 0.02, 0.85, 0.05, False, "89.3 %"),
        (200, 0.02, 0.6, 0.02, False, "76.5 %"),
        (200, 0.02, 0.85, 0.05, True, ""),
        (200, 0.05, 0.6, 0.02, False, "80.9 %"),
        (400, 0.1, 0.85, 0.05, False, ""),
    )
)
POWER: Sequence[Scenario] = (
    Scenario("×2 effect, log-sd 1.5, prevalence 5 %, ranks", "found at α / 20", 1.0, partial(skewed, 2.0), "5 %"),
    Scenario("no effect, log-sd 1.5, ranks", "called confirmed at α / 20", ALPHA / H, partial(skewed, 1.0)),
    Scenario("marker right in 98 of 100, 60 texts", "coverage", 0.95, partial(nearly_perfect, False)),
    Scenario("marker right in 98 of 100, 60 texts of 20 clusters", "coverage", 0.95, partial(nearly_perfect, True)),
)
AUDIT: Sequence[Scenario] = (
    *DEPENDENT,
    *JUDGES,
    *(
        Scenario(
            f"{share:.0%} missing, the worst ones", "family-wise error", ALPHA, partial(answers_missing, share), audit
        )
        for share, audit in ((0.01, "30 %"), (0.02, "92.5 %"))
    ),
    Scenario("effect of a declared control", "called confirmed at α / 20", ALPHA / H, control_makes_it, "41 %"),
    *GOLD,
    *POWER,
    *DISCOVERY,
)
