"""Small parts for tests of the scheduler."""

from controller.flow import BatchRequest, Level
from controller.scheduler import Scheduler


def due(*deadlines_ns: int) -> tuple[BatchRequest, ...]:
    """One request per deadline, called `r0`, `r1` and so on."""
    return tuple(BatchRequest(id=f"r{i}", deadline_ns=at_ns) for i, at_ns in enumerate(deadlines_ns))


def in_force(core: Scheduler, flow: str) -> Level:
    """The level that a flow is at: not the policy's while its request is pruned."""
    return Level.SCAVENGER if flow in core._held else core.view.flows[flow].level
