"""Times on an idle network: every port drained at line rate, nobody else there.

Traffic is a mapping (source server, destination server) -> bytes. Traffic of a server with itself
crosses no port. Equal-cost paths share it evenly.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from controller.flow import PortId
from testbed.job import Placement
from testbed.serving.steps import slowest_compute_s
from testbed.topology import Topology
from workers.plan import Collective, CollectiveKind, Step, Transfer

Traffic = dict[tuple[str, str], float]


def merged(parts: Iterable[Traffic]) -> Traffic:
    """The sum of several traffics."""
    total: Traffic = {}
    for part in parts:
        for pair, size_bytes in part.items():
            total[pair] = total.get(pair, 0.0) + size_bytes
    return total


def scaled(traffic: Traffic, factor: float) -> Traffic:
    return {pair: size_bytes * factor for pair, size_bytes in traffic.items()}


def port_loads(traffic: Traffic, topology: Topology) -> dict[PortId, float]:
    """Bytes of `traffic` on every port it crosses."""
    load: dict[PortId, float] = {}
    for (src, dst), size_bytes in traffic.items():
        paths = topology.paths(src, dst)
        for path in paths:
            for port in path:
                load[port] = load.get(port, 0.0) + size_bytes / len(paths)
    return load


def drain_s(traffic: Traffic, topology: Topology) -> float:
    """Seconds until the busiest port has sent its part of `traffic` at line rate."""
    load = port_loads(traffic, topology)
    return max((size * 8 / topology.link(port).bps for port, size in load.items()), default=0.0)


def collective_traffic(collective: Collective, placement: Placement) -> Traffic:
    """Bytes between servers for one collective.

    An all-to-all sends its matrix. An all-reduce of n bytes over p ranks goes round a ring twice
    (reduce-scatter, all-gather): 2 (p - 1) / p n bytes from each rank to the next.
    """
    servers = [placement.server_of(rank) for rank in placement.groups[collective.group]]
    traffic: Traffic = {}
    if collective.kind is CollectiveKind.ALL_REDUCE:
        count = len(servers)
        per_rank = 2 * (count - 1) / count * collective.sizes[0][0]
        for i, src in enumerate(servers):
            pair = (src, servers[(i + 1) % count])
            traffic[pair] = traffic.get(pair, 0.0) + per_rank
        return traffic
    for src, row in zip(servers, collective.sizes, strict=True):
        for dst, size in zip(servers, row, strict=True):
            traffic[src, dst] = traffic.get((src, dst), 0.0) + size
    return traffic


def step_traffic(steps: Sequence[Step], placement: Placement) -> Traffic:
    """Bytes between servers of all collectives among `steps`."""
    return merged(collective_traffic(step, placement) for step in steps if isinstance(step, Collective))


def transfer_traffic(transfers: Iterable[Transfer], placement: Placement) -> Traffic:
    """Bytes between servers of point-to-point transfers."""
    return merged(
        {(placement.server_of(t.src), placement.server_of(t.dst)): float(t.size_bytes)} for t in transfers
    )


def layer_s(steps: Sequence[Step], placement: Placement, topology: Topology) -> float:
    """Seconds of one layer's steps: compute at its slowest rank, collectives at their ideal time.

    Consecutive collectives with one label run in different groups at once and share the ports.
    """
    seconds = slowest_compute_s(steps)
    collectives = [step for step in steps if isinstance(step, Collective)]
    for _, group in groupby(collectives, key=lambda step: step.label):
        seconds += drain_s(merged(collective_traffic(step, placement) for step in group), topology)
    return seconds
