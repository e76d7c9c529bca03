"""The serving system: events in, batch plans out."""

import enum
from collections import deque
from collections.abc import Sequence
from functools import cached_property

import msgspec

from testbed.job import Job, Request
from testbed.placement import by_unit, kinds_of_units
from testbed.record import CacheRow
from testbed.serving.batching.forming import take_batch, token_ns
from testbed.serving.batching.preemption import rest_ns, urgent
from testbed.serving.batching.rules import Waiting, make_rule
from testbed.serving.batching.split_prompts import BegunPrompts, assign_parts, tokens_by_then
from testbed.serving.cache.assignment import Assigned, assign, cacheable_blocks, find_reuse, reusable_blocks
from testbed.serving.cache.prefix_index import PrefixIndex
from testbed.serving.cache.size_and_use import cache_capacity_blocks, use_of
from testbed.serving.plans.build import build_plan
from testbed.serving.plans.fetching import fetch_plan, with_fetches
from testbed.serving.plans.steps import step_options
from testbed.serving.routing.decode_choices import WorkerView, make_decode_choice
from testbed.serving.routing.estimates import compute_ns, delivery_traffic, fetch_traffic, transfer_ns
from testbed.serving.routing.port_bytes import PortBytes
from testbed.serving.routing.routers import UnitView, make_router
from workers.plan import BatchPlan, FetchPlan, Resume


class Phase(enum.Enum):
    """How far a request has got: waiting for a batch, in one, waiting for its first token, past it."""

    QUEUED = "queued"
    RUNNING = "running"
    PREFILLED = "prefilled"
    DONE = "done"


class _Unit:
    """A prefill unit: its queue, the batches it runs, and the new tokens it has yet to compute.

    `expected_tokens` are these tokens by request id. `paused` is the batch among `running` that has paused,
    with the layer it goes on with.
    """

    def __init__(self, replicas: int) -> None:
        self.queue: deque[Request] = deque()
        self.running: dict[str, BatchPlan] = {}
        self.paused: tuple[BatchPlan, int] | None = None
        self.batches = 0
        self.expected_tokens: dict[int, int] = {}
        self.computed_tokens = [0] * replicas

    def queued_tokens(self) -> int:
        return sum(self.expected_tokens.values())


class ServingSystem:
    """Routes requests, forms batches and plans them. A unit runs as many batches at once as it has stages.

    An event takes the model time at which it happened and returns the plans that follow from it. The
    caller reports when all ranks have finished a batch, and when a request's first token is out. It may
    report a first token before its batch, because reports of different ranks can overtake each other.

    With `job.serving.fetch_early`, a request that cannot start at once gets its replica when it arrives.
    What it reuses is fixed then too, and a `FetchPlan` fetches its S1. Its batch reuses this KV and what
    has been cached beyond it in the meantime.

    A rule decides which requests leave a unit's queue first (`testbed.serving.batching.rules`). With
    `job.serving.chunk_tokens`, a prompt may be split. Its request returns to the head of the queue when a
    part has been computed, so no part starts before the previous one has ended. With
    `job.serving.preempt_layers`, the caller reports each pause of a batch. The answer is to resume the
    batch, or to run another one first (`testbed.serving.batching.preemption`), which does not pause.

    Raises `ValueError` for an unknown router, decode choice or batching, for preemption in a pipeline, and
    for a cache that has no room for a block.
    """

    def __init__(self, job: Job) -> None:
        if job.serving.preempt_layers is not None and job.placement.most_stages > 1:
            raise ValueError("a unit with several pipeline stages cannot be preempted")
        self._job = job
        self._kinds = kinds_of_units(job.placement, job.topology)
        self._rules = by_unit(self._kinds, lambda unit: make_rule(job, unit))
        self._router = make_router(job.serving, seed=job.seed)
        self._decode_choice = make_decode_choice(job.serving)
        self._units = {name: _Unit(len(replicas)) for name, replicas in job.placement.replicas.items()}
        cache_blocks = cache_capacity_blocks(job)
        self._indexes = {
            name: PrefixIndex(len(replicas), cache_blocks)
            for name, replicas in job.placement.replicas.items()
        }
        self._requests: dict[int, Request] = {}
        self._phase: dict[int, Phase] = {}
        self._count = dict.fromkeys(Phase, 0)
        self._decode_ranks: dict[int, tuple[int, ...]] = {}
        self._decode_tokens = dict.fromkeys(job.placement.decode_workers, 0)
        self._begun = BegunPrompts()
        self._early: dict[int, tuple[Assigned, FetchPlan]] = {}
        self._port_bytes = PortBytes(job.topology)
        self._cache_use = {name: CacheRow(unit=name) for name in job.placement.replicas}

    @cached_property
    def _token_ns(self) -> dict[str, float]:
        """The token time of each unit; that of the first of its kind, wherever its ranks are."""
        return by_unit(self._kinds, lambda unit: token_ns(self._job, unit))

    def arrive(self, now_ns: int, request: Request) -> list[BatchPlan | FetchPlan]:
        """A request arrives. Raises `ValueError` if its id is taken or its prompt is empty."""
        if request.id in self._phase:
            raise ValueError(f"request {request.id} has already arrived")
        if request.prompt_tokens < 1:
            raise ValueError(f"request {request.id} has a prompt of {request.prompt_tokens} tokens")
        names = tuple(self._units)
        views = [self._view(name, request) for name in names]
        name = names[self._router.choose(request, views)]
        unit = self._units[name]
        unit.expected_tokens[request.id] = self._new_tokens(name, request)
        unit.queue.append(request)
        self._requests[request.id] = request
        self._enter(Phase.QUEUED, request.id)
        started = self._start(now_ns, name)
        if self._job.serving.fetch_early and self._phase[request.id] is Phase.QUEUED:
            return [*started, *self._send_for(now_ns, name, request)]
        return [*started]

    def batch_done(self, now_ns: int, batch_id: str) -> list[BatchPlan | Resume]:
        """All ranks have finished a batch: its KV can be reused from now on, and another batch can start.

        Raises `ValueError` for a batch that is not running or has paused.
        """
        name, unit = self._unit_of(batch_id)
        if unit.paused is not None and unit.paused[0].id == batch_id:
            raise ValueError(f"batch {batch_id!r} has paused, it cannot end")
        self._finish(name, unit.running.pop(batch_id))
        if unit.paused is not None:
            return self._go_on(now_ns, name)
        return [*self._start(now_ns, name)]

    def paused(self, now_ns: int, batch_id: str, layer: int) -> list[BatchPlan | Resume]:
        """All ranks of a batch have paused before `layer`: it goes on, or another batch goes first.

        Raises `ValueError` for a batch that is not running or does not pause there.
        """
        name, unit = self._unit_of(batch_id)
        plan = unit.running[batch_id]
        if unit.paused is not None or not plan.pauses_before(layer):
            raise ValueError(f"batch {batch_id!r} cannot pause before layer {layer}")
        unit.paused = plan, layer
        return self._go_on(now_ns, name)

    def first_token(self, now_ns: int, request_id: int) -> None:
        """A request's first token is out. Raises `ValueError` if it was out already or no batch had it."""
        phase = self._phase.get(request_id)
        if phase not in (Phase.RUNNING, Phase.PREFILLED):
            state = "unknown" if phase is None else phase.value
            raise ValueError(f"first token of request {request_id}, which is {state}")
        self._enter(Phase.DONE, request_id)
        worker = self._decode_ranks.pop(request_id)
        self._decode_tokens[worker] -= self._requests[request_id].prompt_tokens
        self._port_bytes.take_off(("S3", request_id))

    def counts(self) -> dict[Phase, int]:
        """Number of requests in each phase. They add up to all that have arrived."""
        return dict(self._count)

    def describe(self) -> str:
        """Number of requests in each phase, in words."""
        return ", ".join(f"{count} {phase.value}" for phase, count in self.counts().items())

    def _unit_of(self, batch_id: str) -> tuple[str, _Unit]:
        for name, unit in self._units.items():
            if batch_id in unit.running:
                return name, unit
        raise ValueError(f"batch {batch_id!r} is not running")

    def _enter(self, phase: Phase, request_id: int) -> None:
        previous = self._phase.get(request_id)
        if previous is not None:
            self._count[previous] -= 1
        self._phase[request_id] = phase
        self._count[phase] += 1

    def caches(self) -> tuple[CacheRow, ...]:
        """Hits, misses and evictions of each unit's prefix cache so far."""
        return tuple(
            msgspec.structs.replace(use, evicted_blocks=self._indexes[name].evicted_blocks)
            for name, use in self._cache_use.items()
        )

    # --- arrivals -------------------------------------------------------------------------------

    def _view(self, name: str, request: Request) -> UnitView:
        unit = self._units[name]
        cached = len(self._indexes[name].lookup(reusable_blocks(request)))
        queued = unit.queued_tokens()
        queue_ns = queued * self._token_ns[name]
        compute = transfer = 0.0
        if self._router.costs:
            item = self._alone(name, request)
            compute = compute_ns(self._job, item, name, self._token_ns[name])
            transfer = transfer_ns(self._job, item, name, self._port_bytes, compute, queue_ns)
        return UnitView(
            queued_tokens=queued,
            cached_tokens=cached * request.block_tokens,
            queue_ns=queue_ns,
            transfer_ns=transfer,
            compute_ns=compute,
        )

    def _alone(self, name: str, request: Request) -> Assigned:
        """Where `request` would run on unit `name` as a batch by itself."""
        unit = self._units[name]
        promised = list(unit.computed_tokens)
        for waiting in unit.queue:
            early = self._early.get(waiting.id)
            if early is not None:
                promised[early[0].replica] += early[0].new_tokens
        (item,) = assign([request], name, len(promised), self._indexes, computed_tokens=promised)
        return item

    def _send_for(self, now_ns: int, name: str, request: Request) -> list[FetchPlan]:
        """Fix the replica of a queued request, and fetch the reused KV that this replica lacks."""
        item = self._alone(name, request)
        if not item.fetches:
            return []
        placement = self._job.placement
        alone = build_plan(
            batch=f"{name}.f{request.id}",
            unit=name,
            assigned=[item],
            decode_ranks={request.id: placement.decode_workers[0]},
            topology=self._job.topology,
            placement=placement,
            model=self._job.model,
            gpu=self._job.gpu,
            formed_ns=now_ns,
            options=step_options(self._job),
        )
        fetch = fetch_plan(alone, placement.replicas[name][item.replica])
        self._early[request.id] = item, fetch
        self._note_fetch(name, item)
        return [fetch]

    def _new_tokens(self, name: str, request: Request) -> int:
        """Tokens that `request` has yet to compute on unit `name`, as far as is known now."""
        left = self._begun.left(request)
        if left is not None:
            return left
        reused = len(find_reuse(request, name, self._indexes).holders)
        early = self._early.get(request.id)
        if early is not None:
            reused = max(reused, early[0].reused_blocks)
        return request.prompt_tokens - reused * request.block_tokens

    # --- batches --------------------------------------------------------------------------------

    def _start(self, now_ns: int, name: str) -> list[BatchPlan]:
        """Form batches while the unit has room for one and requests wait."""
        unit = self._units[name]
        formed: list[BatchPlan] = []
        while unit.queue and unit.paused is None and len(unit.running) < self._job.placement.shapes[name].pp:
            waiting = [Waiting(request, unit.expected_tokens[request.id]) for request in unit.queue]
            candidates = self._rules[name].candidates(now_ns, waiting)
            formed.append(self._form(now_ns, name, candidates, self._job.serving.preempt_layers))
        return formed

    def _go_on(self, now_ns: int, name: str) -> list[BatchPlan | Resume]:
        """Decide what the ranks do now that a batch has paused, or one that went first has ended."""
        unit = self._units[name]
        assert unit.paused is not None
        plan, layer = unit.paused
        first = urgent(
            unit.queue,
            now_ns=now_ns,
            rest_ns=rest_ns(plan, layer, self._job.placement, self._job.topology) if unit.queue else 0.0,
            due_ns=min(item.deadline_ns for item in plan.requests),
            unit_ns=lambda request: unit.expected_tokens[request.id] * self._token_ns[name],
        )
        if first:
            return [self._form(now_ns, name, first, None)]
        unit.paused = None
        return [Resume(batch=plan.id)]

    def _form(
        self, now_ns: int, name: str, candidates: Sequence[Request], pause_every: int | None
    ) -> BatchPlan:
        """Form a batch of as many `candidates` as fit, and remove them from the queue."""
        unit, serving, placement = self._units[name], self._job.serving, self._job.placement
        batch = take_batch(
            candidates,
            lambda request: self._new_tokens(name, request),
            min(serving.max_batch_tokens, serving.chunk_tokens or serving.max_batch_tokens),
            split=serving.chunk_tokens is not None,
        )
        taken = {part.request.id for part in batch}
        unit.queue = deque(request for request in unit.queue if request.id not in taken)
        assigned = assign_parts(
            batch,
            name,
            self._indexes,
            begun=self._begun,
            computed_tokens=unit.computed_tokens,
            fixed={request: item for request, (item, _) in self._early.items()},
        )
        for item in assigned:
            unit.computed_tokens[item.replica] += item.new_tokens
            unit.expected_tokens[item.request.id] = item.request.prompt_tokens - item.prefix_tokens
            if self._phase[item.request.id] is Phase.QUEUED:
                self._cache_use[name] += use_of(name, item)
                self._enter(Phase.RUNNING, item.request.id)
                self._choose_decode(name, item)
        plan = build_plan(
            batch=f"{name}.b{unit.batches}",
            unit=name,
            assigned=assigned,
            decode_ranks={item.request.id: self._decode_ranks[item.request.id] for item in assigned},
            topology=self._job.topology,
            placement=placement,
            model=self._job.model,
            gpu=self._job.gpu,
            formed_ns=now_ns,
            options=step_options(self._job),
        )
        plan = msgspec.structs.replace(self._with_s1(name, plan, assigned), pause_every=pause_every)
        unit.running[plan.id] = plan
        unit.batches += 1
        return plan

    def _with_s1(self, name: str, plan: BatchPlan, assigned: Sequence[Assigned]) -> BatchPlan:
        """Return `plan` with the fetch plans of its requests, and with how far ahead S1 is sent."""
        fetches: list[FetchPlan] = []
        for item in assigned:
            early = self._early.pop(item.request.id, None)
            if early is not None:
                fetches.append(early[1])
            elif not item.earlier_parts:
                self._note_fetch(name, item)
        return with_fetches(plan, fetches, self._job.serving.fetch_ahead)

    def _note_fetch(self, name: str, item: Assigned) -> None:
        if self._router.costs:
            self._port_bytes.add(("S1", item.request.id), fetch_traffic(self._job, item, name))

    def _choose_decode(self, name: str, item: Assigned) -> None:
        request, workers = item.request, self._job.placement.decode_workers
        views = [
            WorkerView(tokens=self._decode_tokens[worker], ports_s=self._ports_s(name, item, worker))
            for worker in workers
        ]
        worker = workers[self._decode_choice.choose(views)]
        self._decode_ranks[request.id] = worker
        self._decode_tokens[worker] += request.prompt_tokens
        if self._router.costs or self._decode_choice.ports:
            traffic = delivery_traffic(self._job, request.prompt_tokens, name, item.replica, worker)
            self._port_bytes.add(("S3", request.id), traffic)

    def _ports_s(self, name: str, item: Assigned, worker: tuple[int, ...]) -> tuple[float, ...]:
        if not self._decode_choice.ports:
            return ()
        prompt = item.request.prompt_tokens
        return self._port_bytes.seconds(delivery_traffic(self._job, prompt, name, item.replica, worker))

    def _finish(self, name: str, plan: BatchPlan) -> None:
        unit = self._units[name]
        replica_of = {ranks: i for i, ranks in enumerate(self._job.placement.replicas[name])}
        for item in plan.requests:
            request, replica = self._requests[item.request], replica_of[item.replica]
            tokens = tokens_by_then(item)
            self._indexes[name].insert(cacheable_blocks(request, tokens), replica)
            self._port_bytes.take_off(("S1", item.request))
            self._begun.computed(item, replica)
            if not item.last:
                unit.expected_tokens[item.request] = request.prompt_tokens - tokens
                unit.queue.appendleft(request)
                continue
            del unit.expected_tokens[item.request]
            if self._phase[item.request] is Phase.RUNNING:
                self._enter(Phase.PREFILLED, item.request)
