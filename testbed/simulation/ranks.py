"""The ranks of a simulated run. They do what `workers.rank` does, and compute takes what the plan says."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from controller.flow import Transfer
from controller.units import NS_PER_S
from testbed.columns import ColumnSpool
from testbed.job import Job
from testbed.record import SpanRow
from testbed.simulation.agenda import Agenda
from testbed.simulation.collectives import Collectives, Proceed
from testbed.simulation.transport import Transport
from workers.first_tokens import ByConductor, ByFirstToken, ByLayer, Delivered, Deliveries, awaited
from workers.plan import BatchPlan, Compute, FetchPlan, LayerPlan
from workers.spans import SpanKind

_S1 = tuple[str, int | None, int]
"""The S1 transfers of one batch or fetch plan to one rank for one layer: its id, the layer, the rank."""

_ByRank = tuple[Mapping[int, Sequence[Transfer]], Mapping[int, Sequence[Transfer]]]
"""For one layer: the S1 transfers that each rank waits for, and the S3 transfers that each posts."""

_Loop = Iterator[Callable[[Proceed], None]]
"""A rank's work on a batch. Where it waits, it yields a function that takes what to call to go on."""


class Reports(Protocol):
    """What the ranks report. All of it happens now, in model time."""

    def layer_begun(self, batch: str, rank: int, layer: int) -> None: ...

    def paused(self, batch: str, rank: int, layer: int) -> None: ...

    def rank_done(self, batch: str, rank: int, start_ns: int) -> None: ...

    def first_token(self, request: int, p2d_end_ns: int) -> None: ...

    def arrived(self, flow: str) -> None: ...


class SimulatedRanks:
    """The ranks of `job`: they run plans over `transport`, and report to `reports`."""

    def __init__(self, job: Job, transport: Transport, agenda: Agenda, reports: Reports) -> None:
        self._job = job
        self._transport = transport
        self._agenda = agenda
        self._reports = reports
        self._overheads = job.simulation.overheads
        self._busy: set[int] = set()
        self._lines: dict[int, deque[_Loop]] = defaultdict(deque)
        self._paused: dict[str, list[Proceed]] = defaultdict(list)
        self._deliveries = Deliveries()
        self._s1_missing: dict[_S1, int] = {}
        self._s1_waiter: dict[_S1, Proceed] = {}
        self._collectives = Collectives(
            transport,
            agenda,
            job.placement.groups,
            grouped=job.simulation.grouped,
            span=self._span,
            takes_ns=self._takes_ns,
        )
        self.spans: ColumnSpool[SpanRow] = ColumnSpool(SpanRow)

    def expect(self, plan: BatchPlan | FetchPlan) -> None:
        """Prepare for the transfers of `plan`, which may arrive before a rank reaches it."""
        if isinstance(plan, BatchPlan):
            for request in plan.requests:
                self._deliveries.planned(request, plan.id)
        fetched = plan.layers if isinstance(plan, FetchPlan) else (layer.wait for layer in plan.layers)
        for transfers in fetched:
            for transfer in transfers:
                key = _s1(transfer)
                self._s1_missing[key] = self._s1_missing.get(key, 0) + 1

    def post(self, transfer: Transfer) -> None:
        """Submit `transfer`. Whatever waits for it goes on when it has arrived."""
        match awaited(transfer.stage, transfer.request):
            case ByConductor():
                done = partial(self._reports.arrived, transfer.id)
            case ByFirstToken(request=request):
                done = partial(self._delivered, request)
            case ByLayer():
                done = partial(self._fetched, _s1(transfer))
        self._transport.post(transfer, done)

    def run(self, plan: BatchPlan) -> None:
        """Hand `plan` to its ranks."""
        mine = [_by_rank(layer) for layer in plan.layers]
        for rank in plan.ranks:
            loop = self._rank(plan, rank, mine)
            if rank in self._busy:
                self._lines[rank].append(loop)
            else:
                self._busy.add(rank)
                self._advance(rank, loop)

    def go_on(self, plan: BatchPlan) -> None:
        """Let the ranks that paused in `plan` go on."""
        self._busy.update(plan.ranks)
        for go_on in self._paused.pop(plan.id):
            go_on()

    # --- flows that have arrived ----------------------------------------------------------------

    def _fetched(self, key: _S1) -> None:
        self._s1_missing[key] -= 1
        if self._s1_missing[key] == 0:
            del self._s1_missing[key]
            resume = self._s1_waiter.pop(key, None)
            if resume is not None:
                resume()

    def _delivered(self, request: int) -> None:
        delivered = self._deliveries.arrived(request, self._agenda.now_ns)
        if delivered is not None:
            ends_ns = self._agenda.now_ns + self._takes_ns(delivered.plan.decode_step_s)
            self._agenda.at(ends_ns, partial(self._first_token, delivered))

    def _first_token(self, delivered: Delivered) -> None:
        plan, p2d_end_ns = delivered.plan, delivered.p2d_end_ns
        label = f"request {plan.request}"
        self._span(plan.decode_rank, SpanKind.DECODE_STEP, label, delivered.batch, None, p2d_end_ns)
        self._reports.first_token(plan.request, p2d_end_ns)

    # --- the layer loop -------------------------------------------------------------------------

    def _rank(self, plan: BatchPlan, rank: int, mine: Sequence[_ByRank]) -> _Loop:
        """The layer loop of one rank. `mine` has the transfers of every rank, layer by layer."""
        reports, agenda = self._reports, self._agenda
        place = plan.ranks.index(rank)
        start_ns = agenda.now_ns
        for layer, (fetched_by, posted_by) in zip(plan.layers, mine, strict=True):
            if plan.pauses_before(layer.index):
                paused_ns = agenda.now_ns
                yield partial(self._pause, plan, rank, layer.index)
                if agenda.now_ns > paused_ns:
                    self._span(rank, SpanKind.PAUSED, "", plan.id, layer.index, paused_ns)
            reports.layer_begun(plan.id, rank, layer.index)
            fetches = fetched_by.get(rank)
            if fetches:
                began_ns = agenda.now_ns
                for key in dict.fromkeys(map(_s1, fetches)):
                    if key in self._s1_missing:
                        yield partial(self._s1_waiter.__setitem__, key)
                self._span(rank, SpanKind.S1_WAIT, f"{len(fetches)} flows", plan.id, layer.index, began_ns)
            for step in layer.steps:
                began_ns = agenda.now_ns
                if isinstance(step, Compute):
                    ends_ns = began_ns + self._takes_ns(step.seconds[place])
                    if ends_ns > began_ns:
                        yield partial(agenda.at, ends_ns)
                    self._span(rank, SpanKind.COMPUTE, step.label, plan.id, layer.index, began_ns)
                elif rank in self._job.placement.groups[step.group]:
                    yield partial(self._collectives.join, step, plan.id, layer.index, rank)
                    if not step.round_seconds:
                        self._span(rank, SpanKind.COLLECTIVE, step.label, plan.id, layer.index, began_ns)
            for transfer in posted_by.get(rank, ()):
                self.post(transfer)
        reports.layer_begun(plan.id, rank, len(plan.layers))
        reports.rank_done(plan.id, rank, start_ns)

    def _pause(self, plan: BatchPlan, rank: int, layer: int, go_on: Proceed) -> None:
        """Pause a rank. It is free for another batch until it may go on."""
        self._paused[plan.id].append(go_on)
        self._busy.discard(rank)
        self._reports.paused(plan.id, rank, layer)

    def _takes_ns(self, seconds: float) -> int:
        return round(seconds * NS_PER_S) + (self._overheads.compute_ns if seconds > 0 else 0)

    def _advance(self, rank: int, loop: _Loop) -> None:
        """Go on with a rank's batch. A rank runs its batches strictly in the order in which it got them."""
        wait = next(loop, None)
        if wait is not None:
            wait(partial(self._advance, rank, loop))
        elif self._lines[rank]:
            self._advance(rank, self._lines[rank].popleft())
        else:
            self._busy.discard(rank)

    def _span(
        self, rank: int, kind: SpanKind, label: str, batch: str | None, layer: int | None, start_ns: int
    ) -> None:
        if not self._job.collect.has_span(kind):
            return
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
