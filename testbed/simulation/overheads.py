"""What a machine adds to ideal links, as far as it concerns single connections.

docs/concepts/validation.md says how it is measured.
"""

from collections.abc import Mapping, Sequence

from testbed.simulation.connections import Route
from testbed.simulation.links.network import FluidNetwork
from workers.plan import Collective, CollectiveKind


class Bursts:
    """What ports that were idle let pass at once: token buckets of `burst_bytes`, full at the start.

    A bucket fills at the port's rate while nothing is sent there, and is emptied by what begins then.
    """

    def __init__(self, network: FluidNetwork, burst_bytes: int) -> None:
        self.burst_bytes = burst_bytes
        self._network = network
        self._tokens: dict[int, float] = {}
        self._idle_since_ns: dict[int, int] = {}
        self._busy: dict[int, int] = {}
        self._moment: dict[int, tuple[int, float]] = {}

    def credit(self, now_ns: int, ports: Sequence[int], sharing: int) -> float:
        """The bytes that pass at once of a connection that begins, one of `sharing` that begin together."""
        return min(
            min(self._at_begin_of(now_ns, port) / sharing, self._tokens_of(now_ns, port)) for port in ports
        )

    def begins(self, now_ns: int, ports: Sequence[int], passed: float) -> None:
        """A connection begins; `passed` bytes went at once."""
        for port in ports:
            self._tokens[port] = self._tokens_of(now_ns, port) - passed
            self._idle_since_ns[port] = now_ns
            self._busy[port] = self._busy.get(port, 0) + 1

    def ends(self, now_ns: int, ports: Sequence[int]) -> None:
        for port in ports:
            self._busy[port] -= 1
            self._idle_since_ns[port] = now_ns

    def _at_begin_of(self, now_ns: int, port: int) -> float:
        """What the port had when this moment began: connections that begin together get even parts."""
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
    """By peer of member `index` in an all-to-all: how many it sends to, and how many send to the peer."""
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
    """By peer, the most that a connection gets, bytes per nanosecond; `beside` as of `connections_beside`.

    Where a member sends to several that are sent by several, each connection gets no more than `goodput`
    of an even part of its narrowest port.
    """
    return {
        peer: goodput * route.narrowest / max(beside[peer])
        for peer, route in routes.items()
        if route.narrowest is not None and peer in beside and min(beside[peer]) > 1
    }
