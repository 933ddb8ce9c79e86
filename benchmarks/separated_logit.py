"""Classes that a concept separates: deciding it, and a logit that has an estimate all the same.

Belongs here: the linear program that decides separation (Albert and Anderson 1984) and the logit of Firth (1993;
Heinze and Schemper 2002). Does not belong here: when either is used.
"""

import numpy as np

from hsae_dagster.errors import MethodError


def separates(design: np.ndarray, y: np.ndarray) -> bool:
    """Whether a linear combination of the columns puts the classes on different sides, with some row off the line.

    Then, and only then, a logit of full rank has no maximum-likelihood estimate.

    Args:
        design: (n, p) float64 of full column rank, with its intercept.
        y: (n,) 0 or 1.
    """
    from scipy.optimize import linprog

    signed = np.unique(design * (2 * y - 1)[:, None], axis=0)
    # Push no row to the wrong side and some row to the right one, within a box: possible iff separated.
    solved = linprog(-signed.sum(axis=0), A_ub=-signed, b_ub=np.zeros(len(signed)), bounds=(-1, 1), method="highs")
    if solved.status != 0:
        raise MethodError(f"Whether the concepts separate the classes could not be decided ({solved.message}).")
    return bool(-solved.fun > 1e-7)


def firth_logit(design: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Firth's logit: coefficients (p,), penalised likelihood-ratio p-values (p,), probabilities (n,).

    Args:
        design: (n, p) float64 of full column rank.
        y: (n,) 0 or 1.

    Raises:
        MethodError: no convergence.
    """
    from scipy.stats import chi2

    beta, likelihood, predicted = _firth_fit(design, y, None)
    without = [_firth_fit(design, y, column)[1] for column in range(design.shape[1])]
    return beta, chi2.sf(np.maximum(0.0, 2 * (likelihood - np.array(without))), 1), predicted


def _firth_fit(design: np.ndarray, y: np.ndarray, held: int | None) -> tuple[np.ndarray, float, np.ndarray]:
    """Maximise the penalised likelihood by steps like Newton's; a held column keeps coefficient 0 and its penalty."""
    free = np.array([j for j in range(design.shape[1]) if j != held])
    beta = np.zeros(design.shape[1])
    value, predicted, information = _penalised(design, y, beta)
    for _ in range(200):
        weight = predicted * (1 - predicted)
        leverage = weight * np.einsum("ij,ji->i", design, np.linalg.solve(information, design.T))
        score = design.T @ (y - predicted + leverage * (0.5 - predicted))
        # With leverages held fixed this is a logit of rows that count 1 + leverage times. Newton's step for a logit of
        # rows that count once goes twice too far along a concept that one row has, and never arrives.
        curvature = design.T @ (design * (weight * (1 + leverage))[:, None])
        step = np.linalg.solve(curvature[np.ix_(free, free)], score[free]) if len(free) else np.zeros(0)
        largest = float(np.abs(step).max(initial=0.0))
        if largest < 1e-9:
            return beta, value, predicted
        step *= min(1.0, 5.0 / largest)
        for _ in range(30):
            trial = beta.copy()
            trial[free] += step
            tried = _penalised(design, y, trial)
            if tried[0] >= value - 1e-12 * abs(value):
                break
            step /= 2
        beta, (value, predicted, information) = trial, tried
    raise MethodError(f"Firth's logit of {design.shape[1]} columns did not converge; select fewer neurons.")


def _penalised(design: np.ndarray, y: np.ndarray, beta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-likelihood plus half the log-determinant of the information; probabilities; information."""
    from scipy.special import expit, log_expit

    linear = design @ beta
    predicted = expit(linear)
    information = design.T @ (design * (predicted * (1 - predicted))[:, None])
    sign, determinant = np.linalg.slogdet(information)
    likelihood = float(log_expit(np.where(y == 1, linear, -linear)).sum())
    return likelihood + 0.5 * float(determinant) if sign > 0 else -np.inf, predicted, information
