"""The formulas, against numbers worked out by hand."""

import math

import pytest

from controller.urgency import latest_finish_ns, mlu, red, rli, thresholds, transfer_ns

GBPS = 1_000_000_000
MS = 1_000_000


def test_mlu_is_the_share_of_the_port_that_the_bytes_need_until_the_deadline() -> None:
    """1.25 MB = 10 Mbit; in 1 ms a 100 Gb/s port carries 100 Mbit: 0.1."""
    assert mlu(1_250_000, 1 * MS, 100 * GBPS) == pytest.approx(0.1)


def test_mlu_counts_only_the_capacity_that_others_leave() -> None:
    """rho 0.8 leaves 20 Mbit of the 100: 10 / 20 = 0.5."""
    assert mlu(1_250_000, 1 * MS, 100 * GBPS, rho=0.8) == pytest.approx(0.5)


def test_mlu_above_one_cannot_be_met() -> None:
    """20 MB = 160 Mbit in 1 ms at 100 Gb/s: 1.6."""
    assert mlu(20_000_000, 1 * MS, 100 * GBPS) == pytest.approx(1.6)


def test_mlu_is_infinite_at_and_after_the_deadline_and_zero_with_nothing_left() -> None:
    assert mlu(1, 0, GBPS) == math.inf
    assert mlu(1, -5, GBPS) == math.inf
    assert mlu(0, -5, GBPS) == 0.0


@pytest.mark.parametrize("rho", [1.0, -0.1, math.nan])
def test_mlu_refuses_a_rho_that_leaves_nothing_or_makes_no_sense(rho: float) -> None:
    with pytest.raises(ValueError, match="rho is a share below 1"):
        mlu(1, 1, 1, rho=rho)


def test_thresholds_fall_geometrically_from_the_top() -> None:
    """0.5; 0.5 / 4 = 0.125; 0.125 / 4 = 0.03125."""
    assert thresholds(0.5, 4.0, 3) == (0.5, 0.125, 0.03125)


def test_rli_counts_the_layers_ahead_of_the_one_that_needs_the_flow() -> None:
    """Layer 7 while 3 runs: 4. A layer that runs or has run is not ahead: 0."""
    assert rli(7, 3) == 4
    assert rli(3, 3) == 0
    assert rli(2, 3) == 0


def test_red_splits_the_deadlines_at_the_widest_gap() -> None:
    """40 | 10 12: gaps 2 and 28; tight share 2/3: 2/3 * 10 + 1/3 * 40 = 20."""
    assert red([40, 10, 12]) == 20


def test_one_tight_request_does_not_drag_a_loose_batch_along() -> None:
    """10 | 100 x 9: tight share 1/10: 1 + 90 = 91, near the loose deadline and not near 10."""
    assert red([10] + [100] * 9) == 91


def test_red_splits_at_the_first_of_equally_wide_gaps() -> None:
    """Gaps 10, 10, 1. Split 0 | 10 20 21: 1/4 * 0 + 3/4 * 10 = 7.5, rounded down. The second gap
    would give 2/4 * 0 + 2/4 * 20 = 10."""
    assert red([0, 10, 20, 21]) == 7


def test_equal_deadlines_and_a_single_one_are_their_own_red() -> None:
    assert red([33]) == 33
    assert red([33, 33, 33]) == 33


def test_a_batch_without_deadlines_has_no_red() -> None:
    with pytest.raises(ValueError, match="no RED"):
        red([])


def test_a_transfer_alone_takes_its_bits_over_the_rate_rounded_up() -> None:
    """20 MB = 160 Mbit at 100 Gb/s: 1.6 ms. One byte at 3 Gb/s: 2.67 ns, so 3."""
    assert transfer_ns(20_000_000, 100 * GBPS) == 1_600_000
    assert transfer_ns(1, 3 * GBPS) == 3


@pytest.mark.parametrize(
    ("downstream", "deadline", "latest"),
    [(9, 18, 9), (6, 12, 6), (0, 7, 7)],
    ids=["A", "B", "C"],
)
def test_latest_finishes_of_table_1(downstream: int, deadline: int, latest: int) -> None:
    assert latest_finish_ns(deadline, downstream) == latest
