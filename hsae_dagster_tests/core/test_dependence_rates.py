"""Rows that depend on each other: sums over shared units, degrees of freedom, the bootstrap, and error rates."""

import numpy as np
import pytest

from hsae_dagster.core.inference.cluster_robust import _cr2, sharing_variance, wild_cluster_test
from hsae_dagster.core.inference.effects import separation
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
    _, freedom = _cr2(q, residual, directions, groups, 12, correlation)
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
    "perfect marker in the sample": (60, 0.0),
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
    repetitions = 60 if scenario.measure == "family-wise error" else 300
    assert scenario.holds(scenario.observe(repetitions, 5)[0], repetitions)
