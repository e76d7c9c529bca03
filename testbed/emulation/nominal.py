"""What the emulated links add to ideal ones by their configuration, whatever machine they are on."""

from testbed.emulation.fidelity import PAYLOAD_SHARE
from testbed.emulation.network import MTU
from testbed.emulation.queues import BURST_PACKETS, GUARANTEE
from testbed.job import Overheads, Scale

ETHERNET_BYTES = 14


def link_overheads(scale: Scale) -> Overheads:
    """Headers, the two packets that an idle port lets pass at once, and the guarantee of each level.

    In model units, with links at `scale`.
    """
    return Overheads(
        goodput=PAYLOAD_SHARE,
        burst_bytes=round(BURST_PACKETS * (MTU + ETHERNET_BYTES) / scale.bytes_scale),
        level_share=GUARANTEE,
    )
