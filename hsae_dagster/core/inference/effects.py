"""Does a concept go with the outcome? Tests on the holdout, once per hypothesis.

Exact tests for pairs and for perfect fits; bounds for answers that are missing.
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from hsae_dagster.core.inference.cluster_robust import (
    NO_EFFECT_ESTIMATED,
    Effect,
    cluster_ols,
    whole_clusters,
    wild_cluster_test,
)
from hsae_dagster.core.inference.partial_effects import Flag, partial_effects, spanned, variance_inflation
from hsae_dagster.core.observations import HoldoutDesign

# From this share on, a claim has to survive the worst answers.
WORTH_BOUNDING = 0.01


def worst_answers(h: np.ndarray, y: np.ndarray, direction: float, *, pairwise: bool) -> np.ndarray:
    """The answers h (n,) with the missing ones, NaN, filled so that least is left of an effect of this direction on y.

    Answers are 1 or 0 per text, both of which occur; or -1, 0 or 1 per pair, where the side that lost (or won) fills.
    """
    missing = np.flatnonzero(~np.isfinite(h))
    filled = h.copy()
    if pairwise:
        filled[missing] = -np.sign(direction) * np.sign(2 * y[missing] - 1)
        return filled
    order = missing[np.argsort(np.sign(direction) * y[missing], kind="stable")]
    sums = np.concatenate([[0.0], np.cumsum(y[order])])
    known = np.isfinite(h)
    with_it, without = known & (h == 1), known & (h == 0)
    k = np.arange(len(order) + 1)
    means_with = (y[with_it].sum() + sums) / (with_it.sum() + k)
    means_without = (y[without].sum() + sums[-1] - sums) / (without.sum() + len(order) - k)
    least = int(np.argmin(np.sign(direction) * (means_with - means_without)))
    filled[order] = np.where(np.arange(len(order)) < least, 1.0, 0.0)
    return filled


def exact_fit_p(h: np.ndarray, clusters: np.ndarray) -> float:
    """Two-sided permutation p-value of a perfect fit of a concept h (n,), 1 or 0, in clusters (n,) of keys.

    Twice the chance that an arrangement of the concept within its bounds fits perfectly, at most 1.
    """
    from scipy.special import gammaln

    groups = np.unique(clusters, return_inverse=True)[1]
    sizes, having = np.bincount(groups), np.bincount(groups, h != 0)
    mixed = (having > 0) & (having < sizes)
    of = np.append(sizes[mixed], (~mixed).sum()).astype(np.float64)
    taken = np.append(having[mixed], (having[~mixed] > 0).sum()).astype(np.float64)
    arrangements = gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)
    return float(min(1.0, 2 * np.exp(-arrangements.sum())))


_ALL_SIGNS = 14
_DRAWS, _SEED = 1_999, 20_261_129
# With more texts the t of `core.inference.cluster_robust` is right.
_MANY_ITEMS = 2_000


def sign_flip_p(scores: np.ndarray) -> float:
    """Two-sided mid-p of a sum of cluster scores, each of which could as well have had the other sign.

    Scores (clusters,) are multiples of one half; zeros say nothing. The share of signs that give a larger sum (in
    size), and half of those that give the same; 1 where all scores are zero.
    """
    # In units of the largest step of which all sums are whole multiples apart, sums are one apart.
    twice = np.rint(2 * scores[scores != 0]).astype(np.int64)
    if not twice.size:
        return 1.0
    scores = twice / (2.0 * np.gcd.reduce(twice))
    total = abs(float(scores.sum()))
    if len(scores) <= _ALL_SIGNS:
        sums = np.zeros(1)
        for size in np.abs(scores):
            sums = np.concatenate([sums + size, sums - size])
        beyond, there = np.abs(sums) - total > 0.25, np.abs(np.abs(sums) - total) < 0.25
        return float(beyond.mean() + there.mean() / 2)
    # Scores of a few pairs have few sizes, however many clusters there are.
    sizes, counts = np.unique(np.abs(scores), return_counts=True)
    return min(1.0, _upper_tail(sizes, counts, total) + _upper_tail(sizes, counts, total + 1))


def _upper_tail(sizes: np.ndarray, counts: np.ndarray, total: float) -> float:
    """P(sum of signed sizes >= total) where each size occurs so often, for sums one apart and total >= 0."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    largest = float(counts @ sizes)
    if total > largest - 0.25:
        return float(2.0 ** -counts.sum()) if total < largest + 0.25 else 0.0
    aim = total - 0.5
    if abs(aim) < 0.25:  # the middle of a symmetric distribution
        return 0.5
    if aim < 0:
        return 1.0 - _upper_tail(sizes, counts, 1.0 - total)

    def slope(t: float) -> float:
        return float(counts @ (sizes * np.tanh(t * sizes))) - aim

    end = 1.0
    while slope(end) < 0:
        end *= 2.0
    t = float(brentq(slope, 0.0, end, xtol=1e-12))
    height = float(counts @ (np.logaddexp(t * sizes, -t * sizes) - np.log(2.0)))
    curvature = float(counts @ (sizes**2 * (1.0 - np.tanh(t * sizes) ** 2)))
    r = np.sqrt(2.0 * (t * aim - height))
    u = 2.0 * np.sinh(t / 2.0) * np.sqrt(curvature)
    return float(norm.sf(r) + norm.pdf(r) * (1.0 / u - 1.0 / r))


def item_swap_test(h: np.ndarray, scores: np.ndarray, items: np.ndarray) -> tuple[float, float] | None:
    """Deal the concept to other texts that pairs connect, and see how often the effect is as large.

    With c = 1 for texts that have the concept and s the net wins of each text, the sum of h times the wins is c's
    product with s: a comparison of texts, not of pairs. From h, c is known up to a constant in each set of texts that
    pairs connect, which is all that dealing within these sets needs. Of n pairs, h is 1, 0 or -1 (text A's concept
    minus text B's), scores are wins less one half, items (n, 2) int64 numbers of the texts.

    Returns:
        Two-sided p-value, at least 1 / 2,000, and half-width of the 95 % interval of the mean score of pairs with
        h = 1; None where texts are many or nothing can be dealt.
    """
    import scipy.sparse as sp
    from scipy.sparse.linalg import lsqr

    n = len(h)
    numbers = np.unique(items, return_inverse=True)[1].reshape(n, 2)
    n_items, square = int(numbers.max()) + 1, float(h @ h)
    if n_items > _MANY_ITEMS or square == 0:
        return None
    signs = np.concatenate([np.ones(n), -np.ones(n)])
    sides = sp.csr_matrix((signs, (np.tile(np.arange(n), 2), numbers.T.ravel())), shape=(n, n_items))
    sets = sp.csgraph.connected_components(abs(sides).T @ abs(sides), directed=False)[1]
    has = lsqr(sides, h, atol=1e-10, btol=1e-10)[0]
    has -= (np.bincount(sets, has) / np.bincount(sets))[sets]
    wins, left = sides.T @ scores, sides.T @ (scores - h * float(h @ scores) / square)
    error, spread = float(np.sqrt(has**2 @ wins**2)), float(np.sqrt(has**2 @ left**2))
    if error < 1e-9:
        return None
    dealt = wins[_orders(sets.astype(np.int32).tobytes())]
    t = np.abs(dealt @ has) / np.sqrt(np.maximum(dealt**2 @ has**2, np.finfo(np.float64).tiny))
    seen = abs(float(has @ wins)) / error
    p_value = (1 + int((t >= seen * (1 - 1e-9)).sum())) / (_DRAWS + 1)
    return p_value, float(np.quantile(t, 0.95)) * spread / square


@lru_cache(maxsize=2)
def _orders(sets: bytes) -> np.ndarray:
    """(draws, items) int32: items in a new order within each set."""
    of = np.frombuffer(sets, dtype=np.int32)
    rng, sorted_items = np.random.default_rng([_SEED, len(of)]), np.argsort(of, kind="stable")
    made = np.empty((_DRAWS, len(of)), dtype=np.int32)
    for draw in made:
        draw[sorted_items] = np.lexsort((rng.random(len(of)), of))
    return made


# A t with fewer degrees of freedom rests on so few clusters that a reader should know.
_FEW_DEGREES = 10
_MANY_MISSING = 0.1
_LARGE_CLUSTER = 1 / 3
# A side of fewer clusters, by the effective number that their sizes leave, is one cluster and a few texts: true nulls
# of two clusters of ten, one of them huge, were "significant" in 9 %.
_LEAST_EFFECTIVE = 1.5
# Below so many clusters, counted or by the effective number that their sizes leave, the bootstrap decides.
_FEW_CLUSTERS, _FEW_EFFECTIVE = 50, 30
# From this share of a concept between clusters on it is theirs rather than their texts'.
_MOSTLY_WHOLE = 0.5
# The usual bound (O'Brien 2007): from here on the partial effect's interval is more than twice as wide as alone.
_LARGE_INFLATION = 5.0


@dataclass(frozen=True)
class HypothesisTest:
    """What the holdout says about one hypothesis.

    Attributes:
        separation: the effect that is shown and decides: `adjusted` where controls were declared, else `plain`.
        partial: effect with all other hypotheses and the controls held constant (outcome units; average marginal
            effect of a logit for 0/1 outcomes).
        n: observations with an annotation; of them `n_with` have the concept (of pairs: just one text has it).
        adjusted: the effect with text length and declared controls held constant, without the other concepts.
        inflation: variance inflation of the concept beside the other concepts and the controls; NaN if not tested.
        plain: the marginal effect, with nothing held constant.
        rank: the same effect as `separation` on the outcome's ranks, as shares of 1; of regression only.
        missing: share of the observations without an annotation.
        worst: the effect if the missing answers are those that speak most against it; only from 1 % missing.
        basis: what `separation` is: `plain`, `controls` or `distilled` (`core.inference.annotation_error`).
    """

    separation: Effect
    partial: Effect
    n: int
    n_with: int
    n_clusters: int
    prevalence: float
    flags: tuple[Flag, ...]
    adjusted: Effect = NO_EFFECT_ESTIMATED
    inflation: float = np.nan
    plain: Effect = NO_EFFECT_ESTIMATED
    rank: Effect = NO_EFFECT_ESTIMATED
    missing: float = 0.0
    worst: Effect = NO_EFFECT_ESTIMATED
    basis: str = "plain"


def test_hypotheses(design: HoldoutDesign, *, min_positives: int = 20) -> list[HypothesisTest]:
    """Test each concept column on its own and beside the others.

    With fewer observations than `min_positives` on a side, a concept is not tested.
    """
    n_hypotheses = design.concepts.shape[1]
    reasons = [untestable(design, j, min_positives) for j in range(n_hypotheses)]
    able = [j for j in range(n_hypotheses) if reasons[j] is None]
    partial, partial_flags = partial_effects(design, able)
    inflation = variance_inflation(design, able)
    return [
        _test(
            design, j, reason, partial.get(j, NO_EFFECT_ESTIMATED), partial_flags.get(j, []), inflation.get(j, np.nan)
        )
        for j, reason in enumerate(reasons)
    ]


def _test(
    design: HoldoutDesign, j: int, reason: Flag | None, beside: Effect, beside_flags: list[Flag], vif: float
) -> HypothesisTest:
    """One hypothesis; `reason` says why it cannot be tested."""
    judged = np.isfinite(design.concepts[:, j])
    n, n_with = int(judged.sum()), int((design.concepts[judged, j] != 0).sum())
    missing = 1 - n / len(judged)
    plain = adjusted = rank = worst = NO_EFFECT_ESTIMATED
    if reason is None:
        plain, adjusted = separation(design, j), adjusted_separation(design, j)
        if design.controls_decide and not np.isfinite(adjusted.estimate):
            reason = Flag("collinear", "text length and the declared controls determine it exactly")
    decide, effect = (adjusted_separation, adjusted) if design.controls_decide else (separation, plain)
    doubts: list[Flag] = [reason] if reason else []
    if reason is None:
        if design.task == "regression":
            rank = decide(ranked(design), j)
        if missing >= WORTH_BOUNDING:
            worst = decide(_filled(design, j, effect.estimate), j)
        doubts += [*_doubts(effect, beside, adjusted, missing), *beside_flags]
        doubts += _dominant_cluster(design.clusters[judged])
        if design.controls_decide and reversed_by_controls(plain, adjusted):
            doubts.append(Flag("reversed by controls", "without the controls its effect has the opposite sign"))
    if vif > _LARGE_INFLATION and np.isfinite(beside.estimate):
        doubts.append(Flag("variance inflation", f"other concepts nearly determine it (variance inflation {vif:.1f})"))
    return HypothesisTest(
        separation=effect if reason is None else NO_EFFECT_ESTIMATED,
        partial=beside,
        adjusted=adjusted,
        inflation=vif,
        n=n,
        n_with=n_with,
        n_clusters=len(np.unique(design.clusters[judged])),
        prevalence=n_with / n if n else 0.0,
        flags=tuple(doubts),
        plain=plain,
        rank=rank,
        missing=missing,
        worst=worst,
        basis="controls" if design.controls_decide else "plain",
    )


def ranked(design: HoldoutDesign) -> HoldoutDesign:
    """The design with the outcome's ranks, as shares of 1, in its place: no outlier counts for more than its place."""
    from scipy.stats import rankdata

    return replace(design, outcome=(rankdata(design.outcome) - 0.5) / len(design.outcome))


def _filled(design: HoldoutDesign, j: int, direction: float) -> HoldoutDesign:
    concepts = design.concepts.copy()
    concepts[:, j] = worst_answers(concepts[:, j], design.outcome, direction, pairwise=design.task == "pairwise")
    return replace(design, concepts=concepts)


test_hypotheses.__test__ = False  # type: ignore[attr-defined]  # not a pytest function


def _judged(
    design: HoldoutDesign, column: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Which rows are annotated (bool), and of these the concept, outcome (of pairs less 1/2), clusters and units."""
    rows = np.isfinite(design.concepts[:, column])
    y = design.outcome[rows] - (0.5 if design.task == "pairwise" else 0.0)
    units = None if design.units is None else design.units[rows]
    return rows, design.concepts[rows, column], y, design.clusters[rows], units


def separation(design: HoldoutDesign, column: int) -> Effect:
    """Difference in mean outcome with and without the concept (pairs: win share minus 1/2), cluster-robust."""
    _, h, y, clusters, units = _judged(design, column)
    if design.task != "pairwise":
        return _least_squares(np.column_stack([h, np.ones_like(h)]), y, clusters, units, "difference in means")
    found = cluster_ols(h[:, None], y, clusters, "signed pairs", exchangeable=False, units=units)[0]
    if not np.isfinite(found.p_value):
        return found
    if units is not None:
        swapped = item_swap_test(h, y, units)
        return _more_cautious(found, *swapped) if swapped else found
    scores = np.bincount(np.unique(clusters, return_inverse=True)[1], h * y)
    return replace(without_width_zero(found, h, clusters), p_value=sign_flip_p(scores))


def adjusted_separation(design: HoldoutDesign, column: int) -> Effect:
    """Separation with the controls held constant: least squares of the outcome on concept and controls.

    `NO_EFFECT_ESTIMATED` where the controls tell the concept exactly.
    """
    rows, h, y, clusters, units = _judged(design, column)
    pairwise = design.task == "pairwise"
    constant = [] if pairwise else [np.ones_like(h)]
    x = spanned(h, np.column_stack([design.controls[rows], *constant]))
    if x is None:
        return NO_EFFECT_ESTIMATED
    return _least_squares(x, y, clusters, units, "difference with controls held constant", pairwise=pairwise)


def _least_squares(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray, units: np.ndarray | None, name: str, *, pairwise: bool = False
) -> Effect:
    """The first column's effect, with the more cautious of t and the wild cluster bootstrap where clusters are few.

    Where a concept varies mostly within clusters, t is right whatever their number, and is all there is. A perfect fit
    has an exact p-value, and an interval of some width.
    """
    found = cluster_ols(x, y, clusters, name, exchangeable=not pairwise, units=units)[0]
    h, (groups, sizes) = x[:, 0], np.unique(clusters, return_inverse=True, return_counts=True)[1:]
    if found.standard_error == 0:
        exact = sign_flip_p(np.bincount(groups, h * y)) if pairwise else exact_fit_p(h, clusters)
        return replace(without_width_zero(found, h, clusters), p_value=max(found.p_value, exact))
    effective = float(sizes.sum()) ** 2 / float((sizes.astype(np.float64) ** 2).sum())
    many = len(sizes) >= _FEW_CLUSTERS and effective >= _FEW_EFFECTIVE
    if many or x.shape[1] == 1 or not np.isfinite(found.p_value):
        return found
    others = np.linalg.qr(x[:, 1:])[0]
    if whole_clusters((h - others @ (others.T @ h))[:, None], groups)[0] < _MOSTLY_WHOLE:
        return found
    wild = wild_cluster_test(x, y, groups)
    return found if wild is None else _more_cautious(found, wild.p_value, wild.reach)


def _more_cautious(found: Effect, p_value: float, reach: float) -> Effect:
    """The effect with the larger p-value and the wider interval of its own and another test's."""
    reach = max(reach, found.high - found.estimate)
    low, high = found.estimate - reach, found.estimate + reach
    return replace(found, p_value=max(found.p_value, p_value), low=low, high=high)


def without_width_zero(found: Effect, h: np.ndarray, clusters: np.ndarray) -> Effect:
    """A perfect marker's interval: the effect could be smaller by what so few clusters cannot rule out.

    Newcombe's hybrid score limits (1998, method 10) of two shares of 1 and 0, with clusters as the sample; for pairs,
    whose share won is 1, Wilson's limit. An effect that is no share is scaled by its own size.
    """
    if found.standard_error != 0 or not np.isfinite(found.estimate):
        return found
    z = 1.96
    sides = [len(np.unique(clusters[side])) for side in (h != 0, h == 0)]
    short = [z**2 / (n + z**2) for n in sides if n]
    pairwise = bool((h < 0).any()) or found.estimator == "signed pairs"
    less = abs(found.estimate) * (2 * short[0] if pairwise else float(np.sqrt(sum(s**2 for s in short))))
    ends = (found.estimate, found.estimate - np.sign(found.estimate) * less)
    return replace(found, low=min(ends), high=max(ends))


def holm(p_values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Holm's adjusted p-values (h,) (Holm 1979); NaN stays NaN and does not count into the family.

    Of positive weights (h,) only ratios among tested hypotheses count; None for equal ones.
    """
    weights = np.ones(len(p_values)) if weights is None else weights
    order = _ascending(p_values / weights)
    remaining = np.cumsum(weights[order][::-1])[::-1]
    return _placed(order, np.maximum.accumulate(p_values[order] / weights[order] * remaining), len(p_values))


def benjamini_hochberg(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's q-values (1995); NaN stays NaN and does not count into the family."""
    order = _ascending(p_values)
    stepped = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    return _placed(order, np.minimum.accumulate(stepped[::-1])[::-1], len(p_values))


def _ascending(p_values: np.ndarray) -> np.ndarray:
    """Positions of the tested p-values, smallest first."""
    order = np.argsort(p_values, kind="stable")
    return order[np.isfinite(p_values[order])]


def _placed(order: np.ndarray, adjusted: np.ndarray, n: int) -> np.ndarray:
    out = np.full(n, np.nan)
    out[order] = np.minimum(adjusted, 1.0)
    return out


def untestable(design: HoldoutDesign, column: int, min_positives: int) -> Flag | None:
    """Why a concept cannot be tested, or None; whether it can is decided before any effect is looked at."""
    judged = np.isfinite(design.concepts[:, column])
    h = design.concepts[judged, column]
    with_it, without = int((h != 0).sum()), int((h == 0).sum())
    least = f"(at least {min_positives} are needed)"
    if with_it < min_positives:
        return Flag("too few positives", f"only {with_it} holdout observations have the concept {least}")
    if design.task != "pairwise" and without < min_positives:
        return Flag("too few positives", f"only {without} holdout observations lack the concept {least}")
    if design.task != "pairwise" and np.ptp(design.outcome[judged]) == 0:
        return Flag("no variation", "all holdout observations have the same outcome")
    return _one_cluster(h, design.clusters[judged], design.task)


def _one_cluster(h: np.ndarray, clusters: np.ndarray, task: str) -> Flag | None:
    """Whether a single cluster (nearly) fills one side, so that it cannot be separated from the concept."""
    which = ["have the concept"] if task == "pairwise" else ["have the concept", "lack the concept"]
    for side, has in zip([h != 0, h == 0], which, strict=False):
        sizes = np.unique(clusters[side], return_counts=True)[1].astype(np.float64)
        if len(sizes) < 2 or sizes.sum() ** 2 / (sizes**2).sum() < _LEAST_EFFECTIVE:
            share = "all" if len(sizes) < 2 else f"{sizes.max() / sizes.sum():.0%} of the"
            alone = f"{share} holdout observations that {has} belong to one cluster"
            return Flag("one cluster", f"{alone}, so nothing can be said about others")
    return None


def _doubts(effect: Effect, beside: Effect, adjusted: Effect, missing: float) -> list[Flag]:
    """Flags of a tested hypothesis that do not come from the joint model; `missing` is a share of annotations."""
    doubts: list[Flag] = []
    if missing > _MANY_MISSING:
        doubts.append(Flag("missing annotations", f"{missing:.0%} of its annotations are missing"))
    if effect.standard_error == 0:
        leak = "it predicts the outcome without a single error; check that the texts do not contain the label"
        doubts.append(Flag("perfect prediction", leak))
    elif effect.degrees_of_freedom < _FEW_DEGREES:
        few = "few clusters distinguish texts with it from those without"
        doubts.append(Flag("few clusters", f"{few}: {effect.degrees_of_freedom:.1f} degrees of freedom"))
    if effect.estimate * beside.estimate < 0:
        doubts.append(Flag("sign conflict", "separation and partial effect have opposite signs"))
    if reversed_by_controls(effect, adjusted):
        turned = "its effect changes sign once text length and controls are held constant"
        doubts.append(Flag("reversed by controls", turned))
    return doubts


def _dominant_cluster(clusters: np.ndarray) -> list[Flag]:
    """A flag where one cluster holds so many observations that errors rest on it."""
    sizes = np.unique(clusters, return_counts=True)[1]
    share = float(sizes.max() / sizes.sum())
    doubt = f"one cluster holds {share:.0%} of the observations, so its standard errors are unreliable"
    return [Flag("dominant cluster", doubt)] if share >= _LARGE_CLUSTER else []


def reversed_by_controls(effect: Effect, adjusted: Effect) -> bool:
    """Whether the effect with controls is beyond doubt (95 % interval) on the other side of no effect."""
    return bool(effect.estimate * adjusted.estimate < 0 and adjusted.low * adjusted.high > 0)
