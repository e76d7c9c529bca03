"""How long a batch takes on idle links."""

from collections.abc import Sequence

import msgspec

from controller.units import NS_PER_S
from testbed.job import Job, ReuseRule
from testbed.placement import by_unit, kinds_of_units
from testbed.serving.cache.assignment import Assigned, stays_home
from testbed.serving.plans.build import replica_work
from testbed.serving.plans.idle_network import layer_s
from testbed.serving.plans.steps import ReplicaWork, steps_of


class BatchTimes:
    """Model ns of the compute and collectives of batches, on idle links and without S1.

    Layers of all pipeline stages count, one after the other. Every unit counts as the first one of its kind
    (`placement.kinds_of_units`). Times are kept, because many batches of small requests are alike.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._first = by_unit(kinds_of_units(job.placement, job.topology), lambda first: first)
        self._known: dict[tuple[str, tuple[ReplicaWork, ...]], float] = {}

    def ns(self, unit: str, items: Sequence[Assigned]) -> float:
        """The time of a batch of `items` on their replicas of `unit`; 0 without items."""
        if not items:
            return 0.0
        replicas = len(self._job.placement.replicas[unit])
        return self._work_ns(self._first[unit], replica_work(items, replicas, self._job.model))

    def even(self, unit: str, items: Sequence[Assigned]) -> list[Assigned]:
        """`items` with the most new tokens first, each on the replica with the fewest so far."""
        load = [0] * len(self._job.placement.replicas[unit])
        spread = []
        for item in sorted(items, key=lambda item: -item.new_tokens):
            replica = load.index(min(load))
            load[replica] += item.new_tokens
            spread.append(msgspec.structs.replace(item, replica=replica))
        return spread

    def waiting(self, unit: str, items: Sequence[Assigned]) -> list[Assigned]:
        """A batch of requests that wait, on their replicas as far as these are known.

        A prefix can be fetched by any replica, so requests count as in `even`. If it is computed again
        instead, a request stays with the replica that has it, unless `assignment.HOME_SLACK` says otherwise.
        """
        if self._job.serving.reuse is not ReuseRule.RECOMPUTE:
            return self.even(unit, items)
        load = [0] * len(self._job.placement.replicas[unit])
        spread = []
        for item in sorted(items, key=lambda item: -item.new_tokens):
            replica = load.index(min(load))
            away = msgspec.structs.replace(item, replica=replica, local_blocks=0)
            at_home = item.local_tokens and stays_home(load, item, away)
            taken = item if at_home else away
            load[taken.replica] += taken.new_tokens
            spread.append(taken)
        return spread

    def _work_ns(self, unit: str, work: Sequence[ReplicaWork]) -> float:
        key = unit, tuple(work)
        if key not in self._known:
            job = self._job
            alike = steps_of(job, unit, work)
            seconds = sum(len(g.layers) * layer_s(g.steps, job.placement, job.topology) for g in alike)
            self._known[key] = seconds * NS_PER_S
        return self._known[key]
