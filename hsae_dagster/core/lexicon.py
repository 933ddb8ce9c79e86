"""Concepts that execute themselves: sparse weighted lexicons.

Belongs here: fitting a lexicon that tells texts that fire a neuron from texts that do not, applying it, naming it.
Does not belong here: which neurons (`core.selection`) or how faithful the result is (`core.fidelity`).

Dictionary methods of the social sciences with weights learned by penalised logistic regression (Monroe, Colaresi and
Quinn 2008 discuss why regularisation is needed), on terms scaled by their log-count ratio as in the NB-SVM of Wang and
Manning (2012, "Baselines and bigrams", section 2.3), which serves short texts and rare terms better than the lasso.
Terms, weights and threshold are frozen on training texts.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.terms import TermTable, presence
from hsae_dagster.errors import MethodError

_NAMING_TERMS = 5
_NAMING_CUES = 2
# Inverse L2 penalty of the scaled fit and occurrences added to every count; chosen once on validation texts of
# movie_reviews, like the sizes that the lexical interpreter tries.
_STRENGTH = 0.3
_SMOOTHING = 1.0


@dataclass(frozen=True)
class Lexicon:
    """A linear rule on the presence of terms: a text matches when intercept + sum of weights > threshold.

    Attributes:
        terms: terms (content words, two-word phrases, `<style cue>`), strongest first.
        weights: one per term, in log-odds of firing.
        intercept: log-odds of a text without any of the terms.
        threshold: log-odds above which a text matches.
    """

    terms: tuple[str, ...]
    weights: tuple[float, ...]
    intercept: float
    threshold: float

    def as_definition(self) -> dict[str, Any]:
        """JSON-like form, from which `from_definition` makes the same lexicon."""
        return asdict(self) | {"kind": "lexicon"}

    @staticmethod
    def from_definition(definition: Any) -> "Lexicon":
        """Inverse of `as_definition`.

        Raises:
            MethodError: the definition is not a lexicon's.
        """
        if not definition or definition.get("kind") != "lexicon":
            raise MethodError(
                "The lexical annotator can only judge lexicons. This concept has none; set annotation.model to a "
                "language model, or interpretation.model to `lexical`."
            )
        return Lexicon(
            terms=tuple(definition["terms"]),
            weights=tuple(definition["weights"]),
            intercept=definition["intercept"],
            threshold=definition["threshold"],
        )

    def matched(self, text: str) -> list[tuple[str, float]]:
        """Terms of the lexicon found in `text` with their weights, strongest first: why the text matches or not."""
        row = presence([text], self.terms)
        found = [(self.terms[j], self.weights[j]) for j in row.indices]
        return sorted(found, key=lambda item: (-abs(item[1]), item[0]))


def apply_lexicons(lexicons: Sequence[Lexicon], texts: Sequence[str]) -> np.ndarray:
    """Judge every text by every lexicon: (texts, lexicons) int8, 1 = matches, 0 = does not."""
    union = sorted({term for lexicon in lexicons for term in lexicon.terms})
    place = {term: row for row, term in enumerate(union)}
    weights = np.zeros((len(union), len(lexicons)))
    for column, lexicon in enumerate(lexicons):
        for term, weight in zip(lexicon.terms, lexicon.weights, strict=True):
            weights[place[term], column] = weight
    scores = presence(texts, union) @ weights + np.array([lexicon.intercept for lexicon in lexicons])
    return (scores > np.array([lexicon.threshold for lexicon in lexicons])).astype(np.int8)


def fit_lexicons(
    table: TermTable, activation: np.ndarray, clusters: np.ndarray, sizes: Sequence[int], *, folds: int = 5
) -> list[Lexicon]:
    """Fit lexicons of several sizes on training texts.

    A fit on all terms ranks them by weight times the root of their number of texts; the strongest are refitted alone.
    Firing texts count by how strongly they fire. The threshold maximises the correlation of the yes/no answer with
    firing on cross-fitted scores (folds by cluster), so that it is not set on scores that have seen their own text.

    Args:
        table: supported terms and their occurrences in n training texts.
        activation: (n,) of the neuron, >= 0; zero means silent.
        clusters: (n,) cluster keys.
        sizes: most terms of each lexicon.
        folds: cross-fitting folds.

    Returns:
        One lexicon for each size; none when there are no terms. Sizes beyond the number of terms give equal lexicons.

    Raises:
        MethodError: the neuron fires on all or none of the texts.
    """
    fires = activation > 0
    if fires.all() or not fires.any():
        raise MethodError("A lexicon needs texts that fire the neuron and texts that do not; this neuron has only one.")
    if not table.terms:
        return []
    importance = np.where(fires, activation / activation[fires].mean(), 1.0)
    scores = _cross_fitted_scores(table.matrix, fires, importance, clusters, sizes, folds)
    rules = _fit(table.matrix, fires, importance, sizes)
    return [_frozen(rule, table, best_threshold(scores[k], fires)) for k, rule in enumerate(rules)]


def _frozen(rule: "_Rule", table: TermTable, threshold: float) -> Lexicon:
    # Weights that travel in JSON and on cards; the rounding is part of the frozen lexicon.
    rounded = np.round(rule.weights, 4)
    order = sorted(np.flatnonzero(rounded), key=lambda i: (-abs(rounded[i]), table.terms[rule.columns[i]]))
    return Lexicon(
        terms=tuple(table.terms[rule.columns[i]] for i in order),
        weights=tuple(float(rounded[i]) for i in order),
        intercept=round(rule.intercept, 4),
        threshold=round(threshold, 4),
    )


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The cut between two scores above which a yes correlates best with the truth (the phi coefficient).

    Args:
        scores: (n,) float.
        truth: (n,) bool.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, n = scores[order], len(scores)
    yes, hits = np.arange(1, n + 1), np.cumsum(truth[order])
    total = int(truth.sum())
    spread = np.sqrt(yes * (n - yes).astype(float) * total * (n - total))
    phi = np.where(spread > 0, (hits * n - yes * total) / np.where(spread > 0, spread, 1.0), -2.0)
    phi[:-1][ranked[:-1] == ranked[1:]] = -2.0  # ties cannot be cut apart
    best = int(phi.argmax())
    below = ranked[best + 1] if best + 1 < n else ranked[best] - 2.0
    return float((ranked[best] + below) / 2)


def name_lexicon(lexicon: Lexicon, table: TermTable, fires: np.ndarray) -> str | None:
    """A predicate from the few terms that speak most for the neuron; None when nothing speaks for it.

    A term's voice is its weight times the square root of how many firing texts hold it, so that neither a rare word
    of great weight nor a common word of small weight names the concept alone.
    """
    place = {term: column for column, term in enumerate(table.terms)}
    columns = [place[term] for term in lexicon.terms]
    counts = np.asarray(table.matrix[fires][:, columns].sum(axis=0)).ravel()
    voice = np.array(lexicon.weights) * np.sqrt(counts)
    ranked = [lexicon.terms[i] for i in np.argsort(-voice, kind="stable") if voice[i] > 0]
    cues = [term[1:-1] for term in ranked[: _NAMING_TERMS + _NAMING_CUES] if term.startswith("<")][:_NAMING_CUES]
    words = _without_echoes([term for term in ranked if not term.startswith("<")], _NAMING_TERMS)
    parts = [f"uses words such as {', '.join(f'“{word}”' for word in words)}"] if words else []
    return "; ".join(parts + cues) or None


def _without_echoes(terms: list[str], most: int) -> list[str]:
    """The first terms that do not repeat a stronger one: no phrase of a named word, no plural of it."""
    kept: list[str] = []
    for term in terms:
        if len(kept) == most:
            break
        parts = set(term.split(" "))
        stems = {part.removesuffix("s") for part in parts}
        if not any(parts & set(k.split(" ")) or stems & {w.removesuffix("s") for w in k.split(" ")} for k in kept):
            kept.append(term)
    return kept


@dataclass(frozen=True)
class _Rule:
    """A fitted linear rule on some columns."""

    columns: np.ndarray
    weights: np.ndarray
    intercept: float

    def scores(self, matrix: sp.csr_matrix) -> np.ndarray:
        return matrix[:, self.columns] @ self.weights + self.intercept


def _fit(matrix: sp.csr_matrix, fires: np.ndarray, importance: np.ndarray, sizes: Sequence[int]) -> list[_Rule]:
    """One rule for each size, the strongest terms of the fit on all of them."""
    ratio = _log_count_ratio(matrix, fires, importance)
    scaled = (matrix @ sp.diags_array(ratio)).tocsr()
    whole = _logistic(scaled, fires, importance)
    texts = np.asarray(matrix.sum(axis=0)).ravel()
    ranked = np.argsort(-np.abs(whole.weights * ratio) * np.sqrt(texts), kind="stable")
    rules = []
    for size in sizes:
        chosen = np.sort(ranked[:size])
        rule = whole if len(chosen) == len(ranked) else _logistic(scaled[:, chosen], fires, importance)
        rules.append(_Rule(chosen, rule.weights * ratio[chosen], rule.intercept))
    return rules


def _log_count_ratio(matrix: sp.csr_matrix, fires: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Logarithm of each term's smoothed share among firing texts over that among silent ones, (terms,) float64."""
    on, off = importance * fires, importance * ~fires
    shares = [(matrix.T @ side + _SMOOTHING) / (side.sum() + 2 * _SMOOTHING) for side in (on, off)]
    return np.log(shares[0] / shares[1])


def _logistic(matrix: sp.csr_matrix, fires: np.ndarray, importance: np.ndarray) -> _Rule:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(solver="liblinear", C=_STRENGTH, random_state=0, max_iter=1000)
    model.fit(matrix, fires, sample_weight=importance)
    return _Rule(np.arange(matrix.shape[1]), model.coef_[0], float(model.intercept_[0]))


def _cross_fitted_scores(
    matrix: sp.csr_matrix,
    fires: np.ndarray,
    importance: np.ndarray,
    clusters: np.ndarray,
    sizes: Sequence[int],
    folds: int,
) -> np.ndarray:
    """(sizes, n) scores of each text by rules that never saw its cluster."""
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups = int(groups.max()) + 1
    if n_groups < 2:
        # One cluster leaves nothing to hold out; its own scores are all there is.
        return np.array([rule.scores(matrix) for rule in _fit(matrix, fires, importance, sizes)])
    from sklearn.model_selection import GroupKFold

    scores = np.zeros((len(sizes), len(fires)))
    for train, test in GroupKFold(min(folds, n_groups)).split(matrix, fires, groups):
        if fires[train].any() and not fires[train].all():
            rules = _fit(matrix[train], fires[train], importance[train], sizes)
            scores[:, test] = [rule.scores(matrix[test]) for rule in rules]
    return scores
