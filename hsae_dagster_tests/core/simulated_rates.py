"""Error rates and coverages by simulation, for us and for the reference's formula: shared by tests and the benchmark.

Each scenario is a function of a generator that returns what one simulated holdout gave. The reference's formula is the
one of its `compute_hypothesis_separation_scores` (hypothesaes 2.0.1) on the same rows: Student's t test with equal
variances and independent rows, and for pairs -y where 1 - y is due.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import statsmodels.api as sm
from scipy import stats

from hsae_dagster.core.inference.effects import benjamini_hochberg, holm, separation, test_hypotheses
from hsae_dagster.core.inference.joint_fit import Score, cross_fitted, score
from hsae_dagster.core.observations import HoldoutDesign
from hsae_dagster_tests.core.simulated_designs import (
    authors_with_labels,
    independent_texts,
    make_design,
    p_values,
    pairs_within_tests,
)
from hsae_dagster_tests.core.simulated_judges import corrected_once as corrected_from_gold
from hsae_dagster_tests.core.simulated_judges import judged_texts

Generator = np.random.Generator
ALPHA = 0.05


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    Attributes:
        name: in words.
        measure: what is observed: family-wise error, false discovery rate, rejection or coverage.
        nominal: what it should be (at most, for error rates).
        once: one simulation -> (ours, the one beside it: the reference's formula, or our earlier rule); NaN where
            there is none.
        audit: what the referee's audit found with our earlier rule; empty where the case is not theirs.
        draws: how many outcomes of one design `once` is the mean over.
    """

    name: str
    measure: str
    nominal: float
    once: Callable[[Generator], tuple[float, float]]
    audit: str = ""
    draws: int = 1

    @property
    def goal(self) -> str:
        """The nominal figure in words."""
        if self.measure == "true discoveries":
            return f"{self.nominal:g} there"
        if self.measure.startswith("found"):
            return "the more the better"
        return f"{'' if self.measure == 'coverage' else '≤ '}{100 * self.nominal:.3g} %"

    def holds(self, seen: float, repetitions: int) -> bool:
        """Whether a rate is at most nominal, or a coverage within two points of it, up to three standard errors.

        NaN says that no test was made.
        """
        if self.measure.startswith(("true", "found")) or np.isnan(seen):
            return True
        slack = 3 * float(np.sqrt(self.nominal * (1 - self.nominal) / repetitions / self.draws))
        return self.nominal - 0.02 - slack <= seen if self.measure == "coverage" else seen <= self.nominal + slack

    def observe(self, repetitions: int, seed: int) -> tuple[float, float]:
        """Means over repetitions: (ours, theirs)."""
        rng = np.random.default_rng(seed)
        found = np.array([self.once(rng) for _ in range(repetitions)])
        return tuple(np.nanmean(found[:, k]) if np.isfinite(found[:, k]).any() else np.nan for k in range(2))  # type: ignore[return-value]


def reference_p(design: HoldoutDesign, column: int) -> float:
    """The reference's separation p-value."""
    h, y = design.concepts[:, column], design.outcome
    held = np.concatenate([y[h == 1], -y[h == -1]]) if design.task == "pairwise" else y[h == 1]
    return float(stats.ttest_ind(held, y[h == 0]).pvalue)


def reference_p_values(design: HoldoutDesign, min_positives: int = 20) -> np.ndarray:
    """Of all columns that we would test too."""
    enough = (np.nan_to_num(design.concepts) != 0).sum(axis=0) >= min_positives
    return np.array([reference_p(design, j) if enough[j] else np.nan for j in range(design.concepts.shape[1])])


def _any_false(simulate: Callable[[Generator], HoldoutDesign], rng: Generator) -> tuple[float, float]:
    design = simulate(rng)
    ours, theirs = p_values(design), reference_p_values(design)
    return tuple(float(np.nanmin(holm(p), initial=1.0) < ALPHA) for p in (ours, theirs))  # type: ignore[return-value]


def family_wise(name: str, simulate: Callable[[Generator], HoldoutDesign]) -> Scenario:
    return Scenario(name, "family-wise error", ALPHA, partial(_any_false, simulate))


NULLS: Sequence[Scenario] = (
    family_wise("texts, prevalence 1 %", lambda rng: independent_texts(rng, n=3000, prevalence=0.01)),
    family_wise("texts, prevalence 3 %", lambda rng: independent_texts(rng, prevalence=0.03)),
    family_wise("texts, 3 %, outcome 10 %", lambda rng: independent_texts(rng, prevalence=0.03, base=0.1)),
    family_wise("texts, prevalence 10 %", lambda rng: independent_texts(rng)),
    family_wise("texts, prevalence 50 %", lambda rng: independent_texts(rng, prevalence=0.5)),
    family_wise("texts, scores", lambda rng: independent_texts(rng, gaussian=True)),
    family_wise("authors with labels", authors_with_labels),
    family_wise("authors, strong habits", lambda rng: authors_with_labels(rng, habit=0.3)),
    family_wise(
        "authors, 3 %, strong habits", lambda rng: authors_with_labels(rng, texts=20, prevalence=0.03, habit=0.3)
    ),
    family_wise("authors, 25 of them", lambda rng: authors_with_labels(rng, authors=25, prevalence=0.1, habit=0.5)),
    family_wise("authors, label 15 %", lambda rng: authors_with_labels(rng, base=0.15, habit=0.5)),
    family_wise("authors, scores", lambda rng: authors_with_labels(rng, gaussian=True, habit=0.5)),
    family_wise("pairs within tests", pairs_within_tests),
    family_wise("pairs, prevalence 3 %", lambda rng: pairs_within_tests(rng, prevalence=0.03)),
    family_wise("pairs, 40 tests", lambda rng: pairs_within_tests(rng, tests=40, prevalence=0.3)),
)


def _false_share(clustered: bool, rng: Generator) -> tuple[float, float]:
    """Five of twenty concepts matter; the share of false ones among those with q below alpha."""
    author = np.repeat(np.arange(100), 10) if clustered else np.arange(1000)
    habits = rng.beta(0.6, 2.4, size=(author.max() + 1, 20)) if clustered else np.full((1000, 20), 0.2)
    concepts = (rng.random((1000, 20)) < habits[author]).astype(float)
    own = rng.normal(size=author.max() + 1)[author] if clustered else 0.0
    outcome = concepts[:, :5].sum(axis=1) * 0.35 + own + rng.normal(size=1000)
    design = make_design(concepts, outcome, author, task="regression")
    shares = []
    for p in (p_values(design), reference_p_values(design)):
        found = np.nan_to_num(benjamini_hochberg(p), nan=1.0) < ALPHA
        shares.append(float(found[5:].sum() / max(found.sum(), 1)))
    return shares[0], shares[1]


DISCOVERIES: Sequence[Scenario] = (
    Scenario("texts, 5 of 20 true", "false discovery rate", ALPHA * 15 / 20, partial(_false_share, False)),
    Scenario("authors, 5 of 20 true", "false discovery rate", ALPHA * 15 / 20, partial(_false_share, True)),
)


def choice_data(rng: Generator, groups: int, size: int, *, pairs: bool = False) -> HoldoutDesign:
    """0/1 outcomes of a logit with two concepts that matter, one that does not, and habits of the clusters."""
    group = np.repeat(np.arange(groups), size)
    habit = rng.normal(size=(groups, 3))[group]
    h = (rng.random((len(group), 3)) < 1 / (1 + np.exp(1.2 - habit))).astype(float)
    if pairs:
        h -= rng.random((len(group), 3)) < 0.25
    drive = 0.8 * h[:, 0] - 0.5 * h[:, 1] + 0.7 * rng.normal(size=groups)[group] * (0.0 if pairs else 1.0)
    drive += 0.0 if pairs else -0.3
    y = rng.random(len(group)) < 1 / (1 + np.exp(-drive))
    return make_design(h, y, group, task="pairwise" if pairs else "classification")


def true_margins(*, pairs: bool) -> np.ndarray:
    """Average marginal effects of the logit in the population, from a fit to very many clusters."""
    design = choice_data(np.random.default_rng(99), 60_000, 8, pairs=pairs)
    constant = [] if pairs else [np.ones(len(design.outcome))]
    fit = sm.Logit(design.outcome, np.column_stack([design.concepts, *constant])).fit(disp=0)
    return np.asarray(fit.get_margeff(at="overall").margeff[:2])


def _margin_covered(truth: np.ndarray, pairs: bool, rng: Generator) -> tuple[float, float]:
    design = choice_data(rng, 80, 8, pairs=pairs)
    partial_effect = test_hypotheses(design)[0].partial
    constant = [] if pairs else [np.ones(len(design.outcome))]
    fit = sm.Logit(design.outcome, np.column_stack([design.concepts, *constant])).fit(disp=0)
    low, high = fit.get_margeff(at="overall").conf_int()[0]
    return float(partial_effect.low <= truth[0] <= partial_effect.high), float(low <= truth[0] <= high)


def _margin_rejected(pairs: bool, rng: Generator) -> tuple[float, float]:
    design = choice_data(rng, 80, 8, pairs=pairs)
    constant = [] if pairs else [np.ones(len(design.outcome))]
    theirs = sm.Logit(design.outcome, np.column_stack([design.concepts, *constant])).fit(disp=0).pvalues[2]
    return float(test_hypotheses(design)[2].partial.p_value < ALPHA), float(theirs < ALPHA)


def _separation_covered(task: str, clustered: bool, rng: Generator) -> tuple[float, float]:
    n = 600
    cluster = np.repeat(np.arange(100), 6) if clustered else np.arange(n)
    h = (rng.random(n) < 0.3).astype(float)
    if task == "pairwise":
        h -= rng.random(n) < 0.3
        y, truth = (rng.random(n) < 0.5 + 0.1 * h).astype(float), 0.1
    elif task == "classification":
        y, truth = (rng.random(n) < 0.3 + 0.2 * h).astype(float), 0.2
    else:
        habit = rng.normal(size=100)[cluster % 100] if clustered else 0.0
        h = (rng.random(n) < 1 / (1 + np.exp(1 - habit))).astype(float)
        y, truth = 0.4 * h + rng.normal(size=600)[cluster] + rng.normal(size=n), 0.4
    found = separation(make_design(h, y, cluster, task=task), 0)
    theirs = np.nan
    if task != "pairwise":
        interval = stats.ttest_ind(y[h == 1], y[h == 0]).confidence_interval(0.95)
        theirs = float(interval.low <= truth <= interval.high)
    return float(found.low <= truth <= found.high), theirs


def fit_data(rng: Generator, groups: int, task: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two predictors of which one matters, with clusters; the population's R² is 0.5 / 2.14."""
    group = np.repeat(np.arange(groups), 4)
    x = rng.normal(size=(groups, 2))[group] + rng.normal(size=(4 * groups, 2))
    drive = 0.5 * x[:, 0] + 0.8 * rng.normal(size=groups)[group]
    y = drive + rng.normal(size=4 * groups)
    return x, y if task == "regression" else (y > 0).astype(float), group


def true_fit(task: str) -> float:
    """The score of the population."""
    if task == "regression":
        return 0.5 / (0.5 + 0.64 + 1.0)
    x, y, group = fit_data(np.random.default_rng(100), 40_000, task)
    return score(task, y, cross_fitted(x, y, group, task, folds=2, seed=0).values)


def _fit_covered(truth: float, task: str, rng: Generator) -> tuple[float, float]:
    x, y, group = fit_data(rng, 120, task)
    seed = int(rng.integers(2**31))
    predicted = cross_fitted(x, y, group, task, folds=10, seed=seed)
    fit = Score(task, group, 300, seed).fit("x", "cross-fitted", y, predicted)
    return float(fit.low <= truth <= fit.high), np.nan


def _debiased_covered(prevalence: float, clustered: bool, rng: Generator) -> tuple[float, float]:
    found, _ = corrected_from_gold(rng, prevalence, clustered=clustered)
    _, judged, outcome, _ = judged_texts(rng, prevalence, clustered=clustered)
    interval = stats.ttest_ind(outcome[judged == 1], outcome[judged == 0]).confidence_interval(0.95)
    return float(found.corrected.low <= 0.2 <= found.corrected.high), float(interval.low <= 0.2 <= interval.high)


def effect_coverages(kind: str) -> list[Scenario]:
    """Coverage of effects, by kind: separation, marginal effect or predict-then-debias."""
    if kind == "separation":
        designs = (
            ("scores", "regression", False),
            ("scores, clustered", "regression", True),
            ("classes", "classification", False),
            ("pairs, clustered", "pairwise", True),
        )
        made = [(name, partial(_separation_covered, task, clustered)) for name, task, clustered in designs]
    elif kind == "marginal effect":
        made = [
            (name, partial(_margin_covered, true_margins(pairs=pairs), pairs))
            for name, pairs in (("classes, clustered", False), ("pairs, clustered", True))
        ]
    else:
        made = [
            (
                f"prevalence {prevalence:.0%}{', clustered' if clustered else ''}",
                partial(_debiased_covered, prevalence, clustered),
            )
            for prevalence in (0.1, 0.3)
            for clustered in (False, True)
        ]
    return [Scenario(f"{kind}, {name}", "coverage", 0.95, once) for name, once in made]


def coverages() -> list[Scenario]:
    """All coverage scenarios; making them takes a few seconds, for the truths of the population."""
    fits = [
        Scenario(f"cross-fitted {name}, clustered", "coverage", 0.95, partial(_fit_covered, true_fit(task), task))
        for name, task in (("AUC, classes", "classification"), ("AUC, pairs", "pairwise"), ("R²", "regression"))
    ]
    kinds = ("separation", "marginal effect", "predict-then-debias")
    return [*(scenario for kind in kinds for scenario in effect_coverages(kind)), *fits]


REJECTIONS: Sequence[Scenario] = (
    Scenario("marginal effect, classes, clustered", "rejection of a null", ALPHA, partial(_margin_rejected, False)),
    Scenario("marginal effect, pairs, clustered", "rejection of a null", ALPHA, partial(_margin_rejected, True)),
)
