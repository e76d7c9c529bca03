"""Model time on a rank: a zero point in wall time and a dilation."""

import time

import pytest

from workers.clock import Clock

SECOND = 1_000_000_000


def test_model_time_stands_at_zero_until_the_clock_is_started() -> None:
    clock = Clock(2.0)
    assert (clock.now_ns(), clock.at_ns(123)) == (0, 0)


@pytest.mark.parametrize(("dilation", "model_s"), [(1.0, 10.0), (5.0, 2.0), (0.5, 20.0)])
def test_a_model_second_takes_the_dilation_in_wall_seconds(dilation: float, model_s: float) -> None:
    clock = Clock(dilation)
    clock.start(100 * SECOND)
    assert clock.at_ns(110 * SECOND) == round(model_s * SECOND)
    assert clock.span_ns(10 * SECOND) == round(model_s * SECOND)


def test_a_moment_before_the_start_is_negative() -> None:
    clock = Clock(4.0)
    clock.start(100 * SECOND)
    assert clock.at_ns(98 * SECOND) == -SECOND // 2


def test_a_wait_takes_the_dilated_time_and_says_how_late_it_ended() -> None:
    clock = Clock(4.0)
    before = time.monotonic_ns()
    clock.wait_for(0.01)
    took_ms = (time.monotonic_ns() - before) / 1e6
    assert took_ms >= 40
    (late_ms,) = clock.late_ms
    assert 0 <= late_ms <= took_ms - 40


def test_a_wait_until_a_model_time_ends_at_it() -> None:
    clock = Clock(2.0)
    clock.start(time.monotonic_ns())
    clock.wait_until(20_000_000)
    assert clock.now_ns() >= 20_000_000
    assert len(clock.late_ms) == 1


def test_what_is_over_is_not_waited_for() -> None:
    clock = Clock(1.0)
    clock.start(time.monotonic_ns() - SECOND)
    clock.wait_until(SECOND // 2)
    assert clock.late_ms == []


def test_a_clock_that_was_not_started_cannot_wait_for_a_moment() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        Clock(1.0).wait_until(0)


def test_work_is_waited_out_and_work_that_took_too_long_counts_as_late() -> None:
    """A model second takes 2 s. Work of 0.01 s has begun 5 ms ago, and work of 0.1 s 300 ms ago."""
    clock = Clock(2.0)
    before = time.monotonic_ns()
    clock.wait_out(before - 5_000_000, 0.01)
    assert time.monotonic_ns() - before >= 15_000_000
    clock.wait_out(time.monotonic_ns() - 300_000_000, 0.1)
    assert clock.late_ms[1] >= 100


@pytest.mark.parametrize("ahead_s", [3000, -3000])
def test_work_is_waited_out_on_a_server_whose_own_clock_is_another(ahead_s: int) -> None:
    """As much as anywhere else: the offset must not count as time that has passed, or is to come."""
    clock = Clock(1.0, offset_ns=ahead_s * SECOND)
    before = time.monotonic_ns()
    clock.wait_out(clock.wall_ns() - 5_000_000, 0.02)
    assert 15_000_000 <= time.monotonic_ns() - before < 10 * SECOND
    assert max(clock.late_ms) < 10_000
