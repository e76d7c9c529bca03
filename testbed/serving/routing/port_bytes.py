"""The bytes still to come on each port, as far as the serving system knows."""

from collections.abc import Callable, Hashable, Mapping

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

    def put(self, key: Hashable, traffic: Traffic) -> None:
        """Count `traffic` as `key`, instead of what was there as `key`."""
        self.put_load(key, self._loads(traffic))

    def put_load(self, key: Hashable, load: Mapping[PortId, float]) -> None:
        """The same for bytes by port."""
        self.take_off(key)
        part = self._parts[key] = {port: round(size) for port, size in load.items()}
        for port, size in part.items():
            self._total[port] = self._total.get(port, 0) + size

    def take_off(self, key: Hashable) -> None:
        """Take the traffic of `key` off, if it is there."""
        for port, size in self._parts.pop(key, {}).items():
            self._total[port] -= size

    def seconds(self, traffic: Traffic, busy: Callable[[PortId], float] | None = None) -> tuple[float, ...]:
        """Seconds that each port of `traffic` takes for it and for what is there, longest first.

        `busy` says how long a port takes for what is there; by default, what was put there counts.
        """
        before_s = self.busy_s if busy is None else busy
        return tuple(
            sorted(
                (
                    before_s(port) + size * 8 / self._topology.link(port).bps
                    for port, size in self._loads(traffic).items()
                ),
                reverse=True,
            )
        )

    def busy_s(self, port: PortId) -> float:
        """Seconds that `port` takes for what is there."""
        return self._total.get(port, 0) * 8 / self._topology.link(port).bps

    def busiest_s(self, key: Hashable) -> float:
        """Seconds of the busiest port that what is there as `key` crosses; 0 if there is nothing."""
        return max(map(self.busy_s, self._parts.get(key, {})), default=0.0)

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
