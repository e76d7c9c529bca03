"""Statistics on numbers few enough to work out by hand."""

import pytest

from experiments.results.statistics import mean, percentile


def test_a_percentile_interpolates_between_neighbours() -> None:
    # Rank (4 - 1) * 0.9 = 2.7: 30 + 0.7 * (50 - 30) = 44.
    assert percentile([50, 10, 30, 20], 90) == pytest.approx(44.0)
    assert percentile([7], 99) == 7.0


def test_statistics_without_values_are_none_and_not_nan() -> None:
    assert percentile([], 50) is None
    assert mean([]) is None


def test_a_mean_is_the_same_in_any_order() -> None:
    """Added up one by one, 0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1, and 1e16 + 1 - 1e16 is 0."""
    assert mean([0.1, 0.2, 0.3]) == mean([0.3, 0.2, 0.1])
    assert mean([1e16, 1.0, -1e16, 1.0]) == 0.5
