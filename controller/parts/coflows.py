"""Active coflows: their flows, the bytes that these have sent, and what takes them longest."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.flow import Flow, PortId
from controller.ports import PortLoads
from controller.urgency import transfer_ns
from controller.view import ActiveFlow, FlowGroup


class Bottleneck(NamedTuple):
    """The time that a coflow's bytes left need on idle links, and the port that takes longest.

    `port` is None if no port has bytes left.
    """

    gamma_ns: int
    port: PortId | None

    def or_worse(
        self, left_bytes: Mapping[PortId, int], among: Iterable[PortId], ports: PortLoads
    ) -> "Bottleneck":
        """This one, or the worst `among` these ports if it needs more time for what is left there."""
        worst, worst_bytes, worst_bps = self, -1, 0
        for port in among:
            on_port, bps = left_bytes[port], ports.bps(port)
            if bps == worst_bps and on_port <= worst_bytes:  # spares a division for most ports
                continue
            need_ns = transfer_ns(on_port, bps)
            if need_ns > worst.gamma_ns:
                worst, worst_bytes, worst_bps = Bottleneck(need_ns, port), on_port, bps
        return worst


@dataclass(slots=True, eq=False)
class Coflow(FlowGroup):
    """The active flows of one coflow. `sent_bytes` also counts flows that have completed."""

    arrived_ns: int = 0
    sent_bytes: int = 0
    _counted_bytes: dict[str, int] = field(default_factory=dict)  # bytes left when last looked at

    def take(self, active: ActiveFlow) -> None:
        flow = active.flow
        self.flows[flow.id] = active
        self._counted_bytes[flow.id] = flow.size_bytes

    def count(self, active: ActiveFlow) -> None:
        """Take in a change of `active.bytes_left`."""
        flow = active.flow
        before, after = self._counted_bytes[flow.id], active.bytes_left
        self._counted_bytes[flow.id] = after
        self.sent_bytes += before - after

    def drop(self, active: ActiveFlow, *, counted: bool) -> None:
        if not counted:
            self.count(active)
        del self.flows[active.flow.id], self._counted_bytes[active.flow.id]


class Coflows:
    """The coflows that have an active flow. A flow that names no coflow is one of its own.

    A coflow is forgotten with its last active flow. A later one with the same id is new. Memory: the
    active flows.
    """

    def __init__(self) -> None:
        self._coflows: dict[str, Coflow] = {}

    def __iter__(self) -> Iterator[Coflow]:
        """In order of arrival."""
        return iter(self._coflows.values())

    def join(self, now_ns: int, active: ActiveFlow) -> Coflow:
        """`active` has been submitted. Returns its coflow, with it."""
        name = _name(active.flow)
        coflow = self._coflows.get(name)
        if coflow is None:
            coflow = self._coflows[name] = Coflow(name, arrived_ns=now_ns)
        coflow.take(active)
        return coflow

    def of(self, active: ActiveFlow) -> Coflow:
        """The coflow of an active flow; raises `KeyError` for others."""
        return self._coflows[_name(active.flow)]

    def leave(self, active: ActiveFlow, *, counted: bool = False) -> Coflow:
        """`active` has completed. Returns its coflow, without it.

        If `counted`, somebody else counts its bytes in `sent_bytes`.
        """
        coflow = self.of(active)
        coflow.drop(active, counted=counted)
        if not coflow.flows:
            del self._coflows[coflow.name]
        return coflow


def _name(flow: Flow) -> str:
    # A flow without a coflow may have the id of some coflow.
    return f"flow {flow.id}" if flow.coflow is None else f"coflow {flow.coflow}"
