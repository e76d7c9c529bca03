"""Servers and what is in them, switches, links, and the equal-cost shortest paths between GPUs.

Pure data and what follows from it: `graph.py` is what a topology is, `kinds.py` makes them.
"""

from testbed.topology.graph import Link, Topology, TopologyKind, server_ip
from testbed.topology.kinds import fat_tree, leaf_spine, rail_optimised, star
from testbed.topology.routes import EqualCostPaths, PortPath
from testbed.topology.server import ServerShape

__all__ = [
    "EqualCostPaths",
    "Link",
    "PortPath",
    "ServerShape",
    "Topology",
    "TopologyKind",
    "fat_tree",
    "leaf_spine",
    "rail_optimised",
    "server_ip",
    "star",
]
