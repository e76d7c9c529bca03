"""How fast flows arrived, compared with the line rates of the links that they crossed."""

from collections.abc import Iterable
from typing import NamedTuple

from controller.flow import Stage
from controller.units import NS_PER_S
from testbed.emulation.nominal import most_at_once_bytes
from testbed.job import Job
from testbed.record import FlowRow


class Speeds(NamedTuple):
    """Speeds of the flows of a run; None if no flow crossed a link.

    `faster_than_line` is the share of flows that took less time than their bytes take at the line rate of
    their narrowest link. An idle port passes three packets at once, so a short flow can do that. Apart from
    that burst it cannot: `fastest` is the highest speed of a flow without these bytes, over its line rate.
    """

    faster_than_line: float | None
    fastest: float | None


def speeds_of(flows: Iterable[FlowRow], job: Job) -> Speeds:
    """Speeds from permit to finish of the S1 and S3 flows that crossed a link.

    A member of a collective that only sends is done when its kernel has the bytes, so shares of collectives
    tell no speed.
    """
    burst_bytes = most_at_once_bytes(job.scale)
    line_bps = {link.id: link.bps for link in job.topology.links}
    count = faster = 0
    fastest = 0.0
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        took_ns = max(1, flow.finish_ns - flow.permit_ns)
        line_bytes = min(line_bps[port] for port in flow.path) * took_ns / (8 * NS_PER_S)
        count += 1
        faster += flow.size_bytes > line_bytes
        fastest = max(fastest, (flow.size_bytes - burst_bytes) / line_bytes)
    return Speeds(faster / count, fastest) if count else Speeds(None, None)
