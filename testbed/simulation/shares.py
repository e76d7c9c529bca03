"""What the members of a group send in a collective: to which peers, and over which ports."""

from collections.abc import Mapping
from typing import NamedTuple

from controller.flow import PortId
from controller.lanes import load_of
from testbed.simulation.connections import Connections, Route
from workers.plan import Collective


class MemberShare(NamedTuple):
    """What one member sends: bytes to each peer and in all, the route to each peer, bytes on each port.

    `path` has the ports of `load`.
    """

    total: Mapping[int, int]
    size: int
    routes: Mapping[int, Route]
    load: dict[PortId, int]
    path: tuple[PortId, ...]


class Whole(NamedTuple):
    """What all members send together: bytes on each port, in all, and over the largest connection."""

    load: dict[PortId, int]
    size: int
    largest: int


class Shares:
    """Works out shares, and keeps them while they stay the same: the layers of a batch are alike."""

    def __init__(self, groups: Mapping[str, tuple[int, ...]], connections: Connections) -> None:
        self._groups = groups
        self._connections = connections
        self._members: dict[tuple[str, int, str], MemberShare] = {}
        self._wholes: dict[tuple[str, str], tuple[tuple[tuple[int, ...], ...], Whole]] = {}

    def of_member(self, step: Collective, index: int, total: Mapping[int, int]) -> MemberShare:
        """The share of member `index`, with `total[peer]` bytes to each peer.

        Totals are compared by identity: for an equal but different object, the share is worked out again.
        """
        key = step.group, index, step.label
        known = self._members.get(key)
        if known is None or known.total is not total or self._connections.by_flow:
            routes = self._routes(f"{step.id}.{index}", step, index, total)
            load = _load(total, routes)
            known = MemberShare(total, sum(total.values()), routes, load, tuple(load))
            self._members[key] = known
        return known

    def of_group(self, step: Collective) -> Whole:
        """The shares of the whole group of `step` together."""
        key = step.group, step.label
        known = self._wholes.get(key)
        if known is not None and known[0] == step.sizes and not self._connections.by_flow:
            return known[1]
        members = len(self._groups[step.group])
        load: dict[PortId, int] = {}
        largest = size = 0
        for index in range(members):
            sizes = step.sent_by(index, members)
            routes = self._routes(step.id, step, index, sizes)
            for peer, sent in sizes.items():
                size += sent
                if routes[peer].path:
                    largest = max(largest, sent)
            for port, sent in _load(sizes, routes).items():
                load[port] = load.get(port, 0) + sent
        whole = Whole(load, size, largest)
        self._wholes[key] = step.sizes, whole
        return whole

    def _routes(
        self, flow: str, step: Collective, index: int, sizes: Mapping[int, int]
    ) -> Mapping[int, Route]:
        if self._connections.by_flow:
            return self._connections.of_share(flow, step.group, index, sizes)
        return self._connections.of_member(step.group, index)


def _load(sizes: Mapping[int, int], routes: Mapping[int, Route]) -> dict[PortId, int]:
    return load_of(sizes, {peer: route.path for peer, route in routes.items()})
