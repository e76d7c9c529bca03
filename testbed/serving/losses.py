"""Prefill units and decode workers that are lost, and what becomes of their requests.

Requests that wait on a lost unit go to others. Those in a batch there fail, and so do those whose decode
worker is lost before their first token. What ranks had been told to do, they still do: a batch goes on, and
flows arrive, but nobody waits for them.
"""

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from testbed.faults import DecodeLoss, UnitLoss, losses_of, when
from testbed.job import Job
from testbed.serving.cache.prefix_index import PrefixIndex
from testbed.serving.cache.size_and_use import cache_capacity_blocks
from testbed.serving.routing.decode_workers import Busy
from testbed.serving.system import ServingSystem
from testbed.serving.unit import Phase
from workers.plan import BatchPlan, FetchPlan


class Toll(NamedTuple):
    """What a loss, in words, did to requests: which failed, which moved, and the plans that follow."""

    loss: str
    failed: tuple[int, ...]
    moved: tuple[int, ...] = ()
    plans: tuple[BatchPlan | FetchPlan, ...] = ()


class LossyServing(ServingSystem):
    """A serving system that can lose units and decode workers, and get them back.

    For options with which a request may be in several batches, or is expected by a router, it is not made
    (`experiments.resolve.losses`).
    """

    def __init__(self, job: Job, *, busy: Busy | None = None) -> None:
        super().__init__(job, busy=busy)
        self._lost: set[str] = set()
        self._gone: set[int] = set()
        self._ghosts: set[str] = set()

    def describe(self) -> str:
        return f"{super().describe()}, {len(self._gone)} of these failed"

    def lose_unit(self, now_ns: int, name: str, loss: str) -> Toll:
        """Unit `name` is lost, with all KV that it holds."""
        unit = self._units[name]
        self._lost.add(name)
        waiting = tuple(unit.queue)
        unit.queue.clear()
        self._ghosts |= unit.running.keys()
        failed = self._fail(item.request for plan in unit.running.values() for item in plan.requests)
        unit.expected_tokens.clear()
        index = PrefixIndex(len(unit.computed_tokens), cache_capacity_blocks(self._job))
        index.evicted_blocks = self._indexes[name].evicted_blocks
        self._indexes[name] = index
        plans: list[BatchPlan | FetchPlan] = []
        for request in waiting:
            plans += self._route(now_ns, request)
        return Toll(loss, failed, tuple(request.id for request in waiting), tuple(plans))

    def restore_unit(self, name: str) -> None:
        """The unit is back, with an empty cache. It begins a batch when its last one before has ended."""
        self._lost.discard(name)

    def lose_worker(self, worker: int, loss: str) -> Toll:
        """A decode worker is lost."""
        ranks = self._job.placement.decode_workers[worker]
        return Toll(loss, self._fail(self._decode.lose(ranks)))

    def restore_worker(self, worker: int) -> None:
        self._decode.restore(self._job.placement.decode_workers[worker])

    def _open(self) -> tuple[str, ...]:
        return tuple(name for name in self._units if name not in self._lost)

    def _fail(self, requests: Iterable[int]) -> tuple[int, ...]:
        """Give up those of `requests` that have no first token."""
        failed = tuple(
            dict.fromkeys(id for id in requests if self._phase[id] in (Phase.RUNNING, Phase.PREFILLED))
        )
        for request in failed:
            self._gone.add(request)
            self._enter(Phase.DONE, request)
            self._decode.first_token(request)
        return failed

    def _finish(self, name: str, plan: BatchPlan) -> None:
        """A batch of a unit that was lost leaves nothing. In others, requests that have failed do not."""
        if plan.id in self._ghosts:
            self._ghosts.remove(plan.id)
            return
        kept = tuple(item for item in plan.requests if item.request not in self._gone)
        for item in plan.requests:
            if item.request in self._gone:
                self._units[name].expected_tokens.pop(item.request, None)
        super()._finish(name, msgspec.structs.replace(plan, requests=kept))


class _Moment(NamedTuple):
    """A loss begins (1) or ends (0), at a model time. At one moment, ends come first."""

    time_ns: int
    begins: int
    number: int


class Losses:
    """The losses of a job in order of time, done to its serving system."""

    def __init__(self, job: Job, system: LossyServing) -> None:
        self._system = system
        self._losses = losses_of(job.faults)
        self._moments = [_Moment(loss.from_ns, 1, i) for i, loss in enumerate(self._losses)]
        self._moments += [
            _Moment(loss.to_ns, 0, i) for i, loss in enumerate(self._losses) if loss.to_ns is not None
        ]
        heapq.heapify(self._moments)

    @property
    def due_ns(self) -> int | None:
        return self._moments[0].time_ns if self._moments else None

    def act(self, now_ns: int) -> list[Toll]:
        """Do what is due, and return what it did to requests."""
        tolls = []
        while self._moments and self._moments[0].time_ns <= now_ns:
            moment = heapq.heappop(self._moments)
            loss = self._losses[moment.number]
            if moment.begins:
                tolls.append(self._begin(now_ns, loss))
            else:
                self._end(loss)
        return tolls

    def _begin(self, now_ns: int, loss: UnitLoss | DecodeLoss) -> Toll:
        words = f"{loss.words} {when(loss)}"
        if isinstance(loss, UnitLoss):
            return self._system.lose_unit(now_ns, loss.unit, words)
        return self._system.lose_worker(loss.worker, words)

    def _end(self, loss: UnitLoss | DecodeLoss) -> None:
        if isinstance(loss, UnitLoss):
            self._system.restore_unit(loss.unit)
        else:
            self._system.restore_worker(loss.worker)
