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
        (0.49, Level.P5),
        (0.125, Level.P5),
        (0.124, Level.P6),
        (0.0, Level.P6),
    ],
)
def test_s3_is_on_the_reserved_level_or_below_all_s1_and_s2(mlu: float, level: Level) -> None:
    """U = 0.5 guards P1. Of the five levels below, S3 has two to itself, and 0.125 guards the upper one."""
    assert Rmlq().for_mlu(mlu) is level


@pytest.mark.parametrize(("rli", "level"), [(0, Level.P2), (1, Level.P3), (2, Level.P4), (31, Level.P4)])
def test_each_layer_ahead_is_one_level_below_the_second(rli: int, level: Level) -> None:
    assert Rmlq().for_rli(rli) is level


@pytest.mark.parametrize("levels", [3, 4, 5, 6])
def test_s3_that_is_not_urgent_is_below_every_s1_and_s2(levels: int) -> None:
    for own in range(1, levels - 1):
        queue = Rmlq(levels=levels, s3_levels=own)
        lowest_early = max(queue.below_early(queue.for_rli(rli)) for rli in range(9))
        assert all(queue.for_mlu(0.499 / 2**i) > lowest_early for i in range(12))
        assert len({queue.for_mlu(0.499 / 2**i) for i in range(12)}) == own


@pytest.mark.parametrize(
    ("mlu", "level"),
    [
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
def test_without_levels_of_its_own_s3_climbs_through_those_of_s1_and_s2(mlu: float, level: Level) -> None:
    """U = 0.5, E = 4: 0.5, 0.125, 0.03125, 0.0078125, 0.001953125 guard P1 .. P5; below is P6."""
    queue = Rmlq(s3_levels=0)
    assert queue.for_mlu(mlu) is level
    assert [queue.for_rli(rli) for rli in (0, 1, 4, 31)] == [Level.P2, Level.P3, Level.P6, Level.P6]


def test_fewer_levels_end_earlier() -> None:
    """K = 3: P1, one level for S1 and S2, one for S3. K = 2 has one level below P1, which all share."""
    queue = Rmlq(levels=3)
    assert [queue.for_mlu(mlu) for mlu in (0.6, 0.2, 0.1)] == [Level.P1, Level.P3, Level.P3]
    assert [queue.for_rli(rli) for rli in (0, 1, 2)] == [Level.P2, Level.P2, Level.P2]
    queue = Rmlq(levels=2)
    assert [queue.for_mlu(mlu) for mlu in (0.6, 0.2)] == [Level.P1, Level.P2]
    assert queue.for_rli(0) is Level.P2


def test_the_lowest_level_of_s1_and_s2_has_none_below_it() -> None:
    assert Rmlq().below_early(Level.P3) is Level.P4
    assert Rmlq().below_early(Level.P4) is Level.P4
    assert Rmlq(s3_levels=0).below_early(Level.P6) is Level.P6


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
        ({"s3_levels": 5}, "s3_levels must be 0 to 4 with 6 levels, not 5"),
        ({"s3_levels": -1}, "s3_levels must be 0 to 4"),
        ({"levels": 2, "s3_levels": 1}, "s3_levels must be 0 to 0 with 2 levels"),
        ({"mlu_top": 0.0}, "mlu_top must be above 0"),
        ({"mlu_base": 1.0}, "mlu_base must be above 1"),
        ({"mlu_base": math.nan}, "mlu_base must be above 1"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(options: dict[str, float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rmlq(**options)  # type: ignore[arg-type]
