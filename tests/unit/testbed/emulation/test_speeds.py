"""Flows that are faster than their line: an idle port passes three packets at once.

The line is 100 B/s, 10 ms a byte.
"""

import msgspec
from result_rows import flow_row
from serving_world import job, placed

from controller.flow import Stage
from testbed.emulation.speeds import faster_than_line
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
    assert faster_than_line([flow(1_000, 10)], a_job()) == 0.0


def test_one_flow_of_two_was_faster_than_its_line() -> None:
    assert faster_than_line([flow(15_000, 23.58), flow(10_000, 120)], a_job()) == 0.5


def test_shares_of_collectives_and_flows_inside_a_server_tell_nothing() -> None:
    silent = [flow(1_000, 0.1, stage=Stage.COLLECTIVE), flow(1_000, 0.1, path=())]
    assert faster_than_line(silent, a_job()) is None


def test_the_narrowest_link_counts() -> None:
    made = a_job()
    links = tuple(
        msgspec.structs.replace(link, bps=link.bps // 2) if link.id == PATH[1] else link
        for link in made.topology.links
    )
    slower = msgspec.structs.replace(made, topology=msgspec.structs.replace(made.topology, links=links))
    assert faster_than_line([flow(1_000, 15)], made) == 0.0
    assert faster_than_line([flow(1_000, 15)], slower) == 1.0
