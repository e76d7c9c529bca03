"""The load of each port, against which urgency is measured.

For S3 a port keeps how many bytes are due by any deadline. For S1 and S2, which go before S3, it measures
rho: the share of its capacity that they take.
"""

from collections.abc import Mapping
from typing import NamedTuple

from controller import _core
from controller.flow import Flow, PortId

RHO_CAP = _core.RHO_CAP
"""The largest rho: at least 5 % of a port is always assumed free for S3. MLU divides by `1 - rho`."""

BLOCKS_NOW = _core.BLOCKS_NOW
"""The layer under which `early_layers` counts flows that hold up compute, whichever layer runs."""


class Due(NamedTuple):
    """S3 that a port has to send by some deadline: bytes left, and flows."""

    bytes: int
    flows: int


class PortLoads(_core.NamedPortLoads):
    """The loads of all ports. Only the scheduler writes them; policies read them.

    `bps` are the capacities in model bits/s. Raises `ValueError` unless they and the window are above 0.

    The loads are kept by compiled code (`controller/core/port_loads.hpp`, with the memory that they take).
    `controller/_core.pyi` describes the methods that are not here.
    """

    def __init__(self, bps: Mapping[PortId, int], *, rho_window_ns: int) -> None:
        for port, rate in bps.items():
            if rate <= 0:
                raise ValueError(f"port {port!r} has no capacity: {rate} bits/s")
        super().__init__(dict(bps), rho_window_ns)

    def due(self, port: PortId, deadline_ns: int) -> Due:
        """What active S3 flows with this deadline or an earlier one have yet to send through `port`.

        Flows that are put aside do not count.
        """
        return Due(*super().due(port, deadline_ns))


class UnreadPortLoads(PortLoads):
    """Knows the capacities of ports and keeps no loads, for policies that read none (`Policy.reads_ports`).

    Keeping loads takes a tenth of what `fair` costs in a simulated run.
    """

    def submitted(self, flow: Flow) -> None:
        pass

    def moved(self, now_ns: int, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        pass

    def finished(self, now_ns: int, flow: Flow, *, before_bytes: int) -> None:
        pass

    def put_aside(self, flow: Flow, bytes_left: int) -> None:
        pass

    def take_back(self, flow: Flow, bytes_left: int) -> None:
        pass

    def due(self, port: PortId, deadline_ns: int) -> Due:
        raise self._refusal()

    def due_bytes(self, port: PortId, deadline_ns: int) -> int:
        raise self._refusal()

    def rho(self, port: PortId, now_ns: int) -> float:
        raise self._refusal()

    def early_layers(self, port: PortId) -> Mapping[str, Mapping[int, int]]:
        raise self._refusal()

    def _refusal(self) -> LookupError:
        return LookupError("the loads of ports are not kept for a policy whose `reads_ports` is False")


def left_on(flow: Flow, port: PortId, bytes_left: int) -> int:
    """The part of `bytes_left` that has yet to cross `port`, if all parts of the flow drain evenly."""
    if flow.size_bytes == 0:
        return 0
    return flow.load[port] * bytes_left // flow.size_bytes
