"""A topology: its servers, switches and directed links, and the paths between the servers' GPUs.

A link `a->b` is a port of `a`, where a queue can build up. Links are the uplinks of servers (`h1->s1`), the
ports of switches and, if a topology has them, the links inside servers.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S
from testbed.topology.routes import (
    EqualCostPaths,
    Neighbours,
    PathsByNic,
    PortPath,
    RoutesTo,
    switch_neighbours,
)
from testbed.topology.server import ServerShape

_MOST_ENDS: Final = 1 << 16
"""Pairs of endpoints whose ports are kept."""


class TopologyKind(enum.StrEnum):
    STAR = "star"
    LEAF_SPINE = "leaf-spine"
    FAT_TREE = "fat-tree"
    RAIL_OPTIMISED = "rail-optimised"
    FILE = "file"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A directed link of `bps` model bits per second, which bytes take `latency_ns` to cross."""

    src: str
    dst: str
    bps: int
    latency_ns: int = 0

    @property
    def id(self) -> PortId:
        return f"{self.src}->{self.dst}"


class _Attachment(NamedTuple):
    """How an endpoint is attached by one NIC: its server, NIC and switch, and the ports up to it and down.

    `over` and `back` are the ports to the server's NVSwitch and from it, none without an NVSwitch.
    """

    server: str
    nic: int
    switch: str
    up: PortPath
    down: PortPath
    over: PortPath
    back: PortPath


class _Ends(NamedTuple):
    """The ports of a pair of endpoints but those between switches.

    `inside` is their way in one server. Else `by_nic` has, for each NIC, the ports up from the one and down
    to the other, and the first and the last switch between these.
    """

    inside: PortPath = ()
    by_nic: tuple[tuple[PortPath, str, str], ...] = ()


class _Entering:
    """Bytes that cross the switches, by the last switch on their way and then by the first."""

    def __init__(self) -> None:
        self.by_exit: dict[str, dict[str, float]] = {}

    def add(self, enters: str, leaves: str, size_bytes: float) -> None:
        if enters != leaves:
            sources = self.by_exit.setdefault(leaves, {})
            sources[enters] = sources.get(enters, 0.0) + size_bytes


class Topology(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Servers `h1` .. `hN`, all of one `shape`, switches, and directed links between them.

    Links come in pairs, one each way, and every NIC is wired to one switch. With `pxn`, traffic to a NIC
    with another number than the sender's own first crosses the sender's NVSwitch, to the GPU whose NIC has
    that number (NCCL calls this PXN). That needs NICs for each GPU and an NVSwitch.

    A GPU with several NICs uses all of them: its i-th one for traffic to the i-th one of the other GPU.
    """

    kind: TopologyKind
    servers: tuple[str, ...]
    switches: tuple[str, ...]
    links: tuple[Link, ...]
    shape: ServerShape = ServerShape()
    pxn: bool = False

    def link(self, port: PortId) -> Link:
        """Return the link called `port`. Raises `KeyError` if there is none."""
        return self._links_by_id[port]

    def neighbours(self, node: str) -> tuple[str, ...]:
        return tuple(self._adjacent[node])

    def server_of(self, node: str) -> str | None:
        """Return the server that `node` is, or is a part of; None for a switch."""
        server = node.partition(".")[0]
        return server if server in self._server_names else None

    def endpoint(self, server: str, gpu: int) -> str:
        """Return the node of GPU `gpu` (from 0) of `server`, which is `server` itself if it is plain.

        Raises `ValueError` if the server has no such GPU.
        """
        gpus = self.shape.gpus
        if gpu < 0 or (gpus is not None and gpu >= gpus):
            raise ValueError(f"{server} has no GPU {gpu}, only {gpus}")
        return self.shape.endpoint(server, gpu)

    def latency_of(self, path: PortPath) -> int:
        """The model ns from when a byte leaves on `path` to when it arrives."""
        return sum(self.link(port).latency_ns for port in path) if self._has_latency else 0

    def latency_s(self, pairs: Iterable[tuple[str, str]]) -> float:
        """The longest latency, in model seconds, between any of `pairs` of endpoints."""
        if not self._has_latency:
            return 0.0
        return max((self.latency_of(self.paths(src, dst)[0]) for src, dst in pairs), default=0) / NS_PER_S

    def with_latency(self, latency_ns: int) -> "Topology":
        """The same topology with this latency on each link to or between switches, none inside servers."""
        switches = frozenset(self.switches)
        return msgspec.structs.replace(
            self,
            links=tuple(
                msgspec.structs.replace(link, latency_ns=latency_ns)
                if link.src in switches or link.dst in switches
                else link
                for link in self.links
            ),
        )

    def joined(self, switch: str) -> frozenset[str]:
        """The switches that `switch` has a path to over switches, itself included."""
        return frozenset(self._routes_to(switch).reached)

    def nic_bps(self, endpoint: str) -> tuple[int, ...]:
        """The rates of the NICs of an endpoint, in model bits/s out of the server."""
        return tuple(self.link(a.up[-1]).bps for a in self._attached(endpoint))

    def paths(self, src: str, dst: str) -> Sequence[PortPath]:
        """Return all equal-cost shortest paths between two endpoints, each as its ports, in a fixed order.

        GPUs of one server have one path, over the NVSwitch. It is empty without an NVSwitch, and from a
        node to itself: such traffic waits for nothing. Raises `ValueError` if there is no path or an
        endpoint is unknown.
        """
        senders, receivers = self._attached(src), self._attached(dst)
        if senders[0].server == receivers[0].server:
            return (_inside(senders[0], receivers[0]),)
        by_nic = []
        for a, b in zip(senders, receivers, strict=True):
            up, switch = self._leaving(a, b.nic)
            by_nic.append(EqualCostPaths(up, switch, self._routes_to(b.switch), b.down))
        return by_nic[0] if len(by_nic) == 1 else PathsByNic(by_nic)

    def loads(self, traffic: Mapping[tuple[str, str], float]) -> dict[PortId, float]:
        """Return the bytes on every port that `traffic` crosses: bytes by (source, destination) endpoint.

        The NICs and the paths of a pair take equal shares of its bytes. Raises `ValueError` as `paths` does.
        """
        load: dict[PortId, float] = {}
        entering = _Entering()
        nics = self.shape.nics_of_a_gpu
        for pair, size_bytes in traffic.items():
            ends = self._ends.get(pair) or self._ends_of(pair)
            _add(load, ends.inside, size_bytes)
            for ports, enters, leaves in ends.by_nic:
                _add(load, ports, size_bytes / nics)
                entering.add(enters, leaves, size_bytes / nics)
        self._spread(entering, load)
        return load

    def even_loads(
        self, senders: Mapping[str, int], receivers: Mapping[str, int], size_bytes: float
    ) -> dict[PortId, float]:
        """Return the bytes on every port if all pairs of a sender and a receiver share `size_bytes` evenly.

        `senders` and `receivers` give the number of ranks at each endpoint. The result equals that of
        `loads` for all pairs, but no pair is visited: the way depends on the receiver's switch, with `pxn`
        also on its NIC, and not on the endpoint behind it. Raises `ValueError` as `paths` does.
        """
        whole = size_bytes / (sum(senders.values()) * sum(receivers.values()))
        each = whole / self.shape.nics_of_a_gpu
        load: dict[PortId, float] = {}
        entering = _Entering()
        sent: dict[str, int] = {}
        behind: dict[tuple[int, str, int], int] = {}
        at_home: dict[str, dict[str, int]] = {}
        for src, ranks in senders.items():
            server = self._attached(src)[0].server
            sent[server] = sent.get(server, 0) + ranks
        for dst, ranks in receivers.items():
            for i, b in enumerate(self._attached(dst)):
                at_home.setdefault(b.server, {})[dst] = ranks
                behind[i, b.switch, b.nic] = behind.get((i, b.switch, b.nic), 0) + ranks
                _add(load, b.down, each * ranks * (sum(senders.values()) - sent.get(b.server, 0)))
        for src, ranks in senders.items():
            ways = self._attached(src)
            away = dict(behind)
            for dst, neighbours in at_home.get(ways[0].server, {}).items():
                for i, b in enumerate(self._attached(dst)):
                    away[i, b.switch, b.nic] -= neighbours
                _add(load, _inside(ways[0], self._attached(dst)[0]), whole * ranks * neighbours)
            for (i, leaves, nic), others in away.items():
                if others:
                    up, enters = self._leaving(ways[i], nic)
                    _add(load, up, each * ranks * others)
                    entering.add(enters, leaves, each * ranks * others)
        self._spread(entering, load)
        return load

    # --- the way of a pair ----------------------------------------------------------------------

    def _leaving(self, a: _Attachment, nic: int) -> tuple[PortPath, str]:
        """The ports from `a` to the first switch towards NIC `nic` of another server, and that switch."""
        if not self.pxn or a.nic == nic:
            return a.up, a.switch
        gpu = self.shape.gpu_of(nic)
        b = self._attached(self.shape.endpoint(a.server, gpu))[self.shape.nics_of(gpu).index(nic)]
        return _inside(a, b) + b.up, b.switch

    def _ends_of(self, pair: tuple[str, str]) -> _Ends:
        senders, receivers = self._attached(pair[0]), self._attached(pair[1])
        if senders[0].server == receivers[0].server:
            ends = _Ends(inside=_inside(senders[0], receivers[0]))
        else:
            by_nic = []
            for a, b in zip(senders, receivers, strict=True):
                up, switch = self._leaving(a, b.nic)
                by_nic.append((up + b.down, switch, b.switch))
            ends = _Ends(by_nic=tuple(by_nic))
        if len(self._ends) == _MOST_ENDS:
            self._ends.clear()
        self._ends[pair] = ends
        return ends

    def _attached(self, endpoint: str) -> tuple[_Attachment, ...]:
        """How an endpoint is attached, by each of its NICs."""
        try:
            return self._attachments[endpoint]
        except KeyError:
            raise ValueError(f"no path: {endpoint} is not an endpoint of this {self.kind}") from None

    def _spread(self, entering: _Entering, load: dict[PortId, float]) -> None:
        for switch, sources in entering.by_exit.items():
            self._routes_to(switch).spread(sources, load)

    def _routes_to(self, switch: str) -> RoutesTo:
        routes = self._routes.get(switch)
        if routes is None:
            routes = self._routes[switch] = RoutesTo(switch, self._switch_neighbours)
        return routes

    # --- worked out once ------------------------------------------------------------------------

    @cached_property
    def _has_latency(self) -> bool:
        return any(link.latency_ns for link in self.links)

    @cached_property
    def _links_by_id(self) -> dict[PortId, Link]:
        return {link.id: link for link in self.links}

    @cached_property
    def _server_names(self) -> frozenset[str]:
        return frozenset(self.servers)

    @cached_property
    def _ports(self) -> dict[tuple[str, str], PortId]:
        return {(link.src, link.dst): port for port, link in self._links_by_id.items()}

    @cached_property
    def _adjacent(self) -> dict[str, list[str]]:
        adjacent: dict[str, list[str]] = {node: [] for node in (*self.servers, *self.switches)}
        for link in self.links:
            adjacent.setdefault(link.src, []).append(link.dst)
        return adjacent

    @cached_property
    def _switch_neighbours(self) -> Neighbours:
        return switch_neighbours(
            self.switches, ((src, dst, port) for (src, dst), port in self._ports.items())
        )

    @cached_property
    def _routes(self) -> dict[str, RoutesTo]:
        return {}

    @cached_property
    def _ends(self) -> dict[tuple[str, str], _Ends]:
        """Of pairs that were asked about, since most are asked about again."""
        return {}

    @cached_property
    def _attachments(self) -> dict[str, tuple[_Attachment, ...]]:
        """Attachments by endpoint. GPUs without links of their own share the endpoint of their NIC."""
        switches = frozenset(self.switches)
        attachments: dict[str, tuple[_Attachment, ...]] = {}
        for server in self.servers:
            for gpu in range(self.shape.separate_gpus):
                endpoint = self.shape.endpoint(server, gpu)
                attachments[endpoint] = tuple(
                    self._attachment(server, gpu, number, switches) for number in self.shape.nics_of(gpu)
                )
        return attachments

    def _attachment(self, server: str, gpu: int, number: int, switches: frozenset[str]) -> _Attachment:
        """How GPU `gpu` of `server` is attached by NIC `number`."""
        endpoint, nic = self.shape.endpoint(server, gpu), self.shape.nic(server, number)
        (switch,) = (node for node in self._adjacent[nic] if node in switches)
        up: PortPath = (self._ports[nic, switch],)
        down: PortPath = (self._ports[switch, nic],)
        if self.shape.pcie_bps is not None:
            pcie = self.shape.pcie_end(server, gpu)
            up, down = (self._ports[endpoint, pcie], *up), (*down, self._ports[pcie, endpoint])
        over: PortPath = ()
        back: PortPath = ()
        if self.shape.nvlink_bps is not None:
            nvswitch = self.shape.nvswitch(server)
            over, back = (self._ports[endpoint, nvswitch],), (self._ports[nvswitch, endpoint],)
        return _Attachment(server, number, switch, up, down, over, back)


def _inside(a: _Attachment, b: _Attachment) -> PortPath:
    """The ports between two endpoints of a server; none from an endpoint to itself."""
    return () if a.over == b.over else a.over + b.back


def _add(load: dict[PortId, float], ports: PortPath, size_bytes: float) -> None:
    for port in ports:
        load[port] = load.get(port, 0.0) + size_bytes


def server_ip(index: int) -> str:
    """Return the address of server `index` (from 0) in 10.0.0.0/16."""
    return f"10.0.{index // 250}.{index % 250 + 1}"
