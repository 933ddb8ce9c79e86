"""What a test could have found.

Belongs here: the minimum detectable effect of one hypothesis. Does not belong here: the test (`core.inference`).
"""

import numpy as np

POWER = 0.8


def minimum_detectable_effect(
    standard_error: float, degrees_of_freedom: float, level: float, power: float = POWER
) -> float:
    """The smallest true effect (its size) that a two-sided t test at `level` finds with probability `power`.

    Bloom (1995, "Minimum detectable effects"): standard error × (t at 1 - level / 2 + t at `power`), both with the
    test's degrees of freedom. With `level` = alpha / H it is what Holm's first step finds, so what any step finds.

    Args:
        standard_error: of the estimate.
        degrees_of_freedom: of its t distribution.
        level: of the single test.
        power: wanted.

    Returns:
        In the unit of the estimate; NaN where there is no standard error.
    """
    from scipy import stats

    if not (np.isfinite(standard_error) and degrees_of_freedom > 0 and 0 < level < 1):
        return float("nan")
    reach = stats.t.ppf(1 - level / 2, degrees_of_freedom) + stats.t.ppf(power, degrees_of_freedom)
    return float(standard_error * reach)
