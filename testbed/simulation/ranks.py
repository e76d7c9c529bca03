"""The ranks of a simulated run: what `workers.rank` does, with compute that takes what the plan says."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial

from controller.scheduler import Scheduler
from testbed.job import Job, Request
from testbed.record import SpanRow
from testbed.serving.micro import MicroBatches
from testbed.serving.outlook import announced
from testbed.serving.replay import serving_system
from testbed.serving.story import RequestStory
from testbed.simulation.clock import Agenda
from testbed.simulation.collectives import Collectives, Resume
from testbed.simulation.transport import Transport
from testbed.spool import Spool
from workers.plan import BatchPlan, Compute, LayerPlan, RequestPlan, Transfer

NS_PER_S = 1e9


class ServingRanks:
    """Requests arrive, the serving system makes batch plans, ranks carry them out."""

    def __init__(self, job: Job, scheduler: Scheduler, transport: Transport, agenda: Agenda) -> None:
        self._job = job
        self._scheduler = scheduler
        self._transport = transport
        self._agenda = agenda
        self._overheads = job.simulation.overheads
        self._system = serving_system(job)
        self._at: dict[str, dict[int, int]] = {}
        self._unfinished: dict[str, int] = {}
        self._s3_missing: dict[int, int] = {}
        self._s1_missing: dict[tuple[str, int, int], int] = {}
        self._s1_waiter: dict[tuple[str, int, int], Resume] = {}
        self._collectives = Collectives(
            transport, agenda, job.placement.groups, grouped=job.simulation.grouped, span=self._span
        )
        self.stories: dict[int, RequestStory] = defaultdict(RequestStory)
        self.spans: Spool[SpanRow] = Spool(SpanRow)
        self.done = 0
        self.total = len(job.requests)

    def begin(self) -> None:
        for request in sorted(self._job.requests, key=lambda r: (r.arrival_ns, r.id)):
            self._agenda.at(request.arrival_ns, partial(self._arrive, request))

    def _arrive(self, request: Request) -> None:
        self._start(self._system.arrive(self._agenda.now_ns, request))

    # --- batches --------------------------------------------------------------------------------

    def _start(self, plans: list[BatchPlan]) -> None:
        now_ns = self._agenda.now_ns
        for plan in plans:
            batch = announced(plan, self._job.topology, self._job.placement)
            self._transport.obey(self._scheduler.batch_started(now_ns, batch))
            if self._overheads.batch_ns:
                self._agenda.at(now_ns + self._overheads.batch_ns, partial(self._begin, plan))
            else:
                self._begin(plan)

    def _begin(self, plan: BatchPlan) -> None:
        self._at[plan.id] = dict.fromkeys(plan.ranks, -1)
        self._unfinished[plan.id] = len(plan.ranks)
        for request in plan.requests:
            story = self.stories[request.request]
            story.plan, story.batch, story.unit = request, plan.id, plan.unit
            story.start_ns = self._agenda.now_ns
            self._s3_missing[request.request] = request.p2d_flows
        for layer in plan.layers:
            self._fetch(plan, layer)
        for rank in plan.ranks:
            self._go_on(self._rank(plan, rank))

    def _fetch(self, plan: BatchPlan, layer: LayerPlan) -> None:
        """Victims send the KV of all layers at once; what waits for what is the lanes' business."""
        for transfer in layer.wait:
            key = (plan.id, layer.index, transfer.dst)
            self._s1_missing[key] = self._s1_missing.get(key, 0) + 1
        for transfer in layer.wait:
            key = (plan.id, layer.index, transfer.dst)
            self._transport.post(transfer, partial(self._fetched, key))

    def _fetched(self, key: tuple[str, int, int]) -> None:
        self._s1_missing[key] -= 1
        if self._s1_missing[key] == 0:
            del self._s1_missing[key]
            resume = self._s1_waiter.pop(key, None)
            if resume is not None:
                resume()

    def _rank(self, plan: BatchPlan, rank: int) -> Iterator[Callable[[Resume], None]]:
        """The layer loop of one rank; yields what to wait for: a function that is told how to go on."""
        place = plan.ranks.index(rank)
        for layer in plan.layers:
            self._advance(plan, rank, layer.index)
            fetches = sum(transfer.dst == rank for transfer in layer.wait)
            if fetches:
                began_ns = self._agenda.now_ns
                key = (plan.id, layer.index, rank)
                if key in self._s1_missing:
                    yield partial(self._s1_waiter.__setitem__, key)
                self._span(rank, "s1_wait", f"{fetches} flows", plan.id, layer.index, began_ns)
            for step in layer.steps:
                began_ns = self._agenda.now_ns
                if isinstance(step, Compute):
                    ends_ns = began_ns + self._takes_ns(step.seconds[place])
                    if ends_ns > began_ns:
                        yield partial(self._agenda.at, ends_ns)
                    self._span(rank, "compute", step.label, plan.id, layer.index, began_ns)
                elif rank in self._job.placement.groups[step.group]:
                    yield partial(self._collectives.join, step, plan.id, layer.index, rank)
                    if not step.round_seconds:
                        self._span(rank, "collective", step.label, plan.id, layer.index, began_ns)
            for transfer in layer.post:
                if transfer.src == rank:
                    self._transport.post(transfer, partial(self._delivered, plan, transfer.request))
        self._advance(plan, rank, len(plan.layers))
        self._rank_done(plan)

    def _takes_ns(self, seconds: float) -> int:
        return round(seconds * NS_PER_S) + (self._overheads.compute_ns if seconds > 0 else 0)

    def _go_on(self, loop: Iterator[Callable[[Resume], None]]) -> None:
        wait = next(loop, None)
        if wait is not None:
            wait(partial(self._go_on, loop))

    def _advance(self, plan: BatchPlan, rank: int, layer: int) -> None:
        """A batch is where its slowest rank is."""
        at = self._at[plan.id]
        before = min(at.values())
        at[rank] = layer
        reached = min(at.values())
        if reached != before:
            self._transport.obey(self._scheduler.layer_advanced(self._agenda.now_ns, plan.id, reached))

    def _rank_done(self, plan: BatchPlan) -> None:
        self._unfinished[plan.id] -= 1
        if self._unfinished[plan.id]:
            return
        del self._unfinished[plan.id], self._at[plan.id]
        for request in plan.requests:
            self.stories[request.request].prefill_end_ns = self._agenda.now_ns
        now_ns = self._agenda.now_ns
        self._agenda.at(now_ns, lambda: self._start(self._system.batch_done(now_ns, plan.id)))

    # --- first tokens ---------------------------------------------------------------------------

    def _delivered(self, plan: BatchPlan, request_id: int | None) -> None:
        assert request_id is not None
        self._s3_missing[request_id] -= 1
        if self._s3_missing[request_id]:
            return
        del self._s3_missing[request_id]
        story = self.stories[request_id]
        assert story.plan is not None
        story.p2d_end_ns = self._agenda.now_ns
        request = story.plan
        ends_ns = self._agenda.now_ns + self._takes_ns(request.decode_step_s)
        self._agenda.at(ends_ns, lambda: self._first_token(plan, request))

    def _first_token(self, plan: BatchPlan, request: RequestPlan) -> None:
        now_ns = self._agenda.now_ns
        story = self.stories[request.request]
        story.first_token_ns = now_ns
        self._span(
            request.decode_rank, "decode", f"request {request.request}", plan.id, None, story.p2d_end_ns or 0
        )
        self._system.first_token(now_ns, request.request)
        self.done += 1

    def _span(self, rank: int, kind: str, label: str, batch: str, layer: int | None, start_ns: int) -> None:
        self.spans.append(
            SpanRow(
                rank=rank,
                kind=kind,
                label=label,
                batch=batch,
                layer=layer,
                start_ns=start_ns,
                end_ns=self._agenda.now_ns,
            )
        )


class MicroRanks:
    """The micro workload: every flow is posted at its time."""

    def __init__(self, job: Job, scheduler: Scheduler, transport: Transport, agenda: Agenda) -> None:
        self._job = job
        self._scheduler = scheduler
        self._transport = transport
        self._agenda = agenda
        self._batches = MicroBatches(flow.transfer for flow in job.flows)
        self.stories: dict[int, RequestStory] = {}
        self.spans: Spool[SpanRow] = Spool(SpanRow)
        self.done = 0
        self.total = len(job.flows)

    def begin(self) -> None:
        for batch in self._batches.batches:
            self._transport.obey(self._scheduler.batch_started(0, batch))
            self._advance(batch.id, self._batches.layer(batch.id))
        for flow in sorted(self._job.flows, key=lambda flow: flow.start_ns):
            transfer = flow.transfer
            self._agenda.at(
                flow.start_ns,
                partial(self._transport.post, transfer, partial(self._arrived, transfer)),
            )

    def _arrived(self, transfer: Transfer) -> None:
        self.done += 1
        layer = self._batches.arrived(transfer)
        if transfer.batch is not None and layer is not None:
            self._advance(transfer.batch, layer)

    def _advance(self, batch: str, layer: int) -> None:
        self._transport.obey(self._scheduler.layer_advanced(self._agenda.now_ns, batch, layer))
