"""The cluster's network on one machine: Mininet hosts, a NIC bridge per server, switches, queues."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from controller.flow import Level, PortId
from controller.openflow import Bridge, Host, Wiring
from testbed.emulation import queues
from testbed.job import Scale
from testbed.topology import Topology, server_ip

MTU = 4200
"""Bytes per packet, near RoCE's usual payload of 4096 bytes. Large packets also cost less CPU."""

OPENFLOW_PORT = 6653

CONTROLLER = f"tcp:127.0.0.1:{OPENFLOW_PORT}"
NOBODY = "tcp:127.0.0.1:1"
"""A controller that refuses every connection."""

SEND_BUFFER_S = 0.016
"""Size of a socket's send buffer, as the time that the NIC takes to send it.

About 11 ms of it are in the fabric. With less, a sender that waits for the CPU leaves the line idle. With
more, whole messages are in a queue before a promotion can reach them."""

# At least four packets: with fewer, delayed acknowledgements stop a sender. At most a receive buffer.
_SEND_BUFFER_BYTES = (16_384, 131_072)

# Nearly lossless, like RoCE: windows are so small that the data of all connections in flight fits into the
# queues, and there is no slow start after a lane was idle. Every kernel allows reno in a namespace, and
# without losses the congestion control hardly matters.
HOST_SYSCTLS = {
    "net.ipv4.tcp_congestion_control": "reno",
    "net.ipv4.tcp_rmem": "4096 65536 131072",
    "net.ipv4.tcp_slow_start_after_idle": "0",
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv6.conf.all.disable_ipv6": "1",
}


@dataclass(slots=True)
class Network:
    """The running network.

    `devices` and `trees` are by port: the device with its queues, and those queues. The others are by server:
    `host_pids` has a process in its network namespace, `host_devices` its interface there, and `nic_devices`
    the other end of that interface, at the NIC bridge.
    """

    wiring: Wiring
    devices: dict[PortId, str]
    trees: dict[PortId, queues.QueueTree]
    host_pids: dict[str, int]
    host_devices: dict[str, str]
    nic_devices: dict[str, str]
    datapath: str
    net: Any = field(repr=False)


_RETRY_MS = 1000
"""The longest time after which TCP repeats a lost segment, the least that kernels allow.

Kernels before 6.15 do not know it: there the time doubles with each try, so after an outage a flow may wait
for as long again."""

_TRY_AGAIN_MS = 1000
"""The longest time after which a bridge that has lost its controller tries to connect again."""

_NETWORK = "10.0.0.0/16"
RTO_MIN = "50ms"  # by route: the sysctl for it is newer than many kernels in use


@dataclass(slots=True)
class LaidOut:
    """Hosts, bridges that have not started, and links without queues. `wiring` is all that a controller needs
    to know of them; `devices` and `nic_devices` are those of `Network`."""

    wiring: Wiring
    devices: dict[PortId, str]
    nic_devices: dict[str, str]
    datapath: str
    hosts: dict[str, Any]
    net: Any = field(repr=False)


def lay_out(topology: Topology, *, seed: int, kernel: bool) -> LaidOut:
    """Create hosts, bridges and links, and start nothing."""
    from mininet.link import Link
    from mininet.log import setLogLevel
    from mininet.net import Mininet
    from mininet.node import OVSSwitch

    setLogLevel("error")
    # Otherwise Mininet raises limits of the whole machine (`fixLimits`) and never restores them.
    Mininet.inited = True
    net = Mininet(controller=None, link=Link, autoSetMacs=False, autoStaticArp=False)
    datapath = "kernel" if kernel else "user"

    def add_switch(name: str, dpid: int) -> Any:
        return net.addSwitch(
            name,
            cls=OVSSwitch,
            dpid=f"{dpid:x}",
            datapath=datapath,
            failMode="secure",
            protocols="OpenFlow13",
        )

    macs = {name: f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}" for i, name in enumerate(topology.servers)}
    hosts = {
        name: net.addHost(name, ip=f"{server_ip(i)}/16", mac=macs[name])
        for i, name in enumerate(topology.servers)
    }
    switches = {name: add_switch(name, 0x1000 + i) for i, name in enumerate(topology.switches)}
    nics = {name: add_switch(f"n{name}", 0x2000 + i) for i, name in enumerate(topology.servers)}
    devices: dict[PortId, str] = {}
    ports: dict[str, dict[str, int]] = {s.name: {} for s in (*switches.values(), *nics.values())}

    nic_devices: dict[str, str] = {}
    for name, host in hosts.items():
        link = net.addLink(host, nics[name])
        nic_devices[name] = link.intf2.name
        ports[nics[name].name][name] = nics[name].ports[link.intf2]
    for edge in topology.links:
        if edge.src > edge.dst and f"{edge.dst}->{edge.src}" in devices:
            continue
        a, b = (nics.get(end) or switches[end] for end in (edge.src, edge.dst))
        if edge.id in devices:
            continue
        link = net.addLink(a, b)
        devices[edge.id] = link.intf1.name
        devices[f"{edge.dst}->{edge.src}"] = link.intf2.name
        ports[a.name][edge.dst] = a.ports[link.intf1]
        ports[b.name][edge.src] = b.ports[link.intf2]
    wiring = Wiring(
        hosts={
            name: Host(name=name, ip=server_ip(i), mac=macs[name], nic=nics[name].name)
            for i, name in enumerate(topology.servers)
        },
        bridges={
            **{
                nic.name: Bridge(name=nic.name, dpid=int(nic.dpid, 16), ports=ports[nic.name], server=name)
                for name, nic in nics.items()
            },
            **{
                name: Bridge(name=name, dpid=int(switch.dpid, 16), ports=ports[name])
                for name, switch in switches.items()
            },
        },
        paths={
            f"{a} {b}": tuple(_nodes(path) for path in topology.paths(a, b))
            for a in topology.servers
            for b in topology.servers
            if a != b
        },
        port_bps={edge.id: edge.bps for edge in topology.links},
        seed=seed,
    )
    return LaidOut(
        wiring=wiring, devices=devices, nic_devices=nic_devices, datapath=datapath, hosts=hosts, net=net
    )


def start(
    laid: LaidOut,
    topology: Topology,
    scale: Scale,
    *,
    scratch: Path,
    weights: Mapping[Level, float] = MappingProxyType({}),
) -> Network:
    """Start the bridges without a controller, set devices and queues up, and read the queues back.

    `weights` are those of levels (`controller.policy.Policy`); without any, priority is strict.
    Raises `queues.QueueMismatch` if the kernel has other queues than asked for.
    """
    net, hosts = laid.net, laid.hosts
    net.start()
    nic_bps = {edge.src: scale.wire_bps(edge.bps) for edge in topology.links if edge.src in hosts}
    _prepare_devices(net, hosts, nic_bps, scratch)
    trees = {
        edge.id: queues.QueueTree(
            device=laid.devices[edge.id], line_bps=scale.wire_bps(edge.bps), mtu=MTU, weights=dict(weights)
        )
        for edge in topology.links
    }
    queues.set_up(trees.values())
    queues.read_back(list(trees.values()))
    return Network(
        wiring=laid.wiring,
        devices=laid.devices,
        trees=trees,
        host_pids={name: host.pid for name, host in hosts.items()},
        host_devices={name: str(host.defaultIntf()) for name, host in hosts.items()},
        nic_devices=laid.nic_devices,
        datapath=laid.datapath,
        net=net,
    )


def connect(net: Network) -> None:
    """Let the bridges connect to their controller, which listens on loopback, port `OPENFLOW_PORT`, already.

    A bridge that finds no controller tries again a second later.
    """
    commands = [
        f"-- --id=@{bridge} create Controller target={json.dumps(CONTROLLER)} max_backoff={_TRY_AGAIN_MS}"
        f" -- set Bridge {bridge} controller=@{bridge}"
        for bridge in net.wiring.bridges
    ]
    subprocess.run(["ovs-vsctl", *" ".join(commands).split()], check=True)


def _nodes(path: tuple[PortId, ...]) -> tuple[str, ...]:
    ends = [port.split("->") for port in path]
    return (ends[0][0], *(end[1] for end in ends))


def send_buffer_bytes(line_bps: float) -> int:
    """Return the bytes of a socket's send buffer for a NIC of `line_bps`, in bits/s on the wire."""
    smallest, largest = _SEND_BUFFER_BYTES
    return min(max(round(line_bps * SEND_BUFFER_S / 8), smallest), largest)


def _prepare_devices(net: Any, hosts: dict[str, Any], nic_bps: dict[str, float], scratch: Path) -> None:
    """Set the MTU of every link, turn offloads off, and give hosts their TCP settings and ARP entries.

    Segmentation and checksum offloads are off because TCP through the userspace datapath stalls on packets
    whose checksum was not computed.
    """
    offloads = "tso off gso off gro off tx off rx off"
    lines = []
    for switch in net.switches:
        for interface in switch.intfList():
            if interface.name != "lo" and interface.link is not None:
                lines.append(f"link set dev {interface.name} mtu {MTU}")
                _quiet(["ethtool", "-K", interface.name, *offloads.split()])
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)
    neighbours = scratch / "neighbours"
    neighbours.write_text(
        "".join(
            f"neigh replace {h.IP()} lladdr {h.MAC()} nud permanent dev {{device}}\n" for h in hosts.values()
        )
    )
    settings = " ".join(f'{key}="{value}"' for key, value in HOST_SYSCTLS.items())
    for name, host in hosts.items():
        device = host.defaultIntf().name
        buffer = send_buffer_bytes(nic_bps[name])
        _in_network_of(
            host.pid,
            f"""set -e
            ip link set lo up
            ip link set dev {device} mtu {MTU}
            ethtool -K {device} {offloads} >/dev/null
            sysctl -q -w {settings} net.ipv4.tcp_wmem="4096 {buffer} {buffer}"
            [ ! -e /proc/sys/net/ipv4/tcp_rto_max_ms ] || sysctl -q -w net.ipv4.tcp_rto_max_ms={_RETRY_MS}
            ip route change {_NETWORK} dev {device} proto kernel scope link src {host.IP()} rto_min {RTO_MIN}
            sed 's/{{device}}/{device}/' {neighbours} | ip -batch -
            """,
        )


def _in_network_of(pid: int, script: str) -> None:
    """Run a shell script in a host's network namespace. Raises `RuntimeError` if it fails or complains."""
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0 or done.stderr:
        raise RuntimeError(f"could not set up a host's network: {done.stderr.strip()}")


def _quiet(command: list[str]) -> None:
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
