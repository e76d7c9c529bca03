"""Runs a job in wall time: carries out the conductor's actions, and reports back what ranks did."""

import math
import time
from collections.abc import Callable, Iterable
from typing import assert_never

import msgspec
import zmq

from controller.flow import Transfer
from controller.protocol import BatchKnown, FlowCounts
from controller.units import NS_PER_S
from testbed.emulation.control import ControllerProcess
from testbed.emulation.ranks import RankProcesses
from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job, MicroFlow
from testbed.live import FlowsNow, LiveState, PortNow
from testbed.serving.actions import Action, Announce, AtLayer, Expect, GoOn, Post, PostTimed, Run
from testbed.serving.conductor import Conductor
from testbed.serving.plans.fetching import by_sender
from workers.first_tokens import FirstSteps
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
    TimedTransfer,
    Transfers,
)

_STALL_S = 60.0
_REPORT_S = 0.5
_PORTS_SHOWN = 8


def _longest_s(job: Job) -> float:
    """Model seconds for which a healthy run may have nothing to report.

    A batch may report only at its end. It holds at most `max_batch_tokens` or one longer prompt, so a
    multiple of the longest unloaded TTFT covers it. Micro flows report when they arrive, and all of them
    may have to share the slowest link.
    """
    if job.flows:
        slowest_bps = min(link.bps for link in job.topology.links)
        return sum(flow.transfer.size_bytes for flow in job.flows) * 8 / slowest_bps
    return 20 * max((r.unloaded_ns for r in job.requests), default=0) / NS_PER_S


class Player:
    """Passes reports and due moments to the conductor, and carries out its actions, until it is done."""

    def __init__(
        self,
        job: Job,
        conductor: Conductor,
        controller: ControllerProcess,
        ranks: RankProcesses,
        progress: Callable[[RunProgress], None],
        ports: Callable[[], tuple[PortNow, ...]] = tuple,
    ) -> None:
        self._job = job
        self._conductor = conductor
        self._controller = controller
        self._ranks = ranks
        self._progress = progress
        self._ports = ports
        self._flows: FlowsNow | None = None
        self._zero_wall_ns = 0
        self._patience_s = _STALL_S + _longest_s(job) * job.scale.time_dilation
        self._last_start_ns = 0
        self._without_ranks: set[str] = set()
        self._first_steps = FirstSteps()

    def play(self, zero_wall_ns: int, alive: Callable[[], None]) -> None:
        """Return when all work is done. `alive` is called twice a second and may raise `RunFailed`.

        Raises `RunFailed` if a rank or the controller reports trouble, or if nothing has moved for a minute
        longer than the work can explain.
        """
        self._zero_wall_ns = zero_wall_ns
        poller = zmq.Poller()
        poller.register(self._ranks.inbox, zmq.POLLIN)
        poller.register(self._controller.inbox, zmq.POLLIN)
        moved = reported = time.monotonic()
        steps = 0
        self._do(self._conductor.begin())
        while not self._conductor.finished:
            due_ns = self._due_ns()
            wait_s = _REPORT_S if due_ns is None else min(_REPORT_S, self._wall_until(due_ns))
            ready = dict(poller.poll(max(0, math.ceil(wait_s * 1000))))
            if self._controller.inbox in ready:
                message = self._controller.receive()
                if isinstance(message, BatchKnown):
                    self._do(self._conductor.known(message.batch))
                elif isinstance(message, FlowCounts):
                    self._flows = msgspec.convert(message, FlowsNow, from_attributes=True)
            if self._ranks.inbox in ready:
                report = self._ranks.receive(0.0)
                if report is not None:
                    self._hear(report)
            self._act_if_due(self._now_ns())
            now = time.monotonic()
            if self._conductor.steps != steps or self._only_waits():
                moved, steps = now, self._conductor.steps
            if now - reported >= _REPORT_S:
                reported = now
                alive()
                self._ranks.check()
                self._report()
            if now - moved > self._patience_s:
                raise RunFailed(
                    f"nothing has moved for {self._patience_s:.0f} s: {self._conductor.describe()}"
                )

    def _report(self) -> None:
        """Report the progress, with what flows did at the last report, and ask what they do now."""
        done, total, now_ns = self._conductor.done, self._conductor.total, self._now_ns()
        ports = self._ports()
        live = LiveState(
            time_ns=now_ns,
            requests=self._conductor.requests_at(now_ns),
            flows=self._flows,
            ports=ports[:_PORTS_SHOWN],
            ports_in_all=len(ports),
        )
        self._progress(RunProgress(phase="running", done=done, total=total, live=live))
        self._controller.ask_flows()

    # --- when -----------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        wall_ns = time.monotonic_ns() - self._zero_wall_ns
        return round(wall_ns / self._job.scale.time_dilation)

    def _wall_until(self, model_ns: int) -> float:
        return (model_ns - self._now_ns()) * self._job.scale.time_dilation / NS_PER_S

    def _due_ns(self) -> int | None:
        """Model time of the next act of the conductor or start of a micro flow; None if none is planned."""
        due_ns = self._conductor.due_ns
        if due_ns is None and self._now_ns() < self._last_start_ns:
            return self._last_start_ns
        return due_ns

    def _only_waits(self) -> bool:
        """Whether nothing has to happen before the next arrival, or before the last micro flow starts."""
        return not self._conductor.under_way or self._now_ns() < self._last_start_ns

    def _act_if_due(self, now_ns: int) -> None:
        due_ns = self._conductor.due_ns
        if due_ns is not None and due_ns <= now_ns:
            self._do(self._conductor.act(now_ns))

    # --- what the conductor decides -------------------------------------------------------------

    def _do(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Announce(batch=batch, ranks=ranks):
                    if not ranks:
                        self._without_ranks.add(batch.id)
                    self._controller.batch_started(batch, ranks)
                case Expect(plan=plan):
                    self._expect(plan)
                case Post(transfers=transfers):
                    self._post(transfers)
                case PostTimed(flows=flows):
                    self._post_timed(flows)
                case Run(plan=plan):
                    for rank in plan.ranks:
                        self._ranks.send(rank, Plan(plan=plan))
                case GoOn(plan=plan):
                    for rank in plan.ranks:
                        self._ranks.send(rank, Resume(batch=plan.id))
                case AtLayer(batches=batches, layer=layer):
                    # Ranks that run a batch report its layers to the controller themselves.
                    for name in self._without_ranks.intersection(batches):
                        self._controller.layer_advanced(name, layer)
                case _:
                    assert_never(action)

    def _expect(self, plan: BatchPlan | FetchPlan) -> None:
        """Send a batch plan to its decode workers before the first flow of a request can arrive."""
        if isinstance(plan, BatchPlan):
            decoding = {rank for request in plan.requests for rank in request.decode_ranks}
            for rank in sorted(decoding - set(plan.ranks)):
                self._ranks.send(rank, Plan(plan=plan))

    def _post(self, transfers: tuple[Transfer, ...]) -> None:
        for rank, own in by_sender(transfers).items():
            self._ranks.send(rank, Transfers(transfers=own))

    def _post_timed(self, flows: tuple[MicroFlow, ...]) -> None:
        by_source: dict[int, list[TimedTransfer]] = {}
        for flow in flows:
            self._last_start_ns = max(self._last_start_ns, flow.start_ns)
            timed = TimedTransfer(transfer=flow.transfer, start_ns=flow.start_ns)
            by_source.setdefault(flow.transfer.src, []).append(timed)
        for rank, own in by_source.items():
            self._ranks.send(rank, Flows(flows=tuple(own)))

    # --- what the ranks report ------------------------------------------------------------------

    def _hear(self, report: FromRank) -> None:
        conductor, now_ns = self._conductor, self._now_ns()
        match report:
            case Arrived():
                self._do(conductor.arrived(report.flow))
            case LayerBegun():
                self._do(conductor.layer_begun(now_ns, report.batch, report.rank, report.layer))
            case Paused():
                self._do(conductor.paused(now_ns, report.batch, report.rank, report.layer))
            case BatchDone():
                done = conductor.rank_done(now_ns, report.batch, report.rank, report.start_ns, report.end_ns)
                self._do(done)
            case FirstToken():
                first = self._first_steps.taken(report)
                if first is not None:
                    self._do(conductor.first_token(first.time_ns, first.request, first.p2d_end_ns))
