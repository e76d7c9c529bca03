"""Capacities and their ratios over replicates, by hand."""

import math

import pytest

from experiments.capacity.answer import capacities, crossing
from experiments.capacity.question import Question
from experiments.capacity.words import sentences

FAIR = {1: {10: 1.0, 20: 0.8, 40: 0.4}, 2: {10: 1.0, 20: 1.0, 40: 0.2}}
"""The mean falls from 0.9 at 20/s to 0.3 at 40/s."""


def test_a_capacity_is_interpolated_in_the_logarithm_of_the_rate() -> None:
    """0.6 is halfway between 0.9 at 20/s and 0.3 at 40/s: at 20 times the root of 2."""
    [fair] = capacities({"fair": FAIR}, 0.6)
    assert fair.rate_rps is not None
    assert fair.rate_rps.value == pytest.approx(20 * math.sqrt(2))
    assert crossing({10: 0.9, 20: 0.9}, 0.9) is None


def test_the_interval_is_that_of_the_jackknife() -> None:
    """Without replicate 1, the curve falls from 1 to 0.2 and crosses 0.6 halfway; without 2, from 0.8 to 0.4,
    halfway, too. So the replicates agree, and the interval has no width."""
    [fair] = capacities({"fair": FAIR}, 0.6)
    assert fair.rate_rps is not None
    assert (fair.rate_rps.low, fair.rate_rps.high) == pytest.approx((20 * math.sqrt(2),) * 2)

    # At 0.7, the three logarithms (base 2, above 20/s) are 1/3 for both, 3/8 without 1 and 1/4 without 2. The
    # pseudo-values are 2/3 - 3/8 = 7/24 and 2/3 - 1/4 = 10/24: standard error 1/16, times t(1) = 12.706.
    [fair] = capacities({"fair": FAIR}, 0.7)
    assert fair.rate_rps is not None
    half = 12.7062 / 16
    assert fair.rate_rps.value == pytest.approx(20 * 2 ** (1 / 3))
    assert fair.rate_rps.low == pytest.approx(20 * 2 ** (1 / 3 - half), rel=1e-4)
    assert fair.rate_rps.high == pytest.approx(20 * 2 ** (1 / 3 + half), rel=1e-4)


def test_a_ratio_is_paired_so_what_replicates_share_does_not_widen_it() -> None:
    """Each replicate of mfs carries twice the rate of the same one of fair."""
    mfs = {replicate: {2 * rate: met for rate, met in of.items()} for replicate, of in FAIR.items()}
    _, found = capacities({"fair": FAIR, "mfs": mfs}, 0.7)
    assert found.ratio is not None
    assert (found.ratio.value, found.ratio.low, found.ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    assert found.ratio_shown
    said, *_ = sentences(capacities({"fair": FAIR, "mfs": mfs}, 0.7), Question(scenario="x", attain=0.7))
    assert said.startswith("mfs carries 2.00x [2.00, 2.00] the rate of fair")


def test_one_replicate_and_an_unbracketed_part_have_no_interval() -> None:
    [alone] = capacities({"fair": {1: FAIR[1]}}, 0.7)
    assert alone.rate_rps is not None
    assert alone.rate_rps.low is alone.rate_rps.high is None

    # Without replicate 2, the attainment holds nowhere.
    [one_sided] = capacities({"fair": {1: {10: 0.8, 20: 0.2}, 2: {10: 1.0, 20: 0.2}}}, 0.9)
    assert one_sided.rate_rps is not None
    assert one_sided.rate_rps.low is None


def told(attained: dict[str, dict[int, dict[float, float]]]) -> str:
    return "\n".join(sentences(capacities(attained, 0.9), Question(scenario="x")))


def test_what_the_search_did_not_find_is_told() -> None:
    two = {1: {10: 1.0, 20: 1.0}, 2: {10: 1.0, 20: 1.0}}
    never = {1: {10: 0.1, 20: 0.0}, 2: {10: 0.1, 20: 0.0}}
    again = {1: {10: 1.0, 20: 0.5, 30: 1.0, 40: 0.0}, 2: {10: 1.0, 20: 0.5, 30: 1.0, 40: 0.0}}

    assert "fair: an SLO attainment of 90.0 % still holds at 20 requests/s" in told({"fair": two})
    assert "does not hold even at 10 requests/s" in told({"fair": never})
    assert "does not hold at 20 requests/s, but again at 30" in told({"fair": again})
    assert "carries" not in told({"fair": two, "mfs": again})


def test_an_interval_that_goes_beyond_the_rates_that_were_tried_says_so() -> None:
    """At 0.7, it ends at 20 times the 1.127th power of 2, as above: at 43.7, and 40 is the highest rate. At
    0.6, the replicates agree, and the interval has no width."""
    [beyond] = sentences(capacities({"fair": FAIR}, 0.7), Question(scenario="x", attain=0.7))
    assert beyond.startswith(
        "fair: the interval [14.5, 43.7] requests/s goes on above 40, the highest rate that was tried: "
    )
    assert not [*sentences(capacities({"fair": FAIR}, 0.6), Question(scenario="x", attain=0.6))]

    down = {one: {rate: met for rate, met in of.items() if rate > 10} for one, of in FAIR.items()}
    [both] = sentences(capacities({"fair": down}, 0.7), Question(scenario="x", attain=0.7))
    assert "goes on below 20, the lowest rate that was tried, and above 40, the highest" in both
