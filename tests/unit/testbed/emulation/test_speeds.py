"""Speeds of flows: what an idle port passes at once, and what no port can pass.

The line is 100 B/s, 10 ms a byte. At this scale, a model byte is a byte on the wire, and three packets with
their Ethernet headers are 12,642 B.
"""

import msgspec
import pytest
from result_rows import flow_row
from serving_world import job, placed

from controller.flow import Stage
from testbed.emulation.speeds import Speeds, speeds_of
from testbed.job import MODEL_SCALE, Job
from testbed.record import FlowRow

S = 1_000_000_000
PATH = ("h1->s1", "s1->h5")


def a_job() -> Job:
    return msgspec.structs.replace(job(*placed()), scale=MODEL_SCALE)


def flow(size: int, seconds: float, **more: object) -> FlowRow:
    """A flow that had its permit after 5 s."""
    about: dict[str, object] = {"stage": Stage.P2D, "path": PATH, "submit_ns": S, "permit_ns": 5 * S}
    return flow_row(**(about | more), size_bytes=size, finish_ns=round((5 + seconds) * S))


def test_a_flow_at_line_rate_is_not_faster_than_its_line() -> None:
    assert speeds_of([flow(1_000, 10)], a_job()) == Speeds(0.0, 0.0)


def test_the_burst_makes_short_flows_faster_than_the_line_but_not_faster_than_line_and_burst() -> None:
    """15,000 B in 23.58 s: 2,358 B at line rate, after 12,642 B at once. One flow of two was that fast."""
    found = speeds_of([flow(15_000, 23.58), flow(10_000, 120)], a_job())
    assert found == Speeds(0.5, pytest.approx(1.0))


def test_a_flow_that_is_faster_than_line_and_burst_is_told() -> None:
    """20,000 B in 36.79 s: 7,358 B beyond the burst, in the time of 3,679 B."""
    assert speeds_of([flow(20_000, 36.79)], a_job()).fastest == pytest.approx(2.0)


def test_shares_of_collectives_and_flows_inside_a_server_tell_nothing() -> None:
    silent = [flow(1_000, 0.1, stage=Stage.COLLECTIVE), flow(1_000, 0.1, path=())]
    assert speeds_of(silent, a_job()) == Speeds(None, None)


def test_the_narrowest_link_counts() -> None:
    made = a_job()
    links = tuple(
        msgspec.structs.replace(link, bps=link.bps // 2) if link.id == PATH[1] else link
        for link in made.topology.links
    )
    slower = msgspec.structs.replace(made, topology=msgspec.structs.replace(made.topology, links=links))
    assert speeds_of([flow(1_000, 15)], made).faster_than_line == 0.0
    assert speeds_of([flow(1_000, 15)], slower).faster_than_line == 1.0
