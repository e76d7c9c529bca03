"""What is due and what is moving on each port: the loads that urgency is measured against.

For S3 a port knows how many bytes are due by any deadline. For S1 and S2, the traffic that comes
before S3, it measures rho: the share of its capacity that they take.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.flow import Flow, PortId, Stage
from controller.urgency import NS_PER_S

RHO_CAP = 0.95
"""At least 5 % of a port is always taken to be left for S3; MLU divides by `1 - rho`."""

BLOCKS_NOW = -1
"""The layer under which `early_layers` lists flows that hold up compute whatever layer runs."""


class Due(NamedTuple):
    """S3 traffic of a port up to some deadline."""

    bytes: int
    flows: int


@dataclass(slots=True)
class _Port:
    """The three lists run in parallel, one entry per distinct deadline: few, because all flows of
    a request share one, so that a prefix sum over plain lists is quick."""

    bps: int
    deadlines_ns: list[int] = field(default_factory=list)
    due_bytes: list[int] = field(default_factory=list)
    due_flows: list[int] = field(default_factory=list)
    early_waiting_bytes: int = 0
    early_moved_bytes: float = 0.0
    early_moved_at_ns: int = 0
    early_layers: dict[str, dict[int, int]] = field(default_factory=dict)

    def due_changes(self, deadline_ns: int, more_bytes: int, more_flows: int) -> None:
        at = bisect_left(self.deadlines_ns, deadline_ns)
        if at == len(self.deadlines_ns) or self.deadlines_ns[at] != deadline_ns:
            self.deadlines_ns.insert(at, deadline_ns)
            self.due_bytes.insert(at, 0)
            self.due_flows.insert(at, 0)
        self.due_bytes[at] += more_bytes
        self.due_flows[at] += more_flows
        if self.due_flows[at] == 0:
            del self.deadlines_ns[at], self.due_bytes[at], self.due_flows[at]

    def moved_bytes(self, now_ns: int, window_ns: int) -> float:
        if now_ns <= self.early_moved_at_ns or self.early_moved_bytes == 0.0:
            return self.early_moved_bytes
        return self.early_moved_bytes * math.exp((self.early_moved_at_ns - now_ns) / window_ns)


class PortLoads:
    """Loads of the ports `bps` (model bits/s). Written by the scheduler alone, read by policies.

    Memory: one entry per port, one per active request on each port it crosses, one per flow that is
    aside.
    """

    def __init__(self, bps: Mapping[PortId, int], *, rho_window_ns: int) -> None:
        for port, rate in bps.items():
            if rate <= 0:
                raise ValueError(f"port {port!r} has no capacity: {rate} bits/s")
        if rho_window_ns <= 0:
            raise ValueError(f"rho_window_ns must be above 0, not {rho_window_ns}")
        self._window_ns = rho_window_ns
        self._ports = {port: _Port(rate) for port, rate in bps.items()}
        self._aside: set[str] = set()

    def __contains__(self, port: PortId) -> bool:
        return port in self._ports

    def has_all(self, ports: Mapping[PortId, int]) -> bool:
        return ports.keys() <= self._ports.keys()

    def bps(self, port: PortId) -> int:
        return self._ports[port].bps

    def due(self, port: PortId, deadline_ns: int) -> Due:
        """What active S3 flows with this deadline or an earlier one still have to send here.

        Those that are aside are not counted.
        """
        state = self._ports[port]
        end = bisect_right(state.deadlines_ns, deadline_ns)
        return Due(sum(state.due_bytes[:end]), sum(state.due_flows[:end]))

    def due_bytes(self, port: PortId, deadline_ns: int) -> int:
        """The bytes of `due` alone, for where they are asked for often."""
        state = self._ports[port]
        return sum(state.due_bytes[: bisect_right(state.deadlines_ns, deadline_ns)])

    def rho(self, port: PortId, now_ns: int) -> float:
        """The share of the port that S1 and S2 take, at most `RHO_CAP`.

        What they moved, forgotten exponentially over the window, and what they have submitted and
        not yet moved, over what the port can carry in one window.
        """
        state = self._ports[port]
        early_bytes = state.early_waiting_bytes + state.moved_bytes(now_ns, self._window_ns)
        return min(RHO_CAP, early_bytes * 8 * NS_PER_S / (state.bps * self._window_ns))

    def early_layers(self, port: PortId) -> Mapping[str, Mapping[int, int]]:
        """Active S1 and S2 flows here: batch -> target layer (`BLOCKS_NOW` for S2) -> how many."""
        return self._ports[port].early_layers

    def submitted(self, flow: Flow) -> None:
        if flow.stage is Stage.P2D:
            self._count(flow, +1)
            self._left_changes(flow, flow.size_bytes, +1)
            return
        ports, batch, layer, size = self._ports, flow.batch, _holds_up(flow), flow.size_bytes
        for port, load_bytes in flow.load.items():
            state = ports[port]
            if size:
                state.early_waiting_bytes += load_bytes
            if batch is not None:
                layers = state.early_layers.get(batch)
                if layers is None:
                    state.early_layers[batch] = {layer: 1}
                else:
                    layers[layer] = layers.get(layer, 0) + 1

    def moved(self, now_ns: int, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        """Of `flow`, `before_bytes` were left and now `after_bytes` are."""
        if flow.stage is not Stage.P2D:
            self._early_moved(now_ns, flow, before_bytes, after_bytes)
        elif flow.deadline_ns is not None and flow.id not in self._aside:
            for port in flow.load:
                gone = left_on(flow, port, before_bytes) - left_on(flow, port, after_bytes)
                self._ports[port].due_changes(flow.deadline_ns, -gone, 0)

    def finished(self, now_ns: int, flow: Flow, *, before_bytes: int) -> None:
        self.moved(now_ns, flow, before_bytes=before_bytes, after_bytes=0)
        if flow.stage is Stage.P2D:
            self._count(flow, -1)
            self._aside.discard(flow.id)
        elif flow.batch is not None:
            ports, batch, layer = self._ports, flow.batch, _holds_up(flow)
            for port in flow.load:
                by_batch = ports[port].early_layers
                layers = by_batch[batch]
                count = layers[layer]
                if count > 1:
                    layers[layer] = count - 1
                elif len(layers) > 1:
                    del layers[layer]
                else:
                    del by_batch[batch]

    def put_aside(self, flow: Flow, bytes_left: int) -> None:
        """`flow` yields to all others from now on: as S3 it is not due before anybody."""
        if flow.stage is Stage.P2D and flow.id not in self._aside:
            self._left_changes(flow, bytes_left, -1)
            self._count(flow, -1)
            self._aside.add(flow.id)

    def take_back(self, flow: Flow, bytes_left: int) -> None:
        """`flow` is one among the others again."""
        if flow.id in self._aside:
            self._aside.remove(flow.id)
            self._count(flow, +1)
            self._left_changes(flow, bytes_left, +1)

    def _early_moved(self, now_ns: int, flow: Flow, before_bytes: int, after_bytes: int) -> None:
        ports, size, window_ns = self._ports, flow.size_bytes, self._window_ns
        whole = before_bytes == size and after_bytes == 0
        last_ns, decay = now_ns, 1.0  # the ports of a flow were often last looked at in one moment
        for port, load_bytes in flow.load.items():
            state = ports[port]
            if whole:
                gone = load_bytes if size else 0
            else:
                gone = load_bytes * before_bytes // size - load_bytes * after_bytes // size
            state.early_waiting_bytes -= gone
            moved_at_ns = state.early_moved_at_ns
            if moved_at_ns < now_ns:
                if state.early_moved_bytes:
                    if moved_at_ns != last_ns:
                        last_ns, decay = moved_at_ns, math.exp((moved_at_ns - now_ns) / window_ns)
                    state.early_moved_bytes *= decay
                state.early_moved_at_ns = now_ns
            state.early_moved_bytes += gone

    def _left_changes(self, flow: Flow, bytes_left: int, sign: int) -> None:
        """Of S3: what is left becomes due, or is no more."""
        if flow.deadline_ns is not None and flow.id not in self._aside:
            for port in flow.load:
                self._ports[port].due_changes(flow.deadline_ns, sign * left_on(flow, port, bytes_left), 0)

    def _count(self, flow: Flow, more: int) -> None:
        """Of S3."""
        if flow.deadline_ns is not None and flow.id not in self._aside:
            for port in flow.load:
                self._ports[port].due_changes(flow.deadline_ns, 0, more)


class UnreadPortLoads(PortLoads):
    """For a policy that says it reads none (`Policy.reads_ports`): knows the ports, keeps no loads of them.

    Keeping them is a tenth of what `fair` costs a simulated run.
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


def _holds_up(flow: Flow) -> int:
    """The layer that waits for an S1 or S2 flow."""
    return BLOCKS_NOW if flow.layer is None or flow.stage is not Stage.KV_REUSE else flow.layer


def left_on(flow: Flow, port: PortId, bytes_left: int) -> int:
    """The part of `bytes_left` that will cross `port`; all parts of a flow drain alike."""
    if flow.size_bytes == 0:
        return 0
    return flow.load[port] * bytes_left // flow.size_bytes
