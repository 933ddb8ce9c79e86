"""The evaluation table against the reference: equal where it is well posed, right where it is not."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit
from scipy.stats import ttest_ind

from benchmarks.reference_table import reference_table
from benchmarks.separated_logit import firth_logit, separates
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.reference import record
from hsae_dagster_tests.core.reference_evaluation import reference_scores

COLUMNS = ["separation_score", "separation_pval", "regression_coef", "regression_pval", "feature_prevalence"]


def case(seed: int, task: str, h: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Concepts and an outcome; correlated concepts, prevalences from 3 % to 97 %."""
    rng = np.random.default_rng(seed)
    n, h = int(rng.integers(150, 1500)), h or int(rng.integers(1, 21))
    shared = rng.standard_normal((2, n, 1))
    prevalence = rng.uniform(0.1, 0.9, h)
    a, b = (rng.standard_normal((n, h)) + 0.5 * common < np.quantile(common, prevalence) for common in shared)
    concepts = a.astype(float) - b if task == "pairwise" else a.astype(float)
    signal = concepts @ (rng.standard_normal(h) * 0.4)
    if task == "regression":
        return concepts, np.round(signal + rng.standard_normal(n), seed % 3)
    return concepts, (rng.random(n) < expit(signal - 0.3)).astype(float)


def compare(seed: int, task: str) -> float:
    """Assert equality of one case; the largest difference."""
    concepts, outcome = case(seed, task)
    ours = reference_table(concepts, outcome, task)
    metrics, frame = reference_scores(concepts, outcome, task)
    differences = [0.0]
    for column in COLUMNS:
        if task == "pairwise" and column == "separation_pval":
            continue  # defect 1
        theirs = frame[column].loc[range(concepts.shape[1])].to_numpy()
        values = np.array([getattr(row, column) for row in ours.rows])
        np.testing.assert_allclose(values, theirs, rtol=0, atol=1e-8, err_msg=column)
        differences.append(float(np.abs(values - theirs).max()))
    for metric in ("r2",) if task == "regression" else ("r2", "auroc", "auprc"):
        assert getattr(ours, metric) == pytest.approx(metrics[metric], abs=1e-8)
        differences.append(abs(getattr(ours, metric) - metrics[metric]))
    assert (ours.significant, len(ours.rows), ours.threshold) == metrics["Significant"]
    scores = [row.separation_score for row in ours.rows]
    if len(set(np.round(scores, 10))) == len(scores):
        assert ours.ranking == frame.index.tolist()
    assert ours.notes == ()
    assert ours.estimator == ("least squares" if task == "regression" else "logit")
    record(f"evaluation tables, {task}", max(differences), 0.0)
    return max(differences)


@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
@pytest.mark.parametrize("seed", range(20))
def test_the_table_equals_the_reference(seed: int, task: str) -> None:
    assert compare(seed, task) <= 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
@pytest.mark.parametrize("block", range(4))
def test_the_table_equals_the_reference_on_many_seeds(block: int, task: str) -> None:
    for seed in range(100 + 50 * block, 150 + 50 * block):
        assert compare(seed, task) <= 1e-8


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.001])
def test_the_bonferroni_count_follows_alpha(alpha: float) -> None:
    concepts, outcome = case(3, "classification")
    ours = reference_table(concepts, outcome, "classification", alpha=alpha)
    metrics, _ = reference_scores(concepts, outcome, "classification", alpha)
    assert (ours.significant, len(ours.rows), ours.threshold) == metrics["Significant"]


# Defect 1: p-values of pairs come from -y where the effect has 1 - y.
def test_pairs_without_an_effect_are_rarely_rejected() -> None:
    rng = np.random.default_rng(0)
    rejected, theirs = 0, 0
    for _ in range(100):
        concepts = rng.choice([-1.0, 0.0, 1.0], size=(1000, 1), p=[0.1, 0.8, 0.1])
        outcome = rng.integers(0, 2, 1000).astype(float)
        rejected += reference_table(concepts, outcome, "pairwise").rows[0].separation_pval < 0.05
        theirs += reference_scores(concepts, outcome, "pairwise")[1].loc[0, "separation_pval"] < 0.05
    assert rejected <= 12
    assert theirs == 100


def test_both_halves_of_a_pairs_test_use_the_outcome_of_the_text_with_the_concept() -> None:
    concepts, outcome = case(5, "pairwise")
    for j, row in enumerate(reference_table(concepts, outcome, "pairwise").rows):
        h = concepts[:, j]
        expected = ttest_ind(np.concatenate([outcome[h == 1], 1 - outcome[h == -1]]), outcome[h == 0]).pvalue
        assert row.separation_pval == pytest.approx(expected, abs=1e-12)


def test_a_concept_that_only_one_side_ever_has_is_scored_on_that_side_and_flagged() -> None:
    concepts, outcome = case(5, "pairwise", h=2)
    concepts[:, 0] = -np.abs(concepts[:, 0])
    row = reference_table(concepts, outcome, "pairwise").rows[0]
    h = concepts[:, 0]
    assert row.separation_score == pytest.approx((1 - outcome[h == -1]).mean() - outcome[h == 0].mean())
    assert np.isfinite(row.separation_pval)
    assert "only one of the two texts" in row.flags[0]
    assert np.isnan(reference_scores(concepts, outcome, "pairwise")[1].loc[0, "separation_score"])


def test_a_concept_in_which_every_pair_differs_has_a_coefficient_but_no_separation() -> None:
    concepts, outcome = case(5, "pairwise", h=2)
    concepts[:, 0] = np.where(concepts[:, 0] == 0, 1.0, concepts[:, 0])
    row = reference_table(concepts, outcome, "pairwise").rows[0]
    assert np.isnan(row.separation_score)
    assert np.isfinite(row.regression_coef)
    assert "every pair differs" in row.flags[0]


# Defects 2 and 3: a concept that never varies.
@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_constant_concept_changes_no_other_row(task: str, place: int, value: float) -> None:
    concepts, outcome = case(7, task, h=3)
    plain = reference_table(concepts, outcome, task)
    spoilt = reference_table(np.insert(concepts, place, value, axis=1), outcome, task)
    others = [row for j, row in enumerate(spoilt.rows) if j != place]
    assert others == list(plain.rows)
    assert (spoilt.r2, spoilt.estimator) == (plain.r2, plain.estimator)
    row = spoilt.rows[place]
    assert np.isnan([row.separation_score, row.separation_pval, row.regression_coef, row.regression_pval]).all()
    assert row.flags == (f"the annotation is {value:g} everywhere, so it has no effect to estimate",)
    assert row.feature_prevalence == value
    assert spoilt.threshold == pytest.approx(0.1 / 4)
    assert spoilt.ranking[-1] == place


def test_an_all_zero_concept_leaves_a_logit_a_logit() -> None:
    concepts, outcome = case(7, "classification", h=3)
    concepts[:, 1] = 0.0
    assert "r2" not in reference_scores(concepts, outcome, "classification")[0]
    table = reference_table(concepts, outcome, "classification")
    assert table.estimator == "logit"
    assert 0 < table.r2 < 1


# Defect 4: (quasi-)separation.
def test_a_concept_that_predicts_perfectly_is_significant_with_a_finite_coefficient() -> None:
    rng = np.random.default_rng(0)
    concepts = rng.integers(0, 2, (400, 3)).astype(float)
    outcome = concepts[:, 0].copy()
    table = reference_table(concepts, outcome, "classification")
    assert table.estimator == "Firth logit"
    assert "separate the classes" in table.notes[0]
    assert 2 < table.rows[0].regression_coef < 30
    assert table.rows[0].regression_pval < 1e-20
    assert table.significant == 1
    assert table.auroc == pytest.approx(1.0)
    assert 0.9 < table.r2 <= 1.0
    assert reference_scores(concepts, outcome, "classification")[0]["Significant"][0] == 0


def test_quasi_separation_is_found_and_a_rare_cell_alone_is_enough() -> None:
    rng = np.random.default_rng(1)
    concepts = np.column_stack([rng.integers(0, 2, 500), np.arange(500) < 12]).astype(float)
    outcome = (rng.random(500) < 0.4).astype(float)
    outcome[:12] = 1.0
    table = reference_table(concepts, outcome, "classification")
    assert table.estimator == "Firth logit"
    assert 1 < table.rows[1].regression_coef < 6
    assert 1e-8 < table.rows[1].regression_pval < 1e-2
    outcome[0] = 0.0
    assert reference_table(concepts, outcome, "classification").estimator == "logit"


@pytest.mark.parametrize("seed", range(8))
def test_separation_is_found_exactly_when_newtons_coefficients_run_away(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(12, 60))
    design = np.column_stack([np.ones(n), rng.integers(0, 2, (n, 3))]).astype(float)
    if np.linalg.matrix_rank(design) < 4:
        return
    y = (rng.random(n) < expit(2 * design[:, 1] - 1)).astype(float)
    ran_away = False
    beta = np.zeros(4)
    for _ in range(25):
        p = expit(design @ beta)
        information = design.T @ (design * (p * (1 - p))[:, None]) + 1e-14 * np.eye(4)
        beta = beta + np.clip(np.linalg.solve(information, design.T @ (y - p)), -2, 2)
        ran_away = bool(np.abs(beta).max() > 15)
    assert separates(design, y) == ran_away


def test_firth_of_one_binary_concept_is_the_logit_of_the_table_with_half_a_count_added() -> None:
    y = np.repeat([1.0, 0.0, 1.0, 0.0], [9, 0, 7, 14])
    x = np.repeat([1.0, 1.0, 0.0, 0.0], [9, 0, 7, 14])
    beta, p_values, predicted = firth_logit(np.column_stack([np.ones(30), x]), y)
    # A saturated model: Jeffreys' prior adds one half to each of the four counts.
    assert beta[0] == pytest.approx(np.log(7.5 / 14.5), abs=1e-8)
    assert beta[1] == pytest.approx(np.log(9.5 / 0.5) - np.log(7.5 / 14.5), abs=1e-8)
    assert predicted[0] == pytest.approx(9.5 / 10, abs=1e-8)
    assert 1e-4 < p_values[1] < 0.01


def test_a_concept_that_a_single_text_has_does_not_upset_the_others() -> None:
    rng = np.random.default_rng(4)
    concepts = (rng.random((1200, 4)) < 0.2).astype(float)
    outcome = (rng.random(1200) < expit(concepts[:, 0] - 0.3)).astype(float)
    plain = reference_table(concepts, outcome, "classification")
    lone = np.zeros(1200)
    lone[np.flatnonzero(outcome == 0)[0]] = 1.0
    table = reference_table(np.column_stack([concepts, lone]), outcome, "classification")
    assert table.estimator == "Firth logit"
    assert -5 < table.rows[4].regression_coef < 0
    assert table.rows[4].regression_pval > 0.1
    for row, without in zip(table.rows[:4], plain.rows, strict=True):
        assert row.regression_coef == pytest.approx(without.regression_coef, abs=0.02)
        assert row.regression_pval == pytest.approx(without.regression_pval, abs=0.1)


def test_firth_agrees_with_the_logit_where_data_are_plenty() -> None:
    rng = np.random.default_rng(2)
    design = np.column_stack([np.ones(20_000), rng.integers(0, 2, (20_000, 2))]).astype(float)
    y = (rng.random(20_000) < expit(design @ [-0.2, 0.05, 0.03])).astype(float)
    plain = sm.Logit(y, design).fit(disp=0)
    beta, p_values, _ = firth_logit(design, y)
    np.testing.assert_allclose(beta, plain.params, atol=1e-3)
    np.testing.assert_allclose(p_values, plain.pvalues, atol=2e-3)


# Defect 6: near-duplicates cancel without a word.
@pytest.mark.parametrize("task", ["regression", "classification", "pairwise"])
def test_a_repeated_concept_is_named_and_changes_no_other_row(task: str) -> None:
    concepts, outcome = case(9, task, h=3)
    plain = reference_table(concepts, outcome, task)
    doubled = reference_table(np.column_stack([concepts, concepts[:, 1]]), outcome, task)
    assert doubled.rows[:3] == plain.rows
    assert doubled.rows[3].flags == (
        "the same annotation as an earlier hypothesis, so it has no coefficient of its own",
    )
    assert np.isnan(doubled.rows[3].regression_coef)
    assert doubled.rows[3].separation_score == plain.rows[1].separation_score


def test_near_duplicates_show_their_variance_inflation_and_opposite_signs() -> None:
    rng = np.random.default_rng(3)
    first = rng.integers(0, 2, 600).astype(float)
    second = np.where(rng.random(600) < 0.04, 1 - first, first)
    outcome = first - 0.4 * second + 0.5 * rng.standard_normal(600)
    rows = reference_table(np.column_stack([first, second]), outcome, "regression").rows
    expected = 1 / (1 - np.corrcoef(first, second)[0, 1] ** 2)
    assert [row.vif for row in rows] == pytest.approx([expected, expected])
    assert expected > 5
    assert rows[0].flags == ()
    assert rows[1].separation_score > 0 > rows[1].regression_coef
    assert rows[1].flags == ("separation and regression coefficient have opposite signs",)


def test_a_sum_of_concepts_is_dependent_though_no_two_agree() -> None:
    concepts, outcome = case(11, "regression", h=1)
    rest = np.where(np.arange(len(outcome)) % 3 == 0, 1 - concepts[:, 0], 0.0)
    rows = reference_table(np.column_stack([concepts[:, 0], rest, concepts[:, 0] + rest]), outcome, "regression").rows
    assert rows[2].flags[0] == "made up of earlier ones, so it has no coefficient of its own"


# Defect 11: the task is declared, never guessed.
def test_an_outcome_of_zeros_and_ones_is_regressed_when_regression_is_declared() -> None:
    concepts, outcome = case(2, "classification")
    ours = reference_table(concepts, outcome, "regression")
    metrics, frame = reference_scores(concepts, outcome, "regression")
    assert ours.estimator == "least squares"
    assert ours.r2 == pytest.approx(metrics["r2"], abs=1e-10)
    assert np.isnan(ours.auroc)
    theirs = frame["regression_coef"].loc[range(len(ours.rows))].to_numpy()
    np.testing.assert_allclose([row.regression_coef for row in ours.rows], theirs, atol=1e-10)


def test_missing_annotations_are_left_out_and_counted() -> None:
    concepts, outcome = case(4, "regression", h=4)
    holes = concepts.copy()
    holes[[3, 8], [0, 2]] = np.nan
    table = reference_table(holes, outcome, "regression")
    kept = np.isfinite(holes).all(axis=1)
    assert table.rows == reference_table(concepts[kept], outcome[kept], "regression").rows
    assert table.n == len(outcome) - 2
    assert table.notes == (f"2 of {len(outcome)} observations lack an annotation and are left out",)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"task": "ranking"}, "Unknown task 'ranking'"),
        ({"outcome": np.ones(10)}, "same outcome"),
        ({"outcome": np.arange(10.0) % 3, "task": "classification"}, "must be 0 or 1"),
        ({"outcome": np.arange(10.0), "task": "pairwise"}, "must be 0 or 1"),
        ({"outcome": np.array([np.nan, *range(9)])}, "row 0 is missing"),
        ({"outcome": np.arange(9.0)}, "do not fit together"),
        ({"concepts": np.zeros((10, 0))}, "do not fit together"),
        ({"concepts": np.full((10, 1), -1.0)}, "must be 0, 1 or NaN"),
        ({"concepts": np.full((10, 1), 2.0), "task": "pairwise"}, "must be -1, 0, 1 or NaN"),
        ({"concepts": np.full((10, 1), np.nan)}, "No observation has all"),
        ({"concepts": np.eye(10)[:, :9]}, "10 complete observations cannot carry 9 concepts"),
    ],
)
def test_what_no_table_can_be_made_of_is_refused_with_a_sentence(change: dict, sentence: str) -> None:
    outcome = np.arange(10.0) % 2 if change.get("task") in ("classification", "pairwise") else np.arange(10.0)
    arguments = {"concepts": np.eye(10)[:, :2], "outcome": outcome, "task": "regression", **change}
    with pytest.raises(MethodError, match=sentence):
        reference_table(**arguments)


@pytest.mark.parametrize("name", ["ratings", "parties", "duels"])
def test_the_benchmark_finds_finished_datasets_equal(
    name: str, finished, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference_scores(*case(0, "regression"), "regression")  # skips where the reference is not installed
    path = Path(__file__).parents[2] / "benchmarks" / "side_by_side.py"
    monkeypatch.setattr("sys.argv", [str(path), str(finished.workspace.project.results), name])
    runpy.run_path(str(path), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith(name)
    assert said.endswith("equal\n")
    assert said.count("largest difference") >= 2
