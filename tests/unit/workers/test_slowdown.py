"""When compute ends on a rank that is slower for a while, worked out by hand."""

import math

import pytest

from workers.slowdown import Slowdown, ends_ns


def slow(from_ns: int, to_ns: int | None, factor: float) -> Slowdown:
    return Slowdown(from_ns=from_ns, to_ns=to_ns, factor=factor)


TWICE = slow(100, 200, 2.0)
STILL = slow(300, 400, math.inf)


@pytest.mark.parametrize(
    ("start", "takes", "end"),
    [
        (0, 100, 100),  # over when it begins
        (0, 110, 120),  # the last 10 take 20
        (100, 50, 200),  # all of it
        (120, 100, 260),  # 40 done by 200, the other 60 at full speed
        (200, 80, 280),  # begins at its end
        (250, 60, 410),  # 50 by 300, then nothing until 400
        (300, 5, 405),
        (350, 0, 350),  # nothing to do
        (0, 300, 450),  # 100, then 50 by 200, 100 by 300, and 50 after 400
    ],
)
def test_what_is_computed_in_a_slowdown_takes_longer(start: int, takes: int, end: int) -> None:
    assert ends_ns([TWICE, STILL], start, takes) == end


def test_a_slowdown_may_last_to_the_end() -> None:
    assert ends_ns([slow(100, None, 3.0)], 90, 20) == 130


def test_without_slowdowns_it_takes_what_it_takes() -> None:
    assert ends_ns([], 7, 20) == 27
