"""The bytes still to come on each port, as far as the serving system knows."""

from collections.abc import Hashable

from controller.flow import PortId
from testbed.serving.plans.idle_network import Traffic
from testbed.topology import Topology


class PortBytes:
    """Bytes still to come on each port, by a key for what they belong to.

    Equal-cost paths count evenly, in whole bytes. The serving system does not know how far a transfer has
    got, so it counts in full until it is taken off.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._parts: dict[Hashable, dict[PortId, int]] = {}
        self._total: dict[PortId, int] = {}
        self._ways: dict[tuple[str, str], dict[PortId, float]] = {}

    def add(self, key: Hashable, traffic: Traffic) -> None:
        """Add `traffic` as `key`, unless `key` is there already."""
        if key in self._parts:
            return
        part = self._parts[key] = {port: round(size) for port, size in self._loads(traffic).items()}
        for port, size in part.items():
            self._total[port] = self._total.get(port, 0) + size

    def take_off(self, key: Hashable) -> None:
        """Take the traffic of `key` off, if it is there."""
        for port, size in self._parts.pop(key, {}).items():
            self._total[port] -= size

    def seconds(self, traffic: Traffic) -> tuple[float, ...]:
        """Seconds that each port of `traffic` takes for it and for what is there, longest first."""
        return tuple(
            sorted(
                (
                    (self._total.get(port, 0) + size) * 8 / self._topology.link(port).bps
                    for port, size in self._loads(traffic).items()
                ),
                reverse=True,
            )
        )

    def _loads(self, traffic: Traffic) -> dict[PortId, float]:
        """The same as `Topology.loads`, but each pair is looked up only once: there are few pairs."""
        load: dict[PortId, float] = {}
        for pair, size in traffic.items():
            way = self._ways.get(pair)
            if way is None:
                way = self._ways[pair] = self._topology.loads({pair: 1.0})
            for port, share in way.items():
                load[port] = load.get(port, 0.0) + share * size
        return load
