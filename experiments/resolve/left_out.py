"""What the model of a cluster leaves out, where a user may expect it."""

from collections.abc import Iterator

from experiments.scenario.scenario import Scenario
from testbed.job import Job
from testbed.topology import TopologyKind


def left_out(scenario: Scenario, job: Job) -> Iterator[str]:
    """Yield a line for each thing."""
    if scenario.topology.kind is TopologyKind.FILE:
        yield from scenario.topology.network.notes
    nics = job.topology.shape.nics_of_a_gpu
    if nics > 1:
        yield (
            f"topology.nics_per_server: a GPU has {nics} NICs, and each flow uses one of them; NICs that"
            " share every transfer are one NIC of their total rate"
        )
    if job.requests and job.placement.decode_tp > 1:
        yield (
            "units.decode_tp: the all-reduces of decode steps are left out, from the time of a step and from"
            " the network"
        )
