"""The collectives (S2) that a unit has still to run, and how long its batches still take."""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S
from testbed.job import Job
from testbed.placement import by_unit, kinds_of_units
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.build import replica_work
from testbed.serving.plans.idle_network import merged, port_loads, port_seconds, scaled, step_traffic
from testbed.serving.plans.steps import ReplicaWork, steps_of

ByReplica = tuple[float, ...]


class _Running(msgspec.Struct, frozen=True, kw_only=True):
    """A batch: when it began, when it is expected to end, and what all its collectives take, by replica."""

    began_ns: int
    ends_ns: float
    takes_ns: ByReplica

    def left(self, now_ns: int) -> float:
        """The share of its expected time that is left."""
        expected_ns = self.ends_ns - self.began_ns
        return max(0.0, self.ends_ns - now_ns) / expected_ns if expected_ns > 0 else 0.0


class CollectivesAhead:
    """What a unit's running batches have left, as far as the serving system knows.

    Collectives take a replica as long as the busiest of its ports needs for its bytes at line rate. A batch
    is expected to run evenly: it has as much of them left as of its time. Ports that are busy with other
    stages make it take longer, which the serving system is not told.

    `own_ports` returns the ports of the servers of a replica: a unit, and the number of the replica in it.
    Every unit counts as the first one of its kind. Times are kept, because many batches are alike.
    """

    def __init__(self, job: Job, own_ports: Callable[[str, int], Iterable[PortId]]) -> None:
        self._job = job
        self._own_ports = own_ports
        self._first = by_unit(kinds_of_units(job.placement, job.topology), lambda first: first)
        self._running: dict[str, dict[str, _Running]] = {unit: {} for unit in job.placement.replicas}
        self._known: dict[tuple[str, tuple[ReplicaWork, ...]], ByReplica] = {}

    def begun(self, unit: str, batch: str, items: Sequence[Assigned], *, now_ns: int, ends_ns: float) -> None:
        """`batch` has begun on `unit`, with `items` on their replicas."""
        takes_ns = self._takes_ns(unit, items)
        self._running[unit][batch] = _Running(began_ns=now_ns, ends_ns=ends_ns, takes_ns=takes_ns)

    def ended(self, unit: str, batch: str) -> None:
        """`batch` has ended, or was not begun here."""
        self._running[unit].pop(batch, None)

    def busy_ns(self, unit: str, now_ns: int) -> float:
        """Model ns until the running batches are expected to have ended, one after the other."""
        return sum(max(0.0, batch.ends_ns - now_ns) for batch in self._running[unit].values())

    def left_ns(self, unit: str, replica: int, now_ns: int, waiting: Sequence[Assigned]) -> float:
        """Model ns that a port of a replica takes for the collectives that running batches have left, and for
        those of a batch of `waiting`."""
        running = self._running[unit].values()
        left_ns = sum(batch.left(now_ns) * batch.takes_ns[replica] for batch in running)
        return left_ns + self._takes_ns(unit, waiting)[replica]

    def _takes_ns(self, unit: str, items: Sequence[Assigned]) -> ByReplica:
        job, first = self._job, self._first[unit]
        replicas = len(job.placement.replicas[unit])
        if not items:
            return (0.0,) * replicas
        work = tuple(replica_work(items, replicas, job.model))
        if (first, work) not in self._known:
            alike = steps_of(job, first, work)
            traffic = merged(scaled(step_traffic(one.steps, job.placement), len(one.layers)) for one in alike)
            seconds = port_seconds(port_loads(traffic, job.topology), job.topology)
            self._known[first, work] = tuple(
                max((seconds.get(port, 0.0) for port in self._own_ports(first, replica)), default=0.0)
                * NS_PER_S
                for replica in range(replicas)
            )
        return self._known[first, work]
