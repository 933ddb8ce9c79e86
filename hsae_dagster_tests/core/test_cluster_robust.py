"""Standard errors: against brute force, statsmodels, Welch, and derivatives taken by hand."""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from hsae_dagster.core.inference.cluster_robust import (
    _cr2,
    cluster_ols,
    effect,
    logit_margins,
    whole_clusters,
    within_correlation,
)


def clustered(seed, n_clusters=40, size=6, p=3):
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(n_clusters), rng.poisson(size - 1, n_clusters) + 1)
    x = rng.normal(size=(n_clusters, p))[clusters] + rng.normal(size=(len(clusters), p))
    x[:, -1] = 1.0
    y = x[:, 0] * 0.5 + rng.normal(size=n_clusters)[clusters] + rng.normal(size=len(clusters))
    return x, y, clusters, rng


def cr2_by_definition(x, y, clusters):
    """CR2 variances and Bell-McCaffrey degrees of freedom with every n × n matrix written out."""
    n, p = x.shape
    bread = np.linalg.inv(x.T @ x)
    annihilator = np.eye(n) - x @ bread @ x.T
    residual = annihilator @ y
    variances, freedom = [], []
    for j in range(p):
        columns, meat = [], 0.0
        for g in np.unique(clusters):
            rows = np.flatnonzero(clusters == g)
            value, vector = np.linalg.eigh(annihilator[np.ix_(rows, rows)])
            adjust = vector @ np.diag(value**-0.5) @ vector.T
            weight = adjust @ x[rows] @ bread[:, j]
            meat += (weight @ residual[rows]) ** 2
            columns.append(annihilator[:, rows] @ weight)
        eigen = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
        variances.append(meat)
        freedom.append(eigen.sum() ** 2 / (eigen**2).sum())
    return np.array(variances), np.array(freedom)


def test_cr2_and_its_degrees_of_freedom_equal_their_definition():
    x, y, clusters, _ = clustered(0, n_clusters=12)
    variances, freedom = cr2_by_definition(x, y, clusters)
    q, r = np.linalg.qr(x)
    residual = y - q @ (q.T @ y)
    groups = np.unique(clusters, return_inverse=True)[1]
    ours, our_freedom = _cr2(q, residual, np.linalg.inv(r), groups)
    np.testing.assert_allclose(ours, variances, rtol=1e-9)
    np.testing.assert_allclose(our_freedom, freedom, rtol=1e-9)
    assert (our_freedom < 11).all()


def test_estimate_and_cluster_robust_error_agree_with_statsmodels():
    x, y, clusters, _ = clustered(1, n_clusters=400)
    theirs = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    naive = sm.OLS(y, x).fit()
    ours = cluster_ols(x, y, clusters, "ols")
    np.testing.assert_allclose([e.estimate for e in ours], theirs.params, rtol=1e-9)
    # Theirs is CR1: with 400 clusters the small-sample corrections differ by a hundredth or two.
    errors = np.array([e.standard_error for e in ours])
    assert (errors >= 0.99 * theirs.bse).all()
    np.testing.assert_allclose(errors, theirs.bse, rtol=0.1)
    assert (errors > 1.3 * naive.bse).all()


def test_without_clusters_the_robust_part_is_hc2():
    rng = np.random.default_rng(2)
    h = (rng.random(300) < 0.2).astype(float)
    y = rng.normal(size=300) * (1 + 3 * h)
    x = np.column_stack([h, np.ones(300)])
    ours = cluster_ols(x, y, np.arange(300), "ols")[0]
    assert ours.standard_error == pytest.approx(sm.OLS(y, x).fit(cov_type="HC2").bse[0], rel=1e-9)
    a, b = y[h == 1], y[h == 0]
    welch = np.sqrt(a.var(ddof=1) / len(a) + b.var(ddof=1) / len(b))
    assert ours.standard_error == pytest.approx(welch, rel=1e-9)


def test_the_classical_error_is_taken_where_it_is_larger():
    h = np.r_[np.ones(20), np.zeros(180)]
    y = np.r_[np.zeros(20), np.tile([0.0, 0, 0, 0, 0, 0, 0, 0, 1, 0], 18)]
    x = np.column_stack([h, np.ones(200)])
    ours, classical = cluster_ols(x, y, np.arange(200), "ols")[0], sm.OLS(y, x).fit()
    assert ours.standard_error == pytest.approx(classical.bse[0], rel=1e-9)
    assert ours.p_value > 0.1 > 1e-5 > sm.OLS(y, x).fit(cov_type="HC1").pvalues[0]


def test_moulton_error_of_author_level_labels_is_that_of_author_means():
    # Equal clusters, concept and outcome constant within each: the data are the author means, and nothing more.
    rng = np.random.default_rng(3)
    h, label = np.repeat([1.0, 0.0], [8, 32]), rng.normal(size=40)
    author = np.repeat(np.arange(40), 7)
    x = np.column_stack([h[author], np.ones(280)])
    means = sm.OLS(label, np.column_stack([h, np.ones(40)])).fit()
    ours = cluster_ols(x, label[author], author, "ols")[0]
    assert ours.estimate == pytest.approx(means.params[0])
    assert ours.standard_error >= 0.97 * means.bse[0]
    assert ours.degrees_of_freedom < 20


def test_degrees_of_freedom_of_a_difference_in_means_without_clusters():
    # Imbens and Kolesar (2016), section II: (n0 + n1)^2 (n0 - 1)(n1 - 1) / (n1^2 (n1 - 1) + n0^2 (n0 - 1)).
    h = np.r_[np.ones(5), np.zeros(45)]
    y = np.random.default_rng(4).normal(size=50)
    ours = cluster_ols(np.column_stack([h, np.ones(50)]), y, np.arange(50), "ols")[0]
    assert ours.degrees_of_freedom == pytest.approx(50**2 * 44 * 4 / (5**2 * 4 + 45**2 * 44), rel=1e-9)


def test_row_order_and_cluster_names_do_not_matter():
    x, y, clusters, rng = clustered(5)
    shuffled = rng.permutation(len(y))
    names = np.array([f"author {c}" for c in clusters])
    for a, b in zip(
        cluster_ols(x, y, clusters, "ols"), cluster_ols(x[shuffled], y[shuffled], names[shuffled], "ols"), strict=True
    ):
        assert (b.estimate, b.standard_error, b.p_value) == pytest.approx((a.estimate, a.standard_error, a.p_value))


def test_a_cluster_that_alone_decides_a_coefficient_leaves_it_unestimated_or_unsure():
    x, y, clusters, _ = clustered(6, n_clusters=20)
    x[:, 0] = clusters == 0
    ours = cluster_ols(x, y, clusters, "ols")[0]
    assert not ours.p_value < 0.05


def test_one_cluster_or_too_few_rows_give_no_effect():
    x, y, clusters, _ = clustered(7)
    assert np.isnan(cluster_ols(x, y, np.zeros_like(clusters), "ols")[0].p_value)
    assert np.isnan(cluster_ols(x[:3], y[:3], clusters[:3], "ols")[0].p_value)


def test_effect_of_an_exact_fit():
    assert effect(1.0, 0.0, 10.0, "x").p_value == 0.0
    assert effect(0.0, 0.0, 10.0, "x").p_value == 1.0
    assert np.isnan(effect(1.0, np.nan, 10.0, "x").estimate)
    golden = effect(2.0, 1.0, 4.0, "x")
    assert golden.p_value == pytest.approx(2 * stats.t.sf(2, 4))
    assert (golden.low, golden.high) == pytest.approx((2 - 2.7764451, 2 + 2.7764451))


def logit_data(seed, pairs):
    rng = np.random.default_rng(seed)
    n = 900
    x = rng.integers(-1, 2, size=(n, 3)).astype(float) if pairs else (rng.random((n, 3)) < 0.4).astype(float)
    if not pairs:
        x = np.column_stack([x, np.ones(n)])
    y = (rng.random(n) < 1 / (1 + np.exp(-x[:, 0] + 0.5 * x[:, 1]))).astype(float)
    return x, y, rng.integers(0, 120, n)


@pytest.mark.parametrize("pairs", [True, False])
def test_logit_margins_are_near_statsmodels_and_equal_the_numeric_derivative(pairs):
    x, y, clusters = logit_data(8, pairs)
    fit = sm.Logit(y, x).fit(disp=0, cov_type="cluster", cov_kwds={"groups": clusters})
    margins = fit.get_margeff(at="overall")
    ours = logit_margins(x, y, clusters, 3, exchangeable=not pairs)
    np.testing.assert_allclose([e.estimate for e in ours], margins.margeff[:3], rtol=1e-6)
    # Theirs is CR1; ours is the larger of CR2 and the model's.
    np.testing.assert_allclose([e.standard_error for e in ours], margins.margeff_se[:3], rtol=0.1)
    step = 1e-5
    for j in range(3):
        nudged = np.eye(x.shape[1])[j] * step
        slope = (fit.predict(x + nudged) - fit.predict(x - nudged)).mean() / (2 * step)
        assert ours[j].estimate == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("pairs", [True, False])
def test_errors_of_logit_margins_are_cr2_of_the_last_step_by_its_definition(pairs):
    x, y, clusters = logit_data(11, pairs)
    x, y, clusters = x[:200], y[:200], clusters[:200] % 25
    fit = sm.Logit(y, x).fit(disp=0)
    p, beta = fit.predict(x), fit.params
    w = p * (1 - p)
    tall = np.sqrt(w)[:, None] * x
    bread = np.linalg.inv(tall.T @ tall)
    residual = (y - p) / np.sqrt(w)
    meat, carriers = np.zeros((x.shape[1], x.shape[1])), []
    hat = tall @ bread @ tall.T
    for g in np.unique(clusters):
        rows = clusters == g
        values, vectors = np.linalg.eigh(np.eye(rows.sum()) - hat[np.ix_(rows, rows)])
        adjust = vectors @ np.diag(values**-0.5) @ vectors.T
        score = tall[rows].T @ adjust @ residual[rows]
        meat += np.outer(score, score)
        carriers.append((rows, adjust))
    ours = logit_margins(x, y, clusters, 3, exchangeable=False)
    for j in range(3):
        gradient = beta[j] * ((w * (1 - 2 * p)) @ x / len(y))
        gradient[j] += w.mean()
        variance = gradient @ bread @ meat @ bread @ gradient
        model = gradient @ bread @ gradient
        assert ours[j].standard_error == pytest.approx(np.sqrt(max(variance, model)), rel=1e-6)
        # Bell and McCaffrey's degrees of freedom from the matrix of all clusters.
        columns = []
        for rows, adjust in carriers:
            along = adjust @ tall[rows] @ bread @ gradient
            columns.append((np.eye(len(y)) - hat)[:, rows] @ along)
        overlap = np.array(columns) @ np.array(columns).T
        assert ours[j].degrees_of_freedom == pytest.approx(np.trace(overlap) ** 2 / (overlap**2).sum(), rel=1e-6)


def test_blocks_of_clusters_give_what_all_at_once_gives(monkeypatch):
    x, y, clusters = logit_data(12, pairs=False)
    whole = cluster_ols(x, y, clusters, "x")
    monkeypatch.setattr("hsae_dagster.core.inference.cluster_robust._BLOCK_ELEMENTS", 100)
    for one, other in zip(whole, cluster_ols(x, y, clusters, "x"), strict=True):
        assert other.standard_error == pytest.approx(one.standard_error, rel=1e-10)
        assert other.degrees_of_freedom == pytest.approx(one.degrees_of_freedom, rel=1e-10)


def test_pair_margin_is_near_the_change_in_win_probability():
    # With one concept and small effects the derivative and separation are the same thing.
    rng = np.random.default_rng(9)
    h = rng.integers(-1, 2, size=20_000).astype(float)
    y = (rng.random(20_000) < 0.5 + 0.06 * h).astype(float)
    ours = logit_margins(h[:, None], y, np.arange(20_000), 1)[0]
    share_won = np.where(h[h != 0] > 0, y[h != 0], 1 - y[h != 0]).mean()
    assert ours.estimate == pytest.approx(share_won - 0.5, abs=0.002)
    assert ours.estimate == pytest.approx(0.06, abs=0.01)


def test_logit_margins_refuse_separated_classes():
    x, y, clusters = logit_data(10, False)
    assert logit_margins(np.column_stack([y, x]), y, clusters, 1) is None
    assert logit_margins(x, np.ones_like(y), clusters, 1) is None


def test_the_share_between_clusters_is_one_for_whole_clusters_and_rows_of_their_own():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(30), 10)
    whole, within = rng.normal(size=30)[groups], np.tile(np.r_[np.ones(5), -np.ones(5)], 30)
    found = whole_clusters(np.column_stack([whole, within]), groups)
    assert found == pytest.approx([1.0, 0.0])
    assert whole_clusters(rng.normal(size=(300, 1)), np.arange(300)) == pytest.approx([1.0])


def test_one_huge_cluster_does_not_hide_the_correlation_within_the_others():
    rng, found = np.random.default_rng(4), []
    groups = np.r_[np.zeros(400, dtype=int), np.repeat(np.arange(1, 20), 5)]
    for _ in range(30):
        y = rng.normal(size=20)[groups] + rng.normal(size=len(groups))
        y[groups == 0] -= y[groups == 0].mean()  # as where it alone has a concept
        found.append(within_correlation(y - y.mean(), groups))
    assert np.mean(found) > 0.1
