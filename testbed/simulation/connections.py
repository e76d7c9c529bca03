"""The paths of connections, whether they belong to lanes, members of a group or single flows."""

from collections.abc import Mapping, Sequence

from controller.ecmp import connection_key, member_key
from controller.flow import SERVING_STAGES, PortId, Stage
from controller.lanes import lane_name
from controller.units import NS_PER_S
from testbed.job import Job
from testbed.simulation._core import Core
from testbed.simulation.paths import Connection, Hash, make_path_choice
from testbed.topology import server_ip


def ports_of_network(job: Job) -> dict[PortId, int]:
    """The ports of the simulated network, in bits/s. With `separate`, each stage has ports of its own."""
    if not job.simulation.separate:
        return {link.id: link.bps for link in job.topology.links}
    return {separate(stage, link.id): link.bps for stage in stages_of(job) for link in job.topology.links}


def stages_of(job: Job) -> tuple[Stage, ...]:
    """The stages that flows of `job` may have, in the order of `Stage`."""
    flows = {flow.transfer.stage for flow in job.flows}
    background = job.background is not None or Stage.BACKGROUND in flows
    return tuple(Stage) if background else SERVING_STAGES


def ordered_ports(job: Job) -> list[int]:
    """Whether each port of the network keeps an exact order (1) or not (0). Empty without `hybrid`.

    The ports of a server are all whose sender is in it: its NICs, and what is inside of it.
    """
    if not job.simulation.hybrid:
        return []
    switches = set(job.topology.switches)
    ordered = [int(link.src not in switches) for link in job.topology.links]
    return ordered * (len(stages_of(job)) if job.simulation.separate else 1)


def separate(stage: Stage, port: PortId) -> PortId:
    """The name of a port that only this stage uses."""
    return f"{stage.value} {port}"


Route = int
"""The number of a route in the compiled core."""

NO_ROUTE = -1

_STAGES = tuple(Stage)


class Connections:
    """Finds the route of a connection between two ranks.

    With the path choice `hash`, a connection keeps one route, and `by_flow` is false. Any other choice
    picks a path for each flow when it is submitted, because the scheduler needs to know which ports it
    loads.
    """

    def __init__(self, job: Job) -> None:
        self._placement = job.placement
        self._topology = job.topology
        self._hash = Hash(job.seed)
        self._choice = make_path_choice(job.simulation.paths, job.seed)
        self.by_flow = not isinstance(self._choice, Hash)
        self._ip = {name: server_ip(i) for i, name in enumerate(job.topology.servers)}
        self._links = {link.id: number for number, link in enumerate(job.topology.links)}
        self._separate = job.simulation.separate
        self._core: Core | None = None
        self._routes: dict[tuple[int, tuple[PortId, ...]], Route] = {}

    def serve(self, core: Core) -> None:
        """Give routes to `core` from now on."""
        self._core = core

    def of_lanes(self, stage: Stage, src: int, dst: int, count: int) -> list[Route]:
        """The routes of the first `count` lanes between two ranks."""
        paths = self._paths(src, dst)
        if len(paths) == 1:
            return [self._route(stage, paths[0])] * count
        return [self._hashed(stage, src, dst, _lane_key(stage, src, dst, i)) for i in range(count)]

    def of_flow(self, flow: str, stage: Stage, src: int, dst: int, size: int) -> Route:
        """The route of one transfer, from the path choice."""
        return self._chosen(flow, stage, src, dst, size, _lane_key(stage, src, dst, 0))

    def of_member(self, group: str, index: int) -> list[Route]:
        """The route from member `index` of `group` to each member; `NO_ROUTE` to itself."""
        members = self._placement.groups[group]
        src = members[index]
        return [
            NO_ROUTE
            if peer == index
            else self._hashed(Stage.COLLECTIVE, src, dst, self._key(group, src, dst))
            for peer, dst in enumerate(members)
        ]

    def of_share(self, flow: str, group: str, index: int, sizes: Mapping[int, int]) -> list[Route]:
        """The same for one share of a collective, from the path choice, to the peers that `sizes` names."""
        members = self._placement.groups[group]
        src = members[index]
        routes = [NO_ROUTE] * len(members)
        for peer, size in sizes.items():
            dst = members[peer]
            key = self._key(group, src, dst)
            routes[peer] = self._chosen(flow, Stage.COLLECTIVE, src, dst, size, key)
        return routes

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

    def _busy(self, port: PortId) -> float:
        assert self._core is not None
        return self._core.busy_ns(self._links[port]) / NS_PER_S

    def _route(self, stage: Stage, path: tuple[PortId, ...]) -> Route:
        apart = _STAGES.index(stage) * len(self._links) if self._separate else 0
        route = self._routes.get((apart, path))
        if route is None:
            assert self._core is not None
            links = [self._links[port] for port in path]
            route = self._core.add_route(
                links, [apart + link for link in links], self._topology.latency_of(path)
            )
            self._routes[apart, path] = route
        return route


def _lane_key(stage: Stage, src: int, dst: int, number: int) -> str:
    return connection_key(lane_name(stage, src, dst, number))
