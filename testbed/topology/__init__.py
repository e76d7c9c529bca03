"""Servers and their parts, switches, links, and the equal-cost shortest paths between GPUs.

All of it is pure. `graph.py` defines a topology, `kinds.py` builds the kinds of it.
"""

from testbed.topology.graph import Link, Topology, TopologyKind, server_ip
from testbed.topology.kinds import fat_tree, leaf_spine, rail_optimised, star
from testbed.topology.routes import EqualCostPaths, PortPath
from testbed.topology.server import NicRates, ServerShape
from testbed.topology.wired import Wire, wired

__all__ = [
    "EqualCostPaths",
    "Link",
    "NicRates",
    "PortPath",
    "ServerShape",
    "Topology",
    "TopologyKind",
    "Wire",
    "fat_tree",
    "leaf_spine",
    "rail_optimised",
    "server_ip",
    "star",
    "wired",
]
