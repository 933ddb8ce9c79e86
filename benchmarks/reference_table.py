"""The evaluation table of HypotheSAEs, from the same annotation matrix, for whoever compares the two.

Belongs here: the six columns and the joint metrics that the package hypothesaes 2.0.1 reports, equal to its own where
its problem is well posed, and right where it is not. Does not belong here: the tests that decide what is confirmed
(`core.inference.effects`): those know clusters and controls, these do not.

The joint metrics are in-sample by definition: fitted and scored on the same observations, as the reference does it.
Where the reference goes wrong: the intercept is always there and is never mistaken for a concept; concepts that do not
vary, or that repeat others, have no coefficient instead of spoiling all coefficients; of pairs, both halves of the
t-test use the outcome of the text that has the concept; separated classes are fitted by Firth's method, which is named,
instead of by a logit that has no maximum. Least squares never takes the place of a logit.

Sources: arXiv 2502.04382, section 5; for separated classes Firth 1993 (Biometrika 80), Heinze and Schemper 2002
(Statistics in Medicine 21), and Konis 2007 for finding separation by a linear program.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from benchmarks.separated_logit import firth_logit, separates
from hsae_dagster.errors import MethodError

NAN = float("nan")


@dataclass(frozen=True)
class ReferenceRow:
    """One hypothesis; NaN where a figure does not exist, with a flag that says why.

    Attributes:
        separation_score: mean outcome with the concept minus without, outcome units; for pairs, the mean of the
            outcome for the text that has it (both sides weighed equally) minus the mean where neither or both have it.
        separation_pval: Student's t-test with equal variances between the same two groups.
        regression_coef: coefficient beside all other concepts: outcome units (least squares) or log-odds (logit).
        regression_pval: of that coefficient (t for least squares, Wald's z for a logit, likelihood ratio for Firth's).
        feature_prevalence: share of observations whose annotation is not 0.
        vif: variance inflation of the coefficient through the other concepts (1 is none).
        flags: doubts in words.
    """

    separation_score: float
    separation_pval: float
    regression_coef: float
    regression_pval: float
    feature_prevalence: float
    vif: float
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReferenceTable:
    """All hypotheses and the joint fit.

    Attributes:
        rows: in the order of the concepts given.
        estimator: `least squares`, `logit` or `Firth logit`.
        r2: R² of least squares; McFadden's of a logit (of Firth's, from its unpenalised likelihood). In-sample.
        auroc: area under the ROC curve, in-sample; NaN for regression.
        auprc: average precision, in-sample; NaN for regression.
        significant: hypotheses whose regression p-value lies below `threshold`.
        threshold: alpha / number of hypotheses (Bonferroni).
        n: observations used.
        notes: what a reader must know, in words.
    """

    rows: tuple[ReferenceRow, ...]
    estimator: str
    r2: float
    auroc: float
    auprc: float
    significant: int
    threshold: float
    n: int
    notes: tuple[str, ...]

    @property
    def ranking(self) -> list[int]:
        """Positions of the hypotheses by falling separation score, the undefined ones last (the reference's order)."""
        scores = np.array([row.separation_score for row in self.rows])
        return np.argsort(-scores, kind="stable").tolist()  # NaN sorts last


@dataclass(frozen=True)
class _JointFit:
    estimator: str
    coefficients: np.ndarray
    p_values: np.ndarray
    predicted: np.ndarray
    r2: float


def reference_table(concepts: np.ndarray, outcome: np.ndarray, task: str, *, alpha: float = 0.1) -> ReferenceTable:
    """Evaluate every concept as HypotheSAEs does (arXiv 2502.04382, section 5; hypothesaes 2.0.1).

    Args:
        concepts: (n, h) float64: 1 or 0; for pairs 1, 0 or -1 (text A's annotation minus text B's). Observations with
            a missing one (NaN) are left out, which the notes say.
        outcome: (n,) float64, finite; 0 or 1 unless `task` is regression.
        task: regression, classification or pairwise.
        alpha: family-wise error rate of the Bonferroni count (the reference's default is 0.1).

    Raises:
        MethodError: shapes, values or counts that no table can be made of.
    """
    x, y, notes = _checked(np.asarray(concepts, np.float64), np.asarray(outcome, np.float64), task)
    n, h = x.shape
    flags = _unusable(x)
    kept = [j for j in range(h) if flags[j] is None]
    if n <= len(kept) + 1:
        raise MethodError(
            f"{n} complete observations cannot carry {len(kept)} concepts and an intercept; judge more holdout texts."
        )
    fit = _least_squares(x[:, kept], y) if task == "regression" else _logistic(x[:, kept], y)
    if fit.estimator == "Firth logit":
        notes.append("the concepts separate the classes, so a logit has no maximum; Firth's penalised logit is shown")
    found = dict(
        zip(kept, zip(fit.coefficients, fit.p_values, _variance_inflation(x[:, kept]), strict=True), strict=True)
    )
    rows = [_row(x[:, j], y, task == "pairwise", flags[j], found.get(j, (NAN, NAN, NAN))) for j in range(h)]
    auroc, auprc = _ranking_scores(y, fit.predicted) if task != "regression" else (NAN, NAN)
    threshold = alpha / h
    significant = int(np.nansum(np.array([row.regression_pval for row in rows]) < threshold))
    return ReferenceTable(tuple(rows), fit.estimator, fit.r2, auroc, auprc, significant, threshold, n, tuple(notes))


def _checked(x: np.ndarray, y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if task not in ("regression", "classification", "pairwise"):
        raise MethodError(f"Unknown task {task!r}; use regression, classification or pairwise.")
    if x.ndim != 2 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise MethodError(
            f"Annotations of shape {x.shape} and an outcome of shape {y.shape} do not fit together; give one row per "
            "observation and at least one concept."
        )
    if not np.isfinite(y).all():
        row = int(np.flatnonzero(~np.isfinite(y))[0])
        raise MethodError(f"The outcome of row {row} is missing or not finite; the corpus should not hold it.")
    complete, notes = np.isfinite(x).all(axis=1), []
    if not complete.all():
        notes.append(f"{int((~complete).sum())} of {len(y)} observations lack an annotation and are left out")
        x, y = x[complete], y[complete]
    if not len(y):
        raise MethodError("No observation has all its annotations; judge the holdout texts again.")
    allowed = (-1.0, 0.0, 1.0) if task == "pairwise" else (0.0, 1.0)
    if not np.isin(x, allowed).all():
        raise MethodError(
            f"Annotations of a {task} task must be {', '.join(f'{value:g}' for value in allowed)} or NaN."
        )
    if task != "regression" and not np.isin(y, (0.0, 1.0)).all():
        raise MethodError(
            f"The outcome of a {task} task must be 0 or 1; declare the task regression for other numbers."
        )
    if y.min() == y.max():
        raise MethodError("Every complete observation has the same outcome, so no concept can go with it.")
    return x, y, notes


def _unusable(x: np.ndarray) -> list[str | None]:
    """Why each concept has no coefficient of its own beside the intercept and earlier concepts, or None."""
    reasons: list[str | None] = []
    # Gram-Schmidt over centred columns: the intercept is part of every fit.
    basis = np.empty((len(x), 0))
    centred = x - x.mean(axis=0)
    for j in range(x.shape[1]):
        if x[:, j].min() == x[:, j].max():
            reasons.append(f"the annotation is {x[0, j]:g} everywhere, so it has no effect to estimate")
            continue
        rest = centred[:, j] - basis @ (basis.T @ centred[:, j])
        rest -= basis @ (basis.T @ rest)
        if np.linalg.norm(rest) <= 1e-9 * np.linalg.norm(centred[:, j]):
            repeated = any(np.array_equal(x[:, i], x[:, j]) for i in range(j))
            same = "the same annotation as an earlier hypothesis" if repeated else "made up of earlier ones"
            reasons.append(f"{same}, so it has no coefficient of its own")
            continue
        basis = np.column_stack([basis, rest / np.linalg.norm(rest)])
        reasons.append(None)
    return reasons


def _row(
    h: np.ndarray, y: np.ndarray, pairwise: bool, unusable: str | None, joint: tuple[float, float, float]
) -> ReferenceRow:
    from scipy.stats import ttest_ind

    sides = [side for side in (y[h == 1], 1 - y[h == -1] if pairwise else y[:0]) if len(side)]
    without, score, p_value, flags = y[h == 0], NAN, NAN, [unusable] if unusable else []
    if sides and len(without):
        score = float(np.mean([side.mean() for side in sides]) - without.mean())
        with warnings.catch_warnings():
            # Groups without spread, or of one row, give NaN; the row then shows no p-value.
            warnings.simplefilter("ignore")
            p_value = float(ttest_ind(np.concatenate(sides), without).pvalue)
        if pairwise and len(sides) == 1:
            flags.append("only one of the two texts ever has the concept alone")
    elif not unusable:
        flags.append("every pair differs in the concept, so there is nothing to compare with")
    if joint[0] * score < 0:
        flags.append("separation and regression coefficient have opposite signs")
    return ReferenceRow(
        separation_score=score,
        separation_pval=p_value,
        regression_coef=float(joint[0]),
        regression_pval=float(joint[1]),
        feature_prevalence=float(np.mean(h != 0)),
        vif=float(joint[2]),
        flags=tuple(flags),
    )


def _least_squares(x: np.ndarray, y: np.ndarray) -> _JointFit:
    import statsmodels.api as sm

    design = np.column_stack([np.ones(len(y)), x])
    fit = sm.OLS(y, design).fit()
    return _JointFit("least squares", fit.params[1:], fit.pvalues[1:], fit.predict(design), float(fit.rsquared))


def _logistic(x: np.ndarray, y: np.ndarray) -> _JointFit:
    import statsmodels.api as sm

    design = np.column_stack([np.ones(len(y)), x])
    null = _log_likelihood(y, np.full(len(y), y.mean()))
    if separates(design, y):
        coefficients, p_values, predicted = firth_logit(design, y)
        r2 = 1 - _log_likelihood(y, predicted) / null
        return _JointFit("Firth logit", coefficients[1:], p_values[1:], predicted, float(r2))
    fit = sm.Logit(y, design).fit(disp=0, maxiter=100)
    if not fit.mle_retvals["converged"]:
        raise MethodError(
            f"The logit of {x.shape[1]} concepts on {len(y)} observations did not converge; judge more texts or "
            "select fewer neurons."
        )
    return _JointFit("logit", fit.params[1:], fit.pvalues[1:], fit.predict(design), float(fit.prsquared))


def _log_likelihood(y: np.ndarray, predicted: np.ndarray) -> float:
    likely = np.where(y == 1, predicted, 1 - predicted)
    return float(np.log(np.maximum(likely, np.finfo(float).tiny)).sum())


def _ranking_scores(y: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return float(roc_auc_score(y, predicted)), float(average_precision_score(y, predicted))


def _variance_inflation(x: np.ndarray) -> np.ndarray:
    """Diagonal of the inverse correlation matrix; columns are linearly independent of each other and the intercept."""
    if x.shape[1] < 2:
        return np.ones(x.shape[1])
    return np.diag(np.linalg.inv(np.corrcoef(x, rowvar=False)))
