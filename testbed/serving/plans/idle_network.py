"""Times on an idle network: every port sends at line rate, and there is no other traffic.

A message arrives when its last byte has left, plus the latency of its path.

Traffic maps (source node, destination node) to bytes. A node is where a rank's GPU is in the topology.
Traffic of a node with itself crosses no port. Equal-cost paths share traffic evenly.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from controller.flow import PortId
from testbed.job import Placement
from testbed.serving.plans.steps import block_compute_s, side_by_side, slowest_compute_s
from testbed.topology import Topology
from workers.plan import Collective, CollectiveKind, Step

Traffic = dict[tuple[str, str], float]

K = TypeVar("K")


class Message(Protocol):
    """Bytes that one rank sends to another, for a request or for none."""

    @property
    def src(self) -> int: ...

    @property
    def dst(self) -> int: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def request(self) -> int | None: ...


def merged(parts: Iterable[Mapping[K, float]]) -> dict[K, float]:
    """The sum of several traffics, or of several loads of ports."""
    total: dict[K, float] = {}
    for part in parts:
        for key, size_bytes in part.items():
            total[key] = total.get(key, 0.0) + size_bytes
    return total


def scaled(traffic: Traffic, factor: float) -> Traffic:
    return {pair: size_bytes * factor for pair, size_bytes in traffic.items()}


def port_loads(traffic: Traffic, topology: Topology) -> dict[PortId, float]:
    """Bytes of `traffic` on every port it crosses."""
    return topology.loads(traffic)


def drain_s(traffic: Traffic, topology: Topology) -> float:
    """Seconds until the busiest port has sent its part of `traffic` at line rate."""
    return busiest_s(port_loads(traffic, topology), topology)


def busiest_s(load: Mapping[PortId, float], topology: Topology) -> float:
    """Seconds that the busiest port needs for its bytes of `load` at line rate."""
    return max(port_seconds(load, topology).values(), default=0.0)


def port_seconds(load: Mapping[PortId, float], topology: Topology) -> dict[PortId, float]:
    """Seconds that each port needs for its bytes of `load` at line rate."""
    return {port: size * 8 / topology.link(port).bps for port, size in load.items()}


def step_traffic(steps: Iterable[Step], placement: Placement) -> Traffic:
    """Bytes between nodes of all collectives among `steps`, over all their rounds (`workers.rounds`)."""
    traffic: Traffic = {}
    for step in steps:
        if isinstance(step, Collective):
            nodes = [placement.node_of(rank) for rank in placement.groups[step.group]]
            for src, sent in zip(nodes, step.sent(len(nodes)), strict=True):
                for peer, size in sent.items():
                    pair = src, nodes[peer]
                    traffic[pair] = traffic.get(pair, 0.0) + size
    return traffic


def transfer_traffic(messages: Iterable[Message], placement: Placement) -> Traffic:
    """Bytes between nodes of point-to-point messages."""
    traffic: Traffic = {}
    for message in messages:
        pair = placement.node_of(message.src), placement.node_of(message.dst)
        traffic[pair] = traffic.get(pair, 0.0) + message.size_bytes
    return traffic


def layer_s(steps: Sequence[Step], placement: Placement, topology: Topology) -> float:
    """Seconds of one layer's steps: compute at its slowest rank, collectives at their ideal time.

    Consecutive collectives with the same label run at once in different groups, and share the ports. If
    their rounds differ, they take one round after another, with all groups in step. Ring attention counts
    only for the time that its compute does not hide.
    """
    (seconds,) = layers_s([steps], placement, topology)
    return seconds


def layers_s(layers: Iterable[Sequence[Step]], placement: Placement, topology: Topology) -> list[float]:
    """`layer_s` of each of `layers`. Collectives that several of them have are worked out once."""
    known: dict[tuple[Collective, ...], float] = {}
    found: list[float] = []
    for steps in layers:
        seconds = slowest_compute_s(steps)
        for together in map(tuple, side_by_side(steps)):
            if together not in known:
                known[together] = _collectives_s(together, placement, topology)
            seconds += known[together]
        found.append(seconds)
    return found


def _collectives_s(together: Sequence[Collective], placement: Placement, topology: Topology) -> float:
    """Seconds of collectives that run at once, without the compute inside them.

    Each round takes the longest latency between its members, in addition to what their ports send.
    """
    if any(step.kind in _BY_ROUND for step in together):
        return _rounds_s(together, placement, topology)
    traffic = step_traffic(together, placement)
    rounds = max((step.rounds(len(placement.groups[step.group])).count for step in together), default=0)
    return drain_s(traffic, topology) + rounds * topology.latency_s(traffic)


_BY_ROUND = (CollectiveKind.TREE_ALL_REDUCE, CollectiveKind.ALL_GATHER, CollectiveKind.RING_ATTENTION)
"""A port has more to send in some rounds than in others: all rounds take longer than it is busy."""


def _rounds_s(together: Sequence[Collective], placement: Placement, topology: Topology) -> float:
    compute_s = block_compute_s(together)
    rounds = [_round_traffic(step, placement) for step in together]
    seconds = 0.0
    for number in range(max(map(len, rounds))):
        traffic = merged(each[number] for each in rounds if number < len(each))
        needed_s = drain_s(traffic, topology) + topology.latency_s(traffic)
        hidden_s = compute_s[number] if number < len(compute_s) else 0.0
        seconds += max(0.0, needed_s - hidden_s)
    return seconds


def _round_traffic(collective: Collective, placement: Placement) -> list[Traffic]:
    """Bytes between nodes in each round of one collective."""
    nodes = [placement.node_of(rank) for rank in placement.groups[collective.group]]
    rounds, parts = collective.rounds(len(nodes)), collective.parts(len(nodes))
    return [
        merged(
            {(src, nodes[message.peer]): float(parts[message.part])}
            for index, src in enumerate(nodes)
            for message in rounds.sends(index, number)
        )
        for number in range(rounds.count)
    ]
