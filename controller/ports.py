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

    def early_count(self, flow: Flow, more: int) -> None:
        if flow.batch is None:
            return
        layers = self.early_layers.setdefault(flow.batch, {})
        layer = flow.layer if flow.stage is Stage.KV_REUSE else None
        key = BLOCKS_NOW if layer is None else layer
        layers[key] = layers.get(key, 0) + more
        if layers[key] == 0:
            del layers[key]
        if not layers:
            del self.early_layers[flow.batch]

    def moved_bytes(self, now_ns: int, window_ns: int) -> float:
        age_ns = max(0, now_ns - self.early_moved_at_ns)
        return self.early_moved_bytes * math.exp(-age_ns / window_ns)


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
        self._count(flow, +1)
        for port in flow.load:
            self._left_changes(self._ports[port], flow, left_on(flow, port, flow.size_bytes))

    def moved(self, now_ns: int, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        """Of `flow`, `before_bytes` were left and now `after_bytes` are."""
        for port in flow.load:
            state = self._ports[port]
            gone = left_on(flow, port, before_bytes) - left_on(flow, port, after_bytes)
            self._left_changes(state, flow, -gone)
            if flow.stage is not Stage.P2D:
                state.early_moved_bytes = gone + state.moved_bytes(now_ns, self._window_ns)
                state.early_moved_at_ns = max(now_ns, state.early_moved_at_ns)

    def finished(self, now_ns: int, flow: Flow, *, before_bytes: int) -> None:
        self.moved(now_ns, flow, before_bytes=before_bytes, after_bytes=0)
        self._count(flow, -1)
        self._aside.discard(flow.id)

    def put_aside(self, flow: Flow, bytes_left: int) -> None:
        """`flow` yields to all others from now on: as S3 it is not due before anybody."""
        if flow.stage is Stage.P2D and flow.id not in self._aside:
            for port in flow.load:
                self._left_changes(self._ports[port], flow, -left_on(flow, port, bytes_left))
            self._count(flow, -1)
            self._aside.add(flow.id)

    def take_back(self, flow: Flow, bytes_left: int) -> None:
        """`flow` is one among the others again."""
        if flow.id in self._aside:
            self._aside.remove(flow.id)
            self._count(flow, +1)
            for port in flow.load:
                self._left_changes(self._ports[port], flow, left_on(flow, port, bytes_left))

    def _left_changes(self, state: _Port, flow: Flow, more_bytes: int) -> None:
        if flow.stage is not Stage.P2D:
            state.early_waiting_bytes += more_bytes
        elif flow.deadline_ns is not None and flow.id not in self._aside:
            state.due_changes(flow.deadline_ns, more_bytes, 0)

    def _count(self, flow: Flow, more: int) -> None:
        for port in flow.load:
            if flow.stage is not Stage.P2D:
                self._ports[port].early_count(flow, more)
            elif flow.deadline_ns is not None and flow.id not in self._aside:
                self._ports[port].due_changes(flow.deadline_ns, 0, more)


def left_on(flow: Flow, port: PortId, bytes_left: int) -> int:
    """The part of `bytes_left` that will cross `port`; all parts of a flow drain alike."""
    if flow.size_bytes == 0:
        return 0
    return flow.load[port] * bytes_left // flow.size_bytes
