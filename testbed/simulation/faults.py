"""The faults of a job on the simulated fabric: rates of links and the compute of ranks change on time."""

from functools import partial

from testbed.fabric import JobRefused
from testbed.faults import ControllerRestart, LinkFault, RankPause, Straggler, slowdowns_of
from testbed.job import Job
from testbed.simulation._core import Core


def plan_faults(core: Core, job: Job) -> None:
    """Let the faults of `job` happen on `core`. Call it before the run.

    A fault of a moment comes before all else of that moment that is planned during the run. Raises
    `JobRefused` for a restart of the controller: here, levels are in force at once.
    """
    if any(isinstance(fault, ControllerRestart) for fault in job.faults):
        raise JobRefused(
            "faults: controller-restart can be had on the fabric mininet only: the simulated fabric has no"
            " controller that levels and permits wait for"
        )
    number = {link.id: i for i, link in enumerate(job.topology.links)}
    stages = core.ports // len(number) if number else 0
    for fault in job.faults:
        if not isinstance(fault, LinkFault):
            continue
        ports = [number[port] + i * len(number) for port in fault.ports for i in range(stages)]
        for port in ports:
            core.at(fault.from_ns, partial(core.set_share, port, fault.share))
            if fault.to_ns is not None:
                core.at(fault.to_ns, partial(core.set_share, port, 1.0))
    for rank in sorted({fault.rank for fault in job.faults if isinstance(fault, Straggler | RankPause)}):
        for slow in slowdowns_of(job.faults, rank):
            core.slow_down(rank, slow.from_ns, slow.to_ns, slow.factor)
