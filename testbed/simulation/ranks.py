"""The ranks of a simulated run: what `workers.rank` does, with compute that takes what the plan says."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from controller.flow import Transfer
from controller.scheduler import Scheduler
from testbed.job import Job, Request
from testbed.record import CacheRow, SpanRow
from testbed.serving.decoding import BackgroundSteps
from testbed.serving.micro import MicroBatches
from testbed.serving.plans.fetching import SendAhead, announced_fetch
from testbed.serving.plans.outlook import announced
from testbed.serving.replay import serving_system
from testbed.serving.story import RequestStory
from testbed.simulation.agenda import Agenda
from testbed.simulation.collectives import Collectives
from testbed.simulation.collectives import Resume as GoOn
from testbed.simulation.transport import Transport
from testbed.spool import Spool
from workers.plan import BatchPlan, Compute, FetchPlan, LayerPlan, RequestPlan, Resume

NS_PER_S = 1e9


_S1 = tuple[str, int | None, int]
"""The S1 transfers of one batch, or of one request that was queued, to one rank for one layer."""

_ByRank = tuple[Mapping[int, Sequence[Transfer]], Mapping[int, Sequence[Transfer]]]
"""Of a layer: what each rank waits for, and what each posts."""

_Loop = Iterator[Callable[[GoOn], None]]
"""What a rank does with a batch: it yields what it waits for, a function that is told how to go on."""


class ServingRanks:
    """Requests arrive, the serving system makes batch plans, ranks carry them out."""

    def __init__(self, job: Job, scheduler: Scheduler, transport: Transport, agenda: Agenda) -> None:
        self._job = job
        self._scheduler = scheduler
        self._transport = transport
        self._agenda = agenda
        self._overheads = job.simulation.overheads
        self._system = serving_system(job)
        self._decoding = BackgroundSteps(job)
        self._at: dict[str, dict[int, int]] = {}
        self._unfinished: dict[str, int] = {}
        self._busy: set[int] = set()
        self._lines: dict[int, deque[_Loop]] = defaultdict(deque)
        self._paused: dict[str, dict[int, GoOn]] = {}
        self._s3_arrived: dict[int, int] = defaultdict(int)
        self._send_ahead = SendAhead(job.serving.fetch_ahead)
        self._s1_missing: dict[_S1, int] = {}
        self._s1_waiter: dict[_S1, GoOn] = {}
        self._collectives = Collectives(
            transport, agenda, job.placement.groups, grouped=job.simulation.grouped, span=self._span
        )
        self.stories: dict[int, RequestStory] = defaultdict(RequestStory)
        self.spans: Spool[SpanRow] = Spool(SpanRow)
        self.done = 0
        self.total = len(job.requests)

    def caches(self) -> tuple[CacheRow, ...]:
        return self._system.caches()

    def begin(self) -> None:
        for request in sorted(self._job.requests, key=lambda r: (r.arrival_ns, r.id)):
            self._agenda.at(request.arrival_ns, partial(self._arrive, request))
        self._plan_decode_step()

    def _plan_decode_step(self) -> None:
        due_ns = self._decoding.due_ns
        if due_ns is not None:
            self._agenda.at(max(due_ns, self._agenda.now_ns), self._decode_step)

    def _decode_step(self) -> None:
        """What decode workers send each other. It ends with the last first token."""
        if self.done == self.total:
            return
        for message in self._decoding.begin(self._agenda.now_ns):
            self._transport.post(message, partial(self._decode_arrived, message.id))

    def _decode_arrived(self, flow: str) -> None:
        self._decoding.arrived(flow)
        if self._decoding.idle:
            self._plan_decode_step()

    def _arrive(self, request: Request) -> None:
        self._start(self._system.arrive(self._agenda.now_ns, request))

    # --- batches --------------------------------------------------------------------------------

    def _start(self, plans: Sequence[BatchPlan | FetchPlan | Resume]) -> None:
        now_ns = self._agenda.now_ns
        for plan in plans:
            if isinstance(plan, FetchPlan):
                self._send_for(plan)
                continue
            if isinstance(plan, Resume):
                self._resume(plan.batch)
                continue
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
            self.stories[request.request].planned(request, plan)
        for layer in plan.layers:
            self._expect(layer.wait)
        self._post_s1(self._send_ahead.formed(plan))
        mine = [_by_rank(layer) for layer in plan.layers]
        for rank in plan.ranks:
            loop = self._rank(plan, rank, mine)
            if rank in self._busy:
                self._lines[rank].append(loop)
            else:
                self._busy.add(rank)
                self._go_on(rank, loop)

    def _pause(self, plan: BatchPlan, rank: int, layer: int, go_on: GoOn) -> None:
        """The last rank to pause asks what they do now; till then they are free for another batch."""
        paused = self._paused.setdefault(plan.id, {})
        paused[rank] = go_on
        if len(paused) == len(plan.ranks):
            self._busy.difference_update(plan.ranks)
            now_ns = self._agenda.now_ns
            self._agenda.at(now_ns, lambda: self._start(self._system.paused(now_ns, plan.id, layer)))

    def _resume(self, batch: str) -> None:
        paused = self._paused.pop(batch)
        self._busy.update(paused)
        for go_on in paused.values():
            go_on()

    # --- reused KV ------------------------------------------------------------------------------

    def _send_for(self, fetch: FetchPlan) -> None:
        """A queued request's victims send its KV; to the scheduler that is a batch of its own."""
        batch = announced_fetch(fetch, self._job.topology, self._job.placement)
        self._transport.obey(self._scheduler.batch_started(self._agenda.now_ns, batch))
        for transfers in fetch.layers:
            self._expect(transfers)
        self._post_s1(self._send_ahead.queued(fetch))

    def _expect(self, transfers: Iterable[Transfer]) -> None:
        for transfer in transfers:
            key = _s1(transfer)
            self._s1_missing[key] = self._s1_missing.get(key, 0) + 1

    def _post_s1(self, transfers: Iterable[Transfer]) -> None:
        """Victims send these at once; what waits for what is the lanes' business."""
        for transfer in transfers:
            self._transport.post(transfer, partial(self._fetched, _s1(transfer)))

    def _fetched(self, key: _S1) -> None:
        self._s1_missing[key] -= 1
        if self._s1_missing[key] == 0:
            del self._s1_missing[key]
            resume = self._s1_waiter.pop(key, None)
            if resume is not None:
                resume()

    def _rank(self, plan: BatchPlan, rank: int, mine: Sequence[_ByRank]) -> _Loop:
        """The layer loop of one rank, to which `mine` tells its transfers of every layer."""
        place = plan.ranks.index(rank)
        for request in plan.requests:
            self.stories[request.request].began(self._agenda.now_ns)
        for layer, (fetched_by, posted_by) in zip(plan.layers, mine, strict=True):
            if plan.pauses_before(layer.index):
                paused_ns = self._agenda.now_ns
                yield partial(self._pause, plan, rank, layer.index)
                if self._agenda.now_ns > paused_ns:
                    self._span(rank, "paused", "", plan.id, layer.index, paused_ns)
            self._advance(plan, rank, layer.index)
            fetches = fetched_by.get(rank)
            if fetches:
                began_ns = self._agenda.now_ns
                for key in dict.fromkeys(map(_s1, fetches)):
                    if key in self._s1_missing:
                        yield partial(self._s1_waiter.__setitem__, key)
                self._span(rank, "s1_wait", f"{len(fetches)} flows", plan.id, layer.index, began_ns)
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
            for transfer in posted_by.get(rank, ()):
                self._transport.post(transfer, partial(self._delivered, transfer.request))
        self._advance(plan, rank, len(plan.layers))
        self._rank_done(plan)

    def _takes_ns(self, seconds: float) -> int:
        return round(seconds * NS_PER_S) + (self._overheads.compute_ns if seconds > 0 else 0)

    def _go_on(self, rank: int, loop: _Loop) -> None:
        """A rank runs its batches strictly in the order in which they were handed out."""
        wait = next(loop, None)
        if wait is not None:
            wait(partial(self._go_on, rank, loop))
        elif self._lines[rank]:
            self._go_on(rank, self._lines[rank].popleft())
        else:
            self._busy.discard(rank)

    def _advance(self, plan: BatchPlan, rank: int, layer: int) -> None:
        """A batch is where its slowest rank is."""
        at = self._at[plan.id]
        before = min(at.values())
        at[rank] = layer
        reached = min(at.values())
        if reached != before:
            for batch in (plan.id, *plan.fetches):
                self._transport.obey(self._scheduler.layer_advanced(self._agenda.now_ns, batch, reached))
            self._post_s1(self._send_ahead.reached(plan, reached))

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

    def _delivered(self, request_id: int | None) -> None:
        assert request_id is not None
        self._s3_arrived[request_id] += 1
        story = self.stories[request_id]
        assert story.plan is not None
        # Flows of earlier parts of the prompt may be the last to arrive.
        if not story.plan.last or self._s3_arrived[request_id] < story.plan.p2d_flows:
            return
        del self._s3_arrived[request_id]
        story.p2d_end_ns = self._agenda.now_ns
        request = story.plan
        ends_ns = self._agenda.now_ns + self._takes_ns(request.decode_step_s)
        self._agenda.at(ends_ns, lambda: self._first_token(request))

    def _first_token(self, request: RequestPlan) -> None:
        now_ns = self._agenda.now_ns
        story = self.stories[request.request]
        story.first_token_ns = now_ns
        self._span(
            request.decode_rank,
            "decode",
            f"request {request.request}",
            story.batch,
            None,
            story.p2d_end_ns or 0,
        )
        self._system.first_token(now_ns, request.request)
        self.done += 1

    def _span(
        self, rank: int, kind: str, label: str, batch: str | None, layer: int | None, start_ns: int
    ) -> None:
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


def _by_rank(layer: LayerPlan) -> _ByRank:
    fetched: dict[int, list[Transfer]] = {}
    posted: dict[int, list[Transfer]] = {}
    for transfer in (*layer.wait, *layer.under_way):
        fetched.setdefault(transfer.dst, []).append(transfer)
    for transfer in layer.post:
        posted.setdefault(transfer.src, []).append(transfer)
    return fetched, posted


def _s1(transfer: Transfer) -> _S1:
    return transfer.batch or "", transfer.layer, transfer.dst


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

    def caches(self) -> tuple[CacheRow, ...]:
        """No request, nothing cached."""
        return ()

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
