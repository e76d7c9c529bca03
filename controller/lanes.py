"""Lanes: which flow gets one, and which levels waiting flows lend. Pure, and the same on every fabric.

A lane carries one flow at a time from one rank to another. All lanes of the two ranks for a stage form a
pool. A submitted flow has a claim to a lane of its pool and waits until one is free; the most urgent flow
goes first. While all lanes of a pool are taken, a more urgent flow that waits lends its level to the lane
that was taken first. A rank's side of a process group is a lane as well. The rank's share of a collective
takes it at once.

A fabric extends `Lane` and `Claim` with what it needs to carry flows, and acts on what the calls return: it
permits the flows that got a lane, and moves the flows whose level changed.

The classes are compiled (`controller/core/lanes.hpp`, `claims.hpp`), so that the simulator's core can use
them too. `controller/_core.pyi` describes them.
"""

from collections.abc import Mapping, Sequence

from controller._core import Claim, Claims, Lane, LaneError, LanePool, LevelTrail, loans
from controller.flow import PortId, Stage

__all__ = [
    "Claim",
    "Claims",
    "Lane",
    "LaneError",
    "LanePool",
    "LevelTrail",
    "lane_name",
    "load_of",
    "loans",
]


def lane_name(stage: Stage, src: int, dst: int, number: int) -> str:
    """The name of lane `number` from rank `src` to rank `dst`: `S3.2-9.0`. Its hash selects the path."""
    return f"{stage.value}.{src}-{dst}.{number}"


def load_of(sizes: Mapping[int, int], paths: Mapping[int, Sequence[PortId]]) -> dict[PortId, int]:
    """Bytes that a share of a collective puts on each port: `sizes[peer]` bytes go along `paths[peer]`."""
    load: dict[PortId, int] = {}
    for peer, size in sizes.items():
        for port in paths[peer]:
            load[port] = load.get(port, 0) + size
    return load
