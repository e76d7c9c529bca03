"""The load of each port, against which urgency is measured.

For S3 a port keeps how many bytes are due by any deadline. For S1 and S2, which go before S3, it measures
rho: the share of its capacity that they take.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from controller.flow import Flow, PortId, Stage
from controller.units import NS_PER_S

RHO_CAP = 0.95
"""The largest rho: at least 5 % of a port is always assumed free for S3. MLU divides by `1 - rho`."""

BLOCKS_NOW = -1
"""The layer under which `early_layers` counts flows that hold up compute, whichever layer runs."""

_PATHS_KEPT = 1 << 14

_MOST_WINDOWS = 500  # exp(500), times any number of bytes, is still finite


class Due(NamedTuple):
    """S3 that a port has to send by some deadline: bytes left, and flows."""

    bytes: int
    flows: int


@dataclass(slots=True)
class _Port:
    """The state of a port.

    The three lists are parallel, with one entry per distinct deadline. All flows of a request share a
    deadline, so the lists are short, and a prefix sum over plain lists is fast.
    """

    bps: int
    deadlines_ns: list[int] = field(default_factory=list)
    due_bytes: list[int] = field(default_factory=list)
    due_flows: list[int] = field(default_factory=list)
    early_waiting_bytes: int = 0
    early_moved: float = 0.0
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


class PortLoads:
    """The loads of all ports. Only the scheduler writes them; policies read them.

    `bps` are the capacities in model bits/s. Raises `ValueError` unless they and the window are above 0.

    Memory, per port: one entry per deadline of active S3, and one per batch and layer that active S1 and S2
    hold up. In all: one entry per flow put aside, and a bounded number of paths.

    What S1 and S2 moved is forgotten exponentially. `early_moved` counts a byte that moved at time t as
    `exp((t - origin) / window)` bytes. So forgetting takes one division when a port is read, and nothing
    for the other ports.
    """

    def __init__(self, bps: Mapping[PortId, int], *, rho_window_ns: int) -> None:
        for port, rate in bps.items():
            if rate <= 0:
                raise ValueError(f"port {port!r} has no capacity: {rate} bits/s")
        if rho_window_ns <= 0:
            raise ValueError(f"rho_window_ns must be above 0, not {rho_window_ns}")
        self._window_ns = rho_window_ns
        self._ports = {port: _Port(rate) for port, rate in bps.items()}
        # Flows take the same paths again and again.
        self._on = lru_cache(_PATHS_KEPT)(self._states)
        self._origin_ns = self._weighed_ns = 0
        self._weight = 1.0
        self._aside: set[str] = set()

    def __contains__(self, port: PortId) -> bool:
        return port in self._ports

    def has_all(self, ports: Mapping[PortId, int]) -> bool:
        try:
            self._on(tuple(ports))
        except KeyError:
            return False
        return True

    def bps(self, port: PortId) -> int:
        return self._ports[port].bps

    def due(self, port: PortId, deadline_ns: int) -> Due:
        """What active S3 flows with this deadline or an earlier one have yet to send through `port`.

        Flows that are put aside do not count.
        """
        state = self._ports[port]
        end = bisect_right(state.deadlines_ns, deadline_ns)
        return Due(sum(state.due_bytes[:end]), sum(state.due_flows[:end]))

    def due_bytes(self, port: PortId, deadline_ns: int) -> int:
        """The bytes of `due` alone, for callers that need them often."""
        state = self._ports[port]
        return sum(state.due_bytes[: bisect_right(state.deadlines_ns, deadline_ns)])

    def rho(self, port: PortId, now_ns: int) -> float:
        """The share of the port that S1 and S2 take, at most `RHO_CAP`.

        It is the bytes that they moved, forgotten exponentially over the window, plus the bytes that are
        submitted and have yet to move, divided by the bytes that the port can carry in one window.
        """
        state = self._ports[port]
        weight = self._weight_of(now_ns)
        early_bytes = state.early_waiting_bytes + state.early_moved / weight
        return min(RHO_CAP, early_bytes * 8 * NS_PER_S / (state.bps * self._window_ns))

    def early_layers(self, port: PortId) -> Mapping[str, Mapping[int, int]]:
        """Numbers of active S1 and S2 flows: batch -> target layer (`BLOCKS_NOW` for S2) -> how many."""
        return self._ports[port].early_layers

    def submitted(self, flow: Flow) -> None:
        if flow.stage is Stage.P2D:
            self._due_changes(flow, flow.size_bytes, +1)
            return
        batch, layer, size = flow.batch, _holds_up(flow), flow.size_bytes
        for state, load_bytes in zip(self._on(tuple(flow.load)), flow.load.values(), strict=True):
            if size:
                state.early_waiting_bytes += load_bytes
            if batch is not None:
                layers = state.early_layers.get(batch)
                if layers is None:
                    state.early_layers[batch] = {layer: 1}
                else:
                    layers[layer] = layers.get(layer, 0) + 1

    def moved(self, now_ns: int, flow: Flow, *, before_bytes: int, after_bytes: int) -> None:
        """`flow` had `before_bytes` left and now has `after_bytes`."""
        if flow.stage is Stage.P2D:
            deadline_ns, size = flow.deadline_ns, flow.size_bytes
            if deadline_ns is None or not size or flow.id in self._aside:
                return
            for state, load_bytes in zip(self._on(tuple(flow.load)), flow.load.values(), strict=True):
                gone = load_bytes * before_bytes // size - load_bytes * after_bytes // size
                state.due_changes(deadline_ns, -gone, 0)
            return
        size, weight = flow.size_bytes, self._weight_of(now_ns)
        if not size:
            return
        for state, load_bytes in zip(self._on(tuple(flow.load)), flow.load.values(), strict=True):
            gone = load_bytes * before_bytes // size - load_bytes * after_bytes // size
            state.early_waiting_bytes -= gone
            state.early_moved += gone * weight

    def finished(self, now_ns: int, flow: Flow, *, before_bytes: int) -> None:
        if flow.stage is Stage.P2D:
            self._due_changes(flow, before_bytes, -1)
            self._aside.discard(flow.id)
            return
        size, batch, layer, weight = flow.size_bytes, flow.batch, _holds_up(flow), self._weight_of(now_ns)
        for state, load_bytes in zip(self._on(tuple(flow.load)), flow.load.values(), strict=True):
            if size:
                gone = load_bytes if before_bytes == size else load_bytes * before_bytes // size
                state.early_waiting_bytes -= gone
                state.early_moved += gone * weight
            if batch is None:
                continue
            layers = state.early_layers[batch]
            count = layers[layer]
            if count > 1:
                layers[layer] = count - 1
            elif len(layers) > 1:
                del layers[layer]
            else:
                del state.early_layers[batch]

    def put_aside(self, flow: Flow, bytes_left: int) -> None:
        """`flow` yields to all others from now on: if it is S3, its bytes no longer count as due."""
        if flow.stage is Stage.P2D and flow.id not in self._aside:
            self._due_changes(flow, bytes_left, -1)
            self._aside.add(flow.id)

    def take_back(self, flow: Flow, bytes_left: int) -> None:
        """`flow` no longer yields: if it is S3, its bytes count as due again."""
        if flow.id in self._aside:
            self._aside.remove(flow.id)
            self._due_changes(flow, bytes_left, +1)

    def _states(self, path: tuple[PortId, ...]) -> tuple[_Port, ...]:
        """The states of the ports of `path`. Raises `KeyError` for an unknown port."""
        return tuple([self._ports[port] for port in path])

    def _due_changes(self, flow: Flow, bytes_left: int, sign: int) -> None:
        """Add what is left of an S3 flow to what is due (`sign` 1), or take it off (-1)."""
        deadline_ns, size = flow.deadline_ns, flow.size_bytes
        if deadline_ns is None or flow.id in self._aside:
            return
        for state, load_bytes in zip(self._on(tuple(flow.load)), flow.load.values(), strict=True):
            state.due_changes(deadline_ns, sign * (load_bytes * bytes_left // size if size else 0), sign)

    def _weight_of(self, now_ns: int) -> float:
        """The weight in `early_moved` of a byte that moves at `now_ns`."""
        if now_ns != self._weighed_ns:
            windows = (now_ns - self._origin_ns) / self._window_ns
            if windows > _MOST_WINDOWS:
                faded = math.exp(-windows)
                for state in self._ports.values():
                    state.early_moved *= faded
                self._origin_ns, windows = now_ns, 0.0
            self._weighed_ns, self._weight = now_ns, math.exp(windows)
        return self._weight


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


def _holds_up(flow: Flow) -> int:
    """The layer that waits for an S1 or S2 flow."""
    return BLOCKS_NOW if flow.layer is None or flow.stage is not Stage.KV_REUSE else flow.layer


def left_on(flow: Flow, port: PortId, bytes_left: int) -> int:
    """The part of `bytes_left` that has yet to cross `port`, if all parts of the flow drain evenly."""
    if flow.size_bytes == 0:
        return 0
    return flow.load[port] * bytes_left // flow.size_bytes
