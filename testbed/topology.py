"""Hosts, switches, directed links and the equal-cost shortest paths between servers.

A topology is pure data. A link `a->b` is a port of `a`: the place where a queue can build up.
Server NIC uplinks (`h1->s1`) and every switch port are links; nothing else is.
"""

import itertools
from collections.abc import Callable
from functools import cached_property

import msgspec

from controller.flow import PortId


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A directed link of `bps` model bits per second."""

    src: str
    dst: str
    bps: int

    @property
    def id(self) -> PortId:
        return f"{self.src}->{self.dst}"


class Topology(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Servers `h1` .. `hN`, switches, and directed links between them."""

    kind: str
    servers: tuple[str, ...]
    switches: tuple[str, ...]
    links: tuple[Link, ...]

    def link(self, port: PortId) -> Link:
        """The link called `port`. Raises `KeyError` for a name that is not a link."""
        return self._links_by_id[port]

    def neighbours(self, node: str) -> tuple[str, ...]:
        return tuple(self._adjacent[node])

    def paths(self, src: str, dst: str) -> tuple[tuple[PortId, ...], ...]:
        """All shortest paths from server `src` to server `dst`, each as its ports, in a fixed order.

        The path of a server to itself is the empty one: such traffic never leaves the machine.
        """
        if (src, dst) not in self._paths_found:
            self._paths_found[src, dst] = self._shortest(src, dst)
        return self._paths_found[src, dst]

    @cached_property
    def _links_by_id(self) -> dict[PortId, Link]:
        return {link.id: link for link in self.links}

    @cached_property
    def _adjacent(self) -> dict[str, list[str]]:
        adjacent: dict[str, list[str]] = {node: [] for node in (*self.servers, *self.switches)}
        for link in self.links:
            adjacent[link.src].append(link.dst)
        return adjacent

    @cached_property
    def _transit(self) -> frozenset[str]:
        return frozenset(self.switches)

    @cached_property
    def _paths_found(self) -> dict[tuple[str, str], tuple[tuple[PortId, ...], ...]]:
        return {}

    def _shortest(self, src: str, dst: str) -> tuple[tuple[PortId, ...], ...]:
        if src == dst:
            return ((),)
        frontier: list[tuple[str, ...]] = [(src,)]
        seen = {src}
        while frontier:
            reached = sorted(path for path in frontier if path[-1] == dst)
            if reached:
                return tuple(tuple(f"{a}->{b}" for a, b in itertools.pairwise(path)) for path in reached)
            frontier = [
                (*path, node)
                for path in frontier
                for node in self._adjacent[path[-1]]
                if node not in seen and (node == dst or node in self._transit)
            ]
            seen.update(path[-1] for path in frontier)
        raise ValueError(f"no path from {src} to {dst}")


def server_ip(index: int) -> str:
    """Address of server number `index` (from 0) in 10.0.0.0/16."""
    return f"10.0.{index // 250}.{index % 250 + 1}"


def _duplex(a: str, b: str, bps: int) -> tuple[Link, Link]:
    return Link(src=a, dst=b, bps=bps), Link(src=b, dst=a, bps=bps)


def star(*, servers: int, nic_bps: int) -> Topology:
    """All servers on one switch, `s1`."""
    names = tuple(f"h{i + 1}" for i in range(servers))
    links = tuple(link for name in names for link in _duplex(name, "s1", nic_bps))
    return Topology(kind="star", servers=names, switches=("s1",), links=links)


def leaf_spine(
    *, leaves: int, spines: int, hosts_per_leaf: int, nic_bps: int, oversubscription: float
) -> Topology:
    """Two tiers: `hosts_per_leaf` servers below each leaf, every leaf wired to every spine.

    `oversubscription` is what the servers below a leaf can send over what its uplinks can carry:
    each of the leaf's `spines` uplinks runs at `hosts_per_leaf * nic_bps / (spines * oversubscription)`.
    """
    uplink = round(hosts_per_leaf * nic_bps / (spines * oversubscription))
    names = tuple(f"h{i + 1}" for i in range(leaves * hosts_per_leaf))
    leaf_names = tuple(f"leaf{i + 1}" for i in range(leaves))
    spine_names = tuple(f"spine{i + 1}" for i in range(spines))
    links: list[Link] = []
    for i, name in enumerate(names):
        links += _duplex(name, leaf_names[i // hosts_per_leaf], nic_bps)
    for leaf in leaf_names:
        for spine in spine_names:
            links += _duplex(leaf, spine, uplink)
    return Topology(
        kind="leaf-spine",
        servers=names,
        switches=leaf_names + spine_names,
        links=tuple(links),
    )


TOPOLOGIES: dict[str, Callable[..., Topology]] = {"star": star, "leaf-spine": leaf_spine}
