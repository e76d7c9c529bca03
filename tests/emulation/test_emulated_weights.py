"""Levels with weights: what two backlogged lanes get of a link, measured against the weights."""

import functools

import emulated_world as world
import pytest

from controller.flow import Level, Stage
from testbed.job import Job
from testbed.record import RunRecord

BPS = 25e6  # a rate that even a busy machine can fill, so that only the queues are measured
SETTLED_NS = 250 * 10**6  # after which a flow that is left alone has the line


def contest(weights: str) -> Job:
    """S2 and S3 into h3, from two servers, until S2 has sent what the link carries in 6 s."""
    return world.micro_job(
        world.flow("s2", "h1->h3", 6 * BPS / 8, start_s=0.1, stage=Stage.COLLECTIVE),
        world.flow("s3", "h2->h3", 3 * BPS / 8, start_s=0.1, stage=Stage.P2D),
        servers=3,
        mbps=BPS / 1e6,
        policy=f"static(s1=2, s2=1, s3=2, weights={weights})",
    )


@functools.cache
def measured(weights: str) -> RunRecord:
    return world.run(contest(weights))


def share_of_s2(record: RunRecord) -> float:
    """Over the second half of the time in which both flows are under way.

    A hundredth of the line is a packet in 50 ms, and TCP takes seconds to get up to it.
    """
    rows = [world.row(record, name) for name in ("s2", "s3")]
    begin, end = max(row.permit_ns for row in rows), min(row.finish_ns for row in rows)
    s2, s3 = (world.rate_bps(record, row.id, (begin + end) / 2, end) for row in rows)
    return s2 / (s2 + s3)


@pytest.mark.parametrize(
    ("weights", "least", "most"),
    [("1:3", 0.22, 0.28), ("99:1", 0.97, 0.995)],
)
def test_backlogged_lanes_share_a_link_by_the_weights_of_their_levels(
    weights: str, least: float, most: float
) -> None:
    assert least <= share_of_s2(measured(weights)) <= most


def test_a_level_alone_has_the_whole_line_whatever_its_weight() -> None:
    """Once S2 is through, S3, of weight 1 beside 99, has the link to itself, for more than 2 s."""
    record = measured("99:1")
    row, begin_ns = world.row(record, "s3"), world.row(record, "s2").finish_ns + SETTLED_NS
    assert row.finish_ns - begin_ns > 2 * 10**9
    assert world.rate_bps(record, "s3", begin_ns, row.finish_ns) >= 0.9 * BPS
    assert row.level_first is Level.P2


def test_the_kernel_has_the_parts_of_the_weights() -> None:
    """What is left for weights is 1 - 2 * 2 % - 4 * 0.1 % = 95.6 % of the line: 1/4 and 3/4 of it."""
    (rows, *_) = measured("1:3").queues.values()
    by_class = {str(row["class"]): row for row in rows}
    assert by_class["1:11"]["rate_bps"] == pytest.approx(0.239 * BPS, rel=0.002)
    assert by_class["1:12"]["rate_bps"] == pytest.approx(0.717 * BPS, rel=0.002)
    assert by_class["1:11"]["prio"] == by_class["1:12"]["prio"] == 1
