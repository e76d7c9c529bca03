"""How long a batch takes on idle links."""

from collections.abc import Sequence

import msgspec

from controller.units import NS_PER_S
from testbed.job import Job
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.build import replica_work
from testbed.serving.plans.idle_network import layer_s
from testbed.serving.plans.steps import ReplicaWork, step_options, unit_steps


class BatchTimes:
    """Model ns of the compute and collectives of batches, on idle links and without S1.

    Layers of all pipeline stages count, one after the other. All units count as the first one. Times are
    kept, because many batches of small requests are alike.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._unit, replicas = next(iter(job.placement.replicas.items()))
        self._replicas = len(replicas)
        self._known: dict[tuple[ReplicaWork, ...], float] = {}

    def ns(self, items: Sequence[Assigned]) -> float:
        """The time of a batch of `items` on their replicas; 0 without items."""
        return self._work_ns(replica_work(items, self._replicas, self._job.model)) if items else 0.0

    def even_ns(self, items: Sequence[Assigned]) -> float:
        """The same, with the most new tokens first and each request on the replica with the fewest so far."""
        load = [0] * self._replicas
        spread = []
        for item in sorted(items, key=lambda item: -item.new_tokens):
            replica = load.index(min(load))
            load[replica] += item.new_tokens
            spread.append(msgspec.structs.replace(item, replica=replica))
        return self.ns(spread)

    def _work_ns(self, work: Sequence[ReplicaWork]) -> float:
        key = tuple(work)
        if key not in self._known:
            job = self._job
            alike = unit_steps(
                key,
                unit=self._unit,
                placement=job.placement,
                model=job.model,
                gpu=job.gpu,
                options=step_options(job),
            )
            seconds = sum(len(g.layers) * layer_s(g.steps, job.placement, job.topology) for g in alike)
            self._known[key] = seconds * NS_PER_S
        return self._known[key]
