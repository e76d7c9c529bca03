"""Plays a job in wall-clock time: arrivals in, plans out to the ranks, first tokens back."""

import math
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import zmq

from controller.flow import Transfer
from controller.protocol import BatchKnown
from testbed.emulation.control import ControllerProcess
from testbed.emulation.ranks import RankProcesses
from testbed.fabric import Progress, RunFailed
from testbed.job import Job
from testbed.record import CacheRow
from testbed.serving.decoding import BackgroundSteps
from testbed.serving.micro import MicroBatches
from testbed.serving.plans.fetching import SendAhead, announced_fetch, by_sender
from testbed.serving.plans.outlook import announced
from testbed.serving.replay import serving_system
from testbed.serving.story import RequestStory
from workers.plan import BatchPlan, FetchPlan, Resume
from workers.protocol import (
    Arrived,
    BatchDone,
    FirstToken,
    Flows,
    FromRank,
    LayerBegun,
    Paused,
    Plan,
    Send,
    TimedTransfer,
)

_STALL_S = 60.0
_REPORT_S = 0.5


def _longest_s(job: Job) -> float:
    """Model seconds for which a healthy run may have nothing to report.

    A batch reports at its end only; it holds at most `max_batch_tokens` or one longer prompt, so a
    few of the longest unloaded TTFTs cover it. Micro flows report when they arrive: all of them may
    have to share the slowest link.
    """
    if job.flows:
        slowest_bps = min(link.bps for link in job.topology.links)
        return sum(flow.transfer.size_bytes for flow in job.flows) * 8 / slowest_bps
    return 20 * max((r.unloaded_ns for r in job.requests), default=0) / 1e9


class Player(ABC):
    """The loop both kinds of work share: wait for a message or the next due moment, act, repeat."""

    def __init__(
        self,
        job: Job,
        controller: ControllerProcess,
        ranks: RankProcesses,
        progress: Callable[[Progress], None],
    ) -> None:
        self._job = job
        self._controller = controller
        self._ranks = ranks
        self._progress = progress
        self._zero_wall_ns = 0
        self._patience_s = _STALL_S + _longest_s(job) * job.scale.time_dilation
        self.stories: dict[int, RequestStory] = {}

    def play(self, zero_wall_ns: int, alive: Callable[[], None]) -> None:
        """Return when all work is done.

        Raises `RunFailed` when nothing has moved for a minute longer than the work could explain.
        """
        self._zero_wall_ns = zero_wall_ns
        poller = zmq.Poller()
        poller.register(self._ranks.inbox, zmq.POLLIN)
        poller.register(self._controller.inbox, zmq.POLLIN)
        moved = reported = time.monotonic()
        self.begin()
        while not self.finished():
            due_ns = self.due_ns()
            wait_s = _REPORT_S if due_ns is None else min(_REPORT_S, self._wall_until(due_ns))
            ready = dict(poller.poll(max(0, math.ceil(wait_s * 1000))))
            if self._controller.inbox in ready:
                message = self._controller.receive()
                if isinstance(message, BatchKnown):
                    self.on_batch_known(message.batch)
            if self._ranks.inbox in ready:
                report = self._ranks.receive(0.0)
                if report is not None:
                    self.on_report(report)
            if self.act_if_due(self.now_ns()) or ready:
                moved = time.monotonic()
            now = time.monotonic()
            if now - reported >= _REPORT_S:
                reported = now
                alive()
                self._ranks.check()
                done, total = self.counts()
                self._progress(Progress(phase="running", done=done, total=total))
            if now - moved > self._patience_s and (due_ns is None or self._wall_until(due_ns) <= 0):
                raise RunFailed(f"nothing has moved for {self._patience_s:.0f} s: {self.describe()}")

    def now_ns(self) -> int:
        wall_ns = time.monotonic_ns() - self._zero_wall_ns
        return round(wall_ns / self._job.scale.time_dilation)

    def _wall_until(self, model_ns: int) -> float:
        return (model_ns - self.now_ns()) * self._job.scale.time_dilation / 1e9

    def describe(self) -> str:
        done, total = self.counts()
        return f"{done} of {total} done"

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def finished(self) -> bool: ...

    @abstractmethod
    def counts(self) -> tuple[int, int]:
        """Done and total, for progress."""

    @abstractmethod
    def on_report(self, report: FromRank) -> None: ...

    def caches(self) -> tuple[CacheRow, ...]:
        """What the prefix caches were good for; nothing where none is."""
        return ()

    def due_ns(self) -> int | None:
        """Model time of the next thing to do unasked."""
        return None

    def act_if_due(self, now_ns: int) -> bool:
        """Do what is due; whether anything was."""
        return False

    def on_batch_known(self, batch: str) -> None:  # noqa: B027  micro flows announce no plans
        """The scheduler knows the batch: its ranks may have the plan."""


@dataclass(slots=True)
class _RunningBatch:
    plan: BatchPlan
    missing: set[int]
    at: dict[int, int]
    paused: set[int] = field(default_factory=set)
    start_ns: int | None = None
    end_ns: int = 0


@dataclass(slots=True)
class _Ledger:
    announced: dict[str, BatchPlan | FetchPlan] = field(default_factory=dict)
    running: dict[str, _RunningBatch] = field(default_factory=dict)
    first_tokens: int = 0


class ServingPlayer(Player):
    """Requests arrive, the serving system makes batch plans, ranks carry them out."""

    def begin(self) -> None:
        self._system = serving_system(self._job)
        self._decoding = BackgroundSteps(self._job)
        self._ledger = _Ledger()
        self._send_ahead = SendAhead(self._job.serving.fetch_ahead)
        self._arrivals = sorted(self._job.requests, key=lambda r: (r.arrival_ns, r.id), reverse=True)
        self.stories = defaultdict(RequestStory)

    def finished(self) -> bool:
        return self._all_answered() and self._decoding.idle

    def _all_answered(self) -> bool:
        return self._ledger.first_tokens == len(self._job.requests)

    def counts(self) -> tuple[int, int]:
        return self._ledger.first_tokens, len(self._job.requests)

    def due_ns(self) -> int | None:
        arrival_ns = self._arrivals[-1].arrival_ns if self._arrivals else None
        step_ns = None if self._all_answered() else self._decoding.due_ns
        return min((t for t in (arrival_ns, step_ns) if t is not None), default=None)

    def act_if_due(self, now_ns: int) -> bool:
        acted = False
        step_ns = self._decoding.due_ns
        if step_ns is not None and step_ns <= now_ns and not self._all_answered():
            self._send(self._decoding.begin(now_ns))
            acted = True
        while self._arrivals and self._arrivals[-1].arrival_ns <= now_ns:
            self._announce(self._system.arrive(now_ns, self._arrivals.pop()))
            acted = True
        return acted

    def caches(self) -> tuple[CacheRow, ...]:
        return self._system.caches()

    def _announce(self, plans: Sequence[BatchPlan | FetchPlan | Resume]) -> None:
        """Tell the scheduler of the batches; the ranks hear of them once it has answered.

        So no rank can submit a flow of a batch that the scheduler has not heard of.
        """
        for plan in plans:
            if isinstance(plan, Resume):
                for rank in self._ledger.running[plan.batch].plan.ranks:
                    self._ranks.send(rank, plan)
                continue
            self._ledger.announced[plan.id] = plan
            topology, placement = self._job.topology, self._job.placement
            if isinstance(plan, FetchPlan):
                # Its layers will be told by the ranks of the batch that its request will be in.
                fetch = announced_fetch(plan, topology, placement)
                self._controller.batch_started(fetch, placement.units[plan.unit])
            else:
                self._controller.batch_started(announced(plan, topology, placement), plan.ranks)

    def on_batch_known(self, batch: str) -> None:
        plan = self._ledger.announced.pop(batch)
        if isinstance(plan, FetchPlan):
            self._send(self._send_ahead.queued(plan))
            return
        self._send_ahead.formed(plan)  # its victims have the plan, and send what is due
        self._ledger.running[batch] = _RunningBatch(plan, set(plan.ranks), dict.fromkeys(plan.ranks, -1))
        for request in plan.requests:
            self.stories[request.request].planned(request, plan)
        involved = set(plan.ranks) | {request.decode_rank for request in plan.requests}
        for layer in plan.layers:
            involved.update(transfer.src for transfer in layer.wait)
        # Receivers first: a decode worker must expect a request before its first flow arrives.
        for rank in sorted(involved, key=lambda rank: (rank in plan.ranks, rank)):
            self._ranks.send(rank, Plan(plan=plan))

    def _send(self, transfers: Sequence[Transfer]) -> None:
        for rank, own in by_sender(transfers).items():
            self._ranks.send(rank, Send(transfers=own))

    def on_report(self, report: FromRank) -> None:
        match report:
            case LayerBegun():
                batch = self._ledger.running[report.batch]
                batch.at[report.rank] = report.layer
                self._send(self._send_ahead.reached(batch.plan, min(batch.at.values())))
            case Arrived():
                self._decoding.arrived(report.flow)
            case Paused():
                self._paused(report)
            case BatchDone():
                self._batch_done(report)
            case FirstToken():
                story = self.stories[report.request]
                story.p2d_end_ns, story.first_token_ns = report.p2d_end_ns, report.time_ns
                self._ledger.first_tokens += 1
                self._system.first_token(report.time_ns, report.request)

    def _paused(self, report: Paused) -> None:
        batch = self._ledger.running[report.batch]
        batch.paused.add(report.rank)
        if len(batch.paused) == len(batch.plan.ranks):
            batch.paused.clear()
            self._announce(self._system.paused(self.now_ns(), report.batch, report.layer))

    def _batch_done(self, report: BatchDone) -> None:
        batch = self._ledger.running[report.batch]
        batch.missing.discard(report.rank)
        starts = [report.start_ns] if batch.start_ns is None else [report.start_ns, batch.start_ns]
        batch.start_ns = min(starts)
        batch.end_ns = max(batch.end_ns, report.end_ns)
        if not batch.missing:
            del self._ledger.running[report.batch]
            for request in batch.plan.requests:
                story = self.stories[request.request]
                story.began(batch.start_ns)
                story.prefill_end_ns = batch.end_ns
            self._announce(self._system.batch_done(self.now_ns(), report.batch))

    def describe(self) -> str:
        running = ", ".join(
            f"{id_} waits for ranks {sorted(b.missing)}" for id_, b in self._ledger.running.items()
        )
        return f"{super().describe()}; {running or 'no batch is running'}"


class FlowPlayer(Player):
    """The micro workload: every rank posts its flows at their time; done when all have arrived.

    Flows may name a batch and a layer (`MicroBatches`).
    """

    def begin(self) -> None:
        self._missing = {flow.transfer.id: flow.transfer for flow in self._job.flows}
        self._last_start_ns = max(flow.start_ns for flow in self._job.flows)
        self._batches = MicroBatches(flow.transfer for flow in self._job.flows)
        for batch in self._batches.batches:
            self._controller.wait_until_known(batch)
            self._controller.layer_advanced(batch.id, self._batches.layer(batch.id))
        by_source: dict[int, list[TimedTransfer]] = {}
        for flow in self._job.flows:
            timed = TimedTransfer(transfer=flow.transfer, start_ns=flow.start_ns)
            by_source.setdefault(flow.transfer.src, []).append(timed)
        for rank, flows in by_source.items():
            self._ranks.send(rank, Flows(flows=tuple(flows)))

    def finished(self) -> bool:
        return not self._missing

    def counts(self) -> tuple[int, int]:
        total = len(self._job.flows)
        return total - len(self._missing), total

    def due_ns(self) -> int | None:
        return self._last_start_ns if self.now_ns() < self._last_start_ns else None

    def on_report(self, report: FromRank) -> None:
        if isinstance(report, Arrived):
            transfer = self._missing.pop(report.flow, None)
            layer = None if transfer is None else self._batches.arrived(transfer)
            if transfer is not None and transfer.batch is not None and layer is not None:
                self._controller.layer_advanced(transfer.batch, layer)

    def describe(self) -> str:
        return f"still on their way: {', '.join(sorted(self._missing)[:10])}"
