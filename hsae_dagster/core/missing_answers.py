"""What answers that are missing could have been.

Belongs here: the answers that speak most against an effect. Does not belong here: the test of the filled answers
(`core.inference`), or what follows for the verdict (`core.badges`).

A judge that refuses just the texts with the concept and a low outcome makes an effect out of nothing: with 1 % of
answers missing true nulls were confirmed in 30 of 100 reports. Nothing in the data says which answers are missing, so
the only safe claim is one that holds whatever they are (Manski 1990; Horowitz and Manski 1995): the missing texts
with the lowest outcomes are given the concept where it goes with high ones, those with the highest are not, and the
point where they part is the one that leaves least of the effect.
"""

import numpy as np

# From this share on, a claim has to survive the worst answers.
WORTH_BOUNDING = 0.01


def worst_answers(h: np.ndarray, y: np.ndarray, direction: float, *, pairwise: bool) -> np.ndarray:
    """The answers with the missing ones filled so that least is left of an effect.

    Args:
        h: (n,) float64; 1 or 0 per text, -1, 0 or 1 per pair, NaN where missing. Both 1 and 0 occur among texts.
        y: (n,) outcomes.
        direction: sign of the effect that is claimed.
        pairwise: whether rows are pairs, whose missing answers are filled with the side that lost (or won).

    Returns:
        (n,) float64 without NaN.
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
