"""Which urgency gets which level, and which way a flow may move."""

import math

import pytest

from controller.flow import Level
from controller.parts.rmlq import Rmlq


@pytest.mark.parametrize(
    ("mlu", "level"),
    [
        (math.inf, Level.P1),
        (0.5, Level.P1),
        (0.49, Level.P2),
        (0.125, Level.P2),
        (0.124, Level.P3),
        (0.03125, Level.P3),
        (0.0079, Level.P4),
        (0.002, Level.P5),
        (0.0019, Level.P6),
        (0.0, Level.P6),
    ],
)
def test_each_threshold_guards_a_level(mlu: float, level: Level) -> None:
    """U = 0.5, E = 4: 0.5, 0.125, 0.03125, 0.0078125, 0.001953125 guard P1 .. P5; below is P6."""
    assert Rmlq().for_mlu(mlu) is level


@pytest.mark.parametrize(("rli", "level"), [(0, Level.P2), (1, Level.P3), (4, Level.P6), (31, Level.P6)])
def test_each_layer_ahead_is_one_level_below_the_second(rli: int, level: Level) -> None:
    assert Rmlq().for_rli(rli) is level


def test_fewer_levels_end_earlier() -> None:
    """K = 3 has two thresholds, 0.5 and 0.125, and P3 for the rest; RLI 1 and more is P3."""
    queue = Rmlq(levels=3)
    assert [queue.for_mlu(mlu) for mlu in (0.6, 0.2, 0.1)] == [Level.P1, Level.P2, Level.P3]
    assert [queue.for_rli(rli) for rli in (0, 1, 2)] == [Level.P2, Level.P3, Level.P3]


def test_s3_can_be_kept_off_the_level_of_what_blocks_compute() -> None:
    """Every S3 level but the reserved one moves down by one, and the lowest takes two."""
    queue = Rmlq(s3_skips_p2=True)
    levels = [queue.for_mlu(mlu) for mlu in (0.5, 0.125, 0.03125, 0.0078125, 0.001953125, 0.0)]
    assert levels == [Level.P1, Level.P3, Level.P4, Level.P5, Level.P6, Level.P6]


def test_the_lowest_level_has_none_below_it() -> None:
    assert Rmlq(levels=4).lower(Level.P3) is Level.P4
    assert Rmlq(levels=4).lower(Level.P4) is Level.P4


def test_a_monotonic_queue_only_promotes() -> None:
    assert Rmlq().moves(Level.P4, Level.P3)
    assert not Rmlq().moves(Level.P4, Level.P4)
    assert not Rmlq().moves(Level.P4, Level.P5)
    assert Rmlq(monotonic=False).moves(Level.P4, Level.P5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"levels": 1}, "levels must be 2 to 6"),
        ({"levels": 7}, "levels must be 2 to 6"),
        ({"mlu_top": 0.0}, "mlu_top must be above 0"),
        ({"mlu_base": 1.0}, "mlu_base must be above 1"),
        ({"mlu_base": math.nan}, "mlu_base must be above 1"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rmlq(**options)  # type: ignore[arg-type]
