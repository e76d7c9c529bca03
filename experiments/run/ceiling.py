"""The ceiling of a run: the same requests with a network that takes no time.

No flow scheduling can do better than a network without transfers. But which requests share a batch decides
much too, and a policy that ends batches sooner forms others. So there are two ceilings: one that forms its
own batches, and for each policy one with the batches that it had.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from experiments.errors import UserError
from experiments.results.gap import CEILING, Ceiling, ceiling_of
from testbed.fabric import FabricName
from testbed.faults import ControllerRestart, LinkFault
from testbed.job import Collect, Job, Overheads
from testbed.record import RunRecord
from testbed.serving.replay import NotReplayable, plans_of

_FASTER: Final = 1_000_000
"""A transfer that takes a second on the links of the job takes a microsecond."""


def check_ceiling(fabric: str, *, has_requests: bool) -> None:
    """Raise `UserError` for a run that has no ceiling."""
    if fabric != FabricName.SIM:
        raise UserError(f"--ceiling: the fabric {fabric} cannot do without a network; use --fabric sim")
    if not has_requests:
        raise UserError("--ceiling: single flows are nothing but network; use it with requests")


def without_network(job: Job) -> Job:
    """Return `job` on links on which even its largest transfers take next to no time, under `fair`.

    What a machine adds to compute stays, and so do faults of ranks; what it adds to transfers goes, and so do
    faults of links, of switches and of the controller.
    """
    links = tuple(
        msgspec.structs.replace(link, bps=link.bps * _FASTER, latency_ns=0) for link in job.topology.links
    )
    kept = job.simulation.overheads
    overheads = Overheads(compute_ns=kept.compute_ns, batch_ns=kept.batch_ns)
    return msgspec.structs.replace(
        job,
        policy="fair",
        control=None,
        topology=msgspec.structs.replace(job.topology, links=links),
        simulation=msgspec.structs.replace(job.simulation, overheads=overheads),
        faults=tuple(fault for fault in job.faults if not isinstance(fault, LinkFault | ControllerRestart)),
        collect=Collect.SUMMARY,
    )


def ceilings(
    jobs: Sequence[Job],
    records: Sequence[RunRecord],
    simulate: Callable[[Mapping[str, Job]], Mapping[str, RunRecord]],
) -> Ceiling:
    """Simulate the ceilings of `jobs`, whose runs are `records`.

    `simulate` gets jobs by what they are called, and returns their records. Raises what it raises.
    """
    named = {CEILING: without_network(jobs[0])}
    if jobs[0].plans:  # of all policies the same
        own = simulate(named)[CEILING]
        return ceiling_of(own, {job.policy: own for job in jobs}, {})
    names: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for job, record in zip(jobs, records, strict=True):
        try:
            plans = plans_of(job, record.requests)
        except NotReplayable as error:
            reasons[job.policy] = str(error)
            continue
        names[job.policy] = f"{CEILING}, batches of {job.policy}"
        named[names[job.policy]] = msgspec.structs.replace(without_network(job), plans=plans)
    found = simulate(named)
    same = {policy: found[name] for policy, name in names.items()}
    return ceiling_of(found[CEILING], same, reasons)
