"""Intervals of paired differences, against tables, hand-worked numbers and the share of cases they cover."""

import numpy as np
import pytest
from scipy import stats

from experiments.results.difference_words import Unit, difference_words
from experiments.results.paired import Difference, over_replicates, over_requests


def test_the_interval_over_replicates_is_that_of_a_table_of_students_t() -> None:
    """Mean 3 and standard deviation 1 of three values; t(0.975) of 2 degrees is 4.3027."""
    found = over_replicates([2.0, 3.0, 4.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.low == pytest.approx(3 - 4.3027 / 3**0.5, abs=1e-4)
    assert found.high == pytest.approx(3 + 4.3027 / 3**0.5, abs=1e-4)
    assert found.shown


def test_one_replicate_shows_nothing() -> None:
    found = over_replicates([5.0])
    assert (found.mean, found.low, found.high, found.shown) == (5.0, None, None, False)


def test_equal_differences_leave_no_doubt() -> None:
    assert over_replicates([2.0, 2.0]).shown
    assert not over_replicates([0.0, 0.0, 0.0]).shown
    assert over_requests([2.0] * 30).shown
    assert not over_requests([0.0] * 30).shown


def test_no_differences_have_no_mean() -> None:
    with pytest.raises(ValueError, match="no differences"):
        over_replicates([])


def test_few_requests_have_no_interval() -> None:
    assert over_requests([1.0] * 19).low is None
    assert over_requests([1.0, 2.0] * 10).low is not None


def test_the_interval_over_requests_is_near_the_normal_one_for_many() -> None:
    values = np.random.default_rng(3).normal(1.0, 2.0, 2_000)
    found = over_requests(list(values))
    half = 1.96 * values.std(ddof=1) / len(values) ** 0.5
    assert found.low == pytest.approx(values.mean() - half, abs=0.01)
    assert found.high == pytest.approx(values.mean() + half, abs=0.01)
    assert found == over_requests(list(values))


@pytest.mark.parametrize("count", [20, 48, 700])
def test_the_interval_over_requests_does_not_depend_on_how_many_are_drawn_at_once(count: int) -> None:
    """Also for differences of attainment, of which there are three. Of 700, not all are drawn at once."""
    draw = np.random.default_rng(count)
    for values in (draw.exponential(1.0, count), draw.choice([-1.0, 0.0, 1.0], count, p=[0.1, 0.6, 0.3])):
        wanted = stats.bootstrap(
            (values,), np.mean, n_resamples=9_999, method="BCa", rng=np.random.default_rng(0)
        ).confidence_interval
        found = over_requests(list(values))
        assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-9)


def test_the_interval_does_not_jump_where_resampling_ends() -> None:
    """For exponential values, that of 10,000 and that of one more differ by less than 3 % of its width."""
    values = list(np.random.default_rng(7).exponential(1.0, 10_001))
    resampled, normal = over_requests(values[:-1]), over_requests(values)
    assert resampled.low is not None
    assert resampled.high is not None
    width = resampled.high - resampled.low
    assert (normal.low, normal.high) == pytest.approx((resampled.low, resampled.high), abs=0.03 * width)


def test_about_95_of_100_intervals_over_four_replicates_hold_the_mean() -> None:
    """A bootstrap interval would hold it in about 80, so this also keeps it out."""
    draw = np.random.default_rng(5)
    held = sum(not over_replicates(list(draw.normal(0.0, 1.0, 4))).shown for _ in range(1_000))
    assert 930 <= held <= 970


@pytest.mark.parametrize(
    ("mean", "interval", "unit", "words"),
    [
        (0.092, (0.041, 0.143), Unit.POINTS, ("+9.2 points", "[+4.1, +14.3]")),
        (-0.0121, (-0.0203, -0.0039), Unit.SECONDS, ("-12.1 ms", "[-20.3, -3.9] ms")),
        (0.01, (-0.02, 0.04), Unit.POINTS, ("no difference shown", "[-2.0, +4.0]")),
        (0.0, (0.0, 0.0), Unit.SECONDS, ("no difference shown", "[0, 0]")),
        (0.5, (0.0004, 1.2), Unit.SECONDS, ("+500 ms", "[+0.00, +1.20] s")),
        (0.01, (None, None), Unit.POINTS, ("+1.0 points", "")),
    ],
)
def test_the_words(
    mean: float, interval: tuple[float | None, float | None], unit: Unit, words: tuple[str, str]
) -> None:
    low, high = interval
    assert difference_words(Difference(mean=mean, low=low, high=high, count=8), unit) == words
