"""The conductor: decides what a run does next, on every fabric. Pure: events in, actions out.

A fabric reports events to its conductor, and carries out the actions it gets back, in order. There is one
conductor for serving, and one for the micro workload (`testbed.serving.micro`).
"""

import abc
import heapq
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from controller.flow import Transfer
from controller.pace import Pace
from testbed.faults import losses_of
from testbed.job import Job, Request
from testbed.live import RequestsNow
from testbed.record import CacheRow, RequestRow
from testbed.serving.actions import Action, Actions, Announce, AtLayer, Expect, GoOn, Post, Run
from testbed.serving.answers import Answers
from testbed.serving.background import BackgroundTransfers
from testbed.serving.decoding import BackgroundSteps, with_last_tokens
from testbed.serving.in_flight import InFlight
from testbed.serving.losses import Losses, LossyServing, Toll
from testbed.serving.plans.fetching import SendAhead, announced_fetch
from testbed.serving.plans.outlook import announced
from testbed.serving.replay import PlannedBatches
from testbed.serving.routing.decode_workers import Busy
from testbed.serving.story import RequestStory, request_row
from testbed.serving.system import ServingSystem
from workers.plan import BatchPlan, FetchPlan, Resume


class Conductor(abc.ABC):
    """What a fabric needs for either kind of work. `done` of `total` requests (or flows) have ended.

    Reports of different ranks may overtake each other. Raises `KeyError` for a batch that is not under way.
    """

    total: int
    steps: int = 0
    """The number of events that were progress. A run stalls if it stays the same for too long."""

    @property
    @abc.abstractmethod
    def done(self) -> int: ...

    @property
    def finished(self) -> bool:
        """Whether everything that the run waits for has ended."""
        return self.done == self.total

    @property
    def under_way(self) -> bool:
        """Whether the work can go on without a further arrival."""
        return not self.finished

    @property
    def due_ns(self) -> int | None:
        """When to call `act` next; None while nothing is due by the clock alone.

        It can become earlier by a call of `act`, `arrived` or `first_token` only.
        """
        return None

    def act(self, now_ns: int) -> Actions:
        """Do what is due by the clock, if anything is."""
        return ()

    @abc.abstractmethod
    def begin(self) -> Actions:
        """Model time begins."""

    @abc.abstractmethod
    def known(self, batch: str) -> Actions:
        """The scheduler has taken in an announced batch."""

    @abc.abstractmethod
    def arrived(self, flow: str) -> Actions:
        """A flow that belongs to no request has arrived: a micro flow, a background transfer, or one between
        decode workers."""

    def layer_begun(self, now_ns: int, batch: str, rank: int, layer: int) -> Actions:
        """A rank begins `layer`. If that is the number of layers, it has computed all of them.

        If ranks report their layers to the scheduler themselves, this event is needed only for batches with
        `fetch_ahead`, and not for their end.
        """
        raise KeyError(batch)

    def paused(self, now_ns: int, batch: str, rank: int, layer: int) -> Actions:
        """A rank has paused before `layer`. Once all have, the batch goes on or another goes first."""
        raise KeyError(batch)

    def rank_done(self, now_ns: int, batch: str, rank: int, start_ns: int, end_ns: int) -> Actions:
        """A rank was at a batch from `start_ns` to `end_ns`. With the last one the batch is over."""
        raise KeyError(batch)

    def first_token(self, now_ns: int, request: int, p2d_end_ns: int) -> Actions:
        """A request had all its KV at its decode worker at `p2d_end_ns`, and has its first token now."""
        raise KeyError(request)

    @abc.abstractmethod
    def describe(self) -> str:
        """What is still to come, for a run that has stalled."""

    def requests_at(self, now_ns: int) -> RequestsNow | None:
        """Where the requests are, for people who watch; None if there are none."""
        return None

    def request_rows(
        self, pruned: Mapping[str, int], ended_pruned: Collection[str]
    ) -> tuple[RequestRow, ...]:
        """What became of each request.

        `pruned` is how often the scheduler pruned a request, by its id. Requests in `ended_pruned` were
        still pruned when they ended.
        """
        return ()

    def caches(self) -> tuple[CacheRow, ...]:
        """Hits, misses and evictions of each unit's prefix cache."""
        return ()


class Serving(Protocol):
    """Decides which batches run. `ServingSystem` describes the events."""

    def arrive(self, now_ns: int, request: Request) -> list[BatchPlan | FetchPlan]: ...

    def batch_done(self, now_ns: int, batch_id: str) -> list[BatchPlan | Resume]: ...

    def paused(self, now_ns: int, batch_id: str, layer: int) -> list[BatchPlan | Resume]: ...

    def first_token(self, now_ns: int, request_id: int) -> None: ...

    def caches(self) -> tuple[CacheRow, ...]: ...

    def describe(self) -> str: ...


def _serving(job: Job, busy: Busy | None) -> Serving:
    """Return what forms the batches of `job`, or what runs its `plans` if it has any."""
    at_once = {unit: shape.pp for unit, shape in job.placement.shapes.items()}
    if job.plans:
        return PlannedBatches(job.plans, at_once=at_once)
    return LossyServing(job, busy=busy) if losses_of(job.faults) else ServingSystem(job, busy=busy)


@dataclass(slots=True)
class _Running:
    """A batch whose ranks have its plan. `missing` are the ranks that have not finished it."""

    plan: BatchPlan
    pace: Pace
    missing: set[int]
    paused: set[int] = field(default_factory=set)
    end_ns: int = 0


class ServingConductor(Conductor):
    """Requests arrive, the serving system makes batch plans, and ranks carry them out.

    A later turn of a conversation is held back until the answer to the turn before is complete. Then it
    gets its arrival, and with it its deadline. `busy` is that of `ServingSystem`.
    """

    def __init__(self, job: Job, busy: Busy | None = None) -> None:
        self._job = job
        self._system = _serving(job, busy)
        lossy = self._system if isinstance(self._system, LossyServing) else None
        self._losses = None if lossy is None else Losses(job, lossy)
        self._failed = 0
        self._ghosts: set[int] = set()
        self._background = BackgroundSteps(job)
        self._transfers = BackgroundTransfers(job.background)
        self._send_ahead = SendAhead(job.serving.fetch_ahead)
        self._announced: dict[str, BatchPlan | FetchPlan] = {}
        self._running: dict[str, _Running] = {}
        self._stories: dict[int, RequestStory] = defaultdict(RequestStory)
        self._first_tokens = 0
        self._in_flight = InFlight(len(job.requests))
        self._answers = Answers(job)
        self._requests = {request.id: request for request in job.requests}
        self._held: dict[int, list[Request]] = defaultdict(list)
        for request in job.requests:
            if request.after is not None:
                self._held[request.after].append(request)
        # Sorted, and so a heap. Ids differ, so requests are never compared.
        self._arrivals = sorted((r.arrival_ns, r.id, r) for r in job.requests if r.after is None)
        self._arrived = 0
        self.total = len(job.requests)

    # --- how far it is --------------------------------------------------------------------------

    @property
    def done(self) -> int:
        return self._first_tokens + self._failed

    @property
    def finished(self) -> bool:
        """A rank can be slower with its part of a batch than the last first token of that batch.

        The flows of a request that has failed go on to their end, too.
        """
        idle = self._background.idle and self._transfers.idle
        left = self._announced or self._running or self._ghosts
        return self.done == self.total and idle and not left

    @property
    def under_way(self) -> bool:
        arrived = self._arrived
        return not self.finished and (arrived == self.total or arrived > self.done or bool(self._running))

    def request_rows(
        self, pruned: Mapping[str, int], ended_pruned: Collection[str]
    ) -> tuple[RequestRow, ...]:
        rows = [
            request_row(
                self._requests[request.id],
                self._stories[request.id],
                times_pruned=pruned.get(str(request.id), 0),
                ended_pruned=str(request.id) in ended_pruned,
            )
            for request in self._job.requests
        ]
        return with_last_tokens(self._job, rows)

    def caches(self) -> tuple[CacheRow, ...]:
        return self._system.caches()

    def requests_at(self, now_ns: int) -> RequestsNow:
        return self._in_flight.at(now_ns, self._stories, self._running)

    def describe(self) -> str:
        waiting = [f"{id} waits for ranks {sorted(b.missing)}" for id, b in self._running.items()]
        batches = ", ".join(waiting) or "no batch is running"
        return f"{self.done} of {self.total} requests done ({self._system.describe()}); {batches}"

    # --- what is due ----------------------------------------------------------------------------

    @property
    def due_ns(self) -> int | None:
        """The next arrival, the end of an answer that a turn waits for, the next step between decode workers,
        or the next background transfer: the last two end with the last first token."""
        due = [self._arrivals[0][0]] if self._arrivals else []
        if self._answers.due_ns is not None:
            due.append(self._answers.due_ns)
        if self.done < self.total:
            losses_ns = None if self._losses is None else self._losses.due_ns
            beside = (self._background.due_ns, self._transfers.due_ns, losses_ns)
            due += [due_ns for due_ns in beside if due_ns is not None]
        return min(due, default=None)

    def act(self, now_ns: int) -> Actions:
        actions: list[Action] = []
        for toll in () if self._losses is None else self._losses.act(now_ns):
            actions += self._bear(toll)
        self._release(self._answers.complete(now_ns))
        while self._arrivals and self._arrivals[0][0] <= now_ns:
            self.steps += 1
            self._arrived += 1
            _, _, request = heapq.heappop(self._arrivals)
            self._in_flight.arrived(request)
            actions += self._start(self._system.arrive(now_ns, request))
        step_ns = self._background.due_ns
        if self.done < self.total and step_ns is not None and step_ns <= now_ns:
            actions += _post(self._background.begin(now_ns))
        if self.done < self.total:
            actions += _post(self._transfers.begin(now_ns))
        return actions

    # --- batches --------------------------------------------------------------------------------

    def begin(self) -> Actions:
        return ()

    def known(self, batch: str) -> Actions:
        plan = self._announced.pop(batch)
        self.steps += 1
        if isinstance(plan, FetchPlan):
            return Expect(plan), *_post(self._send_ahead.queued(plan))
        self._running[batch] = _Running(plan, Pace(plan.ranks), set(plan.ranks))
        for request in plan.requests:
            self._stories[request.request].planned(request, plan)
        return Expect(plan), *_post(self._send_ahead.formed(plan)), Run(plan)

    def layer_begun(self, now_ns: int, batch: str, rank: int, layer: int) -> Actions:
        running = self._running[batch]
        self.steps += 1
        if layer == 0:
            self._began(running.plan, now_ns)
        reached = running.pace.begins(rank, layer)
        if reached is None:
            return ()
        plan = running.plan
        return AtLayer(plan.announced, reached), *_post(self._send_ahead.reached(plan, reached))

    def paused(self, now_ns: int, batch: str, rank: int, layer: int) -> Actions:
        running = self._running[batch]
        self.steps += 1
        running.paused.add(rank)
        if len(running.paused) < len(running.plan.ranks):
            return ()
        running.paused.clear()
        return self._start(self._system.paused(now_ns, batch, layer))

    def rank_done(self, now_ns: int, batch: str, rank: int, start_ns: int, end_ns: int) -> Actions:
        running = self._running[batch]
        self.steps += 1
        running.missing.discard(rank)
        running.end_ns = max(running.end_ns, end_ns)
        self._began(running.plan, start_ns)
        if running.missing:
            return ()
        del self._running[batch]
        for request in running.plan.requests:
            self._stories[request.request].prefill_end_ns = running.end_ns
        return self._start(self._system.batch_done(now_ns, batch))

    def first_token(self, now_ns: int, request: int, p2d_end_ns: int) -> Actions:
        story = self._stories[request]
        if story.lost_to is not None:
            self._ghosts.discard(request)
            return ()
        story.p2d_end_ns, story.first_token_ns = p2d_end_ns, now_ns
        self._first_tokens += 1
        self._in_flight.first_token(request, now_ns)
        self.steps += 1
        self._system.first_token(now_ns, request)
        assert story.plan is not None  # a batch had the request
        self._release(self._answers.first_token(self._requests[request], story.plan.decode_rank, now_ns))
        return ()

    def arrived(self, flow: str) -> Actions:
        """Flows of no request go on while a request is lost, so they are no progress until all are done."""
        self.steps += self.done == self.total
        self._background.arrived(flow)
        self._transfers.arrived(flow)
        return ()

    # --- inside ---------------------------------------------------------------------------------

    def _release(self, complete: Mapping[int, int]) -> None:
        """Let the turns that waited for these answers arrive. `complete` has the end of each, by request."""
        for answered, end_ns in complete.items():
            for turn in self._held.pop(answered, ()):
                arrival_ns = max(turn.arrival_ns, end_ns + turn.pause_ns)
                request = msgspec.structs.replace(turn, arrival_ns=arrival_ns)
                self._requests[request.id] = request
                heapq.heappush(self._arrivals, (arrival_ns, request.id, request))

    def _bear(self, toll: Toll) -> Actions:
        """Give up the requests that a loss has cost, and run what follows for those that have moved."""
        self.steps += 1
        for request in toll.failed:
            self._stories[request].lost_to = toll.loss
            self._failed += 1
            self._ghosts.add(request)
            self._in_flight.failed(request)
        for request in toll.moved:
            self._stories[request].moved_by += (toll.loss,)
        return self._start(toll.plans)

    def _start(self, plans: Sequence[BatchPlan | FetchPlan | Resume]) -> Actions:
        topology, placement = self._job.topology, self._job.placement
        actions: list[Action] = []
        for plan in plans:
            if isinstance(plan, Resume):
                actions.append(GoOn(self._running[plan.batch].plan))
                continue
            self._announced[plan.id] = plan
            if isinstance(plan, FetchPlan):
                # The ranks of its request's batch will report its layers.
                batch = announced_fetch(plan, topology, placement)
                actions.append(Announce(batch, placement.units[plan.unit], fetch=True))
            else:
                actions.append(Announce(announced(plan, topology, placement), plan.ranks))
        return actions

    def _began(self, plan: BatchPlan, now_ns: int) -> None:
        for request in plan.requests:
            self._stories[request.request].began(now_ns)


def _post(transfers: tuple[Transfer, ...]) -> tuple[Post, ...]:
    return (Post(transfers),) if transfers else ()
