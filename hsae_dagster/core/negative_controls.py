"""How many discoveries the pipeline makes where there is nothing, or nothing special, to discover.

Belongs here: the controls that every evaluation runs beside its own tests, on the same rows with the same test and the
same rule. Does not belong here: the tests themselves (`core.inference`) or the joint fit's floor (`core.joint_fit`).

- Permuted labels. Outcomes are dealt anew to whole clusters, on training texts and holdout alike; neurons are selected
  for the permuted outcome as they were for the real one, and each is tested on the holdout (fires or not in the place
  of a concept, so that no words need be written). Whatever is confirmed is false.
- Permuted labels, own concepts. This report's own concepts against permuted holdout outcomes: the test alone.
- Random neurons. Neurons that selection did not take, drawn at random, against the real outcome. These are no nulls:
  much goes with an outcome when there are many texts. The share confirmed says how little being significant means, and
  the size of their effects is what the selected ones should be held against.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.inference import HoldoutDesign, holm, separation, untestable
from hsae_dagster.core.joint_fit import without_relation
from hsae_dagster.core.selection import select_for_each

# Training observations read by the selection for permuted labels; whole clusters, so that a control stays cheap.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class NegativeControl:
    """Discoveries of one control.

    Attributes:
        name: `permuted labels`, `permuted labels, own concepts` or `random neurons`.
        runs: repetitions.
        tested: tests in all of them.
        discoveries: tests that would be called confirmed (Holm within the run, in the training direction), in all.
        runs_with_any: repetitions with at least one.
        typical_effect: median size of the separation over all tests (NaN where nothing could be tested); of several
            sets of tests, the mean of theirs.
        any_in_run: (runs) whether each had a discovery.
    """

    name: str
    runs: int
    tested: int
    discoveries: int
    runs_with_any: int
    typical_effect: float
    any_in_run: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Observations of one side.

    Attributes:
        codes: (n, m) CSR activations; for pairs, text A's minus text B's.
        fires: (n, m) CSR, 1 where the neuron fires; for pairs, A's minus B's.
        outcome: (n,).
        clusters: (n,) keys.
    """

    codes: sp.csr_matrix
    fires: sp.csr_matrix
    outcome: np.ndarray
    clusters: np.ndarray

    def sample(self, most: int, rng: np.random.Generator) -> "Rows":
        """Whole clusters in random order, until `most` observations are reached."""
        if len(self.outcome) <= most:
            return self
        groups = np.unique(self.clusters, return_inverse=True)[1]
        order = rng.permutation(int(groups.max()) + 1)
        sizes = np.bincount(groups)[order]
        taken = np.isin(groups, order[: int(np.searchsorted(np.cumsum(sizes), most)) + 1])
        return Rows(self.codes[taken], self.fires[taken], self.outcome[taken], self.clusters[taken])


@dataclass(frozen=True)
class Rule:
    """What counts as a discovery, and how neurons are selected."""

    task: str
    method: str
    n_select: int
    alpha: float
    min_positives: int


def permuted_labels(train: Rows, holdout: Rows, rule: Rule, runs: int, rng: np.random.Generator) -> NegativeControl:
    """Select and test for outcomes that have nothing to do with the texts."""
    train = train.sample(MOST_ROWS, rng)
    targets = [_permuted(train, rule.task, rng) for _ in range(runs)]
    kind = "regression" if rule.task == "regression" else "classification"
    chosen = select_for_each(train.codes, targets, rule.n_select, method=rule.method, task=kind)
    results = []
    for target, selection in zip(targets, chosen, strict=True):
        directions = [_direction(train.fires[:, [j]].toarray()[:, 0], target, rule.task) for j in selection.columns]
        outcome = _permuted(holdout, rule.task, rng)
        results.append(_discoveries(holdout, selection.columns, outcome, directions, rule))
    return _summary("permuted labels", results)


def permuted_concepts(design: HoldoutDesign, rule: Rule, runs: int, rng: np.random.Generator) -> NegativeControl:
    """The report's own concepts against permuted outcomes of the holdout."""
    groups = np.unique(design.clusters, return_inverse=True)[1]
    results = []
    for _ in range(runs):
        outcome = without_relation(design.outcome, groups, rule.task, rng)
        shuffled = HoldoutDesign(design.concepts, outcome, design.clusters, design.controls, design.task)
        results.append(_test(shuffled, [0.0] * design.concepts.shape[1], rule))
    return _summary("permuted labels, own concepts", results)


def random_neurons(
    train: Rows, holdout: Rows, taken: Sequence[int], rule: Rule, rng: np.random.Generator
) -> NegativeControl:
    """As many neurons as were selected, drawn from those that were not, against the real outcome."""
    counts = np.diff(holdout.fires.tocsc().indptr)
    able = np.setdiff1d(np.flatnonzero(counts >= rule.min_positives), np.asarray(taken, dtype=np.int64))
    columns = sorted(rng.choice(able, size=min(len(taken), len(able)), replace=False).tolist())
    directions = [_direction(train.fires[:, [j]].toarray()[:, 0], train.outcome, rule.task) for j in columns]
    return _summary("random neurons", [_discoveries(holdout, columns, holdout.outcome, directions, rule)])


def most_by_chance(runs: int, alpha: float) -> int:
    """Most of `runs` permutations with a false confirmation that are no surprise where each has one with chance alpha.

    The 95th percentile of the binomial distribution: more happen with at most 5 % probability.
    """
    from scipy import stats

    return int(stats.binom.ppf(0.95, runs, alpha))


def _permuted(rows: Rows, task: str, rng: np.random.Generator) -> np.ndarray:
    return without_relation(rows.outcome, np.unique(rows.clusters, return_inverse=True)[1], task, rng)


def _direction(fired: np.ndarray, outcome: np.ndarray, task: str) -> float:
    """Sign of the separation of firing on training rows; 0 where it cannot be told."""
    if task == "pairwise":
        return float(np.sign(fired @ (outcome - 0.5)))
    on = fired > 0
    return float(np.sign(outcome[on].mean() - outcome[~on].mean())) if on.any() and not on.all() else 0.0


def _discoveries(
    holdout: Rows, columns: Sequence[int], outcome: np.ndarray, directions: Sequence[float], rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    concepts = holdout.fires[:, list(columns)].toarray()
    design = HoldoutDesign(concepts, outcome, holdout.clusters, np.empty((len(outcome), 0)), rule.task)
    return _test(design, directions, rule)


def _test(design: HoldoutDesign, directions: Sequence[float], rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the effects of testable columns, and which of them would be confirmed."""
    able = [untestable(design, j, rule.min_positives) is None for j in range(design.concepts.shape[1])]
    effects = [separation(design, j) if tested else None for j, tested in enumerate(able)]
    p_values = np.array([np.nan if effect is None else effect.p_value for effect in effects])
    estimates = np.array([np.nan if effect is None else effect.estimate for effect in effects])
    corrected = holm(p_values)
    # A direction of 0 agrees with everything, as in the verdict.
    agrees = np.sign(estimates) * np.asarray(directions) >= 0
    done = np.isfinite(p_values)
    return np.abs(estimates[done]), (np.nan_to_num(corrected, nan=1.0) < rule.alpha)[done] & agrees[done]


def _summary(name: str, results: list[tuple[np.ndarray, np.ndarray]]) -> NegativeControl:
    sizes = np.concatenate([sizes for sizes, _ in results]) if results else np.empty(0)
    return NegativeControl(
        name=name,
        runs=len(results),
        tested=len(sizes),
        discoveries=int(sum(found.sum() for _, found in results)),
        runs_with_any=int(sum(found.any() for _, found in results)),
        typical_effect=float(np.median(sizes)) if sizes.size else float("nan"),
        any_in_run=tuple(bool(found.any()) for _, found in results),
    )


def together(parts: Sequence[NegativeControl]) -> NegativeControl:
    """One control of several sets of tests that share alpha: a run of it is the same run of each."""
    if len(parts) == 1:
        return parts[0]
    any_in_run = tuple(any(run) for run in zip(*(part.any_in_run for part in parts), strict=True))
    known = [part.typical_effect for part in parts if part.tested]
    return NegativeControl(
        name=parts[0].name,
        runs=parts[0].runs,
        tested=sum(part.tested for part in parts),
        discoveries=sum(part.discoveries for part in parts),
        runs_with_any=sum(any_in_run),
        typical_effect=float(np.mean(known)) if known else float("nan"),
        any_in_run=any_in_run,
    )
