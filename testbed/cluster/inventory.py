"""The servers of a cluster: what a user says of them in an inventory, and what is refused. Pure."""

import enum
import ipaddress
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from controller.flow import Level
from controller.openflow import dscp_of

PORTS: Final = 3
"""The coordinator listens on so many ports in a row: for agents, for ranks, and its controller."""

_PORTS_OF_SERVERS: Final = {"rendezvous_port": 29400, "store_port": 29500}
_EVERYWHERE: Final = ("0.0.0.0", "::", "*")
_MOST_DSCP: Final = 63
_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# Linux allows more, such as `;`, but printed commands have these names, and root runs them in a shell.
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")


class Enforcement(enum.StrEnum):
    """How levels are put in force: ranks mark packets with a DSCP (`IP_TOS`), or not at all."""

    DSCP = "dscp"
    NONE = "none"


class Coordinator(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where `mfs run` runs: the address at which servers reach it, and the first of its `PORTS` ports.

    It listens at `listen`, by default at `address`.
    """

    address: str
    port: int = 29600
    listen: str | None = None
    listen_everywhere: bool = False


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A machine: its host name, its address on the data network, the interface that has it, its GPUs.

    `server` is the server of the scenario that it plays; by default, machines play servers in order.
    """

    host: str
    address: str
    nic: str
    gpus: int = 0
    server: str | None = None


class Inventory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster. `dscp` is by level, from CONTROL to SCAVENGER; `keys` is a directory of `mfs cluster keys`.

    `rendezvous_port` is torchrun's, `store_port` that of the ranks' own rendezvous, both on the servers.
    """

    coordinator: Coordinator
    servers: tuple[Server, ...]
    keys: str
    enforcement: str = Enforcement.DSCP.value
    dscp: tuple[int, ...] = tuple(dscp_of(level) for level in Level)
    collectives: str = "gloo"
    rendezvous_port: int = _PORTS_OF_SERVERS["rendezvous_port"]
    store_port: int = _PORTS_OF_SERVERS["store_port"]

    @property
    def dscps(self) -> tuple[int, ...] | None:
        """The DSCP of each level; None if nothing is marked."""
        return self.dscp if self.enforcement == Enforcement.DSCP else None

    def endpoint(self, number: int, *, listen: bool = False) -> str:
        """The ZeroMQ address of port `number` of `PORTS`: to connect to, or to listen at."""
        coordinator = self.coordinator
        address = (coordinator.listen or coordinator.address) if listen else coordinator.address
        return f"tcp://{address}:{coordinator.port + number}"


class Fault(NamedTuple):
    """What is wrong with an inventory: the full name of the key, and why."""

    key: str
    reason: str


def faults(inventory: Inventory) -> Iterator[Fault]:
    """Yield what is wrong, whatever the scenario is."""
    yield from _coordinator_faults(inventory.coordinator)
    if not inventory.servers:
        yield Fault("servers", "there are none")
    for name in ("host", "address", "server"):
        seen: dict[str, int] = {}
        for i, server in enumerate(inventory.servers):
            value = getattr(server, name)
            if value is not None and value in seen:
                yield Fault(f"servers[{i}].{name}", f"{value!r} is servers[{seen[value]}] already")
            elif value is not None:
                seen[value] = i
    for i, server in enumerate(inventory.servers):
        if not _HOST.fullmatch(server.host):
            yield Fault(f"servers[{i}].host", f"{server.host!r} is no host name, as `hostname` says it")
        if not _is_of_a_machine(server.address):
            yield Fault(f"servers[{i}].address", f"{server.address!r} is no IPv4 address of a server")
        if not server.nic:
            yield Fault(f"servers[{i}].nic", "name the interface that has the address")
        elif not _INTERFACE.fullmatch(server.nic):
            yield Fault(
                f"servers[{i}].nic",
                f"{server.nic!r} is no name of an interface: 1 to 15 letters, digits, dots, dashes and"
                " underscores, as `ip link` says it, and no dash or dot first",
            )
        if server.gpus < 0:
            yield Fault(f"servers[{i}].gpus", f"{server.gpus} is less than 0")
    yield from _loopback_faults(inventory)
    yield from _network_faults(inventory)
    yield from _port_faults(inventory)


def _loopback_faults(inventory: Inventory) -> Iterator[Fault]:
    """Servers that are all on loopback are on this machine on purpose. Beside others, it is a slip."""
    real = [server for server in inventory.servers if not _is_loopback(server.address)]
    for i, server in enumerate(inventory.servers):
        if real and _is_loopback(server.address):
            yield Fault(
                f"servers[{i}].address",
                f"{server.address} is reached from {server.host} only, and {real[0].host} has"
                f" {real[0].address}: give the address on the data network",
            )
    if len(real) > 1 and _is_loopback(inventory.coordinator.address):
        yield Fault(
            "coordinator.address",
            f"{inventory.coordinator.address} is another machine on each server: give the address at which"
            " servers reach this one",
        )


def _port_faults(inventory: Inventory) -> Iterator[Fault]:
    """Ports that the coordinator and a server would both listen on: it may be one of them."""
    first = inventory.coordinator.port
    last = first + PORTS - 1
    for name, usual in _PORTS_OF_SERVERS.items():
        port = getattr(inventory, name)
        if first <= port <= last:
            # The inventory need not have the key of a port that is the usual one.
            key, told = "coordinator.port", f"one of {first} to {last} is {name}, {port}"
            if port != usual:
                key, told = name, f"{port} is one of the coordinator's ports, {first} to {last}"
            yield Fault(key, f"{told}; the coordinator may be a server, too, so choose another port")


def _coordinator_faults(coordinator: Coordinator) -> Iterator[Fault]:
    if not _is_of_a_machine(coordinator.address):
        yield Fault(
            "coordinator.address", f"{coordinator.address!r} is no IPv4 address that servers can connect to"
        )
    if coordinator.listen in _EVERYWHERE:
        if not coordinator.listen_everywhere:
            yield Fault(
                "coordinator.listen",
                f"{coordinator.listen} listens on every network of the machine: name one address, or set"
                " coordinator.listen_everywhere to true",
            )
    elif coordinator.listen is not None and not _is_ipv4(coordinator.listen):
        yield Fault("coordinator.listen", f"{coordinator.listen!r} is no IPv4 address")
    if not 1 <= coordinator.port <= 65536 - PORTS:
        yield Fault("coordinator.port", f"{coordinator.port} is not between 1 and {65536 - PORTS}")


def _network_faults(inventory: Inventory) -> Iterator[Fault]:
    for name in _PORTS_OF_SERVERS:
        if not 1 <= getattr(inventory, name) <= 65535:
            yield Fault(name, f"{getattr(inventory, name)} is not between 1 and 65535")
    if inventory.rendezvous_port == inventory.store_port:
        yield Fault("store_port", f"{inventory.store_port} is the port of rendezvous_port, too")
    known = [one.value for one in Enforcement]
    if inventory.enforcement == "nccl":
        yield Fault(
            "enforcement",
            "levels of NCCL are not built: it fixes the class of a connection when it makes it; use dscp",
        )
    elif inventory.enforcement not in known:
        yield Fault("enforcement", f"{inventory.enforcement!r} is none of {', '.join(known)}")
    if inventory.collectives == "nccl":
        yield Fault(
            "collectives",
            "levels of NCCL are not built: it fixes the class of a connection when it makes it, so the"
            " level of a collective could not change; use gloo",
        )
    elif inventory.collectives != "gloo":
        yield Fault("collectives", f"{inventory.collectives!r} is not gloo")
    dscp = inventory.dscp
    if len(dscp) != len(Level):
        yield Fault("dscp", f"has {len(dscp)} values; there are {len(Level)} levels")
    elif any(not 0 <= value <= _MOST_DSCP for value in dscp):
        yield Fault("dscp", f"a DSCP is between 0 and {_MOST_DSCP}")
    elif len(set(dscp)) != len(dscp):
        yield Fault("dscp", "two levels have the same DSCP, so switches could not tell them apart")


def _is_of_a_machine(text: str) -> bool:
    """Whether this is an IPv4 address that a machine can be reached at."""
    if not _is_ipv4(text) or text in _EVERYWHERE:
        return False
    address = ipaddress.IPv4Address(text)
    return not address.is_multicast and not address.is_reserved


def _is_loopback(text: str) -> bool:
    return _is_ipv4(text) and ipaddress.IPv4Address(text).is_loopback


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
