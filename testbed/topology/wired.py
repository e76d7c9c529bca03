"""A topology that is given link by link, instead of by its kind."""

from collections.abc import Mapping, Sequence

import msgspec

from testbed.topology.graph import Link, Topology, TopologyKind
from testbed.topology.kinds import inside_links
from testbed.topology.server import ServerShape


class Wire(msgspec.Struct, frozen=True, kw_only=True):
    """A link from a NIC to `switch`, or from one switch to another. Rates are model bits/s.

    `up_bps` is the rate away from the NIC or from the first switch, `down_bps` the rate back.
    """

    switch: str
    up_bps: int
    down_bps: int
    latency_ns: int = 0


def wired(
    *,
    nics: Sequence[Sequence[Wire]],
    switches: Sequence[str],
    between: Mapping[tuple[str, str], Wire],
    shape: ServerShape,
) -> Topology:
    """Build a topology whose server i has the NICs `nics[i]`, in the order of their numbers.

    `between[a, b]` is the wire from switch a to switch b. Traffic changes rails inside the sending server
    (`Topology.pxn`) if it can, which is if servers have an NVSwitch and NICs for each GPU, and only NICs of
    one number are wired to any switch.

    Raises `ValueError` if a server has another number of NICs than `shape`, and if some NIC cannot reach one
    that it would send to.
    """
    names = tuple(f"h{i + 1}" for i in range(len(nics)))
    links: list[Link] = []
    for name, of_server in zip(names, nics, strict=True):
        if len(of_server) != shape.nics:
            raise ValueError(f"{name} has {len(of_server)} NICs, not {shape.nics} as other servers")
        for number, wire in enumerate(of_server):
            links += _both_ways(shape.nic(name, number), wire)
        links += inside_links(name, shape)
    for (a, b), wire in between.items():
        assert b == wire.switch
        links += _both_ways(a, wire)
    numbers: dict[str, set[int]] = {}
    for of_server in nics:
        for number, wire in enumerate(of_server):
            numbers.setdefault(wire.switch, set()).add(number)
    rails = all(len(found) == 1 for found in numbers.values()) and shape.nics > 1
    topology = Topology(
        kind=TopologyKind.FILE,
        servers=names,
        switches=tuple(switches),
        links=tuple(links),
        shape=shape,
        pxn=rails and shape.nvlink_bps is not None and shape.gpus is not None and shape.nics >= shape.gpus,
    )
    _check_reach(topology, nics)
    return topology


def _check_reach(topology: Topology, nics: Sequence[Sequence[Wire]]) -> None:
    """Raise `ValueError` unless all NICs reach those that GPUs send to by them.

    With `pxn` and between GPUs with several NICs, these are NICs of the same number or place.
    """
    shape = topology.shape
    for number in range(shape.nics):
        first = f"{topology.servers[0]}'s NIC {number}"
        part = topology.joined(nics[0][number].switch)
        for server, of_server in zip(topology.servers, nics, strict=True):
            for other, wire in enumerate(of_server):
                meets = other % shape.nics_of_a_gpu == number % shape.nics_of_a_gpu
                if (other == number if topology.pxn else meets) and wire.switch not in part:
                    raise ValueError(f"no path from {first} to {server}'s NIC {other}")


def _both_ways(node: str, wire: Wire) -> tuple[Link, Link]:
    there = Link(src=node, dst=wire.switch, bps=wire.up_bps, latency_ns=wire.latency_ns)
    return there, Link(src=wire.switch, dst=node, bps=wire.down_bps, latency_ns=wire.latency_ns)
