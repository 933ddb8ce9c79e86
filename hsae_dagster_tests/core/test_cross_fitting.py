"""Two halves that confirm each other's findings."""

import numpy as np
import pytest

from hsae_dagster.core.cross_fitting import Candidate, cross_fit, halves
from hsae_dagster.errors import MethodError
from hsae_dagster_tests.core.simulated_designs import at_most
from hsae_dagster_tests.core.simulated_discovery import DISCOVERY


def test_halves_keep_components_whole_and_have_about_as_many_rows():
    rng = np.random.default_rng(0)
    component = np.repeat(np.arange(60), np.exp(rng.normal(2, 1, 60)).astype(int) + 1)
    half = halves(component, rng)
    assert all(len(np.unique(half[component == k])) == 1 for k in range(60))
    assert abs(half.mean() - 0.5) < 0.05
    with pytest.raises(MethodError, match="independent clusters cannot confirm"):
        halves(np.repeat(np.arange(7), 10), rng)


def test_what_one_half_finds_is_tested_on_the_other_alone_and_twins_are_paired():
    half, read = np.repeat([0, 1], 10).astype(np.int8), []

    def discover(rows):
        read.append(("discover", half[rows].max()))
        return [Candidate("both"), Candidate(f"only {half[rows].max()}")]

    def test(contents, rows):
        read.append(("test", half[rows].max()))
        return np.array([0.001, 0.5])

    claims = cross_fit(half, discover, test)
    assert read == [("discover", 1), ("test", 0), ("discover", 0), ("test", 1)]
    assert [(claim.content, claim.tested_on, claim.twin) for claim in claims] == [
        ("both", 0, 2),
        ("only 1", 0, None),
        ("both", 1, 0),
        ("only 0", 1, None),
    ]
    # Twice Holm's p: both halves share alpha.
    assert claims[0].p_adjusted == pytest.approx(0.004)


@pytest.mark.parametrize("scenario", DISCOVERY, ids=lambda scenario: f"{scenario.name}, {scenario.measure}")
def test_two_halves_find_twice_as_much_at_the_promised_error(scenario):
    now, before = scenario.observe(60, 7)
    if scenario.measure == "true discoveries":
        assert now > 1.5 * before
    else:
        assert now <= at_most(0.05, 60)
