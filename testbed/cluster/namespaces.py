"""A cluster in network namespaces: servers with names of their own, switches that route, links with queues.

A switch is a namespace that forwards IP packets. The kernel does that itself, so it needs no Open vSwitch.
A port puts packets into its strict queues by the DSCP that the sender has given them. The port of a server
is in a namespace beside the server, its NIC: in a queue on the server's own device, TCP would leave no more
than two pieces of each connection, of up to twelve packets, and connections would not share the port
evenly. For the same reason TCP hands over single packets (`gso_max_segs`). Besides, each server
has a link without queues to the namespace that this process is in: the management network. Servers have
clocks of their own, many minutes apart, if the kernel can do that.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.flow import PortId
from testbed.cluster.inventory import Server
from testbed.emulation import queues
from testbed.emulation.network import HOST_SYSCTLS, MTU, RTO_MIN, send_buffer_bytes
from testbed.emulation.queues import PortCounters, QueueTree, Sampler
from testbed.job import Scale
from testbed.topology import Topology, server_ip
from workers.process import in_network_of

MANAGEMENT = "10.99.0.254"
"""The coordinator's address on the management network."""

NIC = "data0"
_HOST = "host"  # the end of a server's own link in the namespace of its NIC
_DATA = "10.0.0.0/16"
_MANAGED = "10.99.0.0/24"
_GATEWAY = "169.254.1.1"  # no address of anybody: the other end of a link, whoever it is
_AHEAD_S = 1000  # of each server's clock ahead of that of the one before
_CLOCKS = Path("/proc/self/ns/time")  # Linux has clocks of namespaces since 5.6
_BURST_PACKETS = 1
"""As few as can be. At the scale of a rehearsal, a round of a collective may have three packets: a port that
is idle and lets three pass at once takes no time for it. The emulated fabric needs more, because its switches
wait for the CPU."""

_OFFLOADS = "tso off gso off gro off tx off rx off"


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be built. A server of `topology` is called as it is there."""

    topology: Topology
    scale: Scale


class _Port(NamedTuple):
    node: str
    device: str


class Namespaces:
    """Builds `network` around this process, which has to be in a network namespace of its own.

    The namespaces end with the processes that hold them. Raises `RuntimeError` if a command fails.
    """

    def __init__(self, network: Network) -> None:
        self._topology, self._scale = network.topology, network.scale
        self.pids: dict[str, int] = {}
        self._holders: list[subprocess.Popen[bytes]] = []
        self._ports: dict[PortId, _Port] = {}
        for i, server in enumerate(self._topology.servers):
            self._hold(server, _AHEAD_S * (i + 1) if _CLOCKS.exists() else 0)
        for switch in (*map(_nic_of, self._topology.servers), *self._topology.switches):
            self._hold(switch, 0)
        self._connect()
        self._manage()
        self._route()
        self.trees = self._queues()

    def machines(self) -> list[Server]:
        """The servers as an inventory has them."""
        return [
            Server(host=name, address=server_ip(i), nic=NIC, server=name)
            for i, name in enumerate(self._topology.servers)
        ]

    def hosts_file(self) -> str:
        """Names of the servers on the management network, as /etc/hosts has them."""
        lines = [f"{_managed(i)} {name}" for i, name in enumerate(self._topology.servers)]
        return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"

    def inside(self, server: str, command: list[str]) -> list[str]:
        """The words that run `command` on a server."""
        at = f"/proc/{self.pids[server]}/ns"
        clock = [f"--time={at}/time"] if _CLOCKS.exists() else []
        return ["nsenter", f"--net={at}/net", f"--uts={at}/uts", *clock, "--", *command]

    def counters(self) -> dict[PortId, PortCounters]:
        """What each port has sent so far, by level."""
        found: dict[PortId, PortCounters] = {}
        for node, pid in self.pids.items():
            ports = {p: tree.device for p, tree in self.trees.items() if self._ports[p].node == node}
            if ports:
                with in_network_of(pid):
                    by_device = Sampler(list(ports.values())).sample()
                found |= {port: by_device[device] for port, device in ports.items()}
        return found

    # --- building ---------------------------------------------------------------------------------

    def _hold(self, node: str, ahead_s: int) -> None:
        """Start a process in new namespaces, for a network, a host name, and a clock ahead of ours."""
        code = (
            "import os, sys, signal\n"
            "open('/proc/sys/kernel/hostname', 'w').write(sys.argv[1])\n"
            "print(os.getpid(), flush=True)\n"
            "signal.pause()\n"
        )
        # A clock is that of children, so there has to be one.
        clock = ["--time", "--monotonic", str(ahead_s), "--fork", "--kill-child"] if ahead_s else []
        process = subprocess.Popen(
            ["unshare", "--net", "--uts", *clock, "--", sys.executable, "-P", "-S", "-c", code, node],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        pid = process.stdout.readline().strip()
        if not pid:
            raise RuntimeError(f"could not make a namespace for {node}")
        self._holders.append(process)  # its pipe stays open
        self.pids[node] = int(pid)

    def _connect(self) -> None:
        """A pair of devices per link, each end in its node. A server's end is `NIC`."""
        servers = set(self._topology.servers)
        pairs = []
        for link in self._topology.links:
            if f"{link.dst}->{link.src}" in self._ports:
                continue
            a = _Port(_nic_of(link.src) if link.src in servers else link.src, link.dst)
            b = _Port(_nic_of(link.dst) if link.dst in servers else link.dst, link.src)
            self._ports[link.id], self._ports[f"{link.dst}->{link.src}"] = a, b
            pairs.append((a, b))
        pairs += [(_Port(server, NIC), _Port(_nic_of(server), _HOST)) for server in self._topology.servers]
        _batch(
            [
                f"link add name {a.device} mtu {MTU} address {_mac(a)} netns {self.pids[a.node]}"
                f" type veth peer name {b.device} mtu {MTU} address {_mac(b)} netns {self.pids[b.node]}"
                for a, b in pairs
            ]
        )
        for port in (end for pair in pairs for end in pair):
            with in_network_of(self.pids[port.node]):
                _run(["ethtool", "-K", port.device, *_OFFLOADS.split()])

    def _manage(self) -> None:
        lines = ["link set lo up", f"address add {MANAGEMENT}/32 dev lo"]
        for i, name in enumerate(self._topology.servers):
            device = f"m{i}"
            lines += [
                f"link add name {device} type veth peer name mgmt0 netns {self.pids[name]}",
                f"link set {device} up",
                f"route add {_managed(i)}/32 dev {device}",
            ]
        _batch(lines)
        _sysctl("net.ipv4.ip_forward", "1")
        for i, name in enumerate(self._topology.servers):
            _sysctl(f"net.ipv4.conf.m{i}.proxy_arp", "1")
            with in_network_of(self.pids[name]):
                _batch(
                    [
                        "link set lo up",
                        f"address add {_managed(i)}/24 dev mgmt0",
                        "link set mgmt0 up",
                    ]
                )

    def _route(self) -> None:
        servers = list(self._topology.servers)
        rates = {link.src: self._scale.wire_bps(link.bps) for link in self._topology.links}
        for i, name in enumerate(servers):
            with in_network_of(self.pids[name]):
                _batch(
                    [
                        f"address add {server_ip(i)}/32 dev {NIC}",
                        f"link set {NIC} gso_max_segs 1",
                        *_up(NIC, _Port(_nic_of(name), _HOST)),
                        f"route add {_DATA} via {_GATEWAY} dev {NIC} onlink src {server_ip(i)}"
                        f" rto_min {RTO_MIN}",
                    ]
                )
                buffer = send_buffer_bytes(rates[name])
                for key, value in (*HOST_SYSCTLS.items(), ("net.ipv4.tcp_wmem", f"4096 {buffer} {buffer}")):
                    _sysctl(key, value)
            with in_network_of(self.pids[_nic_of(name)]):
                self._route_nic(name, server_ip(i))
        for switch in self._topology.switches:
            with in_network_of(self.pids[switch]):
                self._route_switch(switch, servers)

    def _route_nic(self, server: str, address: str) -> None:
        nic = _nic_of(server)
        [(port, at)] = [(port, at) for port, at in self._ports.items() if at.node == nic]
        _batch(
            [
                "link set lo up",
                *_up(at.device, self._ports[_other(port)]),
                *_up(_HOST, _Port(server, NIC)),
                f"route add {_DATA} via {_GATEWAY} dev {at.device} onlink",
                f"route add {address}/32 via {_GATEWAY} dev {_HOST} onlink",
            ]
        )
        _sysctl("net.ipv4.ip_forward", "1")
        _sysctl("net.ipv4.conf.all.rp_filter", "0")

    def _route_switch(self, switch: str, servers: list[str]) -> None:
        lines = ["link set lo up"]  # without any address, the kernel takes no gateway for one
        for port, at in self._ports.items():
            if at.node == switch:
                lines += _up(at.device, self._ports[_other(port)])
        for i, server in enumerate(servers):
            hop = self._next_hop(switch, server)
            if hop is not None:
                device = self._ports[f"{switch}->{hop}"].device
                lines.append(f"route add {server_ip(i)}/32 via {_GATEWAY} dev {device} onlink")
        _batch(lines)
        _sysctl("net.ipv4.ip_forward", "1")
        _sysctl("net.ipv4.conf.all.rp_filter", "0")

    def _next_hop(self, switch: str, server: str) -> str | None:
        """The node after `switch` on the paths to `server`."""
        for other in self._topology.servers:
            if other == server:
                continue
            for path in self._topology.paths(other, server):
                for port in path:
                    src, dst = port.split("->")
                    if src == switch:
                        return dst
        return None

    def _queues(self) -> dict[PortId, QueueTree]:
        trees = {
            link.id: QueueTree(
                device=self._ports[link.id].device,
                line_bps=self._scale.wire_bps(link.bps),
                mtu=MTU,
                burst_packets=_BURST_PACKETS,
            )
            for link in self._topology.links
        }
        for node, pid in self.pids.items():
            own = [tree for port, tree in trees.items() if self._ports[port].node == node]
            if own:
                with in_network_of(pid):
                    queues.set_up(own)
                    queues.read_back(own)
        return trees


def _managed(index: int) -> str:
    return f"10.99.0.{index + 1}"


def _other(port: PortId) -> PortId:
    a, b = port.split("->")
    return f"{b}->{a}"


def _nic_of(server: str) -> str:
    return f"n{server}"


def _up(device: str, far_end: _Port) -> list[str]:
    """Commands that bring a device up, with `far_end` as its gateway."""
    return [
        f"link set {device} up",
        f"neigh replace {_GATEWAY} lladdr {_mac(far_end)} nud permanent dev {device}",
    ]


def _mac(port: _Port) -> str:
    """A MAC of its own for each device: the first byte says that it was made up here."""
    digest = hashlib.sha256(f"{port.node} {port.device}".encode()).hexdigest()
    return ":".join(["02", *(digest[i : i + 2] for i in range(0, 10, 2))])


def _sysctl(key: str, value: str) -> None:
    path = Path("/proc/sys") / key.replace(".", "/")
    if path.exists():  # IPv6 may not be there
        path.write_text(value)


def _batch(lines: list[str]) -> None:
    _run(["ip", "-batch", "-"], "\n".join(lines) + "\n")


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
