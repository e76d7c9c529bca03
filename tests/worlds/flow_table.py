"""An OpenFlow 1.3 fabric in memory: what the rules of the controller do to a packet, without a switch.

It is as strict as a switch: a match on TCP ports must also match TCP over IPv4, a rule can only go on to a
later table, a packet never leaves where it came in, and a packet that no rule matches is dropped. Two rules
of one priority that match the same packet are an error here, because OpenFlow does not define which of them
applies.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from controller.openflow import ETH_IPV4, IP_TCP, Bridge, Command, FlowMod, Host, Match, Wiring
from controller.protocol import TcpConnection
from testbed.topology import Topology

_MOST_HOPS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    eth_dst: str
    ipv4_src: str
    ipv4_dst: str
    tcp_src: int
    tcp_dst: int
    dscp: int = 0
    eth_type: int = ETH_IPV4
    ip_proto: int = IP_TCP


@dataclass(frozen=True, slots=True)
class Journey:
    """The way of a packet. `nodes` are in order, without NIC bridges; `dscps[i]` is the DSCP that it left
    the i-th bridge with, NIC bridges included. `arrived` is False if a switch dropped it."""

    nodes: tuple[str, ...]
    dscps: tuple[int, ...]
    arrived: bool


class RefusedRule(ValueError):
    """A rule that a real switch answers with an error message."""


class FlowTable:
    """The tables of one switch."""

    def __init__(self) -> None:
        self.rules: dict[tuple[int, int, Match], FlowMod] = {}

    def apply(self, mod: FlowMod) -> None:
        """Apply a rule. Raises `RefusedRule` if OpenFlow 1.3 does not allow it."""
        place = (mod.table, mod.priority, mod.match)
        match mod.command:
            case Command.DELETE_ALL:
                self.rules.clear()
            case Command.ADD:
                _check(mod)
                self.rules[place] = mod

    def process(self, packet: Packet, in_port: int) -> tuple[Packet, int | None]:
        """Return the packet as it leaves, and the port it leaves by; None if it is dropped."""
        table = 0
        while True:
            rule = self._lookup(table, packet, in_port)
            if rule is None:
                return packet, None
            if rule.dscp is not None:
                packet = replace(packet, dscp=rule.dscp)
            if rule.output is not None:
                return packet, None if rule.output == in_port else rule.output
            if rule.goto is None:
                return packet, None
            table = rule.goto

    def _lookup(self, table: int, packet: Packet, in_port: int) -> FlowMod | None:
        hits = [r for r in self.rules.values() if r.table == table and _matches(r.match, packet, in_port)]
        top = max((rule.priority for rule in hits), default=None)
        best = [rule for rule in hits if rule.priority == top]
        if len(best) > 1:
            raise RefusedRule(f"two rules of priority {top} match {packet}: {best}")
        return best[0] if best else None


def _check(mod: FlowMod) -> None:
    match = mod.match
    layer3 = (match.ipv4_src, match.ipv4_dst, match.ip_proto)
    if any(field is not None for field in layer3) and match.eth_type != ETH_IPV4:
        raise RefusedRule(f"a match on IP fields has to match eth_type: {mod}")
    if (match.tcp_src is not None or match.tcp_dst is not None) and match.ip_proto != IP_TCP:
        raise RefusedRule(f"a match on TCP ports has to match ip_proto: {mod}")
    if mod.dscp is not None and match.eth_type != ETH_IPV4:
        raise RefusedRule(f"only a rule for IPv4 can set a DSCP: {mod}")
    if mod.dscp is not None and not 0 <= mod.dscp < 64:
        raise RefusedRule(f"a DSCP has six bits: {mod}")
    if mod.goto is not None and mod.goto <= mod.table:
        raise RefusedRule(f"a rule can only go to a later table: {mod}")


def _matches(match: Match, packet: Packet, in_port: int) -> bool:
    if match.in_port not in (None, in_port):
        return False
    fields = (name for name in match.__struct_fields__ if name != "in_port")
    return all(getattr(match, name) in (None, getattr(packet, name)) for name in fields)


class Fabric:
    """The switches of a wiring with their tables, connected as the wiring says."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self.tables = {name: FlowTable() for name in wiring.bridges}

    def apply(self, mods: Iterable[FlowMod]) -> None:
        for mod in mods:
            self.tables[mod.switch].apply(mod)

    def carry(self, src: str, packet: Packet) -> Journey:
        """Carry a packet from server `src` until it reaches a server or is dropped."""
        hosts, bridges = self.wiring.hosts, self.wiring.bridges
        at, came_from = bridges[hosts[src].nic], src
        nodes, dscps = [src], list[int]()
        for _ in range(_MOST_HOPS):
            packet, out = self.tables[at.name].process(packet, at.ports[came_from])
            if out is None:
                return Journey(tuple(nodes), tuple(dscps), arrived=False)
            dscps.append(packet.dscp)
            (neighbour,) = (node for node, port in at.ports.items() if port == out)
            if neighbour == at.server:
                return Journey((*nodes, neighbour), tuple(dscps), arrived=True)
            came_from = at.server or at.name
            if neighbour in hosts:
                at = bridges[hosts[neighbour].nic]
            else:
                at = bridges[neighbour]
                nodes.append(neighbour)
        raise AssertionError(f"a packet goes round in circles: {nodes}")

    def send(self, connection: TcpConnection, dscp: int = 0) -> Journey:
        """Carry a packet of `connection` from its source, which has set `dscp`."""
        by_ip = {host.ip: host for host in self.wiring.hosts.values()}
        packet = Packet(
            eth_dst=by_ip[connection.dst_ip].mac,
            ipv4_src=connection.src_ip,
            ipv4_dst=connection.dst_ip,
            tcp_src=connection.src_port,
            tcp_dst=connection.dst_port,
            dscp=dscp,
        )
        return self.carry(by_ip[connection.src_ip].name, packet)


def wiring_of(topology: Topology, *, seed: int = 1) -> Wiring:
    """Return a wiring as the emulated fabric makes it: with a NIC bridge `nh1` before each server `h1`.

    Port 1 of a NIC bridge is its server; the others follow in the order of the links.
    """
    ports: dict[str, dict[str, int]] = {f"n{server}": {server: 1} for server in topology.servers}
    ports |= {switch: {} for switch in topology.switches}
    for link in topology.links:
        bridge = ports[link.src if link.src in ports else f"n{link.src}"]
        bridge[link.dst] = len(bridge) + 1
    return Wiring(
        hosts={
            server: Host(name=server, ip=f"10.0.0.{i}", mac=f"02:00:00:00:00:{i:02x}", nic=f"n{server}")
            for i, server in enumerate(topology.servers, start=1)
        },
        bridges={
            name: Bridge(
                name=name,
                dpid=i,
                ports=of_bridge,
                server=None if name in topology.switches else name.removeprefix("n"),
            )
            for i, (name, of_bridge) in enumerate(ports.items(), start=1)
        },
        paths={
            f"{a} {b}": tuple((a, *(port.split("->")[1] for port in path)) for path in topology.paths(a, b))
            for a in topology.servers
            for b in topology.servers
            if a != b
        },
        port_bps={link.id: link.bps for link in topology.links},
        seed=seed,
    )


def connection(wiring: Wiring, src: str, dst: str, port: int = 40000) -> TcpConnection:
    """A connection of server `src` to port 5000 of server `dst`, from its own port `port`."""
    a, b = wiring.hosts[src].ip, wiring.hosts[dst].ip
    return TcpConnection(src_ip=a, dst_ip=b, src_port=port, dst_port=5000)


def reverse(connection: TcpConnection) -> TcpConnection:
    """The opposite direction, in which acknowledgements travel."""
    return TcpConnection(
        src_ip=connection.dst_ip,
        dst_ip=connection.src_ip,
        src_port=connection.dst_port,
        dst_port=connection.src_port,
    )
