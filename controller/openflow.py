"""Levels and paths as OpenFlow 1.3 rules. Pure: returns the messages, sends none.

The pipeline has two tables. `CLASSIFY` marks packets at a sender's NIC bridge only, when they come from its
host. A connection with a level gets that level's DSCP; everything else (acknowledgements, rendezvous) gets
the DSCP of CONTROL. `FORWARD` sends a packet along a shortest path. If several are equally short, a
connection has rules of its own for the path that was chosen by hash. Ports map DSCP to queues by themselves
(`testbed.emulation.queues`), so one rule at the NIC moves a connection on its whole path.
"""

import enum
import itertools
from collections.abc import Iterable, Mapping

import msgspec

from controller.ecmp import IP_TCP, pick
from controller.flow import Level, PortId
from controller.protocol import TcpConnection

CLASSIFY = 0
FORWARD = 1

ETH_IPV4 = 0x0800

_PRIORITY_FALLBACK = 0
_PRIORITY_DEFAULT = 10
_PRIORITY_CONNECTION = 100


def dscp_of(level: Level) -> int:
    """The DSCP that carries `level`: a class selector, from CS7 (56) for CONTROL to 0 for SCAVENGER."""
    return (7 - level) * 8


class Command(enum.Enum):
    ADD = "add"
    DELETE_ALL = "delete_all"


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The fields that a rule matches; None matches any value."""

    in_port: int | None = None
    eth_type: int | None = None
    eth_dst: str | None = None
    ip_proto: int | None = None
    ipv4_src: str | None = None
    ipv4_dst: str | None = None
    tcp_src: int | None = None
    tcp_dst: int | None = None


class FlowMod(msgspec.Struct, frozen=True, kw_only=True):
    """One rule change at one switch.

    A rule sets `dscp` first. Then the packet goes to table `goto`, or out of port `output`.
    """

    switch: str
    command: Command
    table: int = 0
    priority: int = 0
    match: Match = Match()
    dscp: int | None = None
    goto: int | None = None
    output: int | None = None


class Bridge(msgspec.Struct, frozen=True, kw_only=True):
    """A switch of the fabric: its datapath id, and the OpenFlow port towards each neighbour.

    `server` is set for a NIC bridge only: it is the host behind the bridge, on port `ports[server]`.
    """

    name: str
    dpid: int
    ports: dict[str, int]
    server: str | None = None


class Host(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    ip: str
    mac: str
    nic: str


class Wiring(msgspec.Struct, frozen=True, kw_only=True):
    """The fabric as the controller sees it.

    `paths["h1 h9"]` are the equal-cost shortest paths from server h1 to server h9. A path lists the
    topology's nodes from server to server, without the NIC bridges. `port_bps` are model bits/s.
    """

    hosts: dict[str, Host]
    bridges: dict[str, Bridge]
    paths: dict[str, tuple[tuple[str, ...], ...]]
    port_bps: dict[PortId, int]
    seed: int


def choose_path(wiring: Wiring, src: str, dst: str, key: str) -> tuple[str, ...]:
    """The path of a connection among the equal-cost ones. `key` stands for its TCP ports."""
    return pick(
        wiring.paths[f"{src} {dst}"],
        seed=wiring.seed,
        src_ip=wiring.hosts[src].ip,
        dst_ip=wiring.hosts[dst].ip,
        key=key,
    )


def ports_of(path: tuple[str, ...]) -> tuple[PortId, ...]:
    return tuple(f"{a}->{b}" for a, b in itertools.pairwise(path))


class RouteEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that the controller steers: its own level, and its own path if there are several."""

    name: str
    connection: TcpConnection
    src: str
    dst: str
    path: tuple[str, ...]
    level: Level


class RuleBook:
    """Every rule that the fabric should have. Methods return the changes and send nothing."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self._routes: dict[str, RouteEntry] = {}

    def level(self, name: str) -> Level:
        return self._routes[name].level

    def path(self, name: str) -> tuple[str, ...]:
        return self._routes[name].path

    def add(
        self,
        name: str,
        connection: TcpConnection,
        src: str,
        dst: str,
        *,
        rank: int | None = None,
        path_key: str | None = None,
    ) -> list[FlowMod]:
        """Steer a new connection from server `src`, whichever `rank` sends on it. Returns its path rules.

        It is at CONTROL until `set_level`. `path_key` is hashed for its path; by default, its `name` is.
        Raises `ValueError` if the name is taken.
        """
        if name in self._routes:
            raise ValueError(f"connection {name!r} is registered twice")
        route = RouteEntry(
            name=name,
            connection=connection,
            src=src,
            dst=dst,
            path=choose_path(self.wiring, src, dst, path_key or name),
            level=Level.CONTROL,
        )
        self._routes[name] = route
        return self._path_rules(route)

    def set_level(self, names: Iterable[str], level: Level) -> list[FlowMod]:
        """One FlowMod per connection whose level differs from `level`."""
        mods = []
        for name in names:
            route = self._routes[name]
            if route.level != level:
                route = msgspec.structs.replace(route, level=level)
                self._routes[name] = route
                mods.append(self._classify_rule(route))
        return mods

    def everything(self, switch: str) -> list[FlowMod]:
        """All rules of one switch, after one that empties its tables: for a switch that (re)connects."""
        mods = [FlowMod(switch=switch, command=Command.DELETE_ALL)]
        mods += self._base_rules(self.wiring.bridges[switch])
        for route in self._routes.values():
            mods += [mod for mod in self._path_rules(route) if mod.switch == switch]
            rule = self._classify_rule(route)
            if rule.switch == switch and route.level != Level.CONTROL:
                mods.append(rule)
        return mods

    def _base_rules(self, bridge: Bridge) -> list[FlowMod]:
        mods = [self._add(bridge, CLASSIFY, _PRIORITY_FALLBACK, Match(), goto=FORWARD)]
        if bridge.server is not None:
            host = self.wiring.hosts[bridge.server]
            (uplink,) = (port for node, port in bridge.ports.items() if node != bridge.server)
            from_host = Match(in_port=bridge.ports[bridge.server], eth_type=ETH_IPV4)
            mods += [
                self._add(
                    bridge,
                    CLASSIFY,
                    _PRIORITY_DEFAULT,
                    from_host,
                    dscp=dscp_of(Level.CONTROL),
                    goto=FORWARD,
                ),
                self._add(
                    bridge,
                    FORWARD,
                    _PRIORITY_DEFAULT,
                    Match(eth_dst=host.mac),
                    output=bridge.ports[bridge.server],
                ),
                self._add(bridge, FORWARD, _PRIORITY_FALLBACK, Match(), output=uplink),
            ]
            return mods
        for host in self.wiring.hosts.values():
            hops = self._next_hops(bridge.name, host.name)
            if hops:
                mods.append(
                    self._add(
                        bridge,
                        FORWARD,
                        _PRIORITY_DEFAULT,
                        Match(eth_dst=host.mac),
                        output=bridge.ports[hops[0]],
                    )
                )
        return mods

    def _next_hops(self, switch: str, dst: str) -> list[str]:
        """The nodes that follow `switch` on the shortest paths to `dst`, in order of their names."""
        hops = set()
        for pair, paths in self.wiring.paths.items():
            if pair.split(" ")[1] == dst:
                for path in paths:
                    if switch in path:
                        hops.add(path[path.index(switch) + 1])
        return sorted(hops)

    def _classify_rule(self, route: RouteEntry) -> FlowMod:
        nic = self.wiring.bridges[self.wiring.hosts[route.src].nic]
        match = self._five_tuple(route.connection, in_port=nic.ports[route.src])
        return self._add(nic, CLASSIFY, _PRIORITY_CONNECTION, match, dscp=dscp_of(route.level), goto=FORWARD)

    def _path_rules(self, route: RouteEntry) -> list[FlowMod]:
        """Rules at the switches where this connection has a choice of next hop."""
        mods = []
        for switch, hop in zip(route.path[1:-1], route.path[2:], strict=True):
            if len(self._next_hops_for(route, switch)) > 1:
                bridge = self.wiring.bridges[switch]
                mods.append(
                    self._add(
                        bridge,
                        FORWARD,
                        _PRIORITY_CONNECTION,
                        self._five_tuple(route.connection),
                        output=bridge.ports[hop],
                    )
                )
        return mods

    def _next_hops_for(self, route: RouteEntry, switch: str) -> set[str]:
        paths = self.wiring.paths[f"{route.src} {route.dst}"]
        return {path[path.index(switch) + 1] for path in paths if switch in path}

    @staticmethod
    def _five_tuple(connection: TcpConnection, in_port: int | None = None) -> Match:
        return Match(
            in_port=in_port,
            eth_type=ETH_IPV4,
            ip_proto=IP_TCP,
            ipv4_src=connection.src_ip,
            ipv4_dst=connection.dst_ip,
            tcp_src=connection.src_port,
            tcp_dst=connection.dst_port,
        )

    @staticmethod
    def _add(
        bridge: Bridge,
        table: int,
        priority: int,
        match: Match,
        *,
        dscp: int | None = None,
        goto: int | None = None,
        output: int | None = None,
    ) -> FlowMod:
        return FlowMod(
            switch=bridge.name,
            command=Command.ADD,
            table=table,
            priority=priority,
            match=match,
            dscp=dscp,
            goto=goto,
            output=output,
        )


def per_switch(mods: Iterable[FlowMod]) -> Mapping[str, list[FlowMod]]:
    """The changes of each switch, in order, so that one barrier per switch can follow them."""
    grouped: dict[str, list[FlowMod]] = {}
    for mod in mods:
        grouped.setdefault(mod.switch, []).append(mod)
    return grouped
