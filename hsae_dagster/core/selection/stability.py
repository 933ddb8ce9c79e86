"""Selection put to the test: other texts of the same kind, other autoencoders, the other half, permuted labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
import scipy.sparse as sp

from hsae_dagster.core.inference.effects import holm, separation, untestable
from hsae_dagster.core.inference.joint_fit import likeness, phi_matrix, without_relation
from hsae_dagster.core.observations import SPLITS, HoldoutDesign
from hsae_dagster.core.selection.lasso import LassoPath, TiedPathError
from hsae_dagster.core.selection.methods import METHODS, Selection, select_for_each
from hsae_dagster.core.selection.standardised import BlockSums, HalfSums, StandardisedCodes

# Firing on the same texts to this φ counts as the same neuron.
FOUND = 0.5


def found_again(codes: sp.csr_matrix, others: sp.csr_matrix) -> np.ndarray:
    """(m,) float64 largest φ of each neuron with any neuron of another autoencoder, over the same texts.

    Of activations (n, m) and (n, o) only whether they are 0 counts; 0 for a neuron that fires on no text or on all.
    """
    best: np.ndarray = phi_matrix(codes, others).max(axis=1, initial=0.0)
    return best


PAIRS = 25
# Blocks of clusters: enough that halves differ in many ways, and fewer where their sums would need much memory.
_MOST_BLOCKS, _FEWEST_BLOCKS, _MOST_NUMBERS = 48, 16, 2**23
# Columns of the first Gram matrices beside the selected ones: by correlation, and by what the selected do not explain;
# rows from which these are guessed.
_NEAR, _ENOUGH_ROWS = 32, 40_000
_ROUNDS, _WORST = 50, 5
# A column belongs to a solution if its gradient exceeds alpha by more than this share of the path's top.
_BREACH = 1e-7


def selection_frequency(
    codes: sp.csr_matrix,
    outcome: np.ndarray,
    clusters: np.ndarray,
    selection: Selection,
    rng: np.random.Generator,
    *,
    pairs: int = PAIRS,
) -> np.ndarray:
    """Share of 2 × `pairs` half-samples of clusters from which each selected neuron is selected again.

    Activations (n, m), outcome (n,) and keys of clusters (n,) are of the training observations, from all of which the
    selection was made. Halves are complementary, and a cluster is in one of them as a whole.

    Returns:
        (selected,) float64 from 0 to 1 in rank order; NaN for a method of the user's own and for a selection by
        covariates, which are not run again, and where there are fewer than four clusters.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    n_groups, columns = int(groups.max(initial=-1)) + 1, selection.columns
    shipped = METHODS.shipped.get(selection.method)  # none for a user's own, and for a selection by covariates
    if n_groups < 4 or shipped is None or not shipped.again:
        return np.full(len(columns), np.nan)
    codes, outcome = sp.csr_matrix(codes), np.asarray(outcome, dtype=np.float64)
    nearest, run = _FROM_SUMS.get(selection.method, (None, None))
    near = nearest(codes, outcome, selection) if nearest else np.empty(0, dtype=np.int64)
    affordable = _MOST_NUMBERS // (codes.shape[1] * (len(near) + 2))
    n_blocks = min(n_groups, max(_FEWEST_BLOCKS, min(_MOST_BLOCKS, affordable)))
    blocks = (rng.permutation(n_groups) % n_blocks)[groups]
    halves = np.zeros((2 * pairs, n_blocks), dtype=bool)
    for pair in range(pairs):
        halves[2 * pair, rng.permutation(n_blocks)[: n_blocks // 2]] = True
        halves[2 * pair + 1] = ~halves[2 * pair]
    found: Iterable[list[int] | np.ndarray] = _by_rows(codes, outcome, blocks, halves, selection)
    if run:
        found = run(codes, blocks, BlockSums.of(codes, outcome, blocks, near), halves, selection)
    counts = np.zeros(codes.shape[1])
    for again in found:
        counts[again] += 1
    return counts[columns] / (2 * pairs)


def _usable(n_columns: int, selection: Selection) -> np.ndarray:
    """(m,) bool: columns that may be selected, neither dead nor a copy."""
    usable = np.ones(n_columns, dtype=bool)
    usable[[*selection.dead, *(copy for _, copy in selection.duplicates)]] = False
    return usable


def _near(codes: sp.csr_matrix, outcome: np.ndarray, selection: Selection) -> np.ndarray:
    """The selected columns and those likely to take their place in a half, ascending.

    A guess from evenly spaced rows; the gradients of all columns put it right.
    """
    step = max(1, codes.shape[0] // _ENOUGH_ROWS)
    matrix, outcome = StandardisedCodes(codes[::step]), outcome[::step]
    usable = _usable(codes.shape[1], selection) & ~matrix.constant
    columns, centred = np.array(selection.columns), outcome - outcome.mean()
    if selection.task == "regression":
        fitted = matrix.product(columns, np.array(selection.scores))
    else:
        design = np.column_stack([matrix.dense_column(j) for j in columns])
        design -= design.mean(axis=0)
        fitted = design @ np.linalg.lstsq(design.T @ design, design.T @ centred, rcond=None)[0]
    found = [columns]
    for rest in (centred, centred - fitted):
        size = np.where(usable, np.abs(matrix.transposed_product(rest)), -1.0)
        best = np.argsort(-size, kind="stable")[:_NEAR]
        found.append(best[size[best] >= 0])
    return np.unique(np.concatenate(found))


def _by_rows(
    codes: sp.csr_matrix, outcome: np.ndarray, blocks: np.ndarray, halves: np.ndarray, selection: Selection
) -> Iterator[list[int]]:
    """Columns selected from the rows of each half, as the selection itself went: any method; none where none can be."""
    how, n_select = {"method": selection.method, "task": selection.task}, len(selection.columns)
    for half in (half[blocks] for half in halves):
        if np.ptp(outcome[half]) > 0:
            yield select_for_each(codes[half], [outcome[half]], n_select, **how)[0].columns


def _by_correlation(
    codes: sp.csr_matrix, blocks: np.ndarray, of_blocks: BlockSums, halves: np.ndarray, selection: Selection
) -> list[np.ndarray]:
    """The columns of largest |r| in each half."""
    sums = HalfSums(of_blocks, halves)
    size = np.where(sums.varies & _usable(codes.shape[1], selection), np.abs(sums.with_outcome), -1.0)
    best = np.argsort(-size, axis=1, kind="stable")[:, : len(selection.columns)]
    return [columns[row[columns] >= 0] for columns, row in zip(best, size, strict=True)]


def _by_lasso(
    codes: sp.csr_matrix, blocks: np.ndarray, of_blocks: BlockSums, halves: np.ndarray, selection: Selection
) -> list[np.ndarray]:
    """The columns of the first lasso solution with as many neurons as were selected, in each half."""
    usable, n_select = _usable(codes.shape[1], selection), len(selection.columns)
    found: list[np.ndarray] = [np.empty(0, dtype=np.int64)] * len(halves)
    open_halves = np.arange(len(halves))
    for _ in range(_ROUNDS):
        near, sums = of_blocks.near, HalfSums(of_blocks, halves[open_halves])
        grams, weights = sums.gram(), np.zeros((len(open_halves), len(near)))
        bounds = np.empty(len(open_halves))
        for place, half in enumerate(open_halves):
            alpha, at, coefficients = _path(sums, grams[place], place, near, n_select)
            found[half], weights[place, at] = near[at], coefficients
            bounds[place] = alpha + _BREACH * np.abs(sums.with_outcome[place, near]).max(initial=0.0)
        breach = np.where(usable & sums.varies, np.abs(sums.gradient(weights)) - bounds[:, None], -1.0)
        breach[:, near] = -1.0
        # The worst few of each half: most others fall back once these are in.
        worst = np.argsort(-breach, axis=1, kind="stable")[:, :_WORST]
        further = np.unique(worst[np.take_along_axis(breach, worst, axis=1) > 0])
        if len(further) == 0:
            break
        open_halves = open_halves[(breach > 0).any(axis=1)]
        of_blocks = of_blocks.joined_by(codes, blocks, further)
    return found


# Methods that sums over blocks of clusters are enough for, and the columns whose products they need; others read rows.
_FROM_SUMS: dict[str, tuple[Callable[..., np.ndarray] | None, Callable[..., list[np.ndarray]]]] = {
    "lasso": (_near, _by_lasso),
    "correlation": (None, _by_correlation),
}


def _path(
    sums: HalfSums, gram: np.ndarray, half: int, near: np.ndarray, n_select: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Alpha, positions in `near` and coefficients of the first solution with n_select columns, or the last one."""
    able = sums.varies[half, near]
    spread = float(sums.outcome_spread[half])
    for jitter in (0.0, 1e-10, 1e-8):
        path = LassoPath(sums.with_outcome[half, near], able, spread, gram.__getitem__, jitter=jitter)
        try:
            # Stops behind the first stretch on which more columns are active than were wanted.
            path.extend(0.0, n_select)
        except (TiedPathError, np.linalg.LinAlgError):
            continue
        break
    if not path.segments:
        return path.top, np.empty(0, dtype=np.int64), np.empty(0)
    reached = [segment for segment in path.segments if len(segment.columns) >= n_select]
    segment = reached[0] if reached else max(path.segments, key=lambda s: len(s.columns))
    alpha = (segment.upper + segment.lower) / 2
    coefficients = segment.coefficients(alpha)
    order = np.argsort(-np.abs(coefficients), kind="stable")[:n_select]
    return alpha, segment.columns[order], coefficients[order]


# Training observations read by the selection for permuted labels; whole clusters, so that a control stays cheap.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class NegativeControl:
    """Discoveries of one control: `permuted labels`, `permuted labels, own concepts` or `random neurons`.

    Attributes:
        tested: tests in all runs.
        discoveries: of them, what would be called confirmed (Holm within the run, in the training direction).
        runs_with_any: runs with at least one.
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
    """Observations of one side: (n, m) CSR activations and where they fire (1), (n,) outcomes and keys of clusters.

    Of pairs, both matrices are text A's minus text B's. `units` are those of a `HoldoutDesign`.
    """

    codes: sp.csr_matrix
    fires: sp.csr_matrix
    outcome: np.ndarray
    clusters: np.ndarray
    units: np.ndarray | None = None

    def sample(self, most: int, rng: np.random.Generator) -> "Rows":
        """Whole clusters in random order, until `most` observations are reached."""
        if len(self.outcome) <= most:
            return self
        groups = np.unique(self.clusters, return_inverse=True)[1]
        order = rng.permutation(int(groups.max()) + 1)
        sizes = np.bincount(groups)[order]
        taken = np.isin(groups, order[: int(np.searchsorted(np.cumsum(sizes), most)) + 1])
        units = None if self.units is None else self.units[taken]
        return Rows(self.codes[taken], self.fires[taken], self.outcome[taken], self.clusters[taken], units)


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
    # Without units, as in `permuted_concepts`.
    train, holdout = train.sample(MOST_ROWS, rng), replace(holdout, units=None)
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
    results = []
    for _ in range(runs):
        outcome = _permuted(design, rule.task, rng)
        # Without units: dealt to whole clusters, outcomes have nothing to do with what these share.
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


def _permuted(rows: Rows | HoldoutDesign, task: str, rng: np.random.Generator) -> np.ndarray:
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
    controls = np.empty((len(outcome), 0))
    design = HoldoutDesign(concepts, outcome, holdout.clusters, controls, rule.task, units=holdout.units)
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


HALVES = ("a", "b")


@dataclass(frozen=True)
class Side:
    """Texts and observations as one discovery sees them: as in the corpus, but `split` is `holdout` for what is tested.

    `half` is the one that is learned from, `a` or `b`; empty where there is one holdout.
    """

    half: str
    texts: pl.DataFrame
    observations: pl.DataFrame


def sides(texts: pl.DataFrame, observations: pl.DataFrame) -> list[Side]:
    """The sides of a corpus: two where it has halves, in the order of `HALVES`, else one."""
    if "half" not in texts.columns:
        return [Side("", texts, observations)]
    return [Side(half, seen_from(half, texts), seen_from(half, observations)) for half in HALVES]


def seen_from(half: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with the other half as the holdout; unchanged where there are no halves."""
    if "half" not in rows.columns:
        return rows
    held_out = pl.when(pl.col("half") == half).then("split").otherwise(pl.lit("holdout"))
    return rows.with_columns(held_out.alias("split"))


def views(rows: pl.DataFrame) -> list[pl.DataFrame]:
    """The same rows as each side sees them."""
    return [seen_from(half, rows) for half in HALVES] if "half" in rows.columns else [rows]


def placed_in(rows: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Rows by where they landed: by split, or by half where each is the other's holdout."""
    if "half" in rows.columns:
        return {f"half {half.upper()}": rows.filter(pl.col("half") == half) for half in HALVES}
    return {split: rows.filter(pl.col("split") == split) for split in SPLITS}


def silenced(codes: sp.csr_matrix, left_out: Sequence[int]) -> sp.csr_matrix:
    """Codes (n, m) in which some columns never fire, so that no method selects them."""
    if not len(left_out):
        return codes
    keep = np.ones(codes.shape[1])
    keep[list(left_out)] = 0.0
    found = (sp.csr_matrix(codes) @ sp.diags_array(keep)).tocsr()
    found.eliminate_zeros()
    return sp.csr_matrix(found, dtype=codes.dtype)


def of_half(rows: pl.DataFrame, half: str) -> pl.DataFrame:
    """Rows of a table, whose column `half` tells who found them, that belong to one side."""
    return rows.filter(pl.col("half") == half)


def rows_that_test(rows: pl.DataFrame, found_in: str = "") -> pl.DataFrame:
    """Rows of the corpus on which claims found in a half are tested.

    Claims that nothing was learned for are found in none (empty): every row of both halves, or of the holdout, tests
    them.
    """
    if "half" not in rows.columns:
        return rows.filter(pl.col("split") == "holdout")
    return rows.filter(pl.col("half") != found_in)


def alpha_shares(*, halves: bool, own: int, wanted: int) -> dict[str, float]:
    """Share of alpha by where claims were found; the user's own have a part of it, as many as there are of all.

    The others count as `wanted`, not as found, which the outcomes decided.
    """
    if not halves:
        return {"": 1.0}
    declared = own / (own + wanted)
    return {"a": (1 - declared) / 2, "b": (1 - declared) / 2} | ({"": declared} if own else {})


@dataclass(frozen=True)
class Said:
    """A claim as far as it matters for whether another one says the same.

    Its direction is the sign of the effect that it was found with, or 0; answers on all texts are (texts,) int8: 1 yes,
    0 no, -1 missing.
    """

    concept_id: str
    claim: str
    direction: int
    answers: np.ndarray


def twins(first: Sequence[Said], second: Sequence[Said], threshold: float) -> list[tuple[int, int, float]]:
    """Pairs of claims of two halves that say the same, each claim in one pair at most, the most alike first.

    Equal meanings are a pair. Others are one by the rule of near-duplicates (`joint_fit`), if they were found
    with the same direction (the opposite one, where they are opposites).

    Returns:
        (position in first, position in second, φ of their annotations).
    """
    alike: list[tuple[bool, float, int, int, float]] = []
    for i, one in enumerate(first):
        for j, other in enumerate(second):
            equal = one.concept_id == other.concept_id
            found = likeness((one.answers, other.answers), (one.claim, other.claim), threshold)
            if equal or (found is not None and one.direction * other.direction * np.sign(found) >= 0):
                phi = 1.0 if equal or found is None else found
                alike.append((not equal, -abs(phi), i, j, phi))
    pairs: list[tuple[int, int, float]] = []
    for _, _, i, j, phi in sorted(alike):
        if all(i != a and j != b for a, b, _ in pairs):
            pairs.append((i, j, phi))
    return pairs
