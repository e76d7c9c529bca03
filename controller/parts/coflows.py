"""Active coflows: their flows, the bytes that these have sent, and the bytes left on each port."""

from dataclasses import dataclass, field
from typing import NamedTuple

from controller.flow import Flow, PortId
from controller.ports import PortLoads, left_on
from controller.urgency import transfer_ns
from controller.view import ActiveFlow


class Bottleneck(NamedTuple):
    """The time that a coflow's bytes left need on idle links, and the port that takes longest.

    `port` is None if no port has bytes left.
    """

    gamma_ns: int
    port: PortId | None


@dataclass(slots=True, eq=False)
class Coflow:
    """The active flows of one coflow. `sent_bytes` also counts flows that have completed.

    `left_bytes` is what the active flows have left on each port, as of their last progress report.
    """

    name: str
    arrived_ns: int
    flows: dict[str, ActiveFlow] = field(default_factory=dict)
    sent_bytes: int = 0
    left_bytes: dict[PortId, int] = field(default_factory=dict)
    _counted_bytes: dict[str, int] = field(default_factory=dict)  # bytes left when last looked at

    def bottleneck(self, ports: PortLoads) -> Bottleneck:
        """The effective bottleneck (Varys): the port that needs the most time for the bytes left."""
        worst = Bottleneck(0, None)
        for port, left_bytes in self.left_bytes.items():
            need_ns = transfer_ns(left_bytes, ports.bps(port))
            if need_ns > worst.gamma_ns:
                worst = Bottleneck(need_ns, port)
        return worst

    def take(self, active: ActiveFlow) -> None:
        flow = active.flow
        self.flows[flow.id] = active
        self._counted_bytes[flow.id] = flow.size_bytes
        for port, load_bytes in flow.load.items():
            self._left_changes(port, load_bytes)

    def count(self, active: ActiveFlow) -> None:
        """Take in a change of `active.bytes_left`."""
        flow = active.flow
        before, after = self._counted_bytes[flow.id], active.bytes_left
        self._counted_bytes[flow.id] = after
        self.sent_bytes += before - after
        for port in flow.load:
            self._left_changes(port, left_on(flow, port, after) - left_on(flow, port, before))

    def drop(self, active: ActiveFlow) -> None:
        self.count(active)
        del self.flows[active.flow.id], self._counted_bytes[active.flow.id]

    def _left_changes(self, port: PortId, more_bytes: int) -> None:
        left = self.left_bytes.get(port, 0) + more_bytes
        if left:
            self.left_bytes[port] = left
        else:
            self.left_bytes.pop(port, None)


class Coflows:
    """The coflows that have an active flow. A flow that names no coflow is one of its own.

    A coflow is forgotten with its last active flow. A later one with the same id is new. Memory: the
    active flows, and the ports that their coflows cross.
    """

    def __init__(self) -> None:
        self._coflows: dict[str, Coflow] = {}

    def join(self, now_ns: int, active: ActiveFlow) -> Coflow:
        """`active` has been submitted. Returns its coflow, with it."""
        name = _name(active.flow)
        coflow = self._coflows.get(name)
        if coflow is None:
            coflow = self._coflows[name] = Coflow(name, now_ns)
        coflow.take(active)
        return coflow

    def of(self, active: ActiveFlow) -> Coflow:
        """The coflow of an active flow; raises `KeyError` for others."""
        return self._coflows[_name(active.flow)]

    def leave(self, active: ActiveFlow) -> Coflow:
        """`active` has completed. Returns its coflow, without it."""
        coflow = self.of(active)
        coflow.drop(active)
        if not coflow.flows:
            del self._coflows[coflow.name]
        return coflow


def _name(flow: Flow) -> str:
    # A flow without a coflow may have the id of some coflow.
    return f"flow {flow.id}" if flow.coflow is None else f"coflow {flow.coflow}"
