"""The collectives (S2) that a unit has still to run, by port, and how long its batches still take."""

from collections.abc import Mapping, Sequence

import msgspec

from controller.flow import PortId
from testbed.job import Job
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.build import replica_work
from testbed.serving.plans.idle_network import merged, port_loads, scaled, step_traffic
from testbed.serving.plans.steps import step_options, unit_steps


class _Running(msgspec.Struct, frozen=True, kw_only=True):
    """A batch: when it began, when it is expected to end, and the bytes of all its collectives by port."""

    began_ns: int
    ends_ns: float
    load: Mapping[PortId, float]

    def left(self, now_ns: int) -> float:
        """The share of its expected time that is left."""
        takes_ns = self.ends_ns - self.began_ns
        return max(0.0, self.ends_ns - now_ns) / takes_ns if takes_ns > 0 else 0.0


class CollectivesAhead:
    """What a unit's running batches have left, as far as the serving system knows.

    A batch is expected to run evenly: it has as much of its collectives left as of its time. Ports that are
    busy with other stages make it take longer, which the serving system is not told.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._running: dict[str, dict[str, _Running]] = {unit: {} for unit in job.placement.replicas}

    def begun(self, unit: str, batch: str, items: Sequence[Assigned], *, now_ns: int, ends_ns: float) -> None:
        """`batch` has begun on `unit`, with `items` on their replicas."""
        load = self.load(unit, items)
        self._running[unit][batch] = _Running(began_ns=now_ns, ends_ns=ends_ns, load=load)

    def ended(self, unit: str, batch: str) -> None:
        """`batch` has ended, or has never begun here."""
        self._running[unit].pop(batch, None)

    def busy_ns(self, unit: str, now_ns: int) -> float:
        """Model ns until the running batches are expected to have ended, one after the other."""
        return sum(max(0.0, batch.ends_ns - now_ns) for batch in self._running[unit].values())

    def left(self, unit: str, now_ns: int, waiting: Sequence[Assigned]) -> dict[PortId, float]:
        """Bytes by port of what running batches have left, and of a batch of those that wait."""
        running = (scaled(batch.load, batch.left(now_ns)) for batch in self._running[unit].values())
        return merged((self.load(unit, waiting), *running))

    def load(self, unit: str, items: Sequence[Assigned]) -> dict[PortId, float]:
        """Bytes by port of all collectives of a batch of `items` on their replicas of `unit`."""
        if not items:
            return {}
        job = self._job
        alike = unit_steps(
            replica_work(items, len(job.placement.replicas[unit]), job.model),
            unit=unit,
            placement=job.placement,
            model=job.model,
            gpu=job.gpu,
            options=step_options(job),
        )
        traffic = merged(scaled(step_traffic(one.steps, job.placement), len(one.layers)) for one in alike)
        return port_loads(traffic, job.topology)
