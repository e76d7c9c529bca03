"""Shortest paths between switches, counted instead of listed.

A fat-tree of 16 pods has 64 shortest paths between two servers of different pods, and thousands of pairs of
edge switches: too many to list. Instead, for each destination switch, every other switch has the number of
shortest paths that lead on from it through each neighbour. That is enough to count the paths of a pair, to
make the i-th of them, and to spread a load over them evenly.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import overload

from controller.flow import PortId

PortPath = tuple[PortId, ...]

Neighbours = Mapping[str, Mapping[str, PortId]]
"""For every switch, the switches next to it and the ports towards them."""


@dataclass(frozen=True, slots=True)
class _Hops:
    """The next switches on the shortest paths from a switch, sorted by name, and the ports towards them.

    `counts[i]` paths lead through `switches[i]`, of `count` in all. Path numbers through it begin at
    `first[i]`.
    """

    switches: tuple[str, ...]
    ports: tuple[PortId, ...]
    counts: tuple[int, ...]
    first: tuple[int, ...]
    count: int


class RoutesTo:
    """The shortest paths from every switch to switch `target`, sorted by the names of their switches."""

    __slots__ = ("_distance", "_hops", "_neighbours", "_target")

    def __init__(self, target: str, neighbours: Neighbours) -> None:
        self._target = target
        self._neighbours = neighbours
        self._distance = _distances(target, neighbours)
        self._hops: dict[str, _Hops] = {}

    @property
    def reached(self) -> Iterable[str]:
        """The switches that lead to the target."""
        return self._distance.keys()

    def count(self, switch: str) -> int:
        """Return how many shortest paths lead from `switch`; from the target itself 1, the empty one.

        Raises `ValueError` if there is none.
        """
        if switch == self._target:
            return 1
        return self._hops_from(switch).count

    def path(self, switch: str, number: int) -> PortPath:
        """Return path `number` (from 0, below `count`) from `switch`."""
        ports: list[PortId] = []
        while switch != self._target:
            hops = self._hops_from(switch)
            way = bisect_right(hops.first, number) - 1
            number -= hops.first[way]
            ports.append(hops.ports[way])
            switch = hops.switches[way]
        return tuple(ports)

    def spread(self, sources: Mapping[str, float], load: dict[PortId, float]) -> None:
        """Spread the bytes that enter at each switch of `sources`; add what each port carries to `load`.

        All paths from a switch take the same share. Raises `ValueError` if there is no path.
        """
        far = {switch: self._distance_from(switch) for switch in sources}
        farthest = max(far.values())
        waiting: list[dict[str, float]] = [{} for _ in range(farthest + 1)]
        for switch, size_bytes in sources.items():
            waiting[far[switch]][switch] = size_bytes
        for distance in range(farthest, 0, -1):
            nearer = waiting[distance - 1]
            for switch, size_bytes in waiting[distance].items():
                hops = self._hops_from(switch)
                for there, port, count in zip(hops.switches, hops.ports, hops.counts, strict=True):
                    share = size_bytes * count / hops.count
                    load[port] = load.get(port, 0.0) + share
                    nearer[there] = nearer.get(there, 0.0) + share

    def _hops_from(self, switch: str) -> _Hops:
        hops = self._hops.get(switch)
        if hops is None:
            hops = self._hops[switch] = self._found(switch)
        return hops

    def _distance_from(self, switch: str) -> int:
        distance = self._distance.get(switch)
        if distance is None:
            raise ValueError(f"no path from {switch} to {self._target}")
        return distance

    def _found(self, switch: str) -> _Hops:
        nearer = self._distance_from(switch) - 1
        ways = [
            (there, port)
            for there, port in sorted(self._neighbours[switch].items())
            if self._distance.get(there) == nearer
        ]
        counts = tuple(self.count(there) for there, _ in ways)
        ends = tuple(accumulate(counts))
        return _Hops(
            switches=tuple(there for there, _ in ways),
            ports=tuple(port for _, port in ways),
            counts=counts,
            first=(0, *ends[:-1]),
            count=ends[-1],
        )


class EqualCostPaths(Sequence[PortPath]):
    """All shortest paths from one node to another, in a fixed order. Each is made when it is indexed.

    A path is `up`, the ports to the first switch, then a shortest path between switches, then `down`.
    """

    __slots__ = ("_count", "_down", "_routes", "_switch", "_up")

    def __init__(self, up: PortPath, switch: str, routes: RoutesTo, down: PortPath) -> None:
        self._up = up
        self._switch = switch
        self._routes = routes
        self._down = down
        self._count = routes.count(switch)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> PortPath: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PortPath, ...]: ...
    def __getitem__(self, index: int | slice) -> PortPath | tuple[PortPath, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(self._count)[index])
        number = range(self._count)[index]
        return self._up + self._routes.path(self._switch, number) + self._down


class PathsByNic(Sequence[PortPath]):
    """The equal-cost paths between two GPUs by each of their NICs, one NIC after the other."""

    __slots__ = ("_by_nic", "_ends")

    def __init__(self, by_nic: Sequence[EqualCostPaths]) -> None:
        self._by_nic = by_nic
        self._ends = tuple(accumulate(map(len, by_nic)))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> PortPath: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PortPath, ...]: ...
    def __getitem__(self, index: int | slice) -> PortPath | tuple[PortPath, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(len(self))[index])
        number = range(len(self))[index]
        nic = bisect_right(self._ends, number)
        paths = self._by_nic[nic]
        return paths[number - self._ends[nic] + len(paths)]


def _distances(target: str, neighbours: Neighbours) -> dict[str, int]:
    """The number of links to `target` from every switch that reaches it. Switches are wired both ways."""
    distance = {target: 0}
    frontier = deque([target])
    while frontier:
        here = frontier.popleft()
        for there in neighbours[here]:
            if there not in distance:
                distance[there] = distance[here] + 1
                frontier.append(there)
    return distance


def switch_neighbours(switches: Iterable[str], links: Iterable[tuple[str, str, PortId]]) -> Neighbours:
    """Return which `switches` are neighbours, and by which ports; links are (source, destination, port)."""
    neighbours: dict[str, dict[str, PortId]] = {switch: {} for switch in switches}
    for src, dst, port in links:
        if src in neighbours and dst in neighbours:
            neighbours[src][dst] = port
    return neighbours
