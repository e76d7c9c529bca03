"""How fast flows arrived, compared with the line rates of the links that they crossed."""

from collections.abc import Iterable

from controller.flow import Stage
from controller.units import NS_PER_S
from testbed.job import Job
from testbed.record import FlowRow


def faster_than_line(flows: Iterable[FlowRow], job: Job) -> float | None:
    """The share of the S1 and S3 flows that took less time, from permit to finish, than their bytes take at
    the line rate of their narrowest link; None if no flow crossed a link.

    An idle port passes three packets at once, so a short flow can do that. A member of a collective that
    only sends is done when its kernel has the bytes, so single shares of collectives tell no speed.
    """
    line_bps = {link.id: link.bps for link in job.topology.links}
    count = faster = 0
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        took_ns = max(1, flow.finish_ns - flow.permit_ns)
        line_bytes = min(line_bps[port] for port in flow.path) * took_ns / (8 * NS_PER_S)
        count += 1
        faster += flow.size_bytes > line_bytes
    return faster / count if count else None
