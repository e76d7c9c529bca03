"""The kinds of topology: star, leaf-spine, k-ary fat-tree, rail-optimised."""

from collections.abc import Sequence

from testbed.topology.graph import Link, Topology, TopologyKind
from testbed.topology.server import NicRates, ServerShape, nic_rates

PLAIN = ServerShape()


def star(*, servers: int, nic_bps: int | NicRates, shape: ServerShape = PLAIN) -> Topology:
    """Build a star: all servers on one switch, `s1`."""
    rates = nic_rates(nic_bps, shape.nics)
    names = _servers(servers)
    links: list[Link] = []
    for name in names:
        links += _server(name, shape, rates, ["s1"] * shape.nics)
    return Topology(kind=TopologyKind.STAR, servers=names, switches=("s1",), links=tuple(links), shape=shape)


def leaf_spine(
    *,
    leaves: int,
    spines: int,
    hosts_per_leaf: int,
    nic_bps: int | NicRates,
    oversubscription: float,
    shape: ServerShape = PLAIN,
) -> Topology:
    """Build two tiers: `hosts_per_leaf` servers below each leaf, and every leaf wired to every spine.

    `oversubscription` is the ratio of what the servers below a leaf can send to what its uplinks can carry:
    each of its `spines` uplinks runs at `hosts_per_leaf * total / (spines * oversubscription)`, where `total`
    is the rate of all NICs of a usual server.
    """
    rates = nic_rates(nic_bps, shape.nics)
    uplink = round(hosts_per_leaf * rates.total / (spines * oversubscription))
    names = _servers(leaves * hosts_per_leaf)
    leaf_names = _numbered("leaf", leaves)
    spine_names = _numbered("spine", spines)
    links: list[Link] = []
    for i, name in enumerate(names):
        links += _server(name, shape, rates, [leaf_names[i // hosts_per_leaf]] * shape.nics)
    links += _all_to_all(leaf_names, spine_names, uplink)
    return Topology(
        kind=TopologyKind.LEAF_SPINE,
        servers=names,
        switches=leaf_names + spine_names,
        links=tuple(links),
        shape=shape,
    )


def fat_tree(
    *,
    k: int,
    servers: int,
    nic_bps: int | NicRates,
    oversubscription: float = 1.0,
    shape: ServerShape = PLAIN,
) -> Topology:
    """Build three tiers of switches with `k` ports (Al-Fares et al., SIGCOMM 2008).

    A pod has k/2 edge switches with k/2 servers each, and k/2 aggregation switches, each wired to all edge
    switches of the pod. Aggregation switch j of every pod is wired to the same k/2 of the (k/2)^2 core
    switches. Servers fill the pods in order, and pods without servers are left out.

    A link between aggregation and core runs at the rate of all NICs of a usual server, and a link between
    edge and aggregation at that rate / `oversubscription`.

    Raises `ValueError` if `k` is odd or below 2, and for more than k^3 / 4 servers.
    """
    if k < 2 or k % 2:
        raise ValueError(f"the switches of a fat-tree have an even number of ports, not {k}")
    if servers > fat_tree_servers(k):
        raise ValueError(f"a fat-tree of k={k} has room for {fat_tree_servers(k)} servers, not {servers}")
    half = k // 2
    pods = -(-servers // half**2)
    names = _servers(servers)
    edges, aggregations = _numbered("edge", pods * half), _numbered("agg", pods * half)
    cores = _numbered("core", half**2)
    rates = nic_rates(nic_bps, shape.nics)
    full = rates.total
    links: list[Link] = []
    for i, name in enumerate(names):
        links += _server(name, shape, rates, [edges[i // half]] * shape.nics)
    for pod in range(pods):
        inside = slice(pod * half, (pod + 1) * half)
        links += _all_to_all(edges[inside], aggregations[inside], round(full / oversubscription))
    for i, aggregation in enumerate(aggregations):
        j = i % half
        links += _all_to_all([aggregation], cores[j * half : (j + 1) * half], full)
    return Topology(
        kind=TopologyKind.FAT_TREE,
        servers=names,
        switches=edges + aggregations + cores,
        links=tuple(links),
        shape=shape,
    )


def fat_tree_servers(k: int) -> int:
    """Return how many servers a fat-tree of `k`-port switches has room for: (k/2)^2 in each of k pods."""
    return (k // 2) ** 2 * k


def rail_optimised(
    *,
    servers: int,
    servers_per_group: int,
    spines: int,
    nic_bps: int | NicRates,
    oversubscription: float,
    shape: ServerShape,
) -> Topology:
    """Build groups of servers with a switch, or rail, per NIC number, and every rail wired to every spine.

    NIC i of every server of a group is on rail i of the group. Group 1 has the first `servers_per_group`
    servers, and its rails are `g1.rail0`, `g1.rail1` and so on. Each of a rail's `spines` uplinks runs at
    `servers_per_group * rate / (spines * oversubscription)`, where `rate` is that of a usual server's NIC on
    the rail. Traffic changes rails inside the sending
    server if that has an NVSwitch (`Topology.pxn`), otherwise over the spines.

    Raises `ValueError` unless every GPU has NICs of its own.
    """
    if shape.gpus is None or shape.nics % shape.gpus:
        raise ValueError(f"rail-optimised servers have NICs for each GPU, not {shape.nics} for {shape.gpus}")
    rates = nic_rates(nic_bps, shape.nics)
    names = _servers(servers)
    groups = -(-servers // servers_per_group)
    rails = [tuple(f"g{group + 1}.rail{number}" for number in range(shape.nics)) for group in range(groups)]
    spine_names = _numbered("spine", spines)
    links: list[Link] = []
    for i, name in enumerate(names):
        links += _server(name, shape, rates, rails[i // servers_per_group])
    rail_names = tuple(rail for group in rails for rail in group)
    for group in rails:
        for rail, bps in zip(group, rates.usual, strict=True):
            links += _all_to_all(
                [rail], spine_names, round(servers_per_group * bps / (spines * oversubscription))
            )
    return Topology(
        kind=TopologyKind.RAIL_OPTIMISED,
        servers=names,
        switches=rail_names + spine_names,
        links=tuple(links),
        shape=shape,
        pxn=shape.nvlink_bps is not None,
    )


def _servers(count: int) -> tuple[str, ...]:
    return _numbered("h", count)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}{i + 1}" for i in range(count))


def _server(server: str, shape: ServerShape, rates: NicRates, switches: Sequence[str]) -> list[Link]:
    """The links of a server: from NIC i to `switches[i]`, and those between its parts."""
    links: list[Link] = []
    for number, switch in enumerate(switches):
        links += _duplex(shape.nic(server, number), switch, rates.of(server, number))
    return links + inside_links(server, shape)


def inside_links(server: str, shape: ServerShape) -> list[Link]:
    """The links between the parts of a server."""
    links: list[Link] = []
    for gpu in range(shape.separate_gpus):
        node = shape.endpoint(server, gpu)
        if shape.nvlink_bps is not None:
            links += _duplex(node, shape.nvswitch(server), shape.nvlink_bps)
        if shape.pcie_bps is not None:
            links += _duplex(node, shape.pcie_end(server, gpu), shape.pcie_bps)
    return links


def _all_to_all(lower: Sequence[str], upper: Sequence[str], bps: int) -> list[Link]:
    return [link for a in lower for b in upper for link in _duplex(a, b, bps)]


def _duplex(a: str, b: str, bps: int) -> tuple[Link, Link]:
    return Link(src=a, dst=b, bps=bps), Link(src=b, dst=a, bps=bps)
