"""What a machine adds to ideal links, for single connections.

docs/concepts/validation.md says how these overheads are measured.
"""

from collections.abc import Mapping, Sequence

from testbed.simulation.connections import Route
from testbed.simulation.links.network import FluidNetwork
from workers.plan import Collective, CollectiveKind


class Bursts:
    """The bytes that ports let pass at once after they were idle: token buckets of `burst_bytes`.

    A bucket is full at the start. It fills at the port's rate while no connection uses the port, and what a
    connection lets pass at its beginning is taken from it.
    """

    def __init__(self, network: FluidNetwork, burst_bytes: int) -> None:
        self.burst_bytes = burst_bytes
        self._network = network
        self._tokens: dict[int, float] = {}
        self._idle_since_ns: dict[int, int] = {}
        self._busy: dict[int, int] = {}
        self._moment: dict[int, tuple[int, float]] = {}

    def credit(self, now_ns: int, ports: Sequence[int], sharing: int) -> float:
        """The bytes that pass at once when a connection begins, as one of `sharing` that begin together."""
        return min(
            min(self._at_begin_of(now_ns, port) / sharing, self._tokens_of(now_ns, port)) for port in ports
        )

    def begins(self, now_ns: int, ports: Sequence[int], passed: float) -> None:
        """A connection begins, and `passed` of its bytes have passed at once."""
        for port in ports:
            self._tokens[port] = self._tokens_of(now_ns, port) - passed
            self._idle_since_ns[port] = now_ns
            self._busy[port] = self._busy.get(port, 0) + 1

    def ends(self, now_ns: int, ports: Sequence[int]) -> None:
        for port in ports:
            self._busy[port] -= 1
            self._idle_since_ns[port] = now_ns

    def _at_begin_of(self, now_ns: int, port: int) -> float:
        """The port's tokens when this moment began. Connections that begin together share them evenly."""
        moment = self._moment.get(port)
        if moment is None or moment[0] != now_ns:
            moment = self._moment[port] = now_ns, self._tokens_of(now_ns, port)
        return moment[1]

    def _tokens_of(self, now_ns: int, port: int) -> float:
        tokens = self._tokens.get(port, float(self.burst_bytes))
        if self._busy.get(port, 0) == 0:
            idle_ns = now_ns - self._idle_since_ns.get(port, 0)
            tokens = min(self.burst_bytes, tokens + idle_ns * self._network.capacity(port))
        return tokens


def connections_beside(step: Collective, index: int) -> dict[int, tuple[int, int]]:
    """For each peer in an all-to-all: to how many member `index` sends, and how many send to the peer.

    Empty for other collectives.
    """
    if step.kind is not CollectiveKind.ALL_TO_ALL:
        return {}
    members = range(len(step.sizes))
    receivers = sum(step.sizes[index][peer] > 0 for peer in members if peer != index)
    return {
        peer: (receivers, sum(step.sizes[other][peer] > 0 for other in members if other != peer))
        for peer in members
        if peer != index
    }


def all_to_all_caps(
    beside: Mapping[int, tuple[int, int]], routes: Mapping[int, Route], goodput: float
) -> dict[int, float]:
    """For each peer, the highest rate of the connection to it, in bytes per nanosecond.

    `beside` is from `connections_beside`. If a member sends to several peers, and several members send to a
    peer, their connection gets at most `goodput` of an even part of its narrowest port. Other connections
    have no limit.
    """
    return {
        peer: goodput * route.narrowest / max(beside[peer])
        for peer, route in routes.items()
        if route.narrowest is not None and peer in beside and min(beside[peer]) > 1
    }
