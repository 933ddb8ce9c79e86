"""Rows that depend on each other: sums over shared units, degrees of freedom, the bootstrap, and error rates."""

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.inference.cluster_robust import _cr2, sharing_variance, wild_cluster_test
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


def test_the_bootstrap_agrees_with_t_where_clusters_are_many_and_alike():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(49), 4)
    h = (rng.random(len(groups)) < 0.5).astype(float)
    y = rng.normal(size=len(groups)) + 0.3 * h
    wild = wild_cluster_test(np.column_stack([h, np.ones_like(h)]), y, groups)
    found = separation(make_design(h, y, groups, task="regression"), 0)
    assert wild is not None
    assert wild.p_value == pytest.approx(found.p_value, abs=0.05)
    assert found.high - found.low >= 2 * wild.reach * (1 - 1e-9)


def test_clusters_of_one_composition_are_no_evidence():
    # Nothing varies between clusters, so the sandwich is rounding; the model's error is not.
    rng = np.random.default_rng(8)
    y = np.concatenate([rng.permutation(np.repeat([0.0, 1.0], 7)) for _ in range(50)])
    groups = np.repeat(np.arange(50), 14)
    found = separation(make_design((groups < 11).astype(float), y, groups), 0)
    assert found.p_value > 0.9 and found.high - found.low > 0.1


def test_skewed_effects_of_clusters_that_rows_do_not_show_are_called_less_as_rarely_as_promised():
    # 80 % in one cluster of six, 45 % in the others; by a law of t for normal errors it was 2.5 %.
    rng, groups, called = np.random.default_rng(9), np.repeat(np.arange(100), 100), 0
    for _ in range(300):
        rate = np.where(rng.random(100) < 1 / 6, 0.8, 0.45)
        y = (rng.random(len(groups)) < rate[groups]).astype(float)
        h = np.isin(groups, rng.permutation(100)[:10]).astype(float)
        found = separation(make_design(h, y, groups), 0)
        called += found.estimate < 0 and found.p_value / 2 < 0.05 / 20
    assert called <= 3


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
