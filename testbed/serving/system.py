"""The serving system: events in, batch plans out."""

import enum
from collections import deque

from controller.overload import QueueOrder
from testbed.job import Job, Request
from testbed.serving.assignment import (
    assign,
    cacheable_blocks,
    find_reuse,
    reusable_blocks,
    tokens_to_compute,
)
from testbed.serving.batcher import by_deadline, take_batch, token_ns, too_late_last
from testbed.serving.plans import build_plan
from testbed.serving.prefix import PrefixIndex
from testbed.serving.router import UnitView, make_decode_choice, make_router
from workers.plan import BatchPlan


class Phase(enum.Enum):
    """How far a request is: waiting for a batch, in one, waiting for its first token, past it."""

    QUEUED = "queued"
    RUNNING = "running"
    PREFILLED = "prefilled"
    DONE = "done"


class _Unit:
    """A prefill unit: what waits for it, what it runs, and the new tokens it has yet to finish."""

    def __init__(self, replicas: int) -> None:
        self.queue: deque[Request] = deque()
        self.running: BatchPlan | None = None
        self.batches = 0
        self.expected_tokens: dict[int, int] = {}
        self.computed_tokens = [0] * replicas

    def queued_tokens(self) -> int:
        return sum(self.expected_tokens.values())


class ServingSystem:
    """Routes requests, forms batches and plans them, one batch per unit at a time.

    Every event takes the model time it happened at and returns the plans it gave rise to. The
    caller reports each batch when all its ranks are through, and each request's first token; a
    first token may be reported before its batch, for reports of different ranks can overtake each
    other. `cache_blocks` bounds the KV blocks a replica keeps (`None`: no bound).

    A unit's queue is first come, first served, unless `job.control` orders it.

    Raises `ValueError` for a router or decode choice that is not known.
    """

    def __init__(self, job: Job, *, cache_blocks: int | None = None) -> None:
        self._job = job
        self._token_ns = token_ns(job) if job.control is not None else 0.0
        self._router = make_router(job.serving)
        self._decode_choice = make_decode_choice(job.serving)
        self._units = {name: _Unit(len(replicas)) for name, replicas in job.placement.replicas.items()}
        self._indexes = {
            name: PrefixIndex(len(replicas), cache_blocks)
            for name, replicas in job.placement.replicas.items()
        }
        self._requests: dict[int, Request] = {}
        self._phase: dict[int, Phase] = {}
        self._count = dict.fromkeys(Phase, 0)
        self._decode_rank: dict[int, int] = {}
        self._decode_tokens = dict.fromkeys(job.placement.decode, 0)

    def arrive(self, now_ns: int, request: Request) -> list[BatchPlan]:
        """A request arrives. Raises `ValueError` when its id is taken or its prompt is empty."""
        if request.id in self._phase:
            raise ValueError(f"request {request.id} has already arrived")
        if request.prompt_tokens < 1:
            raise ValueError(f"request {request.id} has a prompt of {request.prompt_tokens} tokens")
        names = tuple(self._units)
        views = [self._view(name, request) for name in names]
        name = names[self._router.choose(views)]
        unit = self._units[name]
        reuse = find_reuse(request, name, self._indexes)
        unit.expected_tokens[request.id] = tokens_to_compute(request, reuse)
        unit.queue.append(request)
        self._requests[request.id] = request
        self._enter(Phase.QUEUED, request.id)
        return self._start(now_ns, name)

    def batch_done(self, now_ns: int, batch_id: str) -> list[BatchPlan]:
        """All ranks are through a batch: its KV can be reused from now on, the unit is free.

        Raises `ValueError` for a batch that is not running.
        """
        for name, unit in self._units.items():
            if unit.running is not None and unit.running.id == batch_id:
                self._finish(name, unit.running)
                unit.running = None
                return self._start(now_ns, name)
        raise ValueError(f"batch {batch_id!r} is not running")

    def first_token(self, now_ns: int, request_id: int) -> None:
        """A request's first token is out. Raises `ValueError` where that cannot be."""
        phase = self._phase.get(request_id)
        if phase not in (Phase.RUNNING, Phase.PREFILLED):
            state = "unknown" if phase is None else phase.value
            raise ValueError(f"first token of request {request_id}, which is {state}")
        self._enter(Phase.DONE, request_id)
        rank = self._decode_rank.pop(request_id)
        self._decode_tokens[rank] -= self._requests[request_id].prompt_tokens

    def pending(self) -> int:
        """Requests that have arrived and not had their first token."""
        return len(self._phase) - self._count[Phase.DONE]

    def counts(self) -> dict[Phase, int]:
        """Requests in each phase; together, all that have arrived."""
        return dict(self._count)

    def _enter(self, phase: Phase, request_id: int) -> None:
        previous = self._phase.get(request_id)
        if previous is not None:
            self._count[previous] -= 1
        self._phase[request_id] = phase
        self._count[phase] += 1

    def _view(self, name: str, request: Request) -> UnitView:
        cached = len(self._indexes[name].lookup(reusable_blocks(request)))
        return UnitView(
            queued_tokens=self._units[name].queued_tokens(),
            cached_tokens=cached * request.block_tokens,
        )

    def _start(self, now_ns: int, name: str) -> list[BatchPlan]:
        """Form a batch if the unit is idle and has something to do."""
        unit = self._units[name]
        if unit.running is not None or not unit.queue:
            return []
        self._order(now_ns, unit)
        batch = take_batch(
            unit.queue,
            lambda request: tokens_to_compute(request, find_reuse(request, name, self._indexes)),
            self._job.serving.max_batch_tokens,
        )
        for _ in batch:
            unit.queue.popleft()
        placement = self._job.placement
        assigned = assign(
            batch,
            name,
            len(placement.replicas[name]),
            self._indexes,
            computed_tokens=unit.computed_tokens,
        )
        for item in assigned:
            unit.computed_tokens[item.replica] += item.new_tokens
            unit.expected_tokens[item.request.id] = item.new_tokens
            self._enter(Phase.RUNNING, item.request.id)
            self._choose_decode(item.request)
        unit.running = build_plan(
            batch=f"{name}.b{unit.batches}",
            unit=name,
            assigned=assigned,
            decode_ranks={request.id: self._decode_rank[request.id] for request in batch},
            topology=self._job.topology,
            placement=placement,
            model=self._job.model,
            gpu=self._job.gpu,
            formed_ns=now_ns,
            all_reduce=self._job.serving.all_reduce,
        )
        unit.batches += 1
        return [unit.running]

    def _order(self, now_ns: int, unit: _Unit) -> None:
        control = self._job.control
        if control is None or control.order is QueueOrder.FCFS:
            return
        queue = by_deadline(unit.queue)
        if control.prune:
            queue = too_late_last(
                queue,
                now_ns=now_ns,
                unit_ns=lambda request: unit.expected_tokens[request.id] * self._token_ns,
                most=control.most_pruned(len(queue)),
            )
        unit.queue = deque(queue)

    def _choose_decode(self, request: Request) -> None:
        ranks = self._job.placement.decode
        rank = ranks[self._decode_choice.choose([self._decode_tokens[r] for r in ranks])]
        self._decode_rank[request.id] = rank
        self._decode_tokens[rank] += request.prompt_tokens

    def _finish(self, name: str, plan: BatchPlan) -> None:
        replica_of = {ranks: i for i, ranks in enumerate(self._job.placement.replicas[name])}
        for item in plan.requests:
            del self._units[name].expected_tokens[item.request]
            blocks = cacheable_blocks(self._requests[item.request])
            self._indexes[name].insert(blocks, replica_of[item.replica])
            if self._phase[item.request] is Phase.RUNNING:
                self._enter(Phase.PREFILLED, item.request)
