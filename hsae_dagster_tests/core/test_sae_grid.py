"""The grid of sizes."""

import pytest

from hsae_dagster.core.sae.sizes import Size, batch_size, grid, passes, reference_size


@pytest.mark.parametrize(
    ("n_texts", "expected"),
    [(300, (64, 4)), (1_000, (64, 4)), (10_000, (256, 8)), (20_000, (256, 8)), (10**6, (1024, 8))],
)
def test_the_reference_rule_of_thumb(n_texts: int, expected: tuple[int, int]) -> None:
    assert reference_size(n_texts) == Size(*expected)


@pytest.mark.parametrize("n_units", [2, 12, 40, 91, 300, 1000, 5000, 50_000])
@pytest.mark.parametrize("n_select", [1, 4, 10, 20, 100])
def test_no_size_asks_for_more_than_the_units_carry(n_units: int, n_select: int) -> None:
    first, *larger = grid(n_units, n_select)
    assert 1 <= first.k <= first.m <= min(n_units, 64)
    assert first.m <= max(n_units // 4, min(n_select + 1, n_units), 2)
    assert all(8 * size.m <= n_units for size in larger)
    assert sorted(larger, key=lambda size: size.m) == larger


def test_larger_sizes_come_with_more_units() -> None:
    assert [[(size.m, size.k) for size in grid(n, 20)] for n in (50, 1023, 1024, 2048, 19_999, 20_000)] == [
        [(21, 4)],
        [(64, 4)],
        [(64, 4), (128, 4)],
        [(64, 4), (128, 4), (256, 8)],
        [(64, 4), (128, 4), (256, 8)],
        [(64, 4), (128, 4), (256, 8), (512, 8)],
    ]


@pytest.mark.parametrize(("n_units", "expected"), [(40, 32), (1000, 128), (5689, 512), (10**6, 512)])
def test_small_data_is_trained_in_small_batches(n_units: int, expected: int) -> None:
    assert batch_size(n_units) == expected


@pytest.mark.parametrize(("n_units", "expected"), [(1, 60), (20_000, 60), (40_000, 30), (80_000, 15), (10**7, 5)])
def test_many_units_are_passed_over_less_often(n_units: int, expected: int) -> None:
    assert passes(60, n_units) == expected
    assert passes(3, n_units) == 3, "never more than asked for"
