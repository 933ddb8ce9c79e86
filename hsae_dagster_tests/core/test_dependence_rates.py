"""Rows that depend on each other: sums over shared units, degrees of freedom, the law of t, and error rates."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.inference.cluster_robust import (
    _along,
    _blocks,
    _covariance,
    _cr2,
    _form,
    _Law,
    _unbiased_correlation,
    law_of_t,
    sharing_variance,
)
from hsae_dagster.core.inference.effects import adjusted_separation, separation
from hsae_dagster_tests.core import simulated_audit, simulated_dependence
from hsae_dagster_tests.core.simulated_audit import AUDIT
from hsae_dagster_tests.core.simulated_designs import make_design


@pytest.mark.parametrize("ways", [2, 3])
def test_the_sum_over_shared_units_is_that_over_all_pairs_of_rows(ways):
    rng = np.random.default_rng(ways)
    units, scores = rng.integers(0, 9, (60, ways)), rng.normal(size=(60, 2)) + 0.5
    shares = np.array([[bool(set(a) & set(b)) for b in units] for a in units])
    full = np.einsum("ik,ij,jk->k", scores, shares, scores)
    assert sharing_variance(scores, units) == pytest.approx(np.maximum(full, (scores**2).sum(axis=0)))


@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_degrees_of_freedom_are_those_of_imbens_and_kolesar(correlation):
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    n = len(groups)
    x = np.column_stack([rng.normal(size=n) + (groups % 3 == 0), np.ones(n)])
    q, r = np.linalg.qr(x)
    directions, residual = np.linalg.inv(r), rng.normal(size=n)
    _, freedom = _cr2(q, residual, directions, groups, correlation)
    errors = (1 - correlation) * np.eye(n) + correlation * (groups[:, None] == groups)
    for j, direction in enumerate(directions):
        columns = []
        for g in range(12):
            own = groups == g
            values, vectors = np.linalg.eigh(np.eye(own.sum()) - q[own] @ q[own].T)
            weight = np.zeros(n)
            weight[own] = vectors @ np.diag(1 / np.sqrt(values)) @ vectors.T @ q[own] @ direction
            columns.append(weight - q @ (q.T @ weight))
        spread = np.column_stack(columns).T @ errors @ np.column_stack(columns)
        assert freedom[j] == pytest.approx(np.trace(spread) ** 2 / np.trace(spread @ spread))


def law_and_parts(x, groups, correlation):
    """The law of the first column's t, that column's direction among the orthonormal ones, these, and CR2's weights."""
    q, r = np.linalg.qr(x)
    direction, n_groups = np.linalg.inv(r)[0], groups[-1] + 1
    sums = np.column_stack([np.bincount(groups, column) for column in q.T])
    along, gram = np.empty((n_groups, x.shape[1])), np.empty((n_groups, x.shape[1], x.shape[1]))
    for block, block_gram, _, open_, vectors in _blocks(q, np.zeros(len(x)), groups):
        along[block], gram[block] = _along(direction, open_, vectors), block_gram
    own, factors = _covariance(along, gram, sums, correlation)
    form = _form((1 - correlation) * np.eye(x.shape[1]) + correlation * sums.T @ sums)
    return _Law(direction, own, factors, form), direction, q, along


@pytest.mark.parametrize("each", [2, 3, 20])
def test_for_equal_clusters_the_law_is_students_t_of_their_means(each):
    rng = np.random.default_rng(each)
    groups = np.repeat(np.arange(2 * each), 4)
    h, y = (groups % 2).astype(float), rng.normal(size=2 * each)[groups] + rng.normal(size=len(groups))
    x = np.column_stack([h, np.ones_like(h)])
    law = law_and_parts(x, groups, 0.5)[0]
    for t in (0.1, 1, 5, 30, 1000):
        assert law.tail(t) == pytest.approx(2 * stats.t.sf(t, 2 * each - 2), rel=1e-5)
    # Where one side may vary more than the other, degrees of freedom are between its own and those of both.
    found = law_of_t(x, y, groups, "x")
    means = np.bincount(groups, y) / 4
    alike, unlike = (
        stats.ttest_ind(means[1::2], means[::2]),
        stats.t.sf(abs(found.estimate) / found.standard_error, each - 1),
    )
    assert alike.pvalue < found.p_value < 2 * unlike
    assert found.standard_error == pytest.approx(
        (alike.confidence_interval().high - found.estimate) / stats.t.ppf(0.975, 2 * each - 2)
    )
    assert each - 1 <= found.degrees_of_freedom <= 2 * each - 2


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("level", ["clusters", "texts"])
def test_the_law_is_how_often_t_is_so_large_by_simulation(level, correlation):
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(10), [60, 25, 9, 7, 5, 4, 3, 3, 2, 2])
    n = len(groups)
    h = np.isin(groups, [0, 3, 5, 8]) if level == "clusters" else rng.random(n) < rng.random(10)[groups]
    law, direction, q, along = law_and_parts(np.column_stack([h, np.ones(n), rng.normal(size=n)]), groups, correlation)
    y = rng.normal(size=(10, 40_000))[groups] * correlation**0.5
    y += rng.normal(size=(n, 40_000)) * (1 - correlation) ** 0.5
    residual = y - q @ (q.T @ y)
    parts = [along[g] @ q[groups == g].T @ residual[groups == g] for g in range(10)]
    t = np.abs(direction @ q.T @ y) / np.sqrt(np.sum(np.square(parts), axis=0))
    for c in (0.5, 1.0, 2.0, 4.0, 8.0):
        seen = float((t > c).mean())
        assert law.tail(c) == pytest.approx(seen, abs=4 * np.sqrt(seen * (1 - seen) / len(t)) + 1e-4)
    assert law.tail(law.beyond_in(0.05)) == pytest.approx(0.05, rel=1e-4)
    robust = _cr2(q, residual[:, 0], direction[None], groups)[0]
    assert np.sum(np.square(parts), axis=0)[:1] == pytest.approx(robust)


def test_a_tail_too_small_to_be_computed_is_a_bound_above_it_and_never_0():
    groups = np.repeat(np.arange(60), 5)
    law = law_and_parts(np.column_stack([groups < 20, np.ones(300)]), groups, 0.3)[0]
    tails = [law.tail(10.0**k) for k in range(12)]
    assert all(a >= b > 0 for a, b in pairwise(tails))
    assert law.tail(100) == pytest.approx(2 * stats.t.sf(100, 58), rel=0.5)
    assert separation(make_design(groups < 20, (groups < 20) * 1e9 + np.arange(300), groups), 0).p_value > 0


def test_many_clusters_and_controls_need_no_more_memory_than_their_rows():
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(9_000), 2)
    x = np.column_stack([groups % 400 == 0, np.ones(len(groups)), rng.normal(size=(len(groups), 20))])
    tracemalloc.start()
    found = law_of_t(x, rng.normal(size=len(groups)), groups, "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < found.p_value <= 1
    assert peak < 40 * x.nbytes


def test_the_correlation_within_clusters_is_unbiased_whatever_was_fitted():
    rng, found = np.random.default_rng(5), []
    groups = np.repeat(np.arange(20), rng.integers(1, 30, 20))
    q = np.linalg.qr(np.column_stack([groups < 5, np.ones(len(groups)), rng.normal(size=len(groups))]))[0]
    sums = np.column_stack([np.bincount(groups, column) for column in q.T])
    for _ in range(400):
        y = rng.normal(size=20)[groups] + rng.normal(size=len(groups))
        found.append(_unbiased_correlation(y - q @ (q.T @ y), groups, sums))
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)


def test_few_clusters_with_a_concept_are_not_tested_more_cautiously_than_promised():
    # The larger of two errors, with too few degrees of freedom, rejected true nulls of this design in 0.5 %.
    rng = np.random.default_rng(6)
    seen = [simulated_dependence.unequal(100, 10, 1.5, "cluster", rng)[0] for _ in range(300)]
    assert 0.02 < np.nanmean(seen) < 0.08


@pytest.mark.parametrize(("n", "n_with", "chance"), [(1000, 50, 0.2), (1000, 80, 0.1), (300, 60, 0.1), (1000, 20, 0.5)])
def test_few_outcomes_of_rows_on_their_own_are_called_less_as_rarely_as_promised(n, n_with, chance):
    # All outcomes of the rows with the concept, the others as expected; by the law of t alone it was 0.4 to 1.6 %.
    h, least = (np.arange(n) < n_with).astype(float), round((n - n_with) * chance)
    wrong = 0.0
    for k in range(round(n_with * chance) + 1):
        y = np.zeros(n)
        y[:k] = y[n_with : n_with + least] = 1
        found = separation(make_design(h, y), 0)
        if found.estimate < 0 and found.p_value / 2 < 0.05 / 20:
            wrong += float(stats.binom.pmf(k, n_with, chance))
    assert wrong <= 0.05 / 20


def test_clusters_of_three_rows_with_skewed_outcomes_are_called_less_as_rarely_as_promised():
    # By the law of t, with the model's error weighted by the effect's skewness, not by ten times that, it was 1.3 %.
    values = np.random.default_rng(7).exponential(size=(4000, 400))
    groups, h = np.repeat(np.arange(400), 3), np.repeat(np.arange(400) < 40, 3)
    theirs, others = values[:, :40], values[:, 40:]
    error = np.sqrt(theirs.var(axis=1) / 40 + others.var(axis=1) / 360)
    called = [
        separation(make_design(h, own[groups], groups, task="regression"), 0).p_value / 2 < 0.05 / 20
        for own in values[theirs.mean(axis=1) < others.mean(axis=1) - 2.5 * error]
    ]
    assert len(called) > 50
    assert sum(called) / 4000 <= 0.0025 + 3 * np.sqrt(0.0025 / 4000)


def test_an_exact_fit_with_controls_held_constant_has_an_interval_and_a_p_value_too():
    h, control = np.tile([1.0, 0.0], 30), np.arange(60.0)
    design = make_design(h, 3 * h + control, controls=control, task="regression")
    found = adjusted_separation(design, 0)
    assert found.low < found.high == pytest.approx(3.0)
    assert 0 < found.p_value < 1e-6
    assert adjusted_separation(make_design(h, control, controls=control, task="regression"), 0).p_value > 0.5


@pytest.mark.parametrize("task", ["classification", "pairwise", "regression"])
def test_a_perfect_marker_has_an_interval_of_some_width(task):
    h = np.repeat([1.0, 0.0], 30) if task != "pairwise" else np.tile([1.0, -1.0], 30)
    y = 3.0 * h if task == "regression" else (h > 0).astype(float)
    found = separation(make_design(h, y, task=task), 0)
    assert found.low < found.high == found.estimate
    wider = separation(make_design(h[20:40], y[20:40], task=task), 0)
    assert wider.low < found.low


# The table of docs/inference.md (`python benchmarks/error_rates.py`) with few repetitions: the quick ones here could
# fail only where something is plainly wrong, the slow ones measure.
QUICK = {
    "stock phrases, 15 % of rows": (60, 0.08),
    "10 clusters, lognormal, the largest and 4 more with": (60, 0.0),
    "1,000 pairs of 50 items": (5, 0.5),
    "time trends": (12, 0.1),
    "false positives 10.0% / 2.5% by outcome, 400 gold labels": (20, 0.7),
    "2% missing, the worst ones": (3, 0.5),
    "200 gold labels, 2% with, sensitivity 0.6, false positives 2%": (100, np.nan),
    "marker right in 98 of 100, 60 texts": (60, np.nan),
}


@pytest.mark.parametrize("name", QUICK)
def test_a_case_of_the_audit_holds_now_and_did_not_before(name):
    (scenario,) = [scenario for scenario in AUDIT if scenario.name == name]
    repetitions, least_before = QUICK[name]
    now, before = scenario.observe(repetitions, 5)
    assert scenario.holds(now, repetitions)
    assert np.isnan(before) or before >= least_before


@pytest.mark.slow
@pytest.mark.parametrize("scenario", AUDIT, ids=lambda scenario: f"{scenario.name}, {scenario.measure}")
def test_nothing_is_confirmed_more_often_than_promised(scenario, monkeypatch):
    # What was decided before is not looked at here, and is a sixth of the time.
    for module in (simulated_audit, simulated_dependence):
        monkeypatch.setattr(module, "earlier_p", lambda design, column: np.nan)
    repetitions = 60 if scenario.measure == "family-wise error" or scenario.draws > 1 else 300
    assert scenario.holds(scenario.observe(repetitions, 5)[0], repetitions)
