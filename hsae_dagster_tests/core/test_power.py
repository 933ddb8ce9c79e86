"""Minimum detectable effects, against the exact power of the t test and by simulation of the whole test."""

import numpy as np
import pytest
from scipy import stats

from hsae_dagster.core.hypothesis import minimum_detectable_effect
from hsae_dagster.core.inference.effects import separation
from hsae_dagster_tests.core.simulated_designs import make_design


@pytest.mark.parametrize("df", [12.0, 60.0, 1e6])
@pytest.mark.parametrize("level", [0.05, 0.0025])
def test_power_at_the_minimum_detectable_effect_is_four_fifths(df, level):
    delta = minimum_detectable_effect(1.0, df, level)
    reach = stats.t.ppf(1 - level / 2, df)
    power = stats.nct.sf(reach, df, delta) + stats.nct.cdf(-reach, df, delta)
    assert power == pytest.approx(0.8, abs=0.03)


def test_no_error_no_figure():
    assert np.isnan(minimum_detectable_effect(np.nan, 10.0, 0.05))
    assert np.isnan(minimum_detectable_effect(1.0, np.nan, 0.05))


def test_an_effect_of_that_size_is_found_four_times_in_five():
    rng = np.random.default_rng(3)
    h = (rng.random(800) < 0.2).astype(float)
    level = 0.05 / 20
    null = separation(make_design(h, rng.normal(size=800), task="regression"), 0)
    size = minimum_detectable_effect(null.standard_error, null.degrees_of_freedom, level)
    found = [
        separation(make_design(h, size * h + rng.normal(size=800), task="regression"), 0).p_value < level
        for _ in range(400)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.07)
