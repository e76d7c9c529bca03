"""The serving system: events in, batch plans out."""

from collections import deque
from collections.abc import Sequence
from functools import partial

import msgspec

from testbed.job import Job, Request, ReuseRule
from testbed.placement import by_unit, kinds_of_units
from testbed.record import CacheRow
from testbed.serving.batching.forming import token_ns
from testbed.serving.batching.preemption import rest_ns, urgent
from testbed.serving.batching.rules import Waiting, make_rule
from testbed.serving.batching.split_prompts import BegunPrompts, assign_parts, tokens_by_then
from testbed.serving.batching.taking import take_assigned
from testbed.serving.cache.assignment import (
    Assigned,
    Senders,
    assign,
    cacheable_blocks,
    common_blocks,
    find_reuse,
    reusable_blocks,
    told_to_send,
)
from testbed.serving.cache.prefix_index import PrefixIndex
from testbed.serving.cache.size_and_use import cache_capacity_blocks, use_of
from testbed.serving.plans.batch_time import BatchTimes
from testbed.serving.plans.build import build_plan
from testbed.serving.plans.fetching import fetch_plan, with_fetches
from testbed.serving.plans.steps import step_options
from testbed.serving.routing.collectives_ahead import CollectivesAhead
from testbed.serving.routing.decode_workers import Busy, Decided, DecodeWorkers
from testbed.serving.routing.estimates import exposed_s1_ns
from testbed.serving.routing.reuse_choice import ReuseChoice
from testbed.serving.routing.routers import UnitView, make_router
from testbed.serving.routing.traffic_ahead import TrafficAhead
from testbed.serving.unit import Phase, Unit
from workers.plan import BatchPlan, FetchPlan, Resume


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
    for a cache without room for a block. `busy` and `decided` are those of `DecodeWorkers`.
    """

    def __init__(self, job: Job, *, busy: Busy | None = None, decided: Decided | None = None) -> None:
        if job.serving.preempt_layers is not None and job.placement.most_stages > 1:
            raise ValueError("a unit with several pipeline stages cannot be preempted")
        self._job = job
        kinds = kinds_of_units(job.placement, job.topology)
        self._rules = by_unit(kinds, lambda unit: make_rule(job, unit))
        self._token_ns = by_unit(kinds, lambda unit: token_ns(job, unit))
        self._router = make_router(job.serving, seed=job.seed, token_ns=max(self._token_ns.values()))
        self._traffic = TrafficAhead(job)
        self._times = BatchTimes(job)
        self._collectives = CollectivesAhead(job, self._traffic.own_ports)
        reuse = ReuseChoice(job, self._times, self._traffic)
        self._choose = reuse.choose if job.serving.reuse is not ReuseRule.FETCH else None
        self._follows = self._router.ports or job.serving.reuse is ReuseRule.CHEAPER
        self._decode = DecodeWorkers(job, self._traffic, follows=self._follows, busy=busy, decided=decided)
        cache_blocks = cache_capacity_blocks(job)
        self._units = {name: Unit(len(those), cache_blocks) for name, those in job.placement.replicas.items()}
        self._indexes = {n: PrefixIndex(len(u), cache_blocks) for n, u in job.placement.replicas.items()}
        self._requests: dict[int, Request] = {}
        self._phase: dict[int, Phase] = {}
        self._count = dict.fromkeys(Phase, 0)
        self._begun = BegunPrompts()
        self._senders = Senders()
        self._early: dict[int, tuple[Assigned, FetchPlan]] = {}
        self._cache_use = {name: CacheRow(unit=name) for name in job.placement.replicas}

    def arrive(self, now_ns: int, request: Request) -> list[BatchPlan | FetchPlan]:
        """A request arrives. Raises `ValueError` if its id is taken or its prompt is empty."""
        if request.id in self._phase:
            raise ValueError(f"request {request.id} has already arrived")
        if request.prompt_tokens < 1:
            raise ValueError(f"request {request.id} has a prompt of {request.prompt_tokens} tokens")
        self._requests[request.id] = request
        self._enter(Phase.QUEUED, request.id)
        return self._route(now_ns, request)

    def _open(self) -> tuple[str, ...]:
        """The units that take requests."""
        return tuple(self._units)

    def _route(self, now_ns: int, request: Request) -> list[BatchPlan | FetchPlan]:
        """Queue a request on the unit that the router picks."""
        names, blocks = self._open(), reusable_blocks(request)
        views = [self._view(now_ns, one, request, blocks) for one in names]
        name = names[self._router.choose(request, views)]
        unit = self._units[name]
        unit.take_in(request, self._new_tokens(name, request), once=self._choose is not None)
        started = self._start(now_ns, name)
        if self._phase[request.id] is not Phase.QUEUED:
            return [*started]
        if self._router.costs:
            expected = unit.expected[request.id] = self._expected(name, request)[0]
            self._traffic.queued(name, expected)
        fetches = self._send_for(now_ns, name, request) if self._job.serving.fetch_early else []
        return [*started, *fetches]

    def batch_done(self, now_ns: int, batch_id: str) -> list[BatchPlan | Resume]:
        """All ranks have finished a batch: its KV can be reused from now on, and another batch can start.

        Raises `ValueError` for a batch that is not running or has paused.
        """
        name, unit = self._unit_of(batch_id)
        if unit.paused is not None and unit.paused[0].id == batch_id:
            raise ValueError(f"batch {batch_id!r} has paused, it cannot end")
        self._collectives.ended(name, batch_id)
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
        self._decode.first_token(request_id)

    def counts(self) -> dict[Phase, int]:
        """Number of requests in each phase. They add up to all that have arrived."""
        return dict(self._count)

    def describe(self) -> str:
        """Number of requests in each phase, in words."""
        return ", ".join(f"{count} {phase.value}" for phase, count in self.counts().items())

    def _unit_of(self, batch_id: str) -> tuple[str, Unit]:
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

    def _view(self, now_ns: int, name: str, request: Request, blocks: Sequence[int]) -> UnitView:
        """What the router sees of a unit. `blocks` are those that the request may reuse."""
        unit = self._units[name]
        cached = len(self._indexes[name].lookup(blocks)) if self._router.prefixes else 0
        queued = unit.queued_tokens()
        queue_ns = queued * self._token_ns[name]
        compute = transfer = delivery = 0.0
        if self._router.costs:
            item, transfer = self._expected(name, request)
            waiting = [unit.expected[each.id] for each in unit.queue if each.id in unit.expected]
            batch = self._times.waiting(name, [*waiting, item])
            queue_ns = self._collectives.busy_ns(name, now_ns)
            compute = self._times.ns(name, batch)
            transfer += self._traffic.transfer_ns(name, item, hidden_ns=compute, queue_ns=queue_ns)
            prefill = queue_ns + transfer + compute
            layers = max(compute, self._traffic.idle_fetch_ns(name, item))
            delivery = self._traffic.delivery_ns(
                name,
                item,
                prefill_ns=prefill,
                layers_ns=layers,
                collectives_ns=self._collectives.left_ns(name, item.replica, now_ns, batch),
            )
        return UnitView(
            queued_tokens=queued,
            cached_tokens=cached * request.block_tokens,
            queue_ns=queue_ns,
            ports_ns=self._traffic.ports_ns(name) if self._router.ports else 0.0,
            transfer_ns=transfer,
            compute_ns=compute,
            delivery_ns=delivery,
        )

    def _expected(self, name: str, request: Request) -> tuple[Assigned, float]:
        """Where `request` is expected to run on unit `name`, and the ns that it waits for S1 of others.

        It starts when the running batches have ended. So it will find the prefixes that these compute or
        fetch: it need not fetch them itself, but waits for their S1, which the queue does not contain.
        """
        alone = self._alone(name, request)
        blocks = reusable_blocks(request)
        running = [item for plan in self._units[name].running.values() for item in plan.requests]
        shared = [common_blocks(blocks, self._requests[item.request].blocks) for item in running]
        longest = max(shared, default=0)
        if longest <= alone.local_blocks or longest < alone.reused_blocks:
            return alone, 0.0
        item = running[shared.index(longest)]
        replica = self._job.placement.replicas[name].index(item.replica)
        there = Assigned(request=request, replica=replica, local_blocks=longest, fetches=())
        return there, self._traffic.fetch_ns(item.request)

    def _alone(self, name: str, request: Request) -> Assigned:
        """Where `request` would run on unit `name` as a batch by itself."""
        early = {request: item for request, (item, _) in self._early.items()}
        promised = self._units[name].promised_tokens(early)
        (item,) = assign(
            [request],
            name,
            len(promised),
            self._indexes,
            computed_tokens=promised,
            senders=self._senders,
            choose=self._choose,
        )
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
        told_to_send(item, self._senders)
        return [fetch]

    def _new_tokens(self, name: str, request: Request) -> int:
        """Tokens that `request` has yet to compute on unit `name`, as far as is known now."""
        left = self._begun.left(request)
        if left is not None:
            return left
        if self._choose is not None:
            return self._alone(name, request).new_tokens
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
        assigned = take_assigned(
            candidates,
            new_tokens=partial(self._new_tokens, name),
            most=min(serving.max_batch_tokens, serving.chunk_tokens or serving.max_batch_tokens),
            split=serving.chunk_tokens is not None,
            assign=partial(
                assign_parts,
                unit=name,
                indexes=self._indexes,
                begun=self._begun,
                computed_tokens=unit.computed_tokens,
                fixed={request: item for request, (item, _) in self._early.items()},
                senders=self._senders,
                choose=self._choose,
            ),
        )
        taken = {item.request.id for item in assigned}
        unit.queue = deque(request for request in unit.queue if request.id not in taken)
        for item in assigned:
            told_to_send(item, self._senders)
            unit.computed_tokens[item.replica] += item.new_tokens
            unit.expected_tokens[item.request.id] = item.request.prompt_tokens - item.prefix_tokens
            if self._phase[item.request.id] is Phase.QUEUED:
                self._cache_use[name] += use_of(name, item)
                self._enter(Phase.RUNNING, item.request.id)
                self._decode.choose(name, item)
                if self._follows:
                    self._traffic.fetching(name, item)
        plan = build_plan(
            batch=f"{name}.b{unit.batches}",
            unit=name,
            assigned=assigned,
            decode_ranks={item.request.id: self._decode.of(item.request.id) for item in assigned},
            topology=self._job.topology,
            placement=placement,
            model=self._job.model,
            gpu=self._job.gpu,
            formed_ns=now_ns,
            options=step_options(self._job),
        )
        plan = msgspec.structs.replace(self._with_s1(plan, assigned), pause_every=pause_every)
        unit.running[plan.id] = plan
        if self._router.costs:
            ends_ns = now_ns + self._prefill_ns(name, assigned)
            self._collectives.begun(name, plan.id, assigned, now_ns=now_ns, ends_ns=ends_ns)
        unit.batches += 1
        return plan

    def _prefill_ns(self, name: str, assigned: Sequence[Assigned]) -> float:
        """How long a batch takes on idle links, behind the S1 that is still to come."""
        compute_ns = self._times.ns(name, assigned)
        s1_ns = max((self._traffic.fetch_ns(item.request.id) for item in assigned), default=0.0)
        return compute_ns + exposed_s1_ns(s1_ns, compute_ns, self._job.model.layers)

    def _with_s1(self, plan: BatchPlan, assigned: Sequence[Assigned]) -> BatchPlan:
        """Return `plan` with the fetch plans of its requests, and with how far ahead S1 is sent."""
        early = [self._early.pop(item.request.id, None) for item in assigned]
        fetches = [each[1] for each in early if each is not None]
        return with_fetches(plan, fetches, self._job.serving.fetch_ahead)

    def _finish(self, name: str, plan: BatchPlan) -> None:
        unit = self._units[name]
        replica_of = {ranks: i for i, ranks in enumerate(self._job.placement.replicas[name])}
        for item in plan.requests:
            request, replica = self._requests[item.request], replica_of[item.replica]
            tokens = tokens_by_then(item)
            self._indexes[name].insert(cacheable_blocks(request, tokens), replica)
            self._traffic.fetched(item.request)
            self._begun.computed(item, replica)
            if not item.last:
                unit.expected_tokens[item.request] = request.prompt_tokens - tokens
                unit.queue.appendleft(request)
                continue
            del unit.expected_tokens[item.request]
            if self._phase[item.request] is Phase.RUNNING:
                self._enter(Phase.PREFILLED, item.request)
