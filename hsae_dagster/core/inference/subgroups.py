"""Does an effect hold in every subgroup, and does it differ between them?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hsae_dagster.core.inference.cluster_robust import NO_EFFECT_ESTIMATED, Effect, cluster_ols
from hsae_dagster.core.inference.effects import holm, separation
from hsae_dagster.core.observations import HoldoutDesign


@dataclass(frozen=True)
class SubgroupEffect:
    """One concept within one level of a covariate.

    Attributes:
        n: observations of the level with an annotation, of `n_clusters`; `n_with` have the concept.
        effect: separation within the level.
        difference: the effect within the level minus the effect among all other rows; none where either side has too
            few rows with or without the concept.
        p_holm: of the effect, corrected over all concepts and levels.
        difference_p_holm: of the difference, corrected likewise; two levels of one covariate make one test.
    """

    covariate: str
    level: str
    n: int
    n_with: int
    n_clusters: int
    effect: Effect
    difference: Effect
    p_holm: float = np.nan
    difference_p_holm: float = np.nan


def subgroup_effects(
    design: HoldoutDesign, column: int, covariate: str, levels: np.ndarray, min_positives: int
) -> tuple[SubgroupEffect, ...]:
    """Effects of one concept, uncorrected, within each level (n,) of a covariate that has enough rows.

    Those are `min_positives` on each side of the concept (for pairs: where just one text has it).
    """
    judged = np.isfinite(design.concepts[:, column])
    found = []
    for level in np.unique(levels):
        inside = judged & (levels == level)
        if not _enough(design, column, inside, min_positives):
            continue
        comparable = _enough(design, column, judged & ~inside, min_positives)
        within = _of(design, inside)
        found.append(
            SubgroupEffect(
                covariate=covariate,
                level=str(level),
                n=int(inside.sum()),
                n_with=int((within.concepts[:, column] != 0).sum()),
                n_clusters=len(np.unique(within.clusters)),
                effect=separation(within, column),
                difference=_difference(design, column, judged, inside) if comparable else NO_EFFECT_ESTIMATED,
            )
        )
    return tuple(found)


def _of(design: HoldoutDesign, rows: np.ndarray) -> HoldoutDesign:
    """Some rows (n,) bool of a design."""
    parts = ("concepts", "outcome", "clusters", "controls", *(["units"] if design.units is not None else []))
    return replace(design, **{name: getattr(design, name)[rows] for name in parts})


def _enough(design: HoldoutDesign, column: int, rows: np.ndarray, least: int) -> bool:
    h = design.concepts[rows, column]
    sides = [(h != 0).sum()] if design.task == "pairwise" else [(h != 0).sum(), (h == 0).sum()]
    if min(sides) < max(least, 1) or (design.task != "pairwise" and np.ptp(design.outcome[rows]) == 0):
        return False
    # What is peculiar to a single cluster on one side cannot be told from the concept.
    of = [design.clusters[rows][h != 0], design.clusters[rows][h == 0]][: len(sides)]
    return all(len(np.unique(clusters)) > 1 for clusters in of)


def _difference(design: HoldoutDesign, column: int, judged: np.ndarray, inside: np.ndarray) -> Effect:
    """Coefficient of concept × level beside both (for pairs, beside the concept: a pair design has no constant)."""
    of = _of(design, judged)
    h, level, y = of.concepts[:, column], inside[judged].astype(np.float64), of.outcome
    name = "difference between subgroups"
    if design.task == "pairwise":
        x = np.column_stack([h * level, h])
        return cluster_ols(x, y - 0.5, of.clusters, name, exchangeable=False, units=of.units)[0]
    x = np.column_stack([h * level, h, level, np.ones_like(h)])
    found = cluster_ols(x, y, of.clusters, name, units=of.units)[0]
    # Without a single error nothing is known about how large errors are.
    return replace(found, p_value=np.nan) if found.standard_error == 0 else found


def correct(found: Sequence[Sequence[SubgroupEffect]], share: float = 1.0) -> list[tuple[SubgroupEffect, ...]]:
    """The same effects (one sequence per concept) with Holm's p over all of them, and over all differences.

    Where several sets of concepts share alpha, a corrected p is that of its set over its share.
    """
    effects = np.array([one.effect.p_value for concept in found for one in concept])
    # With two levels the second difference is the first one turned round: one test, told twice.
    tests = [_test_of(j, one, concept) for j, concept in enumerate(found) for one in concept]
    raw = {test: one.difference.p_value for test, one in zip(tests, (x for c in found for x in c), strict=True)}
    adjusted = dict(zip(raw, holm(np.array(list(raw.values()), dtype=np.float64)), strict=True))
    p_effects, p_tests = iter(holm(effects)), iter(tests)
    return [
        tuple(
            replace(
                one,
                p_holm=float(np.minimum(next(p_effects) / share, 1.0)),
                difference_p_holm=float(np.minimum(adjusted[next(p_tests)] / share, 1.0)),
            )
            for one in concept
        )
        for concept in found
    ]


def _test_of(concept: int, one: SubgroupEffect, beside: Sequence[SubgroupEffect]) -> tuple[int, str, str]:
    """Key of a difference's test: the covariate's where its first level and its second are all there is."""
    same = [other for other in beside if other.covariate == one.covariate]
    halves = len(same) == 2 and np.isclose(same[0].difference.estimate, -same[1].difference.estimate)
    return concept, one.covariate, "" if halves else one.level


def turns_round(concept: Sequence[SubgroupEffect], alpha: float) -> tuple[SubgroupEffect, SubgroupEffect] | None:
    """Two levels of one covariate with effects of opposite sign, both with Holm's p below alpha; None without such."""
    sure = [one for one in concept if one.p_holm < alpha]
    for one in sure:
        for other in sure:
            if one.covariate == other.covariate and one.effect.estimate > 0 > other.effect.estimate:
                return one, other
    return None
