"""Which autoencoder of a grid is taken.

Belongs here: what a candidate may cost, the comparison of candidates over parts of the clusters, the one-standard-error
rule. Does not belong here: the grid and the figures of a candidate (`sae_grid`), training, reading or storing anything.

The simplest candidate within one standard error of the best is taken (Breiman et al. 1984; Hastie et al. 2009, section
7.10). That error is one of the difference to the best, over draws of whole clusters: two candidates see the same texts,
so what is easy or hard about those cancels.

A tenth of a small dataset tells few candidates apart. Those that are close are therefore trained and judged again with
other clusters in its place, and what counts is their mean over these parts: cross-validation from which candidates that
fall behind drop out (racing; Maron and Moore 1994). The autoencoder that is taken is still the one that learned from
training clusters.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hsae_dagster.core.joint_fit import score
from hsae_dagster.core.sae_grid import Judged, Labels, Size

# Candidates that were judged on so many observations in all are told apart well enough.
ENOUGH_OBSERVATIONS = 2000
_DRAWS = 200
# Candidates that lie further behind the best than so many standard errors are not judged again, nor more than so many.
_CLOSE = 2.0
_MOST = 6
# Weight of keeping neurons apart, where the label guides all of them, as a multiple of its weight: all of it where
# their redundancy is half above the cap or more, nothing where it is a tenth below.
_APART = 0.75
_NO_WEIGHT, _WHOLE_WEIGHT = 0.9, 1.5


@dataclass(frozen=True)
class Caps:
    """What a candidate may cost.

    Attributes:
        reconstruction: largest ratio of its validation error to that of the unguided autoencoder of its size.
        redundancy: largest mean |correlation| among its selected neurons (or that of the unguided autoencoder of its
            size, where that is larger: few texts and few neurons alone make correlations).
        dead_share: largest share of dead neurons.
    """

    reconstruction: float = 1.1
    redundancy: float = 0.1
    dead_share: float = 0.1


@dataclass(frozen=True)
class Trial:
    """Candidates that were judged on one part of the clusters.

    Attributes:
        judged: their figures, by place in the grid. The first trial of a choice has all candidates.
        labels: of the part they learned from and of the part they were judged on.
    """

    judged: Mapping[int, Judged]
    labels: Labels

    @cached_property
    def draws(self) -> dict[int, np.ndarray]:
        """(draws,) score of each candidate over seeded draws of whole clusters, by place; the draws are shared."""
        groups = np.unique(self.labels.validation_clusters, return_inverse=True)[1]
        members = [np.flatnonzero(groups == g) for g in range(int(groups.max(initial=0)) + 1)]
        rng = np.random.default_rng(0)
        drawn = [rng.integers(len(members), size=len(members)) for _ in range(_DRAWS)]
        rows = [np.concatenate([members[g] for g in draw]) for draw in drawn]
        rows = [chosen for chosen in rows if len(np.unique(self.labels.validation[chosen])) > 1]
        return {place: self._scores(candidate, rows) for place, candidate in self.judged.items()}

    def _scores(self, candidate: Judged, rows: Sequence[np.ndarray]) -> np.ndarray:
        task, y = self.labels.task, self.labels.validation
        return np.array([np.mean([score(task, y[r], p[r]) for p in candidate.predictions]) for r in rows])


@dataclass(frozen=True)
class Choice:
    """Which candidate was taken, and why.

    Attributes:
        chosen: place among the candidates.
        best: place of the best score among those within the caps.
        scores: (candidates,) mean score over parts of the clusters. One that was judged on fewer parts than the best
            has the best's score less what it lay behind on those.
        standard_errors: (candidates,) cluster-bootstrap standard error of each score's difference to the best.
        parts: (candidates,) on how many parts each was judged.
        within_caps: (candidates,) bool.
        reason: in words.
    """

    chosen: int
    best: int
    scores: np.ndarray
    standard_errors: np.ndarray
    parts: np.ndarray
    within_caps: np.ndarray
    reason: str


def contenders(trials: Sequence[Trial], caps: Caps) -> list[int]:
    """Places of the candidates that the trials so far cannot tell from the best, itself included; the best six."""
    allowed, _ = _allowed(_candidates(trials), caps)
    best, behind, errors = _standing(trials, allowed)
    close = [p for p in _finalists(trials, allowed) if p == best or behind[p] <= _CLOSE * errors[p]]
    return sorted(sorted(close, key=lambda place: float(behind[place]))[:_MOST])


def choose(trials: Sequence[Trial], caps: Caps) -> Choice:
    """The simplest candidate whose score is within one standard error of the best, among those within the caps.

    Simpler is: fewer neurons, then no guidance by the label, then no weight on distinctness; among equally simple ones
    the better score counts, since the caps bound what guidance may cost. Where no candidate is within all caps, that on
    redundancy goes first, then that on dead neurons, then that on reconstruction. Only candidates of every trial can be
    taken.

    Args:
        trials: the first with all candidates, its figures are those that the caps bind; the others with contenders.
        caps: what a candidate may cost.
    """
    candidates = _candidates(trials)
    within = np.logical_and.reduce(_rules(candidates, caps))
    allowed, given_up = _allowed(candidates, caps)
    best, behind, errors = _standing(trials, allowed)
    near = [place for place in _finalists(trials, allowed) if place == best or behind[place] <= errors[place]]
    chosen = min(near, key=lambda place: (*_complexity(candidates[place].size), behind[place]))
    reason = "the best score" if chosen == best else "the simplest within one standard error of the best score"
    if len(trials) > 1:
        reason += f", over {len(trials)} parts of the training and validation clusters"
    if given_up:
        reason += f"; no candidate was within the cap on {' or '.join(given_up)}"
    parts = np.array([sum(place in trial.judged for trial in trials) for place in range(len(candidates))])
    top = float(np.mean([trial.judged[best].score for trial in trials]))
    return Choice(chosen, best, top - behind, errors, parts, within, reason)


def _candidates(trials: Sequence[Trial]) -> list[Judged]:
    return [trials[0].judged[place] for place in range(len(trials[0].judged))]


def _finalists(trials: Sequence[Trial], allowed: np.ndarray) -> list[int]:
    return [place for place in sorted(trials[-1].judged) if allowed[place]]


def _standing(trials: Sequence[Trial], allowed: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The best finalist, and how far each candidate lies behind it and by what standard error (candidates,).

    A candidate is compared with the best on the parts on which it was judged; the best was judged on all. Parts share
    no cluster, so draws of one are independent of those of another.
    """
    means = {p: np.mean([trial.judged[p].score for trial in trials]) for p in _finalists(trials, allowed)}
    best = max(means, key=lambda place: (np.nan_to_num(means[place], nan=-np.inf), -place))
    behind, errors = np.full(len(allowed), np.nan), np.zeros(len(allowed))
    for place in range(len(allowed)):
        mine = [trial for trial in trials if place in trial.judged]
        behind[place] = np.mean([trial.judged[best].score - trial.judged[place].score for trial in mine])
        if min(len(trial.draws[place]) for trial in mine) > 1:
            spread = [(trial.draws[best] - trial.draws[place]).var(ddof=1) for trial in mine]
            errors[place] = math.sqrt(sum(spread)) / len(mine)
    return best, behind, errors


def _allowed(candidates: Sequence[Judged], caps: Caps) -> tuple[np.ndarray, list[str]]:
    """(candidates,) bool: within all caps, or within those that are left when the named ones are given up in turn."""
    rules, given_up = _rules(candidates, caps), []
    allowed = np.logical_and.reduce(rules)
    for name in ("redundancy", "dead neurons", "reconstruction"):
        if allowed.any():
            break
        given_up.append(name)
        rules.pop()
        allowed = np.logical_and.reduce(rules) if rules else np.ones(len(candidates), dtype=bool)
    return allowed, given_up


def _rules(candidates: Sequence[Judged], caps: Caps) -> list[np.ndarray]:
    """(candidates,) bool of each cap: reconstruction, dead neurons, redundancy."""
    plain = {(c.size.m, c.size.k): c for c in candidates if c.size.label_weight == 0}
    pairs = [(c, plain.get((c.size.m, c.size.k), c)) for c in candidates]
    return [
        np.array([c.nmse <= caps.reconstruction * twin.nmse for c, twin in pairs]),
        np.array([c.dead_share <= caps.dead_share for c in candidates]),
        np.array([c.redundancy <= max(caps.redundancy, _redundancy_of(twin, c)) for c, twin in pairs]),
    ]


def kept_apart(candidates: Sequence[Judged], caps: Caps, head_share: float = 1.0) -> list[Size]:
    """What is worth training once more with neurons kept apart: guided ones beyond the cap on redundancy alone.

    A small weight on distinctness takes most of the likeness of neurons and little of what they say (`guidance`); where
    they are hardly too alike, less of it will do. It is one of the mean over pairs of neurons that the label guides;
    where these are a share of all, each of their pairs weighs the more in that mean, and the weight is the smaller by
    as much.
    """
    reconstruction, dead, redundancy_cap = _rules(candidates, caps)
    return [
        replace(c.size, distinct_weight=_apart(c, caps) * head_share**2 * c.size.label_weight)
        for c, fit, alike in zip(candidates, reconstruction & dead, ~redundancy_cap, strict=True)
        if fit and alike and c.size.label_weight > 0 and math.isfinite(c.redundancy)
    ]


def _apart(candidate: Judged, caps: Caps) -> float:
    beyond = (candidate.redundancy / caps.redundancy - _NO_WEIGHT) / (_WHOLE_WEIGHT - _NO_WEIGHT)
    # Rounded: a last digit of the redundancy must not make another autoencoder of it.
    return round(_APART * min(beyond, 1.0), 2)


def _redundancy_of(twin: Judged, candidate: Judged) -> float:
    return 0.0 if twin is candidate and candidate.size.label_weight > 0 else twin.redundancy


def _complexity(size: Size) -> tuple[float, ...]:
    return (size.m, size.label_weight > 0, size.distinct_weight > 0)
