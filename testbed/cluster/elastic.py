"""A job after the loss of ranks: it runs again without their prefill units and decode workers. Pure.

docs/decisions/0049-elastic-runs.md says why it begins again, and does not go on from where it was.
"""

from collections.abc import Collection

import msgspec

from testbed.cluster.assignment import Assigned
from testbed.faults import DecodeLoss, Loss, UnitLoss, losses_of
from testbed.job import Job


def without(job: Job, ranks: Collection[int]) -> Job | None:
    """Return `job` with the units and decode workers of `ranks` lost from the start, in `faults`.

    Returns None if nothing more is lost than was before, or if no unit or no decode worker is left.
    """
    placement = job.placement
    there = {_key(loss) for loss in losses_of(job.faults)}
    losses: list[Loss] = [
        UnitLoss(unit=unit, from_ns=0, to_ns=None)
        for unit, members in placement.units.items()
        if not set(members).isdisjoint(ranks) and unit not in there
    ]
    losses += [
        DecodeLoss(worker=worker, from_ns=0, to_ns=None)
        for worker, members in enumerate(placement.decode_workers)
        if not set(members).isdisjoint(ranks) and worker not in there
    ]
    found = msgspec.structs.replace(job, faults=(*job.faults, *losses))
    gone = {_key(loss) for loss in losses_of(found.faults)}
    left = (placement.units.keys() - gone, set(range(len(placement.decode_workers))) - gone)
    return found if losses and all(left) else None


def absent(job: Job) -> frozenset[int]:
    """The ranks of the units and decode workers that `job` has lost."""
    placement = job.placement
    return frozenset(
        rank
        for loss in losses_of(job.faults)
        for rank in (
            placement.units[loss.unit]
            if isinstance(loss, UnitLoss)
            else placement.decode_workers[loss.worker]
        )
    )


def still_there(assigned: Assigned, job: Job) -> Assigned:
    """Return who plays what, without the ranks that `job` has lost, and without servers that had no more."""
    gone = absent(job)
    servers = {rank.server for rank in job.placement.ranks if rank.rank not in gone}
    return msgspec.structs.replace(
        assigned,
        machines={server: machine for server, machine in assigned.machines.items() if server in servers},
        places={rank: place for rank, place in assigned.places.items() if rank not in gone},
    )


def in_words(job: Job) -> str:
    """What `job` has lost: "unit p1, decode worker 0"."""
    return ", ".join(loss.place for loss in losses_of(job.faults))


def _key(loss: Loss) -> str | int:
    return loss.unit if isinstance(loss, UnitLoss) else loss.worker
