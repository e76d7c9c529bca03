"""Whether ports have sent more than their lines carry, and which one was furthest ahead."""

import pytest

from testbed.coordinator.lapses import WallClock
from testbed.coordinator.line_check import Line, line_check
from testbed.coordinator.lines import Crossing
from testbed.record import Check

S = 1_000_000_000
LINES = {
    "h1->s1": Line(bps=8_000_000, besides_bytes=5_000),
    "s1->h2": Line(bps=4_000_000, besides_bytes=5_000),
}
"""1 MB/s and half of it."""


def flow(name: str, size: int, begin_s: float, end_s: float, *ports: str) -> Crossing:
    return Crossing(
        flow=name,
        collective=None,
        permit_ns=round(begin_s * S),
        finish_ns=round(end_s * S),
        ports=ports,
        sizes=(size,) * len(ports),
    )


def checked(*flows: Crossing, bytes_scale: float = 1.0, time_dilation: float = 1.0) -> Check:
    return line_check(flows, LINES, bytes_scale, WallClock(zero_wall_ns=0, time_dilation=time_dilation))


def test_flows_at_line_rate_are_not_ahead() -> None:
    check = checked(flow("f", 500_000, 1, 2, "h1->s1", "s1->h2"))
    assert (check.ok, check.value, check.advice) == (True, 0.0, "")


def test_what_passes_at_once_is_allowed() -> None:
    """Half a second carries 500 kB, and 4 kB of the 5 kB came at once."""
    check = checked(flow("f", 504_000, 1, 1.5, "h1->s1"))
    assert (check.ok, check.value) == (True, pytest.approx(0.8))


def test_a_port_that_is_too_fast_is_named() -> None:
    """In 0.6 s, the second port carries 300 kB."""
    check = checked(flow("slow", 100, 0, 9, "h1->s1"), flow("f", 500_000, 1, 1.6, "h1->s1", "s1->h2"))
    assert not check.ok
    assert check.value == pytest.approx(200 / 5)
    assert check.advice.startswith("port s1->h2 is faster than its line")
    assert check.reason.startswith(
        "port s1->h2 sent 500.0 kB in 600.0 ms of wall time from 1.000 s of model time on, to the end of flow"
        " f: 200.0 kB more than its line carries. It may pass 5.0 kB at once"
    )


def test_bytes_are_told_as_they_are_on_the_wire_and_times_as_on_the_wall() -> None:
    check = checked(flow("f", 500_000, 1, 1.6, "s1->h2"), bytes_scale=0.01, time_dilation=20.0)
    assert check.value == pytest.approx(200 / 5)
    assert check.reason.startswith("port s1->h2 sent 5.0 kB in 12000.0 ms of wall time from 1.000 s")


def test_a_run_without_flows_is_not_ahead() -> None:
    assert checked().value == 0.0
