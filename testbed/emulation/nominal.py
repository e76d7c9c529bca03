"""What the configuration of emulated links adds to ideal links, on any machine."""

from controller.flow import PortId
from testbed.coordinator.line_check import Line
from testbed.emulation.fidelity import PAYLOAD_SHARE
from testbed.emulation.network import MTU
from testbed.emulation.queues import BURST_PACKETS, GUARANTEE
from testbed.job import Job, Overheads, Scale

ETHERNET_BYTES = 14


def link_overheads(scale: Scale) -> Overheads:
    """Return the overheads of links at `scale`, in model units.

    These are packet headers, the two packets that an idle port passes at once, and the guarantee of each
    level.
    """
    return Overheads(
        goodput=PAYLOAD_SHARE,
        burst_bytes=round(BURST_PACKETS * (MTU + ETHERNET_BYTES) / scale.bytes_scale),
        level_share=GUARANTEE,
    )


def most_at_once_bytes(scale: Scale) -> int:
    """Return the model bytes that an idle port may pass at once, at `scale`.

    That is a packet more than its burst: HTB sends a packet while it has any tokens left for it.
    """
    return round((BURST_PACKETS + 1) * (MTU + ETHERNET_BYTES) / scale.bytes_scale)


def lines_of(job: Job) -> dict[PortId, Line]:
    """What each port of the network of `job` carries."""
    at_once_bytes = most_at_once_bytes(job.scale)
    return {link.id: Line(bps=link.bps, besides_bytes=at_once_bytes) for link in job.topology.links}
