"""The paths of connections, whether they belong to lanes, members of a group or single flows."""

from collections.abc import Iterable, Mapping, Sequence

from controller.ecmp import connection_key, member_key
from controller.flow import PortId, Stage
from controller.lanes import lane_name
from testbed.job import Job
from testbed.simulation.links.network import FluidNetwork
from testbed.simulation.paths import Busy, Connection, Hash, make_path_choice
from testbed.topology import server_ip


def ports_of_network(job: Job) -> dict[PortId, int]:
    """The ports of the simulated network, in bits/s. With `separate`, each stage has ports of its own."""
    if not job.simulation.separate:
        return {link.id: link.bps for link in job.topology.links}
    return {separate(stage, link.id): link.bps for stage in Stage for link in job.topology.links}


def separate(stage: Stage, port: PortId) -> PortId:
    """The name of a port that only this stage uses."""
    return f"{stage.value} {port}"


class Route:
    """A path, the names and numbers of its ports in the network, and the bytes that took it so far.

    `narrowest` is the rate of its narrowest port, in bytes per nanosecond; None if it has no ports.
    """

    __slots__ = ("carried", "names", "narrowest", "path", "ports")

    def __init__(
        self,
        path: tuple[PortId, ...],
        names: tuple[PortId, ...],
        ports: tuple[int, ...],
        narrowest: float | None,
    ) -> None:
        self.path = path
        self.names = names
        self.ports = ports
        self.narrowest = narrowest
        self.carried = 0.0


class Connections:
    """Finds the route of a connection between two ranks.

    With the path choice `hash`, a connection keeps one route, and `by_flow` is false. Any other choice
    picks a path for each flow when it is submitted, because the scheduler needs to know which ports it
    loads.
    """

    def __init__(self, job: Job, network: FluidNetwork, busy: Busy) -> None:
        self._placement = job.placement
        self._topology = job.topology
        self._network = network
        self._busy = busy
        self._hash = Hash(job.seed)
        self._choice = make_path_choice(job.simulation.paths, job.seed)
        self.by_flow = not isinstance(self._choice, Hash)
        self._ip = {name: server_ip(i) for i, name in enumerate(job.topology.servers)}
        self._separate = job.simulation.separate
        self._routes: dict[tuple[PortId, ...], Route] = {}
        self._members: dict[tuple[str, int], dict[int, Route]] = {}

    def routes(self) -> Iterable[Route]:
        """All routes that have been used so far."""
        return self._routes.values()

    def of_lane(self, stage: Stage, src: int, dst: int, number: int) -> Route:
        """The route of lane `number` between two ranks."""
        return self._hashed(stage, src, dst, _lane_key(stage, src, dst, number))

    def of_flow(self, flow: str, stage: Stage, src: int, dst: int, size: int) -> Route:
        """The route of one transfer, from the path choice."""
        return self._chosen(flow, stage, src, dst, size, _lane_key(stage, src, dst, 0))

    def of_member(self, group: str, index: int) -> dict[int, Route]:
        """The route from member `index` of `group` to each peer."""
        known = self._members.get((group, index))
        if known is None:
            members = self._placement.groups[group]
            known = self._members[group, index] = {
                peer: self._hashed(
                    Stage.COLLECTIVE, members[index], dst, self._key(group, members[index], dst)
                )
                for peer, dst in enumerate(members)
                if peer != index
            }
        return known

    def of_share(self, flow: str, group: str, index: int, sizes: Mapping[int, int]) -> dict[int, Route]:
        """The route to each peer for one share of a collective, from the path choice."""
        members = self._placement.groups[group]
        return {
            peer: self._chosen(
                flow,
                Stage.COLLECTIVE,
                members[index],
                members[peer],
                size,
                self._key(group, members[index], members[peer]),
            )
            for peer, size in sizes.items()
        }

    def _key(self, group: str, src: int, dst: int) -> str:
        return member_key(group, src, self._placement.server_of(dst))

    def _paths(self, src: int, dst: int) -> Sequence[tuple[PortId, ...]]:
        return self._topology.paths(self._placement.node_of(src), self._placement.node_of(dst))

    def _connection(self, flow: str, stage: Stage, src: int, dst: int, size: int, key: str) -> Connection:
        server_of = self._placement.server_of
        return Connection(
            src_ip=self._ip[server_of(src)],
            dst_ip=self._ip[server_of(dst)],
            key=key,
            flow=flow,
            stage=stage,
            size_bytes=size,
        )

    def _hashed(self, stage: Stage, src: int, dst: int, key: str) -> Route:
        paths = self._paths(src, dst)
        connection = self._connection("", stage, src, dst, 0, key)
        chosen = self._hash.choose(paths, connection, self._busy) if len(paths) > 1 else 0
        return self._route(stage, paths[chosen])

    def _chosen(self, flow: str, stage: Stage, src: int, dst: int, size: int, key: str) -> Route:
        paths = self._paths(src, dst)
        if len(paths) == 1:
            return self._route(stage, paths[0])
        connection = self._connection(flow, stage, src, dst, size, key)
        return self._route(stage, paths[self._choice.choose(paths, connection, self._busy)])

    def _route(self, stage: Stage, path: tuple[PortId, ...]) -> Route:
        names = tuple(separate(stage, port) for port in path) if self._separate else path
        route = self._routes.get(names)
        if route is None:
            numbers = self._network.ports(names)
            narrowest = min(map(self._network.capacity, numbers), default=None)
            route = self._routes[names] = Route(path, names, numbers, narrowest)
        return route


def _lane_key(stage: Stage, src: int, dst: int, number: int) -> str:
    return connection_key(lane_name(stage, src, dst, number))
