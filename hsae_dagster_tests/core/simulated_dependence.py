"""Nulls on data whose rows depend on each other, as they are treated now and as they were: for tests and a benchmark.

Every scenario simulates one holdout (or one training half and one holdout) with twenty concepts that have nothing to do
with the outcome, and says whether anything was confirmed: now, and by the rules of November 2026 (rows alike in
text and outcome are one; one cluster column; Bell and McCaffrey's degrees of freedom).
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from scipy import stats

from hsae_dagster.core.inference import cluster_robust
from hsae_dagster.core.inference.effects import holm, separation, sign_flip_p, untestable
from hsae_dagster.core.observations import HoldoutDesign, with_blocks
from hsae_dagster_tests.core.simulated_designs import make_design
from hsae_dagster_tests.core.simulated_rates import ALPHA, Scenario

Generator = np.random.Generator
H = 20


def earlier_p(design: HoldoutDesign, column: int) -> float:
    """The p-value of the rule before: CR2 or model, Bell and McCaffrey's degrees of freedom, one cluster column."""
    h, y = design.concepts[:, column], design.outcome
    groups = np.unique(design.clusters, return_inverse=True)[1]
    if design.task == "pairwise":
        return sign_flip_p(np.bincount(groups, h * (y - 0.5)))
    x = np.column_stack([h, np.ones_like(h)])
    q, r = np.linalg.qr(x)
    beta = np.linalg.solve(r, q.T @ y)
    residual, directions = y - x @ beta, np.linalg.inv(r)[:1]
    variance, freedom = cluster_robust._cr2(q, residual, directions, groups)
    correlation = cluster_robust.within_correlation(residual, groups)
    error_variance = float(residual @ residual) / (len(y) - 2)
    model = cluster_robust._moulton(q @ directions.T, groups, correlation, error_variance)
    error = float(np.sqrt(max(variance[0], model[0])))
    return float(2 * stats.t.sf(abs(beta[0]) / error, freedom[0])) if error > 0 else 0.0


def any_confirmed(now: HoldoutDesign, before: HoldoutDesign | None = None) -> tuple[float, float]:
    """Whether Holm confirms anything, now and before."""
    before = now if before is None else before
    ours = np.array([separation(now, j).p_value for j in range(now.concepts.shape[1])])
    theirs = np.array([earlier_p(before, j) for j in range(before.concepts.shape[1])])
    return tuple(float(np.nanmin(holm(p), initial=1.0) < ALPHA) for p in (ours, theirs))  # type: ignore[return-value]


def stock_phrases(rng: Generator) -> tuple[float, float]:
    """1,000 replies, 15 % of them one of 100 phrases, of which most have the concept; 85 % are positive throughout."""
    n, stock = 1000, rng.random(1000) < 0.15
    text = np.where(stock, rng.integers(0, 100, n), 100 + np.arange(n))
    concept = (rng.random(1100) < np.where(np.arange(1100) < 100, 0.9, 0.05))[text].astype(float)
    outcome = (rng.random(n) < 0.85).astype(float)
    kept = np.unique(np.column_stack([text, outcome]), axis=0, return_index=True)[1]
    return any_confirmed(make_design(concept, outcome, text), make_design(concept[kept], outcome[kept], text[kept]))


def shared_texts(variance: float, rng: Generator) -> tuple[float, float]:
    """150 texts, each by about ten of 300 authors; outcomes have an author's and a text's part."""
    author = np.repeat(np.arange(300), 5)
    text = rng.integers(0, 150, len(author))
    concepts = (rng.random((150, H)) < 0.2)[text].astype(float)
    outcome = rng.normal(size=150)[text] * np.sqrt(variance) + rng.normal(size=300)[author] * np.sqrt(0.2)
    outcome += rng.normal(size=len(author)) * np.sqrt(0.8 - variance)
    now = HoldoutDesign(concepts, outcome, author, np.empty((len(author), 0)), "regression", text[:, None])
    return any_confirmed(now, make_design(concepts, outcome, author, task="regression"))


def templates(rng: Generator) -> tuple[float, float]:
    """1,000 texts, 20 % of them made from 15 templates that have outcomes of their own."""
    n = 1000
    family = np.where(rng.random(n) < 0.2, rng.integers(0, 15, n), 15 + np.arange(n))
    concepts = (rng.random((n + 15, H)) < 0.2)[family].astype(float)
    outcome = rng.normal(size=n + 15)[family] * np.sqrt(0.5) + rng.normal(size=n) * np.sqrt(0.5)
    own = np.arange(n)
    return any_confirmed(
        make_design(concepts, outcome, family, task="regression"),
        make_design(concepts, outcome, own, task="regression"),
    )


def copies_on_both_sides(size: int, rng: Generator) -> tuple[float, float]:
    """2,000 texts, half in families of `size`; the best 20 of 200 concepts of one half are tested on the other."""
    n = 2000
    family = np.concatenate([np.repeat(np.arange(n // 2 // size), size), n + np.arange(n - n // 2 // size * size)])
    number = np.unique(family, return_inverse=True)[1]
    own = rng.normal(size=number.max() + 1)[number] * np.sqrt(0.5)
    concepts = (rng.random((number.max() + 1, 200)) < 0.2)[number].astype(float)
    outcome = own + rng.normal(size=n) * np.sqrt(0.5)
    found = []
    for cluster in (number, np.arange(n)):
        train = (rng.random(cluster.max() + 1) < 0.5)[cluster]
        centred = concepts[train] - concepts[train].mean(axis=0)
        size_ = np.abs(centred.T @ (outcome[train] - outcome[train].mean())) / np.sqrt((centred**2).sum(axis=0))
        best = np.argsort(-size_)[:H]
        test = make_design(concepts[~train][:, best], outcome[~train], cluster[~train], task="regression")
        found.append(any_confirmed(test))
    return found[0][0], found[1][1]


def pairs_of_items(items: int, rng: Generator) -> tuple[float, float]:
    """1,000 pairs of so many items, whose quality decides; no cluster is declared."""
    a, b = rng.integers(0, items, 1000), rng.integers(0, items, 1000)
    keep = a != b  # of an item with itself there is no pair
    a, b = a[keep], b[keep]
    quality, has = rng.normal(size=items), (rng.random((items, H)) < 0.2).astype(float)
    outcome = (quality[a] - quality[b] + 0.5 * rng.normal(size=len(a)) > 0).astype(float)
    pair = np.minimum(a, b) * items + np.maximum(a, b)
    concepts, none = has[a] - has[b], np.empty((len(a), 0))
    now = HoldoutDesign(concepts, outcome, pair, none, "pairwise", np.column_stack([a, b]))
    return any_confirmed(now, make_design(concepts, outcome, pair, task="pairwise"))


def unequal(
    groups: int, treated: int, spread: float, level: str, rng: Generator, *, largest: bool = False
) -> tuple[float, float]:
    """One test on `groups` clusters of lognormal size; the concept belongs to clusters (the largest) or to texts.

    NaN where it is refused, so that the rate is that of tests that are made.
    """
    if spread:
        sizes = np.maximum(2, np.rint(10 * np.exp(rng.normal(0, spread, groups) - spread**2 / 2))).astype(int)
    else:
        sizes = np.full(groups, 10)
    cluster = np.repeat(np.arange(groups), sizes)
    order = rng.permutation(groups)
    order = np.append(sizes.argmax(), order[order != sizes.argmax()]) if largest else order
    has = np.isin(np.arange(groups), order[:treated])
    habit = rng.beta(0.6, 1.4, groups) if level == "text" else has
    concept = (rng.random(len(cluster)) < habit[cluster]).astype(float)
    outcome = rng.normal(size=groups)[cluster] * np.sqrt(0.5) + rng.normal(size=len(cluster)) * np.sqrt(0.5)
    design = make_design(concept, outcome, cluster, task="regression")
    if np.ptp(concept) == 0:
        return np.nan, np.nan
    made = untestable(design, 0, 1) is None
    return float(separation(design, 0).p_value < ALPHA) if made else np.nan, float(earlier_p(design, 0) < ALPHA)


DRAWS = 50


def called_less(kind: float | str, clusters: int, treated: int, share: float, rng: Generator) -> tuple[float, float]:
    """Share of 50 outcomes of one design by which a null is said to have less at α / 20, one-sided.

    1,000 rows on their own of which `share` have the concept, or 50 clusters of lognormal size, about 20 rows each, of
    which `treated` have it, in all of their rows or in as many as make the share. Outcomes are 0/1 with the chance
    `kind`, lognormal or normal; clusters have a part in them. Rare and skewed ones err in this direction.
    """
    if clusters:
        cluster = np.repeat(
            np.arange(clusters), np.maximum(2, np.rint(20 * np.exp(rng.normal(size=clusters) - 0.5)).astype(int))
        )
        has = np.isin(cluster, rng.permutation(clusters)[:treated]) & (
            rng.random(len(cluster)) < share * clusters / treated
        )
    else:
        cluster, has = np.arange(1000), np.arange(1000) < 1000 * share
    n, groups = len(cluster), cluster[-1] + 1
    if isinstance(kind, float):
        habits = rng.beta(9 * kind, 9 * (1 - kind), size=(groups, DRAWS))
        outcomes = (rng.random((n, DRAWS)) < habits[cluster]).astype(float)
    else:
        part = 0.5 if kind == "lognormal" else 0.3
        outcomes = rng.normal(size=(groups, DRAWS))[cluster] * np.sqrt(part)
        outcomes += rng.normal(size=(n, DRAWS)) * np.sqrt(1 - part)
        outcomes = np.exp(outcomes) if kind == "lognormal" else outcomes
    if untestable(make_design(has, outcomes[:, 0], cluster), 0, 20) is not None:
        return np.nan, np.nan
    # No test says less where the ratio to the plain sandwich error is smaller than that to the normal distribution's.
    weights = np.where(has, 1 / has.sum(), -1 / (n - has.sum()))
    effects = weights @ outcomes
    left = outcomes - np.where(has[:, None], outcomes[has].mean(axis=0), outcomes[~has].mean(axis=0))
    scores = np.array([np.bincount(cluster, weights * column) for column in left.T])
    found = np.zeros((DRAWS, 2))
    for k in np.flatnonzero(-effects > 2.6 * np.sqrt((scores**2).sum(axis=1))):
        design = make_design(has, outcomes[:, k], cluster, task="regression")
        found[k] = separation(design, 0).p_value / 2, earlier_p(design, 0) / 2
        found[k] = found[k] < ALPHA / H
    return float(found[:, 0].mean()), float(found[:, 1].mean())


def drifts(rng: Generator, days: int, k: int, memory: float = 0.98) -> np.ndarray:
    """(days, k) slow trends of mean 0 and variance 1: each day remembers `memory` of the day before."""
    made = rng.normal(size=(days, k))
    for day in range(1, days):
        made[day] = memory * made[day - 1] + np.sqrt(1 - memory**2) * made[day]
    return made


def a_year(clustered: bool, memory: float, rng: Generator) -> tuple[HoldoutDesign, HoldoutDesign]:
    """Held-out days, three texts each; 21 independent trends, one of them a tenth of the outcome's variance.

    With `clustered`, texts are of 200 authors who write all year, and have an author's part of the outcome.
    """
    day = np.repeat(np.arange(365), 3)
    trend = drifts(rng, 365, H + 1, memory)[day]
    author = rng.integers(0, 200, len(day)) if clustered else np.arange(len(day))
    own = rng.normal(size=200)[author] * np.sqrt(0.2) if clustered else 0.0
    concepts = (rng.random((len(day), H)) < 1 / (1 + np.exp(1.5 - trend[:, :H]))).astype(float)
    noise = rng.normal(size=len(day)) * np.sqrt(0.7 if clustered else 0.9)
    outcome = np.sqrt(0.1) * trend[:, H] + own + noise
    clusters, units = with_blocks(day.astype(float), author, None)
    now = HoldoutDesign(concepts, outcome, clusters, np.empty((len(day), 0)), "regression", units)
    return now, make_design(concepts, outcome, author, task="regression")


def time_trends(clustered: bool, rng: Generator) -> tuple[float, float]:
    """Whether anything is confirmed, now and before, where each day remembers 0.98 of the day before."""
    return any_confirmed(*a_year(clustered, 0.98, rng))


def in_time_covered(memory: float, rng: Generator) -> tuple[float, float]:
    """Share of the concepts, of which none has an effect, whose intervals say so, now and before."""
    now, before = a_year(False, memory, rng)
    found = [separation(now, j) for j in range(H)]
    return float(np.mean([e.low <= 0 <= e.high for e in found])), float(
        np.mean([earlier_p(before, j) >= ALPHA for j in range(H)])
    )


def _family(name: str, once: Callable[[Generator], tuple[float, float]], audit: str) -> Scenario:
    return Scenario(name, "family-wise error", ALPHA, once, audit)


UNEQUAL = [
    *((6, 3, 0.0), (10, 5, 0.0), (50, 25, 0.0)),
    *((10, 5, 1.5), (20, 10, 1.5), (50, 25, 1.5), (100, 10, 1.5), (500, 50, 1.5)),
]
AUDITED = {(10, 5, 1.5): "7.0 %", (20, 10, 1.5): "7.9 %", (50, 25, 1.5): "7.9 %"}
# Two of ten: a concept that one cluster alone has is not tested at all.
LARGEST = [(10, 1, "11.5 %"), (10, 2, ""), (10, 5, ""), (20, 2, ""), (20, 5, "")]
DEPENDENT: Sequence[Scenario] = (
    Scenario("stock phrases, 15 % of rows", "rejection of a null", ALPHA, stock_phrases, "100 %"),
    _family("150 texts of 300 authors, text variance .5", partial(shared_texts, 0.5), "96 %"),
    _family("150 texts of 300 authors, text variance .1", partial(shared_texts, 0.1), "45 %"),
    _family("20 % of rows from 15 templates", templates, "50 %"),
    _family("copies in train and holdout, families of 5", partial(copies_on_both_sides, 5), "8.7 %"),
    _family("copies in train and holdout, families of 20", partial(copies_on_both_sides, 20), "67 %"),
    _family("1,000 pairs of 1,000 items", partial(pairs_of_items, 1000), "12 %"),
    _family("1,000 pairs of 200 items", partial(pairs_of_items, 200), "59 %"),
    _family("1,000 pairs of 50 items", partial(pairs_of_items, 50), "98.5 %"),
    _family("time trends", partial(time_trends, False), "58 %"),
    _family("time trends, 200 authors throughout", partial(time_trends, True), ""),
    *(
        Scenario(f"time trends that remember {days} days", "coverage", 0.95, partial(in_time_covered, 1 - 1 / days))
        for days in (50, 100)
    ),
    *(
        Scenario(
            f"{groups} clusters ({treated} with), {'lognormal' if spread else 'equal'}, concept of {level}s",
            "rejection of a null",
            ALPHA,
            partial(unequal, groups, treated, spread, level),
            AUDITED.get((groups, treated, spread), "") if level == "cluster" else "",
        )
        for groups, treated, spread in UNEQUAL
        for level in ("cluster", "text")
    ),
    *(
        Scenario(
            f"{groups} clusters, lognormal, the largest {f'and {treated - 1} more ' if treated > 1 else 'alone '}with",
            "rejection of a null",
            ALPHA,
            partial(unequal, groups, treated, 1.5, "cluster", largest=True),
            audit,
        )
        for groups, treated, audit in LARGEST
    ),
    *(
        Scenario(
            f"{f'outcome 1 in {kind:.0%}' if isinstance(kind, float) else f'{kind} outcome'}, {share:.0%} with, "
            + (f"{treated} of {clusters} clusters" if clusters else "rows on their own"),
            "called confirmed at α / 20",
            ALPHA / H,
            partial(called_less, kind, clusters, treated, share),
            draws=DRAWS,
        )
        for kind, clusters, treated, share in (
            *(
                (kind, clusters, treated, share)
                for kind in (0.03, 0.1, "lognormal")
                for clusters, treated in ((0, 0), (50, 10))
                for share in (0.05, 0.2)
            ),
            ("normal", 50, 5, 0.1),
        )
    ),
)
